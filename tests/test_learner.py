"Training, scoring, saving and loading, on pictures that the tests make."
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.all import CSVLogger, MixedPrecision, SaveModelCallback
from sklearn.metrics import f1_score

from portrait_nb.callbacks import BF16, SkipValidation
from portrait_nb.data import portrait_dls
from portrait_nb import learner as learner_module
from portrait_nb.learner import chance_scores, evaluate_model, fss_learner, load_portrait_model, paper_lr, run_model, save_portrait_model, score_model, score_table
from portrait_nb.metrics import piq
from portrait_nb.tasks import PORTRAIT, Task, Tasks

MARKET = Tasks([PORTRAIT['identity'], PORTRAIT['gender'], PORTRAIT['age']])
ATTRIBUTES = Tasks(PORTRAIT.attributes)
LISTS = dict(portrait=PORTRAIT, market=MARKET, attributes=ATTRIBUTES, identity=Tasks([PORTRAIT['identity']]), age=Tasks([PORTRAIT['age']]))


def learner(portraits, tasks=PORTRAIT, **kwargs):
    root, df = portraits
    dls = portrait_dls(df, root, tasks, size=(64, 32), bs=16, num_workers=0, seed=0, device='cpu')
    return fss_learner(dls, 'test_resnet', pretrained=False, **kwargs)


def fit(learn, n=1):
    with learn.no_bar(), learn.no_logging(): learn.fit_paper(n)
    return learn


@pytest.mark.parametrize('tasks', LISTS.values(), ids=LISTS)
@pytest.mark.parametrize('split', ['fss', 'shared'])
def test_any_list_of_tasks_trains_scores_and_travels(portraits, tasks, split, tmp_path):
    learn = fit(learner(portraits, tasks, split=split))
    scores = learn.portrait_scores()
    assert set(t.name for t in tasks.attributes) <= set(scores) and 0 <= scores['PIQ'] <= 1
    assert ('mAP' in scores) == (tasks.identity is not None)
    np.testing.assert_allclose(scores['PIQ'], piq(scores, tasks))
    model = load_portrait_model(save_portrait_model(learn, tmp_path/'model'))
    again = score_model(model, learn.dls.query, learn.dls.gallery)
    for k in scores: np.testing.assert_allclose(again[k], scores[k], rtol=1e-6)


@pytest.mark.parametrize('tasks', LISTS.values(), ids=LISTS)
def test_any_list_of_tasks_is_reported(portraits, tasks, tmp_path):
    learn = learner(portraits, tasks)
    scores, report = learn.portrait_scores(), learn.portrait_report(n=20)
    value = report['intervals'].value
    assert set(value.index) >= {t.name for t in tasks.attributes} | ({'mAP', 'rank1'} if tasks.identity else set())
    for k in value.index.intersection(list(scores)): np.testing.assert_allclose(value[k], scores[k], rtol=1e-6)
    assert ('subgroups' in report) == bool({'gender', 'age'} & set(tasks.names)) and all(o.is_file() for o in learn.portrait_report(n=20, folder=tmp_path/'r'))


def test_scores_show_accuracy_and_the_majority_guess(portraits):
    root, df = portraits
    learn = learner(portraits)
    scores = learn.portrait_scores()
    train, test = (df[(df.split == 'train') == o] for o in (True, False))
    for t in ATTRIBUTES:
        known, seen = test[test[t.name] != ''], train[train[t.name] != '']
        if t.multilabel:
            hot = lambda part: np.array([[o in cell.split('|') for o in t.labels] for cell in part[t.name]])
            want = (hot(known) == (hot(seen).mean(0) > .5)).mean()
        else:
            counts = seen[t.name].value_counts().reindex(t.labels, fill_value=0)
            want = (known[t.name] == counts.idxmax()).mean()
        assert scores.attributes.majority_accuracy[t.name] == pytest.approx(want)
    assert dict(scores) == {k: scores[k] for k in scores} and not [k for k in scores if 'accuracy' in k]
    table = score_table(a=scores, b=dict(scores), chance=chance_scores(learn.dls, n=2))
    assert list(table.columns) == ['a', 'a accuracy', 'b', 'chance', 'chance accuracy', 'majority', 'majority accuracy'] and list(table.index)[-1] == 'PIQ'
    assert list(score_table(b=dict(scores)).columns) == ['b']
    assert 'accuracy' in repr(scores) and 'NaN' not in repr(scores)
    scores.attributes['accuracy'] = 0.
    assert 'In 7 of 7 sub-tasks the model is less often right' in repr(scores)


def test_the_network_runs_once_for_scores_and_report(portraits, monkeypatch):
    learn = learner(portraits)
    want, calls = learn.portrait_scores(), []
    for name in ('run_model', '_retrieval'):
        real = getattr(learner_module, name)
        monkeypatch.setattr(learner_module, name, lambda *args, real=real, name=name: (calls.append(name), real(*args))[1])
    scores, report = evaluate_model(learn.model, learn.dls.query, learn.dls.gallery, train=learn.dls.train.dataset.labels, n=20)
    assert sorted(calls) == ['_retrieval', 'run_model', 'run_model'] and scores == want
    assert report['intervals'].value['PIQ'] == pytest.approx(scores['PIQ']) and report['accuracy'].accuracy.tolist() == scores.attributes.accuracy.tolist()


def test_a_report_page_shows_portraits_only_where_asked(portraits, tmp_path):
    learn = learner(portraits, MARKET)
    assert '<img ' in learn.portrait_report(n=20, folder=tmp_path/'a')[-1].read_text()
    assert '<img ' not in learn.portrait_report(n=20, folder=tmp_path/'b', pictures=False)[-1].read_text()


def test_a_report_without_query_or_match(portraits):
    root, df = portraits
    for part, tasks in ((df[df.split != 'query'], ATTRIBUTES), (df.assign(identity=np.where(df.split == 'query', 'nobody else', df.identity)), PORTRAIT)):
        report = learner((root, part), tasks).portrait_report(n=20)
        assert 'mAP' not in report['intervals'].index and np.isfinite(report['intervals'].value['age'])


def test_attribute_scores_agree_with_scikit_learn(portraits):
    learn = fit(learner(portraits))
    _, df = portraits
    scores, test = learn.portrait_scores(), df[df.split != 'train']
    model = learn.model.eval()
    with torch.no_grad(): out = [model(x)['logits'] for dl in (learn.dls.query, learn.dls.gallery) for x, _ in dl]
    for t in ATTRIBUTES:
        logits, labelled = torch.cat([o[t.name] for o in out]), (test[t.name] != '').values
        if t.multilabel:
            actual = np.array([[label in cell.split('|') for label in t.labels] for cell in test[t.name][labelled]])
            predicted = (logits > 0).numpy()[labelled]
        else: actual, predicted = test[t.name][labelled], np.array(t.labels)[logits.argmax(1).numpy()[labelled]]
        seen = list(range(t.n_labels)) if t.multilabel else sorted(set(actual))
        np.testing.assert_allclose(scores[t.name], f1_score(actual, predicted, average='macro', labels=seen, zero_division=0), rtol=1e-6)


def test_paper_schedule_is_section_6_1():
    for epoch in range(100):
        want = 3.5e-5+(3.5e-4-3.5e-5)*epoch/10 if epoch < 10 else 3.5e-4/10**sum(epoch >= o for o in (30, 60, 90))
        assert paper_lr(epoch/100) == pytest.approx(want, rel=1e-9)


def test_uncertainties_learn_and_are_not_decayed(portraits):
    learn = fit(learner(portraits, weighting='uncertainty'))
    s = learn.loss_func.s
    assert s.detach().abs().min() > 0
    assert learn.opt.state[s]['do_wd'] is False
    assert any(p is s for p in learn.opt.param_lists[1])
    assert learner(portraits, weighting='average').loss_func.s is None


@pytest.mark.parametrize('cbs', [[], [BF16()], [SkipValidation()], [MixedPrecision(amp_mode='bf16')]], ids=['plain', 'bf16', 'unvalidated', 'mixed'])
def test_callbacks_of_ours_and_fastais(portraits, cbs, tmp_path):
    learn = learner(portraits, path=tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 1e-3, cbs=cbs)
    assert np.isfinite(learn.loss_recorder.log.query('phase=="train"').cls).all()
    assert np.isfinite(learn.portrait_scores()['PIQ'])


def test_fastai_keeps_the_uncertainties(portraits, tmp_path):
    learn = learner(portraits, path=tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-2, cbs=[SaveModelCallback(fname='best'), CSVLogger()])
    s = learn.loss_func.s.detach().clone()
    other = learner(portraits, path=tmp_path).load('best')
    torch.testing.assert_close(other.loss_func.s.detach(), s)
    assert (tmp_path/'history.csv').is_file()


def test_same_seed_same_weights(portraits):
    def once():
        torch.manual_seed(0)
        return fit(learner(portraits)).model.state_dict()
    a, b = once(), once()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_attributes_alone_need_no_query(portraits):
    root, df = portraits
    learn = learner((root, df[df.split != 'query']), ATTRIBUTES)
    scores, chance = learn.portrait_scores(), chance_scores(learn.dls)
    assert np.isfinite([scores['PIQ'], chance['PIQ']]).all() and 'mAP' not in scores
    with pytest.raises(ValueError, match="split is 'query' or 'gallery'"): learner((root, df[df.split == 'train']), ATTRIBUTES).portrait_scores()


def test_cameras_take_out_the_same_source(portraits):
    root, df = portraits
    df = df.assign(source=[f'c{i % 2}' for i in range(len(df))], group='')
    learn = learner((root, df))
    q, g = learn.dls.query_df, learn.dls.gallery_df
    eq, eg = run_model(learn.model, learn.dls.query)[0], run_model(learn.model, learn.dls.gallery)[0]
    ap = []
    for i in range(len(q)):
        keep = ~((g.identity == q.identity[i]) & (g.source == q.source[i])).to_numpy()
        hit = (g.identity == q.identity[i]).to_numpy()[keep][(-(eg @ eq[i])).numpy()[keep].argsort(kind='stable')]
        if hit.any(): ap.append((q.identity[i], np.mean((np.arange(hit.sum()) + 1) / (np.flatnonzero(hit) + 1))))
    expected = pd.DataFrame(ap).groupby(0)[1].mean().mean()
    assert learn.portrait_scores(cameras=True)['mAP'] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="camera in the column 'source'"): learner((root, df.assign(source=''))).portrait_scores(cameras=True)


def test_scoring_needs_query_and_gallery(portraits):
    root, df = portraits
    learn = learner((root, df[df.split != 'query']))
    with pytest.raises(ValueError, match="split is 'query'"): learn.portrait_scores()


def test_chance_lies_near_its_expectation(portraits):
    learn = learner(portraits)
    guess = chance_scores(learn.dls, n=20)
    assert .3 < guess['gender'] < .7 and guess['age'] < .4 and guess['mAP'] < .6


class Evil:
    def __init__(self, file): self.file = file
    def __reduce__(self): return Path.touch, (self.file,)


def describe(folder, **new):
    file = folder/'portrait.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), **new}))


@pytest.mark.parametrize('harm, words', [
    (lambda f: describe(f, backbone='hf-hub:somebody/theirs'), "not one of timm's"),
    (lambda f: describe(f, backbone='os.system'), "not one of timm's"),
    (lambda f: describe(f, backbone='resnet18'), 'does not fit'),
    (lambda f: describe(f, backbone='eva02_enormous_patch14_clip_224'), 'does not fit'), # 17 GB, were it built
    (lambda f: describe(f, output_stride=12), 'output_stride must be'),
    (lambda f: describe(f, size=[10**7, 4]), 'size'),
    (lambda f: describe(f, size='256x128'), "'size'"),
    (lambda f: describe(f, tasks={'tasks': [{'name': 'x'}]}), 'not tasks'),
    (lambda f: describe(f, tasks=MARKET.with_identities(['a', 'b']).to_dict()), 'labels'),
    (lambda f: describe(f, loss={'metric_loss': 'br'}), 'loss'),
    (lambda f: describe(f, loss=dict(metric_loss='eval', weighting='average', lam=.5, positives='sum')), 'metric_loss'),
    (lambda f: describe(f, split='both'), 'split'),
    (lambda f: describe(f, format=99), 'format 99'),
    (lambda f: describe(f, sha256='0'*64), 'SHA-256'),
    (lambda f: (f/'portrait.json').write_text('[1,2'), 'not json'),
    (lambda f: (f/'portrait.json').write_bytes(b'\xff\xfe\x00'), 'not json'),
    (lambda f: (f/'portrait.json').unlink(), 'not a portrait model'),
    (lambda f: (f/'weights.safetensors').unlink(), 'holds no weights'),
    (lambda f: (f/'weights.safetensors').write_bytes(b''), 'SHA-256'),
])
def test_a_strangers_model_ends_in_a_sentence(portraits, tmp_path, harm, words):
    folder = save_portrait_model(learner(portraits, MARKET), tmp_path/'model')
    harm(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=words): load_portrait_model(folder)


def test_a_pickle_in_the_place_of_weights_is_not_run(portraits, tmp_path):
    import hashlib
    folder = save_portrait_model(learner(portraits, MARKET), tmp_path/'model')
    bomb = pickle.dumps(Evil(tmp_path/'owned'))
    (folder/'weights.safetensors').write_bytes(bomb)
    describe(folder, sha256=hashlib.sha256(bomb).hexdigest())
    with pytest.raises(ValueError, match='not a safetensors file'): load_portrait_model(folder)
    assert not (tmp_path/'owned').exists()


def test_nothing_that_is_there_is_overwritten(portraits, tmp_path):
    learn = learner(portraits, MARKET)
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine'/'thesis.txt').write_text('years of work')
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match='not a portrait model'): save_portrait_model(learn, tmp_path/'mine', overwrite=overwrite)
    assert (tmp_path/'mine'/'thesis.txt').read_text() == 'years of work'
    save_portrait_model(learn, tmp_path/'model')
    with pytest.raises(FileExistsError, match='overwrite=True'): save_portrait_model(learn, tmp_path/'model')
    save_portrait_model(learn, tmp_path/'model', overwrite=True)
    assert sorted(o.name for o in tmp_path.iterdir()) == ['mine', 'model']


def test_synchronised_norms_are_not_decayed_either(portraits):
    twin = learner(portraits)
    twin.model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(twin.model)
    twin.create_opt()
    for m in twin.model.modules():
        if isinstance(m, torch.nn.SyncBatchNorm): assert not any(twin.opt.state[p].get('do_wd', True) for p in m.parameters())
    assert any(twin.opt.state[p].get('do_wd', True) for p in twin.model.parameters())


def test_what_fastai_offers_and_portraits_cannot_use_says_so(portraits):
    with pytest.raises(NotImplementedError, match='save_portrait_model'): learner(portraits).export()
    code = "from fastai.distributed import *; from portrait_nb.learner import PortraitLearner; PortraitLearner.distrib_ctx(None)"
    told = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stderr
    assert 'import portrait_nb.distributed first' in told.splitlines()[-1]


def test_a_model_from_before_aspects_of_few_labels_had_fewer_dimensions(portraits, tmp_path):
    lopsided = Tasks([Task('age', 'appearance', PORTRAIT['age'].labels), Task('gender', 'posture', ['male', 'female'])])
    sizes = {k: [len(s.dims) for s in learner(portraits, lopsided, split=k).model.slices] for k in ('fss', 'fss-even')}
    assert len(set(sizes['fss-even'])) == 1 and sizes['fss'][0] > sizes['fss'][1]
    folder = save_portrait_model(learner(portraits, lopsided, split='fss-even', bias='none'), tmp_path/'model')
    d = json.loads((folder/'portrait.json').read_text())
    old = {k: v for k, v in d.items() if k != 'bias'} | dict(format=1, split='fss')
    (folder/'portrait.json').write_text(json.dumps(old))
    model = load_portrait_model(folder)
    assert [len(s.dims) for s in model.slices] == sizes['fss-even'] and model.split == 'fss-even'

"Training, scoring, saving and loading, on pictures that the tests make."
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import fastai.interpret
import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.all import (Callback, CSVLogger, CutMix, EarlyStoppingCallback, MixedPrecision, MixUp,
                                 ReduceLROnPlateau, SaveModelCallback)
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import F1Score, F1ScoreMulti, accuracy, accuracy_multi, error_rate, top_k_accuracy
from fastai.vision.all import resnet18, vision_learner
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, multilabel_confusion_matrix

from conftest import write_set
from portrait_nb.analysis import PortraitInterpretation
from portrait_nb.callbacks import BF16, EMA, SkipValidation
from portrait_nb import learner as learner_module
from portrait_nb.data import normalise, portrait_dls
from portrait_nb.learner import (Interpretation, TaskMetric, cameras_of, chance_scores, check_scorable, evaluate_model,
                                 file_sha256, fss_learner, identity_scores, load_learner, load_portrait_model, paper_lr,
                                 replace_folder, run_model, save_portrait_model, score_model, score_table)
from portrait_nb.interpret import Interpreter
from portrait_nb.losses import class_loss
from portrait_nb.metrics import piq
from portrait_nb.tasks import PORTRAIT, Task, Tasks

matplotlib.use('agg')
MARKET = Tasks([PORTRAIT['identity'], PORTRAIT['gender'], PORTRAIT['age']])
ATTRIBUTES = Tasks(PORTRAIT.attributes)
LISTS = dict(portrait=PORTRAIT, market=MARKET, attributes=ATTRIBUTES, identity=Tasks([PORTRAIT['identity']]),
             age=Tasks([PORTRAIT['age']]))


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
    assert ('subgroups' in report) == bool({'gender', 'age'} & set(tasks.names))
    assert all(o.is_file() for o in learn.portrait_report(n=20, folder=tmp_path/'r'))


def test_scores_show_accuracy_and_the_majority_guess(portraits):
    root, df = portraits
    learn = learner(portraits)
    scores = learn.portrait_scores()
    train, test = (df[(df.split == 'train') == o] for o in (True, False))
    for t in ATTRIBUTES:
        known, train_rows = test[test[t.name] != ''], train[train[t.name] != '']
        if t.multilabel:
            hot = lambda part: np.array([[o in cell.split('|') for o in t.labels] for cell in part[t.name]])
            want = (hot(known) == (hot(train_rows).mean(0) > .5)).mean()
        else:
            counts = train_rows[t.name].value_counts().reindex(t.labels, fill_value=0)
            want = (known[t.name] == counts.idxmax()).mean()
        assert scores.attributes.majority_accuracy[t.name] == pytest.approx(want)
    assert dict(scores) == {k: scores[k] for k in scores} and not [k for k in scores if 'accuracy' in k]
    table = score_table(a=scores, b=dict(scores), chance=chance_scores(learn.dls, n=2))
    assert list(table.columns) == ['a', 'a accuracy', 'b', 'chance', 'chance accuracy', 'majority', 'majority accuracy']
    assert list(table.index)[-1] == 'PIQ'
    assert list(score_table(b=dict(scores)).columns) == ['b']
    assert 'accuracy' in repr(scores) and 'NaN' not in repr(scores)
    scores.attributes['accuracy'] = 0.
    assert 'In 7 of 7 sub-tasks the model is less often right' in repr(scores)


def test_the_network_runs_once_for_scores_and_report(portraits, monkeypatch):
    learn = learner(portraits)
    want, calls = learn.portrait_scores(), []
    for name in ('run_model', 'identity_scores'):
        real = getattr(learner_module, name)
        def counted(*args, real=real, name=name):
            calls.append(name)
            return real(*args)
        monkeypatch.setattr(learner_module, name, counted)
    scores, report = evaluate_model(learn.model, learn.dls.query, learn.dls.gallery,
                                    train=learn.dls.train.dataset.labels, n=20)
    assert sorted(calls) == ['identity_scores', 'run_model', 'run_model'] and scores == want
    assert report['intervals'].value['PIQ'] == pytest.approx(scores['PIQ'])
    assert report['accuracy'].accuracy.tolist() == scores.attributes.accuracy.tolist()


def test_a_report_page_shows_portraits_only_where_asked(portraits, tmp_path):
    learn = learner(portraits, MARKET)
    assert '<img ' in learn.portrait_report(n=20, folder=tmp_path/'a')[-1].read_text()
    assert '<img ' not in learn.portrait_report(n=20, folder=tmp_path/'b', pictures=False)[-1].read_text()


def test_a_report_without_query_or_match(portraits):
    root, df = portraits
    for part, tasks in ((df[df.split != 'query'], ATTRIBUTES),
                        (df.assign(identity=np.where(df.split == 'query', 'nobody else', df.identity)), PORTRAIT)):
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
        names = list(range(t.n_labels)) if t.multilabel else sorted(set(actual))
        expected = f1_score(actual, predicted, average='macro', labels=names, zero_division=0)
        np.testing.assert_allclose(scores[t.name], expected, rtol=1e-6)


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


@pytest.mark.parametrize('cbs', [[], [BF16()], [SkipValidation()], [MixedPrecision(amp_mode='bf16')]],
                         ids=['plain', 'bf16', 'unvalidated', 'mixed'])
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
    with pytest.raises(ValueError, match="split is 'query' or 'gallery'"):
        learner((root, df[df.split == 'train']), ATTRIBUTES).portrait_scores()


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
    with pytest.raises(ValueError, match="camera in the column 'source'"):
        learner((root, df.assign(source=''))).portrait_scores(cameras=True)


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
        with pytest.raises(FileExistsError, match='not a portrait model'):
            save_portrait_model(learn, tmp_path/'mine', overwrite=overwrite)
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
        if isinstance(m, torch.nn.SyncBatchNorm):
            assert not any(twin.opt.state[p].get('do_wd', True) for p in m.parameters())
    assert any(twin.opt.state[p].get('do_wd', True) for p in twin.model.parameters())


def test_what_fastai_offers_and_portraits_cannot_use_says_so():
    code = ("from fastai.distributed import *; from portrait_nb.learner import PortraitLearner; "
            "PortraitLearner.distrib_ctx(None)")
    message = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stderr
    assert 'import portrait_nb.distributed first' in message.splitlines()[-1]


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


def quiet(learn):
    "Without the bar, which a test's output does not need"
    learn.remove_cbs([o for o in learn.cbs if type(o).__name__ == 'ProgressCallback'])
    return learn


@pytest.mark.parametrize('bs', [7, 16, 45])
def test_get_preds_joins_dictionaries_over_uneven_batches(portraits, bs):
    root, df = portraits
    learn = quiet(fit(learner(portraits)))
    dl = learn.dls.test_dl(df[df.split != 'train'], with_labels=True, bs=bs)
    x, preds, targs, decided, losses = learn.get_preds(dl=dl, with_input=True, with_decoded=True, with_loss=True)
    model = learn.model.eval()
    with torch.no_grad(): logits = model(x)['logits']
    rows = [class_loss(logits[t.name][i:i+1], targs[t.name][i:i+1]) if (targs[t.name][i] != -1).all() else torch.nan
            for t in PORTRAIT for i in range(len(x))]
    alone = torch.tensor(rows).view(len(PORTRAIT), -1).nanmean(0)
    torch.testing.assert_close(losses, alone, rtol=1e-4, atol=1e-5)
    for t in PORTRAIT:
        expected = logits[t.name].sigmoid() if t.multilabel else logits[t.name].softmax(1)
        torch.testing.assert_close(preds[t.name], expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(targs[t.name], dl.dataset.labels[t.name]) and len(decided[t.name]) == len(x)
        assert torch.equal(decided[t.name], (preds[t.name] > .5).long() if t.multilabel else preds[t.name].argmax(1))


def test_train_portraits_are_predicted_once_in_order_and_as_they_are(portraits):
    learn = quiet(learner(portraits))
    x, preds, targs = learn.get_preds(ds_idx=0, with_input=True)
    train = learn.dls.train.dataset
    assert torch.equal(x, normalise(torch.stack([train[i][0] for i in range(len(train))])))
    assert torch.equal(targs['identity'], train.labels['identity']) and (targs['identity'] >= 0).any()
    again = learn.get_preds(dl=learn.dls.train, act=torch.exp)[0]
    assert set(again) == set(PORTRAIT.names) and len(again['age']) == len(train)
    only = learn.get_preds(with_preds=False, with_targs=False, with_loss=True)
    assert only[:2] == (None, None) and only[2].shape == (len(learn.dls.valid.dataset),)


def test_predict_is_fastais_triple_in_words(portraits):
    root, df = portraits
    learn = quiet(learner(portraits))
    file = root/df.image[60]
    answers, numbers, probabilities = learn.predict(file)
    assert list(answers) == [t.name for t in PORTRAIT.attributes]
    for t in PORTRAIT.attributes:
        p = probabilities[t.name]
        assert p.shape == (t.n_labels,)
        if t.multilabel: assert answers[t.name] == [o for o, v in zip(t.labels, p) if v > .5]
        else:
            assert answers[t.name] == t.labels[int(p.argmax())] == t.labels[numbers[t.name]]
            assert p.sum() == pytest.approx(1, abs=1e-5)
    img = Image.open(file)
    for photo in (str(file), img, np.array(img), file.read_bytes(), torch.from_numpy(np.array(img)).permute(2, 0, 1),
                  df.iloc[60]):
        assert learn.predict(photo)[0] == answers
    assert torch.equal(learn.predict(file, with_input=True)[0], learn.dls.valid.dataset[60-45][0])
    with pytest.raises(TypeError, match='one photo'): learn.predict([file])
    with pytest.raises(OSError, match='nothing.png'): learn.predict('nothing.png')
    with pytest.raises(ValueError, match='identities only'): quiet(learner(portraits, LISTS['identity'])).predict(file)


@pytest.mark.parametrize('tasks', LISTS.values(), ids=LISTS)
def test_any_list_of_tasks_is_predicted_shown_and_interpreted(portraits, tasks):
    learn = quiet(learner(portraits, tasks))
    preds, targs = learn.get_preds()
    assert set(preds) == set(targs) == set(tasks.names)
    learn.show_results(max_n=2), learn.show_results(ds_idx=0, nrows=1, ncols=2, figsize=(4, 2))
    learn.tta(n=1), learn.validate(), learn.summary()
    interp = Interpretation.from_learner(learn, ds_idx=0)
    interp.plot_top_losses(2), interp.plot_confusion_matrix(), interp.print_classification_report()
    for t in learn.dls.tasks:
        y, given = interp.targs[t.name], interp.decoded[t.name]
        known = (y != -1) if y.ndim == 1 else (y != -1).all(1)
        if t.multilabel:
            hits = multilabel_confusion_matrix(y[known], given[known])[:, 1, 1]
            assert interp.confusion_matrix(t.name).diagonal().tolist() == hits.tolist()
        else:
            expected = confusion_matrix(y[known], given[known], labels=range(t.n_labels))
            assert (interp.confusion_matrix(t.name) == expected).all()
        values, rows = interp.top_losses(task=t.name)
        assert len(rows) == known.sum() and known[rows].all() and (values[:-1] >= values[1:]).all()


def test_fastais_interpretation_is_ours_by_import(portraits):
    space = {}
    exec('from fastai.vision.all import *\nfrom portrait_nb.learner import *', space)
    for name in ('Interpretation', 'ClassificationInterpretation'): assert space[name] is PortraitInterpretation
    assert space['load_learner'] is load_learner
    with pytest.raises(ValueError, match='portrait_nb.learner'):
        fastai.interpret.ClassificationInterpretation.from_learner(quiet(learner(portraits)))


@pytest.mark.parametrize('backbone', ['test_resnet', 'test_efficientnet', 'test_vit', 'test_convnext'])
def test_summary_counts_every_parameter_once(portraits, backbone):
    root, df = portraits
    dls = portrait_dls(df, root, PORTRAIT, size=(64, 32), bs=16, device='cpu')
    learn = fss_learner(dls, backbone, pretrained=False)
    for freeze in (False, True):
        if freeze: learn.freeze()
        text = str(learn.summary())
        assert f'Total params: {sum(p.numel() for p in learn.model.parameters()):,}' in text
        n = sum(p.numel() for p in learn.model.parameters() if p.requires_grad)
        assert f'Total trainable params: {n:,}' in text
        rows = [int(o.replace(',', '')) for o in re.findall(r' ([\d,]+) +(?:True|False|partly)$', text, re.M)]
        assert sum(rows) == sum(p.numel() for p in learn.model.parameters())
    assert learn.model.training


def test_a_frozen_backbone_can_be_unfrozen_after_the_optimiser_is_made_anew(portraits):
    learn = learner(portraits)
    learn.freeze()
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 1e-3, reset_opt=True)
    first = next(p for p in learn.model.body.parameters() if p.ndim > 1)
    assert not first.requires_grad and learn.opt.frozen_idx == 1
    learn.unfreeze()
    before = first.detach().clone()
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, slice(1e-3, 1e-2))
    assert first.requires_grad and not torch.equal(first, before)
    assert not learn.model.neck('age').bn.bias.requires_grad


def test_paper_schedule_with_a_rate_for_each_group(portraits):
    learn = learner(portraits)
    with learn.no_bar(), learn.no_logging(): learn.fit_paper(2, lr=slice(1e-5, 1e-3))
    n = 2*len(learn.dls.train)
    np.testing.assert_allclose([o['lr'] for o in learn.opt.hypers], [paper_lr((n-1)/n, o) for o in (1e-5, 1e-3)])
    with learn.no_bar(), learn.no_logging(): learn.fit_paper(1, lr=slice(1e-3))
    np.testing.assert_allclose(learn.opt.hypers[0]['lr']*10, learn.opt.hypers[1]['lr'])


class CtrlC(Callback):
    order = 99
    def after_batch(self):
        if self.iter == 1: raise KeyboardInterrupt


def test_a_stopped_lr_find_leaves_the_weights_and_the_folder(portraits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    learn = learner(portraits)
    before = {k: v.clone() for k, v in learn.model.state_dict().items()}
    with learn.no_bar(), learn.added_cbs(CtrlC()), pytest.raises(KeyboardInterrupt):
        learn.lr_find(start_lr=1, show_plot=False)
    assert all(torch.equal(v, before[k]) for k, v in learn.model.state_dict().items())
    with learn.no_bar(): learn.lr_find(num_it=8, show_plot=False)
    assert all(torch.equal(v, before[k]) for k, v in learn.model.state_dict().items())
    assert not list(tmp_path.iterdir()) and learn.path == Path('.')


def test_nothing_is_written_among_the_photographs(tmp_path, monkeypatch):
    photos, here = tmp_path/'photos', tmp_path/'here'
    photos.mkdir(), here.mkdir()
    df = write_set(photos, n=40)
    monkeypatch.chdir(here)
    before = sorted(photos.rglob('*'))
    learn = learner((photos, df))
    with learn.no_bar(), learn.no_logging():
        learn.lr_find(num_it=6, show_plot=False), learn.fit(1, cbs=[SaveModelCallback(), CSVLogger()])
    learn.save('mine'), learn.load('mine'), learn.export('exported')
    assert sorted(photos.rglob('*')) == before and learn.dls.root == photos
    assert sorted(o.name for o in here.iterdir()) == ['exported', 'history.csv', 'models']


def test_metrics_are_scikit_learns(portraits):
    learn = quiet(fit(learner(portraits)))
    learn.metrics = [accuracy, error_rate, TaskMetric(accuracy, 'arm'), TaskMetric(F1Score(average='macro'), 'arm'),
                     F1ScoreMulti(), accuracy_multi]
    names = ['accuracy', 'error_rate', 'arm_accuracy', 'arm_f1_score', 'f1_score', 'accuracy_multi']
    assert list(learn.metrics.attrgot('name')) == names
    values = learn.validate()[1:]
    _, targs, decided = learn.get_preds(with_decoded=True)
    known = {k: (v != -1) if v.ndim == 1 else (v != -1).all(1) for k, v in targs.items()}
    right = {k: accuracy_score(targs[k][known[k]], decided[k][known[k]])
             for k in ('gender', 'age', 'physique', 'height', 'body', 'arm')}
    arm, face = [(targs[k][known[k]], decided[k][known[k]]) for k in ('arm', 'expression')]
    expected = [np.mean(list(right.values())), 1-np.mean(list(right.values())), right['arm'],
                f1_score(*arm, average='macro'), f1_score(*face, average='macro', zero_division=0),
                (face[0] == face[1]).float().mean()]
    np.testing.assert_allclose([float(o) for o in values], expected, atol=1e-6)
    with pytest.raises(ValueError, match="no sub-task 'arms'"): learn.metrics = TaskMetric(accuracy, 'arms')
    learn.metrics = top_k_accuracy
    with pytest.raises(ValueError, match=r"cannot be computed for 'gender'.*TaskMetric\(top_k_accuracy"):
        learn.validate()
    def mine(pred, labels): return pred.argmax(1)
    learn.metrics = mine
    with pytest.raises(TypeError, match=r'TaskMetric\(mine, task\)'): learn.validate()


def test_what_cannot_be_trained_is_refused_before_a_step(portraits):
    root, df = portraits
    learn = quiet(learner(portraits))
    def refused(error, words, **kwargs):
        with learn.no_logging(), pytest.raises(error, match=words): learn.fit(1, **kwargs)
        assert not learn.opt or not any(learn.opt.state[p].get('step') for p in learn.model.parameters())
    for o in (MixUp(), CutMix()): refused(NotImplementedError, 'blends two portraits', cbs=o)
    own_loaders, learn.loss_func = learn.loss_func, CrossEntropyLossFlat()
    refused(TypeError, 'CrossEntropyLossFlat')
    learn.loss_func, dls = own_loaders, learn.dls
    learn.dls = portrait_dls(df, root, PORTRAIT, size=(64, 32), bs=1, device='cpu')
    refused(ValueError, 'batches of one portrait')
    learn.dls = portrait_dls(df[df.identity != 'a0'], root, PORTRAIT, size=(64, 32), bs=16, device='cpu')
    refused(ValueError, 'other people or labels')
    # another size is fastai's progressive resizing
    learn.dls = portrait_dls(df, root, learn.model.tasks, size=(96, 48), bs=16, device='cpu')
    with learn.no_logging(): learn.fit(1)
    with pytest.raises(TypeError, match='metric_loss='):
        fss_learner(dls, 'test_resnet', pretrained=False, loss_func=CrossEntropyLossFlat())
    with pytest.raises(ValueError, match='use fss_learner'): vision_learner(dls, resnet18, pretrained=False)


FAR_AWAY = '''
import json, sys
from pathlib import Path
import numpy as np
import pickle
def forbidden(*args, **kwargs): raise AssertionError('something was unpickled')
from portrait_nb.learner import *
import torch
pickle.load = pickle.loads = pickle.Unpickler = torch.load = forbidden
folder, photo, out = sys.argv[1:]
learn = load_learner(folder)
learn.remove_cbs([o for o in learn.cbs if type(o).__name__ == 'ProgressCallback'])
answers, numbers, probabilities = learn.predict(photo)
joined = learn.get_preds(dl=learn.dls.test_dl([photo]*5, bs=2))[0]
learn.export(out)
print(json.dumps(dict(answers=answers, age=probabilities['age'].tolist(), joined=joined['age'].tolist(), lr=learn.lr,
                      path=str(learn.path), names=learn.dls.vocab['identity'])))
'''


def test_load_learner_without_the_data_elsewhere(tmp_path, monkeypatch):
    photos, elsewhere = tmp_path/'photos', tmp_path/'elsewhere'
    photos.mkdir(), elsewhere.mkdir()
    df = write_set(photos, n=40)
    learn = quiet(fit(learner((photos, df), lr=1e-3)))
    shutil.copy(photos/df.image[0], elsewhere/'photo.png')
    answers, _, probabilities = learn.predict(elsewhere/'photo.png')
    before = learn.portrait_scores()
    folder = learn.export(tmp_path/'exported')
    moved = shutil.move(folder, elsewhere/'sent')
    names = learn.dls.vocab['identity']
    own_folder = tmp_path/'kept'
    shutil.move(photos, own_folder) # nothing is where it was
    env = {**os.environ, 'PYTHONPATH': str(Path(__file__).parent.parent)}
    done = subprocess.run([sys.executable, '-c', FAR_AWAY, 'sent', 'photo.png', 'again'], cwd=elsewhere, env=env,
                          capture_output=True, text=True)
    assert not done.returncode, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report['answers'] == answers and report['path'] == '.' and report['lr'] == 1e-3 and report['names'] == names
    np.testing.assert_allclose(report['joined'], [report['age']]*5, atol=1e-6)
    np.testing.assert_allclose(report['age'], probabilities['age'], atol=1e-6)
    assert sorted(o.name for o in moved.iterdir()) == ['portrait.json', 'weights.safetensors']
    again = quiet(load_learner(elsewhere/'again'))
    assert again.portrait_scores.__self__ is again
    again.dls = portrait_dls(df, own_folder, again.model.tasks, size=(64, 32), bs=16, device='cpu')
    assert again.portrait_scores() == pytest.approx(before, rel=1e-5)
    with again.no_logging(): again.fit_one_cycle(1, 1e-3)


def test_a_loaded_learner_says_what_it_lacks(portraits, tmp_path):
    root, df = portraits
    learn = quiet(learner(portraits))
    loaded = quiet(load_learner(learn.export(tmp_path/'m')))
    for ask in (loaded.get_preds, loaded.validate, loaded.show_results):
        with pytest.raises(ValueError, match='test_dl'): ask()
    for ask in (lambda: loaded.fit(1), loaded.lr_find):
        with loaded.no_logging(), pytest.raises(ValueError, match='no portraits to train on'): ask()
    table = loaded.dls.test_dl(df[df.split != 'train'], with_labels=True, root=root)
    assert loaded.validate(dl=table)[0] == pytest.approx(learn.validate()[0], rel=1e-4)
    assert 'Total params' in loaded.summary()
    with pytest.raises(FileExistsError, match='overwrite=True'): learn.export(tmp_path/'m')
    assert learn.export(tmp_path/'m', overwrite=True) == tmp_path/'m'
    with pytest.raises(FileNotFoundError, match='learn.export'): load_learner(tmp_path/'nowhere')


@pytest.mark.parametrize('name', ['export.pkl', 'model.pth', 'folder'])
def test_load_learner_unpickles_nothing(portraits, tmp_path, name):
    file = tmp_path/name
    if name == 'folder': file.mkdir(), (file/'data.pkl').write_bytes(pickle.dumps(Evil(tmp_path/'owned')))
    else: file.write_bytes(pickle.dumps(Evil(tmp_path/'owned')))
    with pytest.raises((ValueError, FileNotFoundError), match='learn.export|not a portrait model'): load_learner(file)
    assert not (tmp_path/'owned').exists()


@pytest.mark.parametrize('settings', [dict(lr='fast'), dict(bs=10**9), dict(lr=float('inf')), dict(code='import os'),
                                      'all'])
def test_a_strangers_settings_are_looked_at(portraits, tmp_path, settings):
    folder = save_portrait_model(learner(portraits, MARKET), tmp_path/'model')
    describe(folder, learner=settings)
    with pytest.raises(ValueError, match='learner holds lr, wd and bs'): load_learner(folder)


def test_a_model_without_settings_is_a_learner_too(portraits, tmp_path):
    folder = save_portrait_model(learner(portraits, MARKET, lr=1e-3), tmp_path/'model')
    text = json.loads((folder/'portrait.json').read_text())
    assert text.pop('learner') == dict(lr=1e-3, wd=5e-4, bs=16)
    (folder/'portrait.json').write_text(json.dumps(text))
    assert load_learner(folder).lr == 3.5e-4


def test_tta_is_a_mean_over_views(portraits):
    learn = quiet(learner(portraits))
    torch.manual_seed(0)
    alone, (mean, plain) = learn.get_preds()[0], learn.tta(n=3, beta=None)[0]
    mixed = learn.tta(n=2, batch_tfms=[], beta=.5)[0] # every view is the portrait itself
    for k in alone:
        torch.testing.assert_close(plain[k], alone[k], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(mixed[k], alone[k], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(mean['age'], alone['age']) and learn.dls.valid.dataset.split_idx == 1


def square_table(root, n=24):
    "Squares, light or dark, of women and men"
    for i in range(n): Image.fromarray(np.full((64, 32, 3), 20 if i%2 else 230, np.uint8)).save(root/f'{i}.png')
    return pd.DataFrame(dict(image=[f'{i}.png' for i in range(n)], split=['train']*12+['query']*4+['gallery']*8,
                             identity=[f'p{i%3}' for i in range(n)], gender=['male', 'female']*(n//2)))


def squares(root, tasks=Tasks([PORTRAIT['gender']]), df=None, size=(64, 32), cbs=None, **kwargs):
    df = square_table(root) if df is None else df
    return fss_learner(portrait_dls(df, root, tasks, size=size, bs=4, augment=False), 'test_resnet', pretrained=False,
                       cbs=cbs, **kwargs)


def quietly(learn, n=1, **kwargs):
    with learn.no_bar(), learn.no_logging(): learn.fit(n, 1e-3, **kwargs)


@pytest.mark.parametrize('tracker', [SaveModelCallback, EarlyStoppingCallback, ReduceLROnPlateau])
def test_a_loss_that_nothing_has_is_not_tracked(tmp_path, tracker):
    learn = squares(tmp_path, Tasks([PORTRAIT['identity']]))
    with pytest.raises(ValueError, match=f'{tracker.__name__} monitors valid_loss, and nothing in query and gallery'):
        quietly(learn, cbs=tracker())


@pytest.mark.parametrize('labels', [('female', 'male'), ('male', 'female', 'other')])
def test_scores_refuse_loaders_of_other_labels(tmp_path, labels):
    learn = squares(tmp_path)
    learn.dls = squares(tmp_path, Tasks([Task('gender', 'appearance', labels)])).dls
    for score in (learn.portrait_scores, learn.portrait_report):
        with pytest.raises(ValueError, match='labels of this loader are not those of the network'): score()


def test_a_network_is_saved_with_the_size_that_it_was_trained_at_last(tmp_path):
    learn = squares(tmp_path)
    learn.dls = squares(tmp_path, size=(32, 32)).dls # progressive resizing
    quietly(learn)
    model = load_portrait_model(save_portrait_model(learn, tmp_path/'model'))
    answers = Interpreter(model).interpret(tmp_path/'0.png').probabilities['gender']
    assert model.size == (32, 32)
    np.testing.assert_allclose(learn.predict(tmp_path/'0.png')[2]['gender'], list(answers.values()), atol=1e-5)


def test_overwriting_a_model_deletes_nothing_else(tmp_path):
    learn = squares(tmp_path)
    model = save_portrait_model(learn, tmp_path/'model')
    (model/'notes.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='holds more than a model.*notes.txt'):
        save_portrait_model(learn, model, overwrite=True)
    assert (model/'notes.txt').read_text() == 'mine'


def test_two_averages_are_refused(tmp_path):
    learn = squares(tmp_path, cbs=EMA(.9))
    with pytest.raises(ValueError, match='two EMA callbacks'): quietly(learn, cbs=EMA(.5))


def test_validation_is_skipped_in_fit_alone(tmp_path):
    learn = squares(tmp_path, cbs=SkipValidation())
    quietly(learn)
    with learn.no_bar(): assert len(learn.get_preds()[0]['gender']) == 12 and learn.validate()[0]>0


@pytest.mark.parametrize('dl', [pd.DataFrame(dict(image=['0.png'])), ['0.png'], 'photos'])
def test_what_is_no_loader_is_told_so(tmp_path, dl):
    with pytest.raises(TypeError, match='test_dl'): squares(tmp_path).get_preds(dl=dl)


def test_people_who_look_alike_are_named_by_the_loaders(tmp_path):
    df = square_table(tmp_path)
    df['identity'] = ['7', '8']*6+['007', '9']*6
    with pytest.warns(UserWarning, match="'7' and '007'"):
        squares(tmp_path, Tasks([PORTRAIT['identity'], PORTRAIT['gender']]), df)


def test_a_page_for_a_subtask_that_nobody_was_labelled_for(tmp_path):
    df = square_table(tmp_path).assign(hair=['dark', 'fair']*6+['']*12)
    learn = squares(tmp_path, Tasks([PORTRAIT['gender'], Task('hair', 'appearance', ['dark', 'fair'])]), df)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        learn.portrait_report(folder=tmp_path/'report', n=20)
    assert [str(o.message)[:45] for o in found if o.category is not DeprecationWarning] == [
        'Nothing in query and gallery to score hair on']
    assert '<h3>hair</h3>' in (tmp_path/'report'/'report.html').read_text()


def test_chance_warns_once_for_all_its_guesses(tmp_path):
    df = square_table(tmp_path).assign(hair=['dark', 'fair']*6+['']*12)
    learn = squares(tmp_path, Tasks([PORTRAIT['gender'], Task('hair', 'appearance', ['dark', 'fair'])]), df)
    for _ in range(2):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter('always')
            chance = chance_scores(learn.dls)
        assert ['score hair' in str(o.message) for o in found] == [True]
    assert np.isnan(chance['hair']) and np.isfinite(chance['gender'])


@pytest.mark.parametrize('kept', [dict(bs=2.5), dict(lr=-1), dict(more=1)])
def test_settings_that_cannot_be_are_refused(tmp_path, kept):
    model = save_portrait_model(squares(tmp_path), tmp_path/'model')
    about = json.loads((model/'portrait.json').read_text())
    (model/'portrait.json').write_text(json.dumps({**about, 'learner': {**about['learner'], **kept}}))
    with pytest.raises(ValueError, match='learner holds lr, wd and bs'): load_learner(model)


def test_a_network_of_nan_describes_nobody(tmp_path):
    learn = squares(tmp_path)
    for p in learn.model.parameters(): p.data.fill_(float('nan'))
    with pytest.raises(ValueError, match='not finite'): Interpreter(learn).interpret(tmp_path/'0.png')


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path/'deep'/'notes'
    def write(text):
        with replace_folder(path) as new: (new/'note.txt').write_text(text)
    write('first')
    (path/'more.txt').write_text('more')
    write('second')
    assert [o.name for o in path.iterdir()] == ['note.txt'] and (path/'note.txt').read_text() == 'second'
    real = Path.rename
    def fails(self, target):
        if self.name == 'new': raise OSError('no such luck')
        return real(self, target)
    monkeypatch.setattr(Path, 'rename', fails)
    with pytest.raises(OSError, match='no such luck'): write('third')
    monkeypatch.undo()
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error):
            with replace_folder(path): raise error
    assert (path/'note.txt').read_text() == 'second'
    assert [o.name for o in path.parent.iterdir()] == ['notes'] # nothing is left beside it
    assert path.stat().st_mode & 0o077 # others may read it, unlike a temporary folder


@pytest.mark.parametrize('size', [0, 5, 2**21+1])
def test_a_digest_is_that_of_all_bytes(tmp_path, size):
    import hashlib
    (tmp_path/'f').write_bytes(bytes(o%251 for o in range(size)))
    assert file_sha256(tmp_path/'f') == hashlib.sha256((tmp_path/'f').read_bytes()).hexdigest()


def test_identities_are_scored_from_any_embeddings(tmp_path):
    df = square_table(tmp_path).assign(source=[f'film {i%2}' for i in range(24)])
    dls = squares(tmp_path, Tasks([PORTRAIT['identity'], PORTRAIT['gender']]), df).dls
    data = dls.query.dataset, dls.gallery.dataset
    names = sorted({k for o in data for k in o.identities})
    one_hot = [torch.eye(len(names))[[names.index(k) for k in o.identities]] for o in data]
    one_hot[0] = one_hot[0]+1e-3*torch.arange(1, 5)[:, None] # no portrait finds itself
    found = identity_scores(*one_hot, data)
    assert found.macro_mAP == 1 and found.macro_cmc[1] == 1 and found.n_valid == 4
    assert [o.tolist() for o in cameras_of(*data)] == [o.df.source.tolist() for o in data]
    apart = identity_scores(*one_hot, data, cameras=True) # only the other film counts
    assert apart.macro_mAP == 1 and apart.n_valid == 4
    for o in data: o.df['source'] = 'film'
    nobody = identity_scores(*one_hot, data, cameras=True)
    assert np.isnan(nobody.macro_mAP) and nobody.n_valid == 0
    data[1].df.loc[0, 'source'] = ''
    with pytest.raises(ValueError, match="needs a camera in the column 'source'"):
        identity_scores(*one_hot, data, cameras=True)


@pytest.mark.parametrize('splits, names, fine', [
    (['query', 'gallery'], ['identity', 'gender'], True), (['gallery'], ['gender'], True),
    (['query'], ['gender'], True),
    (['gallery'], ['identity'], False), (['query'], ['identity', 'gender'], False), ([], ['gender'], False)])
def test_what_can_be_scored(splits, names, fine):
    from types import SimpleNamespace
    query, gallery = [SimpleNamespace(dataset=[0]*(o in splits)) for o in ('query', 'gallery')]
    tasks = Tasks([PORTRAIT[o] for o in names])
    if fine: assert check_scorable(tasks, query, gallery) is None
    else:
        with pytest.raises(ValueError, match='nothing to score on'): check_scorable(tasks, query, gallery)


def test_an_interrupt_between_the_two_renames_loses_nothing(tmp_path, monkeypatch):
    path, rename = tmp_path/'model', Path.rename
    path.mkdir()
    (path/'old.txt').write_text('old')
    def interrupted(self, target):
        found = rename(self, target)
        if self == path: raise KeyboardInterrupt
        return found
    monkeypatch.setattr(Path, 'rename', interrupted)
    with pytest.raises(KeyboardInterrupt):
        with replace_folder(path) as new: (new/'new.txt').write_text('new')
    assert [o.name for o in path.iterdir()] == ['old.txt'] and [o.name for o in tmp_path.iterdir()] == ['model']

"fastai's trackers and loggers, and what a run says before its first epoch."
import sys, types, warnings

import numpy as np
import pandas as pd
import pytest
from fastai.callback.all import CSVLogger, EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback

from portrait_nb import runs
from portrait_nb.callbacks import EMA, ScoreEpochs, SkipValidation
from portrait_nb.data import portrait_dls
from portrait_nb.learner import fss_learner
from portrait_nb.runs import RunError, curves_png, known_piq, new_run, open_run, read_checkpoint, run_config
from portrait_nb.tasks import PORTRAIT, Task, Tasks

pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('one_thread')]
LOADING, NET = dict(size=(64, 32), bs=16, num_workers=0, device='cpu'), dict(backbone='test_resnet', pretrained=False)
SCORES = ['mAP', 'rank1', 'rank5', 'rank10', 'plain_mAP', 'plain_rank1', *[t.name for t in PORTRAIT.attributes], 'PIQ']


def learner(portraits, path, *cbs, n=2, df=None):
    root, table = portraits
    learn = fss_learner(portrait_dls(table if df is None else df, root, PORTRAIT, seed=0, **LOADING), cbs=[*cbs],
                        path=path, **NET)
    with learn.no_bar(), learn.no_logging(): learn.fit(n, 1e-2)
    return learn


def column(learn, name): return [o[list(learn.recorder.metric_names[1:]).index(name)] for o in learn.recorder.values]


def armless(df): return df.assign(arm=df.arm.where(df.split == 'train', ''))


@pytest.mark.parametrize('more', [[], [EMA(.5)], [EMA(.5), SkipValidation()]], ids=['plain', 'averaged', 'unvalidated'])
def test_the_best_by_piq_comes_back(portraits, tmp_path, more):
    "Also the averaged weights, where they were scored"
    learn = learner(portraits, tmp_path, SaveModelCallback(monitor='PIQ'), ReduceLROnPlateau(monitor='gender'), *more,
                    n=3)
    assert set(SCORES) <= set(learn.recorder.metric_names) and learn.recorder.metric_names[-1] == 'time'
    assert learn.save_model.best == max(column(learn, 'PIQ')) == pytest.approx(learn.portrait_scores()['PIQ'])
    assert learn.score_epochs.log.PIQ.tolist() == column(learn, 'PIQ')


def test_every_so_many_epochs_and_the_last(portraits, tmp_path):
    learn = learner(portraits, tmp_path, ScoreEpochs(every=2), CSVLogger(), n=3)
    assert np.isfinite(column(learn, 'PIQ')).tolist() == [False, True, True]
    log = learn.csv_logger.read_log()
    assert log.PIQ.notna().tolist() == [False, True, True] and set(SCORES) <= set(log)


def test_nothing_is_scored_unless_asked_for(portraits, tmp_path):
    learn = learner(portraits, tmp_path, EarlyStoppingCallback(), n=1)
    assert not hasattr(learn, 'score_epochs')
    assert list(learn.recorder.metric_names) == ['epoch', 'train_loss', 'valid_loss', 'time']
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=EarlyStoppingCallback(monitor='PIQ', patience=9))
    assert 'PIQ' in learn.recorder.metric_names
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    assert 'PIQ' not in learn.recorder.metric_names


@pytest.mark.parametrize('name, words', [('piq', "did you mean 'PIQ'"),
                                         ('accuracy_of_all', 'is no score: take valid_loss or one of mAP'),
                                         ('arm', 'have nothing to score'), ('PIQ', 'have nothing to score')])
def test_a_score_that_will_never_be_is_refused_first(portraits, tmp_path, name, words):
    with pytest.raises(ValueError, match=words):
        learner(portraits, tmp_path, SaveModelCallback(monitor=name), df=armless(portraits[1]))


class Written(dict):
    "What a logger was told"
    def add_scalar(self, name, value, step): self.setdefault(name, []).append(float(value))
    def close(self): self.closed = True


LOSSES = {f'{phase}/{t.name}/{k}' for phase in ('train', 'valid') for t in PORTRAIT for k in ('cls', 'ml', 's')
          if (phase, t.name) != ('valid', 'identity') or k == 's'}


@pytest.mark.parametrize('kwargs', [dict(trace_model=False, log_preds=False), {}])
def test_tensorboard_gets_everything(portraits, tmp_path, monkeypatch, kwargs):
    written = Written()
    monkeypatch.setitem(sys.modules, 'tensorboard', types.ModuleType('tensorboard'))
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard',
                        types.SimpleNamespace(SummaryWriter=lambda log_dir: written))
    from fastai.callback import tensorboard
    monkeypatch.setattr(tensorboard, 'SummaryWriter', lambda log_dir: written)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        learner(portraits, tmp_path, tensorboard.TensorBoardCallback(**kwargs), ScoreEpochs())
    assert any('TensorBoardCallback cannot draw' in str(o.message) for o in said) == (not kwargs)
    assert {*SCORES, *LOSSES, 'valid_loss', 'train_loss', 'lr_0'} <= set(written)
    assert len(written['PIQ']) == len(written['train/age/s']) == 2
    assert written.closed


def test_weights_and_biases_gets_everything(portraits, tmp_path, monkeypatch):
    logged, steps = {}, []
    def log(numbers, step=None):
        logged.update(numbers)
        steps.append(step)
    run = types.SimpleNamespace(step=0, summary={}, id='x')
    def nothing(*args, **kwargs): pass
    config = types.SimpleNamespace(update=nothing)
    monkeypatch.setitem(sys.modules, 'wandb', types.SimpleNamespace(run=run, log=log, config=config, watch=nothing))
    from fastai.callback.wandb import WandbCallback
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        learn = learner(portraits, tmp_path, WandbCallback(), SaveModelCallback(monitor='PIQ'))
    assert any('WandbCallback cannot draw' in str(o.message) for o in said)
    assert {*SCORES, *LOSSES, 'valid_loss', 'train_loss', 'raw_loss'} <= set(logged)
    assert logged['PIQ'] == column(learn, 'PIQ')[-1]
    counted = [o for o in steps if o is not None]
    assert sorted(counted) == counted # W&B drops what comes for an earlier step


# what a run says first

def config(portraits, path, df, **kwargs):
    df.to_csv(path/'a.csv', index=False)
    return run_config(path/'a.csv', portraits[0], PORTRAIT,
                      **{**dict(n_epoch=2, score_every=1, loading=LOADING, learner=NET), **kwargs})


def test_the_best_goes_by_what_has_a_score(portraits, tmp_path):
    with pytest.warns(UserWarning, match='score arm by .* no PIQ. best.pt is chosen by PIQ over the other'):
        run = new_run(tmp_path/'run', config(portraits, tmp_path, armless(portraits[1])))
    with run.learn.no_bar(), run.learn.no_logging(): run.fit()
    rows = pd.read_csv(tmp_path/'run/scores_by_epoch.csv')
    values = [known_piq(o, PORTRAIT) for o in rows.to_dict('records')]
    assert rows.PIQ.isna().all() and read_checkpoint(tmp_path/'run/best.pt')['best'] == pytest.approx(max(values))
    assert known_piq(run.use_best().portrait_scores(), PORTRAIT) == pytest.approx(max(values))


def test_nothing_to_score_is_refused_and_a_whole_piq_is_piq(portraits, tmp_path):
    bare = portraits[1].copy()
    bare.loc[bare.split != 'train', [t.name for t in PORTRAIT]] = ''
    bare.loc[bare.split == 'query', 'identity'] = [f'q{i}' for i in range((bare.split == 'query').sum())]
    with pytest.raises(ValueError, match='score_every has nothing to score'):
        new_run(tmp_path/'run', config(portraits, tmp_path, bare))
    assert not (tmp_path/'run').exists()
    whole = dict(mAP=.5, rank1=.7, **{t.name: .1*i for i, t in enumerate(PORTRAIT.attributes)})
    from portrait_nb.metrics import piq
    assert known_piq(whole, PORTRAIT) == piq(whole, PORTRAIT)
    assert np.isnan(known_piq({k: np.nan for k in whole}, PORTRAIT))


def test_no_best_without_scoring(portraits, tmp_path):
    new_run(tmp_path/'run', config(portraits, tmp_path, portraits[1], score_every=None))
    with pytest.raises(RunError, match='holds no best.pt: it was begun without score_every'):
        open_run(tmp_path/'run').use_best()


@pytest.mark.parametrize('learner, words', [
    (dict(backbone='test_vit'), 'too short for 60 sub-tasks.*--split shared'),
    (dict(backbone='nest_tiny'), 'nest_tiny'), (dict(backbone='resnet5'), 'did you mean'),
    (dict(backbone='test_resnet', pretrained='absent.pth'), 'no such file')])
def test_what_the_network_refuses_is_told_before_a_picture_is_opened(tmp_path, monkeypatch, learner, words):
    many = Tasks([Task(f't{i}', 'x', ['no', 'yes']) for i in range(60)])
    pd.DataFrame(dict(image=['0.png'], split=['train'])).to_csv(tmp_path/'a.csv', index=False)
    monkeypatch.setattr(runs, 'read_annotations', lambda *a, **k: pytest.fail('the pictures were looked at'))
    with pytest.raises((ValueError, OSError), match=words):
        new_run(tmp_path/'run', run_config(tmp_path/'a.csv', tmp_path, many, loading=LOADING,
                                           learner={'pretrained': False, **learner}))


@pytest.mark.parametrize('n', [1, 8, 12, 13, 40])
@pytest.mark.parametrize('scored', [True, False])
def test_curves_name_every_sub_task_once_within_the_picture(n, scored, monkeypatch):
    tasks = Tasks([Task(f'a sub-task called {i}', 'a' if i % 3 else 'b', ['no', 'yes']) for i in range(n)])
    log = pd.DataFrame([dict(epoch=e, phase=p, task=t.name, cls=1/(e+1), ml=0., s=np.nan)
                        for p in ('train', 'valid') for e in range(3) for t in tasks])
    rows = pd.DataFrame([dict(epoch=e, PIQ=.5, **{t.name: .5 for t in tasks}) for e in range(3)] if scored else [])
    texts = []
    real = runs.Figure.savefig
    def look(fig, *args, **kwargs):
        real(fig, *args, **kwargs)
        words = [o for ax in fig.axes if ax.get_legend() for o in ax.get_legend().get_texts()]
        words += [o for ax in fig.axes for o in ax.get_yticklabels()]
        texts.extend((o.get_text(), o.get_window_extent()) for o in words if o.get_text() in tasks.names)
        whole = fig.bbox
        assert all(whole.x0 <= o.x0 and o.x1 <= whole.x1 and whole.y0 <= o.y0 and o.y1 <= whole.y1 for _, o in texts)
    monkeypatch.setattr(runs.Figure, 'savefig', look)
    curves_png(log, tasks, rows)
    assert sorted(o for o, _ in texts) == sorted(tasks.names*2) # of training and validation
    for half in (texts[:n], texts[n:]):
        boxes = sorted((o for _, o in half), key=lambda o: o.y0)
        assert all(b.y0-a.y0 > .7*a.height for a, b in zip(boxes, boxes[1:]))

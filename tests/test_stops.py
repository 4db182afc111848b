"What a fit that is stopped leaves behind, in every callback of ours: nothing."
import contextlib, gc, inspect, subprocess, sys
from itertools import product
from pathlib import Path

import pytest
import torch
from fastai.basics import (Callback, CancelBatchException, CancelEpochException, CancelFitException,
                           CancelTrainException, CancelValidException, DataLoaders, Learner, set_seed)
from fastai.callback.all import EarlyStoppingCallback
from torch import nn
from torch.utils.data import DataLoader

from portrait_nb import callbacks, distributed, learner, runs, weighting
from portrait_nb.callbacks import (BF16, EMA, BatchAugment, Compile, DynamicWeights, LossGuard, LossRecorder, Losses,
                                   OnDevice, ScoreEpochs, SkipValidation, Throughput, TidyCallback)
from portrait_nb.learner import PortraitLearner
from portrait_nb.losses import PortraitLoss
from portrait_nb.runs import KeepRun
from portrait_nb.tasks import PORTRAIT, Tasks
from portrait_nb.weighting import LogitAdjustment

pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('one_thread')]
TASKS = Tasks([PORTRAIT['gender'], PORTRAIT['age']])
# the kind itself; no state; below; in test_distributed; in no fit
ELSEWHERE = {TidyCallback, SkipValidation, KeepRun, distributed.SharedTrainer, learner.GatherPortraits}
EVENTS = '''before_fit before_epoch before_train before_batch after_pred after_loss before_backward before_step
    after_step after_batch after_train
    before_validate after_validate after_epoch after_fit'''.split()
STOPS = [KeyboardInterrupt, RuntimeError, CancelFitException]


class Vectors:
    def __init__(self, n, seed):
        g = torch.Generator().manual_seed(seed)
        self.x, self.labels = torch.randn(n, 8, generator=g), {t.name: torch.randint(t.n_labels, (n,), generator=g)
                                                               for t in TASKS}
    def __len__(self): return len(self.x)
    def __getitem__(self, i): return self.x[i], {k: v[i] for k, v in self.labels.items()}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.heads = nn.BatchNorm1d(8), nn.ModuleDict({t.name: nn.Linear(8, t.n_labels) for t in TASKS})
    def forward(self, x):
        x = self.norm(x)
        return dict(features={k: x for k in self.heads}, logits={k: h(x) for k, h in self.heads.items()})


class Loaders(DataLoaders): device, tasks = torch.device('cpu'), TASKS


def scored(kind):
    "`kind` of Learner, with scores that are quick"
    class Scored(kind):
        def scorable(self, cameras): return dict(PIQ=True)
        def portrait_scores(self, cameras): return dict(PIQ=self.model.norm.running_mean.sum().item())
        def create_opt(self): Learner.create_opt(self)
    return Scored


def everything(kind, path):
    "A Learner with every callback of ours"
    set_seed(0)
    dls = Loaders(DataLoader(Vectors(32, 0), 8, shuffle=True), DataLoader(Vectors(16, 1), 8))
    model, loss = Net(), PortraitLoss(TASKS, metric_loss='triplet', weighting='dwa')
    model.criterion = loss
    cbs = [LossRecorder(), OnDevice(), ScoreEpochs(), LossGuard(path), EMA(.9), Throughput(), BF16(), Compile('eager'),
           BatchAugment(lambda x, **_: x*1.5), DynamicWeights(), LogitAdjustment()]
    return scored(kind)(dls, model, loss_func=loss, path=path, cbs=cbs)


def trained(learn, start):
    "What a training from the weights `start` ends in"
    learn.model.load_state_dict(start)
    set_seed(0)
    with learn.no_bar(), learn.no_logging(): learn.fit(3, 1e-2, reset_opt=True)
    ema, recorder = learn.ema, learn.recorder
    return [learn.model.state_dict(), ema.average.module.state_dict(), ema.steps, ema.swapped, learn.loss_recorder.rows,
            learn.loss_func.weights.tolist(), learn.score_epochs.rows, recorder.values, list(recorder.losses),
            list(recorder.metric_names), len(learn.throughput.rows)]


def same(a, b):
    if torch.is_tensor(a): return torch.equal(a, b)
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)) or hasattr(a, 'map'): return len(a) == len(b) and all(map(same, a, b))
    return a == b or a != a and b != b


def stop_at(event, order, error):
    "A callback that raises `error` at `event`, in the second batch where there is one"
    def inner(cb):
        if event in ('before_fit', 'before_epoch', 'before_train') or getattr(cb, 'iter', 0) >= 1:
            raise error('stopped')
    cb = Callback(**{event: inner})
    cb.order = order
    return cb


def stop(learn, finder, cb):
    with contextlib.suppress(Exception, KeyboardInterrupt), learn.no_bar(), learn.no_logging(), learn.added_cbs(cb):
        if finder: learn.lr_find(start_lr=1, num_it=6, show_plot=False)
        else: learn.fit(2, 1e-1)
    if not isinstance(learn, PortraitLearner): learn.opt.zero_grad() # fastai leaves those of a step that was not taken


def copied(model): return {k: v.clone() for k, v in model.state_dict().items()}


def test_no_callback_of_ours_is_forgotten(tmp_path):
    modules = (callbacks, weighting, runs, learner, distributed)
    ours = {o for m in modules for o in vars(m).values() if inspect.isclass(o) and issubclass(o, Callback)
            and o.__module__.startswith('portrait_nb.')}
    assert ours-ELSEWHERE == {type(o) for o in everything(Learner, tmp_path).cbs
                              if type(o).__module__.startswith('portrait_nb.')}
    for o in ours: assert issubclass(o, TidyCallback) or 'self.run =' not in inspect.getsource(o)


@pytest.mark.parametrize('kind', [Learner, PortraitLearner])
def test_the_fit_after_a_stopped_one_is_as_if_it_had_not_been(kind, tmp_path):
    start = copied(everything(kind, tmp_path).model)
    want = trained(everything(kind, tmp_path), start)
    want = [{k: v.clone() for k, v in o.items()} if isinstance(o, dict) else o for o in want]
    learn = everything(kind, tmp_path)
    for i, (event, finder) in enumerate(product(EVENTS, (True, False))):
        for error, order in product(STOPS, (-15, 99)) if event == 'before_batch' else [(STOPS[i//2 % 3],
                                                                                        (-15, 99)[i//4 % 2])]:
            before = copied(learn.model)
            stop(learn, finder, stop_at(event, order, error))
            where = f'{error.__name__} in {event} ({order}) of {"lr_find" if finder else "fit"}'
            if kind is PortraitLearner:
                if finder: assert same(before, learn.model.state_dict()), where
                assert 'forward' not in vars(learn.model), where
                assert not (learn.ema.swapped and learn.ema.fitting), where
                assert learn.loss_guard.waiting is None, where
            assert same(trained(learn, start), want), where


@pytest.mark.parametrize('error', [CancelBatchException, CancelTrainException, CancelEpochException,
                                   CancelValidException])
@pytest.mark.parametrize('order', [-15, 99])
def test_a_cancelled_part_leaves_no_patch(error, order, tmp_path):
    def cancel(cb):
        if cb.iter and cb.training != (error is CancelValidException): raise error
    learn, cb = everything(Learner, tmp_path), Callback(before_batch=cancel)
    cb.order = order
    with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-1, cbs=cb)
    assert 'forward' not in vars(learn.model) and learn.ema.swapped


def test_what_leaves_its_learner_takes_back_what_it_changed(tmp_path):
    learn = everything(Learner, tmp_path)
    with contextlib.suppress(RuntimeError), learn.no_logging():
        learn.fit(1, cbs=stop_at('before_batch', 99, RuntimeError))
    assert 'forward' in vars(learn.model) and 'after_batch' in vars(learn.progress)
    learn.remove_cbs([learn.on_device, learn.bf16, learn.compile])
    assert 'forward' not in vars(learn.model) and 'after_batch' not in vars(learn.progress)


def test_an_average_that_was_shown_goes_when_validation_is_stopped(tmp_path):
    "Passed to `fit`, in any Learner: what is trained comes back"
    learn, averages = everything(Learner, tmp_path), []
    learn.remove_cb(EMA)
    look = Callback(after_train=lambda cb: averages.append(copied(cb.model)))
    look.order = 0
    with contextlib.suppress(KeyboardInterrupt), learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-1, cbs=[EMA(.9), look, stop_at('after_validate', 0, KeyboardInterrupt)])
    assert same(averages[0], learn.model.state_dict())


def test_keep_run_sits_out_the_finder_and_forgets(tmp_path):
    learn, folder = everything(Learner, tmp_path), tmp_path/'run'
    folder.mkdir()
    learn.add_cb(KeepRun(folder))
    stop(learn, True, stop_at('after_batch', 99, KeyboardInterrupt))
    assert not list(folder.iterdir()) and learn.keep_run.run and learn.keep_run.done is None
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    assert learn.keep_run.done == 1
    learn.keep_run.folder = tmp_path/'other'
    learn.keep_run.folder.mkdir()
    stop(learn, False, stop_at('before_train', 99, RuntimeError))
    assert learn.keep_run.done == 0 and learn.keep_run.scores == []


def test_fastais_own_trackers_come_back(tmp_path):
    learn = everything(PortraitLearner, tmp_path)
    learn.add_cb(EarlyStoppingCallback(monitor='PIQ', patience=99))
    stop(learn, True, stop_at('after_batch', 99, KeyboardInterrupt))
    printed = learn.logger
    with contextlib.suppress(RuntimeError), learn.no_mbar(): learn.fit(1, cbs=stop_at('after_batch', 99, RuntimeError))
    assert learn.early_stopping.run and learn.logger is printed


def test_losses_are_a_list():
    losses, plain = Losses(), []
    for i in range(700):
        losses.append(torch.tensor(i/7)), plain.append(torch.tensor(i/7))
    assert len(losses) == 700
    assert losses[-1] == plain[-1]
    assert list(losses) == plain
    assert losses[5:9].tolist() == [float(o) for o in plain[5:9]]
    assert torch.equal(torch.Tensor(losses), torch.stack(plain))
    assert list(reversed(losses))[0] == plain[-1]
    assert Losses(losses[:]).n == 700
    assert not Losses() and repr(Losses([1, 2])) == 'Losses([1.0, 2.0])'


def test_no_tensor_is_kept_for_a_step(tmp_path):
    "Of what lives after 10 steps and after 90, nothing has grown with them"
    counts = {}
    class Count(Callback):
        order = 200
        def after_batch(self):
            if not self.training or self.train_iter not in (10, 90): return
            gc.collect()
            counts[self.train_iter] = sum(torch.is_tensor(o) for o in gc.get_objects())
    learn = everything(PortraitLearner, tmp_path)
    learn.dls.loaders = [DataLoader(Vectors(100*8, 0), 8), learn.dls.valid]
    learn.add_cb(Count())
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert counts[90]-counts[10] < 5 and len(learn.recorder.losses) == 100


MEMORY = '''
import gc, sys, torch, warnings
warnings.simplefilter('ignore')
torch.set_num_threads(1)
from fastai.basics import Callback, DataLoaders, Learner
from portrait_nb.callbacks import *
from portrait_nb.learner import PortraitLearner
from portrait_nb.losses import PortraitLoss
from portrait_nb.model import PortraitNet
from portrait_nb.tasks import Task, Tasks
tasks = Tasks([Task('t', 'appearance', ('no','yes'))])
class Noise:
    def __len__(self): return 50*16
    def __getitem__(self, i): return torch.randn(3, 64, 32), dict(t=torch.tensor(i%2))
class Memory(Callback):
    order = 200
    def after_batch(self):
        if self.training and self.train_iter in (100, 500):
            print(int(open('/proc/self/statm').read().split()[1])*4//1024)
model = PortraitNet(tasks, 'test_byobnet', split='shared', pretrained=False, size=(64,32))
model.criterion = PortraitLoss(tasks)
dl = torch.utils.data.DataLoader(Noise(), 16)
cbs = [LossRecorder(), OnDevice(), LossGuard(), EMA(), Throughput(), BF16(), SkipValidation(), Memory()]
learn = PortraitLearner(DataLoaders(dl, dl), model, loss_func=model.criterion, cbs=cbs)
with learn.no_bar(), learn.no_logging(): learn.fit(10, 1e-3)
'''


@pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='asks Linux')
def test_memory_stays_over_five_hundred_steps():
    r = subprocess.run([sys.executable, '-c', MEMORY], capture_output=True, text=True, check=True)
    early, late = map(int, r.stdout.split()[-2:])
    assert late-early < 50

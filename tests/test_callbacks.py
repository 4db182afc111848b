"Callbacks in Learners that know nothing of portraits."
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.basics import Callback, DataLoaders, Learner, TensorImage, set_seed
from fastai.callback.all import GradientAccumulation, GradientClip
from timm.utils import ModelEmaV3
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from portrait_nb.callbacks import BF16, EMA, LossGuard, NonFiniteLoss, OnDevice, SkipValidation, Throughput


def learner(cbs=(), model=None, bs=8, **kwargs):
    set_seed(0)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=g)
    y = (x @ torch.tensor([1., -2, .5, 0]))[:, None]
    model = model or nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    return Learner(DataLoaders(DataLoader(TensorDataset(x, y), bs), DataLoader(TensorDataset(x[:16], y[:16]), bs)), model, loss_func=nn.MSELoss(), cbs=list(cbs), **kwargs)


def fit(learn, n=2, lr=1e-2, **kwargs):
    with learn.no_bar(), learn.no_logging(): learn.fit(n, lr, **kwargs)
    return learn


def nan_at(epoch, i):
    def inner(cb):
        if cb.training and (cb.epoch, cb.iter) == (epoch, i): cb.learn.xb = (cb.xb[0]+float('nan'),)
    return Callback(before_batch=inner)


@pytest.mark.parametrize('late', [False, True])
@pytest.mark.parametrize('place', [(0, 0), (0, 7), (1, 3)])
def test_guard_names_and_saves_the_batch(tmp_path, late, place):
    with pytest.raises(NonFiniteLoss) as e: fit(learner([LossGuard(tmp_path, late=late), nan_at(*place)]))
    assert f'epoch {place[0]}, batch {place[1]}: it has no parts' in str(e.value) and 'inputs of this batch are not finite' in str(e.value)
    [file] = tmp_path.iterdir()
    saved = torch.load(file, weights_only=True)
    assert (saved['epoch'], saved['batch']) == place and saved['xb'][0].isnan().all() and saved['yb'][0].shape == (8, 1)


def test_guard_leaves_the_weights_that_gave_the_loss(tmp_path):
    class Kept(Callback):
        def after_step(self): self.w = [p.detach().clone() for p in self.model.parameters()]
    learn = learner([LossGuard(tmp_path), nan_at(1, 0), Kept()])
    with pytest.raises(NonFiniteLoss): fit(learn)
    assert all(torch.equal(a, b) for a, b in zip(learn.model.parameters(), learn.kept.w))


def test_guard_says_when_the_batch_cannot_be_saved(tmp_path):
    (tmp_path/'file').write_text('mine')
    with pytest.raises(NonFiniteLoss, match='could not be saved'): fit(learner([LossGuard(tmp_path/'file'), nan_at(0, 1)]))
    assert (tmp_path/'file').read_text() == 'mine'


def test_guard_keeps_typed_tensors_plain(tmp_path):
    def typed(cb): cb.learn.xb = (TensorImage(cb.xb[0]),)
    with pytest.raises(NonFiniteLoss): fit(learner([LossGuard(tmp_path), nan_at(0, 1), Callback(before_batch=typed)]))
    assert type(torch.load(next(tmp_path.iterdir()), weights_only=True)['xb'][0]) is torch.Tensor


def test_guard_lets_validation_and_good_losses_pass(tmp_path):
    def spoil(cb):
        if not cb.training: cb.learn.xb = (cb.xb[0]+float('nan'),)
    fit(learner([LossGuard(tmp_path), Callback(before_batch=spoil)]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('warmup', [True, False])
def test_ema_is_timms_over_the_same_steps(warmup):
    reference = {}
    class Beside(Callback):
        order = 71
        def before_train(self):
            if self.epoch == 0: reference['avg'] = ModelEmaV3(self.model, .8, use_warmup=warmup); reference['n'] = 0
        def after_step(self):
            reference['n'] += 1
            reference['avg'].update(self.model, reference['n'])
    learn = fit(learner([EMA(.8, warmup), Beside()]), 3)
    assert reference['n'] == 24
    for a, b in zip(learn.model.state_dict().values(), reference['avg'].module.state_dict().values()): assert torch.equal(a, b)


@pytest.mark.parametrize('cbs', [[], [SkipValidation()], [BF16()], [GradientAccumulation(16)], [GradientClip()]], ids=['plain', 'unvalidated', 'bf16', 'accumulated', 'clipped'])
def test_ema_leaves_the_steps_alone(cbs):
    a, b = fit(learner(cbs)), fit(learner([EMA(), *cbs]))
    raw = b.ema.average.module.state_dict()
    assert all(torch.equal(v, raw[k]) for k, v in a.model.state_dict().items())
    if cbs and isinstance(cbs[0], GradientAccumulation): assert b.ema.steps == 2*8//2


def test_ema_is_validated_with_and_out_of_the_way_elsewhere():
    seen = []
    class Look(Callback):
        order = 80
        def after_pred(self): seen.append((self.training, self.ema.shown))
    learn = fit(learner([EMA(.9), Look()]))
    assert all(training != shown for training, shown in seen)
    w = learn.model.state_dict()['0.weight'].clone()
    with learn.no_bar(): learn.validate(); learn.lr_find(stop_div=False, num_it=4, show_plot=False) if hasattr(learn, 'lr_find') else None
    assert torch.equal(w, learn.model.state_dict()['0.weight'])


def test_ema_begins_anew_with_each_fit():
    learn = fit(learner([EMA(.9)]))
    fit(learn)
    assert learn.ema.steps == 16


def test_ema_goes_on_from_its_state():
    learn = fit(learner([EMA(.9)]))
    state = learn.ema.state_dict()
    other = learner([EMA(.9)])
    other.ema.load_state_dict(state)
    assert other.ema.steps == 16 and torch.equal(other.ema.average.module.state_dict()['0.weight'], state['average']['0.weight'])
    other.ema.load_state_dict({})
    assert other.ema.steps == 16


def test_averaged_comes_back_after_an_error():
    class Peek(Callback):
        def after_train(self):
            before = self.model[0].weight.clone()
            with pytest.raises(KeyError), self.ema.averaged():
                assert not torch.equal(before, self.model[0].weight)
                raise KeyError
            assert torch.equal(before, self.model[0].weight)
    fit(learner([EMA(.9), Peek()]))


@pytest.mark.parametrize('decay', [1, -1, 1.5])
def test_ema_refuses_what_is_no_average(decay):
    with pytest.raises(ValueError, match='decay'): EMA(decay)


def test_on_device_records_the_same():
    a, b = fit(learner()), fit(learner([OnDevice()]))
    assert [list(o[:2]) for o in a.recorder.values] == [list(o[:2]) for o in b.recorder.values]
    assert torch.equal(torch.stack(list(a.recorder.losses)), torch.stack(list(b.recorder.losses)))


def test_on_device_takes_an_interrupted_bar_away():
    learn = learner([OnDevice()])
    def stop(cb): raise RuntimeError('stop')
    with pytest.raises(RuntimeError, match='stop'), learn.no_logging(): learn.fit(1, cbs=Callback(after_step=stop))
    learn.remove_cb(OnDevice)
    with learn.no_logging(): learn.fit(1)


def test_throughput_counts_every_image():
    learn = fit(learner([Throughput()], bs=10), 3)
    log = learn.throughput.log
    assert log.images.tolist() == [64]*3 and (log.waiting.between(0, 1)).all() and (log.seconds > 0).all()
    np.testing.assert_allclose(log.images_per_second, log.images/log.seconds)
    assert len(fit(learn, 1).throughput.log) == 1

"Callbacks in Learners that know nothing of portraits."
import copy, pickle, warnings
from contextlib import contextmanager
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.basics import Adam, Callback, CancelTrainException, DataLoaders, Learner, TensorImage, set_seed
from fastai.callback.all import GradientAccumulation, GradientClip
from timm.utils import ModelEmaV3
from torch import nn
from torch._inductor import config as inductor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from portrait_nb.annotations import read_annotations
from portrait_nb.callbacks import (BF16, EMA, BatchAugment, Compile, FusedAdam, LossGuard, NonFiniteLoss, OnDevice,
                                   SkipValidation, Throughput)
from portrait_nb.data import Augment, portrait_dls
from portrait_nb.learner import fss_learner
from portrait_nb.losses import PortraitLoss
from portrait_nb.synth import make_portraits
from portrait_nb.tasks import PORTRAIT


def learner(cbs=(), model=None, bs=8, **kwargs):
    set_seed(0)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=g)
    y = (x @ torch.tensor([1., -2, .5, 0]))[:, None]
    model = model or nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    return Learner(DataLoaders(DataLoader(TensorDataset(x, y), bs), DataLoader(TensorDataset(x[:16], y[:16]), bs)),
                   model, loss_func=nn.MSELoss(), cbs=list(cbs), **kwargs)


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
    assert f'epoch {place[0]}, batch {place[1]}: it has no parts' in str(e.value)
    assert 'inputs of this batch are not finite' in str(e.value)
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
    with pytest.raises(NonFiniteLoss, match='could not be saved'):
        fit(learner([LossGuard(tmp_path/'file'), nan_at(0, 1)]))
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
    for a, b in zip(learn.model.state_dict().values(), reference['avg'].module.state_dict().values()):
        assert torch.equal(a, b)


@pytest.mark.parametrize('cbs', [[], [SkipValidation()], [BF16()], [GradientAccumulation(16)], [GradientClip()]],
                         ids=['plain', 'unvalidated', 'bf16', 'accumulated', 'clipped'])
def test_ema_leaves_the_steps_alone(cbs):
    a, b = fit(learner(cbs)), fit(learner([EMA(), *cbs]))
    raw = b.ema.average.module.state_dict()
    assert all(torch.equal(v, raw[k]) for k, v in a.model.state_dict().items())
    if cbs and isinstance(cbs[0], GradientAccumulation): assert b.ema.steps == 2*8//2


def test_ema_is_validated_with_and_out_of_the_way_elsewhere():
    passes = []
    class Look(Callback):
        order = 80
        def after_pred(self): passes.append((self.training, self.ema.swapped))
    learn = fit(learner([EMA(.9), Look()]))
    assert all(training != averaged for training, averaged in passes)
    w = learn.model.state_dict()['0.weight'].clone()
    with learn.no_bar():
        learn.validate()
        learn.lr_find(stop_div=False, num_it=4, show_plot=False) if hasattr(learn, 'lr_find') else None
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
    assert other.ema.steps == 16
    assert torch.equal(other.ema.average.module.state_dict()['0.weight'], state['average']['0.weight'])
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


# the step that waits for nothing

class Marked(TorchDispatchMode):
    "What torch itself marks as needing a number, or a shape that depends on numbers, on the host"
    def __init__(self, found): super().__init__(); self.found = found
    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        lists = [o for o in args if isinstance(o, (list, tuple))]
        by_mask = any(torch.is_tensor(i) and i.dtype == torch.bool for o in lists for i in o)
        shape = torch.Tag.dynamic_output_shape in f.tags
        if torch.Tag.data_dependent_output in f.tags or (by_mask if 'index' in str(f) else shape):
            self.found.append(str(f))
        return f(*args, **(kwargs or {}))


class Named(TorchFunctionMode):
    "What reads a tensor beside the dispatcher"
    def __init__(self, found): super().__init__(); self.found = found
    def __torch_function__(self, f, types, args=(), kwargs=None):
        if getattr(f, '__name__', '') in ('tolist', 'numpy', 'cpu', '__array__'): self.found.append(f.__name__)
        return f(*args, **(kwargs or {}))


@contextmanager
def host_reads():
    found = []
    with Marked(found), Named(found): yield found


@pytest.mark.parametrize('read', [lambda x: x.item(), lambda x: x.tolist(), lambda x: bool(x), lambda x: x[x > 0],
                                  lambda x: x.nonzero(), lambda x: f'{x:.2f}', lambda x: torch.equal(x, x)])
def test_host_reads_are_seen(read):
    with host_reads() as found: read(torch.tensor(1.))
    assert found


@pytest.fixture(scope='module')
def portraits(tmp_path_factory):
    root = tmp_path_factory.mktemp('tiny')
    make_portraits(root, 'tiny', seed=0, n_workers=1)
    return read_annotations(root/'annotations.csv', root, PORTRAIT), root


def reads_in(learn, n):
    "Host reads of the last n-2 steps: forward, losses, backward, optimiser and callbacks, not the loader, whose random numbers are the host's"
    watches = []
    class Count(Callback):
        order = -100
        def before_batch(self):
            self.watch = host_reads()
            watches.append(self.watch.__enter__())
        def after_batch(self): self.watch.__exit__(None, None, None)
    class End(Callback):
        order = 1000
        def after_batch(self):
            if self.iter == n: raise CancelTrainException
    learn.add_cbs([Count(), End(), SkipValidation()])
    with learn.no_bar(), learn.no_logging(): learn.fit_paper(1)
    return [o for found in watches[2:] for o in found]


@pytest.mark.parametrize('metric_loss,weighting', [('br', 'uncertainty'), ('triplet', 'average')])
@pytest.mark.parametrize('cbs', [[], [BF16], [EMA, Throughput]], ids=['plain', 'bf16', 'ema'])
def test_a_portrait_step_reads_nothing(portraits, metric_loss, weighting, cbs):
    df, root = portraits
    dls = portrait_dls(df, root, PORTRAIT, size=(64, 32), bs=16, seed=0, device='cpu', num_workers=0)
    learn = fss_learner(dls, 'test_resnet', pretrained=False, metric_loss=metric_loss, weighting=weighting,
                        cbs=[o() for o in cbs])
    assert reads_in(learn, 5) == []
    learn.remove_cb(OnDevice)
    learn.add_cb(Callback(after_loss=lambda cb: cb.loss.item()))
    assert len(reads_in(learn, 5)) > 0


def test_a_batch_reaches_its_device_without_a_number_to_be_read(portraits):
    "On the meta device there is no number: whoever asked for one would fail"
    df, root = portraits
    dls = portrait_dls(df, root, PORTRAIT, size=(64, 32), bs=16, seed=0, device='meta')
    for x, y in dls.train:
        assert x.device.type == 'meta'
        assert x.shape == (16, 3, 64, 32)
        assert all(o.device.type == 'meta' for o in y.values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('cbs', [[], [BF16], [BF16, EMA, Throughput, Compile]], ids=['plain', 'bf16', 'all'])
def test_no_step_waits_for_the_gpu(portraits, cbs):
    "Loader and step, under torch's own alarm"
    df, root = portraits
    dls = portrait_dls(df, root, PORTRAIT, size=(64, 32), bs=16, seed=0, device='cuda', num_workers=2)
    class Alarm(Callback):
        order = 1000
        def after_batch(self):
            if self.iter == 2: torch.cuda.set_sync_debug_mode('error')
            if self.iter == 6: torch.cuda.set_sync_debug_mode('default'); raise CancelTrainException
    learn = fss_learner(dls, 'test_resnet', pretrained=False,
                        cbs=[Alarm(), SkipValidation(), LossGuard(), *(o() for o in cbs)])
    try:
        with learn.no_bar(), learn.no_logging(): learn.fit_paper(1)
    finally: torch.cuda.set_sync_debug_mode('default')
    assert learn.iter == 6


# compile

def warned_by(f, *args):
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        out = f(*args)
    return out, [str(o.message) for o in w if 'torch.compile' in str(o.message)]


@pytest.mark.parametrize('more', [[], [BF16], [EMA], [BF16, EMA]], ids=['alone', 'bf16', 'ema', 'both'])
def test_compiled_trains_as_plain(more):
    plain = fit(learner([o() for o in more]))
    compiled, warned = warned_by(lambda: fit(learner([Compile('aot_eager'), *(o() for o in more)])))
    assert not warned and compiled.compile.graphs == 1
    tol = dict(rtol=.05, atol=5e-3) if BF16 in more else dict(rtol=1e-4, atol=1e-6)
    for (ka, a), (kb, b) in zip(plain.model.state_dict().items(), compiled.model.state_dict().items()):
        assert ka == kb
        torch.testing.assert_close(a, b, **tol)
    assert 'forward' not in vars(compiled.model)
    pickle.dumps(compiled.model)


def test_a_second_fit_is_not_compiled_again():
    learn = fit(learner([Compile('aot_eager')]))
    fit(learn)
    assert learn.compile.graphs == 1


def test_the_last_smaller_batch_is_compiled_once_more():
    learn = fit(learner([Compile('aot_eager')], bs=10))
    assert learn.compile.graphs == 2 and not learn.compile.cuts


def test_a_backend_that_fails_is_told_once_and_changes_nothing():
    plain = fit(learner(bs=10))
    def broken(graph, inputs): raise RuntimeError('no such thing\nsecond line')
    learn, warned = warned_by(lambda: fit(learner([Compile(broken)], bs=10)))
    assert warned == ['torch.compile fell back, the training goes on uncompiled: no such thing']
    assert learn.compile.graphs == 2
    assert all(torch.equal(a, b) for a, b in zip(plain.model.state_dict().values(), learn.model.state_dict().values()))


def test_no_cpp_compiler_is_told():
    with inductor.patch({'cpp.cxx': (None, 'no-such-compiler'), 'fx_graph_cache': False}):
        learn, warned = warned_by(lambda: fit(learner([Compile()])))
    assert len(warned) == 1 and 'No working C++ compiler' in warned[0] and learn.recorder.losses


def test_one_learner_more_than_torch_keeps_is_compiled_too():
    with torch._dynamo.config.patch(recompile_limit=1):
        for _ in range(2): learn, warned = warned_by(lambda: fit(learner([Compile('aot_eager')]), 1))
    assert learn.compile.graphs == 1 and not warned


class WidthMatters(nn.Module):
    "Another network for every width, so compiled again"
    def __init__(self): super().__init__(); self.l = nn.Linear(1, 1)
    def forward(self, x): return self.l(x.sum(1, keepdim=True)*float(x.shape[1]))


def test_more_shapes_than_torch_keeps_are_told():
    def wider(cb): cb.learn.xb = (cb.xb[0].repeat(1, cb.iter+1),)
    learn = learner([Compile('aot_eager'), Callback(before_batch=wider)], model=WidthMatters())
    with torch._dynamo.config.patch(recompile_limit=2, automatic_dynamic_shapes=False):
        _, warned = warned_by(lambda: fit(learn, 1))
    assert len(warned) == 1 and 'limit' in warned[0]


def test_an_unknown_backend_is_refused_at_once():
    with pytest.raises(Exception, match='nonsense'): Compile('nonsense')


def test_an_error_of_the_model_stays_its_own():
    class Bad(nn.Module):
        def __init__(self): super().__init__(); self.l = nn.Linear(3, 1)
        def forward(self, x): return self.l(x)
    with pytest.raises(Exception, match='linear'): fit(learner([Compile('aot_eager')], model=Bad()))


# the optimiser

@pytest.mark.parametrize('decouple', [True, False])
@pytest.mark.parametrize('cbs', [[], [GradientAccumulation(16)], [GradientClip()]],
                         ids=['plain', 'accumulated', 'clipped'])
def test_fused_adam_is_torchs(decouple, cbs):
    "Against torch.optim, norms and biases in a group of their own, which is not decayed"
    learn = learner(cbs, opt_func=partial(FusedAdam, decouple_wd=decouple, sqr_mom=.999, eps=1e-8), wd=.1)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    model.load_state_dict(learn.model.state_dict())
    undecayed = {id(model[0].weight), id(model[3].weight)}
    groups = [dict(params=[p for p in model.parameters() if (id(p) in undecayed) == decayed], weight_decay=.1*decayed)
              for decayed in (True, False)]
    opt = (torch.optim.AdamW if decouple else torch.optim.Adam)(groups, lr=1e-2, eps=1e-8)
    rows = []
    class Keep(Callback):
        order = 60
        def before_step(self): rows.append([p.grad.clone() for p in self.model.parameters()])
    learn.add_cb(Keep())
    fit(learn)
    for grads in rows:
        for p, g in zip(model.parameters(), grads): p.grad = g
        opt.step()
    for a, b in zip(learn.model.parameters(), model.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_fused_adam_goes_on_from_fastais_state():
    plain, fused = partial(Adam, decouple_wd=False), partial(FusedAdam, decouple_wd=False)
    a = fit(learner(opt_func=plain, lr=1e-2))
    b = learner(opt_func=fused, lr=1e-2)
    b.model.load_state_dict(a.model.state_dict())
    b.create_opt()
    b.opt.load_state_dict(copy.deepcopy(a.opt.state_dict()))
    for p, q in zip(a.model.parameters(), b.model.parameters()):
        p.grad = torch.ones_like(p)
        q.grad = torch.ones_like(q)
    a.opt.step()
    b.opt.step()
    for p, q in zip(a.model.parameters(), b.model.parameters()): torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)


def test_frozen_weights_and_missing_gradients_stay():
    learn = learner(opt_func=FusedAdam, splitter=lambda m: [list(m[0].parameters()), list(m[1:].parameters())])
    learn.freeze()
    before = learn.model[0].weight.clone()
    fit(learn)
    assert torch.equal(before, learn.model[0].weight) and 'step' not in learn.opt.state[learn.model[0].weight]
    learn.unfreeze()
    fit(learn)
    assert not torch.equal(before, learn.model[0].weight)


def test_the_uncertainties_are_not_decayed(portraits):
    df, root = portraits
    dls = portrait_dls(df, root, PORTRAIT, size=(64, 32), bs=16, seed=0, device='cpu', num_workers=0)
    learn = fss_learner(dls, 'test_resnet', pretrained=False, wd=.5)
    learn.create_opt()
    learn.opt.set_hypers(wd=.5, lr=.01)
    with torch.no_grad(): learn.loss_func.s.fill_(1.)
    weight = learn.model.neck('age').classifier.weight
    before = weight.clone()
    for o in learn.opt.all_params(): o[0].grad = torch.zeros_like(o[0])
    learn.opt.step()
    assert (learn.loss_func.s == 1).all() and not torch.equal(before, weight)


# augmentation and meter

def test_augmented_in_training_only():
    inputs = {True: [], False: []}
    class Keep(Callback):
        def after_pred(self): inputs[self.training].append(self.xb[0])
    fit(learner([BatchAugment(lambda x: x*0+7), Keep()]), 1)
    assert all((o == 7).all() for o in inputs[True]) and not any((o == 7).all() for o in inputs[False])


def test_a_callbacks_augmentation_goes_on_where_it_was():
    first, second, x = BatchAugment(Augment((64, 32))), BatchAugment(Augment((64, 32))), torch.randn(4, 3, 64, 32)
    first.augment(x, split_idx=0)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.augment(x, split_idx=0), second.augment(x, split_idx=0))
    assert BatchAugment(lambda x: x).state_dict() == {}


def test_a_loss_that_looks_at_gradients_is_not_compiled():
    loss = PortraitLoss(PORTRAIT, weighting='gradnorm')
    learn = learner([Compile('aot_eager', with_loss=True)])
    learn.loss_func = loss
    with pytest.raises(ValueError, match='leave with_loss out'): fit(learn)


@pytest.mark.parametrize('kwargs', [{}, dict(pad=0), dict(flip=0), dict(erase=0), dict(pad=0, flip=1, erase=1)])
@pytest.mark.parametrize('shape', [(8, 3, 64, 32), (3, 1, 32, 48)])
def test_augment_is_kornias_to_the_last_bit(kwargs, shape):
    a, b = Augment(shape[2:], **kwargs), Augment(shape[2:], **kwargs)
    x = torch.randn(shape)
    for _ in range(3):
        torch.manual_seed(b.rng.getrandbits(63))
        assert torch.equal(a(x, split_idx=0), b.steps(x))


def test_memory_is_told_where_it_is_counted():
    log = fit(learner([Throughput()])).throughput.log
    assert log.peak_mb.isna().all() != torch.cuda.is_available()


@pytest.mark.parametrize('back', [False, True])
def test_fused_adam_follows_the_layout_of_the_weights(back):
    "channels_last comes, or goes, between two steps: the moments stay with their weights"
    layers = [nn.Conv2d(3, 4, 3) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    opts = [f(list(m.parameters()), lr=1e-2) for f, m in zip((FusedAdam, Adam), layers)]
    layouts = (torch.channels_last, torch.contiguous_format)
    for layout in layouts if back else layouts[::-1]:
        layers[0].to(memory_format=layout)
        for _ in range(2):
            grads = [torch.randn(p.shape) for p in layers[1].parameters()]
            for m, opt in zip(layers, opts):
                for p, g in zip(m.parameters(), grads): p.grad = torch.empty_like(p).copy_(g)
                opt.step()
    for p, q in zip(*(m.parameters() for m in layers)): torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_losses_of_an_interrupted_fit_can_be_drawn():
    class Stop(Callback):
        def after_batch(self):
            if self.iter == 1: raise KeyboardInterrupt
    learn = learner([OnDevice(), Stop()])
    with pytest.raises(KeyboardInterrupt): fit(learn)
    learn.recorder.plot_loss(skip_start=0, with_valid=False)
    assert all(o.device.type == 'cpu' for o in learn.recorder.losses)

"Two processes against one: the same losses, gradients, uncertainties, weights, scores; one writer; broken off and taken up."
import importlib, json, math, multiprocessing, os, shutil, signal, socket, subprocess, sys
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.basics import Callback, set_seed
from timm.layers import BatchNormAct2d
from torch import nn

pytest.importorskip('accelerate')
import torch.distributed as dist
from portrait_nb import distributed, runs
from portrait_nb.annotations import read_annotations
from portrait_nb.callbacks import EMA
from portrait_nb.data import Augment, portrait_dls
from portrait_nb.distributed import GlobalBatchNorm, SharedDL, gather_rows, join_processes, sync_batch_norm
from portrait_nb.learner import fss_learner
from portrait_nb.losses import PortraitLoss
from portrait_nb.runs import new_run, open_run, read_checkpoint, run_config
from portrait_nb.tasks import PORTRAIT, Task, Tasks

pytestmark = pytest.mark.filterwarnings('ignore')
LOADING = dict(size=(64, 32), bs=8, num_workers=0, device='cpu')
LEARNER = dict(backbone='test_resnet', pretrained=False, positives='mean', lr=1e-3)
CPU_ONLY = dict(CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1', PYTHONPATH=str(Path(runs.__file__).parent.parent))


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


def in_process(rank, n, port, file, f, args):
    "What `f` returns goes to `file`"
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(n), LOCAL_WORLD_SIZE=str(n),
                      MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), **CPU_ONLY)
    torch.set_num_threads(1)
    join_processes('cpu')
    torch.save(f(*args), f'{file}.{rank}')


@pytest.fixture(scope='module')
def spawn(tmp_path_factory):
    "Call a function in `n` processes that know of each other; what each returns, and their exit codes; none outlives `timeout`"
    ctx, folder = multiprocessing.get_context('forkserver'), tmp_path_factory.mktemp('said')
    ctx.set_forkserver_preload(['portrait_nb.runs', 'portrait_nb.distributed'])
    def inner(f, *args, n=2, timeout=90):
        with socket.socket() as s:
            s.bind(('127.0.0.1', 0))
            port = s.getsockname()[1]
        file = folder/str(port)
        ps = [ctx.Process(target=in_process, args=(i, n, port, file, f, args)) for i in range(n)]
        for p in ps: p.start()
        for p in ps:
            p.join(timeout)
            if p.is_alive(): [o.kill() for o in ps]
        codes = [p.exitcode for p in ps]
        return [torch.load(f'{file}.{i}', weights_only=False) if c == 0 else None for i, c in enumerate(codes)], codes
    return inner


def every(spawn, f, *args, **kwargs):
    got, codes = spawn(f, *args, **kwargs)
    assert codes == [0]*len(codes)
    return got


# ---- the parts

def gradient_of_gathered(parts):
    "The gradient at this process's rows, and at a weight after the gathering, averaged as DDP does"
    x = parts[dist.get_rank()].clone().requires_grad_()
    w = torch.ones((), dtype=x.dtype, requires_grad=True)
    b = gather_rows(dict(f=x[:, :2], y=[x.detach()[:, 0].long(), None], g=(x*2,)))
    loss = w*(b['f'].sum(0).prod()+b['g'][0].square().sum()*b['y'][0].sum())
    loss.backward()
    dist.all_reduce(w.grad)
    return loss.item(), x.grad/dist.get_world_size(), w.grad/dist.get_world_size(), b['y'][1], b['g'][0].shape


@pytest.mark.parametrize('n', [2, 3])
def test_the_gradient_of_what_is_gathered_is_the_whole_one(spawn, n):
    x = torch.randn(4*n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(n))*3
    whole = x.clone().requires_grad_()
    loss = whole[:, :2].sum(0).prod()+(2*whole).square().sum()*whole.detach()[:, 0].long().sum()
    loss.backward()
    got = every(spawn, gradient_of_gathered, list(x.split(4)), n=n)
    for value, *_ , none, shape in got:
        assert math.isclose(value, loss.item(), rel_tol=1e-12) and none is None and shape == (4*n, 3)
    assert torch.allclose(torch.cat([o[1] for o in got]), whole.grad, rtol=1e-12)
    for o in got: assert math.isclose(o[2].item(), loss.item(), rel_tol=1e-12)


def normalised(net, parts):
    net, x = deepcopy(net), parts[dist.get_rank()].clone().requires_grad_() # what is sent is shared memory
    with GlobalBatchNorm(): y = net(x)
    (gather_rows(y)**3).sum().backward()
    for p in net.parameters(): dist.all_reduce(p.grad)
    n = dist.get_world_size()
    return y.detach(), x.grad/n, [p.grad/n for p in net.parameters()], dict(net.named_buffers())


@pytest.mark.parametrize('layer, shape', [
    (nn.BatchNorm1d(5), (8, 5)), (nn.BatchNorm2d(5), (8, 5, 3, 2)),
    (nn.BatchNorm2d(5, affine=False, momentum=None), (8, 5, 3, 2)), (BatchNormAct2d(5), (8, 5, 3, 2)),
    (nn.BatchNorm1d(5, track_running_stats=False), (8, 5))], ids=lambda o: type(o).__name__)
def test_batch_norm_over_all_processes_is_that_of_the_whole_batch(spawn, layer, shape):
    g = torch.Generator().manual_seed(0)
    net, x = layer.double().train(), torch.randn(shape, dtype=torch.float64, generator=g)+3
    got = every(spawn, normalised, net, list(x.split(4)))
    whole = x.clone().requires_grad_()
    y = net(whole)
    (y**3).sum().backward()
    assert torch.allclose(torch.cat([o[0] for o in got]), y)
    assert torch.allclose(torch.cat([o[1] for o in got]), whole.grad, atol=1e-10)
    for o in got:
        for a, b in zip(o[2], net.parameters()): assert torch.allclose(a, b.grad)
        for k, v in net.named_buffers(): assert torch.allclose(o[3][k], v)


def test_converting_twice_keeps_the_activation():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), BatchNormAct2d(4), nn.BatchNorm2d(4))
    weights = [id(p) for p in net.parameters()]
    for _ in range(2): sync_batch_norm(net)
    assert all(isinstance(o, nn.SyncBatchNorm) for o in net[1:])
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(net[:2].eval()(x), net[0](x).relu(), atol=1e-4)
    assert [id(p) for p in net.parameters()] == weights


def load(portraits, **kwargs):
    return portrait_dls(portraits[1], portraits[0], PORTRAIT, seed=3, **{**LOADING, 'augment': False, **kwargs})


@pytest.mark.parametrize('world', [2, 4])
@pytest.mark.parametrize('kwargs', [{}, dict(sampling='pk', k=2), dict(sampling='shuffle', k=2), dict(num_workers=2)],
                         ids=str)
def test_shares_together_are_the_batch(portraits, kwargs, world, monkeypatch):
    one = load(portraits, **kwargs)
    epochs = [[(x, y['identity']) for x, y in one.train] for _ in range(2)]
    monkeypatch.setenv('WORLD_SIZE', str(world))
    shares = [SharedDL(load(portraits, **kwargs).train, i, world) for i in range(world)]
    for epoch in epochs:
        parts = [[(x, y['identity']) for x, y in o] for o in shares]
        assert {len(o) for o in parts} == {len(epoch)} == {len(o) for o in shares}
        for i, whole in enumerate(epoch):
            for j in (0, 1): assert torch.equal(torch.cat([o[i][j] for o in parts]), whole[j])


@pytest.mark.parametrize('bs, world', [(7, 2), (8, 3), (45, 4)])
def test_shares_of_the_other_loaders_are_padded(portraits, bs, world):
    dl = load(portraits, bs=bs).valid
    n, rows = len(dl.dataset), [i for i in range(len(dl.dataset))]
    shares = [SharedDL(dl, i, world) for i in range(world)]
    idxs = [o.get_idxs() for o in shares]
    assert len({len(o) for o in idxs}) == 1
    got, at = [], 0
    for size in shares[0].sizes:
        k = math.ceil(size/world)
        got += sum([o[at:at+k] for o in idxs], [])[:size]
        at += k
    assert got == rows and sum(shares[0].sizes) == n


def test_augmentation_is_drawn_for_each_process(portraits):
    def first(rank, world=2): return next(iter(SharedDL(load(portraits, augment=True).train, rank, world)))[0]
    assert torch.equal(first(0), first(0)) and torch.equal(first(1), first(1))
    dls = [load(portraits, augment=True).train for _ in (0, 1)]
    draws = [[o.rng.random() for o in dl.dl.after_batch.fs if isinstance(o, Augment)]
             for dl in (SharedDL(d, i, 2) for i, d in enumerate(dls)) if not dl.before_iter()]
    assert draws[0] != draws[1]


def test_what_cannot_be_shared_is_refused(portraits):
    for bs, n, match in ((8, 3, 'take bs=6, or another multiple of 3'),
                         (64, 2, 'A batch of 45 portraits cannot be shared evenly by 2 processes: take bs=44')):
        with pytest.raises(ValueError, match=match): SharedDL(load(portraits, bs=bs).train, 0, n)


def test_shares_of_the_metric_loss():
    tasks = Tasks([Task('age', 'appearance', ['child', 'adult'])])
    f, y = torch.randn(8, 4), torch.tensor([0, 1, 0, -1, 1, 1, -1, -1])
    output, labels = dict(features=dict(age=f), logits=dict(age=torch.randn(8, 2))), dict(age=y)
    for kind in ('br', 'triplet'):
        whole, halves = PortraitLoss(tasks, kind), PortraitLoss(tasks, kind, shares=2)
        ml = [whole.metric(f[o], y[o]) for o in (slice(0, 4), slice(4, 8))]
        value = halves(output, labels)
        assert torch.isclose(value, F.cross_entropy(output['logits']['age'], y, ignore_index=-1)+.5*(3*ml[0]+2*ml[1])/5)
        same = dict(features=dict(age=torch.cat([f[:4]]*2)),
                    logits=dict(age=torch.cat([output['logits']['age'][:4]]*2)))
        half = dict(features=dict(age=f[:4]), logits=dict(age=output['logits']['age'][:4]))
        assert torch.isclose(halves(same, dict(age=torch.cat([y[:4]]*2))), whole(half, dict(age=y[:4])))
    nothing = dict(features=dict(age=f[:0]), logits=dict(age=torch.zeros(0, 2)))
    assert PortraitLoss(tasks, 'br', shares=2)(nothing, dict(age=y[:0])) == 0
    assert PortraitLoss(tasks, None, shares=2)(output, labels) == PortraitLoss(tasks)(output, labels)


# ---- two trainings

class Exact(Callback):
    "float64 throughout, and what every step was made of"
    def __init__(self): self.rows = []
    def before_batch(self): self.learn.xb = tuple(o.double() for o in self.xb)
    def after_loss(self):
        if self.training: self.rows.append([self.loss.item()])
        self.learn.loss = self.loss.float()
    def after_backward(self):
        self.rows[-1] += [torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None]),
                          None if self.loss_func.s is None else self.loss_func.s.detach().clone()]


CASES = {'random': dict(epochs=2),
         'pk, triplet': dict(loading=dict(sampling='pk', k=2),
                             learner=dict(metric_loss='triplet', weighting='average')),
         'shuffle': dict(loading=dict(sampling='shuffle', k=2)),
         'not gathered': dict(how=dict(gather=False)),
         'gradnorm': dict(learner=dict(weighting='gradnorm')),
         'dwa, no metric loss': dict(epochs=3, learner=dict(weighting='dwa', metric_loss=None))}


def train(root, name):
    "Train a case; its steps, weights, averaged weights, log, record and scores"
    case = CASES[name]
    df = read_annotations(root/'annotations.csv', root, PORTRAIT)
    df.loc[df.index[:30], 'age'] = '' # so that many a share has nobody with an age
    set_seed(0)
    dls = portrait_dls(df, root, PORTRAIT, seed=1, augment=False, **{**LOADING, **case.get('loading', {})})
    exact = Exact()
    learn = fss_learner(dls, cbs=[exact, EMA(.9)], **{**LEARNER, **case.get('learner', {})})
    learn.model.double()
    how, world = case.get('how', {}), int(os.environ.get('WORLD_SIZE', 1))
    if world == 1 and not how.get('gather', True): learn.loss_func.shares = 2
    with learn.no_bar(), learn.no_logging():
        with learn.distrib_ctx(**how):
            learn.fit(case.get('epochs', 1))
            weights = {k: v.clone() for k, v in learn.model.state_dict().items()}
            learn.model.float()
            scores = learn.portrait_scores()
    assert type(learn.model).__name__ == 'PortraitNet'
    assert type(learn.dls.train).__name__ == 'PortraitLoader'
    assert world == 1 or learn.loss_func.shares == 1
    return dict(steps=exact.rows, weights=weights, log=learn.loss_recorder.log,
                values=list(map(list, learn.recorder.values)), scores=scores)


def train_all(root): return {k: train(root, k) for k in CASES}


def alike(a, b, **kwargs):
    if a is None or b is None: return a is b
    return torch.allclose(torch.as_tensor(a), torch.as_tensor(b), **kwargs)


@pytest.fixture(scope='module')
def pairs(spawn, portraits):
    "{case: (one process, process 0 of two, process 1 of two)}"
    one, (a, b) = train_all(portraits[0]), every(spawn, train_all, portraits[0])
    return {k: (one[k], a[k], b[k]) for k in CASES}


@pytest.mark.parametrize('name', CASES)
def test_two_processes_train_as_one(pairs, name):
    one, *two = pairs[name]
    for o in two:
        assert len(o['steps']) == len(one['steps']) >= 4
        for (loss, grad, s), (loss2, grad2, s2) in zip(one['steps'], o['steps']):
            assert alike(loss2, loss, rtol=1e-9)
            assert alike(grad2, grad, rtol=1e-6, atol=1e-9*grad.abs().max())
            assert alike(s2, s, rtol=1e-9, atol=1e-12)
        for k, v in one['weights'].items(): assert alike(o['weights'][k].double(), v.double(), rtol=1e-6, atol=1e-8), k
        logs = [run['log'].select_dtypes('number').fillna(0) for run in (o, one)]
        assert np.allclose(*logs, rtol=1e-5)
        assert np.allclose(o['values'], one['values'], rtol=1e-5)
        assert o['scores'].keys() == one['scores'].keys()
        assert all(math.isclose(o['scores'][k], v, abs_tol=1e-6) for k, v in one['scores'].items())


@pytest.mark.parametrize('name', CASES)
def test_the_processes_agree_to_the_last_bit(pairs, name):
    _, a, b = pairs[name]
    assert a['scores'] == b['scores']
    for k, v in a['weights'].items(): assert torch.equal(v, b['weights'][k]), k
    for x, y in zip(a['steps'], b['steps']): assert x[0] == y[0] and torch.equal(x[1], y[1])


def test_the_cases_differ(pairs):
    ends = []
    for o in pairs.values():
        weights = o[0]['weights']
        ends.append(weights['body.conv1.weight' if 'body.conv1.weight' in weights else next(iter(weights))])
    assert all(not torch.equal(a, b) for i, a in enumerate(ends) for b in ends[:i])


# ---- runs

def config_of(root, **kwargs):
    return run_config(root/'annotations.csv', root, PORTRAIT,
                      **{**dict(n_epoch=3, loading=LOADING, learner=LEARNER, ema=.9, score_every=2), **kwargs})


class WhoWrites(Callback):
    "Notes the writes of this process; ends as it is told"
    def __init__(self, rank=None, epoch=1, end=None): self.rank, self.at, self.end = rank, epoch, end
    def after_backward(self):
        if self.end and self.rank in (None, dist.get_rank()) and (self.epoch, self.iter) == (self.at, 2): self.end()


def die(): os.kill(os.getpid(), signal.SIGKILL)


def nan_weights(cb): cb.model.neck('height').classifier.weight.data.fill_(float('inf'))


def run(path, config, cb=None):
    "Begin a run or take it up; the names of the files that this process wrote, and in what sentence it ended"
    wrote, real, message = [], runs.write_safely, ''
    def noted(file, data): wrote.append(Path(file).name); real(file, data)
    runs.write_safely = noted
    r = open_run(path) if (path/'config.json').exists() else new_run(path, config)
    try:
        with r.learn.no_bar(), r.learn.no_logging(): r.fit(cb)
    except runs.RunError as e: message = str(e)
    return wrote, message


def same(a, b):
    if torch.is_tensor(a): return torch.equal(a, b)
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b))
    return a == b or a != a and b != b


@pytest.fixture(scope='module')
def unbroken(spawn, portraits, tmp_path_factory):
    path = tmp_path_factory.mktemp('unbroken')/'run'
    return path, every(spawn, run, path, config_of(portraits[0]))


def test_one_writes(unbroken):
    path, ((first, _), (second, _)) = unbroken
    assert 'last.pt' in first and 'log.csv' not in second and second == []
    assert not [o.name for o in path.iterdir() if o.name.startswith('process')]
    assert json.loads((path/'environment.json').read_text())[-1]['processes'] == 2
    log = (path/'log.csv').read_text().splitlines()
    assert len(log) == len(set(log)) == 1+3*2*8


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='kills by signal')
def test_killed_and_taken_up_is_as_never_broken(spawn, unbroken, portraits, tmp_path):
    got, codes = spawn(run, tmp_path/'run', config_of(portraits[0]), WhoWrites(end=die))
    assert codes == [-signal.SIGKILL]*2 and read_checkpoint(tmp_path/'run'/'last.pt')['epoch'] == 1
    every(spawn, run, tmp_path/'run', None)
    one, two = (read_checkpoint(o/'last.pt') for o in (unbroken[0], tmp_path/'run'))
    assert one['epoch'] == 3 and len(one['others']) == 1 and same(one, two)
    for o in ('log.csv', 'scores_by_epoch.csv'): assert (unbroken[0]/o).read_bytes() == (tmp_path/'run'/o).read_bytes()


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='kills by signal')
def test_one_that_dies_stops_the_other_with_a_sentence(spawn, portraits, tmp_path):
    got, codes = spawn(run, tmp_path/'run', config_of(portraits[0]), WhoWrites(rank=1, end=die))
    assert codes == [0, -signal.SIGKILL]
    assert 'Another process of this training has stopped' in got[0][1]
    assert 'holds 1 of 3 epochs: go on with portrait_train --resume' in got[0][1]
    # and one process alone can go on with it
    run(tmp_path/'run', None)
    assert read_checkpoint(tmp_path/'run'/'last.pt')['epoch'] == 3


def test_a_loss_that_is_not_finite_stops_all(spawn, portraits, tmp_path):
    got = every(spawn, run, tmp_path/'run', config_of(portraits[0]), Spoil())
    for i, (_, message) in enumerate(got):
        assert "The loss is nan at epoch 1, batch 2: the classification loss of 'height' is nan" in message
    files = [tmp_path/'run'/'bad_batch_epoch1_2.pt', tmp_path/'run'/'process1'/'bad_batch_epoch1_2.pt']
    shares = [torch.load(o, weights_only=True) for o in files]
    for o in shares: assert len(o['xb'][0]) == len(o['yb'][0]['height']) == 4
    assert not torch.equal(shares[0]['xb'][0], shares[1]['xb'][0])


class Spoil(Callback):
    def before_batch(self):
        if self.training and (self.epoch, self.iter) == (1, 2): nan_weights(self)


def full_disk(path, config):
    "A run whose second checkpoint cannot be written"
    n, real = [0], runs.write_safely
    def fails(file, data):
        n[0] += Path(file).name == 'last.pt'
        if n[0] == 2: raise OSError(28, 'No space left on device')
        real(file, data)
    runs.write_safely = fails
    r = new_run(path, config)
    try:
        with r.learn.no_bar(), r.learn.no_logging(): r.fit()
    except (runs.RunError, SystemExit) as e: return str(e)


def test_a_full_disk_ends_all(spawn, portraits, tmp_path):
    first, second = every(spawn, full_disk, tmp_path/'run', config_of(portraits[0]))
    assert 'could not be written (No space left on device)' in first and second == '1'


# ---- as a user starts it

def test_the_command_under_torchrun(portraits, tmp_path):
    root, out = portraits[0], tmp_path/'run'
    args = ['--annotations', root/'annotations.csv', '--root', root, '--out', out, '--backbone', 'test_resnet',
            '--pretrained', 'no', '--epochs', '1', '--bs', '8', '--height', '64', '--width', '32']
    (tmp_path/'command.py').write_text('from portrait_nb.cli import portrait_train\nportrait_train()\n')
    def torchrun(*args):
        return subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2',
                               str(tmp_path/'command.py'), *map(str, args)], capture_output=True, text=True,
                              timeout=200, env={**os.environ, **CPU_ONLY})
    r = torchrun(*args)
    assert r.returncode == 0, r.stderr[-2000:]
    assert r.stdout.count('The model is in') == 1 and r.stdout.count('PIQ') == 1
    assert {'last.pt', 'log.csv', 'scores.csv', 'model', 'config.json'} <= {o.name for o in out.iterdir()}


def test_without_accelerate_a_sentence(monkeypatch):
    for o in ('portrait_nb.distributed', 'fastai.distributed'): monkeypatch.delitem(sys.modules, o)
    monkeypatch.setitem(sys.modules, 'accelerate', None)
    sentence = (r"^Training in several processes needs accelerate, which isn't installed: "
                r"pip install 'portrait_nb\[distributed\]'$")
    with pytest.raises(ImportError, match=sentence):
        importlib.import_module('portrait_nb.distributed')


def test_a_loader_that_was_looked_at_can_still_be_shared(portraits):
    dl = load(portraits, sampling='pk').train
    list(dl)
    assert [len(x) for x, _ in SharedDL(dl, 0, 2)] == [dl.bs//2]*len(dl)


@pytest.mark.parametrize('device, words', [('cuda', None), ('cuda:1', 'name no GPU by its number')])
def test_a_gpu_may_be_named_without_its_number(device, words, monkeypatch):
    monkeypatch.setattr(distributed, 'join_processes', lambda device: None)
    monkeypatch.setattr(distributed, 'PartialState', lambda: SimpleNamespace(device=torch.device('cuda:0')))
    with pytest.raises(ValueError, match=words) if words else nullcontext():
        distributed._check_device(torch.device(device))


def test_lr_find_belongs_into_one_process():
    trainer = distributed.SharedTrainer(cpu=True)
    trainer.learn = SimpleNamespace(lr_finder=None, model=None)
    with pytest.raises(ValueError, match='find the rate in one process'): trainer.before_fit()

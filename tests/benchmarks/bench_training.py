"""How fast a portrait Learner trains, and what each part costs. Run from a checkout:
python tests/benchmarks/bench_training.py cpu|gpu [row ...]     writes results/training_speed.csv and prints it

Every row is a process of its own with a time limit, written as soon as it is measured. A row that is in the file with
the same commit and hardware is not run again, so a run that breaks off is continued by the same command; a row that
failed says why in `note`, and is tried again with --again.
Within a row the methods take turns and the fastest turn of each counts. Row names are printed by --list; a part of a
name chooses all that contain it.
torch's switches are as the row's name says and otherwise as portrait_train leaves them: cudnn.benchmark is off. Where
torch.compile runs, `graphs` and `compiled` say what it made of network and losses; whole, that is a graph of the
network and, with compile_loss, two of the losses: in their first step, and after it.

On a GPU that is rented by the minute, without network, .git or this package, but with PyTorch (these commands were
tried with Python 3.12 and torch 2.11 without a GPU). Here, once: the wheels that may be missing there, and the
portraits, in one archive of 44 MB:
  python -m pip install --no-deps --no-compile --only-binary=:all: --python-version 3.12 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    --target out/lent \
    timm==1.0.31 fastai==2.8.7 fastcore==1.14.5 fasttransform==0.0.2 fastprogress==1.0.5 fastdownload==0.0.8 \
    plum-dispatch==2.9.0 beartype==0.23.1 rich==15.0.0 cloudpickle==3.1.2 kornia==0.9.0 kornia_rs==0.2.0 pandas==3.1.1 \
    python-dateutil==2.9.0.post0 six==1.17.0 matplotlib==3.11.2 contourpy==1.3.3 cycler==0.12.1 fonttools==4.68.0 \
    kiwisolver==1.5.1 pyparsing==3.3.3 ipython==9.18.1 traitlets==5.16.1 pygments==2.21.0
  PYTHONPATH=tests/benchmarks python -c "from bench_training import *; portraits(rows_of('gpu')['loader 8 workers'])"
  tar --exclude='*/tests' -cJf out/lent.tar.xz out/lent out/bench_training
There, in a copy of the tree with out/lent.tar.xz, and from the second call on with the out/gpu.csv that the one before
brought back; $OUT is the folder that is brought back:
  python3 -m tarfile -e out/lent.tar.xz . && { [ ! -e out/gpu.csv ] || cp out/gpu.csv $OUT/; }
  PYTHONPATH=$PWD/out/lent python3 tests/benchmarks/bench_training.py gpu --results $OUT/gpu.csv \
    --commit THE_COMMIT --minutes 8.5
Here, at the end:
  python tests/benchmarks/bench_training.py gpu --take out/gpu.csv"""
import argparse, json, os, subprocess, sys, time, traceback
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pandas as pd

from common import REPO, child_environment

RESULTS = REPO/'results'/'training_speed.csv'
OUT = REPO/'out'/'bench_training'
TURNS, PAIRS, IDENTITIES = 5, 41, 400

# what a turn of a step is made with; each adds to the one above it
LADDER = ['fp32', 'tf32', 'bf16', 'channels_last', 'fused', 'compile', 'compile_loss']
SETUPS = dict(cpu=dict(models=['test_resnet', 'resnet18'], size=(128, 64), bs=64,
                       ladder=['fp32', 'fused', 'channels_last', 'bf16'], learner=['fused'], workers=[0],
                       preset='small', n=1024),
              gpu=dict(models=['hrnet_w32', 'resnet50'], size=(256, 128), bs=128, ladder=LADDER,
                       learner=['fused', 'compile_loss'], workers=[8, 15, 4], preset='bench', n=2048))


def parts(setup):
    "What the names of the ladder switch on"
    ladder = setup['ladder']
    return {k: k in ladder[:ladder.index(setup['variant'])+1] for k in LADDER}


def rows_of(device):
    "{name of a row: its settings}, the first model's first, and of each the most telling"
    s = SETUPS[device]
    base = dict(device=device, size=s['size'], bs=s['bs'], ladder=s['ladder'])
    loading = dict(preset=s['preset'], n=s['n'], **base)
    rows = dict(ceilings=dict(kind='ceilings', **base))
    if device == 'cpu':
        rows |= {f'count {m}': dict(kind='count', model=m, device=device, size=(256, 128), bs=128)
                 for m in ('hrnet_w32', 'resnet50')}
        rows['loader 256x128'] = dict(kind='loader', workers=0, **{**loading, 'size': (256, 128), 'bs': 128})
    for w in s['workers']: rows[f'loader {w} workers'] = dict(kind='loader', workers=w, **loading)
    for m in s['models']:
        rows |= {f'step {m} {v}': dict(kind='step', model=m, variant=v, **base) for v in s['ladder']}
        rows |= {f'learner {m} {v}': dict(kind='learner', model=m, variant=v, **base) for v in s['learner']}
        rows |= {f'epoch {m} {w} workers': dict(kind='epoch', model=m, variant=s['learner'][0], workers=w,
                                                **loading) for w in s['workers']}
        rows |= {f'losses {m}': dict(kind='losses', model=m, variant='fused', **{**base, 'bs': 128}),
                 f'optimiser {m}': dict(kind='optimiser', model=m, variant='fused', **base)}
    def place(item):
        setup = item[1]
        return setup.get('model') in s['models'][1:], list(KINDS).index(setup['kind'])
    return dict(sorted(rows.items(), key=place))


# the pieces

def wait(device):
    import torch
    if device == 'cuda': torch.cuda.synchronize()


def clock(device):
    "Seconds. Without a GPU those of the processor, of one thread: what else runs on the machine does not count"
    return time.perf_counter() if device == 'cuda' else time.process_time()


def seconds(f, device):
    "One call, with the device's queue empty before and after"
    wait(device)
    start = clock(device)
    f()
    wait(device)
    return clock(device)-start


def in_turns(methods, device, turns=TURNS, before=lambda k: None):
    "{method: seconds of every turn}, after one turn of each that does not count; what `before` does is not timed"
    took = {k: [] for k in methods}
    for _ in range(turns+1):
        for k, f in methods.items():
            before(k)
            took[k].append(seconds(f, device))
    return {k: v[1:] for k, v in took.items()}


def portrait_tasks():
    from portrait_nb.tasks import PORTRAIT
    return PORTRAIT.with_identities([f'{i:04d}' for i in range(IDENTITIES)])


def made_up_batch(tasks, setup, device):
    "Noise for pictures, labels at random, one in ten unknown"
    import torch
    g = torch.Generator().manual_seed(0)
    n = setup['bs']
    x, y = torch.randn(n, 3, *setup['size'], generator=g), {}
    for t in tasks:
        unknown = torch.rand(n, generator=g) < .1
        if t.multilabel: y[t.name] = torch.randint(2, (n, t.n_labels), generator=g).float()
        else: y[t.name] = torch.randint(t.n_labels, (n,), generator=g)
        y[t.name][unknown] = -1
    return x.to(device), {k: v.to(device) for k, v in y.items()}


class Fixed:
    "A loader that gives one batch, again and again"
    def __init__(self, batch, n): self.batch, self.n, self.device = batch, n, batch[0].device
    def __len__(self): return self.n
    def __iter__(self): return (self.batch for _ in range(self.n))


def adam(fused):
    from fastai.optimizer import Adam
    from portrait_nb.callbacks import FusedAdam
    return partial(FusedAdam if fused else Adam, decouple_wd=False, sqr_mom=.999, eps=1e-8)


def build(setup, device, loaders=None):
    "The Learner of a row, and its batch"
    import torch
    from fastai.basics import set_seed
    from fastai.callback.channelslast import ChannelsLast
    from portrait_nb.callbacks import BF16, Compile, SkipValidation
    from portrait_nb.learner import fss_learner
    on = parts(setup)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on['tf32']
    set_seed(0)
    batch = None
    if loaders is None:
        from fastai.data.core import DataLoaders
        tasks = portrait_tasks()
        batch = made_up_batch(tasks, setup, device)
        loaders = DataLoaders(Fixed(batch, 1), Fixed(batch, 1))
        loaders.tasks, loaders.size = tasks, setup['size']
    cbs = [SkipValidation()]
    if on['bf16']: cbs.append(BF16() if on['channels_last'] else Autocast(device))
    elif on['channels_last']: cbs.append(ChannelsLast())
    if on['compile']: cbs.append(Compile(with_loss=on['compile_loss']))
    learn = fss_learner(loaders, setup['model'], pretrained=False, opt_func=adam(on['fused']), cbs=cbs)
    learn.create_opt()
    return learn, batch


def Autocast(device):
    "bf16 without channels-last"
    import torch
    from portrait_nb.callbacks import BF16
    class Contiguous(BF16):
        def before_fit(self): pass
        def before_batch(self):
            from portrait_nb.callbacks import next_forward
            next_forward(self.model, partial(self._cast, device))
    return Contiguous()


def bare_step(learn, batch, setup, device):
    "The Learner's model, loss, optimiser, precision and layout, without the Learner"
    import torch
    from fastai.torch_core import to_float
    on, (x, y) = parts(setup), batch
    model, loss, opt = learn.model.train(), learn.loss_func, learn.opt
    forward, criterion = model, loss
    if on['channels_last']: model.to(memory_format=torch.channels_last)
    if on['compile']: forward = torch.compile(model.forward)
    if on['compile_loss']: criterion = torch.compile(loss.forward)
    def step():
        with torch.autocast(device, dtype=torch.bfloat16) if on['bf16'] else nullcontext():
            out = forward(x.contiguous(memory_format=torch.channels_last) if on['channels_last'] else x)
        criterion(to_float(out), y).backward()
        opt.step()
        opt.zero_grad()
    return step


def in_short(said): return ' '.join(str(said).strip().split('\n\n')[0].split())[:200]


def how_compiled(graphs, cuts, failed=None):
    "What torch.compile made of network and losses"
    if failed is not None: said = f'fell back: {type(failed).__name__}: {in_short(failed)}'
    elif cuts: said = f'cut: {in_short(cuts[0])}'
    else: said = 'whole' if graphs else 'not at all'
    return dict(graphs=graphs, compiled=said)


def compiled_so_far():
    "(graphs, {why one was cut: how often}) in this process"
    from torch._dynamo.utils import counters
    return counters['stats']['unique_graphs'], {**counters['unimplemented'], **counters['graph_break']}


def bare_compiled(setup, before=(0, {})):
    "Columns on the bare steps since `before`, which raise where a Learner would fall back; none where nothing is compiled"
    if not parts(setup)['compile']: return {}
    graphs, cuts = compiled_so_far()
    return how_compiled(graphs-before[0], [k for k, n in cuts.items() if n > before[1].get(k, 0)])


def learner_compiled(learn):
    "The same columns, of what the callback has on record"
    from portrait_nb.callbacks import Compile
    return next((how_compiled(cb.graphs, cb.cuts, cb.failed) for cb in learn.cbs if isinstance(cb, Compile)), {})


def n_steps(step, device, at_least=1.):
    "Steps that fill a turn, counted after two: a compiled loss is read once more in its second step, when it has parts to replace"
    for _ in range(2): step()
    return max(2, min(50, round(at_least/seconds(step, device))))


def peak_mb(step, device):
    import torch
    if device != 'cuda': return float('nan')
    torch.cuda.reset_peak_memory_stats()
    step()
    wait(device)
    return torch.cuda.max_memory_allocated()/2**20


def rate(setup, took, n=1, **more):
    return dict(ms=1e3*min(took)/n, images_per_second=n*setup['bs']/min(took), turns=len(took), **more)


# the kinds of row: each returns {method: columns}

def step(setup, device):
    learn, batch = build(setup, device)
    f = bare_step(learn, batch, setup, device)
    n = n_steps(f, device)
    took = in_turns({'bare': lambda: [f() for _ in range(n)]}, device)['bare']
    return dict(bare=rate(setup, took, n, peak_mb=peak_mb(f, device), **bare_compiled(setup)))


class Between(Fixed):
    "Also runs a bare step before every batch, and keeps the seconds of both: of the step, and until the next batch is asked for"
    def __init__(self, batch, n, bare):
        super().__init__(batch, n)
        self.bare, self.took = bare, dict(bare=[], Learner=[])
    def __iter__(self):
        for _ in range(self.n):
            self.took['bare'].append(seconds(self.bare, 'cpu'))
            start = clock('cpu')
            yield self.batch
            self.took['Learner'].append(clock('cpu')-start)


def fit(learn):
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-4)


def Steps(device):
    "Seconds from the first batch of an epoch until every callback's after_train is over, without what `fit` prepares once"
    from fastai.callback.core import Callback
    class Steps(Callback):
        order = -100
        def before_train(self): self.began = None
        def before_batch(self):
            if self.began is not None: return
            wait(device)
            self.began = clock(device)
        def before_validate(self):
            wait(device)
            self.took = clock(device)-self.began
    return Steps()


def by_steps(learn, batch, f):
    "Bare loop and Learner take turns step by step, and the median of a pair counts: a busy machine is as slow for the one as for the other"
    import numpy as np
    learn.dls.loaders[0] = Between(batch, PAIRS, f)
    fit(learn)
    took = learn.dls.train.took
    medians = {k: [float(np.median(v))] for k, v in took.items()}
    return medians, 1, float(np.median(np.array(took['bare'])/took['Learner']))


def by_epochs(learn, f, device):
    "They take turns of many steps: a GPU must not be waited for after each"
    learn.add_cb(Steps(device))
    learn.dls.train.n = n = n_steps(f, device)
    took = dict(bare=[], Learner=[])
    for _ in range(2*TURNS):
        took['bare'].append(seconds(lambda: [f() for _ in range(n)], device))
        fit(learn)
        took['Learner'].append(learn.steps.took)
    return took, n, min(took['bare'])/min(took['Learner'])


def learner(setup, device):
    """Bare loop and Learner; `ratio` is the Learner's share of the bare loop's speed.

    The Learner is compiled first, since that forgets what torch compiled before."""
    learn, batch = build(setup, device)
    other, _ = build(setup, device)
    learn.dls.train.n = 2
    fit(learn)
    before = compiled_so_far()
    f = bare_step(other, batch, setup, device)
    for _ in range(2): f()
    of_bare = bare_compiled(setup, before)
    took, n, ratio = by_steps(learn, batch, f) if device == 'cpu' else by_epochs(learn, f, device)
    turns = PAIRS if device == 'cpu' else 2*TURNS
    return dict(bare=rate(setup, took['bare'], n, **of_bare) | dict(turns=turns),
                Learner=rate(setup, took['Learner'], n, ratio=ratio, **learner_compiled(learn)) | dict(turns=turns))


def losses(setup, device):
    "The losses forward and backward beside a whole step; `share` is theirs of the step"
    learn, batch = build(setup, device)
    f = bare_step(learn, batch, setup, device)
    out = {k: {t: o.detach().requires_grad_() for t, o in v.items()} for k, v in learn.model(batch[0]).items()}
    def both():
        learn.loss_func(out, batch[1]).backward()
    n = n_steps(f, device)
    took = in_turns({'step': lambda: [f() for _ in range(n)], 'losses': lambda: [both() for _ in range(10*n)]}, device)
    share = min(took['losses'])/10/min(took['step'])
    return dict(step=rate(setup, took['step'], n), losses=rate(setup, took['losses'], 10*n, share=share))


def optimiser(setup, device):
    "Step and zero_grad of both Adams on the model's weights; the gradients are set before the clock starts"
    import torch
    variants = {'Adam of fastai': 'fp32', 'FusedAdam': 'fused'}
    learns = {k: build({**setup, 'variant': v}, device)[0] for k, v in variants.items()}
    weights = {k: [p for p, *_ in o.opt.all_params()] for k, o in learns.items()}
    gradients = {k: [torch.randn_like(p) for p in v] for k, v in weights.items()}
    def set_gradients(k):
        for p, g in zip(weights[k], gradients[k]): p.grad = g
    def f(opt):
        opt.step()
        opt.zero_grad()
    took = in_turns({k: partial(f, o.opt) for k, o in learns.items()}, device, 5*TURNS, set_gradients)
    return {k: dict(ms=1e3*min(v), turns=len(v)) for k, v in took.items()}


def portraits(setup):
    "A table of drawn portraits, and their folder; drawn the first time"
    from PIL import Image
    folder = OUT/f"{setup['preset']}-{setup['n']}-{setup['size'][0]}"
    if not (folder/'table.csv').exists():
        from portrait_nb.synth import annotated, draw_portrait, image_table
        images = image_table(setup['preset'])
        images = images[images.split == 'train'][:setup['n']]
        for o in images.to_dict('records'):
            file = folder/o['image']
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw_portrait(o, setup['size'])).save(file, quality=90)
        annotated(images).to_csv(folder/'table.csv', index=False)
    return pd.read_csv(folder/'table.csv', dtype=str, keep_default_na=False), folder


def loaders(setup, device, **kwargs):
    from portrait_nb.data import portrait_dls
    from portrait_nb.tasks import PORTRAIT
    return portrait_dls(*portraits(setup), PORTRAIT, size=setup['size'], bs=setup['bs'],
                        num_workers=setup.get('workers', 0), device=device, seed=0, **kwargs)


def loader(setup, device):
    "Pictures opened in one process; an epoch of batches on the device, as they are and augmented"
    augmented = {'loader': False, 'loader and augmentation': True}
    both = {k: loaders(setup, device, augment=a).train for k, a in augmented.items()}
    data, n = both['loader'].dataset, len(both['loader'])*setup['bs']
    methods = dict(decode=lambda: [data[i] for i in range(n)],
                   **{k: lambda dl=dl: [None for _ in dl] for k, dl in both.items()})
    return {k: dict(images_per_second=n/min(v), turns=len(v)) for k, v in in_turns(methods, device).items()}


def epoch(setup, device):
    "The Learner on its loader; `waiting` is the share of the epoch in which it waits for a batch"
    from portrait_nb.callbacks import Throughput
    learn, _ = build(setup, device, loaders(setup, device))
    learn.add_cb(Throughput())
    with learn.no_bar(), learn.no_logging(): learn.fit(3, 1e-4)
    best = learn.throughput.log[1:].sort_values('seconds').iloc[0]
    return dict(Learner=dict(images_per_second=best.images_per_second, waiting=best.waiting, peak_mb=best.peak_mb,
                             turns=2))


def ceilings(setup, device):
    "What the processor reaches: a large matrix product, a large convolution, and a large copy (bytes read and written)"
    import torch
    n, images, size = (8192, 2048, 2**30) if device == 'cuda' else (1024, 64, 2**27)
    methods, work = {}, {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.randn(n, n, device=device).to(dtype), torch.randn(n, n, device=device).to(dtype)
        layout = dict(dtype=dtype, memory_format=torch.channels_last)
        x = torch.randn(images, 256, 16, 8, device=device).to(**layout)
        w = torch.randn(256, 256, 3, 3, device=device).to(**layout)
        name = str(dtype).split('.')[1]
        methods[f'product {name}'], work[f'product {name}'] = lambda a=a, b=b: [a@b for _ in range(10)], 10*2*n**3
        methods[f'convolution {name}'] = lambda x=x, w=w: [torch.conv2d(x, w, padding=1) for _ in range(10)]
        work[f'convolution {name}'] = 10*2*9*256**2*images*16*8
    if device == 'cuda':
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        def tf32(f):
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
            f()
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        for k in ('product', 'convolution'):
            methods[f'{k} tf32'], work[f'{k} tf32'] = partial(tf32, methods[f'{k} float32']), work[f'{k} float32']
    src, to = torch.randn(size//4, device=device), torch.empty(size//4, device=device)
    methods['copy'] = lambda: [to.copy_(src) for _ in range(10)]
    took = in_turns(methods, device)
    def ceiling(k, v):
        if k == 'copy': return dict(gbyte_per_second=10*2*size/min(v)/1e9, turns=len(v))
        return dict(tflop_per_second=work[k]/min(v)/1e12, turns=len(v))
    return {k: ceiling(k, v) for k, v in took.items()}


def count(setup, device):
    "What one image asks for, counted, not timed: operations, bytes kept for the backward pass, launches of a step; on two images, halved"
    import torch
    from torch.autograd.graph import saved_tensors_hooks
    from torch.utils.flop_counter import FlopCounterMode
    setup = {**setup, 'bs': 2, 'ladder': ['fp32', 'fused'], 'variant': 'fused'}
    learn, (x, y) = build(setup, 'cpu')
    own, storages = {p.untyped_storage().data_ptr() for p in learn.model.parameters()}, {}
    def note(t):
        store = t.untyped_storage()
        if store.data_ptr() not in own: storages[store.data_ptr()] = store.nbytes()
        return t
    kept = []
    with saved_tensors_hooks(lambda t: (kept.append(t), note(t))[1], lambda t: t):
        with FlopCounterMode(display=False) as forward: out = learn.model(x)
    with FlopCounterMode(display=False) as backward: learn.loss_func(out, y).backward()
    n = sum(p.numel() for p in learn.model.parameters())
    gflop = (forward.get_total_flops()+backward.get_total_flops())/2/1e9
    return dict(count=dict(gflop_per_image=gflop, saved_mb_per_image=sum(storages.values())/2/1e6,
                           million_weights=n/1e6, **launches(setup)))


def launches(setup):
    "Operations that torch starts in a step, without views"
    from torch.utils._python_dispatch import TorchDispatchMode
    class Count(TorchDispatchMode):
        n = 0
        def __torch_dispatch__(self, f, types, args=(), kwargs=None):
            self.n += not f.is_view and 'empty' not in str(f) and 'detach' not in str(f)
            return f(*args, **(kwargs or {}))
    def of(f):
        with Count() as c: out = f()
        return c.n, out
    found = {}
    for name, variant in (('adam', 'fp32'), ('fused', 'fused')):
        learn, (x, y) = build({**setup, 'variant': variant}, 'cpu')
        found['launches_forward'], out = of(lambda: learn.model(x))
        found['launches_losses'], loss = of(lambda: learn.loss_func(out, y))
        found['launches_backward'], _ = of(loss.backward)
        learn.opt.step()
        found[f'launches_{name}'] = of(learn.opt.step)[0]+of(learn.opt.zero_grad)[0]
    return found


KINDS = dict(count=count, step=step, ceilings=ceilings, learner=learner, loader=loader, epoch=epoch, losses=losses,
             optimiser=optimiser)  # in the order of their rows


# running, writing

def about(device, row):
    "What a row is, measured or not"
    setup = rows_of(device)[row]
    return dict(device=device, row=row, method='', size='x'.join(map(str, setup['size'])),
                **{k: setup[k] for k in ('model', 'variant', 'bs', 'workers') if k in setup})


def one(device, row):
    "The lines of a row, measured in this process"
    import torch
    from portrait_nb.runs import environment
    if device == 'cpu': torch.set_num_threads(1)
    setup = rows_of(device)[row]
    try: found = KINDS[setup['kind']](setup, 'cuda' if device == 'gpu' else 'cpu')
    except torch.OutOfMemoryError: found = {'': dict(note='failed: out of memory')}
    except Exception as e:
        traceback.print_exc()
        found = {'': dict(note=f'failed: {type(e).__name__}: {in_short(e)}')}
    def rounded(numbers): return {k: float(f'{v:.5g}') if isinstance(v, float) else v for k, v in numbers.items()}
    return [dict(about(device, row), method=k, **rounded(v), **environment()) for k, v in found.items()]


def in_own_process(device, row, limit):
    "The lines of a row; a line that says why there is none"
    command = [sys.executable, '-W', 'ignore', __file__, device, '--one', row]
    env = child_environment(**({'OMP_NUM_THREADS': '1'} if device == 'cpu' else {}))
    out = subprocess.run(command, capture_output=True, text=True, env=env, timeout=limit)
    if out.stderr: print(out.stderr[-3000:], file=sys.stderr, flush=True)
    if not out.returncode and out.stdout.strip(): return json.loads(out.stdout.splitlines()[-1])
    why = out.stderr.strip().splitlines() if out.returncode > 0 else []
    return [dict(about(device, row), note=f'failed: {why[-1][:200] if why else f"exit code {out.returncode}"}')]


def read(file): return pd.read_csv(file, dtype=dict(commit=str))


def write(rows, file):
    "Replace the lines of these rows on this kind of device"
    new = pd.DataFrame(rows)
    if file.exists():
        old = read(file)
        new = pd.concat([old[~(old.device+old.row).isin(set(new.device+new.row))], new])
    part = file.with_name(f'.{file.name}.part')
    new.to_csv(part, index=False)
    os.replace(part, file)


def is_done(row, device, now, file):
    "Is it in the file, measured or tried by this commit on this hardware?"
    if not file.exists(): return False
    old = read(file)
    old = old[(old.device == device) & (old.row == row)]
    if not len(old) or 'commit' not in old: return False
    return (old.commit.fillna('') == now['commit']).all() and (old.hardware == now['hardware']).all()


def measure(row, args, now, ends):
    "Measure a row and write its lines; False where the minutes are over before it is finished"
    start = time.perf_counter()
    left = ends-start
    if left <= 0: return False
    try: lines = in_own_process(args.device, row, min(args.limit, left))
    except subprocess.TimeoutExpired:
        if left < args.limit: return False
        lines = [dict(about(args.device, row), note=f'not finished in {args.limit} s')]
    write([o | {k: v for k, v in now.items() if k == 'commit' or k not in o} for o in lines], args.results)
    print(f'{row}: {time.perf_counter()-start:.0f} s', *(o['note'] for o in lines if 'note' in o), flush=True)
    return True


def check(args, chosen, now):
    "Refuse what could not be measured, or not written"
    if not chosen:
        sys.exit(f"No row's name contains {' or '.join(args.rows)}; there are: {', '.join(rows_of(args.device))}.")
    if args.device == 'gpu' and 'CPU cores' in now['hardware']:
        sys.exit('There is no GPU here: bench_training.py cpu measures what can be measured without one.')
    if args.results.is_dir(): sys.exit(f"--results '{args.results}' is a folder; name a csv file in it.")
    args.results.parent.mkdir(parents=True, exist_ok=True)


def show(args, chosen):
    "Print what the file holds of the rows"
    if not args.results.exists(): return
    table = read(args.results)
    table = table[(table.device == args.device) & table.row.isin(chosen)]
    circumstances = ('date', 'commit', 'hardware', 'threads', 'processes', 'python', 'torch', 'timm', 'fastai',
                     'portrait_nb', 'device', 'size')
    table = table.drop(columns=[o for o in circumstances if o in table]).dropna(axis=1, how='all')
    print(table.to_string(index=False))


def main(args):
    ends = time.perf_counter()+60*args.minutes
    if args.take: return write(read(args.take), args.results)
    chosen = [o for o in rows_of(args.device) if not args.rows or any(r in o for r in args.rows)]
    if args.list: return print('\n'.join(chosen))
    from portrait_nb.runs import environment
    now = environment()
    if args.commit: now['commit'] = args.commit
    check(args, chosen, now)
    for row in chosen:
        if not args.again and is_done(row, args.device, now, args.results): print(f'{row}: is in {args.results.name}')
        elif not measure(row, args, now, ends):
            print(f'{row}: not measured, the {args.minutes:g} minutes are over')
            break
    show(args, chosen)


def parse(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('device', choices=['cpu', 'gpu'])
    parser.add_argument('rows', nargs='*', help='parts of the names of rows; none: all')
    parser.add_argument('--results', type=Path, default=RESULTS,
                        help='csv that lines are added to, and that is gone on with')
    parser.add_argument('--limit', type=int, default=300, help='seconds for a row')
    parser.add_argument('--minutes', type=float, default=float('inf'),
                        help='for all of them: then no row is begun, and one that runs is stopped and left to the '
                             'next call')
    parser.add_argument('--commit', help='of the checkout, where there is no .git')
    parser.add_argument('--again', action='store_true', help='measure what is in the file, too')
    parser.add_argument('--take', type=Path,
                        help='measure nothing: add the lines of this file, from another machine, to --results')
    parser.add_argument('--list', action='store_true', help='print the names of the rows')
    parser.add_argument('--one', help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == '__main__':
    args = parse()
    if args.one: print(json.dumps(one(args.device, args.one)))
    else: main(args)

"""How fast a portrait Learner trains, and what each part costs. Run from a checkout:
python tests/benchmarks/bench_training.py cpu|gpu [row ...]     writes results/training_speed.csv and prints it

Every row is a process of its own with a time limit. A row that is in the file with the same commit and hardware is not run again, so a run that breaks off is continued by the same command.
Within a row the methods take turns and the fastest turn of each counts. Row names are printed by --list; a part of a name chooses all that contain it."""
import argparse, json, os, subprocess, sys, time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
RESULTS = REPO/'results'/'training_speed.csv'
OUT = REPO/'out'/'bench_training'
TURNS, PAIRS, IDENTITIES = 5, 41, 400

# what a turn of a step is made with; each adds to the one above it
LADDER = ['fp32', 'tf32', 'bf16', 'channels_last', 'fused', 'compile', 'compile_loss']
SETUPS = dict(cpu=dict(models=['test_resnet', 'resnet18'], size=(128, 64), bs=64, ladder=['fp32', 'fused', 'channels_last', 'bf16'], learner=['fused'], workers=[0], preset='small', n=1024),
              gpu=dict(models=['hrnet_w32', 'resnet50'], size=(256, 128), bs=128, ladder=LADDER, learner=['fused', 'compile_loss'], workers=[4, 8, 15], preset='bench', n=2048))


def parts(setup):
    "What the names of the ladder switch on"
    ladder = setup['ladder']
    return {k: k in ladder[:ladder.index(setup['variant'])+1] for k in LADDER}


def rows_of(device):
    "{name of a row: its settings}"
    s = SETUPS[device]
    base = dict(device=device, size=s['size'], bs=s['bs'], ladder=s['ladder'])
    rows = {}
    if device == 'cpu': rows |= {f'count {m}': dict(kind='count', model=m, device=device, size=(256, 128), bs=128) for m in ('hrnet_w32', 'resnet50')}
    rows['ceilings'] = dict(kind='ceilings', **base)
    for m in s['models']:
        rows |= {f'step {m} {v}': dict(kind='step', model=m, variant=v, **base) for v in s['ladder']}
        rows |= {f'learner {m} {v}': dict(kind='learner', model=m, variant=v, **base) for v in s['learner']}
        rows |= {f'losses {m}': dict(kind='losses', model=m, variant='fused', **{**base, 'bs': 128}), f'optimiser {m}': dict(kind='optimiser', model=m, variant='fused', **base)}
    loading = dict(preset=s['preset'], n=s['n'], **base)
    if device == 'cpu': rows['loader 256x128'] = dict(kind='loader', workers=0, **{**loading, 'size': (256, 128), 'bs': 128})
    for w in s['workers']:
        rows[f'loader {w} workers'] = dict(kind='loader', workers=w, **loading)
        rows |= {f'epoch {m} {w} workers': dict(kind='epoch', model=m, variant=s['learner'][0], workers=w, **loading) for m in s['models']}
    return rows


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


def in_turns(methods, device, turns=TURNS):
    "{method: seconds of every turn}, after one turn of each that does not count"
    for f in methods.values(): f()
    took = {k: [] for k in methods}
    for _ in range(turns):
        for k, f in methods.items(): took[k].append(seconds(f, device))
    return took


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
        y[t.name] = (torch.randint(2, (n, t.n_labels), generator=g).float() if t.multilabel else torch.randint(t.n_labels, (n,), generator=g))
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
    torch.backends.cudnn.benchmark = True
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
            from portrait_nb.callbacks import _once
            _once(self.model, partial(self._cast, device))
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


def n_steps(step, device, at_least=1.):
    "Steps that fill a turn"
    step()
    return max(2, min(50, round(at_least/seconds(step, device))))


def peak_mb(step, device):
    import torch
    if device != 'cuda': return float('nan')
    torch.cuda.reset_peak_memory_stats()
    step()
    wait(device)
    return torch.cuda.max_memory_allocated()/2**20


def rate(setup, took, n=1, **more): return dict(ms=1e3*min(took)/n, images_per_second=n*setup['bs']/min(took), turns=len(took), **more)


# the kinds of row: each returns {method: columns}

def step(setup, device):
    learn, batch = build(setup, device)
    f = bare_step(learn, batch, setup, device)
    n = n_steps(f, device)
    took = in_turns({'bare': lambda: [f() for _ in range(n)]}, device)['bare']
    return dict(bare=rate(setup, took, n, peak_mb=peak_mb(f, device)))


class Between(Fixed):
    "Also runs a bare step before every batch, and keeps the seconds of both: of the step, and until the next batch is asked for"
    def __init__(self, batch, n, bare): super().__init__(batch, n); self.bare, self.took = bare, dict(bare=[], Learner=[])
    def __iter__(self):
        for _ in range(self.n):
            self.took['bare'].append(seconds(self.bare, 'cpu'))
            start = clock('cpu')
            yield self.batch
            self.took['Learner'].append(clock('cpu')-start)


def fit(learn):
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-4)


def learner(setup, device):
    """Bare loop and Learner; `ratio` is the Learner's share of the bare loop's speed.
    Without a GPU the two take turns step by step, and the median of a pair counts: a busy machine is as slow for the one as for the other. A GPU must not be waited for after a step: there, turns of many steps"""
    import numpy as np
    learn, batch = build(setup, device)
    other, _ = build(setup, device)
    f = bare_step(other, batch, setup, device)
    if device == 'cpu':
        fit(learn)
        f()
        learn.dls.loaders[0] = Between(batch, PAIRS, f)
        fit(learn)
        took, n = learn.dls.train.took, 1
        ratio = float(np.median(np.array(took['bare'])/took['Learner']))
        took = {k: [float(np.median(v))] for k, v in took.items()}
    else:
        n = n_steps(f, device)
        learn.dls.train.n = n
        took = in_turns({'bare': lambda: [f() for _ in range(n)], 'Learner': lambda: fit(learn)}, device, 2*TURNS)
        ratio = min(took['bare'])/min(took['Learner'])
    return {k: rate(setup, v, n, **(dict(ratio=ratio) if k == 'Learner' else {})) | dict(turns=PAIRS if device == 'cpu' else 2*TURNS) for k, v in took.items()}


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
    "Step and zero_grad of both Adams on the model's weights"
    import torch
    learns = {k: build({**setup, 'variant': k}, device)[0] for k in ('fp32', 'fused')}
    def f(opt, grads):
        for (p, *_), g in zip(opt.all_params(), grads): p.grad = g.clone()
        opt.step()
        opt.zero_grad()
    made = {k: [torch.randn_like(p) for p, *_ in o.opt.all_params()] for k, o in learns.items()}
    took = in_turns({k: lambda k=k, o=o: [f(o.opt, made[k]) for _ in range(5)] for k, o in learns.items()}, device)
    return {{'fp32': 'Adam of fastai', 'fused': 'FusedAdam'}[k]: dict(ms=1e3*min(v)/5, turns=len(v)) for k, v in took.items()}


def portraits(setup):
    "A table of drawn portraits, and their folder; drawn the first time"
    import pandas as pd
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
    return portrait_dls(*portraits(setup), PORTRAIT, size=setup['size'], bs=setup['bs'], num_workers=setup.get('workers', 0), device=device, seed=0, **kwargs)


def loader(setup, device):
    "Pictures opened in one process; an epoch of batches on the device, as they are and augmented"
    both = {k: loaders(setup, device, augment=a).train for k, a in (('loader', False), ('loader and augmentation', True))}
    data, n = both['loader'].dataset, len(both['loader'])*setup['bs']
    methods = dict(decode=lambda: [data[i] for i in range(n)], **{k: lambda dl=dl: [None for _ in dl] for k, dl in both.items()})
    return {k: dict(images_per_second=n/min(v), turns=len(v)) for k, v in in_turns(methods, device).items()}


def epoch(setup, device):
    "The Learner on its loader; `waiting` is the share of the epoch in which it waits for a batch"
    from portrait_nb.callbacks import Throughput
    learn, _ = build(setup, device, loaders(setup, device))
    learn.add_cb(Throughput())
    with learn.no_bar(), learn.no_logging(): learn.fit(3, 1e-4)
    best = learn.throughput.log[1:].sort_values('seconds').iloc[0]
    return dict(Learner=dict(images_per_second=best.images_per_second, waiting=best.waiting, peak_mb=best.peak_mb, turns=2))


def ceilings(setup, device):
    "What the processor reaches: a large matrix product, a large convolution, and a large copy (bytes read and written)"
    import torch
    n, images, size = (8192, 2048, 2**30) if device == 'cuda' else (1024, 64, 2**27)
    methods, work = {}, {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.randn(n, n, device=device).to(dtype), torch.randn(n, n, device=device).to(dtype)
        x, w = torch.randn(images, 256, 16, 8, device=device).to(dtype, memory_format=torch.channels_last), torch.randn(256, 256, 3, 3, device=device).to(dtype, memory_format=torch.channels_last)
        name = str(dtype).split('.')[1]
        methods[f'product {name}'], work[f'product {name}'] = lambda a=a, b=b: [a@b for _ in range(10)], 10*2*n**3
        methods[f'convolution {name}'], work[f'convolution {name}'] = lambda x=x, w=w: [torch.conv2d(x, w, padding=1) for _ in range(10)], 10*2*9*256**2*images*16*8
    if device == 'cuda':
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        def tf32(f):
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
            f()
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        for k in ('product', 'convolution'): methods[f'{k} tf32'], work[f'{k} tf32'] = partial(tf32, methods[f'{k} float32']), work[f'{k} float32']
    src, to = torch.randn(size//4, device=device), torch.empty(size//4, device=device)
    methods['copy'] = lambda: [to.copy_(src) for _ in range(10)]
    took = in_turns(methods, device)
    return {k: dict(gbyte_per_second=10*2*size/min(v)/1e9, turns=len(v)) if k == 'copy' else dict(tflop_per_second=work[k]/min(v)/1e12, turns=len(v)) for k, v in took.items()}


def count(setup, device):
    "What one image asks for, counted, not timed: operations, bytes kept for the backward pass, launches of a step; on two images, halved"
    import torch
    from torch.autograd.graph import saved_tensors_hooks
    from torch.utils.flop_counter import FlopCounterMode
    setup = {**setup, 'bs': 2, 'ladder': ['fp32', 'fused'], 'variant': 'fused'}
    learn, (x, y) = build(setup, 'cpu')
    own, seen = {p.untyped_storage().data_ptr() for p in learn.model.parameters()}, {}
    def note(t):
        store = t.untyped_storage()
        if store.data_ptr() not in own: seen[store.data_ptr()] = store.nbytes()
        return t
    kept = []
    with saved_tensors_hooks(lambda t: (kept.append(t), note(t))[1], lambda t: t):
        with FlopCounterMode(display=False) as forward: out = learn.model(x)
    with FlopCounterMode(display=False) as backward: learn.loss_func(out, y).backward()
    n = sum(p.numel() for p in learn.model.parameters())
    gflop = (forward.get_total_flops()+backward.get_total_flops())/2/1e9
    return dict(count=dict(gflop_per_image=gflop, saved_mb_per_image=sum(seen.values())/2/1e6, million_weights=n/1e6, **launches(setup)))


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


KINDS = dict(step=step, learner=learner, losses=losses, optimiser=optimiser, loader=loader, epoch=epoch, ceilings=ceilings, count=count)


# running, writing

def one(device, row):
    "The lines of a row, measured in this process"
    import torch
    from portrait_nb.runs import environment
    if device == 'cpu': torch.set_num_threads(1)
    setup = rows_of(device)[row]
    where = 'cuda' if device == 'gpu' else 'cpu'
    columns = {k: setup[k] for k in ('model', 'variant', 'bs', 'workers') if k in setup}
    about = dict(size='x'.join(map(str, setup['size'])), **columns)
    try: found = KINDS[setup['kind']](setup, where)
    except torch.OutOfMemoryError: found = {setup['kind']: dict(note='out of memory')}
    return [dict(device=device, row=row, method=k, **about, **{a: float(f'{b:.5g}') if isinstance(b, float) else b for a, b in v.items()}, **environment()) for k, v in found.items()]


def in_own_process(device, row, limit):
    "The lines of a row; a line that says why there is none"
    env = {**os.environ, **({'OMP_NUM_THREADS': '1'} if device == 'cpu' else {}), 'PYTHONPATH': str(REPO)}
    try: out = subprocess.run([sys.executable, '-W', 'ignore', __file__, device, '--one', row], capture_output=True, text=True, env=env, timeout=limit)
    except subprocess.TimeoutExpired: return [dict(device=device, row=row, method='', note=f'not finished in {limit} s')]
    if out.returncode: return [dict(device=device, row=row, method='', note=f'failed: {out.stderr.strip().splitlines()[-1][:200]}')]
    fell = next((o for o in out.stderr.splitlines() if 'torch.compile' in o and 'warn(' not in o), None)
    return [o | (dict(note=fell[-200:]) if fell else {}) for o in json.loads(out.stdout.splitlines()[-1])]


def write(rows):
    "Replace the lines of these rows on this kind of device"
    import pandas as pd
    new = pd.DataFrame(rows)
    if RESULTS.exists():
        old = pd.read_csv(RESULTS)
        new = pd.concat([old[~(old.device+old.row).isin(set(new.device+new.row))], new])
    part = RESULTS.with_name(f'.{RESULTS.name}.part')
    new.to_csv(part, index=False)
    os.replace(part, RESULTS)


def is_done(row, device, now):
    "Is it in the file, measured by this commit on this hardware?"
    import pandas as pd
    if not RESULTS.exists(): return False
    old = pd.read_csv(RESULTS)
    old = old[(old.device == device) & (old.row == row)]
    return len(old) > 0 and 'commit' in old and (old.commit.fillna('') == now['commit']).all() and (old.hardware == now['hardware']).all()


def main(args):
    import pandas as pd
    from portrait_nb.runs import environment
    now, names = environment(), list(rows_of(args.device))
    chosen = [o for o in names if not args.rows or any(r in o for r in args.rows)]
    if not chosen: sys.exit(f"No row's name contains {' or '.join(args.rows)}; there are: {', '.join(names)}.")
    if args.list: return print('\n'.join(chosen))
    if args.device == 'gpu' and 'CPU cores' in now['hardware']: sys.exit('There is no GPU here: bench_training.py cpu measures what can be measured without one.')
    for row in chosen:
        if not args.again and is_done(row, args.device, now): print(f'{row}: is in {RESULTS.name}'); continue
        start = time.perf_counter()
        lines = in_own_process(args.device, row, args.limit)
        print(f'{row}: {time.perf_counter()-start:.0f} s', *(o['note'] for o in lines if 'note' in o), flush=True)
        write(lines)
    table = pd.read_csv(RESULTS)
    table = table[(table.device == args.device) & table.row.isin(chosen)]
    print(table.drop(columns=[o for o in ('date', 'commit', 'hardware', 'threads', 'python', 'torch', 'timm', 'fastai', 'portrait_nb', 'device', 'size') if o in table]).dropna(axis=1, how='all').to_string(index=False))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('device', choices=['cpu', 'gpu'])
    parser.add_argument('rows', nargs='*', help='parts of the names of rows; none: all')
    parser.add_argument('--limit', type=int, default=300, help='seconds for a row')
    parser.add_argument('--again', action='store_true', help='measure what is in the file, too')
    parser.add_argument('--list', action='store_true', help='print the names of the rows')
    parser.add_argument('--one', help=argparse.SUPPRESS)
    args = parser.parse_args()
    sys.path.insert(0, str(REPO))
    if args.one: print(json.dumps(one(args.device, args.one)))
    else: main(args)

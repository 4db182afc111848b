"""How long `retrieval_scores` takes, beside a loop of one product and one argsort a query, and beside the matrix product alone. Run from a checkout:
python tests/benchmarks/bench_metrics.py [market] [paper] [cuda]     writes results/metrics_speed.csv

market: Market-1501's size and real identity counts (3,368 x 15,913).   paper: the size of Table 2 (12,361 x 86,006).   cuda: both on a GPU, without the loop.
Every size is a process of its own, in which the methods take turns; the fastest turn of each counts."""
import argparse, json, os, platform, subprocess, sys, time
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

REPO = Path(__file__).resolve().parents[2]
RESULTS = REPO/'results'/'metrics_speed.csv'
THREADS, CHUNK, D, NOISE = 2, 256, 512, 2.5
NAMES = dict(market='Market-1501, 3,368 x 15,913', paper='the paper, 12,361 x 86,006')


def market_ids(rng):
    "Identities with their real numbers of images, 2,798 distractors (identity 0), six cameras at random"
    counts = pd.read_csv(REPO/'nbs'/'facts'/'market1501_identity_counts.csv')
    query, gallery = (counts[counts.subset == o] for o in ('query', 'gallery'))
    query, gallery = (rng.permutation(np.repeat(o.identity, o.images)) for o in (query, gallery))
    gallery = rng.permutation(np.concatenate([gallery, np.zeros(15913-len(gallery), int)]))
    return query, gallery, rng.integers(1, 7, len(query)), rng.integers(1, 7, len(gallery))


def paper_ids(rng):
    "404 identities of queries, 426 in the gallery, two thirds of which are nobody; a long tail"
    share = np.sort(rng.lognormal(0, .8, 426))[::-1]
    gallery = np.concatenate([rng.choice(np.arange(1, 427), 28282, p=share/share.sum()), np.full(57724, -1)])
    return rng.integers(1, 405, 12361), rng.permutation(gallery), None, None


def features(ids, rng):
    "Noisy centres; nobody and distractors have centres of their own"
    import torch
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(6000, D, generator=g)
    who = np.where(ids > 0, ids, rng.integers(2000, 6000, len(ids)))
    x = torch.cat([centres[o] + NOISE*torch.randn(len(o), D, generator=g) for o in np.array_split(who, 16)])
    return x.div_(x.norm(dim=1, keepdim=True))


def loop(query, gallery, qi, gi, qc, gc):
    "One product and one argsort a query; plain mAP"
    q, g, aps = query.numpy(), gallery.numpy(), []
    for i in range(len(q)):
        order = np.argsort(-(g@q[i]))
        match = gi[order] == qi[i]
        if qc is not None: match = match[~(match & (gc[order] == qc[i]))]
        ranks = np.flatnonzero(match)+1
        if len(ranks): aps.append((np.arange(1, len(ranks)+1)/ranks).mean())
    return float(np.mean(aps))


def product(query, gallery, *_):
    "The cosines of a chunk of queries after another, nothing else"
    import torch
    out = torch.empty(CHUNK, len(gallery), device=gallery.device)
    for a in range(0, len(query), CHUNK): torch.mm(query[a:a+CHUNK], gallery.T, out=out[:len(query[a:a+CHUNK])])
    return float(out[0, 0])


def here(query, gallery, qi, gi, qc, gc):
    from portrait_nb.metrics import retrieval_scores
    return retrieval_scores(query, gallery, qi, gi, query_cams=qc, gallery_cams=gc).mAP


METHODS = dict(here=here, product=product, loop=loop)


def _memory(what):
    "VmRSS (now) or VmHWM (the highest) of this process in MB; NaN where the system does not tell"
    try: return int(next(o for o in open('/proc/self/status') if o.startswith(what)).split()[1])/1024
    except (OSError, StopIteration): return float('nan')


def _forget_peak():
    try: Path('/proc/self/clear_refs').write_text('5')
    except OSError: pass


def _timed(f, args, device):
    import torch
    start = time.perf_counter()
    value = f(*args)
    if device == 'cuda': torch.cuda.synchronize()
    return time.perf_counter()-start, value


def measure(size, device, turns):
    "The lines of one size, measured in this process"
    import torch
    torch.set_num_threads(THREADS)
    rng = np.random.default_rng(0)
    ids = (market_ids if size == 'market' else paper_ids)(rng)
    args = [features(o, rng).to(device) for o in ids[:2]] + list(ids)
    methods = {k: METHODS[k] for k in ('here', 'product', 'loop') if k != 'loop' or device == 'cpu'}
    small = [o if o is None else o[:400] for o in args]
    for f in methods.values(): f(*small)  # what is loaded once is not counted
    seconds, values, extra = {k: [] for k in methods}, {}, {}
    for turn in range(turns):
        for k, f in methods.items():
            if k == 'loop' and turn >= max(1, turns//2): continue
            _forget_peak()
            before = _memory('VmRSS')
            s, values[k] = _timed(f, args, device)
            seconds[k].append(s)
            extra[k] = max(extra.get(k, 0), _memory('VmHWM')-before)
    if device == 'cpu': assert abs(values['here']-values['loop']) < 1e-6, values
    return [dict(size=NAMES[size], method=k, device=device, seconds=round(min(s), 3), turns=len(s), extra_mb=round(extra[k]), mAP=values[k] if k != 'product' else '',
                 d=D, features='float32 synthetic', threads=THREADS if device == 'cpu' else '') for k, s in seconds.items()]


def in_own_process(size, device, turns):
    env = {**os.environ, 'OMP_NUM_THREADS': str(THREADS), 'OPENBLAS_NUM_THREADS': str(THREADS), 'PYTHONPATH': str(REPO)}
    out = subprocess.run([sys.executable, __file__, '--one', size, device, str(turns)], capture_output=True, text=True, env=env)
    if out.returncode: sys.exit(out.stderr)
    return json.loads(out.stdout.splitlines()[-1])


def _git(*args): return subprocess.run(['git', '-C', str(REPO), *args], capture_output=True, text=True).stdout.strip()


def _hardware(device):
    if device == 'cuda':
        import torch
        return torch.cuda.get_device_name()
    try: cpu = next(o.split(':')[1].strip() for o in open('/proc/cpuinfo') if o.startswith('model name'))
    except (OSError, StopIteration): cpu = platform.processor() or platform.machine()
    return f'{os.cpu_count()} CPU cores, {cpu}'


def provenance(device):
    import torch
    return dict(date=date.today().isoformat(), commit=_git('rev-parse', '--short', 'HEAD') + ('+' if _git('status', '--porcelain', '--', 'portrait_nb', 'tests') else ''),
                hardware=_hardware(device), python=platform.python_version(), numpy=np.__version__, torch=torch.__version__)


def write(rows):
    "Replace the lines of the sizes and devices that were measured"
    new = pd.DataFrame(rows)
    if RESULTS.exists():
        old = pd.read_csv(RESULTS)
        new = pd.concat([old[~(old['size']+old.device).isin(set(new['size']+new.device))], new])
    part = RESULTS.with_name(f'.{RESULTS.name}.part')
    new.to_csv(part, index=False)
    os.replace(part, RESULTS)
    print(f'wrote {RESULTS.relative_to(REPO)}')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', nargs='*', choices=['market', 'paper', 'cuda', []], default=[], metavar='market|paper|cuda')
    parser.add_argument('--turns', type=int, default=4)
    parser.add_argument('--one', nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    sys.path.insert(0, str(REPO))
    if args.one:
        print(json.dumps(measure(args.one[0], args.one[1], int(args.one[2]))))
        sys.exit()
    device, sizes = 'cuda' if 'cuda' in args.what else 'cpu', [o for o in args.what if o != 'cuda'] or ['market', 'paper']
    for size in sizes:
        rows = [{**o, **provenance(device)} for o in in_own_process(size, device, args.turns if size == 'market' else max(1, args.turns//2))]
        print(pd.DataFrame(rows)[['size', 'method', 'device', 'seconds', 'extra_mb', 'mAP']].to_string(index=False))
        write(rows)

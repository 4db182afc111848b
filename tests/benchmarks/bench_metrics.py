"""How long `retrieval_scores` takes, beside the textbook loop and the matrix product alone. Run from a checkout:
python tests/benchmarks/bench_metrics.py [market] [paper] [half] [cuda] [--threads 2]
writes results/metrics_speed.csv

market: Market-1501's size and real identity counts (3,368 x 15,913)
paper: the size of Table 2 (12,361 x 86,006)
half: the paper's gallery, but one identity holds half of it and of the queries (every eighth of the paper's), for the
      memory it takes; once, without the loop
cuda: on a GPU, without the loop

Every size is a process of its own, in which the methods take turns; the fastest turn of each counts. On the CPU the
seconds are those of the processor, on one thread, so that other work on the machine counts little; with more threads
they are those of the clock on the wall, which need a quiet machine. `extra_mb`,
what is needed beyond the features, is that of two threads."""
import argparse, json, sys, time

import numpy as np
import pandas as pd

from common import REPO, RESULTS, forget_peak, in_own_process, memory, provenance, write

SPEED = RESULTS/'metrics_speed.csv'
CHUNK, D, NOISE = 256, 512, 2.5
NAMES = dict(market='Market-1501, 3,368 x 15,913', paper='the paper, 12,361 x 86,006',
             half='1,546 x 86,006, half of it one identity')


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


def half_ids(rng):
    "The paper's gallery and every eighth query; half of both sides are one identity"
    query, gallery, *_ = paper_ids(rng)
    query[:len(query)//2], gallery[:len(gallery)//2] = 1, 1
    return rng.permutation(query)[::8], rng.permutation(gallery), None, None


IDS = dict(market=market_ids, paper=paper_ids, half=half_ids)


def features(ids, rng, seed):
    "Noisy centres, the same for both sides; nobody and distractors have centres of their own"
    import torch
    centres, g = torch.randn(6000, D, generator=torch.Generator().manual_seed(0)), torch.Generator().manual_seed(seed)
    who = np.where(ids > 0, ids, rng.integers(2000, 6000, len(ids)))
    x = torch.cat([centres[o] + NOISE*torch.randn(len(o), D, generator=g) for o in np.array_split(who, 16)])
    return x.div_(x.norm(dim=1, keepdim=True))


def loop(query, gallery, qi, gi, qc, gc):
    "The textbook's: one product and one argsort for each query; plain mAP"
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
    for chunk in query.split(CHUNK): torch.mm(chunk, gallery.T, out=out[:len(chunk)])
    return float(out[0, 0])


def onednn(query, gallery, *_):
    "The same by way of oneDNN, a block of the gallery at a time"
    import torch
    out, weights = torch.empty(CHUNK, len(gallery)), gallery.split(1024)
    for chunk in query.split(CHUNK):
        chunk = chunk.to_mkldnn()
        for a, o in enumerate(weights):
            block = slice(1024*a, 1024*a+len(o))
            out[:len(chunk), block] = torch.nn.functional.linear(chunk, o).to_dense()
    return float(out[0, 0])


def here(query, gallery, qi, gi, qc, gc):
    from portrait_nb.metrics import retrieval_scores
    return retrieval_scores(query, gallery, qi, gi, query_cams=qc, gallery_cams=gc).mAP


METHODS = dict(here=here, product=product, onednn=onednn, loop=loop)


def _timed(f, args, device, threads):
    import torch
    clock = time.perf_counter if device == 'cuda' or threads > 1 else time.process_time
    start = clock()
    value = f(*args)
    if device == 'cuda': torch.cuda.synchronize()
    return clock()-start, value


def _extra(f, args):
    "MB beyond the arguments, on two threads"
    import torch
    torch.set_num_threads(2)
    forget_peak()
    before = memory('VmRSS')
    f(*args)
    return memory('VmHWM')-before


def measure(size, device, turns, threads):
    "The lines of one size, measured in this process"
    import torch
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    ids = IDS[size](rng)
    args = [features(o, rng, seed).to(device) for seed, o in enumerate(ids[:2], 1)] + list(ids)
    left_out = ('onednn', 'loop') if device == 'cuda' else ('loop',) if size == 'half' else ()
    methods = {k: f for k, f in METHODS.items() if k not in left_out}
    small = [o if o is None else o[:1500] for o in args]
    for f in methods.values(): f(*small)  # what is loaded once is not counted
    extra = _extra(here, args)
    torch.set_num_threads(threads)
    seconds, values = {k: [] for k in methods}, {}
    for turn in range(turns):
        for k, f in methods.items():
            if k == 'loop' and turn >= max(1, turns//4): continue
            s, values[k] = _timed(f, args, device, threads)
            seconds[k].append(s)
    if 'loop' in values: assert abs(values['here']-values['loop']) < 1e-6, values
    rows = []
    for k, s in seconds.items():
        rows.append(dict(
            size=NAMES[size], method=k, device=device, seconds=round(min(s), 3), turns=len(s),
            extra_mb=round(extra) if k == 'here' else '', mAP=values[k] if k in ('here', 'loop') else '',
            d=D, features='float32 synthetic', threads=threads))
    return rows


def merged(rows):
    "The file's lines, those of the sizes, devices and threads that were measured replaced"
    if not SPEED.exists(): return rows
    old, same = pd.read_csv(SPEED), ['size', 'device', 'threads']
    return pd.concat([old[~old.set_index(same).index.isin(rows.set_index(same).index)], rows])


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', nargs='*', choices=[*IDS, 'cuda', []], default=[], metavar='|'.join([*IDS, 'cuda']))
    parser.add_argument('--turns', type=int, default=8)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--one', nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*args.one[:2], *map(int, args.one[2:]))))
        sys.exit()
    device = 'cuda' if 'cuda' in args.what else 'cpu'
    sizes = [o for o in args.what if o != 'cuda'] or list(IDS)
    for size in sizes:
        turns = dict(market=args.turns, paper=max(1, args.turns//4), half=1)[size]
        rows = in_own_process(__file__, '--one', size, device, turns, args.threads, threads=args.threads)
        rows = pd.DataFrame(rows).assign(**provenance('numpy', 'torch', cpu=device == 'cpu'))
        print(rows[['size', 'method', 'device', 'seconds', 'extra_mb', 'mAP']].to_string(index=False))
        write(merged(rows), SPEED)

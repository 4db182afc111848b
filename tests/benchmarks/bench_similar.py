"""How long `similar_groups` takes, beside faiss and all pairs in numpy, and how good its groups are.

Run from a checkout:
python tests/benchmarks/bench_similar.py growth|pairs|all      writes results/similar.csv, results/similar_pairs.csv

growth: hashes of films of shots, 10,000 to 1,000,000; every measurement is a process of its own,
        so that its peak of memory is its own.
pairs:  the `small` drawn portraits (drawn to out/small if they are not there: half a minute),
        precision and recall of pairs by threshold."""
import argparse, json, time

import numpy as np
import pandas as pd

from common import REPO, RESULTS, THREADS, forget_peak, in_own_process, memory, provenance, write

THRESHOLD = 6
THRESHOLDS = (0, 2, 4, 8, 10, 12, 14, 16, 20, 32)  # tried with 250,000 hashes of films
SIZES = (10_000, 30_000, 100_000, 250_000, 1_000_000)
LIMIT = dict(similar_groups=1_000_000, faiss=1_000_000, all_pairs=250_000)  # the largest size each is asked for


def _pack(bits): return np.packbits(bits, axis=1).view('>u8').ravel().astype(np.uint64)


def film_hashes(n, seed=0):
    "Hashes of films: shots of 1 to 40 frames in places of some 400 frames; a bit is a coefficient above the median"
    rng = np.random.default_rng(seed)
    shot = np.repeat(np.arange(n), rng.choice([1, 2, 3, 5, 10, 40], n, p=[.4, .25, .15, .1, .07, .03]))[:n]
    place = rng.integers(0, max(1, n//400), shot[-1]+1)
    usual = .4*rng.normal(size=64) + .8*rng.normal(size=(place.max()+1, 64))
    waves = (usual[place] + rng.normal(size=(len(place), 64)))[shot]
    waves += .08*rng.lognormal(0, .5, (n, 1))*rng.normal(size=(n, 64))
    return _pack(waves > np.median(waves, axis=1, keepdims=True))


def still_hashes(n, seed=0):
    "One still frame with noise: up to four bits off, anywhere"
    flips = np.random.default_rng(seed).random((n, 64)).argsort(1)[:, :4]
    return np.uint64(0xf0e1d2c3b4a59687) ^ np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64), axis=1)


def same_hashes(n, seed=0): return np.full(n, 0xf0e1d2c3b4a59687, np.uint64)


HASHES = dict(films=film_hashes, still=still_hashes, same=same_hashes)


def _components(n, left, right):
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    return connected_components(coo_array((np.ones(len(left), bool), (left, right)), shape=(n, n)), directed=False)[1]


def ours(hashes, threshold):
    from portrait_nb.similar import similar_groups
    return similar_groups(hashes, threshold)


def with_faiss(hashes, threshold, chunk=10_000):
    import faiss
    faiss.omp_set_num_threads(THREADS)
    rows = hashes.view(np.uint8).reshape(-1, 8)
    index = faiss.IndexBinaryFlat(64)
    index.add(rows)
    left, right = [], []
    for i in range(0, len(rows), chunk):
        limits, _, found = index.range_search(rows[i:i+chunk], threshold+1)
        left.append(i+np.repeat(np.arange(len(limits)-1), np.diff(limits.astype(np.int64))))
        right.append(found)
    return _components(len(hashes), np.concatenate(left), np.concatenate(right))


def all_pairs(hashes, threshold, chunk=64):
    left, right = [], []
    for i in range(0, len(hashes), chunk):
        a, b = np.nonzero(np.bitwise_count(hashes[i:i+chunk, None]^hashes[None, i:]) <= threshold)
        left.append(i+a)
        right.append(i+b)
    return _components(len(hashes), np.concatenate(left), np.concatenate(right))


METHODS = dict(similar_groups=ours, faiss=with_faiss, all_pairs=all_pairs)


def measure(method, hashes, n, threshold, repeats):
    "One line of the table, measured in this process"
    h, seconds = HASHES[hashes](n), []
    METHODS[method](h[:1000], threshold)  # what is loaded or compiled once is not counted
    forget_peak()
    before = memory('VmRSS')
    for _ in range(repeats):
        start = time.perf_counter()
        groups = METHODS[method](h, threshold)
        seconds.append(time.perf_counter()-start)
    peak = memory('VmHWM')
    sizes = np.unique(groups, return_counts=True)[1]
    return dict(method=method, hashes=hashes, n=n, threshold=threshold, seconds=round(min(seconds), 3), repeats=repeats,
                peak_mb=round(peak), extra_mb=round(peak-before), groups=len(sizes), largest=int(sizes.max()))


def stamped(rows): return pd.DataFrame(rows).assign(**provenance('numpy', 'scipy', 'faiss-cpu', 'imagehash', 'pillow'))


def growth():
    sizes = [(m, n) for m in METHODS for n in SIZES if n <= LIMIT[m]]
    todo = [(m, 'films', n, THRESHOLD, 3 if m == 'similar_groups' else 1) for m, n in sizes]
    todo += [('similar_groups', o, n, THRESHOLD, 3) for o in ('still', 'same') for n in (250_000, 1_000_000)]
    todo += [('similar_groups', 'films', 250_000, t, 1) for t in THRESHOLDS]
    rows = []
    print('         method  hashes         n bits   seconds  peak MB  extra MB   groups')
    line = ('{method:>15} {hashes:>7} {n:>9,} {threshold:>4} {seconds:>9.2f} '
            '{peak_mb:>8,} {extra_mb:>9,} {groups:>8,}')
    for o in todo:
        rows.append(in_own_process(__file__, 'one', *o))
        print(line.format(**rows[-1]), flush=True)
    agree = pd.DataFrame(rows).groupby(['hashes', 'n', 'threshold'])[['groups', 'largest']].nunique()
    assert (agree == 1).all(axis=None), 'the methods do not agree on the groups'
    write(stamped(rows), RESULTS/'similar.csv')


def pairs():
    from portrait_nb.similar import group_similar, pair_scores
    from portrait_nb.synth import make_portraits
    root, rows = REPO/'out'/'small', []
    df = make_portraits(root, 'small')
    for t in range(0, 25, 2):
        for within in ('source', ''):
            found = group_similar(df, root, t, within or None, accidents=None)['group']
            precision, recall = pair_scores(found, df['group'])
            rows.append(dict(preset='small', images=len(df), threshold=t, within=within,
                             precision=round(precision, 4), recall=round(recall, 4),
                             groups=found.nunique(), largest=int(found.value_counts().max())))
            print('threshold {threshold:>2}, within {within!r:>8}: precision {precision:.4f}, recall {recall:.4f}, '
                  'largest {largest:,}'.format(**rows[-1]), flush=True)
    write(stamped(rows), RESULTS/'similar_pairs.csv')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=['growth', 'pairs', 'all', 'one'])
    parser.add_argument('rest', nargs='*', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.what == 'one': print(json.dumps(measure(*args.rest[:2], *map(int, args.rest[2:]))))
    if args.what in ('growth', 'all'): growth()
    if args.what in ('pairs', 'all'): pairs()

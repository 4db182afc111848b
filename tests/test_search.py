"The search against a plain double loop, over random cases and hostile input"
import math, pytest, torch, warnings
import numpy as np, pandas as pd
from itertools import permutations
from sklearn.metrics import average_precision_score
from portrait_nb import search
from portrait_nb.metrics import NoTrueMatch, RetrievalScores, TIE
from portrait_nb.metrics import average_precision, retrieval_scores, retrieval_scores_by_loop
from portrait_nb.search import Search

torch.set_num_threads(1)
KS = (1, 2, 5, 10, 50)


def cosine(a, b):
    "On whole numbers: the sign and the square, so that ties are exact"
    dot, na, nb = sum(x*y for x, y in zip(a, b)), sum(x*x for x in a), sum(x*x for x in b)
    return math.copysign(dot*dot/(na*nb), dot) if na and nb else 0.


def loop_one(q, gallery, qid, gids, qgroup, ggroups, qcam, gcams, ap):
    "(average precision, rank of the first match) by building and walking the ranking; None without a match"
    ranking = []
    for f, i, g, c in zip(gallery, gids, ggroups, gcams):
        right = qid not in ('', -1) and i == qid
        if qgroup != '' and g == qgroup: continue
        if right and qcam != '' and c == qcam: continue
        ranking.append((-round(cosine(q, f), 12), right))
    ranking.sort()                     # most similar first, wrong (False) before right (True) among equals
    total = sum(right for _, right in ranking)
    if not total: return None
    hits, area, first, old_recall, old_precision, precisions = 0, 0., None, 0., 1., []
    for n, (_, right) in enumerate(ranking):
        if right:
            hits += 1
            first = first or n+1
            precisions.append(hits/(n+1))
        recall, precision = hits/total, hits/(n+1)
        area += (recall-old_recall)*(old_precision+precision)/2
        old_recall, old_precision = recall, precision
    last = max(n+1 for n, (_, right) in enumerate(ranking) if right)
    return (area if ap == 'trapezoid' else sum(precisions)/total), total/last, first


def loop_scores(query, gallery, qids, gids, qgroups, ggroups, qcams, gcams, ap, no_match='skip'):
    by_id, n_valid = {}, 0
    for q, i, g, c in zip(query, qids, qgroups, qcams):
        one = loop_one(q, gallery, i, gids, g, ggroups, c, gcams, ap)
        n_valid += one is not None
        if one: by_id.setdefault(i, []).append([one[0], one[1], *(float(one[2] <= k) for k in KS)])
        elif no_match == 'zero' and i not in ('', -1): by_id.setdefault(i, []).append([0.]*(2+len(KS)))
    rows = [r for o in by_id.values() for r in o]
    mean = lambda rows: [sum(o)/len(o) for o in zip(*rows)]
    return (mean(rows), mean([mean(o) for o in by_id.values()]), n_valid) if n_valid else None


def random_search(seed):
    "Features of small whole numbers, so that many tie; names as strings, some unknown"
    rng = np.random.default_rng(seed)
    nq, ng, d = rng.integers(3, 15), rng.integers(5, 40), rng.integers(2, 5)
    def names(n, k, letter, unknown):
        drawn = zip(rng.integers(0, k, n), rng.random(n))
        return [f'{letter}{i}' if u>unknown else '' for i, u in drawn]
    f = [rng.integers(-2, 3, (n, d)) for n in (nq, ng)]
    ids, groups, cams = [[names(n, *o) for n in (nq, ng)] for o in ((4, 'p', .2), (5, 's', .3), (3, 'c', .2))]
    return f, ids, groups, cams


def found(s): return [s.mAP, s.mINP, *s.cmc.values()], [s.macro_mAP, s.macro_mINP, *s.macro_cmc.values()]


@pytest.mark.parametrize('seed', range(120))
def test_against_double_loop(seed, monkeypatch):
    "By the library's loop, by float64 alone, and by float32 with what is in doubt settled"
    f, ids, groups, cams = random_search(seed)
    with_groups, with_cams, ap, no_match = seed%2, seed//2%2, ('plain', 'trapezoid')[seed//4%2], ('skip',
                                                                                                  'zero')[seed//8%2]
    blank = [['']*len(o) for o in f]
    of_groups, of_cams = groups if with_groups else blank, cams if with_cams else blank
    want = loop_scores(*[o.tolist() for o in f], *ids, *of_groups, *of_cams, ap, no_match)
    kwargs = dict(zip(('query_groups', 'gallery_groups'), groups)) if with_groups else {}
    kwargs |= dict(zip(('query_cams', 'gallery_cams'), cams)) if with_cams else {}
    kwargs |= dict(ks=KS, ap=ap, no_match=no_match)
    if want is not None:
        s = retrieval_scores_by_loop(*f, *ids, **kwargs)
        assert found(s) == (pytest.approx(want[0]), pytest.approx(want[1]))
        assert (s.n_valid, s.n_query) == (want[2], len(f[0]))
    for kind, small in ((np.float64, None), (np.float32, None), (np.float32, 0)):
        if small is not None: monkeypatch.setattr(search, 'SMALL', small)
        def score(): return retrieval_scores(*[o.astype(kind) for o in f], *ids, **kwargs, chunk=[None, 1, 4][seed%3])
        if want is None:
            with pytest.raises(NoTrueMatch, match=f'None of the {len(f[0])} queries'): score()
            continue
        s = score()
        assert found(s) == (pytest.approx(want[0]), pytest.approx(want[1]))
        assert (s.n_valid, s.n_query, tuple(s.cmc)) == (want[2], len(f[0]), KS)


def clustered(seed, d=32, nq=300, ng=2500):
    "Float32 features in which every tenth gallery image comes twice, with another length; Market-like ids and cameras"
    rng = np.random.default_rng(seed)
    centres, qi, gi = rng.normal(size=(60, d)), rng.integers(1, 60, nq), rng.integers(-1, 60, ng)
    q, g = (centres[o]+rng.uniform(.5, 3, (len(o), 1))*rng.normal(size=(len(o), d)) for o in (qi, gi))
    if seed%3 == 1: q, g = (o*np.where(np.arange(d)<2, 40, 1) for o in (q, g)) # two coordinates rule: more noise
    if seed%3 == 2: q, g = np.maximum(q, 0), np.maximum(g, 0) # as after a ReLU
    g[ng//10:ng//5] = g[:ng//10]*rng.uniform(.1, 9, (ng//10, 1))
    return q.astype(np.float32), g.astype(np.float32), qi, gi, rng.integers(0, 6, nq), rng.integers(0, 6, ng)


def definition(q, g, qi, gi, qc, gc):
    "AP of every query by the definition in float64: a wrong image is ahead if it is no more than 1e-9 less similar"
    unit = lambda x: x.astype(np.float64)/np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True).clip(1e-30)
    aps = []
    for c, i, cam in zip(unit(q)@unit(g).T, qi, qc):
        match = (gi == i) & (gi >= 0)
        keep = ~(match & (gc == cam))
        right, wrong = np.sort(c[match&keep])[::-1], c[~match&keep]
        ranks = [h+1+(wrong >= o-1e-9).sum() for h, o in enumerate(right)]
        if len(ranks): aps.append(np.mean(np.arange(1, len(ranks)+1)/ranks))
    return aps


@pytest.mark.parametrize('seed', range(9))
@pytest.mark.parametrize('threads', [1, 3])
def test_float32_is_settled_by_float64(seed, threads, monkeypatch):
    args = clustered(seed, d=(8, 32, 300)[seed//3])
    want = definition(*args)
    monkeypatch.setattr(search, 'SMALL', 0)
    torch.set_num_threads(threads)
    try: s = retrieval_scores(*args[:4], query_cams=args[4], gallery_cams=args[5])
    finally:
        assert torch.get_num_threads() == threads
        torch.set_num_threads(1)
    assert s.per_query.AP.to_numpy() == pytest.approx(want, abs=5e-7)
    assert s.mAP == pytest.approx(np.mean(want), abs=1e-7)


def test_a_rough_product_is_noticed(monkeypatch):
    "Cosines in TF32 or bfloat16 differ from the exact ones, so float64 takes over"
    args = clustered(0)
    monkeypatch.setattr(search, 'SMALL', 0)
    want, plain, used = np.mean(definition(*args)), Search.products, []
    def rough(self, rows, dtype):
        used.append(dtype)
        S = plain(self, rows, dtype)
        return S.mul_(1+1e-4*torch.rand_like(S)) if dtype == torch.float32 else S
    monkeypatch.setattr(Search, 'products', rough)
    assert retrieval_scores(*args[:4], query_cams=args[4], gallery_cams=args[5]).mAP == pytest.approx(want, abs=1e-9)
    assert {torch.float32, torch.float64} == set(used)
    def broken(self, rows, dtype):
        S = plain(self, rows, dtype)
        return S.fill_(math.nan) if dtype == torch.float32 else S
    monkeypatch.setattr(Search, 'products', broken)
    assert retrieval_scores(*args[:4], query_cams=args[4], gallery_cams=args[5]).mAP == pytest.approx(want, abs=1e-9)


def test_the_gpus_way_of_counting():
    "On a GPU rows are sorted by torch; the same on the CPU"
    class OnGpu:
        is_cuda = True
        def __init__(self, x): self.x = x
        def __getattr__(self, k): return getattr(self.x, k)
        def __mul__(self, o): return self.x*o
    S, bounds = torch.randn(20, 300), torch.randn(20, 7)
    S[:, 5] = -math.inf
    bounds[3] = -math.inf
    scale = torch.rand(300)+.5
    here, there = (search.counts_reaching(o, scale, bounds) for o in (S, OnGpu(S)))
    is_bounded = bounds>-math.inf
    assert (here[is_bounded] == there[is_bounded]).all() and here[0, 0] == (S[0]*scale >= bounds[0, 0]).sum()


@pytest.mark.filterwarnings('ignore:TF32')
@pytest.mark.parametrize('enabled', [True, False])
@pytest.mark.parametrize('seed', range(3))
def test_both_ways_of_the_float32_product(seed, enabled, monkeypatch):
    "By oneDNN, where torch has it, and by torch.mm; with lengths of every kind, columns before rows, a single feature"
    args = clustered(seed)
    want = definition(*args)
    monkeypatch.setattr(search, 'SMALL', 0)
    with torch.backends.mkldnn.flags(enabled=enabled):
        def columns_first(o): return torch.tensor(o.T.copy()).T
        def padded(o): return torch.tensor(np.pad(o, ((0, 0), (0, 5))))[:, :-5]
        for kind in (torch.tensor, columns_first, padded):
            s = retrieval_scores(kind(args[0]), kind(args[1]), *args[2:4], query_cams=args[4], gallery_cams=args[5])
            assert s.per_query.AP.to_numpy() == pytest.approx(want, abs=5e-7)
        one = args[0][:, :1], args[1][:, :1], *args[2:]
        s = retrieval_scores(*one[:4], query_cams=one[4], gallery_cams=one[5])
        assert s.per_query.AP.to_numpy() == pytest.approx(definition(*one), abs=5e-7)


@pytest.mark.parametrize('scale', [1e-42, 1e39, 1e60])
def test_lengths_that_float32_cannot_hold(scale, monkeypatch):
    "Distractors that are very long or very short have the cosine that they have"
    q, g, qi, gi, qc, gc = clustered(0)
    g = g.astype(np.float64)
    gi[:50] = -1
    want = definition(q, g, qi, gi, qc, gc)
    g[:50] *= scale
    monkeypatch.setattr(search, 'SMALL', 0)
    s = retrieval_scores(q.astype(np.float64), g, qi, gi, query_cams=qc, gallery_cams=gc)
    assert s.per_query.AP.to_numpy() == pytest.approx(want, abs=5e-7)


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_counts_of_rows_against_comparing_each(dtype):
    rng = np.random.default_rng(0)
    S = rng.integers(-3, 4, (40, 97)).astype(dtype)
    S[rng.random(S.shape)<.1] = -np.inf
    bounds = rng.integers(-4, 5, (40, 6)).astype(dtype)+rng.choice([0, .5], (40, 6)).astype(dtype)
    bounds[rng.random(bounds.shape)<.3] = -np.inf
    bounds[7], scale = -np.inf, rng.choice([.5, 1, 2], 97).astype(dtype)
    want = [[(row*scale >= b).sum() if b>-np.inf else 0 for b in ask] for row, ask in zip(S, bounds)]
    assert (search.counts_reaching(*map(torch.tensor, (S, scale, bounds))).numpy() == want).all()


@pytest.mark.parametrize('seed', range(6))
def test_an_identity_with_half_of_everything(seed, monkeypatch):
    "With room for many queries at once, and for a few"
    q, g, qi, gi, qc, gc = clustered(seed, nq=90, ng=1500)
    qi[::2], gi[::2] = 7, 7
    if seed%2: gc[:] = 9 # nobody's own camera
    monkeypatch.setattr(search, 'SMALL', 0)
    want = definition(q, g, qi, gi, qc, gc)
    for room in (search.ROOM, 60_000, 1):
        monkeypatch.setattr(search, 'ROOM', room)
        s = retrieval_scores(q, g, qi, gi, query_cams=qc, gallery_cams=gc)
        assert s.per_query.AP.to_numpy() == pytest.approx(want, abs=5e-7)


@pytest.mark.parametrize('workers,chunk', [(1, None), (2, None), (5, None), (2, 1), (3, 7), (2, 1000)])
def test_chunks_hold_every_query_once_and_fit(workers, chunk, monkeypatch):
    q, g, qi, gi, *_ = clustered(0)
    gi[:1200], group = 5, np.full(len(g), -1)
    group[:400] = 0
    codes = [(qi, gi), (np.where(qi == 8, 0, -1), group), (qi*0-1, gi*0-1)]
    one = Search(torch.tensor(q), torch.tensor(g), codes, 10, TIE)
    monkeypatch.setattr(search, 'ROOM', 10*(len(g)+32*1200))
    parts = one.chunks(chunk, workers)
    assert sorted(np.concatenate(parts)) == list(range(len(q))) and max(map(len, parts)) <= (chunk or 128)
    related = [(gi == qi[i]).sum() + (qi[i] == 8)*400 for i in range(len(q))]
    room = search.ROOM*min(1, 3/workers)
    def fits(rows): return len(rows) == 1 or len(rows)*(len(g)+32*max(related[i] for i in rows)) <= room
    if not chunk: assert all(map(fits, parts))


def test_whole_numbers_are_read_as_any_other_names():
    rng = np.random.default_rng(0)
    q, g = rng.integers(-1, 9, 40), rng.integers(-1, 9, 90)
    want = search.shared_codes(q.tolist(), g.tolist(), 40, 90, 'ids')
    same = lambda codes: np.equal.outer(*codes)&(codes[0] >= 0)[:, None]
    def int32(o): return torch.tensor(o).int()
    def nullable(o): return pd.Series(o).astype('Int64').replace(-1, pd.NA)
    def floats(o): return np.where(o<0, np.nan, o)
    for one in (np.array, torch.tensor, pd.Series, int32, nullable, floats, lambda o: o.tolist()):
        for other in (np.array, torch.tensor, lambda o: o.astype(np.int32)):
            codes = search.shared_codes(one(q), other(g), 40, 90, 'ids')
            assert (same(codes) == same(want)).all()
            assert (codes[0] >= 0).tolist() == (q >= 0).tolist() and (codes[1] >= 0).tolist() == (g >= 0).tolist()
    far = search.shared_codes(np.array([2**62, 2**62+1]), torch.tensor([2**62+1]), 2, 1, 'ids')
    assert far[0][1] == far[1][0] != far[0][0]


@pytest.mark.filterwarnings('ignore:All')
@pytest.mark.parametrize('d,offset', [(16, 1), (512, 30)])
def test_near_collapse_falls_back_to_float64(d, offset, monkeypatch):
    rng = np.random.default_rng(0)
    q, g = offset+1e-4*rng.normal(size=(50, d)), offset+1e-4*rng.normal(size=(700, d))
    qi, gi = rng.integers(0, 9, 50), rng.integers(0, 9, 700)
    want = retrieval_scores(q, g, qi, gi)
    monkeypatch.setattr(search, 'SMALL', 0)
    assert retrieval_scores(q, g, qi, gi) == want


def shuffled(f, ids, ks, ap):
    "The mean over every order of the gallery, ties broken by that order"
    out = []
    for q, i in zip(f[0].tolist(), ids[0]):
        if not i or i not in ids[1]: continue
        c = [round(cosine(q, o), 12) for o in f[1].tolist()]
        rows = []
        for p in permutations(range(len(c))):
            ranks = np.array([n+1 for n, j in enumerate(sorted(p, key=lambda j: -c[j])) if ids[1][j] == i])
            rows.append([average_precision(ranks, ap), len(ranks)/ranks[-1], *(ranks[0] <= k for k in ks)])
        out.append(np.mean(rows, 0))
    return np.mean(out, 0)


@pytest.mark.parametrize('seed', range(12))
def test_expected_ties_are_the_mean_over_all_orders(seed):
    rng = np.random.default_rng(seed)
    f, ap = [rng.integers(-1, 2, (n, 2)) for n in (3, 6)], ('plain', 'trapezoid')[seed%2]
    ids = [[f'p{i}' for i in rng.integers(0, 2, n)] for n in (3, 6)]
    s = retrieval_scores(*f, *ids, ks=(1, 2, 4), ap=ap, ties='expected')
    assert found(s)[0] == pytest.approx(shuffled(f, ids, (1, 2, 4), ap))
    assert found(retrieval_scores(*f, *ids, ks=(1, 2, 4), ap=ap))[0] <= [o+1e-9 for o in found(s)[0]]


def test_expected_ties_of_large_groups():
    "A collapsed model on 3,000 images scores as chance"
    ids = np.r_[np.zeros(30, int), np.ones(2970, int)]
    with pytest.warns(UserWarning, match='All 3000 rows of gallery are the same'):
        s = retrieval_scores(np.ones((1, 4)), np.ones((3000, 4)), [0], ids, ties='expected', ks=(1, 100, 3000))
    rng = np.random.default_rng(0)
    ranks = np.sort([rng.choice(3000, 30, replace=False) for _ in range(4000)], 1)+1
    assert s.mAP == pytest.approx(np.mean(np.arange(1, 31)/ranks), rel=.03)
    assert s.mINP == pytest.approx((30/ranks[:, -1]).mean(), rel=.003)
    assert s.cmc[1] == pytest.approx(.01) and s.cmc[3000] == 1
    assert s.cmc[100] == pytest.approx((ranks[:, 0] <= 100).mean(), abs=.02)


def test_per_query_and_no_match():
    f = np.eye(4)
    s = retrieval_scores(f, f[:3], ['a', 'b', 'z', ''], ['a', 'b', 'c'])
    assert s.per_query.index.tolist() == [0, 1]
    assert s.per_query.identity.tolist() == ['a', 'b'] and s.per_query.matches.tolist() == [1, 1]
    z = retrieval_scores(f, f[:3], ['a', 'b', 'z', ''], ['a', 'b', 'c'], no_match='zero')
    assert z.per_query.index.tolist() == [0, 1, 2] and z.mAP == pytest.approx(2/3) and (z.n_valid, z.n_query) == (2, 4)


def test_few_images_and_large_k():
    s = retrieval_scores(np.eye(2), np.eye(2), [1, 2], [2, 2], ks=(1, 100))
    assert s.cmc == {1: 1.0, 100: 1.0} and s.n_valid == 1
    assert retrieval_scores(np.eye(2), np.eye(2), [1, 2], [2, 2], ks=()).cmc == {}


def test_own_similarities():
    q, g, qi, gi, qc, gc = clustered(3)
    unit = lambda x: x.astype(np.float64)/np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    S = unit(q)@unit(g).T
    want, kwargs = retrieval_scores(q, g, qi, gi, query_cams=qc, gallery_cams=gc), dict(query_cams=qc, gallery_cams=gc)
    got = retrieval_scores(q, g, qi, gi, **kwargs, similarity=lambda rows: S[rows])
    assert got.mAP == pytest.approx(want.mAP) and got.cmc == want.cmc
    with pytest.raises(ValueError, match=r'similarity must return finite numbers of shape'):
        retrieval_scores(q, g, qi, gi, similarity=lambda rows: S[rows, :5])
    with pytest.raises(ValueError, match='NaN or infinity'):
        retrieval_scores(q, g, qi, gi, similarity=lambda rows: S[rows]*math.nan)


def test_features_are_not_copied_or_changed(tmp_path):
    args = clustered(0)
    np.save(tmp_path/'g.npy', args[1])
    g = np.load(tmp_path/'g.npy', mmap_mode='r')
    was = args[0].copy()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        s = retrieval_scores(args[0], g, *args[2:4])
    other_endian = args[0].astype('>f4'), args[1].astype('>f8')
    assert (args[0] == was).all() and s == retrieval_scores(*args[:4]) == retrieval_scores(*other_endian, *args[2:4])
    assert search.as_features(args[0], 'query').data_ptr() == args[0].ctypes.data


def test_sides_that_are_all_alike_are_a_warning():
    with pytest.warns(UserWarning, match='All 5 rows of query are the same feature: has'):
        retrieval_scores(np.ones((5, 3)), np.eye(3), [1]*5, [1, 2, 3])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        retrieval_scores(np.ones((1, 3)), np.eye(3), [1], [1, 2, 3])


def test_kinds_of_input_agree():
    f, ids, groups, cams = random_search(3)
    want = retrieval_scores(*f, *ids, *groups, *cams)
    number = lambda o: [int(v[1:]) if v else -1 for v in o]
    features = [lambda o: torch.tensor(o), lambda o: torch.tensor(o).bfloat16(), lambda o: o.tolist(), lambda o: o*.1,
                lambda o: torch.tensor(o).float().requires_grad_(), lambda o: np.flip(o[::-1], 0)]
    columns = [list, np.array, pd.Series, number, lambda o: pd.Series(o, index=range(5, 5+len(o))),
               lambda o: pd.Series(o).astype('category'), lambda o: torch.tensor(number(o)),
               lambda o: [v or None for v in o], lambda o: pd.Series(number(o)).replace(-1, np.nan)]
    for feat in features:
        for name in columns:
            got = retrieval_scores(*map(feat, f), *[name(o) for pair in (ids, groups, cams) for o in pair])
            assert got == want


TWINS = [lambda o: o.astype(np.float32), lambda o: o*4, lambda o: o*np.linspace(.1, 10, 50)[:, None]]


@pytest.mark.parametrize('twin', TWINS)
def test_identical_features_tie(twin):
    rng = np.random.default_rng(0)
    one = rng.normal(size=(50, 331)).astype(np.float32).astype(np.float64)
    gallery, ids = np.concatenate([one, twin(one)]), np.repeat([0, 1], 50)       # every image of 0 has a twin of 1
    query = rng.normal(size=(40, 331))
    for i in (0, 1):
        s = retrieval_scores(query, gallery, np.full(40, i), ids)
        assert s.mAP == pytest.approx(average_precision(np.arange(2, 101, 2))) and s.cmc[1] == 0


@pytest.mark.filterwarnings('ignore:All 7 rows')
def test_a_collapsed_model_scores_at_the_bottom():
    f = torch.full((7, 5), .3)
    s = retrieval_scores(f[:1], f, [1], [1, 1, 2, 2, 2, 2, -1])
    assert s.mAP == pytest.approx((1/6+2/7)/2) and s.cmc == {1: 0, 5: 0, 10: 1}
    assert retrieval_scores(f[:1]*0, f, [1], [1, 1, 2, 2, 2, 2, -1]).mAP == s.mAP


RANKINGS = [('1', 1, 1), ('01', .5, .25), ('011', .583333, .416667), ('00101', .366667, .245833),
            ('1011001', .747024, .706845)]


@pytest.mark.parametrize('ranking,plain,trapezoid', RANKINGS)
def test_average_precision(ranking, plain, trapezoid):
    angle = np.linspace(0, 1, len(ranking))
    gallery = np.stack([np.cos(angle), np.sin(angle)], 1)
    for ap, want in (('plain', plain), ('trapezoid', trapezoid)):
        ids = ['x' if o == '1' else 'y' for o in ranking]
        assert retrieval_scores([[1., 0]], gallery, ['x'], ids, ap=ap).mAP == pytest.approx(want, abs=1e-6)


def test_scikit_learn_average_precision():
    rng = np.random.default_rng(1)
    q, g = (rng.normal(size=(n, 12)).astype(np.float32) for n in (70, 333))
    qi, gi = rng.integers(0, 30, 70), rng.integers(-1, 30, 333)
    cos = q/np.linalg.norm(q, axis=1, keepdims=True)@(g/np.linalg.norm(g, axis=1, keepdims=True)).T
    theirs = [average_precision_score(gi == i, c) for i, c in zip(qi, cos) if (gi == i).any()]
    ours = retrieval_scores(torch.tensor(q), torch.tensor(g), qi, gi)
    assert ours.mAP == pytest.approx(np.mean(theirs)) and ours.n_valid == len(theirs)


def test_unidentified_is_nobodys_match():
    f = np.eye(4)
    for blank in (-1, '', None, float('nan'), '-1'):
        names = ['a', 'b', 'c', blank] if isinstance(blank, str) or blank is None else [1, 2, 3, blank]
        s = retrieval_scores(f, f, names, names)
        assert (s.n_valid, s.n_query, s.mAP) == (3, 4, 1)
    g = retrieval_scores(f, f, [1, 2, 3, 4], [1, 2, 3, 4], ['', '', 5, -1], ['', '', 5, -1])
    assert g.n_valid == 3


def test_no_query_left():
    two, cams = (np.eye(2), np.eye(2)), dict(query_cams=[1, 1], gallery_cams=[1, 1])
    with pytest.raises(NoTrueMatch, match='None of the 2 queries has a true match'):
        retrieval_scores(*two, ['a', 'b'], ['c', 'd'])
    with pytest.raises(NoTrueMatch): retrieval_scores(*two, ['a', 'b'], ['a', 'b'], **cams, no_match='zero')
    with pytest.raises(NoTrueMatch): retrieval_scores(*two, [-1, -1], [-1, -1])


def test_scores_are_plain_numbers_and_read_well():
    s = retrieval_scores(np.eye(2), np.eye(2), ['a', 'b'], ['a', 'b'])
    numbers = s.mAP, s.macro_mAP, *s.cmc.values(), *s.macro_cmc.values()
    assert all(type(v) is float for v in numbers) and type(s.n_valid) is int and isinstance(s, RetrievalScores)
    assert 'macro  mAP 1.0000  rank-1 1.0000' in repr(s) and '2 of 2 queries' in repr(s)


@pytest.mark.parametrize('change,words', [
    (dict(query=np.full((3, 2), np.nan)), 'query has NaN or infinity in 3 of 3 rows'),
    (dict(gallery=torch.tensor([[1., 1], [1, math.inf]])),
     'gallery has NaN or infinity in 1 of 2 rows, first in row 1'),
    (dict(gallery=np.ones((2, 3))), '2 features per row and gallery 3'),
    (dict(query=np.ones((0, 2)), query_ids=[]), r'query must be \(N, d\)'),
    (dict(gallery=np.ones(2)), r'gallery must be \(N, d\)'),
    (dict(query_ids=[1, 2]), 'query_ids must hold one value for each of the 3'),
    (dict(gallery_ids=None), 'gallery_ids'), (dict(ks=5), 'ks must be a list'), (dict(ks='5'), 'ks must be a list'),
    (dict(query_groups=[1, 2, 3]), 'gallery_groups is missing'), (dict(gallery_cams=[1, 2]), 'query_cams is missing'),
    (dict(query_groups=[1, 2, 3], gallery_groups=[1]), 'gallery_groups must hold'),
    (dict(ap='interp'), 'ap must be'), (dict(ties='best'), 'ties must be'), (dict(no_match='nan'), 'no_match must be'),
    (dict(chunk=0), 'chunk must be'),
    (dict(query=np.array([['a', 'b']]*3)), 'query must hold real numbers'), (dict(ks=(0, 1)), 'ks must be')])
def test_wrong_searches_are_refused(change, words):
    right = dict(query=np.ones((3, 2)), gallery=np.ones((2, 2)), query_ids=[1, 2, 3], gallery_ids=[1, 2])
    with pytest.raises(ValueError, match=words): retrieval_scores(**{**right, **change})


def slow_twins(q, g, qi, gi, qg, gg, qc, gc):
    same = lambda a, b: a == b and a not in ('', -1)
    def find(i, j):
        apart = same(qg[i], gg[j]) or same(qc[i], gc[j])
        return same(qi[i], gi[j]) and not apart and (q[i] == g[j]).all()
    return {i for i in range(len(q)) for j in range(len(g)) if find(i, j)}


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('kind', [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_twins_against_every_pair(seed, kind):
    "Rows of noughts and ones agree in four columns without being the same row"
    rng = np.random.default_rng(seed)
    q, g = (torch.from_numpy(rng.integers(0, 2, (n, 5 if seed % 2 else 3)).astype('f4')).to(kind) for n in (30, 80))
    codes = [(rng.integers(low, high, 30), rng.integers(low, high, 80)) for low, high in ((-1, 5), (-1, 9), (-1, 9))]
    i, j = Search(q, g, codes, 10, TIE).twins()
    assert set(i) == slow_twins(q, g, *codes[0], *codes[1], *codes[2]) and len(i) == len(set(i)) > 0
    assert all((q[a] == g[b]).all() and codes[0][0][a] == codes[0][1][b] for a, b in zip(i, j))


def test_queries_that_find_themselves_are_a_warning():
    x, who = np.random.default_rng(0).normal(size=(40, 16)), np.repeat(range(10), 4)
    with pytest.warns(UserWarning, match='40 of 40 queries find themselves'):
        assert retrieval_scores(x, x, who, who).cmc[1] == 1
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        retrieval_scores(x, x, who, who, np.arange(40), np.arange(40))
        retrieval_scores(x, x, who, who, query_cams=np.arange(40), gallery_cams=np.arange(40))
        retrieval_scores(x[:20], x[20:], np.r_[who[:19], 9], who[20:], no_match='zero')

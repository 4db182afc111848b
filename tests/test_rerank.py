"k-reciprocal re-ranking against the method as Zhong et al. describe it, with full matrices and sets"
import numpy as np, pytest, torch
from portrait_nb.metrics import retrieval_scores
from portrait_nb.rerank import k_reciprocal


def plain(query, gallery, k1, k2, lam):
    x = np.concatenate([query, gallery]).astype(float)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    N = len(x)
    d = np.array([[((x[i]-x[j])**2).sum() for j in range(N)] for i in range(N)])
    d /= d.max(1)[:, None]
    nearest = [sorted(range(N), key=lambda j: (d[i, j] if j != i else -1, j)) for i in range(N)]
    def reciprocal(i, k): return {j for j in nearest[i][:k+1] if i in nearest[j][:k+1]}
    V = np.zeros((N, N))
    for i in range(N):
        own = reciprocal(i, k1)
        members = set(own)
        for j in own:
            theirs = reciprocal(j, int(np.around(k1/2)))
            if 3*len(theirs & own) > 2*len(theirs): members |= theirs
        for j in members: V[i, j] = np.exp(-d[i, j])
        V[i] /= V[i].sum()
    V = np.array([np.mean([V[j] for j in nearest[i][:k2]], axis=0) for i in range(N)])
    out = np.zeros((len(query), len(gallery)))
    for i in range(len(query)):
        for j in range(len(gallery)):
            both, either = np.minimum(V[i], V[len(query)+j]).sum(), np.maximum(V[i], V[len(query)+j]).sum()
            out[i, j] = (1-lam)*(1-both/either) + lam*d[i, len(query)+j]
    return out


@pytest.mark.parametrize('seed', range(8))
def test_against_the_plain_method(seed):
    rng = np.random.default_rng(seed)
    k1, k2, lam, chunk = int(rng.integers(3, 21)), int(rng.integers(1, 4)), (0, .3, .7, 1)[seed%4], (7, 256)[seed%2]
    centres = rng.normal(size=(6, 10))
    query, gallery = (centres[rng.integers(0, 6, n)] + .8*rng.normal(size=(n, 10)) for n in (12, 55))
    if seed%2: query, gallery = torch.tensor(query), torch.tensor(gallery)
    rows = np.arange(12)[::-1]
    got = -k_reciprocal(query, gallery, k1, k2, lam, chunk)(rows).numpy()
    assert got == pytest.approx(plain(np.asarray(query), np.asarray(gallery), k1, k2, lam)[rows], abs=1e-5)


def test_it_helps_where_neighbours_help():
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(40), 12)
    along = rng.uniform(-1, 1, len(who))[:, None]
    x = rng.normal(size=(40, 48))[who] + 1.6*along*rng.normal(size=(40, 48))[who] + .35*rng.normal(size=(len(who), 48))
    q = np.arange(len(who))%12 == 0
    args = x[q], x[~q], who[q], who[~q]
    assert retrieval_scores(*args, similarity=k_reciprocal(*args[:2], 12, 4)).mAP > retrieval_scores(*args).mAP+.02


def test_twins_and_zeros_do_no_harm():
    rng = np.random.default_rng(1)
    x = np.repeat(rng.normal(size=(10, 6)), 4, 0)
    x[:3] = 0
    got = k_reciprocal(x[::4], x, 5, 2)(np.arange(10))
    assert torch.isfinite(got).all() and got.shape == (10, 40)


@pytest.mark.parametrize('kwargs,words', [
    (dict(k1=20), 'k2=6, k1=20 and 12 images'), (dict(k1=3, k2=5), 'k2=5, k1=3'), (dict(k1=3, k2=0), 'k2=0'),
    (dict(k1=3, k2=1, lam=2), 'lam must lie')])
def test_wrong_numbers_are_refused(kwargs, words):
    with pytest.raises(ValueError, match=words): k_reciprocal(np.eye(4), np.ones((8, 4)), **kwargs)
    with pytest.raises(ValueError, match='the same number of features'): k_reciprocal(np.eye(4), np.ones((8, 5)))

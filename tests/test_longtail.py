"The long tail against Eq. 1 written out, in fractions; hostile counts and tables; the figures draw what the counts say"
import itertools, pytest, torch
import matplotlib; matplotlib.use('agg')
import matplotlib.pyplot as plt
import numpy as np, pandas as pd
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from portrait_nb.longtail import (compare_tails, concentration, gini, head_classes, identities_by_source,
                                  identity_counts, imbalance_factor, label_counts, long_tail_curve, long_tail_score,
                                  plot_identities, plot_label_counts, plot_tails)
from portrait_nb.tasks import PORTRAIT, Task, Tasks

FACTS = Path(__file__).resolve().parent.parent/'nbs'/'facts'
TENTHS = [Fraction(i, 10) for i in range(1, 11)]


def random_counts(seed, most=300):
    rng = np.random.default_rng(seed)
    n = rng.integers(1, most)
    kinds = [rng.integers(0, 6, n)+(np.arange(n) == 0), rng.integers(1, 5000, n), rng.zipf(1.7, n).clip(max=10**9),
             np.full(n, rng.integers(1, 9))]
    return kinds[seed%4].tolist()


def walk(counts, k):
    "The head of Eq. 1 by taking away the largest class until enough is held"
    rest, held, taken = [o for o in counts if o], Fraction(0), 0
    while held < k*sum(counts):
        held += rest.pop(rest.index(max(rest)))
        taken += 1
    return taken


@pytest.mark.parametrize('seed', range(60))
def test_eq1_over_every_subset(seed):
    counts = random_counts(seed, most=11)
    n, total = len(counts), sum(counts)
    k = Fraction(int(np.random.default_rng(seed).integers(1, total+1)), total) # every one of them could be a tie
    fewest = min(len(x) for r in range(len(counts)+1) for x in itertools.combinations(counts, r) if sum(x) >= k*total)
    for same in (k, float(k)):
        assert head_classes(counts, same) == fewest
        assert long_tail_score(counts, same) == pytest.approx(float(fewest/(k*n)), rel=1e-12)


@pytest.mark.parametrize('seed', range(40))
def test_tenths_in_every_spelling(seed):
    counts = random_counts(seed)
    n = len(counts)
    by_arange, by_sum = np.arange(.1, 1.05, .1), np.cumsum([.1]*10)
    for i, k in enumerate(TENTHS):
        want = walk(counts, k)
        spellings = (k, float(k), str(k), Decimal(i+1)/10, by_arange[i], by_sum[i], 1-(9-i)*.1,
                     np.float32(i+1)/np.float32(10))
        for same in spellings:
            assert head_classes(counts, same) == want
        assert long_tail_score(counts, float(k)) == float(want/(k*n))


@pytest.mark.parametrize('n', [1, 2, 3, 7, 10, 49, 100, 640])
def test_equal_classes(n):
    for k in [Fraction(i, n) for i in range(1, n+1)]: # exact ties all along, though k arrives as a float
        assert long_tail_score([3]*n, float(k)) == 1
    assert (gini([3]*n), imbalance_factor([3]*n)) == (0, 1)
    assert long_tail_score(range(1, n+1), 1) == 1


@pytest.mark.parametrize('seed', range(20))
def test_gini_by_its_definition(seed):
    counts = random_counts(seed, most=80)
    y = counts
    by_definition = Fraction(sum(abs(a-b) for a in y for b in y), 2*len(y)*sum(y))
    assert gini(counts) == pytest.approx(float(by_definition), rel=1e-12)
    assert imbalance_factor(counts) == max(y)/min(o for o in y if o)
    held = concentration(counts)
    assert 2*np.trapezoid(held, held.index)-1 == pytest.approx(gini(counts), abs=1e-9)


def test_counts_as_they_come():
    counts = [9, 4, 4, 2, 1]
    letters = 'aaaaaaaaabbbbccccdde'
    kinds = [tuple(counts), np.array(counts), np.array(counts, float), np.array(counts, np.uint8),
             pd.Series(counts, index=list('vwxyz')), torch.tensor(counts), dict(enumerate(counts)), Counter(letters),
             (o for o in counts), counts[::-1], pd.Series(counts, dtype='Int64'),
             pd.Series(list(letters)).value_counts()]
    for same in kinds: assert long_tail_score(same, .6) == 2/3


def test_numbers_beyond_64_bits():
    assert head_classes([10**30, 10**30-1], .5) == 1 and head_classes([10**30, 10**30, 10**30], Fraction(1, 3)) == 1
    assert gini([10**30]*3) == 0


@pytest.mark.parametrize('counts, says', [
    ([], 'counts is empty'), ({}, 'counts is empty'), (np.array([]), 'counts is empty'), ([0, 0], 'counts are all 0'),
    ([3, -1], 'number 1 is -1'), ([2.5], 'number 0 is 2.5'), ([1, float('nan')], 'number 1 is nan'),
    ([float('inf')], 'number 0 is inf'), ([1, None], 'number 1 is None'), ('123', 'number 0 is 1'),
    ([[1, 2], [3, 4]], 'number 0 is'), (pd.Series([1, pd.NA], dtype='Int64'), 'number 1 is <NA>')])
def test_what_is_not_counts(counts, says):
    for f in (head_classes, long_tail_score, gini, imbalance_factor, long_tail_curve, concentration):
        with pytest.raises(ValueError, match=says): f(counts)


@pytest.mark.parametrize('k', [0, -.2, 1.1, 20, float('nan'), float('inf'), 'a fifth', '1/0', None])
def test_what_is_not_a_share(k):
    with pytest.raises(ValueError, match='above 0 and at most 1; got'): long_tail_score([3, 2], k)
    with pytest.raises(ValueError, match='above 0 and at most 1; got'): long_tail_curve([3, 2], [.5, k])


def test_table3_market1501():
    market = pd.read_csv(FACTS/'market1501_identity_counts.csv')
    got = {o: round(long_tail_score(g.images), 3) for o, g in market.groupby('subset')}
    assert got == dict(train=.399, query=.767, gallery=.447)
    paper = pd.read_csv(FACTS/'table3.csv', index_col='subset')['Market-1501']
    assert all(abs(paper[o]-got[o]) < .0015 for o in got)


def test_curve_and_table_are_made_of_scores():
    named = dict(a=random_counts(1), b=random_counts(2))
    curve = long_tail_curve(named['a'])
    assert curve.index.tolist() == [i/100 for i in range(1, 101)] and curve.iloc[-1] == 1
    assert all(v == long_tail_score(named['a'], k) for k, v in curve.items())
    table = compare_tails(named, ks=(.2, Fraction(1, 2)))
    scores = [long_tail_score(named['b'], o) for o in (.2, .5)]
    assert table.loc['b', ['LTS 0.2', 'LTS 0.5']].tolist() == scores
    assert table.loc['b', 'samples'] == sum(named['b']) and table.loc['a', 'Gini'] == gini(named['a'])


# -- from a table -----------------------------------------------------------------------------------------------------

MOOD = Task('mood', 'emotion', ['happy', 'sad', 'calm'], multilabel=True)


@pytest.fixture
def album():
    return pd.DataFrame(dict(split=['train']*5+['query', 'gallery', 'gallery', 'gallery'],
                             source=['b', 'b', 'a', 'a', '', 'c', 'c', 'c', 'a'],
                             identity=['y', 'y', 'x', 'x', 'x', 'z', 'z', '-1', ''],
                             mood=['happy', 'happy|sad', 'sad', '', '', 'calm|happy', 'calm', '', 'sad']))


def test_identity_counts(album):
    counts = identity_counts(album, 'train')
    assert counts.to_dict() == dict(x=3, y=2) and counts.index[0] == 'x'
    assert identity_counts(album).sum() == 7 and identity_counts(album[album.split == 'gallery'], 'query').empty
    assert identity_counts(album.rename(columns=dict(identity='who')), 'query', identity='who').to_dict() == dict(z=1)
    assert identity_counts(album.assign(identity=[None]*8+['x'])).to_dict() == dict(x=1)
    with pytest.raises(ValueError, match="split must be one of train, query, gallery, None, got 'val'"):
        identity_counts(album, 'val')
    with pytest.raises(ValueError, match="no column 'identity'"): identity_counts(album.drop(columns='identity'))


def test_identities_by_source(album):
    rows = identities_by_source(album).to_numpy().tolist()
    assert rows == [['a', 'x', 2], ['b', 'y', 2], ['c', 'z', 2], ['', 'x', 1]] # equal sources by name
    with pytest.raises(ValueError, match="no column 'source'"): identities_by_source(album.drop(columns='source'))


@pytest.mark.parametrize('seed', range(5))
def test_label_counts_by_loop(seed):
    rng = np.random.default_rng(seed)
    n, labels = 200, PORTRAIT['expression'].labels
    cells = ['|'.join(rng.choice(labels[:5], rng.integers(0, 3), replace=False)) for _ in range(n)]
    df = pd.DataFrame(dict(split=rng.choice(['train', 'gallery'], n), expression=cells))
    counts = label_counts(df, PORTRAIT['expression'])
    assert counts.index.tolist() == [*labels, ''] and list(counts) == ['train', 'query', 'gallery']
    for split in counts:
        for label in counts.index:
            n = sum(s == split and label in c.split('|') for s, c in zip(df.split, cells))
            assert counts.loc[label, split] == n


def test_label_counts_refuses(album):
    with pytest.raises(ValueError, match="did you mean 'calm'"): label_counts(album.replace('calm', 'clam'), MOOD)
    with pytest.raises(ValueError, match="no column 'age'"): label_counts(album, PORTRAIT['age'])


# -- figures ----------------------------------------------------------------------------------------------------------

@pytest.fixture
def drawn(monkeypatch):
    "The figures that a call shows"
    figures = []
    monkeypatch.setattr(plt, 'show', lambda: figures.append(plt.gcf()))
    yield figures
    plt.close('all')


@pytest.mark.filterwarnings('error')
def test_figures(album, drawn):
    plot_tails({f'set {i}': random_counts(i) for i in range(7)}, caption='seven')
    plot_identities(album, k=.5)
    plot_label_counts(album, Tasks([Task('identity', 'appearance', None), MOOD]))
    tails, films, labels = drawn
    assert len(tails.axes[1].lines) == 8
    assert [o.get_text() for o in films.axes[0].get_xticklabels()] == ['a', 'b', 'c', 'no source']
    assert sum(len(o.get_segments()) for o in films.axes[0].collections) == 4
    bars = labels.axes[0].patches
    widths = [sum(b.get_width() for b in bars if round(b.get_y()+b.get_height()/2) == i) for i in range(4)]
    assert widths == label_counts(album, MOOD).sum(axis=1).tolist() == [3, 3, 2, 3]


@pytest.mark.filterwarnings('error')
def test_figures_of_odd_tables(album, drawn):
    plot_label_counts(album.assign(mood=''), Tasks([MOOD]))
    plot_label_counts(album.iloc[:0], Tasks([MOOD]))
    assert 'never used' in drawn[0].axes[0].get_title(loc='left')
    plot_identities(album.assign(identity=''))
    plot_label_counts(album, Tasks([Task('identity', 'appearance', None)]))
    assert [o.axes[0].texts[0].get_text()[:30] for o in drawn[2:]] == ['Nobody is identified: the colu',
                                                                       'The identity is the only sub-t']


def test_none_of_these_is_a_row_of_its_own(album, drawn):
    counts = label_counts(album.assign(mood=['-', *['']*(len(album)-1)]), MOOD)
    assert counts.index.tolist() == [*MOOD.labels, '-', '']
    assert counts.loc['-'].sum() == 1 and counts.loc[''].sum() == len(album)-1
    plot_label_counts(album.assign(mood='-'), Tasks([MOOD]))
    assert [o.get_text() for o in drawn[0].axes[0].get_yticklabels()][-2:] == ['none of these', 'no label']

"Macro F1, accuracy and PIQ against plain loops and scikit-learn (the search: test_search.py)"
import csv, math, pytest, torch
import numpy as np
from pathlib import Path
from sklearn.metrics import f1_score
from portrait_nb import metrics
from portrait_nb.metrics import absent_labels, label_f1, macro_f1, piq
from portrait_nb.tasks import PORTRAIT, Task, Tasks


# -- F1

def loop_f1(predicted, actual, n_labels):
    out = []
    for c in range(n_labels):
        tp = fp = fn = 0
        for p, a in zip(predicted, actual):
            if a == -1 or (isinstance(a, list) and -1 in a): continue
            p_has, a_has = (p[c] == 1, a[c] == 1) if isinstance(a, list) else (p == c, a == c)
            tp, fp, fn = tp+(p_has and a_has), fp+(p_has and not a_has), fn+(a_has and not p_has)
        out.append(2*tp/(2*tp+fp+fn) if tp+fn else None)
    return out


@pytest.mark.parametrize('seed', range(20))
@pytest.mark.parametrize('multilabel', [False, True])
def test_f1_against_loop(seed, multilabel):
    rng = np.random.default_rng(seed)
    n, c = rng.integers(1, 30), rng.integers(2, 8)
    predicted, actual = ((rng.random((n, c))<.3).astype(int) if multilabel else rng.integers(0, c, n) for _ in range(2))
    actual[rng.random(n)<.3] = -1
    want = loop_f1(predicted.tolist(), actual.tolist(), c)
    borne = [o for o in want if o is not None]
    for kind in (np.asarray, torch.tensor, lambda o: o.tolist(), lambda o: torch.tensor(o).float()):
        f1, mean = label_f1(kind(predicted), kind(actual), c), macro_f1(kind(predicted), kind(actual), c)
        assert [None if np.isnan(o) else o for o in f1] == pytest.approx(want)
        assert absent_labels(kind(actual), c) == [i for i, o in enumerate(want) if o is None]
        assert mean == pytest.approx(sum(borne)/len(borne)) if borne else math.isnan(mean)


def test_f1_against_scikit_learn():
    rng = np.random.default_rng(2)
    p, a = rng.integers(0, 6, 301), rng.integers(0, 6, 301)
    assert macro_f1(p, a, 6) == pytest.approx(f1_score(a, p, average='macro'))
    assert macro_f1(p, a, 9) == pytest.approx(f1_score(a, p, average='macro'))
    p, a = rng.random((301, 6))<.4, rng.random((301, 6))<.4
    assert macro_f1(p, a, 6) == pytest.approx(f1_score(a, p, average='macro'))


@pytest.mark.parametrize('predicted,actual,n,words', [
    ([0, 1], [0], 2, 'must both be'), ([[.2, .8]], [1], 2, 'must both be'),
    (np.ones((2, 3)), np.ones((2, 3)), 4, 'must both be'),
    ([0, 5], [0, 1], 2, 'predicted must hold.*found 5'), ([0, -1], [0, 1], 2, 'predicted must hold.*found -1'),
    ([0, 1], [0, 7], 2, 'actual must hold.*found 7'),
    ([.5, 1], [0, 1], 2, 'found 0.5'), ([math.nan, 1], [0, 1], 2, 'found nan'),
    ([[.2, .8]], [[0, 1]], 2, '0 or 1 for each label'), (['a', 'b'], ['a', 'b'], 2, 'found a'),
    (0, 0, 2, 'must both be')])
def test_wrong_labels_are_refused(predicted, actual, n, words):
    with pytest.raises(ValueError, match=words): macro_f1(predicted, actual, n)


def test_nothing_labelled():
    assert math.isnan(macro_f1([], [], 3)) and math.isnan(macro_f1([1, 2], [-1, -1], 3))
    assert math.isnan(macro_f1([[1, 0]], [[-1, -1]], 2)) and math.isnan(macro_f1([[1, 0]], [[0, 0]], 2))
    assert absent_labels([-1], 3) == [0, 1, 2]


# -- PIQ

def test_table4():
    rows = list(csv.DictReader((Path(__file__).parent.parent/'nbs'/'facts'/'table4.csv').open()))
    assert len(rows) == 9
    for row in rows:
        scores = {k: float(v) for k, v in row.items() if k in ('mAP', 'rank1', *PORTRAIT.names)}
        aspects = ('gender', 'age', 'physique', 'height'), ('body', 'arm')
        app, pos = (sum(scores[k] for k in part)/len(part) for part in aspects)
        assert piq(scores) == pytest.approx(((scores['mAP']+scores['rank1'])/2+app+pos+scores['expression'])/4)
        assert abs(piq(scores)-float(row['PIQ'])) <= .001


def test_piq_for_any_tasks():
    yes_no = ['no', 'yes']
    three = Tasks([Task('a', 'x', yes_no), Task('b', 'x', yes_no), Task('c', 'y', yes_no)])
    assert piq(dict(a=.2, b=.4, c=.9), three) == pytest.approx(.6)
    assert piq(dict(mAP=.2, rank1=.4), Tasks([Task('who', 'appearance', None)])) == pytest.approx(.3)
    for who in (Task('who', 'appearance', None), Task('who', 'appearance', yes_no, is_identity=True)):
        tasks = Tasks([who, Task('mood', 'emotion', yes_no)])
        assert piq(dict(mAP=.2, rank1=.4, mood=.9), tasks) == pytest.approx(.6)


@pytest.mark.parametrize('name', ['mAP', 'rank1', 'gender', 'arm', 'expression'])
def test_piq_names_what_is_missing(name):
    scores = dict.fromkeys(['mAP', 'rank1', *PORTRAIT.names], .5)
    assert piq(scores) == .5
    with pytest.raises(ValueError, match=f"needs the score '{name}'"):
        piq({k: v for k, v in scores.items() if k != name})
    for bad in (math.nan, math.inf, None):
        with pytest.raises(ValueError, match=f"score '{name}' is {bad}"): piq({**scores, name: bad})


@pytest.mark.parametrize('multilabel', [False, True])
def test_accuracy_and_the_majority_guess(multilabel):
    from sklearn.dummy import DummyClassifier
    from sklearn.metrics import accuracy_score
    rng = np.random.default_rng(0)
    def some_labels(n):
        if multilabel: return (rng.random((n, 4)) < [.1, .4, .6, .9]).astype(int)
        return rng.choice(4, n, p=[.1, .2, .6, .1])
    train, actual, predicted = map(some_labels, (300, 80, 80))
    columns = lambda a: a.T if multilabel else [a]
    theirs = np.mean([accuracy_score(a, s) for a, s in zip(columns(actual), columns(predicted))])
    assert metrics.accuracy(torch.tensor(predicted), actual, 4) == pytest.approx(theirs)
    def commonest(labels):
        fitted = DummyClassifier(strategy='most_frequent').fit(np.zeros((300, 1)), labels)
        return fitted.predict(np.zeros((80, 1)))
    dummies = [commonest(o) for o in columns(train)]
    dummy = np.stack(dummies, 1) if multilabel else dummies[0]
    got = metrics.majority_scores(torch.tensor(train), actual, 4)
    theirs = np.mean([accuracy_score(a, d) for a, d in zip(columns(actual), columns(dummy))])
    assert got['accuracy'] == pytest.approx(theirs)
    assert got['macro_f1'] == pytest.approx(f1_score(actual, dummy, average='macro', zero_division=0))
    unlabelled = actual.copy()
    unlabelled[:10] = -1
    assert metrics.accuracy(predicted, unlabelled, 4) == pytest.approx(metrics.accuracy(predicted[10:], actual[10:], 4))

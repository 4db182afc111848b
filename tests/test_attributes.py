"Scores of attributes, masks and points against scikit-learn, plain loops and repeated rows"
import warnings
import numpy as np, pandas as pd, pytest, torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score, jaccard_score
from portrait_nb.attributes import (MeanIoU, best_epoch, binary_draws, binary_rates, binary_scores, choose_epoch,
                                    face_sizes, mask_scores, mean_iou, nme, nme_by_yaw, plot_binary_scores, thresholds)
from portrait_nb.report import FEW, resampled_sums, score_differences
from portrait_nb.tasks import Task, Tasks

pytestmark = pytest.mark.usefixtures('one_thread')
SCORES = ['accuracy', 'majority', 'gain', 'balanced_accuracy', 'f1']
NAMES = ['hat', 'smile', 'bald']


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


def example(seed=0, n=240, people=30):
    "Three attributes of a few people; one in six answers is unknown"
    rng = np.random.default_rng(seed)
    who = rng.integers(0, people, n)
    actual = (rng.random((n, 3)) < [.5, .7, .25]).astype(int)
    predicted = np.where(rng.random((n, 3)) < .75, actual, 1-actual)
    actual[rng.random((n, 3)) < 1/6] = -1
    return predicted, actual, who


def by_sklearn(p, y, guess):
    p, y = p[y != -1], y[y != -1]
    accuracy, majority = accuracy_score(y, p), float(np.mean(y == guess))
    if len(set(y)) < 2: return [accuracy, majority, accuracy-majority, np.nan, np.nan]
    return [accuracy, majority, accuracy-majority, balanced_accuracy_score(y, p), f1_score(y, p)]


# attributes

@pytest.mark.parametrize('seed', range(4))
def test_values_are_those_of_scikit_learn(seed):
    predicted, actual, who = example(seed)
    got = binary_scores(predicted, actual, NAMES, who, train=[.2, .9, .5], n_boot=2)
    for j, name in enumerate(NAMES):
        assert got.loc[name, SCORES].tolist() == pytest.approx(by_sklearn(predicted[:, j], actual[:, j], [0, 1, 0][j]))
        known = actual[:, j] != -1
        assert got.n[name] == known.sum() and got.yes[name] == pytest.approx((actual[known, j] == 1).mean())
    for k in SCORES: assert got.loc['mean', k] == pytest.approx(np.mean([got.loc[o, k] for o in NAMES]))
    assert got.n['mean'] == (actual != -1).sum() and list(got.index) == [*NAMES, 'mean']
    assert got.guess.tolist() == ['no', 'yes', 'no', ''] and got.guess_from.tolist() == ['train']*3+['']


@pytest.mark.parametrize('seed', range(3))
def test_intervals_are_quantiles_of_repeated_rows(seed):
    predicted, actual, who = example(seed)
    got = binary_scores(predicted, actual, NAMES, who, n_boot=40, seed=seed, level=.8)
    codes, names = pd.factorize(who)
    weights = resampled_sums(np.eye(len(names))[codes], who, n=40, seed=seed)[1][1:]
    times = (weights/np.bincount(codes)).round().astype(int) # how often each person was drawn
    assert (times.sum(1) == len(names)).all()
    guess = [int((actual[:, j] == 1).sum()*2 > (actual[:, j] != -1).sum()) for j in range(3)]
    drawn = []
    for o in times:
        rows = np.repeat(np.arange(len(who)), o[codes])
        drawn.append([by_sklearn(predicted[rows, j], actual[rows, j], guess[j]) for j in range(3)])
    drawn = np.array(drawn) # (sets, attributes, scores)
    drawn = np.concatenate([drawn, drawn.mean(1, keepdims=True)], 1)
    for i, k in enumerate(SCORES):
        low, high = np.quantile(drawn[..., i], [.1, .9], axis=0)
        assert got[f'{k}_low'].tolist() == pytest.approx(low) and got[f'{k}_high'].tolist() == pytest.approx(high)


def test_unknown_rows_change_nothing():
    predicted, actual, who = example()
    want = binary_scores(predicted, actual, NAMES, who, n_boot=30)
    rng = np.random.default_rng(1)
    at = np.sort(rng.integers(0, len(who), 25))
    more = [np.insert(o, at, fill, axis=0) for o, fill in ((predicted, 1), (actual, -1))]
    pd.testing.assert_frame_equal(binary_scores(*more, NAMES, np.insert(who, at, 77), n_boot=30), want)
    hidden = predicted.astype(float)
    hidden[actual == -1] = np.nan # a prediction nobody can check may be anything
    pd.testing.assert_frame_equal(binary_scores(hidden, actual, NAMES, who, n_boot=30), want)


def test_order_and_names_do_not_matter():
    predicted, actual, who = example()
    want = binary_scores(predicted, actual, NAMES, who, n_boot=30)
    o = np.random.default_rng(2).permutation(len(who))
    got = binary_scores(predicted[o], actual[o], NAMES, who[o], n_boot=30)
    pd.testing.assert_frame_equal(got[['n', *SCORES]], want[['n', *SCORES]])
    swapped = binary_scores(predicted[:, ::-1], actual[:, ::-1], NAMES[::-1], who, n_boot=30)
    pd.testing.assert_frame_equal(swapped.loc[want.index[:3]], want.iloc[:3])
    renamed = binary_scores(predicted, actual, NAMES, [f'person {k}' for k in who], n_boot=30)
    pd.testing.assert_frame_equal(renamed, want)


def test_flipping_yes_and_no_keeps_all_but_f1():
    predicted, actual, who = example()
    flipped = np.where(actual == -1, -1, 1-actual)
    a = binary_scores(predicted, actual, NAMES, who, n_boot=30)
    b = binary_scores(1-predicted, flipped, NAMES, who, n_boot=30)
    same = [o+end for o in SCORES[:4] for end in ('', '_low', '_high')]
    pd.testing.assert_frame_equal(a[same], b[same])
    assert not np.allclose(a.f1, b.f1)


def test_every_kind_of_input_gives_one_table():
    predicted, actual, who = example()
    want = binary_scores(predicted, actual, NAMES, who, n_boot=20)
    tasks = Tasks([Task('who', 'x', None), *(Task(o, 'x', ['no', 'yes']) for o in NAMES)])
    by_name = [{k: torch.tensor(o[:, j]) for j, k in enumerate(NAMES)} for o in (predicted, actual)]
    for got in (binary_scores(torch.tensor(predicted), torch.tensor(actual), NAMES, torch.tensor(who), n_boot=20),
                binary_scores(predicted == 1, pd.DataFrame(actual, columns=NAMES), NAMES, who.tolist(), n_boot=20),
                binary_scores(*by_name, tasks, who, n_boot=20)):
        pd.testing.assert_frame_equal(got, want)
    train = np.array([[1, 0, 0], [1, 0, 0], [-1, 1, 0]])
    pd.testing.assert_frame_equal(binary_scores(predicted, actual, NAMES, who, train=train, n_boot=20),
                                  binary_scores(predicted, actual, NAMES, who, train=[1, 1/3, 0], n_boot=20))


def test_what_cannot_be_scored_says_why():
    n = 40
    rng = np.random.default_rng(3)
    actual = np.c_[np.zeros(n), np.full(n, -1), np.arange(n) < FEW-1, np.r_[np.ones(3), np.full(n-3, -1)]].astype(int)
    predicted = rng.integers(0, 2, actual.shape)
    got = binary_scores(predicted, actual, list('abcd'), n_boot=60)
    assert got.why.tolist() == ['all have the label no: balanced accuracy and F1 need both', 'nobody has a label',
                                f'{FEW-1} people have the label yes: too few for an interval of balanced accuracy and F1',
                                'all have the label yes: balanced accuracy and F1 need both',
                                'balanced accuracy and F1 over 1 of 4 attributes']
    assert got.accuracy['a'] == (predicted[:, 0] == 0).mean() and got.majority['a'] == 1
    assert got.loc['a', ['balanced_accuracy', 'f1', 'f1_low']].isna().all() and got.loc['b', SCORES].isna().all()
    assert got.balanced_accuracy['c'] > 0 and np.isnan(got.balanced_accuracy_low['c']) and got.accuracy_low['c'] > 0
    assert np.isnan(got.accuracy_low['d']) # three people
    assert got.balanced_accuracy['mean'] == got.balanced_accuracy['c']


def test_all_right_is_not_sure():
    actual = np.arange(40)[:, None] % 2
    got = binary_scores(actual, actual, ['a'], n_boot=50).loc['a']
    assert got.accuracy == got.balanced_accuracy == got.f1 == 1
    assert got.accuracy_low == pytest.approx(.025**(1/40)) and got.f1_low == pytest.approx(.025**(1/20))
    guess = binary_scores(actual*0, actual, ['a'], n_boot=50).loc['a']
    assert guess.gain == guess.gain_low == guess.gain_high == 0 and guess.f1 == 0 and 0 < guess.f1_high < .2


def test_an_accuracy_has_its_guess_beside_it():
    predicted, actual, _ = example()
    got = binary_scores(predicted, actual, NAMES, n_boot=5)
    assert {'accuracy', 'majority', 'guess', 'guess_from'} <= set(got) and not got.majority.isna().any()
    assert set(got.guess_from[:3]) == {'test'}


@pytest.mark.parametrize('kwargs,words', [
    (dict(predicted=np.ones((4, 2))), r'predicted must be \(N, 3\), a column per attribute, got \(4, 2\)'),
    (dict(actual=np.ones(4)), r'actual must be \(N, 3\)'),
    (dict(actual=np.ones((5, 3))), 'predicted has 4 rows and actual 5'),
    (dict(actual=np.full((4, 3), 2)), "actual of 'hat' is 2 in row 0, and must be 0"),
    (dict(actual=np.full((4, 3), '1')), 'actual must hold numbers, got <U1'),
    (dict(actual=np.full((4, 3), None)), "actual of 'hat' is None in row 0"),
    (dict(actual=np.full((4, 3), np.nan)), "actual of 'hat' is nan in row 0"),
    (dict(predicted=np.full((4, 3), np.nan)), "predicted of 'hat' is nan in row 0, and must be 0 or 1"),
    (dict(predicted=np.full((4, 3), .3)), 'for probabilities, see `thresholds`'),
    (dict(predicted=np.full((4, 3), -1)), "predicted of 'hat' is -1 in row 0"),
    (dict(actual=np.full((4, 3), -1)), 'no face has a label'),
    (dict(predicted=np.ones((0, 3)), actual=np.ones((0, 3))), 'no face has a label'),
    (dict(names=['a', 'b', 'a']), "rename 'a'"), (dict(names=['a', 'b', 'mean']), "rename 'mean'"),
    (dict(names='hat'), "'hat' is one word"), (dict(names=[]), 'names is empty'),
    (dict(identities=[1, 2]), 'identities must name the 4 faces, got 2'),
    (dict(groups=[1, 2]), 'groups must name the 4 faces, got 2'),
    (dict(train=[.5, .5]), '3 shares of yes between 0 and 1'), (dict(train=[1, 2, 90]), '3 shares of yes'),
    (dict(train=np.full((2, 3), 7)), "train of 'hat' is 7 in row 0"),
    (dict(n_boot=1), 'n must be 2 or more'), (dict(level=95), 'level must lie between 0 and 1'),
    (dict(names=Tasks([Task('mood', 'x', ['a', 'b', 'c'])])), 'leave out mood'),
    (dict(predicted={'hat': [1]*4}), 'predicted has no attribute smile, bald'),
    (dict(predicted={'hat': [1]*4, 'smile': [1]*3, 'bald': [1]*4}), 'equally many faces')])
def test_wrong_attributes_are_refused(kwargs, words):
    args = dict(predicted=np.ones((4, 3)), actual=np.ones((4, 3)), names=NAMES)
    with pytest.raises(ValueError, match=words): binary_scores(**args | kwargs)


def test_two_models_are_compared_on_the_same_sets():
    predicted, actual, who = example(n=600)
    better = np.where(actual == -1, predicted, actual)
    a, b = (binary_draws(o, actual, NAMES, who, n=60) for o in (better, predicted))
    got = score_differences(a, b)
    assert list(got.index) == [*NAMES, 'mean']
    values = [binary_scores(o, actual, NAMES, who, n_boot=60) for o in (better, predicted)]
    assert got.difference.tolist() == pytest.approx((values[0]-values[1][SCORES]).balanced_accuracy.tolist())
    assert (got.low > 0).all()
    other = binary_draws(predicted, actual, NAMES, who, n=60, seed=1)
    with pytest.raises(ValueError, match='same resampled test sets'): score_differences(a, other)
    with pytest.raises(ValueError, match='score must be one of'): binary_draws(predicted, actual, NAMES, score='mAP')
    one_sided = binary_draws([[0, 1]]*9, [[0, k % 2] for k in range(9)], ['bald', 'hat'], n=60)
    assert list(one_sided) == ['hat', 'mean'] and list(binary_draws([[0]]*9, [[0]]*9, ['bald'], n=5)) == []


def test_rates_of_any_shape():
    rng = np.random.default_rng(4)
    counts = rng.integers(0, 4, (4, 3, 2, 5))
    got = binary_rates(*counts, guess=True)
    for i in np.ndindex(3, 2, 5):
        y = np.repeat([1, 0, 1, 0], counts[(slice(None), *i)])
        p = np.repeat([1, 1, 0, 0], counts[(slice(None), *i)])
        if not len(y): assert all(np.isnan(o[i]) for o in got.values())
        else: assert [got[k][i] for k in SCORES] == pytest.approx(by_sklearn(p, y, 1), nan_ok=True)


def test_plots_draw():
    predicted, actual, _ = example()
    table = binary_scores(predicted, actual, NAMES, n_boot=5)
    for score in ('accuracy', 'balanced_accuracy'):
        ax = plot_binary_scores(table, score)
        assert [o.get_text() for o in ax.get_yticklabels()] == NAMES[::-1]
        assert ax.collections[-1].get_offsets()[:, 0].tolist() == pytest.approx(table[score][:3][::-1].tolist())
    with pytest.raises(ValueError, match='score must be one of'): plot_binary_scores(table, 'mAP')


# thresholds and epochs

@pytest.mark.parametrize('by', ['balanced_accuracy', 'f1', 'accuracy'])
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_no_threshold_is_better(by, dtype):
    rng = np.random.default_rng(5)
    theirs = dict(balanced_accuracy=balanced_accuracy_score, f1=f1_score, accuracy=accuracy_score)[by]
    for _ in range(20):
        p = rng.choice(rng.random(rng.integers(2, 9)), (30, 1)).astype(dtype) # many are equal
        if rng.random() < .3: p[rng.random(30) < .3] = rng.integers(0, 2)
        y = np.r_[0, 1, rng.integers(-1, 2, 28)][:, None]
        got = thresholds(p, y, ['a'], by).loc['a']
        known = y != -1
        def score(t): return theirs(y[known], (p[known].astype(float) >= t).astype(int))
        every = [score(t) for t in [0, 2, .5, *np.unique(p).astype(float)]]
        assert got[by] == pytest.approx(max(every)) == score(got.threshold)
        assert got[f'{by}_at_half'] == pytest.approx(score(.5)) and got.n == known.sum()
        if score(.5) == pytest.approx(max(every)): assert got.threshold == .5


def test_a_probability_of_one_half_says_yes():
    got = thresholds([[.5], [.5], [.2]], [[1], [1], [0]])
    assert got.loc['0', ['threshold', 'balanced_accuracy', 'balanced_accuracy_at_half']].tolist() == [.5, 1, 1]


def test_thresholds_say_what_they_cannot_choose():
    got = thresholds({'a': [.2, .9], 'b': [.2, .9]}, {'a': [1, 1], 'b': [-1, -1]})
    assert got.threshold.tolist() == [.5, .5] and set(got.why) == {'without both answers we keep .5'}
    assert got.balanced_accuracy.isna().all() and list(thresholds([[.3, .4]], [[1, 0]]).index) == ['0', '1']


@pytest.mark.parametrize('p,y,words', [
    ([[1.2]], [[1]], "the probability of '0' is 1.2 in row 0"), ([[np.nan]], [[1]], "'0' is nan in row 0"),
    ([[.2]], [[3]], "actual of '0' is 3"), ([[.2]], [[1], [0]], 'probabilities has 1 rows and actual 2'),
    ([.2, .3], [1, 0], r'must be \(N, 2\)')])
def test_wrong_probabilities_are_refused(p, y, words):
    with pytest.raises(ValueError, match=words): thresholds(p, y)
    with pytest.raises(ValueError, match='by must be one of'): thresholds([[.2]], [[1]], by='mAP')


def test_epochs():
    history = pd.DataFrame(dict(valid=[.5, .8, .8, .7], test=[.6, .7, .9, .95]), index=[10, 20, 30, 40])
    assert best_epoch(history) == 20 and best_epoch(history, 'test') == 40 and best_epoch([3, 1, 1], best='min') == 1
    got = choose_epoch(history)
    assert got.tolist() == pytest.approx([20, .7, .95, .25]) and list(got.index) == ['epoch', 'test', 'best test', 'luck']
    assert choose_epoch(history, on='test').luck == 0
    assert choose_epoch(dict(valid=[1, 2], test=[5, 4])).test == 4
    for scores, words in (([], 'no epoch'), ([.1, np.nan], 'epoch 1 is NaN')):
        with pytest.raises(ValueError, match=words): best_epoch(scores)
    with pytest.raises(ValueError, match="by must be one of valid, test"): best_epoch(history, 'train')
    with pytest.raises(ValueError, match="test must be one of"): choose_epoch(history, test='exam')


# masks

def masks(seed, n=7, n_classes=5):
    rng = np.random.default_rng(seed)
    actual = rng.integers(0, n_classes-1, (n, 9, 11)) # the last class is only ever predicted
    predicted = np.where(rng.random(actual.shape) < .7, actual, rng.integers(0, n_classes, actual.shape))
    actual[rng.random(actual.shape) < .15] = 255
    return predicted, actual


@pytest.mark.parametrize('seed', range(3))
def test_iou_by_a_loop_over_pixels(seed):
    predicted, actual = masks(seed)
    got = mean_iou(predicted, actual, 7)
    for k in range(7):
        both = either = 0
        for p, a in zip(predicted.ravel().tolist(), actual.ravel().tolist()):
            if a == 255: continue
            both += p == k and a == k
            either += p == k or a == k
        assert got.iou[k] == (pytest.approx(both/either) if either else pytest.approx(np.nan, nan_ok=True))
    known = actual != 255
    assert (got.confusion[:5, :5] == confusion_matrix(actual[known], predicted[known], labels=range(5))).all()
    each = jaccard_score(actual[known], predicted[known], average=None, labels=range(5))
    assert got.counted == [0, 1, 2, 3, 4] and got.iou[4] == 0 and got.mean == pytest.approx(each.mean())
    assert mean_iou(predicted, actual, 7, background=False).mean == pytest.approx(each[1:].mean())
    table = got.table()
    assert table.in_mean.tolist() == ['yes']*5+['no']*2 and table.truth.sum() == table.predicted.sum() == known.sum()


def test_masks_in_any_batches_and_order(monkeypatch):
    predicted, actual = masks(1)
    want = mean_iou(predicted, actual, 5).confusion
    monkeypatch.setattr('portrait_nb.attributes._BLOCK', 10)
    assert (mean_iou(predicted, actual, 5).confusion == want).all()
    assert (mean_iou(iter(predicted[::-1]), iter(actual[::-1]), 5).confusion == want).all()
    assert (mean_iou(torch.tensor(predicted), actual.astype(np.uint8), 5).confusion == want).all()
    assert (mean_iou(predicted.astype(float), actual, 5).confusion == want).all()
    o = np.random.default_rng(0).permutation(actual.size)
    assert (mean_iou(predicted.ravel()[o], actual.ravel()[o], 5).confusion == want).all()
    unknown = np.concatenate([actual, np.full_like(actual, 255)])
    assert (mean_iou(np.concatenate([predicted, predicted*0+99]), unknown, 5).confusion == want).all()
    named = np.array([3, 0, 4, 1, 2]) # another order of classes
    moved = mean_iou(named[predicted], np.where(actual == 255, 255, named[np.minimum(actual, 4)]), 5)
    assert moved.iou[named].tolist() == mask_scores(want).iou.tolist()


def test_perfect_masks_and_ignore_as_a_class():
    actual = np.arange(9).reshape(3, 3) % 3
    assert mean_iou(actual, actual, 4).mean == 1 and mean_iou(actual, actual, 4).counted == [0, 1, 2]
    assert mean_iou(actual, actual, 4, ignore=0).counted == [1, 2]
    assert mean_iou(actual*0, actual*0, 4, background=False).counted == []
    assert np.isnan(mean_iou(actual*0, actual*0, 4, background=False).mean)
    assert repr(mean_iou(actual, actual, 4)) == 'mean IoU 1.0000 over 3 of 4 classes'


@pytest.mark.parametrize('p,a,words', [
    ([[0, 1]], [[0], [1]], r'same shape, got \(1, 2\) and \(2, 1\)'), ([[0, 9]], [[0, 1]], 'predicted holds the class'),
    ([[0, -1]], [[0, 1]], 'predicted holds the class -1'), ([[0, 1]], [[0, 5]], 'actual holds the class 5'),
    ([[0, 255]], [[0, 1]], 'predicted holds the class 255'), ([[.5, 1]], [[0, 1]], 'take the argmax over classes'),
    ([[np.nan, 1]], [[0, 1]], 'predicted must hold whole'), ([['a']], [[1]], 'predicted must hold whole'),
    ([[1]], [[255]], 'no pixel of a known class'), (np.zeros((0, 4), int), np.zeros((0, 4), int), 'no pixel of')])
def test_wrong_masks_are_refused(p, a, words):
    count = MeanIoU(3).add([[1]], [[1]])
    with pytest.raises(ValueError, match=words): mean_iou(np.array(p), np.array(a), 3)
    if 'no pixel' in words: return
    with pytest.raises(ValueError, match=words): count.add(np.array(p), np.array(a))
    assert count.confusion.sum() == 1 # nothing of a faulty batch was counted


def test_wrong_sets_of_masks_are_refused():
    one = np.zeros((2, 2), int)
    for p, a in (([one], [one, one]), ([one, one], [one])):
        with pytest.raises(ValueError, match='different numbers of masks'): mean_iou(p, a, 3)
    for n in (0, -2):
        with pytest.raises(ValueError, match='n_classes must be 1 or more'): MeanIoU(n)
    with pytest.raises(ValueError, match='no pixel of a known class'): mean_iou([], [], 3)
    with pytest.raises(ValueError, match='name the 3 classes, got 2'): mean_iou(one, one, 3).table(['a', 'b'])


# points

def points(n_points, seed=0, n=12):
    rng = np.random.default_rng(seed)
    actual = rng.uniform(0, 100, (n, n_points, 2))
    predicted = actual+rng.normal(0, 3, actual.shape)
    hidden = rng.random((n, n_points)) < .2
    hidden[:, [36, 45]+([60, 72] if n_points == 98 else [])] = False
    actual[hidden] = np.nan
    predicted[rng.random((n, n_points)) < .1] += 20
    return predicted, actual


def by_loop(predicted, actual, size):
    errors = []
    for p, a, s in zip(predicted, actual, size):
        each = [np.sqrt((x-u)**2+(y-v)**2) for (x, y), (u, v) in zip(p, a) if u == u and v == v]
        errors.append(sum(each)/len(each)/s)
    return errors


@pytest.mark.parametrize('n_points,left,right', [(98, 60, 72), (68, 36, 45)])
def test_points_by_a_loop(n_points, left, right):
    predicted, actual = points(n_points)
    eyes = [np.hypot(a[left][0]-a[right][0], a[left][1]-a[right][1]) for a in actual]
    box = [np.sqrt((np.nanmax(a[:, 0])-np.nanmin(a[:, 0]))*(np.nanmax(a[:, 1])-np.nanmin(a[:, 1]))) for a in actual]
    for by, size in (('eyes', eyes), ('box', box), (np.full(12, 7.), [7]*12)):
        got, want = nme(predicted, actual, by), np.array(by_loop(predicted, actual, size))
        assert got.per_face == pytest.approx(want) and got.mean == pytest.approx(want.mean()) and got.n == 12
        assert got.failure == np.mean(want > .1)
        grid = np.linspace(0, .1, 100_001)
        assert got.auc == pytest.approx((want[:, None] <= grid).mean(), abs=1e-4)
    half = nme(predicted, actual, 'box', at=.05)
    assert half.failure == np.mean(half.per_face > .05) and 0 <= half.auc <= nme(predicted, actual, 'box').auc <= 1


def test_points_move_and_grow_with_the_face():
    predicted, actual = points(68)
    want = nme(predicted, actual)
    turn = np.array([[.6, -.8], [.8, .6]])
    moved = nme(3*predicted@turn+[5, -90], 3*actual@turn+[5, -90])
    assert moved.per_face == pytest.approx(want.per_face)
    assert nme(2*predicted+1, 2*actual+1, 'box').per_face == pytest.approx(nme(predicted, actual, 'box').per_face)
    o = np.random.default_rng(0).permutation(12)
    assert nme(predicted[o], actual[o]).per_face == pytest.approx(want.per_face[o])
    assert nme(torch.tensor(predicted), torch.tensor(actual)).mean == pytest.approx(want.mean)
    unknown = np.concatenate([actual, np.full_like(actual[:3], np.nan)])
    more = nme(np.concatenate([predicted, predicted[:3]]), unknown)
    assert (more.mean, more.failure, more.auc, more.n) == (want.mean, want.failure, want.auc, 12)
    assert np.isnan(more.per_face[12:]).all()
    assert nme(np.nan_to_num(actual), actual).mean == 0 and nme(np.nan_to_num(actual), actual).auc == 1


def test_a_point_half_known_is_unknown():
    predicted, actual = points(68, n=1)
    actual[0, 5] = 1, np.nan
    without = actual.copy()
    without[0, 5] = np.nan
    for by in ('eyes', 'box'): assert nme(predicted, actual, by).mean == nme(predicted, without, by).mean


def test_wrong_points_are_refused():
    predicted, actual = points(68)
    deep = np.ones((2, 68, 3))
    for p, a in ((predicted[:3], actual), (predicted[..., 0], actual[..., 0]), (deep, deep)):
        with pytest.raises(ValueError, match=r'must both be \(N, P, 2\)'): nme(p, a)
    same = actual.copy()
    same[[2, 5], 45] = same[[2, 5], 36]
    with pytest.raises(ValueError, match='no size to divide by: rows 2, 5'): nme(predicted, same)
    hidden = actual.copy()
    hidden[[1], 36] = np.nan
    with pytest.raises(ValueError, match="eyes is unknown: pass by='box': row 1"): nme(predicted, hidden)
    line = actual.copy()
    line[4, :, 1] = 3
    with pytest.raises(ValueError, match='no size to divide by: row 4'): nme(predicted, line, 'box')
    wrong = predicted.copy()
    wrong[3, 36] = np.inf
    with pytest.raises(ValueError, match='no number for point 36 of row 3'): nme(wrong, actual)
    with pytest.raises(ValueError, match='no point is known'): nme(predicted, actual*np.nan)
    with pytest.raises(ValueError, match='no point is known'): nme(predicted[:0], actual[:0])
    with pytest.raises(ValueError, match='knows 68 or 98 points, not 21'): nme(predicted[:, :21], actual[:, :21])
    with pytest.raises(ValueError, match='by must be one of eyes, box'): nme(predicted, actual, 'pupils')
    with pytest.raises(ValueError, match=r'each of the 12 faces, got \(3,\)'): nme(predicted, actual, [1, 2, 3])
    with pytest.raises(ValueError, match='no size to divide by: row 0'): face_sizes(actual, [0.]+[1]*11)
    with pytest.raises(ValueError, match='at must be above 0'): nme(predicted, actual, at=0)


def test_yaw():
    predicted, actual = points(68, n=40)
    yaw = np.random.default_rng(1).uniform(-90, 90, 40)
    yaw[:4] = 30, -60, 90, 0
    got, each, turn = nme_by_yaw(predicted, actual, yaw), nme(predicted, actual, 'box').per_face, np.abs(yaw)
    bins = [turn <= 30, (turn > 30) & (turn <= 60), turn > 60]
    means = [each[o].mean() for o in bins]
    assert list(got.index) == ['0 to 30', '30 to 60', '60 to 90', 'mean of bins', 'all faces']
    assert got.nme.tolist() == pytest.approx([*means, np.mean(means), each.mean()])
    assert got.failure[:3].tolist() == pytest.approx([np.mean(each[o] > .1) for o in bins])
    assert got.auc['0 to 30'] == pytest.approx(nme(predicted[bins[0]], actual[bins[0]], 'box').auc)
    assert got.n.tolist() == [*(o.sum() for o in bins), 40, 40]
    pd.testing.assert_frame_equal(nme_by_yaw(predicted, actual, -yaw), got)
    actual[0] = np.nan # a face without points is in no bin
    assert nme_by_yaw(predicted, actual, yaw).n['0 to 30'] == bins[0].sum()-1
    front = nme_by_yaw(predicted, actual, yaw*0)
    assert front.nme.isna().tolist() == [False, True, True, True, False] and front.n.tolist() == [39, 0, 0, 39, 39]
    with pytest.raises(ValueError, match='between 0 and 90 degrees, left or right: row 7'):
        nme_by_yaw(predicted, actual, np.where(np.arange(40) == 7, 95, yaw))
    with pytest.raises(ValueError, match='left or right: rows 1, 2'):
        nme_by_yaw(predicted, actual, np.where(np.isin(np.arange(40), [1, 2]), np.nan, yaw))
    with pytest.raises(ValueError, match=r'each of the 40 faces, got \(2,\)'): nme_by_yaw(predicted, actual, [1, 2])

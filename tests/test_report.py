"Intervals, paired test and reports against plain computations and scikit-learn"
import base64, io
from datetime import date
from html.parser import HTMLParser
import numpy as np, pandas as pd, pytest, torch
from PIL import Image
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, f1_score, multilabel_confusion_matrix, precision_recall_fscore_support
from portrait_nb.metrics import macro_f1, piq, retrieval_scores
from portrait_nb.report import (_clusters, _draws, attribute_scores, below_majority, calibration_error, class_report,
                                confusion, paired_test, plot_confusion, portrait_report, read_features, reliability,
                                report_page, save_report, score_differences, score_draws, score_features,
                                score_intervals, subgroup_errors, subgroup_note, subgroup_scores, subgroup_search,
                                worst_mistakes)
from portrait_nb.tasks import PORTRAIT, Task, Tasks

TASKS = Tasks([Task('who', 'appearance', None), Task('age', 'appearance', ['a', 'b', 'c']),
               Task('mood', 'emotion', ['x', 'y'], multilabel=True)])


def example(seed=0, n=200, noise=1.):
    rng = np.random.default_rng(seed)
    who = rng.integers(-1, 12, n)
    x = rng.normal(size=(13, 8))[who] + noise*rng.normal(size=(n, 8))
    q = (who >= 0) & (rng.random(n) < .3)
    age, mood = rng.integers(-1, 3, n), rng.integers(0, 2, (n, 2))
    mood[rng.random(n) < .2] = -1
    of_age = np.where(rng.random(n) < .6, np.maximum(age, 0), rng.integers(0, 3, n))
    of_mood = (rng.random((n, 2)) < .5).astype(int)
    labels = dict(age=(of_age, age), mood=(of_mood, mood))
    return who, x, q, labels, retrieval_scores(x[q], x[~q], who[q], who[~q])


def by_hand(found, who, labels, counts):
    "Scores of one drawn set in which person p comes counts[p] times, by repeating rows"
    of_query, of_image, _ = _clusters(found.per_query.identity, who)
    rows = np.repeat(np.arange(len(of_query)), counts[of_query])
    draws = pd.DataFrame({c: found.per_query[c].to_numpy()[rows] for c in ('AP', 'INP', 'rank-1')})
    def mean_of(p): return found.per_query[of_query == p][['AP', 'INP', 'rank-1']].mean()
    people = [mean_of(p) for p in np.unique(of_query) for _ in range(counts[p])]
    macro, plain = pd.DataFrame(people).mean(), draws.mean()
    images = np.repeat(np.arange(len(of_image)), counts[of_image])
    out = dict(mAP=macro.AP, mINP=macro.INP, rank1=macro['rank-1'], plain_mAP=plain.AP, plain_rank1=plain['rank-1'])
    for t in TASKS.attributes: out[t.name] = macro_f1(labels[t.name][0][images], labels[t.name][1][images], t.n_labels)
    return {**out, 'PIQ': piq(out, TASKS)}


@pytest.mark.parametrize('seed', range(4))
def test_intervals_are_quantiles_of_repeated_rows(seed):
    who, x, q, labels, found = example(seed)
    _, _, people = _clusters(found.per_query.identity, who)
    counts = _draws(np.eye(people), 40, seed)
    drawn = pd.DataFrame([by_hand(found, who, labels, c.astype(int)) for c in counts])
    got = score_intervals(found, labels, who, TASKS, n=40, level=.8, seed=seed)
    for k in drawn: assert got.loc[k, ['low', 'high']].tolist() == pytest.approx(np.quantile(drawn[k], [.1, .9]))
    assert got.value['mAP'] == pytest.approx(found.macro_mAP)
    assert got.value['plain_mAP'] == pytest.approx(found.mAP)
    assert got.value['plain_mINP'] == pytest.approx(found.mINP)
    assert got.value['PIQ'] == pytest.approx(piq(dict(got.value), TASKS))


def test_draws_are_multinomial_and_seeded():
    d = _draws(np.eye(50), 2000, 0)
    assert (d.sum(1) == 50).all() and d.mean(0) == pytest.approx(1, abs=.12)
    assert d.var(0).mean() == pytest.approx(.98, abs=.05)
    assert (d == _draws(np.eye(50), 2000, 0)).all() and not (d == _draws(np.eye(50), 2000, 1)).all()


def test_the_unidentified_are_each_alone():
    q, i, n = _clusters(['a', 'b'], ['b', '', '', None, -1, 'a', float('nan')])
    assert n == 7 and q.tolist() == [0, 1] and i[[0, 5]].tolist() == [1, 0] and len(set(i)) == 7


def test_intervals_cover():
    "In about 95 of 100 test sets the interval holds the true mean"
    hits, rng = 0, np.random.default_rng(0)
    for _ in range(150):
        people = np.repeat(np.arange(40), 5)
        right = (rng.random(200) < rng.beta(2, 1, 40)[people]).astype(int)
        labels, tasks = dict(age=(np.where(right, 0, 1), np.zeros(200, int))), Tasks([Task('age', 'a', ['x', 'y'])])
        intervals = score_intervals(labels=labels, identities=people, tasks=tasks, n=200)
        low, high = intervals.loc['age', ['low', 'high']]
        truth = 2*(2/3)/(1+2/3)                            # only x is borne: precision 1, recall 2/3
        hits += low <= truth <= high
    assert .88 <= hits/150 <= .99


def test_paired_test_finds_and_does_not_find():
    who, x, q, _, found = example(1, 600, 1.5)
    rng = np.random.default_rng(0)
    again = lambda s: retrieval_scores(*(o+s*rng.normal(size=o.shape) for o in (x[q], x[~q])), who[q], who[~q])
    worse = paired_test(found, again(2.))
    assert worse.p < .01 and worse.low > 0 and worse.identities == found.per_query.identity.nunique()
    assert worse.queries == found.n_valid
    p = [paired_test(again(1.), again(1.), n=500).p for _ in range(40)]
    assert np.mean(np.array(p) < .1) < .3
    swapped = paired_test(again(0.), found)
    assert swapped.difference == pytest.approx(0, abs=1e-12) and swapped.p == 1
    assert paired_test(found, again(2.), 'rank-5', macro=False).difference > 0


def test_paired_test_refuses():
    who, x, q, _, found = example(2)
    with pytest.raises(ValueError, match='same queries'):
        paired_test(found, retrieval_scores(x[q][1:], x[~q], who[q][1:], who[~q]))
    with pytest.raises(ValueError, match='score must be one of AP, INP, rank-1'): paired_test(found, found, 'mAP')


def test_small_sign_flips_are_all_of_them():
    a, b = example(3)[-1], example(3)[-1]
    b.per_query = b.per_query.copy()
    b.per_query['AP'] = a.per_query.AP - .1                # every person better: p about 2 / 2^people
    n = a.per_query.identity.nunique()
    assert paired_test(a, b, n=20000).p == pytest.approx(2/2**n, abs=2e-3)


@pytest.mark.parametrize('multilabel', [False, True])
def test_class_report_and_confusion(multilabel):
    rng = np.random.default_rng(0)
    def some_labels(): return rng.integers(0, 2, (90, 4)) if multilabel else rng.integers(0, 4, 90)
    p, a = some_labels(), some_labels()
    r = class_report(torch.tensor(p), a, list('wxyz'))
    for c, o in zip(('precision', 'recall', 'f1', 'borne'),
                    precision_recall_fscore_support(a, p, zero_division=np.nan)):
        assert r[c].tolist() == pytest.approx(o.tolist())
    m = confusion(p, a, 4)
    if multilabel:
        assert np.diag(m).tolist() == multilabel_confusion_matrix(a, p)[:, 1, 1].tolist()
        assert m[1, 2] == ((a[:, 1] == 1) & (p[:, 2] == 1)).sum()
    else: assert (m == confusion_matrix(a, p)).all()
    a[:30] = -1
    assert class_report(p, a, list('wxyz')).borne.sum() == (a[30:].sum() if multilabel else 60)


def test_labels_that_nobody_bears():
    r = class_report([0, 2, 0], [0, 0, 1], ['a', 'b', 'c', 'd'])
    assert r.precision.isna().tolist() == [False, True, False, True]
    assert r.recall.isna().tolist() == [False, False, True, True]
    assert r.f1.isna().tolist() == [False, False, True, True]
    assert confusion([0, 2, 0], [0, 0, 1], 4).tolist() == [[1, 0, 1, 0], [1, 0, 0, 0], [0]*4, [0]*4]


@pytest.mark.parametrize('unlabelled', [['gender'], ['expression'], ['age', 'gender'], ['age', 'gender', 'expression']])
@pytest.mark.filterwarnings('error')
def test_a_sub_task_without_any_label_is_an_empty_line_of_the_report(unlabelled, tmp_path):
    rng, n = np.random.default_rng(0), 60
    tasks = Tasks([PORTRAIT[o] for o in ('gender', 'age', 'expression')])
    labels, probabilities = {}, {}
    for t in tasks:
        shape = (n, t.n_labels) if t.multilabel else (n,)
        actual = rng.integers(0, 2, shape)
        predicted = rng.integers(0, 2, shape)
        if t.name in unlabelled: actual[:] = -1
        labels[t.name] = predicted, actual
        p = rng.random((n, t.n_labels))
        probabilities[t.name] = p if t.multilabel else p/p.sum(1, keepdims=True)
    people = [f'person {i%12}' for i in range(n)]
    report = portrait_report(tasks, labels, people, probabilities, n=50)
    for k in tasks.names:
        line = report['intervals'].loc[k]
        assert line.isna().all() if k in unlabelled else (line.low <= line.value) & (line.value <= line.high)
        assert report['labels'].f1[k].isna().all() == (k in unlabelled)
        assert np.isnan(report['accuracy'].accuracy[k]) == (k in unlabelled)
        assert np.isnan(report['calibration'][k]) == (k in unlabelled)
    save_report(report, tmp_path/'report')
    draws = score_draws(labels=labels, identities=people, tasks=tasks, n=50)
    assert score_differences(draws, draws).low.isna().tolist() == [o in unlabelled for o in draws]


def test_calibration():
    rng = np.random.default_rng(0)
    p = rng.random((400, 3))
    a = (rng.random((400, 3)) < p**2).astype(int)
    t = reliability(p, a, 10)
    right, confidence = calibration_curve(a.ravel(), p.ravel(), n_bins=10)
    assert t.right.tolist() == pytest.approx(right.tolist())
    assert t.confidence.tolist() == pytest.approx(confidence.tolist()) and t.n.sum() == 1200
    bins = np.minimum((p*10).astype(int), 9)
    gaps = [abs(p[bins == b].sum()-a[bins == b].sum()) for b in range(10)]
    assert calibration_error(p, a, 10) == pytest.approx(sum(gaps)/1200)
    assert calibration_error([[1., 0], [0, 1], [.5, .5]], [0, 1, -1]) == 0
    assert np.isnan(calibration_error([[.5, .5]], [-1]))
    for bad, words in (([[2., 1]], 'softmax'), ([[np.nan, 1]], 'softmax'), ([.5], r'\(N, n_labels\)')):
        with pytest.raises(ValueError, match=words): reliability(bad, [0])


def test_subgroups():
    who, x, q, labels, found = example(4)
    groups = dict(g=np.where(np.arange(200)%2, 'odd', 'even'), h=np.where(np.arange(200) < 150, 'low', ''))
    t = subgroup_scores(groups, labels, TASKS, at_least=10, identities=who)
    assert t.loc['age'].index.tolist() == [('even', 'low'), ('odd', 'low')] and t.index.names == ['sub-task', 'g', 'h']
    at = (np.arange(200)%2 == 1) & (np.arange(200) < 150)
    predicted, actual = labels['age']
    known, row = at & (actual >= 0), t.loc[('age', 'odd', 'low')]
    assert row.n == known.sum() and row.error == pytest.approx((predicted != actual)[known].mean())
    assert row.labels == row.of_labels == 3
    assert row.f1 == pytest.approx(f1_score(actual[known], predicted[known], average='macro'))
    assert row.people == len(set(who[known & (who >= 0)])) + (known & (who < 0)).sum()
    predicted, actual = labels['mood']
    known = at & (actual[:, 0] >= 0)
    assert t.loc[('mood', 'odd', 'low'), 'error'] == pytest.approx((predicted != actual)[known].mean())
    s = subgroup_search(groups, found, np.flatnonzero(q), at_least=5).loc[('odd', 'low')]
    own = found.per_query[at[np.flatnonzero(q)][found.per_query.index]]
    assert s.queries == len(own) and s.people == len(set(own.identity))
    assert s.mAP == pytest.approx(own.groupby('identity').AP.mean().mean()) and s.low <= s.mAP <= s.high
    by_g = subgroup_scores(dict(g=groups['g']), labels, TASKS)
    assert by_g.loc[('mood', 'odd'), 'n'] == (labels['mood'][1][1::2, 0] >= 0).sum()
    with pytest.raises(ValueError, match="groups name 3 portraits, and there are 200"):
        subgroup_scores(dict(g=[1, 2, 3]), labels, TASKS)
    with pytest.raises(ValueError, match="identities must name the 200 portraits, got 3"):
        subgroup_scores(groups, labels, TASKS, identities=[1, 2, 3])
    nobody = dict(g=['x', '']*100, h=['', 'y']*100)
    assert subgroup_scores(nobody, labels, TASKS).empty and subgroup_errors(nobody, labels, TASKS).empty
    assert 'No portrait' in subgroup_note(subgroup_scores(nobody, labels, TASKS))


def test_equal_errors_are_equal_where_a_group_lacks_a_label():
    "One in ten is wrong, women and men alike, and no woman is bald"
    rng, tasks = np.random.default_rng(0), Tasks([Task('bald', 'a', ['no', 'yes'])])
    sex = np.repeat(['f', 'm'], 20_000)
    bald = np.r_[np.zeros(20_000, int), rng.random(20_000) < .1].astype(int)
    predicted = np.where(rng.random(40_000) < .1, 1-bald, bald)
    of_women, of_men = (macro_f1(predicted[o], bald[o], 2) for o in (slice(20_000), slice(20_000, None)))
    assert of_women > of_men+.1 # what misled
    t, e = (f(dict(sex=sex), dict(bald=(predicted, bald)), tasks, n=50) for f in (subgroup_scores, subgroup_errors))
    f, m = t.loc[('bald', 'f')], t.loc[('bald', 'm')]
    assert abs(f.error-m.error) < .01 and max(f.low, m.low) < min(f.high, m.high) and abs(f.f1-m.f1) < .01
    assert t.labels.tolist() == [1, 1] and t.of_labels.tolist() == [2, 2]
    assert e.borne[('bald', 'f', 'yes')] == 0 and np.isnan(e.missed[('bald', 'f', 'yes')])
    assert e.falsely[('bald', 'f', 'yes')] == e.missed[('bald', 'f', 'no')] == pytest.approx(f.error)


@pytest.mark.parametrize('multilabel', [False, True])
def test_both_kinds_of_error(multilabel):
    rng, task = np.random.default_rng(1), Task('t', 'a', ['x', 'y', 'z'], multilabel=multilabel)
    actual, predicted = (rng.integers(0, 2, (2, 300, 3)) if multilabel else rng.integers(0, 3, (2, 300)))
    group = rng.integers(0, 2, 300)
    e = subgroup_errors(dict(g=group), dict(t=(predicted, actual)), Tasks([task]), n=20)
    for g in (0, 1):
        for i, label in enumerate(task.labels):
            has, given = ((o[:, i] == 1 if multilabel else o == i)[group == g] for o in (actual, predicted))
            row = e.loc[('t', g, label)]
            assert (row.borne, row.others) == (has.sum(), (~has).sum())
            assert row.missed == pytest.approx((~given)[has].mean())
            assert row.falsely == pytest.approx(given[~has].mean())
            assert row.missed_low < row.missed < row.missed_high and row.falsely_low < row.falsely < row.falsely_high


def test_intervals_of_groups_are_those_of_repeated_people():
    who, _, _, labels, _ = example(7)
    group = np.where(np.arange(200) < 120, 'a', 'b')
    options = dict(identities=who, n=40, level=.8, seed=3)
    got = subgroup_scores(dict(g=group), dict(age=labels['age']), TASKS, **options).loc[('age', 'a')]
    _, of_image, people = _clusters([], who)
    predicted, actual = labels['age']
    wrong = (predicted != actual) & (actual >= 0) & (group == 'a')
    known = (actual >= 0) & (group == 'a')
    drawn = [(wrong*c[of_image]).sum()/(known*c[of_image]).sum() for c in _draws(np.eye(people), 40, 3)]
    assert [got.low, got.high] == pytest.approx(np.quantile(drawn, [.1, .9]))


def test_small_groups_and_perfect_ones():
    predicted, group = np.zeros(75, int), np.repeat(['big', 'few', 'lone'], [40, 5, 30])
    who = [*range(45), *['one']*30]
    t = subgroup_scores(dict(g=group), dict(age=(predicted, predicted)), TASKS, identities=list(map(str, who)), n=50)
    assert t.n.tolist() == [40, 5, 30] and t.people.tolist() == [40, 5, 1]
    none_wrong = [0, 0, 1-.025**(1/40)] # and not sure to be none
    assert t.loc[('age', 'big'), ['error', 'low', 'high']].tolist() == pytest.approx(none_wrong)
    assert t.loc[('age', 'few'), ['error', 'f1']].isna().all() and t.error[('age', 'lone')] == 0
    assert t.loc[('age', 'lone'), ['low', 'high']].isna().all()
    note = subgroup_note(t)
    assert '2 groups are compared in 1 sub-tasks' in note
    assert '1 of 3 groups have fewer than 30 labelled portraits' in note
    too_few = subgroup_scores(dict(g=group), dict(age=(predicted, predicted)), TASKS, at_least=100)
    assert 'None of the 3 groups is scored' in subgroup_note(too_few)


def test_accuracies_beside_the_majority_guess():
    who, _, _, labels, _ = example(8)
    predicted, actual = labels['age']
    train = dict(age=torch.tensor([2, 2, 0, -1]))
    t = attribute_scores(labels, TASKS, train)
    known = actual >= 0
    assert t.accuracy['age'] == pytest.approx((predicted == actual)[known].mean())
    assert t.majority_accuracy['age'] == pytest.approx((actual[known] == 2).mean())
    assert t.macro_f1['age'] == macro_f1(predicted, actual, 3)
    of_guess = f1_score(actual[known], np.full(known.sum(), 2), average='macro')
    assert t.majority_macro_f1['age'] == pytest.approx(of_guess)
    assert below_majority(t) == '' or 'mood' in below_majority(t)
    poor = attribute_scores(dict(age=(1-(actual == 1), actual)), TASKS, dict(age=actual))
    assert below_majority(poor).startswith('In 1 of 1 sub-tasks the model is less often right than a guess '
                                           'that always says the commonest label: age (')
    many = pd.concat([poor.rename(index={'age': f't{i}'}) for i in range(9)])
    assert below_majority(many).count('the guess') == 6 and below_majority(many).endswith(', 3 more.')


def test_report_is_written(tmp_path):
    who, x, q, labels, found = example(5)
    probabilities = dict(age=np.full((200, 3), 1/3))
    r = portrait_report(TASKS, labels, who, probabilities, found, np.flatnonzero(q), by=('age',), n=20)
    assert set(r) == {'intervals', 'accuracy', 'labels', 'confusion', 'subgroups', 'subgroup_errors', 'subgroup_search',
                      'calibration', 'reliability', 'mistakes'}
    assert r['labels'].index.names == ['sub-task', 'label']
    files = save_report(r, tmp_path/'new'/'r')
    assert pd.read_csv(files[0], index_col=0).loc['PIQ', 'value'] == pytest.approx(r['intervals'].value['PIQ'],
                                                                                   abs=1e-5)
    assert all(o.is_file() for o in files)
    assert {o.name for o in (tmp_path/'new'/'r').iterdir()} == {o.name for o in files}
    assert files[-1].name == 'report.html'
    assert r['confusion'].n.groupby('sub-task').sum()['age'] == (labels['age'][1] >= 0).sum()
    only = portrait_report(TASKS, {}, (), found=found, n=20)
    assert set(only) == {'intervals', 'labels'} and 'mAP' in only['intervals'].index and 'mAP' in report_page(only)


class Page(HTMLParser):
    "Every tag with its attributes, every text; complains of tags that are not closed in order"
    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(page)
        assert not self.open
    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ('meta', 'img', 'br', 'line', 'circle', 'path', 'polyline'): self.open.append(tag)
    def handle_startendtag(self, tag, attrs): self.tags.append((tag, dict(attrs)))
    def handle_endtag(self, tag): assert self.open.pop() == tag
    def handle_data(self, data): self.words.append(data)


def test_the_page_is_complete_and_safe(tmp_path):
    rng = np.random.default_rng(0)
    tasks = Tasks([Task('<b>&"sex', 'a', ['<f>', 'm']), Task('mood', 'b', ['x', 'y'], multilabel=True)])
    actual, predicted, p = rng.integers(0, 2, 80), rng.integers(0, 2, 80), rng.random((80, 1))
    labels = {'<b>&"sex': (predicted, actual), 'mood': (rng.integers(0, 2, (80, 2)), rng.integers(0, 2, (80, 2)))}
    probabilities = {'<b>&"sex': np.where(predicted[:, None] == [0, 1], .5+p/2, .5-p/2), 'mood': rng.random((80, 2))}
    images = [f'{i} <i>.png' for i in range(80)]
    for o in images[:79]: Image.fromarray(rng.integers(0, 255, (40, 20, 3), dtype=np.uint8)).save(tmp_path/o)
    r = portrait_report(tasks, labels, probabilities=probabilities, images=images, by=['<b>&"sex'], n=20)
    page = report_page(r, root=tmp_path, about=dict(Model='<u>mine', Weights=''))
    read = Page(page)
    pictures = [a for t, a in read.tags if t == 'img']
    assert len(pictures) == len(r['mistakes']) == 12
    assert all(o['src'].startswith('data:image/jpeg;base64,') and o['alt'] and o['width'] for o in pictures)
    assert not {'script', 'link', 'iframe', 'b', 'i', 'u', 'f'} & {t for t, _ in read.tags}
    assert not [a for _, a in read.tags if a.get('href', '#')[0] != '#']
    words = ' '.join(read.words)
    assert '<u>mine' in words and 'Weights' not in words and 'holds 12 of the pictures' in words
    assert date.today().isoformat() in words and 'Before you judge anyone' in words
    assert Image.open(io.BytesIO(base64.b64decode(pictures[0]['src'].split(',')[1]))).size == (20, 40)
    for page in (report_page(r, root=tmp_path, pictures=False), report_page(r)):
        assert '<img' not in page and 'holds no pictures' in page and 'sure' in page
    (tmp_path/images[r['mistakes'].row.iloc[0]]).write_bytes(b'no picture')
    assert 'This picture cannot be read.' in report_page(r, root=tmp_path)
    assert all(o in Page(report_page(portrait_report(TASKS, example()[3], n=10))).words for o in ('Scores', 'By group'))


def test_worst_mistakes_are_the_surest_errors():
    p = np.array([[.9, .1], [.2, .8], [.45, .55], [.99, .01]])
    gender = Tasks([Task('g', 'a', ['f', 'm'])])
    t = worst_mistakes(dict(g=([0, 1, 1, 0], [1, 1, 0, -1])), dict(g=p), gender, images=list('abcd'))
    assert t.row.tolist() == [0, 2] and t.truth.tolist() == ['m', 'f'] and t.claim.tolist() == ['f', 'm']
    assert t.confidence.tolist() == [.9, .55] and t.image.tolist() == ['a', 'c']
    p = np.array([[.9, .1], [.3, .2], [.6, .95]])
    mood = Tasks([Task('m', 'a', ['x', 'y'], multilabel=True)])
    t = worst_mistakes(dict(m=((p > .5).astype(int), [[0, 1], [0, 0], [0, 1]])), dict(m=p), mood)
    assert t.row.tolist() == [0, 2] and t.truth.tolist() == ['y', 'y'] and t.claim.tolist() == ['x', 'x|y']
    assert t.confidence.tolist() == [.9, .6]


def test_plot_confusion_draws():
    import matplotlib
    matplotlib.use('agg')
    ax = plot_confusion([0, 1, 1], [0, 1, 0], Task('t', 'appearance', ['a', 'b']))
    assert [t.get_text() for t in ax.get_yticklabels()] == ['a (2)', 'b (1)'] and ax.texts[0].get_text() == '.50'


def test_features_files(tmp_path):
    who, x, q, _, found = example(6)
    a, b = tmp_path/'q.npz', tmp_path/'g.npz'
    np.savez(a, features=x[q].astype('f4'), ids=who[q].astype(str), cams=np.arange(q.sum()))
    np.savez(b, features=x[~q].astype('f4'), ids=who[~q].astype(str), cams=np.zeros((~q).sum(), int)-1)
    assert score_features(a, b).mAP == pytest.approx(found.mAP, abs=1e-4)
    np.savez(b, features=x[~q], ids=who[~q].astype(str))
    with pytest.raises(ValueError, match="only one of .* holds 'cams'"): score_features(a, b)
    np.savez(b, features=x[~q])
    with pytest.raises(ValueError, match="holds no array 'ids'"): read_features(b)
    np.savez(b, features=x[~q], ids=np.array([{}]*(~q).sum()))
    with pytest.raises(ValueError, match='not an .npz of plain arrays'): read_features(b)
    for content in (b'', b'PK\x03\x04broken', b'text'):
        b.write_bytes(content)
        with pytest.raises(ValueError, match='not an .npz'): read_features(b)
    np.save(tmp_path/'x.npy', x)
    with pytest.raises(ValueError, match='not an .npz'): read_features(tmp_path/'x.npy')
    with pytest.raises(FileNotFoundError, match='no such file'): read_features(tmp_path/'none.npz')


@pytest.mark.parametrize('kwargs,words', [
    (dict(), 'needs `found`'), (dict(n=1), 'n must be 2'),
    (dict(level=1., labels=dict(age=([0], [0]))), 'level must lie'),
    (dict(labels=dict(age=([0], [0])), identities=['a', 'b']), "identities must name the 1 portraits of 'age', got 2")])
def test_wrong_intervals_are_refused(kwargs, words):
    with pytest.raises(ValueError, match=words): score_intervals(**kwargs)


def test_a_drawn_set_without_queries_does_not_hide_piq():
    x = np.eye(3)
    found = retrieval_scores(x[[0]], x, ['a'], ['a', 'b', 'c'])
    tasks = Tasks([Task('who', 'appearance', None), Task('age', 'appearance', ['x', 'y'])])
    got = score_intervals(found, dict(age=([0, 1, 1, 0], [0, 1, 0, 0])), ['a', 'a', 'b', 'c'], tasks, n=200)
    assert got.value['PIQ'] == pytest.approx(piq(dict(got.value), tasks))
    assert got.low['PIQ'] <= got.value['PIQ'] <= got.high['PIQ']


def predictions(rng, n=90, people=20):
    who, actual = rng.integers(0, people, n).astype(str).astype(object), rng.integers(0, 5, n)
    return who, actual, [np.where(rng.random(n) < q, actual, rng.integers(0, 5, n)) for q in (.4, .7)]


def test_differences_are_those_of_the_same_drawn_people():
    who, actual, predicted = predictions(np.random.default_rng(0))
    draws = [score_draws(labels=dict(age=(o, actual)), identities=who, n=40, seed=3) for o in predicted]
    rng, names, by_hand = np.random.default_rng(3), pd.unique(who), []
    for _ in range(40):
        at = np.concatenate([np.flatnonzero(who == names[i]) for i in rng.integers(0, len(names), len(names))])
        by_hand.append(macro_f1(predicted[0][at], actual[at], 5)-macro_f1(predicted[1][at], actual[at], 5))
    np.testing.assert_allclose(draws[0].age[1:]-draws[1].age[1:], by_hand, atol=1e-12)
    difference = score_differences(*draws).loc['age']
    ends = difference[['low', 'high']].astype(float)
    np.testing.assert_allclose(ends, np.quantile(by_hand, [.025, .975]), atol=1e-12)
    assert difference.difference == pytest.approx(macro_f1(predicted[0], actual, 5)-macro_f1(predicted[1], actual, 5))
    assert difference.trainings == 1


def test_luck_of_training_is_welch():
    rng = np.random.default_rng(0)
    sides = [rng.normal(size=3), rng.normal(size=4)*2]
    draws = [[pd.DataFrame(dict(x=[v]*5)) for v in side] for side in sides]
    for o in sum(draws, []): o.attrs['sets'] = 'one'
    difference = score_differences(*draws).loc['x']
    welch = stats.ttest_ind(*sides, equal_var=False).confidence_interval()
    np.testing.assert_allclose(difference[['low', 'high']].astype(float), [welch.low, welch.high])
    assert difference.trainings == 3


def test_other_people_are_not_compared():
    who, actual, predicted = predictions(np.random.default_rng(0))
    of = lambda ids, **kwargs: score_draws(labels=dict(age=(predicted[0], actual)), identities=ids, n=5, **kwargs)
    for other in (of(who[::-1]), of(who, seed=1), of(who, groups=who), of([''] * 90)):
        if other.attrs['sets'] != of(who).attrs['sets']:
            with pytest.raises(ValueError, match='not scored on the same resampled test sets'):
                score_differences(of(who), other)
    assert of(who, groups=who).attrs == of(who).attrs # nobody is unidentified


def test_the_unidentified_of_a_shot_are_one_person():
    actual, predicted = np.repeat([0, 1], 50), np.repeat([0, 1, 0, 1], 25)
    shots = np.repeat([f's{i}' for i in range(10)], 10)
    def interval(groups):
        labels = dict(gender=(predicted, actual))
        return score_intervals(labels=labels, identities=[''] * 100, groups=groups).loc['gender']
    together, alone = interval(shots), interval(())
    assert together.value == alone.value and together.high-together.low > 2*(alone.high-alone.low)


def test_groups_may_be_named_by_numbers_and_words():
    predicted = np.arange(80)%2
    tasks = Tasks([Task('t', 'a', ['no', 'yes'])])
    table = subgroup_scores(dict(camera=[1, 'x']*40), dict(t=(predicted, predicted)), tasks, n=20)
    assert list(table.index.get_level_values('camera')) == ['1', 'x']

"Intervals, paired test and reports against plain computations and scikit-learn"
import numpy as np, pandas as pd, pytest, torch
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, f1_score, multilabel_confusion_matrix, precision_recall_fscore_support
from portrait_nb.metrics import macro_f1, piq, retrieval_scores
from portrait_nb.report import (_clusters, _draws, calibration_error, class_report, confusion, paired_test, plot_confusion, portrait_report, read_features,
                                reliability, save_report, score_differences, score_draws, score_features, score_intervals, subgroup_scores)
from portrait_nb.tasks import PORTRAIT, Task, Tasks

TASKS = Tasks([Task('who', 'appearance', None), Task('age', 'appearance', ['a','b','c']), Task('mood', 'emotion', ['x','y'], multilabel=True)])

def made(seed=0, n=200, noise=1.):
    rng = np.random.default_rng(seed)
    who = rng.integers(-1, 12, n)
    x = rng.normal(size=(13, 8))[who] + noise*rng.normal(size=(n, 8))
    q = (who >= 0) & (rng.random(n) < .3)
    age, mood = rng.integers(-1, 3, n), rng.integers(0, 2, (n, 2))
    mood[rng.random(n) < .2] = -1
    labels = dict(age=(np.where(rng.random(n) < .6, np.maximum(age, 0), rng.integers(0, 3, n)), age), mood=((rng.random((n, 2)) < .5).astype(int), mood))
    return who, x, q, labels, retrieval_scores(x[q], x[~q], who[q], who[~q])

def by_hand(found, who, labels, counts):
    "Scores of one drawn set in which person p comes counts[p] times, by repeating rows"
    of_query, of_image, _ = _clusters(found.per_query.identity, who)
    rows = np.repeat(np.arange(len(of_query)), counts[of_query])
    draws = pd.DataFrame({c: found.per_query[c].to_numpy()[rows] for c in ('AP', 'INP', 'rank-1')})
    people = [found.per_query[of_query == p][['AP', 'INP', 'rank-1']].mean() for p in np.unique(of_query) for _ in range(counts[p])]
    macro, plain = pd.DataFrame(people).mean(), draws.mean()
    images = np.repeat(np.arange(len(of_image)), counts[of_image])
    out = dict(mAP=macro.AP, mINP=macro.INP, rank1=macro['rank-1'], plain_mAP=plain.AP, plain_rank1=plain['rank-1'])
    for t in TASKS.attributes: out[t.name] = macro_f1(labels[t.name][0][images], labels[t.name][1][images], t.n_labels)
    return {**out, 'PIQ': piq(out, TASKS)}

@pytest.mark.parametrize('seed', range(4))
def test_intervals_are_quantiles_of_repeated_rows(seed):
    who, x, q, labels, found = made(seed)
    _, _, people = _clusters(found.per_query.identity, who)
    counts = _draws(np.eye(people), 40, seed)
    drawn = pd.DataFrame([by_hand(found, who, labels, c.astype(int)) for c in counts])
    got = score_intervals(found, labels, who, TASKS, n=40, level=.8, seed=seed)
    for k in drawn: assert got.loc[k, ['low', 'high']].tolist() == pytest.approx(np.quantile(drawn[k], [.1, .9]))
    assert got.value['mAP'] == pytest.approx(found.macro_mAP) and got.value['plain_mAP'] == pytest.approx(found.mAP) and got.value['plain_mINP'] == pytest.approx(found.mINP)
    assert got.value['PIQ'] == pytest.approx(piq(dict(got.value), TASKS))

def test_draws_are_multinomial_and_seeded():
    d = _draws(np.eye(50), 2000, 0)
    assert (d.sum(1) == 50).all() and d.mean(0) == pytest.approx(1, abs=.12) and d.var(0).mean() == pytest.approx(.98, abs=.05)
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
        low, high = score_intervals(labels=dict(age=(np.where(right, 0, 1), np.zeros(200, int))), identities=people, tasks=Tasks([Task('age', 'a', ['x','y'])]), n=200).loc['age', ['low','high']]
        truth = 2*(2/3)/(1+2/3)                            # only x is borne: precision 1, recall 2/3
        hits += low <= truth <= high
    assert .88 <= hits/150 <= .99

def test_paired_test_finds_and_does_not_find():
    who, x, q, _, found = made(1, 600, 1.5)
    rng = np.random.default_rng(0)
    again = lambda s: retrieval_scores(*(o+s*rng.normal(size=o.shape) for o in (x[q], x[~q])), who[q], who[~q])
    worse = paired_test(found, again(2.))
    assert worse.p < .01 and worse.low > 0 and worse.identities == found.per_query.identity.nunique() and worse.queries == found.n_valid
    p = [paired_test(again(1.), again(1.), n=500).p for _ in range(40)]
    assert np.mean(np.array(p) < .1) < .3
    swapped = paired_test(again(0.), found)
    assert swapped.difference == pytest.approx(0, abs=1e-12) and swapped.p == 1
    assert paired_test(found, again(2.), 'rank-5', macro=False).difference > 0

def test_paired_test_refuses():
    who, x, q, _, found = made(2)
    with pytest.raises(ValueError, match='same queries'): paired_test(found, retrieval_scores(x[q][1:], x[~q], who[q][1:], who[~q]))
    with pytest.raises(ValueError, match='score must be one of AP, INP, rank-1'): paired_test(found, found, 'mAP')

def test_small_sign_flips_are_all_of_them():
    a, b = made(3)[-1], made(3)[-1]
    b.per_query = b.per_query.copy()
    b.per_query['AP'] = a.per_query.AP - .1                # every person better: p about 2 / 2^people
    n = a.per_query.identity.nunique()
    assert paired_test(a, b, n=20000).p == pytest.approx(2/2**n, abs=2e-3)

@pytest.mark.parametrize('multilabel', [False, True])
def test_class_report_and_confusion(multilabel):
    rng = np.random.default_rng(0)
    p, a = (rng.integers(0, 2, (90, 4)), rng.integers(0, 2, (90, 4))) if multilabel else (rng.integers(0, 4, 90), rng.integers(0, 4, 90))
    r = class_report(torch.tensor(p), a, list('wxyz'))
    for c, o in zip(('precision','recall','f1','borne'), precision_recall_fscore_support(a, p, zero_division=np.nan)): assert r[c].tolist() == pytest.approx(o.tolist())
    m = confusion(p, a, 4)
    if multilabel: assert np.diag(m).tolist() == multilabel_confusion_matrix(a, p)[:,1,1].tolist() and m[1,2] == ((a[:,1]==1) & (p[:,2]==1)).sum()
    else: assert (m == confusion_matrix(a, p)).all()
    a[:30] = -1
    assert class_report(p, a, list('wxyz')).borne.sum() == (a[30:].sum() if multilabel else 60)

def test_labels_that_nobody_bears():
    r = class_report([0, 2, 0], [0, 0, 1], ['a', 'b', 'c', 'd'])
    assert r.precision.isna().tolist() == [False, True, False, True] and r.recall.isna().tolist() == [False, False, True, True] and r.f1.isna().tolist() == [False, False, True, True]
    assert confusion([0, 2, 0], [0, 0, 1], 4).tolist() == [[1,0,1,0], [1,0,0,0], [0]*4, [0]*4]

def test_calibration():
    rng = np.random.default_rng(0)
    p = rng.random((400, 3))
    a = (rng.random((400, 3)) < p**2).astype(int)
    t = reliability(p, a, 10)
    right, confidence = calibration_curve(a.ravel(), p.ravel(), n_bins=10)
    assert t.right.tolist() == pytest.approx(right.tolist()) and t.confidence.tolist() == pytest.approx(confidence.tolist()) and t.n.sum() == 1200
    bins = np.minimum((p*10).astype(int), 9)
    assert calibration_error(p, a, 10) == pytest.approx(sum(abs(p[bins==b].sum()-a[bins==b].sum()) for b in range(10))/1200)
    assert calibration_error([[1., 0], [0, 1], [.5, .5]], [0, 1, -1]) == 0 and np.isnan(calibration_error([[.5, .5]], [-1]))
    for bad, words in (([[2., 1]], 'softmax'), ([[np.nan, 1]], 'softmax'), ([.5], r'\(N, n_labels\)')):
        with pytest.raises(ValueError, match=words): reliability(bad, [0])

def test_subgroups():
    who, x, q, labels, found = made(4)
    groups = dict(g=np.where(np.arange(200)%2, 'odd', 'even'), h=np.where(np.arange(200) < 150, 'low', ''))
    t = subgroup_scores(groups, labels, TASKS, found, np.flatnonzero(q), at_least=10)
    assert t.index.tolist() == [('even','low'), ('odd','low')] and t.n.tolist() == [75, 75]
    at = (np.arange(200)%2 == 1) & (np.arange(200) < 150)
    known = at & (labels['age'][1] >= 0)
    assert t.age[('odd','low')] == pytest.approx(f1_score(labels['age'][1][known], labels['age'][0][known], average='macro'))
    own = found.per_query[at[np.flatnonzero(q)][found.per_query.index]]
    assert t.queries[('odd','low')] == len(own) and t.people[('odd','low')] == len(set(own.identity)) and t.mAP[('odd','low')] == pytest.approx(own.groupby('identity').AP.mean().mean())
    one = subgroup_scores(dict(g=groups['g']), labels, TASKS)
    assert one.n['odd'] == 100 and one.index.name == 'g'
    with pytest.raises(ValueError, match="groups name 3 portraits, 'age' has 200"): subgroup_scores(dict(g=[1,2,3]), labels, TASKS)
    assert subgroup_scores(dict(g=['x','']*100, h=['','y']*100), labels, TASKS).empty
    with pytest.raises(ValueError, match="query_rows must say"): subgroup_scores(groups, labels, TASKS, found)

def test_report_is_written(tmp_path):
    who, x, q, labels, found = made(5)
    r = portrait_report(TASKS, labels, who, dict(age=np.full((200, 3), 1/3)), found, np.flatnonzero(q), by=('age',), n=20)
    assert set(r) == {'intervals','labels','subgroups','calibration'} and r['labels'].index.names == ['sub-task','label']
    files = save_report(r, tmp_path/'new'/'r')
    assert pd.read_csv(files[0], index_col=0).loc['PIQ','value'] == pytest.approx(r['intervals'].value['PIQ'], abs=1e-5) and all(o.is_file() for o in files)
    only = portrait_report(TASKS, {}, (), found=found, n=20)
    assert set(only) == {'intervals','labels'} and 'mAP' in only['intervals'].index

def test_plot_confusion_draws():
    import matplotlib
    matplotlib.use('agg')
    ax = plot_confusion([0,1,1], [0,1,0], Task('t', 'appearance', ['a','b']))
    assert [t.get_text() for t in ax.get_yticklabels()] == ['a (2)', 'b (1)'] and ax.texts[0].get_text() == '.50'

def test_features_files(tmp_path):
    who, x, q, _, found = made(6)
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

@pytest.mark.parametrize('kwargs,words', [(dict(), 'needs `found`'), (dict(n=1), 'n must be 2'), (dict(level=1., labels=dict(age=([0], [0]))), 'level must lie'), (dict(labels=dict(age=([0],[0])), identities=['a','b']), "identities must name the 1 portraits of 'age', got 2")])
def test_wrong_intervals_are_refused(kwargs, words):
    with pytest.raises(ValueError, match=words): score_intervals(**kwargs)

def test_a_drawn_set_without_queries_does_not_hide_piq():
    x = np.eye(3)
    found = retrieval_scores(x[[0]], x, ['a'], ['a', 'b', 'c'])
    tasks = Tasks([Task('who', 'appearance', None), Task('age', 'appearance', ['x','y'])])
    got = score_intervals(found, dict(age=([0,1,1,0], [0,1,0,0])), ['a','a','b','c'], tasks, n=200)
    assert got.value['PIQ'] == pytest.approx(piq(dict(got.value), tasks)) and got.low['PIQ'] <= got.value['PIQ'] <= got.high['PIQ']

def predictions(rng, n=90, people=20):
    who, actual = rng.integers(0, people, n).astype(str).astype(object), rng.integers(0, 5, n)
    return who, actual, [np.where(rng.random(n) < q, actual, rng.integers(0, 5, n)) for q in (.4, .7)]

def test_differences_are_those_of_the_same_drawn_people():
    who, actual, said = predictions(np.random.default_rng(0))
    draws = [score_draws(labels=dict(age=(o, actual)), identities=who, n=40, seed=3) for o in said]
    rng, names, by_hand = np.random.default_rng(3), pd.unique(who), []
    for _ in range(40):
        at = np.concatenate([np.flatnonzero(who == names[i]) for i in rng.integers(0, len(names), len(names))])
        by_hand.append(macro_f1(said[0][at], actual[at], 5)-macro_f1(said[1][at], actual[at], 5))
    np.testing.assert_allclose(draws[0].age[1:]-draws[1].age[1:], by_hand, atol=1e-12)
    told = score_differences(*draws).loc['age']
    np.testing.assert_allclose(told[['low', 'high']].astype(float), np.quantile(by_hand, [.025, .975]), atol=1e-12)
    assert told.difference == pytest.approx(macro_f1(said[0], actual, 5)-macro_f1(said[1], actual, 5)) and told.trainings == 1

def test_luck_of_training_is_welch():
    rng = np.random.default_rng(0)
    sides = [rng.normal(size=3), rng.normal(size=4)*2]
    draws = [[pd.DataFrame(dict(x=[v]*5)) for v in side] for side in sides]
    for o in sum(draws, []): o.attrs['sets'] = 'one'
    told, welch = score_differences(*draws).loc['x'], stats.ttest_ind(*sides, equal_var=False).confidence_interval()
    np.testing.assert_allclose(told[['low', 'high']].astype(float), [welch.low, welch.high])
    assert told.trainings == 3

def test_other_people_are_not_compared():
    who, actual, said = predictions(np.random.default_rng(0))
    of = lambda ids, **kwargs: score_draws(labels=dict(age=(said[0], actual)), identities=ids, n=5, **kwargs)
    for other in (of(who[::-1]), of(who, seed=1), of(who, groups=who), of([''] * 90)):
        if other.attrs['sets'] != of(who).attrs['sets']:
            with pytest.raises(ValueError, match='not scored on the same drawn test sets'): score_differences(of(who), other)
    assert of(who, groups=who).attrs == of(who).attrs # nobody is unidentified

def test_the_unidentified_of_a_shot_are_one_person():
    actual, said = np.repeat([0, 1], 50), np.repeat([0, 1, 0, 1], 25)
    shots = np.repeat([f's{i}' for i in range(10)], 10)
    together, alone = [score_intervals(labels=dict(gender=(said, actual)), identities=[''] * 100, groups=o).loc['gender'] for o in (shots, ())]
    assert together.value == alone.value and together.high-together.low > 2*(alone.high-alone.low)

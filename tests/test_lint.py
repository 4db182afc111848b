import shutil, warnings
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance
from portrait_nb.lint import Finding, Findings, lint_portraits, near_pairs
from portrait_nb.tasks import PORTRAIT, Task, Tasks

TASKS = Tasks([Task('identity', 'appearance', None), Task('gender', 'appearance', ['male', 'female']),
               Task('mood', 'emotion', ['glad', 'sad'], multilabel=True)])


def table():
    "Nothing wrong with it at bs=8, k=2, least=3: 4 people in train, 2 in query and gallery, two films"
    def row(i, **kwargs):
        return dict(image=f'{i}.png', source=f'f{i%2}', group=f's{i}', gender=['male', 'female'][i%2], **kwargs)
    rows = [row(i, split='train', identity=f't{i%4}', mood=['glad', 'sad', 'glad|sad'][i%3]) for i in range(16)]
    for i in range(16, 24):
        rows.append(row(i, split='query' if i<18 else 'gallery', identity=f'q{i%2}', mood=['glad', 'sad'][i%2]))
    return pd.DataFrame(rows)[['image', 'split', 'identity', 'source', 'group', 'gender', 'mood']]


def lint(df, root=None, tasks=TASKS, **kw):
    return lint_portraits(df, root, tasks, **{**dict(bs=8, k=2, least=3, sampling='pk'), **kw})


def found(df, root=None, **kw): return {o.check: o for o in lint(df, root, **kw) if o.check != 'pictures not looked at'}


@pytest.fixture(scope='module')
def clean(tmp_path_factory):
    "The pictures of `table()`: blurred noise, each of its own"
    root = tmp_path_factory.mktemp('pictures')
    for i in range(24):
        noise = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((48, 96), Image.Resampling.BICUBIC).save(root/f'{i}.png')
    return root


@pytest.fixture
def root(clean, tmp_path): return shutil.copytree(clean, tmp_path/'p', ignore=shutil.ignore_patterns('.*'))


def test_a_clean_table_is_clean(clean):
    assert lint(table(), clean) == [] and str(lint(table(), clean)) == '0 fatal, 0 warnings, 0 notes'
    assert [o.severity for o in lint(table())] == ['note'] # without a root, the pictures were not looked at
    assert lint(table().sample(frac=1, random_state=0), clean) == []


def test_identities_across_splits():
    df = table(); df.loc[[0, 4], 'split'] = ['gallery', 'query']
    o = found(df)['identities across splits']
    assert o.severity == 'fatal'
    assert list(o.rows.identity) == ['t0', 't0']
    assert list(o.rows.split) == ['train', 'gallery']
    assert '1 identity is' in o.what and 't0' in o.what


def test_queries_without_a_match():
    df = table()
    few = found(df.drop(index=df.index[(df.split == 'gallery') & (df.identity == 'q1')]))['queries without a match']
    assert few.severity == 'warning' and list(few.rows.index) == [17] and few.what.startswith('1 of 2 queries')
    same = df.copy(); same.loc[df.identity == 'q1', 'group'] = 'one shot'
    assert list(found(same)['queries without a match'].rows.index) == [17]
    gone = found(df[df.split != 'gallery'])
    assert gone['queries without a match'].severity == 'fatal' and gone['no gallery'].severity == 'warning'
    df.loc[16, 'identity'] = ''
    assert list(found(df)['queries without a match'].rows.index) == [16]


def test_cameras():
    o = found(table(), cameras=True)['queries without a match'] # everybody stays with one camera
    assert o.severity == 'fatal' and 'another camera' in o.what
    df = table(); df.loc[22:23, 'source'] = ['f1', 'f0']
    assert found(df, cameras=True) == {}
    df.loc[3, 'source'] = ''
    assert found(df, cameras=True)['no camera'].severity == 'fatal'


def test_sources():
    df = table()
    assert found(df.assign(source='f'))['one source'].severity == 'warning'
    assert found(df.assign(source=''))['no source'].severity == 'note'
    assert found(df.drop(columns=['source', 'group']))['no source'].severity == 'note'


@pytest.mark.parametrize('sampling,bs,severity', [('pk', 8, None), ('pk', 10, 'fatal'), ('random', 10, 'note'),
                                                  ('random', 8, None), ('shuffle', 8, 'fatal')])
def test_p_k(sampling, bs, severity):
    o = found(table(), sampling=sampling, bs=bs).get('P-K infeasible')
    assert (o and o.severity) == severity
    if o and sampling != 'shuffle':
        assert 'which has 4' in o.what and 'p=5' in o.what and 'bs=8 at most' in o.what
        assert len(o.rows) == 4


def test_p_k_agrees_with_the_sampler():
    from portrait_nb.data import PKSampler
    train = table().query("split=='train'").identity
    for k in (2, 3, 4):
        for bs in range(2*k, 40, k):
            try: PKSampler(train, k).plan(bs); ok = True
            except ValueError: ok = False
            assert ok == ('P-K infeasible' not in found(table(), bs=bs, k=k))


def test_identities_that_repeat():
    df = table(); df.loc[[0, 4, 8], 'identity'] = ''
    o = found(df)['fewer than K portraits']
    assert o.severity == 'note' and o.rows[['identity', 'portraits']].values.tolist() == [['t0', 1]]


def test_labels():
    df = table()
    df.loc[df.split == 'train', 'gender'] = ['male']*15+['female']
    o = found(df, fixed=())['labels with few examples']
    assert o.severity == 'warning' and 'gender: fewer than 3 train portraits for female (1)' in o.what
    assert list(o.rows.index) == [15]
    one = found(df.assign(gender='male'), fixed=())
    assert one['nothing to learn'].severity == 'fatal'
    assert "all labelled train portraits are 'male'" in one['nothing to learn'].what
    assert 'female' in one['labels without a test'].what and one['labels without a test'].severity == 'note'
    none = found(df.assign(mood=''))['nothing to learn']
    assert none.severity == 'fatal' and 'mood: no train portrait has a label' in none.what
    rare = found(table(), least=11)['labels with few examples'] # 5 or 6 of 16 are glad only, 5 both
    assert set(rare.rows.index) <= set(range(16)) and 'mood' in rare.what or 'gender' in rare.what


def test_rarest_rows_come_first():
    df = table(); df.loc[df.split == 'train', 'mood'] = ['glad']*10+['sad']*1+['glad|sad']+['']*4
    o = [o for o in lint(df, least=20) if o.what.startswith('mood')][0]
    assert list(o.rows.index[:2]) == [10, 11] and len(o.rows) == 12


def test_a_gender_that_changes():
    df = table(); df.loc[4, 'gender'] = 'female'
    o = found(df)['gender changes']
    assert o.severity == 'warning' and list(o.rows.index) == [4] and o.rows.majority.tolist() == ['male (3 of 4)']
    df.loc[8, 'gender'] = ''
    assert found(df)['gender changes'].rows.majority.tolist() == ['male (2 of 3)']
    df.loc[0, 'identity'] = ''; df.loc[4, 'identity'] = '' # nobody has no gender to keep
    assert 'gender changes' not in found(df)
    assert 'gender changes' not in found(df, fixed=())


def test_copies_and_likenesses(root):
    shutil.copy(root/'3.png', root/'20.png')
    ImageEnhance.Brightness(Image.open(root/'5.png')).enhance(.7).save(root/'21.png')
    shutil.copy(root/'7.png', root/'8.png') # twice in train is no leak
    both = found(table(), root)
    # the copies are of other people, so they disagree
    assert set(both) == {'files across train and test', 'similar pictures across train and test',
                         'copies that disagree'}
    a, b = both['files across train and test'], both['similar pictures across train and test']
    assert a.severity == 'fatal' and a.rows[['image', 'like', 'distance']].values.tolist() == [['20.png', '3.png', 0]]
    assert b.severity == 'warning' and b.rows[['image', 'like']].values.tolist() == [['21.png', '5.png']]
    assert b.rows.distance.iloc[0] <= 6


def test_copies_that_disagree(root):
    for o in (7, 9, 11): shutil.copy(root/'3.png', root/f'{o}.png') # rows of t3, t1, t3
    df = table(); df.loc[7, 'gender'] = ''; df.loc[11, 'mood'] = df.mood[3]; df.loc[[7, 9], 'mood'] = '-'
    o = found(df, root)['copies that disagree']
    assert o.severity == 'warning' and o.what.startswith('1 picture is in the table more than once')
    assert o.rows[['image', 'copy_of']].values.tolist() == [['7.png', '3.png'], ['9.png', '3.png']]
    assert o.rows.differs.tolist() == ['mood: -, there glad', 'identity: t1, there t3']
    df.loc[[3, 7, 9, 11], ['identity', 'gender', 'mood']] = ['t3', 'male', 'glad']
    assert 'copies that disagree' not in found(df, root)


def test_empty_cells_where_several_hold():
    df = table(); df.loc[:7, 'mood'] = ''
    o = found(df)['none of these never used']
    assert o.severity == 'note' and '8 of 24 cells are empty' in o.what and len(o.rows) == 8
    df.loc[0, 'mood'] = '-'
    assert 'none of these never used' not in found(df)
    assert 'nothing to learn' not in found(df.assign(mood=['glad', '-']*12))
    assert 'none of its labels' in found(df.assign(mood='-'))['nothing to learn'].what
    # where only one label holds, an empty cell is not known
    assert 'none of these never used' not in found(table().assign(gender=['male', '']*12))


def test_a_query_and_its_neighbour_frame(root):
    shutil.copy(root/'16.png', root/'18.png') # q0 in query and gallery
    shutil.copy(root/'17.png', root/'20.png') # q1 and q0: two people, or a slip of somebody else's
    df = table()
    o = found(df, root)['similar frames without a group']
    assert o.severity == 'warning' and o.rows[['image', 'like']].values.tolist() == [['18.png', '16.png']]
    df.loc[18, 'group'] = df.group[16]
    assert set(found(df, root)) == {'copies that disagree'}
    assert 'similar frames without a group' in found(df.assign(group=''), root)
    # one camera, so the rule takes them out
    assert 'similar frames without a group' not in found(table(), root, cameras=True)


def test_unreadable_pictures(root):
    (root/'2.png').write_bytes(b'no picture'); (root/'19.png').unlink()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        o = found(table(), root)['unreadable pictures']
    assert o.severity == 'fatal' and list(o.rows.index) == [2, 19] and '2 pictures' in o.what
    assert o.rows.why.astype(bool).all()
    everything = found(table(), root.parent)['unreadable pictures']
    assert len(everything.rows) == 24


def test_near_pairs_against_all_pairs():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, 30, dtype=np.uint64)
    one_bit = np.uint64(1)<<rng.integers(0, 60, 30).astype(np.uint64)
    hashes = np.concatenate([base, base^one_bit, rng.integers(0, 2**63, 30, dtype=np.uint64)])
    hashes = hashes[rng.permutation(90)]
    left = rng.random(90)<.5
    from portrait_nb.similar import similar_groups
    pairs = near_pairs(hashes, similar_groups(hashes, 6), left, ~left, 6)
    d = np.bitwise_count(hashes[:, None]^hashes).astype(int)
    expected = {j: d[left, j].min() for j in np.flatnonzero(~left) if d[left, j].min() <= 6}
    assert dict(zip(pairs['right'], pairs['distance'])) == expected
    assert all(d[i, j] == k and left[i] for j, i, k in pairs.values)
    apart = np.zeros(90, int)
    assert len(near_pairs(hashes, similar_groups(hashes, 6), left, ~left, 6, apart)) == 0
    assert len(near_pairs(hashes, similar_groups(hashes, 6), left, ~left, 6, apart-1)) == len(pairs)


def test_splits():
    df = table()
    assert found(df[df.split != 'train'])['no train rows'].severity == 'fatal'
    assert found(df.assign(identity=''))['nobody in train'].severity == 'fatal'
    assert set(found(df[df.split == 'train'])) == {'no query', 'no gallery'}
    assert lint(df[:0]).fatal
    assert lint(df[:1]).fatal


def test_other_tables():
    df = table()
    only = Tasks([TASKS['gender']])
    few = df[['image', 'split', 'gender']]
    assert {o.check for o in lint(few, tasks=only, sampling='random')} == {'no source', 'pictures not looked at'}
    assert lint(few, tasks=only).fatal
    actor = Tasks([Task('actor', 'appearance', None), TASKS['gender']])
    named = df.rename(columns=dict(identity='actor')); named.loc[0, 'split'] = 'gallery'
    assert found(named, tasks=actor)['identities across splits'].rows.identity.tolist() == ['t0', 't0']
    identity, mood = df.identity.where(df.index != 0, '-1'), df.mood.where(df.index != 1, np.nan)
    gaps = df.assign(identity=identity, group=np.nan, mood=mood)
    assert found(gaps) == {}
    assert found(pd.concat([df, df.assign(split='train')]))['identities across splits'].rows.index.is_unique
    for o in ('split', 'image', 'gender', 'identity'):
        with pytest.raises(ValueError, match=f"no column '{o}'"): lint(df.drop(columns=o))


def test_the_table_is_left_alone():
    df = table(); before = df.copy()
    lint(df)
    pd.testing.assert_frame_equal(df, before)


def test_findings():
    df = table()
    some = Findings([Finding('note', 'n', 'N.', 'Do.', df[:0]), Finding('fatal', 'f', '<F>.', 'Do.', df[['image']]),
                     Finding('warning', 'w', 'W.', 'Do.', df[['image']][:2])])
    assert [o.check for o in some] == ['f', 'w', 'n'] and some.fatal and some.summary == '1 fatal, 1 warning, 1 note'
    assert '19 more' in str(some) and '&lt;F&gt;' in some._repr_html_() and str(some).endswith(some.summary)
    assert some.frame()[['severity', 'rows']].values.tolist() == [['fatal', 24], ['warning', 2], ['note', 0]]


def test_aligned_faces_are_no_leaks(tmp_path, monkeypatch):
    "Hashes that are near by accident: said once, and no pair of strangers is a warning"
    from portrait_nb import lint
    rng = np.random.default_rng(0)
    waves = .1*rng.normal(size=(600, 64)) + rng.normal(size=(600, 2))@rng.normal(size=(2, 64))
    hashes = np.packbits(waves>np.median(waves, axis=1, keepdims=True), axis=1).view('>u8').ravel().astype(np.uint64)
    hashes[599] = hashes[0]
    df = pd.DataFrame(dict(image=[f'{i}.png' for i in range(600)], split=['train']*400+['gallery']*200, gender='male'))
    for o in df.image: (tmp_path/o).write_text(o)
    (tmp_path/'599.png').write_text('0.png')
    monkeypatch.setattr(lint, 'phash', lambda *args, **kwargs: hashes)
    found = lint_portraits(df, tmp_path, Tasks([PORTRAIT['gender']]))
    kinds = {o.check: o for o in found}
    doubt = kinds['pictures too alike for the pHash']
    assert 'similar pictures across train and test' not in kinds
    assert kinds['files across train and test'].severity == 'fatal'
    assert doubt.severity == 'note' and 'chance alone' in doubt.what


def test_a_leak_says_how_many_chance_would_make():
    from portrait_nb.lint import check_leaks
    rng = np.random.default_rng(0)
    waves = .45*rng.normal(size=(900, 64)) + .55*rng.normal(size=64)
    hashes = np.packbits(waves>np.median(waves, axis=1, keepdims=True), axis=1).view('>u8').ravel().astype(np.uint64)
    df = pd.DataFrame(dict(image=[f'{i}' for i in range(900)], split=['train']*600+['gallery']*300))
    left = (df.split == 'train').to_numpy()
    for t in range(6, 14, 2):
        found = [o for o in check_leaks(df, '/dev/null', hashes, np.zeros(900, int), t)]
        if len(near_pairs(hashes, np.zeros(900, int), left, ~left, t))>20:
            assert found[0].severity == 'note' and 'chance alone would make about' in found[0].what
            break
    else: assert False, 'no pairs at all'


def test_names_that_look_like_one():
    df = table()
    train, test = df.identity[df.split == 'train'].iloc[0], df.index[df.split != 'train'][0]
    df.loc[test, 'identity'] = train.upper()
    o = found(df)['alike identity across splits']
    assert o.severity == 'fatal' and set(o.rows.identity) == {train, train.upper()}
    assert repr(train) in o.what and repr(train.upper()) in o.what
    df = table()
    df.loc[df.index[df.identity == train][0], 'identity'] = train+'\u200b'
    assert found(df)['alike identity'].severity == 'warning'
    assert found(table().assign(source=['1', '01']*(len(table())//2)))['alike source'].severity == 'warning'
    assert not [o for o in found(table()) if o.startswith('alike')]


def test_one_person_alone_in_train():
    df = table()
    df = df.assign(identity=df.identity.where(df.split != 'train', 'ann'))
    o = found(df)['nothing to learn']
    assert o.severity == 'fatal' and 'nobody to tell apart' in o.what


def test_fixed_names():
    for fixed, fault in (('gender', 'is one word'), (['Gender'], "did you mean 'gender'")):
        with pytest.raises(ValueError, match=fault): found(table(), fixed=fixed)

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score
from portrait_nb.card import (Card, agreement, card_groups, card_labels, card_sizes, cohen_kappa, dataset_card,
                              fleiss_kappa, md_table)
from portrait_nb.tasks import PORTRAIT, Task, Tasks


def table(n=60, seed=0):
    rng, rows = np.random.default_rng(seed), []
    for i in range(n):
        split = ('train', 'query', 'gallery')[i%3]
        identity = '' if i%5 == 0 else f'{split[0]}{i%4}'
        r = dict(image=f'{i}.jpg', split=split, identity=identity, source=f'f{i%2}', group=f's{i//2}')
        for t in PORTRAIT.attributes: r[t.name] = t.labels[rng.integers(t.n_labels)] if rng.random()<.9 else ''
        rows.append(r)
    return pd.DataFrame(rows)


def test_the_card_counts_what_is_there():
    df = table()
    sizes = card_sizes(df, PORTRAIT)
    assert sizes['images'].tolist() == [20, 20, 20, 60]
    assert sizes.loc['all', 'identified'] == (df.identity != '').sum() and sizes.loc['all', 'sources'] == 2
    male = card_labels(df, PORTRAIT).loc['gender', 'labels in train'].split(' · ')[0]
    train = df[(df.split == 'train') & (df.gender != '')]
    assert male == f"male {(train.gender=='male').mean():.0%}"
    groups = card_groups(df, PORTRAIT, ('age', 'height'))
    for a in PORTRAIT['age'].labels:
        for h in PORTRAIT['height'].labels:
            assert groups.loc[a, h] == ((df.split == 'train') & (df.age == a) & (df.height == h)).sum()


def test_the_page():
    card = dataset_card(table(), title='A set', about='Of nobody.', licence='CC0', consent='asked in writing')
    assert isinstance(card, Card) and card._repr_markdown_() == str(card) == card
    heads = [o for o in card.splitlines() if o.startswith('#')]
    assert heads == ['# A set', '## Licence and consent', '## Sizes', '## Labels', '## Similar frames',
                   '## gender and age in train', '## Agreement of annotators']
    for o in ('Of nobody.', '- Licence: CC0', '- Consent: asked in writing'): assert o in card
    assert 'Not stated' not in card
    for line in card.splitlines():
        if line.startswith('|'): assert line.endswith('|')
    assert dataset_card(table()).count('**Not stated.**') == 2


def test_a_public_set_has_its_terms():
    df = table()
    df.attrs['source_set'] = 'celeba'
    card = dataset_card(df)
    assert '- Licence: non-commercial research only' in card and '- Homepage: https://mmlab' in card
    assert card.count('**Not stated.**') == 1
    assert 'Homepage' not in dataset_card(df, licence='CC0')
    df.attrs['source_set'] = 'no set of ours'
    assert dataset_card(df) == dataset_card(table())


def test_what_the_card_does_not_count():
    two = lambda name: Tasks([*PORTRAIT, Task(name, 'appearance', ['a', 'b'])])
    assert '(skin, disability)' in dataset_card(table().assign(race='a'), two('race'))
    assert '(skin, disability, origin)' in dataset_card(table().assign(embrace='a'), two('embrace'))
    assert 'LTS .2 is' in dataset_card(table()) and 'LTS .2 is' not in dataset_card(table().assign(identity=''))


def test_none_of_these_in_the_card():
    none = table().assign(expression=['-', '']*30)
    row = card_labels(none, PORTRAIT).loc['expression']
    assert 'none of these 100%' in row['labels in train'] and row['train without'] == '50%'
    assert row['largest : smallest'] == 'a label is never used'
    answers = pd.DataFrame(dict(image=['a', 'a', 'b', 'b'], annotator=['x', 'y']*2, expression=['-', '-', '-', 'fear']))
    assert agreement(answers, PORTRAIT).loc['expression', 'images'] == 2


def test_a_card_for_other_tables():
    df = table()
    assert 'LTS' in dataset_card(df.drop(columns=['source', 'group']))
    assert '0 of them of 0 named' in dataset_card(df.assign(identity=''))
    assert '0 of them of 0 named' in dataset_card(df.assign(identity='-1'))
    ids = Tasks([Task('actor', 'appearance', None)])
    assert '## Labels' not in dataset_card(df.rename(columns=dict(identity='actor')), ids)
    gaps = df.assign(source=np.nan, group=np.nan)
    for o in ('age', 'identity'): gaps[o] = df[o].replace('', np.nan)
    same = dataset_card(df.assign(source='', group=''))
    assert dataset_card(gaps) == same and 'not recorded' in same
    for o in ('train', 'query'): assert dataset_card(df[df.split == o])
    two = Tasks([Task('hat', 'appearance', ['yes', 'no']),
                 Task('bag', 'appearance', ['left|right'.split('|')[0], 'none'])])
    assert '## hat and bag in train' in dataset_card(df.assign(hat='yes', bag='none'), two, by=('hat', 'bag'))
    assert 'a label is never used' in dataset_card(df.assign(hat='yes', bag='none'), two)


@pytest.mark.parametrize('column,match', [('arm', "no column 'arm'; its columns are .* Pass tasks="),
                                          ('split', "no column 'split'"), ('identity', "no column 'identity'")])
def test_refusals(column, match):
    with pytest.raises(ValueError, match=match): dataset_card(table().drop(columns=column))


@pytest.mark.parametrize('by', [('gender', 'expression'), ('gender', 'nose'), ('gender',), ('age', 'age')])
def test_pairs_that_cannot_be_counted(by):
    with pytest.raises(ValueError, match='by= takes the names of two of'): dataset_card(table(), by=by)


@pytest.mark.parametrize('seed', range(6))
def test_cohen_against_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    a = rng.integers(4, size=80)
    b = np.where(rng.random(80)<rng.random(), a, rng.integers(5, size=80))
    assert cohen_kappa(a, b) == pytest.approx(cohen_kappa_score(a, b))
    words = np.array(list('abcde'))
    assert cohen_kappa(words[a], words[b]) == pytest.approx(cohen_kappa_score(a, b))


def test_fleiss_by_pairs():
    "Agreement of every pair of annotators of every image, counted one by one"
    rng = np.random.default_rng(0)
    votes = [rng.integers(3, size=rng.integers(2, 6)) for _ in range(40)]
    agree = np.mean([np.mean([v[i] == v[j] for i in range(len(v)) for j in range(len(v)) if i != j]) for v in votes])
    share = np.bincount(np.concatenate(votes), minlength=3)/sum(map(len, votes))
    chance = (share**2).sum()
    assert fleiss_kappa([np.bincount(v, minlength=3) for v in votes]) == pytest.approx((agree-chance)/(1-chance))
    assert fleiss_kappa([[3, 0], [0, 2]]) == 1 and np.isnan(fleiss_kappa([[3, 0], [2, 0]]))


def test_agreement(recwarn):
    rows = [('a', 'A', 'male', 'anger|fear'), ('a', 'B', 'male', 'anger'),
            ('b', 'A', 'female', ''), ('b', 'B', 'male', 'fear'),
            ('c', 'A', 'male', 'sadness'),
            ('d', 'A', 'female', 'fear'), ('d', 'B', 'female', 'fear')]
    answers = pd.DataFrame(rows, columns=['image', 'annotator', 'gender', 'expression'])
    found = agreement(answers, PORTRAIT)
    assert list(found.index) == ['gender', 'expression']
    assert found.loc['gender', 'images'] == 3 and found.loc['gender', 'agreement'] == pytest.approx(2/3)
    theirs = cohen_kappa_score(['male', 'female', 'female'], ['male', 'male', 'female'])
    assert found.loc['gender', 'kappa'] == pytest.approx(theirs)
    assert found.loc['expression', 'images'] == 2
    # of seven labels, fear on one of two images is not agreed on
    assert found.loc['expression', 'agreement'] == pytest.approx((6+.5)/7)
    same = pd.DataFrame([('a', 'A', 'male'), ('a', 'B', 'male')], columns=['image', 'annotator', 'gender'])
    gender = agreement(same, PORTRAIT).loc['gender']
    assert gender.tolist()[:3] == [1, 2, 1] and np.isnan(gender['kappa'])
    assert 'no image was labelled by two' in dataset_card(table(), annotations=answers[answers.annotator == 'A'])
    assert '| gender | 3 | 2 | 0.667 |' in dataset_card(table(), annotations=answers)
    assert not [o for o in recwarn if issubclass(o.category, RuntimeWarning)]


def test_annotations_refused():
    with pytest.raises(ValueError, match="no column 'annotator'"): agreement(table(), PORTRAIT)
    twice = pd.DataFrame([('a', 'A', 'male'), ('a', 'A', 'female')], columns=['image', 'annotator', 'gender'])
    with pytest.raises(ValueError, match="row 1, annotator 'A' labelled 'a' twice"): agreement(twice, PORTRAIT)


def test_markdown_tables():
    df = pd.DataFrame({'n': [1234567, 2], 'x': [.12345, np.nan], 't': ['a|b', 'c\nd']}, index=['r', 's'])
    lines = ['|  | n | x | t |', '|---|---:|---:|---|', '| r | 1,234,567 | 0.123 | a\\|b |', '| s | 2 |  | c d |']
    assert md_table(df).splitlines() == lines
    assert md_table(df[:0]).splitlines()[1] == '|---|---|---|---|'

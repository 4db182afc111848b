"A cell is one word, however it was made: by pandas, by numpy, in a csv that was written and read again."
import io
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from portrait_nb.annotations import label_shares, matched, read_annotations, summarise
from portrait_nb.card import dataset_card
from portrait_nb.data import portrait_dl, portrait_dls
from portrait_nb.learner import cameras_of, score_portraits
from portrait_nb.lint import lint_portraits
from portrait_nb.longtail import identity_counts, label_counts
from portrait_nb.tasks import Task, Tasks
from portrait_nb.words import NONE, UNKNOWN, alike, label_words, unseen, word, words

PEOPLE = [2, 7, -1, None, 7]
COLUMNS = dict(objects=pd.Series(PEOPLE, dtype=object), floats=pd.Series(PEOPLE, dtype=float),
               nullable=pd.Series(PEOPLE, dtype='Int64'),
               category=pd.Series(PEOPLE, dtype=float).astype('category'),
               text=pd.Series(['2', '7', '-1', None, '7']),
               strings=pd.Series(['2', '7', '-1', pd.NA, '7'], dtype='string'))


@pytest.mark.parametrize('column', COLUMNS.values(), ids=COLUMNS)
def test_a_column_and_its_csv_say_the_same(column):
    file = io.StringIO(column.to_frame('who').to_csv(index=False))
    read = pd.read_csv(file, dtype=str, keep_default_na=False, skip_blank_lines=False)['who']
    assert words(column).tolist() == words(read).tolist() == ['2', '7', '', '', '7']


@pytest.mark.parametrize('cell, spelt', [(2, '2'), (2., '2'), ('2.0', '2'), ('-1.0', ''), ('0002', '0002'),
                                        ('0002.0', '0002.0'), ('2.50', '2.50'), (1e3, '1000'),
                                        (np.float16(1e3), '1000'),
                                        (np.float32(.1), '0.1'), (True, 'True'), (False, 'False'), ('Nan', 'Nan'),
                                        ('none', 'none'), ('NONE', 'NONE'), (NONE, '-'), (b'ann', 'ann'),
                                        (' ann ', 'ann')])
def test_one_cell(cell, spelt):
    assert word(cell) == spelt and type(word(cell)) is str
    assert words([cell, 'x']).tolist() == [spelt, 'x']


@pytest.mark.parametrize('cell', [None, np.nan, pd.NA, pd.NaT, np.float32('nan'), np.datetime64('NaT'), -1, -1.,
                                  np.int64(-1), np.float32(-1), *UNKNOWN])
def test_unknown(cell): assert word(cell) == '' and words([cell, 'x']).tolist() == ['', 'x']


def test_equal_objects_of_other_types_keep_their_words():
    assert words([1, True, 1., '1', '1.0', False, 0, -0.]).tolist() == ['1', 'True', '1', '1', '1', 'False', '0', '0']


def test_index_and_name_stay():
    column = pd.Series([1., np.nan], index=[8, 3], name='group')
    assert words(column).equals(pd.Series(['1', ''], index=[8, 3], name='group', dtype=str))
    assert words(column).name == 'group'


def test_each_value_is_spelt_once(monkeypatch):
    "A column of many rows and few names costs what its names cost"
    calls = []
    monkeypatch.setattr('portrait_nb.words._written', lambda cell: calls.append(cell) or str(cell))
    words(np.repeat([1., 2.], 1000)), words(['ann', 'bob']*1000), words(['ann', 2]*1000)
    assert len(calls) == 6


def test_labels_go_before_rules():
    assert label_words([1., 2., np.nan, -1.], ['1.0', '2.0']).tolist() == ['1.0', '2.0', '', '']
    assert label_words([0, 1, -1], ['-1', '0', '1']).tolist() == ['0', '1', '-1']
    assert label_words(['None', None], ['None', 'hat']).tolist() == ['None', '']
    assert label_words(['1.0|2.0', '2|1'], ['1', '2']).tolist() == ['1|2', '2|1']


def test_unseen_is_named_and_spelling_is_left():
    assert unseen('a\u200bb') == 'U+200B ZERO WIDTH SPACE' and unseen('\ufeffa').startswith('U+FEFF')
    assert unseen('a\u200db').startswith('U+200D')
    assert not any(map(unseen, ['ann', 'é', '', 'نمی\u200cدانم', '👨\u200d👩\u200d👧']))


def test_alike():
    names = ['2', '2.0', '0002', '20', 'Ann', 'ann', 'a\u200bnn', 'an\u00adn', '']
    assert alike(names) == [('2', '2.0'), ('2', '0002'), ('Ann', 'ann'), ('Ann', 'a\u200bnn'), ('Ann', 'an\u00adn')]
    assert alike(['p1', 'p01', '']) == []


# -- one table, however it was made

ANSWERS = Tasks([Task('identity', 'appearance', None), Task('pace', 'posture', ['1', '2', '3']),
                 Task('mood', 'emotion', ['calm', 'glad'], multilabel=True)])


def write_numbered(root, n=24):
    "Pictures, and their table as whole numbers with gaps"
    for i in range(n):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (64, 32, 3), dtype=np.uint8)).save(root/f'{i}.png')
    split = ['train']*12+['query']*4+['gallery']*8
    who = [1, 1, 1, 2, 2, 2, 3, 3, 3, -1, None, 3, 7, 7, 8, 8, 7, 7, 7, 8, 8, -1, -1, None]
    pace = [1, 2, 3, None]*6
    group = [i//2 if i % 5 else None for i in range(n)]
    camera = [1, 2]*12
    return pd.DataFrame(dict(image=[f'{i}.png' for i in range(n)], split=split, identity=who, source=camera,
                             group=group, pace=pace, mood=['calm', None, 'calm|glad']*8))


NUMBERED = ('identity', 'group', 'pace', 'source')
WAYS = dict(floats=lambda df: df, objects=lambda df: df.astype(dict.fromkeys(NUMBERED, object)),
            nullable=lambda df: df.astype(dict.fromkeys(NUMBERED, 'Int64')),
            category=lambda df: df.astype(dict.fromkeys(('identity', 'group', 'pace', 'mood'), 'category')),
            mixed=lambda df: df.assign(identity=[str(o) if i % 2 else o for i, o in enumerate(df.identity)],
                                       source=df.source.astype(float)))


def zeros(n):
    "The first label of every sub-task, `n` times"
    return {t.name: torch.zeros((n, 2) if t.multilabel else n, dtype=torch.long) for t in ANSWERS.attributes}


@pytest.fixture(scope='module')
def tables(tmp_path_factory):
    root = tmp_path_factory.mktemp('numbered')
    df = write_numbered(root)
    df.to_csv(root/'a.csv', index=False)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return root, df, read_annotations(root/'a.csv', root, ANSWERS)


def test_a_float_column_is_read_as_whole_numbers(tables):
    root, df, read = tables
    assert '1.0' in (root/'a.csv').read_text()
    assert set(read.identity) == {'', '1', '2', '3', '7', '8'} and set(read.pace) == {'', '1', '2', '3'}
    assert '0.0' not in set(read.group)


@pytest.mark.parametrize('way', WAYS.values(), ids=WAYS)
def test_tables_in_memory_are_what_read_annotations_reads(tables, way):
    root, df, read = tables
    df = way(df)
    one, other = [portrait_dls(o, root, ANSWERS, size=(64, 32), bs=4, device='cpu') for o in (df, read)]
    assert one.tasks == other.tasks and one.tasks['identity'].labels == ('1', '2', '3')
    for a, b in zip(one.loaders, other.loaders):
        assert all((a.dataset.labels[k] == b.dataset.labels[k]).all() for k in ANSWERS.names)
        assert a.dataset.identities.tolist() == b.dataset.identities.tolist()
        assert a.dataset.groups.tolist() == b.dataset.groups.tolist()
    rng = np.random.default_rng(0)
    answers = [(torch.tensor(rng.normal(size=(n, 8))), zeros(n)) for n in (4, 8)]
    for cameras in (False, True):
        scores = [score_portraits(o.tasks, *answers, o.query, o.gallery, cameras) for o in (one, other)]
        assert scores[0] == scores[1]
        assert matched(df, cameras=cameras).tolist() == matched(read, cameras=cameras).tolist()
        findings = [repr(lint_portraits(o, None, ANSWERS, cameras=cameras)) for o in (df, read)]
        assert findings[0] == findings[1]
    assert identity_counts(df).to_dict() == identity_counts(read).to_dict()
    for t in ANSWERS.attributes:
        assert label_counts(df, t).equals(label_counts(read, t)) and label_shares(df, t).equals(label_shares(read, t))
    assert summarise(df, ANSWERS).equals(summarise(read, ANSWERS))
    assert dataset_card(df, ANSWERS) == dataset_card(read, ANSWERS)


def test_one_side_as_floats_and_the_other_as_text(tables):
    "The rule that takes out a query's own shot and camera holds across kinds"
    root, df, read = tables
    tasks = ANSWERS.with_identities(['1', '2', '3'])
    parts = [df[df.split == 'query'].assign(group=5.), read[read.split == 'gallery'].assign(group='5')]
    query, gallery = [portrait_dl(o, root, tasks, (64, 32), device='cpu') for o in parts]
    assert query.dataset.groups.tolist() == ['5']*4 and set(gallery.dataset.groups) == {'5'}
    ones = [(torch.ones(n, 8), zeros(n)) for n in (4, 8)]
    with pytest.warns(UserWarning, match='no query with a true match'):
        assert score_portraits(tasks, *ones, query, gallery)['n_valid'] == 0


def test_cameras_of_two_kinds_are_one():
    query, gallery = pd.DataFrame(dict(source=[1, 2])), pd.DataFrame(dict(source=['1', '2.0', '3']))
    found = cameras_of(*(type('Data', (), dict(df=o)) for o in (query, gallery)))
    assert [o.tolist() for o in found] == [['1', '2'], ['1', '2', '3']]
    with pytest.raises(ValueError, match='cameras=True needs a camera'):
        cameras_of(type('Data', (), dict(df=pd.DataFrame(dict(source=['1', 'nan'])))))


def test_tensors_and_arrays_of_one_number_are_their_number():
    numbers = (torch.tensor(7), torch.tensor(-1), torch.tensor(2.), np.array(-1), np.int64(3))
    assert [word(o) for o in numbers] == ['7', '', '2', '', '3']
    assert list(words([torch.tensor(-1), torch.tensor(7)])) == ['', '7']

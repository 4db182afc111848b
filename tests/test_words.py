"A cell is one word, however it was made: by pandas, by numpy, in a csv that was written and read again."
import io

import numpy as np
import pandas as pd
import pytest

from portrait_nb.words import NONE, UNKNOWN, alike, label_words, named, unseen, word, words

PEOPLE = [2, 7, -1, None, 7]
COLUMNS = dict(objects=pd.Series(PEOPLE, dtype=object), floats=pd.Series(PEOPLE, dtype=float), nullable=pd.Series(PEOPLE, dtype='Int64'),
               category=pd.Series(PEOPLE, dtype=float).astype('category'), text=pd.Series(['2', '7', '-1', None, '7']), strings=pd.Series(['2', '7', '-1', pd.NA, '7'], dtype='string'))


@pytest.mark.parametrize('column', COLUMNS.values(), ids=COLUMNS)
def test_a_column_and_its_csv_say_the_same(column):
    file = io.StringIO(column.to_frame('who').to_csv(index=False))
    read = pd.read_csv(file, dtype=str, keep_default_na=False, skip_blank_lines=False)['who']
    assert words(column).tolist() == words(read).tolist() == ['2', '7', '', '', '7']


@pytest.mark.parametrize('cell, said', [(2, '2'), (2., '2'), ('2.0', '2'), ('-1.0', ''), ('0002', '0002'), ('0002.0', '0002.0'), ('2.50', '2.50'), (1e3, '1000'), (np.float16(1e3), '1000'),
                                        (np.float32(.1), '0.1'), (True, 'True'), (False, 'False'), ('Nan', 'Nan'), ('none', 'none'), ('NONE', 'NONE'), (NONE, '-'), (b'ann', 'ann'), (' ann ', 'ann')])
def test_one_cell(cell, said):
    assert word(cell) == said and type(word(cell)) is str
    assert words([cell, 'x']).tolist() == [said, 'x']


@pytest.mark.parametrize('cell', [None, np.nan, pd.NA, pd.NaT, np.float32('nan'), np.datetime64('NaT'), -1, -1., np.int64(-1), np.float32(-1), *UNKNOWN])
def test_unknown(cell): assert word(cell) == '' and words([cell, 'x']).tolist() == ['', 'x']


def test_equal_objects_of_other_types_keep_their_words():
    assert words([1, True, 1., '1', '1.0', False, 0, -0.]).tolist() == ['1', 'True', '1', '1', '1', 'False', '0', '0']


def test_index_and_name_stay():
    column = pd.Series([1., np.nan], index=[8, 3], name='group')
    assert words(column).equals(pd.Series(['1', ''], index=[8, 3], name='group', dtype=str)) and words(column).name == 'group'


def test_each_value_is_asked_once(monkeypatch):
    "A column of many rows and few names costs what its names cost"
    asked = []
    monkeypatch.setattr('portrait_nb.words._written', lambda cell: asked.append(cell) or str(cell))
    words(np.repeat([1., 2.], 1000)), words(['ann', 'bob']*1000), words(['ann', 2]*1000)
    assert len(asked) == 6


def test_labels_go_before_rules():
    assert label_words([1., 2., np.nan, -1.], ['1.0', '2.0']).tolist() == ['1.0', '2.0', '', '']
    assert label_words([0, 1, -1], ['-1', '0', '1']).tolist() == ['0', '1', '-1']
    assert label_words(['None', None], ['None', 'hat']).tolist() == ['None', '']
    assert label_words(['1.0|2.0', '2|1'], ['1', '2']).tolist() == ['1|2', '2|1']


def test_unseen_is_named_and_spelling_is_left():
    assert unseen('a\u200bb') == 'U+200B ZERO WIDTH SPACE' and unseen('\ufeffa').startswith('U+FEFF') and unseen('a\u200db').startswith('U+200D')
    assert not any(map(unseen, ['ann', 'é', '', 'نمی\u200cدانم', '👨\u200d👩\u200d👧']))


def test_alike():
    assert alike(['2', '2.0', '0002', '20', 'Ann', 'ann', 'a\u200bnn', 'an\u00adn', '']) == [('2', '2.0'), ('2', '0002'), ('Ann', 'ann'), ('Ann', 'a\u200bnn'), ('Ann', 'an\u00adn')]
    assert alike(['p1', 'p01', '']) == []


def test_named():
    assert named(iter(['age']), ['age'], 'by') == ('age',)
    with pytest.raises(ValueError, match=r"write by=\['age'\]"): named('age', ['age'], 'by')
    with pytest.raises(ValueError, match="did you mean 'age'"): named(['AGE'], ['age'], 'by')
    with pytest.raises(ValueError, match='by names 3'): named([3], ['age'], 'by')

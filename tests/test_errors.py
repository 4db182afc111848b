"Sentences that tell the user what to do, and the words they are made of."
import enum

import numpy as np
import pytest

from portrait_nb.errors import did_you_mean, first_line, named, nearest, needs, one_of, plural, quote, some


def test_named():
    assert named(iter(['age']), ['age'], 'by') == ('age',)
    with pytest.raises(ValueError, match=r"write by=\['age'\]"): named('age', ['age'], 'by')
    with pytest.raises(ValueError, match="did you mean 'age'"): named(['AGE'], ['age'], 'by')
    with pytest.raises(ValueError, match='by names 3'): named([3], ['age'], 'by')


@pytest.mark.parametrize('text,meant', [('trian', 'train'), ('TRAIN', 'train'), ('querry', 'query'), ('xyz', None),
                                        ('', None), ('train'*20, None)])
def test_nearest(text, meant):
    assert nearest(text, ['train', 'query', 'gallery']) == meant


def test_a_list_is_never_longer_than_asked():
    assert some([]) == ''
    assert some(range(5)) == '0, 1, 2, 3, 4'
    assert some(range(1_005), sep='; ') == '0; 1; 2; 3; 4 and 1,000 more'
    assert some(iter('abc'), 1) == 'a and 2 more'
    assert len(did_you_mean('zzz', map(str, range(10_000)))) < 80


def test_a_quote_is_one_line_and_says_how_long_the_text_was():
    for text in ('', "it's", 'a\tb', '\x1b[2J', 'x'*10**6, '\u2028'*100):
        assert len(quote(text).splitlines()) == 1 and len(quote(text)) < 300 and quote(text).isprintable()
    assert quote('x'*10**6).endswith('(1,000,000 characters)')


@pytest.mark.parametrize('value,choices', [('pk', ('pk', None)), (None, ('pk', None)), (16, (16, 32)),
                                           (False, (True, False))])
def test_one_of_gives_back_what_it_was_given(value, choices):
    assert one_of(value, choices, 'x') is value


@pytest.mark.parametrize('value', ['PK', 1, True, 1., ['pk'], None, float('nan')])
def test_one_of_refuses_everything_else(value):
    with pytest.raises(ValueError, match='sampling must be one of pk, 0, got'): one_of(value, ('pk', 0), 'sampling')


def test_plural():
    assert [plural(n, 'query', 'queries') for n in (0, 1, 12_361)] == ['0 queries', '1 query', '12,361 queries']


def test_first_line():
    assert first_line(KeyError('x')) == "'x'"
    assert first_line(RuntimeError('\n\n a \nb')) == 'a'
    assert first_line(MemoryError()) == 'MemoryError'


def test_a_missing_library_is_one_sentence(monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, 'accelerate', None) # Python's way to say: not to be had
    install = r"pip install 'portrait_nb\[distributed\]'"
    with pytest.raises(ImportError, match=rf"^Training needs accelerate, which isn't installed: {install}$"):
        needs('accelerate', 'distributed', 'Training')


class Sampling(str, enum.Enum):
    pk = 'pk'


@pytest.mark.parametrize('value,choice', [(np.str_('pk'), 'pk'), (Sampling.pk, 'pk'), (np.int64(16), 16), (16., 16),
                                          (np.float32(16), 16)])
def test_a_word_of_numpy_and_a_number_of_another_type_are_what_they_say(value, choice):
    found = one_of(value, ('pk', 16, None), 'x')
    assert found == choice and type(found) is type(choice)

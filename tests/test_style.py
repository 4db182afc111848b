"Numbers and tables as every page shows them."
import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from portrait_nb.style import ASPECT_COLOURS, OTHER_COLOURS, ScoreTable, score_text, show_table
from portrait_nb.tasks import PORTRAIT, Task, Tasks

ROWS = pd.DataFrame(dict(mAP=[.1385, .2, .1], age=[.5, np.nan, .75], n=[3, 9, 1]), index=['a', 'b', 'c'])


def body(table):
    "The texts of a Markdown table below its heads, stars and all"
    return [[o.strip() for o in line.strip('|').split(' | ')] for line in table.markdown().splitlines()[2:]]


@pytest.mark.parametrize('value,text', [
    (.1385, '0.139'), (.0005, '0.001'), (.00049999, '0.000'), (1., '1.000'), (0., '0.000'), (-0., '0.000'),
    (-.0004, '0.000'), (-.1385, '-0.139'), (2.6755, '2.676'), (1.0005, '1.001'),
    (1e-30, '0.000'), (123456.7895, '123456.790'),
    (float('nan'), ''), (None, ''), (pd.NA, ''), (pd.NaT, ''), (float('inf'), 'inf'), (-np.inf, '-inf'),
    (0, '0'), (-7, '-7'), (True, 'True'), (np.bool_(False), 'False'), ('', ''), ('.1385', '.1385'), ((1, 2), '(1, 2)'),
    (Decimal('.1385'), '0.139'), (Fraction(1, 3), '1/3')])
def test_a_number_is_rounded_as_it_is_written(value, text):
    assert score_text(value) == text


@pytest.mark.parametrize('kind', [np.float64, np.float32, float])
def test_the_kind_of_float_does_not_matter(kind):
    for thousandths in range(0, 10_000, 35):
        value = thousandths/10_000
        exact = Decimal(thousandths)/10_000
        assert score_text(kind(value)) == f'{exact.quantize(Decimal("1.000"), "ROUND_HALF_UP")}'


def test_whole_numbers_of_numpy_stay_whole():
    assert [score_text(o(12)) for o in (np.int8, np.uint16, np.int64)] == ['12']*3


def test_digits_and_sign():
    assert [score_text(.5, digits=o) for o in (0, 1, 5)] == ['1', '0.5', '0.50000']
    signed = [score_text(o, sign=True) for o in (.01, 0., -.01, 2, 0, -2, None)]
    assert signed == ['+0.010', '0.000', '-0.010', '+2', '0', '-2', '']


def test_the_best_of_every_column_is_bold_and_counts_win_nothing():
    table = show_table(ROWS, best='max')
    assert body(table) == [['a', '0.139', '0.500', '3'], ['b', '**0.200**', '', '9'], ['c', '0.100', '**0.750**', '1']]
    assert table.html().count('<b>') == 2


def test_columns_can_be_named_with_their_rule():
    assert body(show_table(ROWS, best=dict(mAP='min', n='max'))) == [
        ['a', '0.139', '0.500', '3'], ['b', '0.200', '', '**9**'], ['c', '**0.100**', '0.750', '1']]


def test_along_rows():
    frame = pd.DataFrame([[.1, .2], [.4, .3]], index=['x', 'y'], columns=['a', 'b'])
    assert body(show_table(frame, best='max', axis=1)) == [['x', '0.100', '**0.200**'], ['y', '**0.400**', '0.300']]
    assert body(show_table(frame, best=dict(y='min'), axis=1)) == [['x', '0.100', '0.200'], ['y', '0.400', '**0.300**']]


def test_along_rows_each_upper_heading_has_its_own_best():
    columns = pd.MultiIndex.from_product([['ours', 'paper'], ['a', 'b']])
    frame = pd.DataFrame([[.1, .2, .9, .8]], index=['x'], columns=columns)
    assert body(show_table(frame, best='max', axis=1)) == [['x', '0.100', '**0.200**', '**0.900**', '0.800']]


def test_a_mean_is_free_of_the_noise_of_its_sum():
    for o in (.1385, .2675, .0005, .4445):
        for n in (3, 7, 11): assert score_text(sum([o]*n)/n) == score_text(o) == score_text(np.mean([o]*n))


def test_what_prints_alike_wins_together_and_a_level_column_has_no_winner():
    frame = pd.DataFrame(dict(a=[.12341, .12344, .1], b=[.5, .5, .5]))
    assert body(show_table(frame, best='max')) == [['**0.123**', '0.500']]*2 + [['0.100', '0.500']]


def test_a_single_number_and_none_at_all_have_no_winner():
    assert '**' not in str(show_table(ROWS.head(1), best='max'))
    assert '**' not in str(show_table(pd.DataFrame(dict(a=[np.nan, np.nan])), best='max'))


def test_words_never_win():
    frame = pd.DataFrame(dict(a=[.1, 'not measured', .2]))
    assert body(show_table(frame, best='max')) == [['0.100'], ['not measured'], ['**0.200**']]


def colour_of(html, text):
    return re.search(rf'rgba\((\d+,\d+,\d+),.16\)">(<b>)?{text}<', html)


def rgb(hexes): return ','.join(str(int(hexes[i:i+2], 16)) for i in (1, 3, 5))


def test_columns_and_rows_take_the_colour_of_their_aspect():
    html = show_table(ROWS, shade=dict(mAP='appearance', b='posture')).html()
    assert colour_of(html, '0.100').group(1) == rgb(ASPECT_COLOURS['appearance'])
    assert colour_of(html, '0.200').group(1) == rgb(ASPECT_COLOURS['appearance']) # a column comes before a row
    assert colour_of(html, '9').group(1) == rgb(ASPECT_COLOURS['posture'])
    assert colour_of(html, '0.750') is None


def test_sub_tasks_shade_their_columns():
    assert colour_of(show_table(ROWS, shade=PORTRAIT).html(), '0.750').group(1) == rgb(ASPECT_COLOURS['appearance'])
    own = Tasks([Task('age', 'looks', ['young', 'old'])])
    assert colour_of(show_table(ROWS, shade=own).html(), '0.750').group(1) == rgb(OTHER_COLOURS[0])


def test_no_index_that_only_counts():
    frame = ROWS.reset_index(drop=True)
    assert body(show_table(frame))[0] == ['0.139', '0.500', '3']
    assert body(show_table(frame, index=True))[0] == ['0', '0.139', '0.500', '3']
    assert body(show_table(ROWS, index=False))[0] == ['0.139', '0.500', '3']


def test_levels_of_rows_and_columns():
    frame = ROWS.rename(columns=dict(n='m')).iloc[:, :2]
    frame.index = pd.MultiIndex.from_tuples([('x', 1), ('x', 2), ('y', 2)], names=['net', 'seed'])
    frame.columns = pd.MultiIndex.from_product([['test'], ['mAP', 'age']])
    table = show_table(frame)
    assert str(table).split()[:10] == '| net | seed | test mAP | test age'.split()
    assert [o[:2] for o in body(table)] == [['x', '1'], ['', '2'], ['y', '2']]
    assert table.html().count('colspan="2"') == 2 # the empty corner and "test"


def test_the_same_table_is_the_same_bytes_without_generated_ids():
    a, b = (show_table(ROWS, best='max', shade=PORTRAIT, caption='Look.').html() for _ in range(2))
    assert a == b and ' id=' not in a and '<style' not in a and '<script' not in a


def test_text_is_never_read_as_markup():
    table = show_table(pd.DataFrame({'<i>': ['a|b', '<script>', 'two\nlines']}), caption='1 < 2 & 3')
    assert '<script>' not in table.html() and '<figcaption>1 &lt; 2 &amp; 3</figcaption>' in table.html()
    assert [len(re.findall(r'(?<!\\)\|', o)) for o in str(table).splitlines()[2:]] == [2]*5
    assert not re.search(r'(?<!\\)<(i|script)', str(table).split('\n\n')[1])


def test_every_way_to_show_it_is_there():
    table = show_table(ROWS, caption='Look.')
    assert isinstance(table, ScoreTable)
    assert repr(table) == table._repr_markdown_() == table.markdown() and table.markdown().startswith('Look.\n\n| ')
    assert table._repr_html_() == table.html() and 'overflow-x:auto' in table.html()


def test_nothing_is_changed_and_an_empty_table_is_a_table():
    before = ROWS.copy()
    show_table(ROWS, best='max', shade=PORTRAIT, sign=['mAP'], digits=dict(mAP=1))
    pd.testing.assert_frame_equal(ROWS, before)
    assert str(show_table(ROWS.iloc[:0], best='max')).count('\n') == 1
    assert body(show_table(pd.Series([.25], index=['a'], name='loss'))) == [['a', '0.250']]


def test_columns_of_one_name():
    frame = pd.DataFrame([[.1, .2], [.3, .1]], columns=['a', 'a'])
    assert body(show_table(frame, best='max')) == [['0.100', '**0.200**'], ['**0.300**', '0.100']]


@pytest.mark.parametrize('value,text', [
    (1234567890123.456, '1234567890123.456'), (-1234567890123.456, '-1234567890123.456'),
    (1e15+.125, '1000000000000000.100'),
    (123456789.0125, '123456789.013'), (12345678.01246, '12345678.012'), (1234567.0125, '1234567.013'),
    (Decimal('1234567890123456789.0125'), '1234567890123456789.013'),
    (Decimal('1e500'), '1E+500'), (Decimal('1e-500'), '0.000')])
def test_no_digit_that_is_printed_is_cut(value, text):
    assert score_text(value) == text


def test_digits_beyond_the_twelfth_are_those_of_the_number():
    assert score_text(1/3, digits=15) == '0.'+'3'*15
    assert score_text(.5, digits=500) == '0.5'+'0'*499
    for whole in range(10):
        noisy = sum([10**whole+.0125]*3)/3
        assert score_text(noisy) == f'{10**whole}.013'


def test_a_number_in_a_tensor_or_an_array_is_that_number():
    torch = pytest.importorskip('torch')
    kinds = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
    assert [score_text(torch.tensor(.1385, dtype=o)) for o in kinds] == ['0.139']*4
    assert score_text(torch.tensor(.1385, requires_grad=True)) == '0.139'
    assert score_text(torch.tensor(.2675)) == '0.268' # in 64 bits this number is a hair below .2675
    assert score_text(np.array(.2675, np.float32)) == '0.268'
    assert [score_text(o) for o in (torch.tensor(7), np.array(7), torch.tensor(True), np.array('x'))] == ['7', '7', 'True', 'x']
    frame = pd.DataFrame(dict(loss=pd.Series([torch.tensor(.5), torch.tensor(.25)], dtype=object)))
    assert body(show_table(frame, best='min')) == [['0.500'], ['**0.250**']]


def test_what_is_no_single_number_is_text():
    assert score_text([[1], [2, 3]]) == '[[1], [2, 3]]' and score_text(('a', (1, 2))) == "('a', (1, 2))"
    assert [score_text(o, sign=True) for o in (True, False, np.True_, 'x', [1])] == ['True', 'False', 'True', 'x', '[1]']


@pytest.mark.parametrize('digits', [1.5, '3', None, [3]])
def test_digits_are_whole(digits):
    refused = pytest.raises(ValueError, match='digits must be a whole number, got ')
    for o in (.5, 'word'):
        with refused: score_text(o, digits=digits)
    with refused: show_table(ROWS, digits=digits)
    with refused: show_table(ROWS, digits=dict(mAP=digits))


def test_a_bare_word_is_one_column():
    frame = pd.DataFrame([[.1, .2, .3]], columns=['gain', 'a', 'ai'])
    assert body(show_table(frame, sign='gain')) == body(show_table(frame, sign=['gain'])) == [['+0.100', '0.200', '0.300']]
    assert body(show_table(frame, sign=None)) == body(show_table(frame))
    numbered = frame.set_axis([3, 4, 5], axis=1)
    assert body(show_table(numbered, sign=4)) == [['0.100', '+0.200', '0.300']]


def test_a_column_of_two_levels_is_one_column_too():
    frame = pd.DataFrame([[.1, .2]], columns=pd.MultiIndex.from_tuples([('ours', 'gain'), ('paper', 'gain')]))
    assert body(show_table(frame, sign=('ours', 'gain'))) == [['+0.100', '0.200']]
    assert body(show_table(frame, sign=[('paper', 'gain')])) == [['0.100', '+0.200']]
    with pytest.raises(ValueError, match="sign names 'gain', which is not there"): show_table(frame, sign='gain')


@pytest.mark.parametrize('wrong,sentence', [
    (dict(sign=('mapp',)), "sign names 'mapp', which is not there; did you mean 'mAP'?"),
    (dict(sign='zzz'), "sign names 'zzz', which is not there; it must be one of mAP, age, n"),
    (dict(best={'zzz': 'max'}), "best names 'zzz', which is not there; it must be one of mAP, age, n"),
    (dict(best={'mAP': 'max'}, axis=1), "best names 'mAP', which is not there; it must be one of a, b, c"),
    (dict(best={'mAP': 'maxx'}), "best must be one of max, min, got 'maxx'; did you mean 'max'?"),
    (dict(best='maximum'), "best must be one of max, min, got 'maximum'"),
    (dict(best=['max']), "best must be one of max, min, got ['max']"),
    (dict(digits={'zz': 1}), "digits names 'zz', which is not there; it must be one of mAP, age, n"),
    (dict(axis=2), 'axis must be one of 0, 1, got 2'),
    (dict(axis='columns'), "axis must be one of 0, 1, got 'columns'"),
    (dict(shade='emotion'), "shade must be {column or row: aspect}, or sub-tasks such as PORTRAIT, got 'emotion'"),
    (dict(shade=3), 'shade must be {column or row: aspect}, or sub-tasks such as PORTRAIT, got 3'),
    (dict(shade=dict(mAP=['emotion'])), 'shade must be {column or row: aspect}')])
def test_an_argument_that_cannot_be_meant_is_one_sentence(wrong, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)): show_table(ROWS, **wrong)


@pytest.mark.parametrize('argument', ['sign', 'best', 'digits'])
def test_one_list_serves_several_tables_but_hides_no_misspelt_name(argument):
    rule = dict(best='max', digits=3).get(argument)
    def show(*names):
        return show_table(ROWS, **{argument: list(names) if argument == 'sign' else dict.fromkeys(names, rule)})
    assert body(show('mAP', 'paper')) == body(show('mAP'))
    assert body(show('mAP', 'map')) == body(show('mAP')) # close to a column that is named itself
    with pytest.raises(ValueError, match="names 'agee', which is not there; did you mean 'age'?"): show('mAP', 'agee')
    none_there = "names 'paper', which is not there; it must be one of mAP, age, n"
    with pytest.raises(ValueError, match=none_there): show('paper', 'high')


@pytest.mark.parametrize('nothing', [None, 3, 'abc', float('nan')])
def test_what_is_no_table(nothing):
    with pytest.raises(ValueError, match='show_table takes a DataFrame or a Series, got '): show_table(nothing)


def test_a_table_without_rows_or_columns_takes_every_name():
    empty = show_table(pd.DataFrame(), best='max', sign='gain', digits=dict(a=1), caption='Nothing yet.')
    assert str(empty) == 'Nothing yet.'
    assert str(show_table(pd.DataFrame())) == '' and '<table' in show_table(pd.DataFrame()).html()
    assert str(show_table(ROWS.iloc[:0], best=dict(a='max'), axis=1)).count('\n') == 1
    assert body(show_table(pd.DataFrame(index=['a', 'b']))) == [['a'], ['b']]


@pytest.mark.parametrize('name,text', [(3, '3'), (0, '0'), (('a', 'b'), "('a', 'b')"), (None, ''), ('row', 'row')])
def test_every_name_of_an_index_is_a_heading(name, text):
    frame = ROWS.copy()
    frame.index.name = name
    table = show_table(frame)
    assert table.heads[0][0] == text and str(table).startswith(f'| {text} ') and f'>{text}</th>' in table.html()


def test_tuples_in_an_index_are_levels_if_they_are_equally_long():
    frame = pd.DataFrame(dict(mAP=[.1, .2]))
    frame.index = pd.Index([('x', 1), ('x', 2)], tupleize_cols=False, name='net')
    table = show_table(frame, shade=dict(x='emotion'))
    assert table.heads == [['net', '', 'mAP']] and body(table) == [['x', '1', '0.100'], ['', '2', '0.200']]
    assert colour_of(table.html(), '0.200').group(1) == rgb(ASPECT_COLOURS['emotion'])
    frame.index = pd.Index([('x', 1), 'y'], tupleize_cols=False)
    assert body(show_table(frame)) == [["('x', 1)", '0.100'], ['y', '0.200']]


def test_rows_that_only_print_alike_keep_their_names():
    frame = pd.DataFrame(dict(a=[.1, .2]), pd.MultiIndex.from_tuples([(.10001, 'x'), (.10002, 'y')]))
    assert [o[0] for o in body(show_table(frame))] == ['0.100', '0.100']


def test_a_caption_may_be_none_or_no_text():
    assert str(show_table(ROWS, caption=None)) == str(show_table(ROWS))
    assert show_table(ROWS, caption=None).html() == show_table(ROWS).html()
    assert str(show_table(ROWS, caption=7)).startswith('7\n\n| ')


def test_decimals_win_like_floats():
    frame = pd.DataFrame(dict(a=[Decimal('.1'), Decimal('.3'), Decimal('NaN')], b=[.2, Decimal('.1'), None]))
    assert body(show_table(frame, best='max')) == [['0.100', '**0.200**'], ['**0.300**', '0.100'], ['', '']]


def test_an_infinite_number_stays_on_its_side():
    for o in (np.inf, -np.inf, Decimal('1e500')): assert show_table(pd.DataFrame(dict(a=[.5, o]))).is_right == [True]
    assert show_table(pd.DataFrame(dict(a=[.5, 'information']))).is_right == [False]


def test_whole_numbers_beside_an_empty_cell():
    "Int64 and objects keep them whole; a float is a score, even if it is 1"
    frame = pd.DataFrame(dict(score=[1., np.nan], n=pd.array([3, None], 'Int64'), o=pd.Series([3, None], dtype=object)))
    assert body(show_table(frame)) == [['1.000', '3', '3'], ['', '', '']]


@pytest.mark.parametrize('text', [
    '\\<img src=x>', '![p](http://evil/p.png)', 'a\\|b', '&lt;', '**x**', '`x`', 'a\r\x0b\x85\u2028b'])
def test_a_table_as_text_is_never_read_as_markup(text):
    line = show_table(pd.DataFrame(dict(a=[text]))).markdown().split('\n')
    assert len(line) == 3 and len(line[2].splitlines()) == 1
    inner = line[2].strip('| ')
    assert not re.search(r'(?<!\\)(?:\\\\)*[|<`\[\]*&]', inner)
    assert re.sub(r'\\(.)', r'\1', inner).split() == text.split()

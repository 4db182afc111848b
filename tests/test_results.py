"What is said of lines of results"
import numpy as np
import pandas as pd
import pytest

from portrait_nb.results import (LEVEL, SIGNED, agreement, check_lines, rows_table, score_aspects, scored_on,
                                 show_differences, show_rows, summary, verdicts)
from portrait_nb.style import show_table
from portrait_nb.tasks import Task, Tasks

PAPER = pd.DataFrame(dict(PIQ=[.5, .4, .495]), index=['a', 'b', 'c'])


def difference(d, half=.01, n=3, a='a', b='b', score='PIQ'):
    return dict(a=a, b=b, score=score, difference=d, low=d-half, high=d+half, trainings=n)


@pytest.mark.parametrize('d,n,verdict', [
    (.05, 3, 'clearly above'), (-.05, 2, 'clearly below'), (.005, 3, 'not told apart'), (.01, 3, 'not told apart'),
    (.05, 1, 'one training'), (np.nan, 3, 'not told apart')])
def test_a_verdict_is_about_our_result(d, n, verdict):
    assert verdicts(pd.DataFrame([difference(d, n=n)])).tolist() == [verdict]


@pytest.mark.parametrize('pair,d,words', [
    (('a', 'b'), .05, ('clearly above', 'above', 'the same sign')),
    (('a', 'b'), -.05, ('clearly below', 'above', 'the opposite')),
    (('b', 'a'), -.05, ('clearly below', 'below', 'the same sign')),
    (('a', 'c'), .05, ('clearly above', 'level', 'level in the paper')),
    (('a', 'b'), 0., ('not told apart', 'above', 'not told apart'))])
def test_ours_and_the_papers_have_columns_of_their_own(pair, d, words):
    table = show_differences(pd.DataFrame([difference(d, a=pair[0], b=pair[1])]), PAPER, [pair])
    assert (table.verdict.iloc[0], table['in the paper'].iloc[0], agreement(table).iloc[0]) == words
    assert table.paper.iloc[0] == pytest.approx(PAPER.PIQ[pair[0]]-PAPER.PIQ[pair[1]], abs=5e-4)


def test_rows_that_the_paper_does_not_have_get_a_verdict_only():
    table = show_differences(pd.DataFrame([difference(.05, b='ours')]), PAPER, [('a', 'ours'), ('a', 'b')])
    assert list(table) == ['difference', 'low', 'high', 'trainings', 'verdict'] and len(table) == 1


def test_level_is_narrower_than_what_the_paper_discusses():
    assert LEVEL == .01


def test_lines_of_several_kinds_are_refused():
    lines = pd.DataFrame(dict(row=['a', 'b'], seed=[0, 0], PIQ=[.1, .2], PIQ_low=[0, .1], PIQ_high=[.2, .3]))
    check_lines(lines)
    for column in ('scale', 'data', 'size'):
        with pytest.raises(ValueError, match=rf"several kinds \({column}: x, y\).*results\[results.{column}=='x'\]"):
            summary(lines.assign(**{column: ['x', 'y']}))
    with pytest.raises(ValueError, match="'a' has several lines of seed 0"):
        show_rows(pd.concat([lines, lines]), PAPER, ['a'])


def test_what_was_scored_in_words():
    lines = pd.DataFrame(dict(row=['a', 'a', 'b'], seed=[0, 1, 0]))
    assert [scored_on(lines, o) for o in (None, ['a'], ['b'], ['z'])] == [
        'here, means of 1 to 2 trainings', 'here, means of 2 trainings', 'here, one training', 'nothing yet']


def test_every_score_of_a_table_has_an_aspect_but_piq():
    aspects = score_aspects()
    assert {aspects[o] for o in ('mAP', 'rank1', 'plain_mAP', 'plain_rank5', 'age')} == {'appearance'}
    assert aspects['body'] == 'posture' and aspects['expression'] == 'emotion' and 'PIQ' not in aspects
    assert score_aspects(Tasks([Task('hat', 'clothes', ['cap', 'none'])]))['hat'] == 'clothes'


def test_rows_to_look_at_keep_their_digits():
    lines = pd.DataFrame(dict(row=['a', 'b'], seed=[0, 0], PIQ=[.1385, .13]))
    table = rows_table(lines, PAPER, ['a', 'b'])
    assert str(table).splitlines()[-1].split() == '| PIQ | **0.139** | 0.130 | **0.500** | 0.400 |'.split()
    assert table.caption.startswith('Ours: here, one training')


def test_differences_are_printed_with_their_sign():
    table = show_differences(pd.DataFrame([difference(.0125)]), PAPER, [('a', 'b')])
    assert '+0.013' in str(show_table(table, sign=SIGNED)) and '+0.100' in str(show_table(table, sign=SIGNED))
    assert str(show_table(show_differences(pd.DataFrame([difference(.1)]), PAPER, []), sign=SIGNED)).count('\n') == 1

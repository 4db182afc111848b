"What `.ci` refuses: every check finds the fault that it is for, and passes a good page"

import ast
import importlib
import json
import sys
from pathlib import Path

import pytest

CI = Path(__file__).parent.parent/'.ci'
GOOD = "We draw a line here, and you can see it below. We keep it short for you."


@pytest.fixture
def check(tmp_path, monkeypatch):
    "A function: the faults that a check of `.ci` finds in a notebook with these cells"
    monkeypatch.syspath_prepend(str(CI))
    for name in ('check_layout', 'check_notebooks', 'check_reading', 'check_prose'): sys.modules.pop(name, None)

    def load(name):
        module = importlib.import_module(name)
        monkeypatch.setattr(module, 'root', tmp_path)
        return module

    def faults(name, *cells, wing='scores', stem='010_metrics', function='faults_of'):
        path = tmp_path/'nbs'/wing/f'{stem}.ipynb'
        path.parent.mkdir(parents=True, exist_ok=True)
        found = [dict(cell_type=kind, source=source, **(dict(outputs=outputs) if kind == 'code' else {}))
                 for kind, source, outputs in cells]
        path.write_text(json.dumps(dict(cells=found)))
        module = load(name)
        return list(getattr(module, function)(path if function == 'faults_of' else [path]))

    yield faults
    for name in ('check_layout', 'check_notebooks', 'check_reading', 'check_prose'): sys.modules.pop(name, None)


def md(text): return 'markdown', text, []


def code(text, *kinds): return 'code', text, [dict(output_type='display_data', data={k: ''}) for k in kinds]


def test_a_good_page_passes(check):
    cells = [md(GOOD), code('#| export\ndef f(x): return x'), code('#| fig-alt: "a line"\nf(1)', 'image/png')]
    assert check('check_prose', *cells) == []
    assert check('check_reading', *cells) == []


@pytest.mark.parametrize('text, words', [
    ('The line is drawn. It is short.', '0 times "we" or "you"'),
    (f'{GOOD} We stop; you go; we stay.', 'semicolons in 100 sentences'),
    (f'{GOOD}\n\n::: {{.callout-note title="Our choice"}}\n\nWe stop.', 'opened and not closed'),
    (f'{GOOD}\n\n:::\n\n::: {{.callout-note}}\n', 'opened and not closed, or closed and not opened'),
    (f'{GOOD}\n\n> **Our choice.** We stop.', 'not a quotation'),
    (f'{GOOD}\n\n::: {{.callout-note title="Our choice"}}\n\n{"we " * 61}\n\n:::', '"Our choice" of 61 words'),
    (f"{GOOD}\n\n::: {{.callout-note title='Our choice'}}\n\n{'we ' * 61}\n\n:::", '"Our choice" of 61 words'),
])
def test_prose_that_does_not_speak_is_named(check, text, words):
    found = check('check_prose', md(text))
    assert len(found) == 1 and words in found[0]


def test_semicolons_and_people_in_code_do_not_count(check):
    assert check('check_prose', md(f'{GOOD} `a; b; c` and $x; y$.\n\n```sh\na; b; c\n```')) == []
    assert '0 times' in check('check_prose', md('The words `we` and `you` are code.'))[0]


def test_a_picture_needs_words(check):
    assert 'cell 1: a picture' in check('check_prose', md(GOOD), code('plot()', 'text/plain', 'image/png'))[0]
    assert check('check_prose', md(GOOD), code('table()', 'text/plain', 'text/html')) == []
    assert 'cell 1: a picture' in check('check_prose', md(GOOD), code('#| fig-alt: ""\nplot()', 'image/png'))[0]
    assert 'cell 1: a picture' in check('check_prose', md(GOOD), code('play()', 'image/gif'))[0]


def test_a_division_in_a_code_fence_is_code(check):
    assert check('check_prose', md(f'{GOOD}\n\n```md\n::: {{.callout-note}}\n```')) == []


@pytest.mark.parametrize('source, words', [
    ('x = 1 + ' + ' + '.join('1' * 40), 'characters'),
    ('#| export\ndef f():\n' + '\n'.join(f'    x{i} = {i}' for i in range(60)), 'an exported cell of 61 lines'),
    ('#| export\ndef f(x): return [[g(h(a + b*c)) for a, b in x if a and b] for c in zip(x, x)]', 'syntax nodes per line'),
    ('#| export\ndef f(x): return x', '0 of 1 definitions'),
])
def test_code_that_is_hard_to_read_is_named(check, source, words):
    assert any(words in o for o in check('check_reading', code(source)))


def test_one_long_string_may_fill_a_line(check):
    assert check('check_reading', code(f"message = '{'a' * 140}'")) == []
    assert check('check_reading', code(f'#| fig-alt: "{"a line " * 30}"\nplot()')) == []
    assert '165 characters' in check('check_reading', code(f"message = '{'a' * 153}'"))[0]


@pytest.mark.parametrize('wing, stem, source, words', [
    ('nowhere', '010_metrics', '#| default_exp metrics', 'not in a wing'),
    ('scores', '12_metrics', '#| default_exp metrics', 'begin with a number by tens'),
    ('scores', '010_metrics', '#| default_exp scores', 'has to be metrics'),
    ('draw', '010_brush', '#| default_exp brush', 'has to be draw.brush'),
])
def test_a_notebook_out_of_its_place_is_named(check, wing, stem, source, words):
    found = check('check_layout', code(source), wing=wing, stem=stem, function='misplaced')
    assert len(found) == 1 and words in found[0]


@pytest.mark.parametrize('source', ['from portrait_nb.learner import fss_learner', 'from .learner import fss_learner',
                                    'import portrait_nb.learner', 'from portrait_nb import learner'])
def test_an_import_of_what_comes_later_is_named(check, tmp_path, source):
    cells = [code('#| default_exp metrics'), code(f'#| export\n{source}')]
    later = tmp_path/'nbs'/'training'/'030_learner.ipynb'
    later.parent.mkdir(parents=True)
    later.write_text(json.dumps(dict(cells=[dict(cell_type='code', source='#| default_exp learner', outputs=[])])))
    check('check_layout', *cells, function='misplaced')
    layout = importlib.import_module('check_layout')
    found = list(layout.wrong_imports([tmp_path/'nbs'/'scores'/'010_metrics.ipynb', later]))
    assert len(found) == 1 and 'which comes later' in found[0]


def test_a_private_name_of_another_module_is_named(check, tmp_path):
    check('check_layout', function='misplaced')
    layout = importlib.import_module('check_layout')
    path = tmp_path/'nbs'/'scores'/'010_metrics.ipynb'
    def found(source): return list(layout.private_imports([(path, 'metrics', source)]))
    assert 'imports _codes of portrait_nb.search' in found('from portrait_nb.search import _codes, ranks')[0]
    assert found('from portrait_nb.search import ranks') == found('from portrait_nb.metrics import _own') == []


@pytest.mark.parametrize('text', ['{"cells": [', '<<<<<<< HEAD', '[]', '{}', '{"cells": [1]}',
                                  '{"cells": [{"cell_type": "code"}]}'])
@pytest.mark.parametrize('name', ['check_prose', 'check_reading', 'check_layout'])
def test_a_file_that_is_no_notebook_is_named(check, tmp_path, name, text):
    check(name, function='faults_of' if name != 'check_layout' else 'misplaced')
    broken = tmp_path/'nbs'/'scores'/'010_metrics.ipynb'
    broken.write_text(text)
    module = importlib.import_module(name)
    with pytest.raises(SystemExit, match='010_metrics.ipynb: not a notebook'):
        module.module_of(broken) if name == 'check_layout' else list(module.faults_of(broken))


def test_an_exported_cell_that_is_no_python_is_named(check, tmp_path):
    check('check_layout', code('#| default_exp metrics'), code('#| export\ndef f(:'), function='misplaced')
    layout = importlib.import_module('check_layout')
    found = list(layout.no_python([tmp_path/'nbs'/'scores'/'010_metrics.ipynb']))
    assert len(found) == 1 and '010_metrics.ipynb: an exported cell is no Python' in found[0] and 'def f(:' in found[0]


def test_what_is_read_and_written_names_its_encoding():
    "The checks work where the locale's alphabet is another"
    for p in sorted(CI.glob('*.py')):
        calls = [o for o in ast.walk(ast.parse(p.read_text('utf-8'))) if isinstance(o, ast.Call)]
        for o in calls:
            name = getattr(o.func, 'attr', getattr(o.func, 'id', ''))
            if name not in ('open', 'read_text', 'write_text'): continue
            words = [*o.args, *(k.value for k in o.keywords)]
            assert any(getattr(w, 'value', '') == 'utf-8' for w in words), f'{p.name}:{o.lineno}'


def test_the_slowest_tests_run_first_and_all_of_them_run():
    from conftest import SLOW, slow_first
    there = sorted((CI.parent/'tests').glob('test_*.py'))
    assert [p.stem for p in slow_first(there)[:len(SLOW)]] == list(SLOW) and sorted(slow_first(there)) == there
    few, many = Path('test_a.py'), Path('test_b.py')
    assert slow_first([few, many, many]) == [many, few]


@pytest.mark.parametrize('last,stale', [
    ('x', False), ('x; y', False), ('show(x)', False), ('f"{x};"', False), ('x[test_eq]', False),
    ('x = 1', True), ('test_eq(1, 1)', True), ('plot(x);', True), ('with a: b', True), ('import json', True)])
def test_a_value_that_a_cell_no_longer_has_is_named(check, last, stale):
    value = dict(output_type='execute_result', data={'text/plain': ['1']})
    check('check_layout', ('code', f'y = 2\n{last}', [value]), function='misplaced') # writes the page
    notebooks = importlib.import_module('check_notebooks')
    assert notebooks.shows_nothing(f'y = 2\n{last}') == stale
    notebooks.root = importlib.import_module('check_layout').root
    found = [(p.as_posix(), i) for p, i in notebooks.with_stale_values()]
    assert found == ([('nbs/scores/010_metrics.ipynb', 0)] if stale else [])

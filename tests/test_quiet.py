"What long jobs print where nobody watches, and what a fresh process warns of."
import io, os, subprocess, sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from portrait_nb import quiet

PLAIN = {k: v for k, v in os.environ.items() if k not in ('PYTHONWARNINGS', 'PYCHARM_HOSTED')}


def run(code, *args):
    "What a fresh process prints into a pipe, under Python's own filters of warnings; nothing goes to stderr"
    r = subprocess.run([sys.executable, '-c', code, *map(str, args)], capture_output=True, text=True, env=PLAIN)
    assert r.returncode == 0 and r.stderr == '', r.stderr
    return r.stdout


def lines_of_bars(text): return [o for o in text.splitlines() if '%' in o]


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(quiet.LogBar, 'patience', 0)
    monkeypatch.setattr(quiet, 'IN_NOTEBOOK', False)


@pytest.mark.parametrize('n', [1, 3, 10, 11, 999, 12_000])
def test_a_line_per_tenth(hasty, n):
    with redirect_stdout(io.StringIO()) as log: assert list(quiet.progress_bar(range(n), leave=False)) == list(range(n))
    lines = log.getvalue().splitlines()
    assert len(lines) == min(n, 10) and lines[-1].startswith(f'100%  {n:,} of {n:,}') and '\r' not in log.getvalue()


def test_short_work_prints_nothing(monkeypatch):
    monkeypatch.setattr(quiet, 'IN_NOTEBOOK', False)
    with redirect_stdout(io.StringIO()) as log: assert sum(quiet.progress_bar(iter([1, 2]), total=2)) == 3
    assert log.getvalue() == ''


def test_nothing_to_do(hasty):
    with redirect_stdout(io.StringIO()) as log: assert list(quiet.progress_bar([])) == []
    assert log.getvalue() == ''


def test_what_stops_the_work_is_not_swallowed(hasty):
    with redirect_stdout(io.StringIO()), pytest.raises(KeyboardInterrupt):
        for _ in quiet.progress_bar(range(9)): raise KeyboardInterrupt


def test_a_terminal_has_a_bar_that_redraws_itself(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self): return True
    monkeypatch.setattr(quiet, 'IN_NOTEBOOK', False)
    with redirect_stdout(Terminal()) as screen: assert list(quiet.progress_bar(range(3))) == [0, 1, 2]
    assert '\r' in screen.getvalue() and '█' in screen.getvalue()


@pytest.fixture(scope='module')
def piped(portraits, tmp_path_factory):
    "What a drawing and a training print into a pipe, in one process"
    return run('''
import sys
from portrait_nb import quiet, synth
quiet.LogBar.patience = 0
synth.make_portraits(sys.argv[2], 'tiny')
print('AND NOW')
quiet.LogBar.patience = 99
from portrait_nb.annotations import read_annotations
from portrait_nb.data import portrait_dls
from portrait_nb.learner import fss_learner
from portrait_nb.tasks import PORTRAIT
import warnings
with warnings.catch_warnings():
    warnings.simplefilter('ignore') # of the table, which is noise
    df = read_annotations(sys.argv[1]+'/annotations.csv', sys.argv[1], PORTRAIT)
dls = portrait_dls(df, sys.argv[1], PORTRAIT, size=(32,16), bs=16)
learn = fss_learner(dls, 'test_resnet', pretrained=False, metric_loss=None)
quiet.LogBar.patience = 0
learn.fit(30, 1e-3)
''', portraits[0], tmp_path_factory.mktemp('piped')/'drawn').split('AND NOW\n')


def test_a_drawing_in_a_pipe(piped): assert '\r' not in piped[0] and len(lines_of_bars(piped[0])) == 10


def test_a_training_in_a_pipe(piped):
    "Thirty epochs: thirty rows of fastai's table, and ten lines of bars"
    text = piped[1]
    bars = lines_of_bars(text)
    assert '\r' not in text and len(bars) == 10 and all(' of 30  ' in o and 'loss' in o for o in bars)
    assert len(text.splitlines()) == 1+30+10


def test_what_reaches_a_first_screen():
    "The help of a command and an import print no warning of a dependency"
    command = Path(sys.executable).parent/'portrait_synth'
    r = subprocess.run([command, '--help'], capture_output=True, text=True, env=PLAIN)
    assert r.stdout.startswith('usage: portrait_synth') and r.stderr == ''
    run('import portrait_nb.learner, portrait_nb.demo, portrait_nb.runs')

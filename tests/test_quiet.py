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


class Clock:
    "Every look at it takes a second"
    now = 0
    def time(self):
        self.now += 1
        return self.now


@pytest.fixture
def ticking(hasty, monkeypatch): monkeypatch.setattr(quiet, 'time', Clock())


def seconds(text):
    h, m, s = ('0:'*(2-text.count(':'))+text).split(':')
    return 3600*int(h)+60*int(m)+int(s)


def spent_and_left(line):
    "The seconds before 'to go': passed, and to come"
    passed, left = line.split(' to go')[0].rsplit('  ', 1)[1].split(', ')
    return seconds(passed), seconds(left)


@pytest.mark.parametrize('first', [0, 1, 15, 19])
def test_a_training_that_goes_on_reckons_from_where_it_began(ticking, capsys, first):
    "Batches take equally long, so what has passed and what is to come make the same whole in every line"
    pytest.importorskip('fastai')
    from fastai.test_utils import synth_learner
    quiet.quiet_fastai()
    learn = synth_learner(n_trn=20, n_val=2)
    capsys.readouterr()
    learn.fit(20, start_epoch=first)
    lines = lines_of_bars(capsys.readouterr().out)
    shares = [int(o.split('%')[0]) for o in lines]
    assert len(lines) == 10 and shares[-1] == 100 and shares[0] > 5*first
    wholes = [sum(spent_and_left(o)) for o in lines[3:]] # the first ones count the start in
    assert max(wholes) <= 1.25*min(wholes)+2 # the bars of the validation take time too


def test_a_resumed_bar_by_hand(hasty, capsys):
    bar = quiet.LogMasterBar(range(20))
    bar.start -= 300
    bar.update(15)
    for o in (0, .5): bar.tell(o, '1.5')
    assert capsys.readouterr().out == ' 78%  epoch 16 of 20  05:00, 45:00 to go  loss 1.5\n'
    bar.update(19)
    bar.tell(1, '')
    bar.tell(1.5, '')
    bar.update(20)
    bar.tell(0, '')
    assert capsys.readouterr().out == '100%  epoch 20 of 20  05:00, 00:00 to go\n'


def test_a_bar_that_begins_at_its_end_says_nothing(hasty, capsys):
    bar = quiet.LogMasterBar(range(3))
    bar.update(3)
    for o in (0, .5, 1): bar.tell(o, '')
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize('hours,text', [
    (0, '00:00'), (1, '01:00:00'), (24, '24:00:00'), (25, '25:00:00'), (240, '240:00:00')])
def test_days_are_hours(hasty, capsys, hours, text):
    bar = quiet.LogBar(range(10))
    bar.start -= 3600*hours
    bar.tell(.5, '', '5 of 10')
    assert capsys.readouterr().out == f' 50%  5 of 10  {text}, {text} to go\n'


@pytest.mark.parametrize('total', [0, 3])
def test_more_than_there_should_be(hasty, capsys, total):
    assert list(quiet.progress_bar('abcd', total=total)) == list('abcd')
    lines = [o[:12] for o in capsys.readouterr().out.splitlines()]
    assert lines == [' 33%  1 of 3', ' 67%  2 of 3', '100%  3 of 3'][:total]


def test_a_generator_counts_without_a_share(ticking, capsys):
    assert list(quiet.progress_bar(o for o in range(1000))) == list(range(1000))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ['1  00:01', '2  00:02', '4  00:04'] and len(lines) == 10 and '%' not in ''.join(lines)
    assert list(quiet.master_bar(iter('ab'))) == ['a', 'b']


def test_a_training_of_unknown_length(ticking, capsys):
    master = quiet.master_bar(iter('abc'))
    for _ in master:
        for _ in quiet.progress_bar(iter('xy'), parent=master): pass
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == 'epoch 1  00:02' and '%' not in ''.join(lines)


def test_a_loader_whose_length_is_unknown(ticking):
    class Endless:
        def __len__(self): raise TypeError('has no length')
        def __iter__(self): return iter('ab')
    assert list(quiet.progress_bar(Endless())) == ['a', 'b']
    with redirect_stdout(io.StringIO()): assert list(quiet.progress_bar(Endless(), parent=object())) == ['a', 'b']


def test_a_terminal_counts_a_generator_too(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self): return True
    monkeypatch.setattr(quiet, 'IN_NOTEBOOK', False)
    with redirect_stdout(Terminal()):
        assert list(quiet.progress_bar(iter([]))) == [] and list(quiet.progress_bar(o for o in 'ab')) == ['a', 'b']
        assert list(quiet.master_bar(iter('ab'))) == ['a', 'b']


class NoFlush: # what some loggers put in place of the output
    isatty = False
    def __init__(self): self.text = ''
    def write(self, text): self.text += text


def test_an_output_that_is_closed_or_strange_stops_no_work(hasty):
    closed = io.StringIO()
    closed.close()
    for output in (closed, None, NoFlush()):
        with redirect_stdout(output):
            assert list(quiet.progress_bar('ab')) == ['a', 'b']
            quiet.master_bar(range(2)).write(['epoch'], table=True)
    assert output.text.splitlines()[-2:] == ['100%  2 of 2  00:00, 00:00 to go', 'epoch   ']


def test_a_pipe_that_breaks_is_heard(hasty):
    class Broken(io.StringIO):
        def write(self, text): raise BrokenPipeError
    with redirect_stdout(Broken()), pytest.raises(BrokenPipeError): list(quiet.progress_bar('ab'))


def test_a_row_of_numbers(hasty, capsys):
    bar = quiet.master_bar(range(2))
    bar.write(['epoch', 'train_loss'], table=True)
    bar.write([0, 1.5], table=True)
    assert capsys.readouterr().out.splitlines() == ['epoch     train_loss', '0         1.5       ']


def test_a_master_bar_has_the_bars_that_fastprogress_names(hasty):
    master = quiet.master_bar(range(2))
    child = quiet.progress_bar(range(3), parent=master)
    assert master.child is child and master.main_bar.total == 2
    master.main_bar.comment = child.comment = 'fine'

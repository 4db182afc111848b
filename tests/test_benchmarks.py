"""The training benchmark and the page that reads it, where no GPU is needed.

Rows that fail, calls that end early, what is timed, and files that hold only a part."""
import json, os, sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.basics import Callback
from torch import nn

import portrait_nb
from portrait_nb import runs

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO/'tests'/'benchmarks'))
import bench_subtasks
import bench_training as bench
import common

TINY = dict(model='test_resnet', size=(64, 32), bs=8, ladder=bench.LADDER)
NOW = dict(date='2026-01-02', commit='1878180', hardware='some GPU')


@pytest.fixture
def child(tmp_path, monkeypatch):
    "Lets a shell script take the place of Python in child processes"
    def write(script):
        file = tmp_path/'python'
        file.write_text(f'#!/bin/sh\n{script}\n')
        file.chmod(0o755)
        monkeypatch.setattr(sys, 'executable', str(file))
    return write


@pytest.fixture
def called(tmp_path, monkeypatch):
    "Run `main` with rows that are measured in an instant, on a machine that calls itself a GPU; tells which were"
    measured = []
    def lines(device, row, limit):
        measured.append(row)
        return [dict(bench.about(device, row), method='bare', ms=1., threads=3, commit='of the child')]
    monkeypatch.setattr(bench, 'in_own_process', lines)
    monkeypatch.setattr(runs, 'environment', lambda: dict(NOW))
    def run(*args):
        measured.clear()
        bench.main(bench.parse(['gpu', *map(str, args)]))
        return list(measured)
    return run


# a checkout that is not installed, on a machine that is only lent

def test_a_checkout_that_is_not_installed_knows_its_version(monkeypatch):
    def version(name):
        if name == 'portrait_nb': raise PackageNotFoundError(name)
        return '9.9'
    monkeypatch.setattr(runs, 'version', version)
    assert runs.environment()['portrait_nb'] == portrait_nb.__version__ and runs.environment()['timm'] == '9.9'


def test_children_see_this_checkout_and_what_was_on_the_path(tmp_path, monkeypatch):
    (tmp_path/'only_here.py').write_text('x = 3')
    script = tmp_path/'script.py'
    script.write_text('import json, only_here, portrait_nb; print(json.dumps([only_here.x, portrait_nb.__file__]))')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    assert common.in_own_process(script) == [3, str(REPO/'portrait_nb'/'__init__.py')]
    monkeypatch.delenv('PYTHONPATH')
    assert common.child_environment()['PYTHONPATH'] == str(REPO)


# rows that fail

@pytest.mark.parametrize('script, reason', [
    ('kill -9 $$', 'exit code -9'), ('echo half a line >&2; kill -11 $$', 'exit code -11'), ('exit 3', 'exit code 3'),
    ('echo one >&2; echo "ValueError: two" >&2; exit 1', 'ValueError: two'), ('true', 'exit code 0')])
def test_a_child_that_dies_leaves_a_line(child, script, reason):
    child(script)
    [line] = bench.in_own_process('gpu', 'step resnet50 bf16', 30)
    assert line == dict(device='gpu', row='step resnet50 bf16', method='', size='256x128', model='resnet50',
                        variant='bf16', bs=128, note=f'failed: {reason}')


def test_the_bench_goes_on_after_a_death(child, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, 'environment', lambda: dict(NOW))
    file = tmp_path/'out'/'speed.csv'
    for script in ('kill -9 $$', 'exec sleep 30'):
        child(script)
        steps = ['step resnet50 fp32', 'step resnet50 tf32']
        bench.main(bench.parse(['gpu', *steps, '--results', str(file), '--limit', '1', '--again']))
        table = bench.read(file)
        assert list(table.row) == steps and (table.commit == '1878180').all()
        assert set(table.note) == {'failed: exit code -9' if 'kill' in script else 'not finished in 1 s'}


def test_an_error_within_a_row_is_its_note(monkeypatch, capsys):
    def broken(setup, device):
        raise RuntimeError("backend='inductor' raised:\nTritonError: too large\n\nSet TORCHDYNAMO_VERBOSE=1")
    monkeypatch.setitem(bench.KINDS, 'ceilings', broken)
    [line] = bench.one('cpu', 'ceilings')
    assert line['note'] == "failed: RuntimeError: backend='inductor' raised: TritonError: too large"
    assert line['method'] == '' and line['torch']
    assert 'in broken' in capsys.readouterr().err


# calls that end early, files that go on

def test_the_most_telling_rows_come_first():
    names = list(bench.rows_of('gpu'))
    kinds = [o.split()[0] for o in names]
    assert names[:7] == [f'step hrnet_w32 {o}' for o in bench.LADDER]
    assert kinds[7:].index('learner') < kinds[7:].index('loader') < kinds[7:].index('epoch')
    last_of_others = max(i for i, o in enumerate(names) if 'resnet50' not in o)
    assert last_of_others < min(i for i, o in enumerate(names) if 'resnet50' in o)
    assert set(bench.rows_of('cpu')) >= {'count hrnet_w32', 'loader 256x128', 'epoch resnet18 0 workers'}


def test_a_later_call_goes_on_with_the_same_file(called, tmp_path):
    file = tmp_path/'lent'/'speed.csv'
    steps = [f'step hrnet_w32 {o}' for o in bench.LADDER]
    assert called('step hrnet_w32', '--results', file) == steps
    table = bench.read(file)
    assert list(table.row) == steps and set(table.commit) == {'1878180'}
    assert set(table.threads) == {3} and set(table.hardware) == {'some GPU'}
    assert called('hrnet_w32 bf16', '--results', file) == []
    assert called('hrnet_w32 bf16', '--results', file, '--commit', 'abc') == ['step hrnet_w32 bf16']
    assert called('hrnet_w32 bf16', 'hrnet_w32 tf32', '--results', file, '--commit', 'abc') == ['step hrnet_w32 tf32']
    assert sorted(bench.read(file).row) == sorted(steps)


def test_no_row_is_begun_after_the_minutes(called, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench.time, 'perf_counter', iter(np.arange(0, 1e4, 30)).__next__)
    file = tmp_path/'speed.csv'
    done = called('step', '--results', file, '--minutes', 3)
    assert 1 < len(done) < 14 and list(bench.read(file).row) == done == list(bench.rows_of('gpu'))[:len(done)]
    assert 'the 3 minutes are over' in capsys.readouterr().out


def test_a_row_that_the_minutes_cut_off_is_left_to_the_next_call(child, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, 'environment', lambda: dict(NOW))
    child('exec sleep 30')
    bench.main(bench.parse(['gpu', 'ceilings', '--results', str(tmp_path/'speed.csv'), '--minutes', '.02']))
    assert not (tmp_path/'speed.csv').exists()


def test_lines_from_another_machine_are_taken_in(called, tmp_path):
    here, there = tmp_path/'here.csv', tmp_path/'there.csv'
    called('ceilings', '--results', here)
    called('losses', 'ceilings', '--results', there, '--commit', '0012345')
    assert called('--take', there, '--results', here) == []
    assert dict(zip(bench.read(here).row, bench.read(here).commit)) == {o: '0012345'
                                                                        for o in ('ceilings', 'losses hrnet_w32',
                                                                                  'losses resnet50')}


def test_a_folder_is_no_file_of_results(called, tmp_path):
    with pytest.raises(SystemExit, match='is a folder'): called('--results', tmp_path)


# what is timed

@pytest.fixture
def fake_clock(monkeypatch):
    "A clock that only moves when it is told"
    class Clock: now = 0.
    monkeypatch.setattr(bench, 'clock', lambda device: Clock.now)
    def spend(seconds): Clock.now += seconds
    return spend


def test_what_comes_before_a_turn_is_not_timed(fake_clock):
    took = bench.in_turns(dict(a=lambda: fake_clock(1), b=lambda: fake_clock(2)), 'cpu', 3, lambda k: fake_clock(100))
    assert took == dict(a=[1]*3, b=[2]*3)


def test_gradients_are_there_for_every_turn_of_both_adams(monkeypatch):
    counts, took = [], bench.in_turns
    def in_turns(methods, device, turns, before):
        def noted(k, f):
            def run():
                opt = f.args[0]
                counts.append(sum(p.grad is not None and p.grad.abs().sum() > 0 for p, *_ in opt.all_params()))
                f()
            return run
        return took({k: noted(k, f) for k, f in methods.items()}, device, 1, before)
    monkeypatch.setattr(bench, 'in_turns', in_turns)
    found = bench.optimiser(dict(TINY, variant='fused'), 'cpu')
    assert set(found) == {'Adam of fastai', 'FusedAdam'} and counts[0] > 50
    assert counts[:2] == [counts[0]]*2 and counts[3] == counts[0]


def test_the_learners_ratio_counts_steps_and_not_what_fit_prepares(fake_clock, monkeypatch):
    monkeypatch.setattr(bench, 'n_steps', lambda f, device: 4)
    class Costs(Callback):
        order = -200
        def before_fit(self): fake_clock(100)
        def before_train(self): fake_clock(100)
        def after_batch(self): fake_clock(2)
        def after_train(self): fake_clock(.5)
        def after_fit(self): fake_clock(100)
    learn, _ = bench.build(dict(TINY, variant='fp32'), 'cpu')
    learn.add_cb(Costs())
    took, n, ratio = bench.by_epochs(learn, lambda: fake_clock(1), 'cpu')
    assert n == 4 and set(took['bare']) == {4} and set(took['Learner']) == {8.5} and ratio == 4/8.5


# what torch.compile made of it

class Net(nn.Module):
    def __init__(self, cut): super().__init__(); self.l, self.cut = nn.Linear(3, 3), cut
    def forward(self, x):
        x = self.l(x)
        if self.cut: torch._dynamo.graph_break()
        return self.l(x)


@pytest.mark.parametrize('cut', [False, True])
def test_cut_graphs_are_counted(cut):
    torch.compiler.reset()
    before = bench.compiled_so_far()
    torch.compile(Net(cut), backend='eager')(torch.randn(2, 3)).sum().backward()
    found = bench.bare_compiled(dict(TINY, variant='compile'), before)
    assert found['graphs'] == 1+cut and (found['compiled'].startswith('cut: ') if cut else found['compiled'] == 'whole')
    assert bench.bare_compiled(dict(TINY, variant='fused'), before) == {}


@pytest.mark.parametrize('broken', [False, True])
def test_rows_say_what_was_compiled(monkeypatch, broken):
    "A graph of the network and two of the losses, in the bare loop and in the Learner, none of them compiled again, or why not"
    def backend(graph, inputs):
        if broken: raise RuntimeError('no such\nthing')
        return graph.forward
    def interpreted(graph, inputs): return graph.forward
    plain, compiles = torch.compile, []
    def lookup(name):
        def noted(*args):
            compiles.append(name)
            return backend(*args)
        return noted
    monkeypatch.setattr(torch, 'compile', lambda f, backend=interpreted: plain(f, backend=backend))
    monkeypatch.setattr('portrait_nb.callbacks.lookup_backend', lookup)
    monkeypatch.setattr(bench, 'PAIRS', 3)
    found = bench.learner(dict(TINY, variant='compile_loss'), 'cpu')
    assert (found['bare']['graphs'], found['bare']['compiled']) == (3, 'whole')
    assert (found['Learner']['graphs'], found['Learner']['compiled']) == (3,
                                                                          'fell back: RuntimeError: no such thing'
                                                                          if broken else 'whole')
    assert compiles == ['inductor']*3 and found['Learner']['turns'] == found['bare']['turns'] == 3


def test_cudnn_is_left_as_a_training_leaves_it():
    torch.backends.cudnn.benchmark = False
    bench.build(dict(TINY, variant='fp32'), 'cpu')
    assert not torch.backends.cudnn.benchmark


# the page

def page(csv):
    "What nbs/tutorials/speed.ipynb shows of a GPU when it reads this file"
    outputs = []
    notebook = json.loads((REPO/'nbs'/'tutorials'/'speed.ipynb').read_text())
    cells = [''.join(o['source']) for o in notebook['cells'] if o['cell_type'] == 'code']
    space = dict(display=outputs.append, print=outputs.append)
    for part in ('import pandas', 'speed = pd.read_csv', 'counts = of(', 'def floor(', 'def gpu_table('):
        [cell] = [o for o in cells if part in o]
        exec(cell.replace("'../../results/training_speed.csv'", repr(str(csv))), space)
    return outputs


def gpu_lines():
    "Invented: a call that broke off early, and all that can go wrong"
    def line(row, **more): return dict(device='gpu', row=row, commit='1878180', hardware='some GPU', **more)
    def step(model, v, **more): return line(f'step {model} {v}', method='bare', model=model, variant=v, **more)
    fastest = {'product float32': 50., 'product tf32': 300., 'product bfloat16': 700.}
    return dict(
        steps=[step('hrnet_w32', 'fp32', images_per_second=100., ms=1280., peak_mb=9e4),
               step('hrnet_w32', 'bf16', images_per_second=300., ms=427.)],
        failed=[step('hrnet_w32', 'compile', note='failed: exit code -9'),
                line('ceilings', note='failed: out of memory')],
        cut=[step('resnet50', 'compile', images_per_second=900., ms=140., compiled='cut: a call')],
        ceilings=[line('ceilings', method=k, tflop_per_second=v) for k, v in fastest.items()],
        copy=[line('ceilings', method='copy', gbyte_per_second=4000.)],
        learner=[line('learner hrnet_w32 fused', method='Learner', model='hrnet_w32', variant='fused',
                      images_per_second=290., ratio=.97)],
        optimiser=[line('optimiser hrnet_w32', method='FusedAdam', model='hrnet_w32', ms=1.5)],
        epoch=[line('epoch hrnet_w32 8 workers', note='not finished in 300 s')])


def outputs_of(tmp_path, *parts):
    cpu = pd.read_csv(REPO/'results'/'training_speed.csv', dtype=dict(commit=str)).query("device=='cpu'")
    new = pd.DataFrame([o for part in parts for o in gpu_lines()[part]])
    pd.concat([cpu, new]).to_csv(tmp_path/'speed.csv', index=False)
    return page(tmp_path/'speed.csv')


PARTS = [['steps'], ['failed'], ['copy'], ['ceilings'], ['optimiser'], ['learner'], ['epoch'],
         ['steps', 'copy'], ['steps', 'epoch'], ['cut', 'learner'], [*gpu_lines()]]


@pytest.mark.parametrize('parts', PARTS, ids='-'.join)
def test_the_page_reads_any_part_of_the_file(tmp_path, parts):
    assert not any(isinstance(o, str) for o in outputs_of(tmp_path, *parts))


def test_the_page_shows_floors_failures_and_cuts(tmp_path):
    asks = pd.read_csv(REPO/'results'/'training_speed.csv').query("row=='count hrnet_w32'").iloc[0]
    hrnet, resnet, others = outputs_of(tmp_path, 'steps', 'failed', 'cut', 'learner', 'epoch')
    assert hrnet.note['compile'] == 'failed: exit code -9' and not any('allows' in o for o in hrnet)
    assert resnet.compiled['compile'] == 'cut: a call'
    assert set(others.note.dropna()) == {'failed: out of memory', 'not finished in 300 s'}
    hrnet, = outputs_of(tmp_path, 'steps', 'ceilings', 'copy')
    allowed = {'fp32': round(50e3/asks.gflop_per_image), 'bf16': round(700e3/asks.gflop_per_image)}
    assert hrnet['arithmetic allows'].to_dict() == allowed
    moved = {v: 2*asks.saved_mb_per_image*share+40*asks.million_weights/128 for v, share in (('fp32', 1), ('bf16', .5))}
    assert hrnet['memory allows'].to_dict() == {v: round(4e6/mb) for v, mb in moved.items()}
    hrnet, = outputs_of(tmp_path, 'steps', 'copy')
    assert 'memory allows' in hrnet and 'arithmetic allows' not in hrnet


def test_the_page_says_when_there_is_no_gpu(tmp_path):
    assert outputs_of(tmp_path) == ['The rows of a GPU have not been measured yet.']


# forty sub-tasks beside one head

def test_forty_sub_tasks_start_few_operations_and_train_all_weights():
    rows = {o['way']: o for o in bench_subtasks.measure('heads', 'test_resnet', 2)}
    assert list(rows) == list(bench_subtasks.WAYS)
    launches = {k: o['launches'] for k, o in rows.items()}
    assert launches['one by one'] > 10*launches['at once'] > 10*launches['one head']
    assert rows['one head']['ratio'] == 1 and all(o['ms'] > 0 and o['turns'] == 2 for o in rows.values())


@pytest.mark.parametrize('way', bench_subtasks.WAYS)
@pytest.mark.parametrize('part', ['heads', 'step'])
def test_a_step_of_the_bench_moves_what_it_says(part, way, monkeypatch):
    from portrait_nb.callbacks import FusedAdam
    made = []
    class Kept(FusedAdam):
        def __init__(self, params, **kwargs):
            super().__init__(params, **kwargs)
            made.append(self)
    monkeypatch.setattr('portrait_nb.callbacks.FusedAdam', Kept)
    steps, _ = bench_subtasks.build(way, 'test_resnet', (64, 64))
    weights = {k: [p for p, *_ in o.all_params()] for k, o in zip(('heads', 'step'), made, strict=True)}
    before = [p.detach().clone() for p in weights[part]]
    steps[part]()
    moved = [not torch.equal(p, old) for p, old in zip(weights[part], before)]
    if part == 'heads': assert len(moved) == (4 if way == 'one head' else 120) and all(moved)
    else: assert moved[0] and sum(moved) > .8*len(moved) # a residual block that begins at zero moves later


def test_the_file_says_that_forty_sub_tasks_cost_at_most_a_tenth():
    table = pd.read_csv(REPO/'results'/'subtasks_speed.csv', dtype=dict(commit=str))
    at_once = table[(table.part == 'step') & (table.way == 'at once')].set_index('backbone').ratio
    assert set(at_once.index) == set(bench_subtasks.BACKBONES) and (at_once < 1.1).all()
    assert not table.commit.str.endswith('+').any() and {'date', 'hardware', 'torch'} <= set(table)

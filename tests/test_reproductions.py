"The reproductions on photographs: the same cells, by one path in the environment"
import json
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from conftest import write_set
from test_sources import market_tree

import portrait_nb.ablation as ablation
import portrait_nb.synth as synth
from portrait_nb.ablation import read_results
from portrait_nb.annotations import read_annotations
from portrait_nb.rows import SCALES, TABLE4, TABLE5, TABLE5_PK
from portrait_nb.synth import image_table
from portrait_nb.tasks import PORTRAIT

NOTEBOOKS = Path(__file__).parents[1]/'nbs'/'reproductions'
pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture
def quick(monkeypatch, tmp_path):
    "The paper's scale, with small networks for an epoch; a folder like a checkout's, to run notebooks from"
    small = replace(SCALES['tiny'], name='paper', n_epoch=1, preset=None, bs=12,
                    stand_ins={o: ('test_byobnet', 32) for o in ('hrnet_w32', 'resnet50')})
    monkeypatch.setitem(SCALES, 'paper', small)
    monkeypatch.setattr(ablation.table_loaders, '__defaults__', (*ablation.table_loaders.__defaults__[:-1], (64, 32)))
    there = tmp_path/'checkout/nbs/reproductions'
    there.mkdir(parents=True)
    (there.parent/'facts').symlink_to(NOTEBOOKS.parent/'facts')
    (tmp_path/'checkout/results').symlink_to(NOTEBOOKS.parents[1]/'results')
    monkeypatch.chdir(there)
    yield tmp_path/'checkout/out/ablation'
    plt.close('all')


def run(name):
    "Every code cell of a notebook, without its lines for a shell"
    names = dict(display=lambda *_: None)
    for cell in json.loads((NOTEBOOKS/f'{name}.ipynb').read_text())['cells']:
        lines = [o for o in cell['source'] if not o.startswith('!')]
        if cell['cell_type'] == 'code': exec(''.join(lines), names)
    return names


@pytest.fixture
def portrait250k(monkeypatch, tmp_path):
    write_set(tmp_path/'p250k', n=60)
    monkeypatch.setenv('PORTRAIT250K', str(tmp_path/'p250k/annotations.csv'))


@pytest.mark.parametrize('name', ['metric_loss', 'weighting', 'sampling', 'backbone', 'sharing'])
def test_a_question_on_photographs(quick, portrait250k, tmp_path, name):
    names = run(f'table4_{name}')
    lines = read_results(quick/'paper.csv')
    assert set(lines.row) == set(names['rows']) and set(lines.scale) == {'paper'} and set(lines.train_images) == {30}
    assert set(lines.data) == {str(tmp_path/'p250k')} and set(names['results'].row) == set(names['rows'])
    assert set(names['differences'].a) <= set(names['rows']) and (names['differences'].trainings == 1).all()


def test_the_summary_of_what_was_trained(quick, portrait250k):
    rows = ['fss', 'br', 'triplet']
    scale, dls = ablation.loaders_of('PORTRAIT250K')
    TABLE4.run(dls, scale, rows, out=quick, results=quick/'paper.csv')
    names = run('summary')
    assert set(names['four'].row) == set(rows)
    assert set(names['verdicts'].index) == {('triplet', 'fss'), ('br', 'fss'), ('br', 'triplet')}
    assert set(names['verdicts'].verdict) == {'one training'}


def test_figure7_of_photographs(quick, portrait250k, tmp_path, monkeypatch):
    monkeypatch.setattr(synth, 'make_portraits', lambda *_: image_table('tiny')) # who is in it, without drawing it
    names = run('figure7')
    df = read_annotations(tmp_path/'p250k/annotations.csv', tmp_path/'p250k', PORTRAIT, verify=False)
    named = df[df.identity != '']
    assert names['source'] == 'From the table given'
    assert list(names['ours']) == [named.identity.nunique(), df.source.nunique(), len(named)]
    assert names['films']['sum'].sum() == len(named) and names['films']['size'].sum() >= named.identity.nunique()


def test_the_summary_has_five_tables():
    cells = json.loads((NOTEBOOKS/'summary.ipynb').read_text())['cells']
    assert sum('show_table(' in ''.join(o['source']) for o in cells if o['cell_type'] == 'code') == 5


def test_table5_on_market1501(quick, monkeypatch, tmp_path):
    root = tmp_path/'Market-1501-v15.09.15'
    market_tree(root)
    monkeypatch.setenv('MARKET1501', str(root))
    monkeypatch.setitem(SCALES, 'paper', replace(SCALES['paper'], bs=8))
    names = run('table5')
    lines = read_results(quick/'table5_paper.csv')
    assert set(lines.row) == {*TABLE5.rows, *TABLE5_PK.rows}
    assert set(lines.train_images) == {9}
    assert lines.plain_mAP.between(0, 1).all()
    assert set(lines.data) == {str(root)} and names['dls'].tasks.names == ['identity']
    assert pd.notna(lines.plain_rank1).all()

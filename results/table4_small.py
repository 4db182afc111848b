"""The tables of `reproductions`: every row of Table 4, of Table 5 and of ours, three trainings each (five of the paper's best row and of those of ours with its network), on the drawn portraits of seed 0 (synthetic).
Their softmax classifiers have no bias (`bias='none'`), as the library had it when they were trained.
python results/table4_small.py          trains what is missing; several processes may run it side by side, and each goes on where one was killed. It writes

table4_small.csv, _losses.csv   a line a training: setting, circumstances, all scores with their intervals; losses and uncertainties by epoch
table4_small_differences.csv    pairs of rows, compared on the same drawn people over the seeds that both have, luck of training counted in
table4_small_thresholds.csv     the expression by what probability claims a label: macro F1, and the average precision, which has no threshold

python results/table4_small.py short    the same at half the length, with maps of half the resolution: table4_short*.csv
python results/table4_small.py bias     the nine rows of Table 4 and our best three with a bias in the classifiers of the attributes, three trainings each: table4_bias*.csv"""
import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import average_precision_score

from portrait_nb.ablation import ROWS, SCALES, TABLE4, Experiments, run_predictions, drawn_loaders
from portrait_nb.metrics import macro_f1
from portrait_nb.runs import environment

OUT, SEEDS = 'out/ablation', (0, 1, 2)
MORE, MORE_SEEDS = ['uncertainty', 'no-metric', 'adjusted', 'gradnorm', 'dwa', 'br-mean', 'br-light'], (3, 4) # what is compared with the paper's best row, by more trainings
SHORT = replace(SCALES['small'], n_epoch=10, even=False, stand_ins=dict(hrnet_w32=('test_byobnet', 16), hrnet_w64=('byobnet_wide', 16), resnet50=('test_byobnet', None), tf_efficientnetv2_b0=('test_efficientnet', 16)))
WITHOUT = Experiments([replace(o, bias='none') for o in ROWS])
BIASED = [*(o.name for o in TABLE4 if o.name != 'single'), 'no-metric', 'adjusted', 'gradnorm']
ASKED = [('shared', 'single'), ('fss', 'single'), ('fss', 'shared'), ('triplet', 'fss'), ('br', 'fss'), ('br', 'triplet'), ('uncertainty', 'br'), ('uncertainty', 'single'), ('pk', 'shared'), ('shuffle', 'shared'), ('resnet50', 'shared')]
FIVE = [(f'reid-{a}{end}', f'reid-{b}{end}') for end in ('', '-pk') for a, b in (('triplet', 'none'), ('br', 'none'), ('br', 'triplet'))]
OURS = [('no-metric', 'fss'), ('gradnorm', 'fss'), ('dwa', 'fss'), ('br-mean', 'uncertainty'), ('br-light', 'uncertainty'), ('br-mean', 'br-light'), ('no-metric', 'br-mean'), ('no-metric', 'br-light'), ('adjusted', 'no-metric'), ('efficientnet', 'no-metric'), ('wide', 'no-metric'), ('br-pk', 'fss-pk'), ('fss-pk', 'fss'), ('br-pk', 'br')]
BEST = list(itertools.product(('no-metric', 'adjusted', 'gradnorm', 'dwa', 'br-mean', 'br-light', 'efficientnet', 'wide'), ('uncertainty', 'single')))
THRESHOLDS = np.arange(.05, .96, .05).round(2)


def expression(dls, row, seed, scale):
    "The expression of one training of `row`, a `Row`, by threshold"
    sure = next(o['sure']['expression'] for o in run_predictions(dls, row, scale, seed, OUT, False) if 'expression' in o['sure']).float()
    actual = torch.cat([o.dataset.labels['expression'] for o in (dls.query, dls.gallery)])
    known = (actual != -1).all(1)
    precision = average_precision_score(actual[known], sure[known], average='macro')
    return pd.DataFrame(dict(row=row.name, seed=seed, threshold=THRESHOLDS, f1=[macro_f1((sure > o).int(), actual, sure.shape[1]) for o in THRESHOLDS], average_precision=precision,
                             borne=actual[known].float().mean().item()))


def of_seeds(done, pairs):
    "{the seeds that both rows of a pair have: such pairs}"
    seeds, groups = done.groupby('row').seed.agg(set), {}
    for a, b in dict.fromkeys(pairs): groups.setdefault(tuple(sorted(seeds.get(a, set()) & seeds.get(b, set()))), []).append((a, b))
    return groups


if __name__ == '__main__':
    name = sys.argv[1] if sys.argv[1:] in (['short'], ['bias']) else 'small'
    here, scale = Path(__file__).parent/f'table4_{name}', SHORT if name == 'short' else SCALES['small']
    rows = ROWS if name == 'bias' else WITHOUT
    made, dls = {k: environment()[k] for k in ('commit', 'date')}, drawn_loaders(scale, 'out/small')
    asked = dict(small=[(None, SEEDS), (MORE, MORE_SEEDS)], short=[(None, SEEDS)], bias=[(BIASED, SEEDS), (['single'], SEEDS)])[name]
    done = pd.concat([rows.run(dls, scale, names, seeds, OUT, f'{here}.csv', 'drawn portraits, preset small (synthetic)') for names, seeds in asked])
    told = [rows.differences(dls, pairs, scale, seeds, OUT) for seeds, pairs in of_seeds(done, ASKED+FIVE+OURS+BEST).items() if len(seeds) > 1]
    pd.concat(told).round(5).assign(**made).to_csv(f'{here}_differences.csv', index=False)
    told = [expression(dls, rows[o.row], o.seed, scale) for o in done.itertuples() if pd.notna(o.expression)]
    pd.concat(told).round(5).assign(**made).to_csv(f'{here}_thresholds.csv', index=False)

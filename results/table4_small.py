"""The tables of `reproductions`, on the drawn portraits of seed 0 (synthetic)

python results/table4_small.py
    Every row of Table 4, of Table 5 and of ours, three trainings each (five of the paper's best row and of those of
    ours with its network). Their softmax classifiers have no bias (`bias='none'`), as the
    library had them at first: table4_small*.csv
python results/table4_small.py short
    The same at half the length, with maps of half the resolution: table4_short*.csv
python results/table4_small.py bias
    The nine rows of Table 4 and our best three with a bias in the classifiers of the attributes, three trainings each:
    table4_bias*.csv

Each trains what is missing. Several processes may run one side by side, and each goes on where one was killed.

NAME.csv, NAME_losses.csv   a line for each training: setting, circumstances, scores, intervals; losses by epoch
NAME_differences.csv        pairs of rows, compared on the same resampled people over the seeds that both have
NAME_thresholds.csv         the expression by what probability claims a label: macro F1, and the average precision
NAME_accuracies.csv         how often each attribute is right, and how often the train split's commonest label would be
"""
import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import average_precision_score

from portrait_nb.ablation import drawn_loaders, outcome_accuracies, run_predictions
from portrait_nb.metrics import macro_f1
from portrait_nb.rows import ROWS, SCALES, TABLE4, Experiments
from portrait_nb.runs import environment

OUT, SEEDS, DATA = 'out/ablation', (0, 1, 2), 'drawn portraits, preset small (synthetic)'
# what is compared with the paper's best row, by more trainings
MORE, MORE_SEEDS = ['uncertainty', 'no-metric', 'adjusted', 'gradnorm', 'dwa', 'br-mean', 'br-light'], (3, 4)
COARSE = dict(hrnet_w32=('test_byobnet', 16), hrnet_w64=('byobnet_wide', 16), resnet50=('test_byobnet', None),
              tf_efficientnetv2_b0=('test_efficientnet', 16))
SHORT = replace(SCALES['small'], n_epoch=10, even=False, stand_ins=COARSE)
WITHOUT = Experiments([replace(o, bias='none') for o in ROWS])
BIASED = [*(o.name for o in TABLE4 if o.name != 'single'), 'no-metric', 'adjusted', 'gradnorm']
TRAININGS = dict(small=[(None, SEEDS), (MORE, MORE_SEEDS)], short=[(None, SEEDS)],
                 bias=[(BIASED, SEEDS), (['single'], SEEDS)])

QUESTIONS = [('shared', 'single'), ('fss', 'single'), ('fss', 'shared'), ('triplet', 'fss'), ('br', 'fss'),
             ('br', 'triplet'), ('uncertainty', 'br'), ('uncertainty', 'single'), ('pk', 'shared'), ('shuffle', 'shared'), ('resnet50', 'shared')]
FIVE = [(f'reid-{a}{end}', f'reid-{b}{end}')
        for end in ('', '-pk') for a, b in (('triplet', 'none'), ('br', 'none'), ('br', 'triplet'))]
OURS = [('no-metric', 'fss'), ('gradnorm', 'fss'), ('dwa', 'fss'), ('br-mean', 'uncertainty'),
        ('br-light', 'uncertainty'), ('br-mean', 'br-light'), ('no-metric', 'br-mean'), ('no-metric', 'br-light'), ('adjusted', 'no-metric'),
        ('efficientnet', 'no-metric'), ('wide', 'no-metric'), ('br-pk', 'fss-pk'), ('fss-pk', 'fss'), ('br-pk', 'br')]
CANDIDATES = ('no-metric', 'adjusted', 'gradnorm', 'dwa', 'br-mean', 'br-light', 'efficientnet', 'wide')
BEST = list(itertools.product(CANDIDATES, ('uncertainty', 'single')))
PAIRS = QUESTIONS+FIVE+OURS+BEST
THRESHOLDS = np.arange(.05, .96, .05).round(2)


def expression(dls, outcomes):
    "The expression of one training by threshold; nothing if it has none"
    found = [o['sure']['expression'] for o in outcomes if 'expression' in o['sure']]
    if not found: return pd.DataFrame()
    sure = found[0].float()
    actual = torch.cat([o.dataset.labels['expression'] for o in (dls.query, dls.gallery)])
    known = (actual != -1).all(1)
    scores = [macro_f1((sure > o).int(), actual, sure.shape[1]) for o in THRESHOLDS]
    precision = average_precision_score(actual[known], sure[known], average='macro')
    borne = actual[known].float().mean().item()
    return pd.DataFrame(dict(threshold=THRESHOLDS, f1=scores, average_precision=precision, borne=borne))


def accuracies(dls, outcomes):
    "A line for each attribute of one training: accuracy and that of the majority guess"
    found = outcome_accuracies(dls, outcomes)
    names = [k.removesuffix('_accuracy') for k in found if k.endswith('_accuracy')]
    lines = [dict(task=k, accuracy=found[f'{k}_accuracy'], majority=found[f'{k}_majority']) for k in names]
    return pd.DataFrame(lines)


def of_seeds(lines, pairs):
    "{the seeds that both rows of a pair have: such pairs}"
    seeds, groups = lines.groupby('row').seed.agg(set), {}
    for a, b in dict.fromkeys(pairs):
        both = tuple(sorted(seeds.get(a, set()) & seeds.get(b, set())))
        groups.setdefault(both, []).append((a, b))
    return groups


def write(name):
    "Train what is missing of one table, and write its files"
    file, scale = Path(__file__).parent/f'table4_{name}', SHORT if name == 'short' else SCALES['small']
    rows, dls = ROWS if name == 'bias' else WITHOUT, drawn_loaders(scale, 'out/small')
    provenance = {k: environment()[k] for k in ('commit', 'date')}
    runs = [rows.run(dls, scale, names, seeds, OUT, f'{file}.csv', DATA) for names, seeds in TRAININGS[name]]
    lines = pd.concat(runs)
    groups = {seeds: pairs for seeds, pairs in of_seeds(lines, PAIRS).items() if len(seeds) > 1}
    tables = dict(differences=[rows.differences(dls, pairs, scale, seeds, OUT) for seeds, pairs in groups.items()],
                  thresholds=[], accuracies=[])
    for o in lines.itertuples():
        outcomes = run_predictions(dls, rows[o.row], scale, o.seed, OUT)
        for kind, table in (('thresholds', expression(dls, outcomes)), ('accuracies', accuracies(dls, outcomes))):
            if len(table): tables[kind].append(pd.DataFrame(dict(row=o.row, seed=o.seed, **table)))
    for kind, parts in tables.items():
        pd.concat(parts).round(5).assign(**provenance).to_csv(f'{file}_{kind}.csv', index=False)


if __name__ == '__main__': write(sys.argv[1] if sys.argv[1:] in (['short'], ['bias']) else 'small')

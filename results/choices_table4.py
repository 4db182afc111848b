"""What was chosen for the scale `small` of `reproductions`, and by what

Runs of eight epochs on the drawn portraits of seed 1 (the tables are of seed 0). The learning rate, by the row `fss`.
And, on a last map of half the resolution, a backbone of another kind beside `no-metric`, from which these rows differ
in nothing else. Their softmax classifiers have no bias (`bias='none'`), as when they were trained.

python results/choices_table4.py writes a line for each run into choices_table4.csv, and runs nothing twice.
"""
from dataclasses import replace
from pathlib import Path

from portrait_nb.ablation import drawn_loaders
from portrait_nb.rows import OURS, SCALES, TABLE4, Experiments

SMALL, FREE = SCALES['small'], replace(OURS['no-metric'], bias='none')
SHORT = replace(SMALL, n_epoch=8)
COARSE = replace(SHORT, stand_ins=dict(hrnet_w32=('test_byobnet', 16), tf_efficientnetv2_b0=('test_efficientnet', 16),
                                       convnext_tiny=('test_convnext3', 16)))
FSS = Experiments([replace(TABLE4['fss'], bias='none')])
BACKBONES = Experiments([FREE, replace(OURS['efficientnet'], bias='none'),
                         replace(FREE, name='convnext', backbone='convnext_tiny', lr_factor=.25)])

if __name__ == '__main__':
    dls = drawn_loaders(SMALL, 'out/small-seed1', 1)
    files = dict(out='out/choices', results=Path(__file__).with_suffix('.csv'),
                 data='drawn portraits, preset small, seed 1 (synthetic)')
    for lr in (2e-3, 4e-3, 6e-3, 8e-3): FSS.run(dls, replace(SHORT, lr=lr), **files)
    BACKBONES.run(dls, COARSE, **files)

"""Which learning rate for the scale `small`? The row `fss`, eight epochs, on the drawn portraits of seed 1 (the tables are of seed 0).
A row a run in choices_table4.csv, with its circumstances; a run that is there is not run again: `python results/choices_table4.py`"""
from dataclasses import replace
from pathlib import Path
from portrait_nb.ablation import SCALES, TABLE4, drawn_loaders

if __name__=='__main__':
    dls = drawn_loaders(SCALES['small'], 'out/small-seed1', 1)
    for lr in (1e-3,2e-3,4e-3,6e-3): TABLE4.run(dls, replace(SCALES['small'], n_epoch=8, lr=lr), ['fss'], out='out/choices', results=Path(__file__).with_suffix('.csv'), data='drawn portraits, preset small, seed 1 (synthetic)')

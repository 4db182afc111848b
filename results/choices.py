"""What each setting of the demo is worth: one changed at a time, on the drawn portraits of seed 1.

The demo's own portraits are of seed 0. The softmax classifiers have no bias, as when these rows were trained.
`python results/choices.py` writes choices.csv, one row per run with its circumstances, and runs no row that is there.
"""
import time
import pandas as pd
from pathlib import Path
from portrait_nb.ablation import drawn_loaders
from portrait_nb.demo import DEMO, train_portraits
from portrait_nb.model import PortraitNet
from portrait_nb.rows import Scale
from portrait_nb.runs import environment

SEED,EPOCHS = 1,18
CHANGES = {'as in the demo': {}, 'output_stride 32': dict(output_stride=None),
           'erase half of the portraits': dict(erase=.5), 'no bias for expressions': {},
           'Batch Rank, mean over positives': dict(metric_loss='br', positives='mean'),
           'Batch Rank, Eq. 4': dict(metric_loss='br')}

class NoBias:
    "PortraitNet with the multi-label classifiers as the others: through the origin"
    def __new__(cls, *args, **kwargs):
        net = PortraitNet(*args, **kwargs)
        for neck in net.necks:
            if neck.classifier.bias is not None: neck.classifier.register_parameter('bias', None)
        return net

def run(name, changes):
    import portrait_nb.learner as learner
    config,start = {**DEMO, 'n_epoch': EPOCHS, 'bias': 'none', **changes},time.time()
    circumstances = dict(change=name, preset='small', seed=SEED, **config, **environment())
    scale = Scale('demo', EPOCHS, config['lr'], preset='small', bs=64, erase=config.pop('erase'))
    dls = drawn_loaders(scale, f'out/small-seed{SEED}', SEED)
    learner.PortraitNet = NoBias if 'no bias' in name else PortraitNet
    scores = train_portraits(dls, seed=SEED, **config).portrait_scores()
    scores = {k: round(v, 4) for k,v in scores.items()}
    return {**circumstances, 'seconds': round(time.time()-start), **scores}

if __name__=='__main__':
    file = Path(__file__).with_name('choices.csv')
    for name,changes in CHANGES.items():
        done = pd.read_csv(file) if file.exists() else pd.DataFrame(dict(change=[]))
        if name in set(done.change): continue
        pd.concat([done, pd.DataFrame([run(name, changes)])]).to_csv(file, index=False)

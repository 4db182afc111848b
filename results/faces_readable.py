"""What a small network reads off drawn faces (synthetic), attribute by attribute

python results/faces_readable.py [tied|free]
    Trains one small network on the train people of a `small` set of seed 0, with CelebA's ties or without any, at
    96x80, and scores it on the people of the test. faces_readable.csv: one line per set and attribute, with balanced
    accuracy and its interval over people, the area under the ROC curve, and accuracy beside the majority guess.
"""
import sys
import pandas as pd
import torch
from pathlib import Path
from fastai.torch_core import set_seed
from sklearn.metrics import roc_auc_score
from portrait_nb.annotations import read_annotations
from portrait_nb.attributes import binary_scores
from portrait_nb.callbacks import SkipValidation
from portrait_nb.data import portrait_dls
from portrait_nb.learner import fss_learner
from portrait_nb.runs import environment
from portrait_nb.synth import TABLE_FILE
from portrait_nb.tasks import Tasks
from portrait_nb.faces.conventions import regroup
from portrait_nb.faces.facesets import drawn_faces, make_faces

FILE = Path(__file__).with_name('faces_readable.csv')
SETTING = dict(backbone='test_byobnet', output_stride=8, size='96x80', epochs=12, lr=1e-2, bs=64, seed=0)

def area(actual, yes): return roc_auc_score(actual, yes) if len(set(actual))>1 else float('nan')

def scores(root):
    "The scores of one training on the set in `root`"
    tasks = regroup(Tasks(drawn_faces(root)[1].attributes), 'mgmtn-8')
    df = read_annotations(root/TABLE_FILE, root, tasks)
    set_seed(SETTING['seed'], reproducible=True)
    how = dict(size=(96,80), bs=SETTING['bs'], num_workers=0, device='cpu', seed=SETTING['seed'])
    dls = portrait_dls(df, root, tasks, **how)
    learn = fss_learner(dls, SETTING['backbone'], metric_loss=None, weighting='average', pretrained=False,
                        output_stride=SETTING['output_stride'], cbs=SkipValidation())
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(SETTING['epochs'], SETTING['lr'])
    with learn.no_bar(): preds,targs = learn.get_preds()
    yes = torch.stack([preds[o][:,1] for o in tasks.names], 1).numpy()
    actual = torch.stack([targs[o] for o in tasks.names], 1).numpy()
    people = df.loc[df['split']!='train', 'identity'].to_numpy()
    table = binary_scores(yes>.5, actual, tasks, identities=people)
    areas = [area(a[a>=0], p[a>=0]) for a,p in zip(actual.T, yes.T)]
    return table.assign(auc=[*areas, float('nan')]).round(4).reset_index()

if __name__=='__main__':
    for k in sys.argv[1:] or ('tied','free'):
        root = Path(f'out/faces_{k}')
        make_faces(root, 'small', correlated=k=='tied')
        lines = scores(root).assign(set=k, **environment(**SETTING))
        done = pd.read_csv(FILE) if FILE.exists() else pd.DataFrame(columns=['set'])
        pd.concat([done[done['set']!=k], lines]).to_csv(FILE, index=False)

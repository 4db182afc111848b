"""How many photos are too few? Scores by the number of train portraits, on the drawn portraits of seed 0 (synthetic)

python results/how_many.py
    One small network for each number of portraits and each seed, all with the same number of optimiser steps, scored on
    the same query and gallery. The portraits are drawn at random from the named ones of the train split, others for
    each seed. how_many.csv: one line per training and score, beside chance and the majority guess.

It trains what is missing, and goes on where it was killed.
"""
import time
import pandas as pd
from pathlib import Path
from fastai.torch_core import set_seed
from portrait_nb.annotations import read_annotations
from portrait_nb.callbacks import SkipValidation
from portrait_nb.data import portrait_dls
from portrait_nb.learner import chance_scores, fss_learner
from portrait_nb.runs import environment
from portrait_nb.synth import make_portraits
from portrait_nb.tasks import PORTRAIT, Tasks

TASKS = Tasks([PORTRAIT[o] for o in ('identity','age','body','expression')])
NUMBERS,SEEDS,STEPS,BS,LR,SIZE = (100,200,400,800,1600,3000),(0,1,2),300,32,1e-2,(64,32)
BACKBONE,STRIDE = 'test_resnet',16
SCORES = ('mAP','rank1',*TASKS.names[1:],'PIQ')
FILE = Path(__file__).with_name('how_many.csv')

def subset(df, n, seed):
    "The table with `n` of its named train portraits"
    named = df[(df.split=='train') & (df.identity!='')]
    return pd.concat([named.sample(n, random_state=seed), df[df.split!='train']])

def run(df, root, n, seed):
    "One training: a line per score"
    start,part = time.process_time(),subset(df, n, seed)
    set_seed(seed, reproducible=True)
    dls = portrait_dls(part, root, TASKS, size=SIZE, bs=BS, num_workers=0, device='cpu', seed=seed)
    learn = fss_learner(dls, BACKBONE, metric_loss=None, output_stride=STRIDE, pretrained=False, cbs=SkipValidation())
    n_epoch = max(1, round(STEPS/len(dls.train)))
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(n_epoch, LR)
    scores,chance = learn.portrait_scores(),chance_scores(dls)
    about = environment(backbone=BACKBONE, output_stride=STRIDE, size=f'{SIZE[0]}x{SIZE[1]}', epochs=n_epoch, lr=LR)
    seconds = round(time.process_time()-start)
    lines = []
    for k in SCORES:
        attribute = scores.attributes.loc[k].to_dict() if k in scores.attributes.index else {}
        values = dict(trained=scores[k], chance=chance[k], **attribute)
        lines.append(dict(n=n, seed=seed, score=k, **{o: round(float(v), 4) for o,v in values.items()},
                          processor_seconds=seconds, preset='small', **about))
    return pd.DataFrame(lines)

if __name__=='__main__':
    root = Path('out/small')
    make_portraits(root, 'small')
    df = read_annotations(root/'annotations.csv', root, TASKS)
    for seed in SEEDS:
        for n in NUMBERS:
            done = pd.read_csv(FILE, dtype=dict(commit=str)) if FILE.exists() else None
            if done is not None and ((done.n==n) & (done.seed==seed)).any(): continue
            pd.concat([done, run(df, root, n, seed)]).to_csv(FILE, index=False)

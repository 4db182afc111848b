"""What a small network reads off drawn faces (synthetic), and what choosing its epoch on the test is worth

python results/faces_readable.py [tied|free]
    Trains one small network on the train people of a `small` set of seed 0, with CelebA's ties or without any, at
    96x80, and keeps its weights after each epoch.
    faces_readable.csv: one line per set and attribute, after the last epoch, on the people of the test: balanced
    accuracy and its interval over people, the area under the ROC curve, and accuracy beside the majority guess.
    faces_epochs.csv: one line per set and epoch: accuracy and balanced accuracy, means over the attributes, on the
    people for choosing and on those of the test.
"""
import sys
import pandas as pd
import torch
from fastai.callback.core import Callback
from fastai.torch_core import set_seed
from pathlib import Path
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
from portrait_nb.faces.facesets import VALIDATION_FILE, drawn_faces, make_faces

HERE = Path(__file__).parent
SETTING = dict(backbone='test_byobnet', output_stride=8, size='96x80', epochs=12, lr=1e-2, bs=64, seed=0)

class KeepWeights(Callback):
    "The weights after every epoch, in `states`"
    def before_fit(self): self.states = []
    def after_epoch(self): self.states.append({k: v.clone() for k,v in self.learn.model.state_dict().items()})

def loaders(root, file, tasks):
    df = read_annotations(root/file, root, tasks)
    how = dict(size=(96,80), bs=SETTING['bs'], num_workers=0, device='cpu', seed=SETTING['seed'])
    return df,portrait_dls(df, root, tasks, **how)

def train(dls):
    "A trained learner, and its weights after each epoch"
    set_seed(SETTING['seed'], reproducible=True)
    keep = KeepWeights()
    learn = fss_learner(dls, SETTING['backbone'], metric_loss=None, weighting='average', pretrained=False,
                        output_stride=SETTING['output_stride'], cbs=[SkipValidation(), keep])
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(SETTING['epochs'], SETTING['lr'])
    return learn,keep.states

def answers(learn, dl, tasks):
    "Probabilities of yes and labels (N, A)"
    with learn.no_bar(): preds,targs = learn.get_preds(dl=dl)
    yes = torch.stack([preds[o][:,1] for o in tasks.names], 1).numpy()
    return yes, torch.stack([targs[o] for o in tasks.names], 1).numpy()

def area(actual, yes): return roc_auc_score(actual, yes) if len(set(actual))>1 else float('nan')

def readable(yes, actual, tasks, people):
    "The scores of each attribute"
    table = binary_scores(yes>.5, actual, tasks, identities=people)
    areas = [area(a[a>=0], p[a>=0]) for a,p in zip(actual.T, yes.T)]
    return table.assign(auc=[*areas, float('nan')]).round(4).reset_index()

def means(yes, actual, tasks):
    found = binary_scores(yes>.5, actual, tasks, n_boot=2).loc['mean']
    return found['accuracy'],found['balanced_accuracy']

def run(root):
    "Scores after the last epoch, and means of every epoch"
    tasks = regroup(Tasks(drawn_faces(root)[1].attributes), 'mgmtn-8')
    df,dls = loaders(root, TABLE_FILE, tasks)
    _,val = loaders(root, VALIDATION_FILE, tasks)
    learn,states = train(dls)
    epochs = []
    for i,state in enumerate(states):
        learn.model.load_state_dict(state)
        line = dict(epoch=i+1)
        for part,dl in (('val',val.valid), ('test',dls.valid)):
            found = answers(learn, dl, tasks)
            line[f'{part}_accuracy'],line[f'{part}_balanced_accuracy'] = means(*found, tasks)
        epochs.append(line)
    people = df.loc[df['split']!='train', 'identity'].to_numpy()
    return readable(*found, tasks, people),pd.DataFrame(epochs).round(5)

def write(name, lines, k, about):
    "Put the lines of set `k` in place of older ones"
    file = HERE/name
    done = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=['set'])
    pd.concat([done[done['set']!=k], lines.assign(set=k, **about)]).to_csv(file, index=False)

if __name__=='__main__':
    for k in sys.argv[1:] or ('tied','free'):
        root = Path(f'out/faces_{k}')
        make_faces(root, 'small', correlated=k=='tied')
        table,epochs = run(root)
        about = environment(**SETTING)
        write('faces_readable.csv', table, k, about)
        write('faces_epochs.csv', epochs, k, about)

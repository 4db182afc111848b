"""How near drawn faces are to CelebA's shares and ties, and how fast they are drawn

python results/facesets.py
    Draws the two `small` sets of seed 0 below out/, with CelebA's ties and without, and writes
    facesets.csv: shares of yes and of missing labels, one line per attribute, beside CelebA's share,
    facesets_ties.csv: correlations of pairs of attributes, beside CelebA's,
    facesets_speed.csv: faces a second of one processor: picture, mask, landmarks, labels and files.
"""
import time
import pandas as pd
from pathlib import Path
from tempfile import TemporaryDirectory
from portrait_nb.runs import environment
from portrait_nb.faces.facesets import (
    FACE_PRESETS, RATES, REAL_TIES, face_plan, make_faces, set_shares, set_tie, write_faces)

HERE,SETS = Path(__file__).parent,{'tied':True, 'free':False}
ROUNDS = 3 # of the clock; the fastest counts, the others were disturbed

def seconds(root, rows, height):
    "Seconds of the processor that drawing `rows` takes"
    start = time.process_time()
    for _ in write_faces(root, rows, height, 0, True): pass
    return time.process_time()-start

def speed(preset, n):
    "Faces a second of one processor"
    rows,height = face_plan(preset).to_dict('records')[:n],FACE_PRESETS[preset].height
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for o in ('pictures','parsing'): (root/o).mkdir()
        seconds(root, rows, height) # places and fonts are loaded once
        return n/min(seconds(root, rows, height) for _ in range(ROUNDS))

def shares(roots):
    "A line per attribute"
    found = {k: set_shares(root).round(4) for k,root in roots.items()}
    df = pd.DataFrame({'celeba': RATES, **{k: o['yes'] for k,o in found.items()}})
    for k,o in found.items(): df[f'{k}_unlabelled'] = o['unlabelled']
    return df.rename_axis('attribute').reset_index()

def ties(roots):
    "A line per pair of attributes"
    rows = [dict(a=a, b=b, celeba=r, **{k: round(set_tie(root, a, b), 3) for k,root in roots.items()})
            for (a,b),r in REAL_TIES.items()]
    return pd.DataFrame(rows)

def speeds():
    "A line per preset"
    return pd.DataFrame([dict(preset=o, height=FACE_PRESETS[o].height, faces_a_second=round(speed(o, n), 1))
                         for o,n in (('small',400), ('bench',200))])

if __name__=='__main__':
    roots = {k: Path(f'out/faces_{k}') for k in SETS}
    for k,correlated in SETS.items(): make_faces(roots[k], 'small', correlated=correlated)
    about = environment(seed=0)
    shares(roots).assign(preset='small', **about).to_csv(HERE/'facesets.csv', index=False)
    ties(roots).assign(preset='small', **about).to_csv(HERE/'facesets_ties.csv', index=False)
    speeds().assign(**about).to_csv(HERE/'facesets_speed.csv', index=False)

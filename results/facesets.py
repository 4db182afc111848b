"""How near drawn faces are to CelebA's shares and ties, and how fast they are drawn

python results/facesets.py
    Draws the two `small` sets of seed 0 below out/, with CelebA's ties and without, and writes
    facesets.csv: share of yes and of missing labels, an attribute and set a line, beside CelebA's share,
    facesets_ties.csv: correlations of pairs of attributes, beside CelebA's where we know it,
    facesets_speed.csv: faces a second of one processor, picture, mask, landmarks, labels and files.
"""
import time
import pandas as pd
from pathlib import Path
from tempfile import TemporaryDirectory
from portrait_nb.runs import environment
from portrait_nb.faces.facesets import FACE_PRESETS, RATES, REAL_TIES, face_plan, make_faces, set_shares, set_tie, write_faces

HERE,SETS = Path(__file__).parent,{'tied':True, 'free':False}

def speed(preset, n):
    "Faces a second of one processor"
    rows = face_plan(preset).to_dict('records')[:n]
    with TemporaryDirectory() as root:
        for o in ('pictures','parsing'): (Path(root)/o).mkdir()
        for part in (rows[:24], rows):
            start = time.process_time()
            for _ in write_faces(Path(root), part, FACE_PRESETS[preset].height, 0, True): pass
    return len(rows)/(time.process_time()-start)

if __name__=='__main__':
    roots = {k: Path(f'out/faces_{k}') for k in SETS}
    for k,correlated in SETS.items(): make_faces(roots[k], 'small', correlated=correlated)
    about = environment(preset='small', seed=0)
    shares = [set_shares(root).round(4).rename_axis('attribute').reset_index().assign(set=k) for k,root in roots.items()]
    df = pd.concat(shares)
    df.insert(1, 'celeba', df['attribute'].map(RATES))
    df.assign(**about).to_csv(HERE/'facesets.csv', index=False)
    ties = [dict(a=a, b=b, celeba=r, **{k: round(set_tie(root, a, b), 3) for k,root in roots.items()})
            for (a,b),r in REAL_TIES.items()]
    pd.DataFrame(ties).assign(**about).to_csv(HERE/'facesets_ties.csv', index=False)
    rates = [dict(preset=o, height=FACE_PRESETS[o].height, faces_a_second=round(speed(o, n), 1)) for o,n in (('small',400), ('bench',200))]
    pd.DataFrame(rates).assign(**environment(seed=0)).to_csv(HERE/'facesets_speed.csv', index=False)

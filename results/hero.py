"""The picture at the top of the README: one portrait as the demo's network describes it, and its nearest by aspect.

    python results/hero.py [out/demo] [out/small]

The demo's folder is what `make demo` wrote, the other holds its portraits. We show an average portrait, not the best: the
seed takes one query among those of which the network answers as many sub-tasks rightly as it does on average. The picture
and what is known about it go to nbs/images/interpretation.png and interpretation.json. The network saw 128x64 pixels; for
the page we draw the same shots at 256x128.
"""
import datetime, json, sys
from pathlib import Path
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from portrait_nb.annotations import read_annotations
from portrait_nb.data import normalise, read_portrait
from portrait_nb.interpret import decode_logits
from portrait_nb.learner import load_portrait_model
from portrait_nb.style import INK, RIGHT, STYLE, WRONG, aspect_colour
from portrait_nb.synth import draw_portrait, image_table
from portrait_nb.tasks import PORTRAIT

HERE = Path(__file__).resolve().parent.parent
TITLES = dict(appearance=('looks alike', 'the same person'), posture=('stands alike', 'the same posture'),
              emotion=('feels alike', 'the same expression'))
N_FOUND = 5

@torch.inference_mode()
def run(model, root, df, bs=128):
    "Logits by sub-task, and normalised features by aspect, of the portraits of `df`"
    logits,features = {t.name: [] for t in PORTRAIT},{a: [] for a in PORTRAIT.aspects}
    for start in range(0, len(df), bs):
        pictures = [read_portrait(root/o, model.size) for o in df.image[start:start+bs]]
        out = model(normalise(torch.stack(pictures)))
        for k,v in out['logits'].items(): logits[k].append(v)
        for a in PORTRAIT.aspects:
            parts = [model.neck(t.name).bn(out['features'][t.name]) for t in PORTRAIT.of(a)]
            features[a].append(F.normalize(torch.cat(parts, 1)))
    return {k: torch.cat(v) for k,v in logits.items()},{k: torch.cat(v) for k,v in features.items()}

def is_right(row, task, answer):
    "Is the answer the label of the table?"
    answer = answer if isinstance(answer, list) else [answer]
    return set(answer)==set(row[task.name].split('|'))

def answers_of(model, logits, i):
    "`{sub-task: (label or labels, probability of the likeliest)}` of portrait `i`"
    found = {}
    for t in model.tasks.attributes:
        answer,probability = decode_logits(logits[t.name][i], t)
        found[t.name] = answer,max(probability.values())
    return found

def n_right(model, df, logits):
    "How many sub-tasks the network answers rightly, for every portrait; NaN where not all are labelled"
    attributes = model.tasks.attributes
    counts = []
    for i,row in enumerate(df.to_dict('records')):
        answers = answers_of(model, logits, i)
        labelled = all(row[t.name] for t in attributes)
        counts.append(sum(is_right(row, t, answers[t.name][0]) for t in attributes) if labelled else np.nan)
    return np.array(counts)

def matches(query, row, aspect):
    "Is the portrait `row` a right answer to `query` in this aspect?"
    columns = dict(appearance=['identity'], posture=['body','arm'], emotion=['expression'])[aspect]
    return all(query[o] and query[o]==row[o] for o in columns)

def draw_answers(ax, model, row, answers):
    "A bar for every sub-task, its answer, and a mark that says whether it is right"
    for y,t in enumerate(model.tasks.attributes):
        answer,sure = answers[t.name]
        text = ' + '.join(answer) if isinstance(answer, list) else answer
        right = is_right(row, t, answer)
        ax.barh(y, 1, color='#f1f1f3', height=.74)
        ax.barh(y, sure, color=aspect_colour(t.aspect), alpha=.42, height=.74)
        ax.text(-.04, y, t.name, ha='right', va='center', fontsize=8.5, color='#555555')
        ax.text(.03, y, f'{text or "none"}  {sure:.0%}', va='center', fontsize=9, color=INK)
        ax.text(1.05, y, '✓' if right else '✗', va='center', fontsize=11, color=RIGHT if right else WRONG)
        if right: continue
        ax.text(.03, y+.56, f'it was drawn {row[t.name].replace("|", " + ")}', va='center', fontsize=7.5, color=WRONG)
    ax.set(xlim=(-.02,1.16), ylim=(len(model.tasks.attributes)-.2,-.6))
    ax.set_axis_off()

def draw_found(ax, picture, right):
    "A portrait that was found, in the colour of its mark"
    ax.imshow(picture)
    ax.set(xticks=[], yticks=[])
    for o in ax.spines.values(): o.set(visible=True, color=RIGHT if right else WRONG, linewidth=2)
    ax.set_xlabel('✓' if right else '✗', fontsize=9, labelpad=1, color=RIGHT if right else WRONG)

def hero(model, draw, query, answers, found, caption, fname):
    "The whole picture: `found` is {aspect: rows of the gallery, nearest first}"
    with plt.rc_context({**STYLE, 'figure.constrained_layout.use': False, 'axes.grid': False}):
        fig = plt.figure(figsize=(9.2,4.75), dpi=180, facecolor='white')
        grid = fig.add_gridspec(1, 3, width_ratios=(1.75,2.6,4.2), left=.015, right=.985, top=.92, bottom=.13, wspace=.2)
        ax = fig.add_subplot(grid[0])
        ax.imshow(draw(query))
        ax.set_axis_off()
        ax.set_title('a portrait', fontsize=10)
        ax = fig.add_subplot(grid[1])
        draw_answers(ax, model, query, answers)
        ax.set_title('what the network says', fontsize=10)
        rows = grid[2].subgridspec(3, N_FOUND, hspace=.42, wspace=.12)
        for i,(aspect,portraits) in enumerate(found.items()):
            for j,row in enumerate(portraits.to_dict('records')):
                ax = fig.add_subplot(rows[i,j])
                draw_found(ax, draw(row), matches(query, row, aspect))
                if j: continue
                title,what = TITLES[aspect]
                ax.set_title(f'{title} (✓ {what})', fontsize=9, color=aspect_colour(aspect), pad=3)
        fig.text(.015, .03, caption, fontsize=8.5, color='#555555', va='bottom', linespacing=1.5)
        fig.savefig(fname, dpi=180, facecolor='white')
        plt.close(fig)

def main(demo='out/demo', root='out/small', seed=0):
    demo,root = Path(demo),Path(root)
    model = load_portrait_model(demo/'model')
    df = read_annotations(root/'annotations.csv', root, PORTRAIT)
    queries = df[df.split=='query'].reset_index(drop=True)
    logits,features = run(model, root, queries)
    counts = n_right(model, queries, logits)
    mean,n = np.nanmean(counts),len(model.tasks.attributes)
    i = pd.Series(np.flatnonzero(counts==round(mean))).sample(1, random_state=seed).iloc[0]
    query = queries.iloc[i]
    gallery = df[(df.split=='gallery') & (df.group!=query.group) & (df.identity!='')].reset_index(drop=True)
    _,theirs = run(model, root, gallery)
    near = {a: (theirs[a]@features[a][i]).argsort(descending=True)[:N_FOUND] for a in PORTRAIT.aspects}
    found = {a: gallery.iloc[o.numpy()] for a,o in near.items()}
    plan = image_table('small').set_index('image', drop=False)
    def draw(row): return draw_portrait(plan.loc[row['image']], (256,128))
    labelled = int(np.isfinite(counts).sum())
    caption = (f'A drawn portrait that the network never saw. It gets {counts[i]:.0f} of {n} answers right, as it does on average '
               f'({mean:.1f} of {n}, over {labelled} queries):\nwe took one of those at random, not the best. '
               f'Right: its nearest among {len(gallery):,} others, by one aspect at a time.')
    picture = HERE/'nbs'/'images'/'interpretation.png'
    hero(model, draw, query, answers_of(model, logits, i), found, caption, picture)
    about = dict(made_by='results/hero.py', query=query.image, seed=seed, right=int(counts[i]), mean_right=round(float(mean), 3),
                 queries=labelled, gallery=len(gallery), drawn='2026, drawn portraits of preset small, seed 0',
                 date=str(datetime.date.today()), model=json.loads((demo/'run.json').read_text()))
    picture.with_suffix('.json').write_text(json.dumps(about, indent=1)+'\n')

if __name__=='__main__': main(*sys.argv[1:])

"""The picture at the top of the README: one portrait as the demo's network describes it, and its nearest by aspect.

    python results/hero.py [out/demo] [out/small]

The demo's folder is what `make demo` wrote, and the other holds its portraits. We show an average portrait and not
the best: the seed takes one of the queries about which the network is right as often as on average. We write the
picture and how it was made to nbs/images/interpretation.png and interpretation.json. The network sees smaller
pictures, and for the page we draw the same shots at 256x128.
"""
import datetime, io, json, sys
from pathlib import Path
from PIL import Image
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
MATCHES = dict(appearance='identity', posture='body', emotion='expression') # the label that a right one shares
TITLES = dict(appearance='nearest by looks (✓ the same person)', posture='nearest by posture (✓ the same)',
              emotion='nearest by expression (✓ the same)')
N_FOUND = 6

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
    column = MATCHES[aspect]
    return bool(query[column]) and query[column]==row[column]

def draw_answers(ax, model, row, answers):
    "A bar for every sub-task, its answer, and a mark that says whether it is right"
    for y,t in enumerate(model.tasks.attributes):
        answer,sure = answers[t.name]
        words = answer if isinstance(answer, list) else [answer]
        text = f"{' + '.join(words)}  {sure:.0%}" if words else 'none of these'
        right = is_right(row, t, answer)
        ax.barh(y, 1, color='#f1f1f3', height=.74)
        ax.barh(y, sure, color=aspect_colour(t.aspect), alpha=.42, height=.74)
        ax.text(-.04, y, t.name, ha='right', va='center', fontsize=8.5, color='#555555')
        ax.text(.03, y, text, va='center', fontsize=9, color=INK)
        ax.text(1.05, y, '✓' if right else '✗', va='center', fontsize=11, color=RIGHT if right else WRONG)
        if right: continue
        ax.text(.03, y+.53, f'we drew: {row[t.name].replace("|", " + ")}', va='center', fontsize=7.5, color=WRONG)
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
    style = {**STYLE, 'figure.constrained_layout.use': False, 'axes.grid': False, 'axes.titlesize': 9.5}
    with plt.rc_context(style):
        fig = plt.figure(figsize=(9.2,4.5), facecolor='white')
        ax = fig.add_axes((.012,.15,.215,.765), anchor='NW')
        ax.imshow(draw(query))
        ax.set_axis_off()
        ax.set_title('a portrait')
        ax = fig.add_axes((.305,.15,.24,.765))
        draw_answers(ax, model, query, answers)
        ax.set_title('what the network says')
        for i,(aspect,portraits) in enumerate(found.items()):
            for j,row in enumerate(portraits.to_dict('records')):
                ax = fig.add_axes((.575+.0705*j, .715-.29*i, .0645, .215))
                draw_found(ax, draw(row), matches(query, row, aspect))
                if j==0: ax.set_title(TITLES[aspect], color=aspect_colour(aspect), pad=4)
        fig.text(.012, .022, caption, fontsize=8.5, color='#555555', va='bottom', linespacing=1.5)
        save_small(fig, fname)
        plt.close(fig)

def save_small(fig, fname):
    "A png of 256 colours, on white, sharp at twice the width of a page"
    buffer = io.BytesIO()
    fig.savefig(buffer, dpi=180, facecolor='white')
    Image.open(buffer).convert('RGB').quantize(256).save(fname, optimize=True)

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
    gallery = df[(df.split=='gallery') & (df.group!=query.group) & (df.identity!='')]
    gallery = gallery.drop_duplicates('group', ignore_index=True) # frames of one shot would all be found at once
    _,theirs = run(model, root, gallery)
    near = {a: (theirs[a]@features[a][i]).argsort(descending=True)[:N_FOUND] for a in PORTRAIT.aspects}
    found = {a: gallery.iloc[o.numpy()] for a,o in near.items()}
    plan = image_table('small').set_index('image', drop=False)
    def draw(row): return draw_portrait(plan.loc[row['image']], (256,128))
    labelled = int(np.isfinite(counts).sum())
    caption = (f'The network never met this drawn person. It gets {counts[i]:.0f} of {n} answers right, as on average '
               f'({mean:.1f} of {n}, over {labelled} portraits): we took one of those\nat random, and not the best. '
               f'On the right are the nearest of {len(gallery):,} other shots, by one aspect at a time.')
    picture = HERE/'nbs'/'images'/'interpretation.png'
    hero(model, draw, query, answers_of(model, logits, i), found, caption, picture)
    about = dict(made_by='results/hero.py', query=query.image, seed=seed,
                 right=int(counts[i]), mean_right=round(float(mean), 3), queries=labelled,
                 gallery=len(gallery), portraits='drawn, preset small, seed 0', date=str(datetime.date.today()),
                 model=json.loads((demo/'run.json').read_text()))
    picture.with_suffix('.json').write_text(json.dumps(about, indent=1)+'\n')

if __name__=='__main__': main(*sys.argv[1:])

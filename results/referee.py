"""How real is a drawn face to models that learned from photographs? The heads are synthetic, the models are real

python results/referee.py [out/wheels]
    Two hundred drawn people, in four views and seven moods, before the referees. referee.csv: one line per measurement,
    with 95 % intervals over people and, where there is one, the level of chance. referee_photos.csv: what the same
    models say about two photographs of public domain, which come with matplotlib and scikit-image.
    referee.json: how, when and with which files.

It needs the extra faces-referee, scikit-image's data, and the wheels that `portrait_nb.faces.referee` names.
"""
import json, sys
import numpy as np
import pandas as pd
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from PIL import Image
from matplotlib.cbook import get_sample_data
from portrait_nb.draw.hats import head_image
from portrait_nb.draw.heads import Head, VIEWS, random_face
from portrait_nb.faces.referee import REFEREE_FILES, REFEREE_MOODS, FaceEmotion, Referees, readings_table, referee_files
from portrait_nb.pictures import open_picture
from portrait_nb.runs import environment

HERE = Path(__file__).parent
AGES = ('child','teenager','young adult','middle-aged','senior')
EACH,SEED,HEIGHT,CROPS = 20,0,192,(1.,1.2,1.4)
WIDTH,ABOVE = 1.7,.42 # of `head_canvas`, in heads
EYES,MOUTH = ([33,133,159,145],[362,263,386,374]),[61,291,13,14] # points of the mesh around them
PHOTOS = {'Grace Hopper': dict(gender='female', about_years=77, mood='neutral'),
          'Eileen Collins': dict(gender='female', about_years=35, mood='happiness')}

def people():
    "EACH faces of every gender and age"
    kinds = list(product(('female','male'), AGES))
    return [random_face(np.random.default_rng([SEED,i]), *kinds[i%len(kinds)]) for i in range(EACH*len(kinds))]

def interval(values, identities, n=2000, level=.95):
    "Mean and interval over identities: resampled, but the binomial's bound where all values are 0 or all are 1"
    values = np.asarray(values, float)
    names,codes = np.unique(identities, return_inverse=True)
    sums = np.bincount(codes, values, len(names))
    counts = np.bincount(codes, minlength=len(names))
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(names), (n,len(names)))
    low,high = np.quantile(sums[draws].sum(1)/counts[draws].sum(1), [(1-level)/2,(1+level)/2])
    bound = 1-((1-level)/2)**(1/len(names))
    if (values==1).all(): low = 1-bound
    if (values==0).all(): high = bound
    return values.mean(),low,high

def line(referee, measure, group, values, identities, chance=None):
    "A line of the csv"
    value,low,high = interval(values, identities)
    return dict(referee=referee, measure=measure, group=group, value=value, low=low, high=high, chance=chance,
                n=len(values), people=len(set(identities)))

def older(ages, groups, n=2000):
    "How often a senior is read as older than a child, with its interval"
    children,seniors = (np.array([a for a,g in zip(ages, groups) if g==o]) for o in ('child','senior'))
    wins = (seniors[:,None]>children).astype(float)
    rng = np.random.default_rng(0)
    def resampled(o): return rng.integers(0, len(o), len(o))
    def draw(): return wins[np.ix_(resampled(seniors), resampled(children))].mean()
    low,high = np.quantile([draw() for _ in range(n)], [.025,.975])
    return dict(referee='age', measure='senior read as older than child', group='front', value=wins.mean(), low=low,
                high=high, chance=.5, n=wins.size, people=sum(wins.shape))

def drawn_points(face, view):
    "(3, 2) pixels where the left eye, the right eye and the mouth of the picture are drawn, front and half side"
    head = Head(None, face, view)
    x,y,_ = head.at(0, head.mouth_y)
    points = [head.at(u, head.eye_y)[:2] for u,_ in head.eyes]+[(x+.012*(view=='half side'), y)]
    return np.array(points)*HEIGHT+[round(HEIGHT*WIDTH)/2,HEIGHT*(1+ABOVE)]

def points_off(faces, readings, view):
    "{(referee, part): distances as shares of that between the eyes}, and the identities"
    off,who = {},[]
    for i,(face,o) in enumerate(zip(faces, readings)):
        if o.face is None: continue
        true,front = drawn_points(face, view),drawn_points(face, 'front')
        unit = np.linalg.norm(front[0]-front[1])
        mesh = [o.points[e].mean(0) for e in (*EYES,MOUTH)]
        for name,found in dict(short=o.face.points[[0,1,3]], mesh=np.array(mesh)).items():
            far = np.linalg.norm(found-true, axis=1)/unit
            off.setdefault((name,'eyes'), []).append(far[:2].mean())
            off.setdefault((name,'mouth'), []).append(far[2])
        who.append(i)
    return off,who

def of_views(faces, referees):
    "Lines about neutral faces from four sides"
    lines,n = [],range(len(faces))
    for view in VIEWS:
        readings = referees.read([head_image(o, view, height=HEIGHT) for o in faces])
        found = [o.face is not None for o in readings]
        lines.append(line('short', 'found', view, found, n))
        lines.append(line('full', 'found', view, [o.full>0 for o in readings], n))
        lines.append(line('mesh', 'found', view, [o.face is not None and o.presence>.5 for o in readings], n))
        if view=='back': continue
        answered = np.flatnonzero(found)
        right = {i: readings[i].gender==faces[i].gender for i in answered}
        lines.append(line('gender', 'right', view, [*right.values()], answered, .5))
        if view in ('front','half side'):
            off,who = points_off(faces, readings, view)
            lines += [line(referee, 'points off', f'{part}, {view}', o, who) for (referee,part),o in off.items()]
        if view!='front': continue
        for gender in ('female','male'):
            those = [i for i in answered if faces[i].gender==gender]
            lines.append(line('gender', 'right', f'front, drawn {gender}', [right[i] for i in those], those, .5))
        for age in AGES:
            those = [i for i in answered if faces[i].age==age]
            lines.append(line('age', 'mean years', age, [readings[i].age for i in those], those))
        lines.append(older([readings[i].age for i in answered], [faces[i].age for i in answered]))
    return lines

def of_moods(faces, referees, files):
    "Lines about seven moods from the front; a head without a found face counts as read wrongly"
    readers = {o: FaceEmotion(files, crop=o) for o in CROPS}
    drawn,who,answers = [],[],{o: [] for o in CROPS}
    for mood in REFEREE_MOODS:
        for i,face in enumerate(faces):
            picture = open_picture(head_image(face, 'front', (mood,), height=HEIGHT))
            found = referees.detector(picture)
            drawn.append(mood)
            who.append(i)
            for crop,reader in readers.items():
                moods = reader(picture, found[0]) if found else {'no face': 1}
                answers[crop].append(max(moods, key=moods.get))
    drawn,who,ours = np.array(drawn),np.array(who),np.array(answers[1.2])
    lines = [line('emotion', 'right', 'all', ours==drawn, who, 1/7)]
    for mood in REFEREE_MOODS:
        those = drawn==mood
        lines.append(line('emotion', 'right', mood, ours[those]==mood, who[those], 1/7))
    for mood,answer in product(REFEREE_MOODS, (*REFEREE_MOODS,'no face')):
        those = drawn==mood
        lines.append(line('emotion', f'answers {answer}', mood, ours[those]==answer, who[those]))
    for crop in CROPS:
        right = np.array(answers[crop])==drawn
        lines.append(line('emotion', f'right, crop {crop}', 'all', right, who, 1/7))
        for mood in REFEREE_MOODS:
            those = drawn==mood
            lines.append(line('emotion', f'right, crop {crop}', mood, right[those], who[those], 1/7))
    return lines

def enlarged(piece, times=6):
    "A piece of 25x25 grey pixels, larger, with as wide a margin of its mean"
    side = len(piece)*times
    grey = Image.fromarray(np.uint8(piece*255)).resize((side,side), Image.Resampling.BICUBIC)
    picture = Image.new('L', (2*side,2*side), int(piece.mean()*255))
    picture.paste(grey, (side//2,side//2))
    return picture.convert('RGB')

def of_pieces(referees):
    "Lines about scikit-image's 100 small photographs of faces, and 100 of anything else"
    pieces = np.load(scikit_image('lfw_subset.npy'))
    lines = []
    for name,part in (('a face',pieces[:100]), ('no face',pieces[100:])):
        readings = referees.read([enlarged(o) for o in part])
        found = dict(short=[o.face is not None for o in readings], full=[o.full>0 for o in readings],
                     mesh=[o.face is not None and o.presence>.5 for o in readings])
        lines += [line(k, 'found in pieces of photographs', name, o, range(len(part))) for k,o in found.items()]
    return lines

def scikit_image(name):
    "A file of scikit-image's data, without importing it"
    return Path(find_spec('skimage').origin).parent/'data'/name

def of_photos(referees):
    "What the same models say about photographs, beside what we know"
    files = [get_sample_data('grace_hopper.jpg', asfileobj=False), scikit_image('astronaut.png')]
    table = readings_table(referees.read(files))
    table.insert(0, 'photo', list(PHOTOS))
    for k in ('gender','about_years','mood'): table[f'true_{k}'] = [o[k] for o in PHOTOS.values()]
    return table

def main(wheels='out/wheels'):
    referees,files,faces = Referees(wheels),referee_files(wheels=wheels),people()
    about = environment(made_by='results/referee.py', people=len(faces), head_pixels=HEIGHT, seed=SEED, crop=1.2)
    photos = of_photos(referees)
    lines = pd.DataFrame(of_views(faces, referees)+of_moods(faces, referees, files)+of_pieces(referees))
    lines.round(4).to_csv(HERE/'referee.csv', index=False)
    photos.round(4).to_csv(HERE/'referee_photos.csv', index=False)
    about['files'] = {k: dict(package=o.package, path=o.path, sha256=o.sha256) for k,o in REFEREE_FILES.items()}
    (HERE/'referee.json').write_text(json.dumps(about, indent=1)+'\n')

if __name__=='__main__': main(*sys.argv[1:])

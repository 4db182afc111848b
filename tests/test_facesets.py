"Sets of drawn faces: shares and ties, labels found again by other rules, same bytes however they are drawn, bad folders."
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from portrait_nb.annotations import read_annotations
from portrait_nb.faces import drawn, facesets
from portrait_nb.faces.conventions import CELEBA_40, PARSING
from portrait_nb.faces.drawn import FACE_TASKS, draw_sitting, face_attributes
from portrait_nb.faces.facesets import (
    RATES, REAL_TIES, TIES, deal_faces, drawn_faces, drawn_parsing, drawn_points, drawn_sittings, face_plan, face_sheet,
    leaning, make_faces, parsing_path, set_shares, set_tie, sit, write_faces)

RESULTS = Path(__file__).parent.parent/'results'


def contents(root): return {o.relative_to(root): o.read_bytes() for o in sorted(root.rglob('*')) if o.is_file()}


@pytest.fixture(scope='module')
def tied(tmp_path_factory):
    root = tmp_path_factory.mktemp('sets')/'tied'
    make_faces(root, 'tiny', n_workers=0)
    return root


@pytest.fixture(scope='module')
def free(tmp_path_factory):
    root = tmp_path_factory.mktemp('sets')/'free'
    make_faces(root, 'tiny', correlated=False, n_workers=0)
    return root


# The labels by a second set of rules, from the numbers in faces.jsonl and the mask; None: no label

COAL,FUDGE = [(.09,.08,.09)],[(.33,.20,.12),(.46,.26,.15)]
HAY,ASH = [(.84,.69,.40),(.93,.87,.70)],[(.58,.57,.57),(.90,.89,.87)]
BETWEEN = {(.19,.12,.09): ('Black_Hair','Brown_Hair'), (.62,.47,.27): ('Brown_Hair','Blond_Hair')}
NAMELESS = [(.52,.20,.11), (.78,.38,.13), (.70,.11,.16), (.18,.34,.66), (.85,.36,.58)]
LOOSE_STRAIGHT = {'short','side part','quiff','bowl','pixie','bob','shoulder length','long straight'}
LOOSE_WAVY = {'curly','wavy bob','curly bob','long wavy','long curly'}


def above(x, limit): return None if abs(x/limit-1)<=.05 else bool(x>limit)
def below(x, limit): return None if abs(x/limit-1)<=.05 else bool(x<limit)


def of_colour(rgb):
    "The four colours of hair"
    all_colours = COAL+FUDGE+HAY+ASH+list(BETWEEN)+NAMELESS
    nearest = all_colours[np.linalg.norm(np.array(all_colours)-rgb, axis=1).argmin()]
    found = dict(Black_Hair=nearest in COAL, Brown_Hair=nearest in FUDGE)
    found |= dict(Blond_Hair=nearest in HAY, Gray_Hair=nearest in ASH)
    return {**found, **dict.fromkeys(BETWEEN.get(nearest, ()))}


def of_hair(f):
    bald,style,line = f['hair']=='bald',f['hair'],f['fringe']
    found = of_colour(f['hair_colour'])
    found |= dict(Straight_Hair=style in LOOSE_STRAIGHT, Wavy_Hair=style in LOOSE_WAVY,
                  Bangs=None if line=='swept' else line in ('straight','jagged'),
                  Receding_Hairline=line in ('receding','bare'))
    return dict.fromkeys(found, False) | {'Bald':True} if bald else found | {'Bald':False}


def of_numbers(d):
    f,m = d['face'],d['mood']
    woman,light = f['gender']=='female',np.array(f['skin'])@(.2126,.7152,.0722)
    lids = max(.1, .66*m['upper']*(1-.28*f['lid']))+.46*m['lower']
    return dict(
        Arched_Eyebrows=above(.04*m['arch']+.07*f['arch'], .075), Bags_Under_Eyes=above(f['bags'], .4),
        Big_Lips=above(f['lips']*((.30 if woman else .16)+.08*f['makeup']), .33), Blurry=above(d['blur'], .006),
        Big_Nose=above(f['nose']*f['nose_width']*(.45+.55*f['tip']), 1.35), Chubby=above(f['fullness'], .65),
        Bushy_Eyebrows=above(f['brow_thick']*m['heavy'], .044), Double_Chin=above(f['double_chin'], .4),
        Heavy_Makeup=above(f['makeup'], .45), Wearing_Lipstick=above(f['makeup'], .2), Pale_Skin=above(light, .87),
        High_Cheekbones=above(f['cheekbones'], .4), Mouth_Slightly_Open=above(m['open'], .12),
        Narrow_Eyes=below(lids, .85), Oval_Face=below(max(f['jaw']/.72, f['width']/.74), 1.),
        Pointy_Nose=below(f['tip'], .78),
        Rosy_Cheeks=above(f['blush'] or 0, .45), Smiling=above(m['curve'], .55))


def of_things(d):
    f,bust,beard = d['face'],d['bust'],d['face']['beard']
    return {'5_o_Clock_Shadow': beard=='stubble', 'No_Beard': beard=='none', 'Goatee': beard in {'goatee','chin'},
            'Mustache': beard in {'goatee','moustache','full','long'}, 'Sideburns': f['sideburns'] or beard in {'full','long'},
            'Eyeglasses': f['glasses']!='none', 'Wearing_Earrings': f['earrings']!='none', 'Male': f['gender']=='male',
            'Wearing_Hat': bool(d['hat']), 'Wearing_Necklace': bust['necklace']!='none',
            'Wearing_Necktie': bool(bust['necktie']), 'Young': f['age'] in {'teenager','young adult'}}


def out_of_sight(d, mask):
    "Attributes that a viewer of the picture can't know"
    f,hat,beard = d['face'],d['hat'],d['face']['beard']
    found = [PARSING[k] for k,n in zip(*np.unique(mask, return_counts=True)) if n>=max(1, .0004*mask.size)]
    def see(*names): return any(o in found for o in names)
    veil,no_ear = bool(hat) and hat['kind'] in {'hood','headscarf'},not see('l_ear','r_ear')
    no_hair = veil or not see('hair') and f['hair']!='bald'
    lum = np.array([f['skin'], f['brow_colour']])@(.2126,.7152,.0722)
    under_hat = dict.fromkeys(('Bald', 'Bangs', 'Receding_Hairline'), hat)
    of_hair = ('Black_Hair', 'Brown_Hair', 'Blond_Hair', 'Gray_Hair', 'Straight_Hair', 'Wavy_Hair')
    return under_hat | dict.fromkeys(of_hair, no_hair) | {
        'Sideburns': no_ear and beard not in {'full','long'},
        'Wearing_Earrings': no_ear or f['earrings']!='none' and not see('ear_r'),
        'Arched_Eyebrows': not see('l_brow','r_brow'), 'Bushy_Eyebrows': not see('l_brow','r_brow'),
        'Wearing_Lipstick': not see('u_lip','l_lip'), 'Big_Lips': not see('u_lip','l_lip'),
        'Wearing_Necklace': d['bust']['necklace']!='none' and not see('neck_l'), 'Wearing_Necktie': beard=='long',
        'Double_Chin': veil or beard in {'chin','goatee','full','long'}, 'Chubby': d['view']=='side',
        'Oval_Face': d['view']=='side' or f['fullness']>.25 and f['jaw']<.72 and f['width']<.74,
        'Bags_Under_Eyes': f['lines']>.6 and f['bags']==0, '5_o_Clock_Shadow': beard=='stubble' and lum[0]-lum[1]<.1}


def second_opinion(d, mask):
    found = of_hair(d['face']) | of_numbers(d) | of_things(d)
    hidden = out_of_sight(d, mask)
    words = {None:'', True:'yes', False:'no'}
    return {o: '' if o=='Attractive' or hidden.get(o) else words[found[o]] for o in CELEBA_40}


@pytest.mark.parametrize('kind', ['tied', 'free'])
def test_other_rules_find_the_same_labels_in_the_numbers(kind, request):
    root = request.getfixturevalue(kind)
    df = pd.concat([drawn_faces(root, o)[0] for o in ('test','val')]).drop_duplicates('image').set_index('image')
    labels = df[list(CELEBA_40)].to_dict('index')
    lines = [json.loads(o) for o in (root/'faces.jsonl').read_text().splitlines()]
    assert len(lines)==len(df)==200
    for d in lines:
        mask = np.array(Image.open(root/parsing_path(d['image'])))
        assert second_opinion(d, mask)==labels[d['image']], d['image']


def test_every_attribute_has_both_answers_at_least_ten_times_in_the_small_sets():
    "By the labels if all were in view, and by what was drawn"
    everything = np.arange(96*78, dtype=np.uint16).reshape(96,78)%19
    for correlated in (True, False):
        counts = {o: dict(yes=0, no=0) for o in FACE_TASKS.names}
        person,face = None,None
        for w in face_plan('small', 0, correlated).to_dict('records')[::3]:
            if w['person']!=person: person,face = w['person'],facesets._person(w, 0, correlated)
            labels = face_attributes(sit(w, 0, correlated, face), everything.astype(np.uint8))
            for o in counts:
                if labels[o]: counts[o][labels[o]] += 1
        assert not {k: v for k,v in counts.items() if min(v.values())<10}


def test_every_attribute_has_both_answers_in_what_was_drawn():
    df = pd.read_csv(RESULTS/'facesets.csv', index_col='attribute')
    assert set(df.index)==set(FACE_TASKS.names) and df.index.is_unique
    for kind in ('tied','free'):
        n = 4000*(1-df[f'{kind}_unlabelled'])
        assert (n*df[kind]).min()>=10 and (n*(1-df[kind])).min()>=10


def test_shares_of_the_drawn_set_are_near_those_of_celeba():
    df = pd.read_csv(RESULTS/'facesets.csv', index_col='attribute')
    assert df['celeba'].to_dict()==RATES
    off = (df['tied']-df['celeba']).abs()
    assert off.max()<.08 and off.mean()<.025
    ties = pd.read_csv(RESULTS/'facesets_ties.csv')
    assert (ties['tied']-ties['celeba']).abs().max()<.17
    by_rule = ties['b'].isin(['Heavy_Makeup','Goatee','Sideburns','5_o_Clock_Shadow'])
    assert ties['free'][~by_rule].abs().max()<.14


# What is dealt

def test_leaning_has_the_share_and_the_correlation_that_were_wanted():
    rng = np.random.default_rng(3)
    a = rng.random(400_000)<.3
    for q,r in ((.5,.4), (.2,-.3), (.35,0.)):
        b = rng.random(400_000)<leaning(q, (a, .3, r))
        assert b.mean()==pytest.approx(q, abs=.004) and np.corrcoef(a, b)[0,1]==pytest.approx(r, abs=.006)


def test_dealt_shares_and_ties():
    df = deal_faces(30_000, 1)
    names = [o for o in RATES if o in df]
    assert len(names)>25
    for o in names: assert df[o].mean()==pytest.approx(RATES[o], abs=.015), o
    for a,parents in TIES.items():
        if len(parents)>1: continue # several parents have ties of their own
        for b,r in parents.items(): assert df[a].corr(df[b])==pytest.approx(r, abs=.06), (a,b)
    assert (df['beard']!='none').mean()==pytest.approx(1-RATES['No_Beard'], abs=.015)


def test_nothing_goes_together_that_need_not_in_a_free_set():
    df = deal_faces(30_000, 1, correlated=False)
    flags = df.select_dtypes(bool).assign(bearded=df['beard']!='none')
    ties = flags.corr().abs()-np.eye(flags.shape[1])
    by_rule = [('Wavy_Hair','Straight_Hair'), ('Oval_Face','Chubby'), ('Receding_Hairline','Bangs'),
               ('Heavy_Makeup','Wearing_Lipstick')]
    for a,b in by_rule:
        assert ties.loc[a,b]>.1
        ties.loc[a,b] = ties.loc[b,a] = 0
    assert ties.to_numpy().max()<.03


@pytest.mark.parametrize('preset', ['tiny', 'small', 'bench'])
def test_nobody_is_in_two_parts(preset):
    plan = face_plan(preset)
    parts = plan.groupby('identity')['part'].nunique()
    assert parts.max()==1 and plan['image'].is_unique
    shares = plan.drop_duplicates('identity')['part'].value_counts(normalize=True)
    assert shares['train']==pytest.approx(.8, abs=.01) and min(shares['val'], shares['test'])>.07


def test_a_person_keeps_what_a_person_has(tied):
    fixed = ('gender','age','skin','hair','hair_colour','nose','nose_width','tip','jaw','width','beard','arch','iris','seed')
    varies = ('makeup','glasses','earrings')
    by_person = {}
    for image,_,s in drawn_sittings(tied): by_person.setdefault(image[:14], []).append(s)
    assert len(by_person)==25
    for faces in by_person.values():
        for o in fixed[:-3]: assert len({getattr(s.face, o) for s in faces})==1, o
    assert any(len({getattr(s.face, o) for s in faces})>1 for faces in by_person.values() for o in varies)


# Files

def test_a_set_is_whole_and_its_answers_agree(tied):
    df,tasks = drawn_faces(tied)
    assert read_annotations(tied/'annotations.csv', tied, tasks).shape[0]==len(df)==176
    points,images = drawn_points(tied, df['image']),df['image'].tolist()
    for i,(image,_,s) in enumerate(drawn_sittings(tied)):
        if i%20: continue
        again = draw_sitting(s, 64)
        np.testing.assert_array_equal(drawn_parsing(tied, image), again.parsing)
        if image in images: np.testing.assert_allclose(points[images.index(image)], again.points, atol=.006)
        jpeg = np.array(Image.open(tied/image)).astype(int)
        assert np.abs(jpeg-again.picture).mean()<4
    val,_ = drawn_faces(tied, 'val')
    tests,choices = ({*o['identity'][o['split']!='train']} for o in (df, val))
    assert tests and choices and not tests & choices
    assert set(val['identity'][val['split']=='train'])==set(df['identity'][df['split']=='train'])


def test_three_workers_draw_the_same_bytes(tied, tmp_path):
    make_faces(tmp_path/'a', 'tiny', n_workers=3)
    assert contents(tmp_path/'a')==contents(tied)


def test_another_seed_and_kind_draw_others(tied, free):
    a,b,c = (deal_faces(25, 8, o, k) for o,k in ((0,True), (1,True), (0,False)))
    assert not a.equals(b) and not a.equals(c)
    assert contents(tied)[Path('pictures/f0003_00.jpg')]!=contents(free)[Path('pictures/f0003_00.jpg')]


def test_a_killed_run_goes_on_with_another_number_of_workers_and_ends_with_the_same_bytes(tied, tmp_path):
    root = tmp_path/'a'
    code = f"from portrait_nb.faces.facesets import make_faces; make_faces({str(root)!r}, 'tiny', n_workers=0)"
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic()+120
    while len(list(root.glob('parsing/*.png')))<20 and time.monotonic()<deadline: time.sleep(.01)
    p.send_signal(signal.SIGKILL)
    assert p.wait()==-signal.SIGKILL
    n = len(list(root.glob('parsing/*.png')))
    assert 20<=n<200 and not (root/'annotations.csv').exists()
    with pytest.raises(FileNotFoundError, match='draw the set with make_faces'): drawn_faces(root)
    dates = {o: o.stat().st_mtime_ns for o in root.glob('parsing/*.png')}
    make_faces(root, 'tiny', n_workers=1)
    assert {o: o.stat().st_mtime_ns for o in dates}==dates # what was there stays
    for o in root.rglob('.*.part'): o.unlink() # half a file that nobody reads
    assert contents(root)==contents(tied)


def test_places_do_not_depend_on_what_lay_in_memory(monkeypatch):
    "They were once painted over pixels that nobody had cleared"
    def filled(value):
        def empty(shape, dtype=float): return np.full(shape, value, dtype)
        with monkeypatch.context() as m:
            m.setattr(np, 'empty', empty)
            return [drawn._backdrop.__wrapped__(i).toarray() for i in range(40)]
    np.testing.assert_array_equal(filled(0), filled(255))


def broken(data): return {'empty':b'', 'cut':data[:len(data)//2], 'without its end':data[:-200], 'no PNG':b'x'*500}


@pytest.mark.parametrize('how', broken(b''))
def test_a_broken_mask_is_drawn_again_or_named(how, tied, tmp_path):
    root,image = tmp_path/'a','pictures/f0007_03.jpg'
    shutil.copytree(tied, root)
    mask = root/parsing_path(image)
    mask.write_bytes(broken(mask.read_bytes())[how])
    words = f"{mask} is broken. Delete it and validation.csv, and run make_faces"
    with pytest.raises(ValueError, match=re.escape(words)): drawn_parsing(root, image)
    (root/'validation.csv').unlink()
    make_faces(root, 'tiny', n_workers=0)
    assert contents(root)==contents(tied)


def test_a_picture_that_is_gone_is_drawn_again(tied, tmp_path):
    shutil.copytree(tied, tmp_path/'a')
    for o in ('pictures/f0002_01.jpg', 'validation.csv', 'points.npz'): (tmp_path/'a'/o).unlink()
    make_faces(tmp_path/'a', 'tiny', n_workers=0)
    assert contents(tmp_path/'a')==contents(tied)


# Wrong arguments and folders end in a sentence, and leave everything as it was

def test_folders_that_are_not_ours(tied, tmp_path):
    (tmp_path/'file').write_text('mine')
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine'/'thesis.txt').write_text('mine')
    (tmp_path/'claim').mkdir()
    (tmp_path/'claim'/'faces.json').write_text('{')
    before = contents(tmp_path)
    faults = dict(file='is a file; make_faces needs a folder', mine='holds files that make_faces did not write',
                  claim='is not what make_faces writes')
    for folder,words in faults.items():
        with pytest.raises(ValueError, match=words): make_faces(tmp_path/folder, 'tiny')
    for change in (dict(seed=1), dict(correlated=False), dict(preset='small')):
        with pytest.raises(ValueError, match='holds a set of another kind'):
            make_faces(tied, **{'preset':'tiny', **change})
    assert contents(tmp_path)==before


@pytest.mark.parametrize('kwargs,words', [
    (dict(preset='smal'), "did you mean 'small'"), (dict(preset=None), 'preset must be one of tiny, small, bench'),
    (dict(seed=-1), 'seed must be 0 or more, got -1'), (dict(n_workers=-2), 'n_workers must be 0 or more, got -2')])
def test_wrong_arguments_make_no_folder(kwargs, words, tmp_path):
    with pytest.raises(ValueError, match=words): make_faces(tmp_path/'a', **{'preset':'tiny', **kwargs})
    assert not (tmp_path/'a').exists()


def test_homes_and_relative_paths(tmp_path, monkeypatch):
    monkeypatch.setattr(facesets, 'FACE_PRESETS', dict(tiny=facesets.FacePreset(10, 1, 32)))
    monkeypatch.setenv('HOME', str(tmp_path))
    make_faces('~/a', 'tiny', n_workers=0)
    monkeypatch.chdir(tmp_path)
    draw = facesets.write_faces

    def moving(root, *args, **kwargs):
        os.chdir('/')
        return draw(root, *args, **kwargs)
    monkeypatch.setattr(facesets, 'write_faces', moving)
    make_faces('b', 'tiny', n_workers=0) # the folder is where it was when we began
    assert contents(tmp_path/'a')==contents(tmp_path/'b') and len(drawn_faces('~/a')[0])==9


def test_a_hundred_workers_are_as_many_as_the_machine_can_use():
    rows = [dict(person=o) for o in range(500)]
    assert facesets._n_processes(100, rows)==min(100, 2*os.cpu_count())
    assert facesets._n_processes(8, rows[:1])==1 and facesets._n_processes(8, [])==0
    assert facesets._n_processes(None, rows[:100])==0 and facesets._n_processes(None, rows)==os.cpu_count()


@pytest.mark.parametrize('fails', ['pictures', 'parsing', 'annotations.csv', 'validation.csv'])
def test_a_full_disk_stops_the_run_and_leaves_nothing_half_written(fails, tmp_path, monkeypatch):
    monkeypatch.setattr(facesets, 'FACE_PRESETS', dict(tiny=facesets.FacePreset(10, 1, 32)))
    save = facesets.save_whole

    def full(path, data):
        if fails in str(path.relative_to(tmp_path/'a')): raise OSError(28, 'No space left on device', str(path))
        save(path, data)
    with monkeypatch.context() as m:
        m.setattr(facesets, 'save_whole', full)
        with pytest.raises(OSError, match='No space left on device'): make_faces(tmp_path/'a', 'tiny', n_workers=0)
    assert not (tmp_path/'a'/'validation.csv').exists()
    make_faces(tmp_path/'a', 'tiny', n_workers=0)
    make_faces(tmp_path/'b', 'tiny', n_workers=0)
    assert contents(tmp_path/'a')==contents(tmp_path/'b')


@pytest.mark.parametrize('images,words', [
    (['pictures/x.jpg'], 'pictures/x.jpg is not a picture of'), (['a','b'], 'a, b are not pictures of')])
def test_unknown_pictures_are_named(images, words, tied):
    for read in (drawn_points, face_sheet):
        with pytest.raises(ValueError, match=words): read(tied, images)


def test_what_is_not_there_is_one_sentence(tied, tmp_path):
    for read in (lambda o: drawn_faces(o), lambda o: drawn_points(o, ['a']), lambda o: next(drawn_sittings(o)),
                 lambda o: face_sheet(o, ['a']), lambda o: set_shares(o)):
        with pytest.raises(FileNotFoundError, match='is not there; draw the set with make_faces'): read(tmp_path/'none')
    with pytest.raises(FileNotFoundError, match='none.png is not there'): drawn_parsing(tied, 'pictures/none.jpg')
    with pytest.raises(ValueError, match='the list of faces is empty'): face_sheet(tied, [])
    with pytest.raises(ValueError, match='test must be one of test, val'): drawn_faces(tied, 'train')
    assert drawn_points(tied, []).shape==(0,98,2)


def test_a_tie_of_an_attribute_with_itself_is_one_and_orders_do_not_matter(tied):
    assert set_tie(tied, 'Male', 'Male')==pytest.approx(1)
    assert set_tie(tied, 'Male', 'Young')==pytest.approx(set_tie(tied, 'Young', 'Male'))

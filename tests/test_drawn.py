"Drawn faces: masks against recoloured pictures, landmarks against borders, mirrors, and what is hidden."
import json
from dataclasses import replace

import numpy as np
import pytest

from portrait_nb.draw.hats import random_hat
from portrait_nb.draw.heads import jitter, random_face
from portrait_nb.faces.conventions import CELEBA_40, PARSING, WFLW_TO_68, flip_parsing, flip_points
from portrait_nb.faces.drawn import (
    BAND, FACE_TASKS, HAIR_COLOURS, NOT_DRAWN, PALETTE, THRESHOLDS, Sitting, coloured_parsing, draw_sitting,
    face_attributes, off_border, show_faces, visible_parts)
from portrait_nb.faces.facesets import deal_faces, sit

N_FACES = 1000
DYES = { # part -> where its colours stand, the classes that have them, the height at which it has inner pixels
    'skin': ('face', ['skin'], ['skin','l_ear','r_ear','nose','neck'], 96),
    'hair': ('face', ['hair_colour'], ['hair'], 96),
    'hat': ('hat', ['colour'], ['hat'], 96),
    'clothes': ('bust', ['colour','inner','necktie'], ['cloth'], 96),
    'lips': ('face', ['lip_colour'], ['u_lip','l_lip'], 160),
    'iris': ('face', ['iris'], ['l_eye','r_eye'], 160),
    'brows': ('face', ['brow_colour'], ['l_brow','r_brow'], 218),
    'glasses': ('face', ['glasses_colour'], ['eye_g'], 160),
    'earrings': ('face', ['jewel'], ['ear_r'], 260),
    'necklace': ('bust', ['metal'], ['neck_l'], 218)}
INSIDE = dict.fromkeys(DYES, .998)    # at least this share of a class's inner pixels has its colour ...
INSIDE['iris'] = .5                  # ... but an eye is white, too
OUTSIDE = dict.fromkeys(DYES, .0005)  # at most this share of the pixels that have the colour are of another class
OUTSIDE |= dict(skin=.006,            # thin brows and chains are part skin
                lips=.004,            # the line between closed lips runs past their corners, and is no lip
                glasses=.010,         # where two rims and the bridge meet
                necklace=.004)        # skin between beads
LEAST = dict(skin=60_000, hair=50_000, hat=80_000, clothes=50_000, lips=4000, iris=6000, brows=3000, glasses=2000,
             earrings=1500, necklace=2500) # inner pixels to compare, of all faces


def inner(mask):
    "`mask` without the pixels that touch another one"
    m = np.pad(mask, 1)
    m = m[:-2] & m[1:-1] & m[2:]
    return m[:,:-2] & m[:,1:-1] & m[:,2:]


def opposite(colour): return tuple(float(o<.5) for o in colour)


def sittings(n, seed=0):
    "Pictures of people of both kinds of set, in focus"
    for correlated in (True, False):
        rows = deal_faces(n//4, 2, seed, correlated).to_dict('records')
        for w in rows: yield replace(sit(w, seed, correlated), blur=0.)


def dressed(s, part, rng):
    "The sitting with something that has the part, and without what has its colour elsewhere"
    plain,bust,hat = dict(beard='none', makeup=0., streak=None),s.bust,s.hat
    if part=='glasses' and s.face.glasses=='none': plain['glasses'] = 'square'
    if part=='earrings': plain |= dict(hair='short', fringe='high')
    if part=='earrings' and s.face.earrings=='none': plain['earrings'] = 'drop'
    if part in ('brows','hair'): plain['sideburns'] = False # of a colour between the two
    if part=='skin' and s.face.hair=='buzz': plain |= dict(hair='short', fringe='high') # skin shines through a buzz cut
    if part=='necklace' and bust.necklace=='none':
        bust = replace(bust, garment='v-neck', necktie=None, necklace='beads')
    if part=='hat' and hat is None: hat = random_hat(rng)
    return replace(s, face=replace(s.face, **plain), bust=bust, hat=hat)


def dyed(s, part):
    "The sitting with one part in the opposite colour"
    holder,names = DYES[part][:2]
    old = getattr(s, holder)
    new = {o: opposite(getattr(old, o)) for o in names if getattr(old, o)}
    return replace(s, **{holder: replace(old, **new)})


def compare(s, part, parsing=None):
    "Pixels: inner ones of the class; those that changed; inner ones of the change; those outside the class"
    height = DYES[part][3]
    a,b = draw_sitting(s, height),draw_sitting(dyed(s, part), height)
    assert (a.parsing==b.parsing).all() # the colour of a thing doesn't move it
    own = np.isin(a.parsing if parsing is None else parsing(a.parsing), [PARSING.index(o) for o in DYES[part][2]])
    change = np.abs(a.picture.astype(int)-b.picture).max(2)>40
    return np.array([inner(own).sum(), (inner(own) & change).sum(), inner(change).sum(), (inner(change) & ~own).sum()])


def agreement(n, parsing=None):
    "Sums of `compare` by part over `n` faces, which take turns"
    parts,rng = list(DYES),np.random.default_rng(0)
    sums = {o: np.zeros(4, int) for o in parts}
    for i,s in enumerate(sittings(n)):
        part = parts[i%len(parts)]
        sums[part] += compare(dressed(s, part, rng), part, parsing)
    return sums


def faults(sums, share=1.):
    "Where masks and pictures disagree"
    for part,(own,same,change,outside) in sums.items():
        if own<LEAST[part]*share: yield f'{part}: {own} pixels are too few to compare'
        if same<INSIDE[part]*own: yield f'{part}: only {same} of {own} pixels of the mask have its colour'
        if outside>OUTSIDE[part]*change: yield f'{part}: {outside} of {change} pixels of its colour are not in the mask'


def test_masks_agree_with_recoloured_pictures_of_a_thousand_faces():
    sums = agreement(N_FACES)
    print({k: o.tolist() for k,o in sums.items()})
    assert list(faults(sums))==[]


def test_the_comparison_finds_masks_that_are_two_pixels_off():
    "or the test above would prove nothing"
    sums = agreement(60, lambda o: np.roll(o, 2, (0,1)))
    assert {o.split(':')[0] for o in faults(sums, 0)}>=set(DYES)-{'iris'}


def bare(s):
    "The sitting without what would hide a border"
    nothing = dict(hair='bald', beard='none', glasses='none', earrings='none', sideburns=False)
    return replace(s, face=replace(s.face, **nothing), hat=None)


def test_points_lie_on_the_borders_of_their_classes_on_a_thousand_faces():
    off,covered,n = [],[],0
    for s in sittings(N_FACES, seed=1):
        face = draw_sitting(bare(s))
        for found,more in zip((off, covered), off_border(face)): found += more
        n += (~np.isnan(face.points[:96,0])).sum()
    print(n, len(off)/n, len(covered)/n)
    assert n>85_000
    assert len(off)<.0015*n # inner ends of the brows, mostly: a corner thinner than a pixel
    assert len(covered)<.005*n # the chin by the lips of a large mouth, an eye by its brow


def test_points_that_are_two_pixels_away_are_found():
    faces = [draw_sitting(bare(o)) for o in sittings(40)]
    found = [len(off_border(replace(o, points=o.points+[0,2.5]))[0]) for o in faces]
    assert np.mean(found)>25


def test_views_have_their_points_and_a_mirror_keeps_them():
    for s in sittings(24):
        s = replace(s, mirror=False)
        n = np.isfinite(draw_sitting(s, 96).points[:,0]).sum()
        assert n==98 if s.view=='front' else n>75 if s.view=='half side' else 40<n<75


def test_a_mirrored_sitting_is_the_mirrored_picture_mask_and_points():
    for s in sittings(40):
        a,b = (draw_sitting(replace(s, mirror=o), 96) for o in (False,True))
        grain = np.abs(a.picture[:,::-1].astype(int)-b.picture) # the sensor isn't mirrored
        assert np.percentile(grain, 99)<=14 and grain.mean()<3
        np.testing.assert_array_equal(b.parsing, flip_parsing(a.parsing))
        np.testing.assert_array_equal(b.points, flip_points(a.points, 78))
        assert face_attributes(s, a.parsing)==face_attributes(s, b.parsing)


def test_left_and_right_are_the_pictures():
    "In a front view all of the left eye is left of all of the right one, and so are its points"
    for s in sittings(40):
        if s.view!='front' or s.face.glasses!='none': continue
        face = draw_sitting(s)
        for o in ('eye','brow'):
            left,right = (np.nonzero(face.parsing==PARSING.index(f'{side}_{o}'))[1] for side in 'lr')
            if len(left) and len(right): assert left.max()<right.min()
        assert face.points[60:68,0].max()<face.points[68:76,0].min()
        assert face.points[0,0]<face.points[16,0]<face.points[32,0]
        assert face.points[16,1]>face.points[[0,32],1].max()


def test_sizes_of_one_sitting_agree():
    "Points scale with the picture, and the shares of the classes stay"
    for s in sittings(12):
        a,b = draw_sitting(s, 109),draw_sitting(s, 436)
        np.testing.assert_allclose(a.points*4, b.points, atol=.05*4)
        shares = [np.bincount(o.parsing.ravel(), minlength=19)/o.parsing.size for o in (a,b)]
        assert np.abs(shares[0]-shares[1]).max()<.02


def test_sittings_come_back_from_json():
    for s in sittings(40):
        again = Sitting.from_dict(json.loads(json.dumps(s.to_dict())))
        assert again==s
        assert (draw_sitting(again, 64).picture==draw_sitting(s, 64).picture).all()


@pytest.mark.parametrize('view', ['back', 'Front', None])
def test_an_unknown_view_is_one_sentence(view):
    s = next(sittings(4))
    with pytest.raises(ValueError, match="^view must be one of front, half side, side"):
        draw_sitting(replace(s, view=view))


def test_tables_of_classes_points_and_attributes():
    assert len(PARSING)==len(set(PARSING))==len(PALETTE)==19 and len(np.unique(PALETTE, axis=0))==19
    assert len(CELEBA_40)==40 and list(CELEBA_40)==sorted(CELEBA_40, key=lambda o: o.replace('5','0'))
    assert len(FACE_TASKS)==39 and NOT_DRAWN not in FACE_TASKS.names
    assert len(WFLW_TO_68)==68 and WFLW_TO_68[:17]==tuple(range(0,33,2)) and WFLW_TO_68[48:]==tuple(range(76,96))


def test_small_parts_are_not_visible():
    parsing = np.ones((96,78), np.uint8)
    parsing[0,:2] = PARSING.index('ear_r')
    assert visible_parts(parsing)=={'skin'}
    parsing[0,:3] = PARSING.index('ear_r')
    assert visible_parts(parsing)=={'skin','ear_r'}


def test_coloured_parsing_marks_points_inside_the_picture_only():
    points = np.full((98,2), np.nan)
    points[:3] = (1,2),(-1,0),(4,0)
    picture = coloured_parsing(np.zeros((4,4), np.uint8), points)
    assert (picture==255).all(2).sum()==1 and (picture[2,1]==255).all()


def test_a_sheet_of_nothing_is_one_sentence_and_one_of_four_is_a_picture():
    with pytest.raises(ValueError, match='the list of faces is empty'): show_faces([])
    assert show_faces(sittings(4), 64).data[:2]==b'\xff\xd8' # a JPEG file


def test_no_label_within_the_band_and_both_answers_beyond_it():
    s = next(sittings(4))
    parsing = np.ones((96,78), np.uint8)
    parsing[:4] = np.arange(19).repeat(17)[:312].reshape(4,78) # everything is visible
    s = replace(s, view='front', hat=None, face=replace(s.face, beard='none', lines=0., makeup=0.))
    for name,(holder,field) in dict(Chubby=('face','fullness'), Pointy_Nose=('face','tip'), Smiling=('mood','curve'),
                                    Bags_Under_Eyes=('face','bags'), Rosy_Cheeks=('face','blush')).items():
        def answer(k):
            moved = replace(getattr(s, holder), **{field: k*THRESHOLDS[name]})
            return face_attributes(replace(s, **{holder: moved}), parsing)[name]
        answers = [answer(o) for o in (.5, 1-BAND-.001, 1-BAND+.001, 1., 1+BAND-.001, 1+BAND+.001, 1.5)]
        low,high = ('yes','no') if name=='Pointy_Nose' else ('no','yes')
        assert answers==[low,low,'','','',high,high], name


COLOURS = ('Black_Hair', 'Blond_Hair', 'Brown_Hair', 'Gray_Hair')


def colour_labels(s, colour):
    "The four labels of a colour of hair, where all of it is in sight"
    parsing = np.arange(19, dtype=np.uint8).repeat(40).reshape(19,40)
    face = replace(s.face, hair='short', hair_colour=tuple(colour))
    labels = face_attributes(replace(s, face=face, hat=None), parsing)
    return {o: labels[o] for o in COLOURS}


def of_the_nearest(colour):
    "The four labels by the nearest colour of the list alone"
    names = list(HAIR_COLOURS)
    listed = np.array([HAIR_COLOURS[o][0] for o in names])
    near = HAIR_COLOURS[names[np.linalg.norm(listed-colour, axis=1).argmin()]][1].split('|')
    return {o: ('' if len(near)>1 else 'yes') if o in near else 'no' for o in COLOURS}


def test_colours_that_sets_deal_keep_the_labels_of_the_nearest_colour():
    "`make_faces` shifts a colour of the list by a spread of .012"
    s,rng = next(sittings(4)),np.random.default_rng(0)
    for name,(colour,_) in HAIR_COLOURS.items():
        for _ in range(500):
            near = jitter(rng, colour, .012)
            assert colour_labels(s, near)==of_the_nearest(near), (name, near)


@pytest.mark.parametrize('name,unknown', [
    ('brown', {'Brown_Hair','Gray_Hair'}), ('dark_blond', {'Brown_Hair','Blond_Hair','Gray_Hair'}),
    ('blond', {'Blond_Hair','Gray_Hair'})])
def test_hair_that_is_going_grey_has_no_label_for_grey_and_none_for_what_it_was(name, unknown):
    s,colour = next(sittings(4)),np.array(HAIR_COLOURS[name][0])
    grey = np.full(3, colour@(.2126,.7152,.0722)) # as light, without any colour
    def labels(k): return colour_labels(s, colour+k*(grey-colour))
    for k in (0., .2): assert labels(k)==of_the_nearest(colour), k
    found = [labels(k) for k in np.linspace(0, 1, 21)]
    blank = [{o for o in COLOURS if answers[o]==''} for answers in found]
    assert unknown in blank, name
    assert all(o['Gray_Hair']!='no' for o in found[11:]), name # half of the way


def test_people_who_are_going_grey_are_not_labelled_as_without_grey_hair():
    s,rng = next(sittings(4)),np.random.default_rng(8)
    grey = np.array([.58,.57,.57])
    n = 0
    for _ in range(300):
        colour = np.array(random_face(rng, 'male', 'senior').hair_colour)
        if np.ptp(colour)>.13 or np.abs(colour-grey).max()>.3: continue
        n += 1
        assert colour_labels(s, colour)['Gray_Hair']!='no', colour
    assert n>50

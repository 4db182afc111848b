"People, poses, clothes and things: what other rooms rely on, checked without looking at a picture"
import math
from dataclasses import replace
import numpy as np
import pytest
from portrait_nb.draw import bodies, clothes
from portrait_nb.draw.bodies import Body, Pose, random_person, random_pose, skeleton
from portrait_nb.draw.brush import skia
from portrait_nb.draw.clothes import random_outfit
from portrait_nb.draw.things import draw_figure
from portrait_nb.tasks import PORTRAIT

STANCES, ARMS = bodies._STANCES, bodies._ARMS
VIEWS = ('front', 'half side', 'side', 'back')


def cast(seed=0, **labels):
    rng = np.random.default_rng(seed)
    def word(task): return labels.get(task, PORTRAIT[task].labels[int(rng.integers(PORTRAIT[task].n_labels))])
    p = random_person(rng, **{task: word(task) for task in ('gender', 'age', 'physique', 'height')})
    return p, random_outfit(rng, p), rng


def pixels(person, outfit, pose, **kwargs):
    surface = skia.Surface(64, 128)
    c = surface.getCanvas()
    c.translate(32, 118)
    c.scale(55, 55)
    draw_figure(c, person, outfit, pose, **kwargs)
    return surface.toarray()


@pytest.mark.parametrize('body', list(STANCES))
@pytest.mark.parametrize('arm', list(ARMS))
def test_every_row_in_every_view_draws_twice_the_same(body, arm):
    hows, acts = list(STANCES[body]), list(ARMS[arm])
    for i in range(max(len(hows), len(acts))):
        p, o, rng = cast(i)
        q = random_pose(rng, body, arm, VIEWS[i%4], how=hows[i%len(hows)], act=acts[i%len(acts)])
        a = pixels(p, o, q)
        assert a[..., 3].any() and np.array_equal(a, pixels(p, o, q))


@pytest.mark.parametrize('top', list(clothes._TOPS))
def test_every_cut_from_every_side(top):
    for i, bottom in enumerate(clothes._BOTTOMS):
        p, o, _ = cast(i)
        pose = Pose('walking', 'hanging', VIEWS[i%4])
        assert pixels(p, replace(o, top=top, bottom=bottom), pose)[..., 3].any()


def test_drawing_uses_no_chance_and_leaves_the_canvas_as_it_was():
    p, o, rng = cast(1)
    c = skia.Surface(8, 8).getCanvas()
    matrix = lambda: [c.getTotalMatrix().get(i) for i in range(9)]
    before, n = matrix(), c.getSaveCount()
    state = np.random.get_state()[1].copy()
    draw_figure(c, p, o, random_pose(rng, 'other', 'holding', 'half side'))
    assert c.getSaveCount() == n and matrix() == before and np.array_equal(np.random.get_state()[1], state)


def test_stature_is_the_distance_from_sole_to_crown():
    for age in PORTRAIT['age'].labels:
        p, _, _ = cast(3, age=age)
        J = Body(p, Pose('standing', 'hanging', 'front')).space
        assert math.isclose(-J['crown'][1], p.stature, rel_tol=.05)


def test_heights_and_builds_are_ordered():
    for age in PORTRAIT['age'].labels:
        for seed in range(5):
            def woman(height): return cast(seed, gender='female', age=age, physique='medium', height=height)[0]
            short, medium, tall = (woman(h) for h in ('short', 'medium', 'tall'))
            assert short.stature<medium.stature<tall.stature
            assert short.stature/short.head<tall.stature/tall.head
            def man(build): return cast(seed, gender='male', age=age, physique=build, height='medium')[0]
            thin, heavy = man('thin'), man('heavy')
            assert thin.girth*1.4<heavy.girth and thin.limb*1.4<heavy.limb
            assert thin.belly<heavy.belly and thin.face.fullness<heavy.face.fullness


def test_postures_keep_their_order_of_heights():
    p, _, _ = cast(4, age='young adult', height='medium')
    top = {b: min(y for _, y in skeleton(p, Pose(b, 'hanging', 'side')).values()) for b in STANCES}
    assert top['standing']<top['sitting']<top['crouching']<top['lying']


@pytest.mark.parametrize('words,message', [
    (('flying', 'hanging', 'front'), 'body is one of standing'),
    (('standing', 'folded', 'front'), 'arm is one of hanging'),
    (('standing', 'hanging', 'top'), 'view is one of front')])
def test_an_unknown_word_is_answered_with_the_known_ones(words, message):
    with pytest.raises(ValueError, match=message): random_pose(np.random.default_rng(0), *words)

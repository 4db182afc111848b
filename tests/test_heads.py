import itertools, pickle
from dataclasses import replace
import numpy as np, pytest
from portrait_nb.draw.heads import HAIRS, MOODS, VIEWS, Head, head_canvas, random_face
from portrait_nb.draw.hair import draw_hair_behind
from portrait_nb.draw.hats import HATS, Hat, draw_head, head_image
from portrait_nb.tasks import PORTRAIT

BEARDS = ('none', 'stubble', 'moustache', 'chin', 'goatee', 'full', 'long')


def face_of(seed, gender='female', age='young adult'): return random_face(np.random.default_rng(seed), gender, age)


@pytest.mark.parametrize('gender,age', list(itertools.product(PORTRAIT['gender'].labels, PORTRAIT['age'].labels)))
def test_every_label_gives_the_same_face_twice(gender, age):
    for seed in range(20):
        face = face_of(seed, gender, age)
        assert face == face_of(seed, gender, age) and pickle.loads(pickle.dumps(face)) == face
        assert face.hair in HAIRS and face.beard in BEARDS and all(0 <= c <= 1 for c in face.skin+face.hair_colour)


@pytest.mark.parametrize('view', VIEWS)
def test_every_style_beard_and_hat_draws_and_leaves_the_canvas_as_it_was(view):
    base = face_of(3, 'male')
    for hair, hat in itertools.product(HAIRS, (None,)+HATS):
        fringes = HAIRS[hair].fringes if HAIRS[hair] else ('bare',)
        for fringe, beard in zip(fringes, itertools.cycle(BEARDS)):
            face = replace(base, hair=hair, fringe=fringe, beard=beard)
            pixels, canvas = head_canvas(20)
            blank, depth = pixels.copy(), canvas.getSaveCount()
            worn = hat and Hat(hat, (.3, .4, .5))
            draw_hair_behind(canvas, face, view, worn)
            draw_head(canvas, face, view, hat=worn)
            assert canvas.getSaveCount() == depth and (pixels != blank).any()


def test_the_back_shows_no_expression_and_the_other_views_do():
    for seed in range(6):
        face = face_of(seed, ('male', 'female')[seed%2], PORTRAIT['age'].labels[seed%5])
        for view in VIEWS:
            shots = {head_image(face, view, (e,), 24).tobytes() for e in MOODS}
            assert len(shots) == (1 if view == 'back' else len(MOODS))


def test_drawing_uses_no_chance():
    face = face_of(5)
    first = head_image(face, 'side', ('fear',), 32)
    np.random.seed(1)
    assert (first == head_image(face, 'side', ('fear',), 32)).all()


@pytest.mark.parametrize('hat', ['headscarf', 'hood'])
def test_a_scarf_hides_the_hair(hat):
    face = face_of(7)
    styles = (('long curly', (1., 0., 0.)), ('short', (0., 0., 1.)))
    heads = [replace(face, hair=h, fringe=HAIRS[h].fringes[0], hair_colour=c) for h, c in styles]
    first, second = (head_image(o, 'back', hat=Hat(hat, (.3, .4, .5)), height=32) for o in heads)
    assert (first == second).all()


def test_blending_is_symmetric_and_zero_intensity_is_neutral():
    def mood(expressions, intensity=1.): return Head(None, face_of(0), 'front', expressions, intensity).mood
    assert mood(('fear', 'anger')) == mood('anger|fear')
    for e in MOODS: assert mood((e,), 0.) == MOODS['neutral']
    assert mood(('happiness', 'happiness')).curve>MOODS['happiness'].curve


@pytest.mark.parametrize('call,words', [
    (lambda: face_of(0, 'woman', 'child'), "gender 'woman' is unknown; choose from male, female"),
    (lambda: face_of(0, 'male', 'adult'), 'choose from child, teenager, young adult, middle-aged, senior'),
    (lambda: head_image(face_of(0), 'top'), 'choose from front, half side, side, back'),
    (lambda: head_image(face_of(0), 'back', ('joy',)), "expression 'joy' is unknown"),
    (lambda: Hat('crown', (0, 0, 0)), "hat 'crown' is unknown")])
def test_unknown_names_are_refused_with_the_choices(call, words):
    with pytest.raises(ValueError) as e: call()
    assert words in str(e.value)


def test_faces_of_a_town_differ():
    rng = np.random.default_rng(0)
    labels = list(itertools.product(PORTRAIT['gender'].labels, PORTRAIT['age'].labels))
    town = [head_image(random_face(rng, g, a), height=16).tobytes() for _ in range(30) for g, a in labels]
    assert len(set(town)) == len(town)

"Places: the same bytes in every process, and in every frame size a whole picture"
import hashlib, os, subprocess, sys
from pathlib import Path
import numpy as np
import pytest
from portrait_nb.draw.brush import skia
from portrait_nb.draw.rooms import PLACES, draw_place
from portrait_nb.draw.streets import (BEDS, OCCLUDERS, SEATS, draw_bed, draw_occluder, draw_seat, random_bed,
                                      random_occluder, random_place, random_seat)


def canvas_on(pixels): return skia.Surface(pixels, colorType=skia.kRGBA_8888_ColorType).getCanvas()


def picture(kind, seed=0, size=(64, 128), **camera):
    pixels = np.zeros((size[1], size[0], 4), np.uint8)
    canvas = canvas_on(pixels)
    canvas.scale(size[0]/128, size[1]/256)
    draw_place(canvas, random_place(np.random.default_rng(seed), kind), **camera)
    return pixels


def digest():
    return hashlib.sha256(b''.join(picture(k).tobytes() for k in PLACES)).hexdigest()


def test_same_bytes_in_another_process():
    code = 'import sys; sys.path.insert(0, "tests"); from test_draw_places import digest; print(digest())'
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True,
                         env={**os.environ, 'PYTHONHASHSEED':'7'}, cwd=Path(__file__).resolve().parent.parent)
    assert out.stdout.strip() == digest()


CAMERAS = (dict(horizon=20, floor=200, scale=90), dict(horizon=140, floor=252, scale=140, dx=-40),
           dict(horizon=90, floor=800, scale=460, dx=60))


@pytest.mark.parametrize('kind', list(PLACES))
def test_many_cameras_fill_the_frame(kind):
    for i, camera in enumerate(CAMERAS):
        pixels = picture(kind, seed=i, **camera)
        assert pixels[..., 3].min() == 255 and pixels[..., :3].std()>4


def assert_draws(draw, *args, **kwargs):
    pixels = np.zeros((256, 128, 4), np.uint8)
    draw(canvas_on(pixels), *args, **kwargs)
    assert pixels.any()


@pytest.fixture
def cafe(): return random_place(np.random.default_rng(0), 'cafe')


@pytest.mark.parametrize('style', SEATS)
def test_every_seat_draws_something(cafe, style):
    for view in ('front', 'half side', 'side', 'back'): assert_draws(draw_seat, cafe, style, 64, 240, 120, view)


@pytest.mark.parametrize('style', BEDS)
def test_every_bed_draws_something(cafe, style):
    for mirror in (False, True): assert_draws(draw_bed, cafe, style, 64, 180, 75, mirror=mirror)


def test_every_occluder_draws_something(cafe):
    for i, kind in enumerate(OCCLUDERS):
        assert_draws(draw_occluder, random_occluder(np.random.default_rng(i), kind), cafe.light)


OUTDOORS = ['street', 'rainy street', 'night street', 'winter street', 'market', 'park', 'beach', 'country']


def test_seats_and_beds_exist_for_every_place():
    rng = np.random.default_rng(0)
    assert [k for k in PLACES if PLACES[k].outdoors] == OUTDOORS
    for k in PLACES: assert random_seat(rng, k) in SEATS and random_bed(rng, k) in BEDS


def test_a_place_of_any_kind_is_drawn_from_all_of_them():
    "`random_place` without a kind depends on their order, so the order is part of the data"
    assert list(PLACES)[:3] == ['living room', 'kitchen', 'bedroom'] and list(PLACES)[-8:] == OUTDOORS
    assert {random_place(np.random.default_rng(i)).kind for i in range(200)} == set(PLACES)

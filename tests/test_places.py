"Places: the same bytes in every process, and in every frame size a whole picture"
import hashlib, os, subprocess, sys
import numpy as np
import pytest
from portrait_nb.draw.brush import skia
from portrait_nb.draw.places import (BEDS, OCCLUDERS, OUTDOORS, PLACES, SEATS, draw_bed, draw_occluder, draw_place, draw_seat, random_bed, random_occluder,
                                random_place, random_seat)

def picture(kind, seed=0, size=(64,128), **cam):
    a = np.zeros((size[1],size[0],4), np.uint8)
    canvas = skia.Surface(a, colorType=skia.kRGBA_8888_ColorType).getCanvas()
    canvas.scale(size[0]/128, size[1]/256)
    draw_place(canvas, random_place(np.random.default_rng(seed), kind), **cam)
    return a

def digest():
    return hashlib.sha256(b''.join(picture(k).tobytes() for k in PLACES)).hexdigest()

def test_same_bytes_in_another_process():
    code = 'import sys; sys.path.insert(0, "tests"); from test_places import digest; print(digest())'
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, env={**os.environ, 'PYTHONHASHSEED':'7'},
                         cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    assert out.stdout.strip()==digest()

@pytest.mark.parametrize('kind', list(PLACES))
def test_many_cameras_fill_the_frame(kind):
    for i,cam in enumerate((dict(horizon=20, floor=200, scale=90), dict(horizon=140, floor=252, scale=140, dx=-40), dict(horizon=90, floor=800, scale=460, dx=60))):
        a = picture(kind, seed=i, **cam)
        assert a[...,3].min()==255 and a[...,:3].std()>4

def test_every_seat_bed_and_occluder_draws_something():
    place,blank = random_place(np.random.default_rng(0), 'cafe'),np.zeros((256,128,4), np.uint8)
    draws = [lambda c,s=s,v=v: draw_seat(c, place, s, 64, 240, 120, v) for s in SEATS for v in ('front','half side','side','back')]
    draws += [lambda c,b=b,m=m: draw_bed(c, place, b, 64, 180, 75, mirror=m) for b in BEDS for m in (False,True)]
    draws += [lambda c,o=random_occluder(np.random.default_rng(i), k): draw_occluder(c, o, place.light) for i,k in enumerate(OCCLUDERS)]
    for o in draws:
        blank[:] = 0
        o(skia.Surface(blank, colorType=skia.kRGBA_8888_ColorType).getCanvas())
        assert blank.any()

def test_seats_and_beds_exist_for_every_place():
    rng = np.random.default_rng(0)
    assert set(OUTDOORS) <= set(PLACES)
    for k in PLACES: assert random_seat(rng, k) in SEATS and random_bed(rng, k) in BEDS

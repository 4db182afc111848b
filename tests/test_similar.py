"pHash against imagehash, its cache, and similar groups against all pairs"
import os, shutil, warnings
from pathlib import Path
import imagehash
import numpy as np, pandas as pd, pytest
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from portrait_nb import similar
from portrait_nb.annotations import AnnotationWarning
from portrait_nb.pictures import open_picture
from portrait_nb.similar import (CACHE, accident_rate, by_accident, careful_threshold, group_similar, pair_scores,
                                 phash, similar_groups)

pytestmark = pytest.mark.filterwarnings('error')


def all_pairs(hashes, threshold):
    "The groups by comparing everything, numbered in order of appearance"
    near = coo_array(np.bitwise_count(hashes[:, None]^hashes[None]) <= threshold)
    return pd.factorize(connected_components(near, directed=False)[1])[0]


def flipped(rng, hashes, n):
    "`hashes` with up to `n` bits flipped in each"
    for _ in range(n): hashes = hashes^(np.uint64(1)<<rng.integers(0, 64, len(hashes), dtype=np.uint64))
    return hashes


def clumps(seed, n=300):
    rng = np.random.default_rng(seed)
    k = max(1, n//7)
    hashes = rng.integers(0, 2**64, k, dtype=np.uint64)[rng.integers(0, k, n)]
    return flipped(rng, hashes, rng.integers(0, 16))


def photo(path, seed=0, size=(40, 60), mode='RGB', **kwargs):
    x = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(x).convert(mode).save(path, **kwargs)
    return path


def theirs(path):
    "imagehash's own, of the picture as everybody sees it"
    return int(str(imagehash.phash(open_picture(path))), 16)


@pytest.fixture
def reads(monkeypatch):
    "The files that are read"
    read, plain = [], similar._hash_of
    monkeypatch.setattr(similar, '_hash_of', lambda path: (read.append(Path(path).name), plain(path))[1])
    return read


# groups

@pytest.mark.parametrize('threshold', [0, 1, 2, 3, 4, 5, 6, 7, 9, 13, 20, 32, 63, 64])
def test_groups_are_those_of_all_pairs(threshold):
    for seed in range(8):
        h = clumps(1000*threshold+seed)
        assert np.array_equal(similar_groups(h, threshold), all_pairs(h, threshold))


@pytest.mark.parametrize('chunk', [1, 7, 50, 1000])
@pytest.mark.parametrize('threshold', [1, 6, 20])
def test_groups_do_not_depend_on_the_chunk(monkeypatch, chunk, threshold):
    monkeypatch.setattr(similar, 'CHUNK', chunk)
    for seed in range(4):
        h = clumps(seed, 120)
        assert np.array_equal(similar_groups(h, threshold), all_pairs(h, threshold))


@pytest.mark.parametrize('k', range(5))
@pytest.mark.parametrize('threshold', [4, 6, 7])
def test_groups_do_not_depend_on_the_number_of_blocks(monkeypatch, k, threshold):
    monkeypatch.setattr(similar, '_work', lambda i, *args: abs(i-k))
    for seed in range(2):
        h = clumps(seed, 200)
        assert np.array_equal(similar_groups(h, threshold), all_pairs(h, threshold))


@pytest.mark.parametrize('threshold', [1, 3, 6, 12])
def test_a_chain_in_any_order_is_one_group_until_a_link_is_missing(threshold):
    steps = [np.uint64(0)]
    for i in range(64//threshold): steps.append(steps[-1]|np.uint64(((1<<threshold)-1)<<(i*threshold)))
    chain = np.random.default_rng(threshold).permutation(np.array(steps, np.uint64))
    assert similar_groups(chain, threshold).max() == 0
    assert similar_groups(chain, threshold-1).max() == len(chain)-1
    without = chain[chain != steps[len(steps)//2]]
    assert similar_groups(without, threshold).max() == 1


def test_a_distance_of_exactly_the_threshold_wherever_its_bits_are():
    rng = np.random.default_rng(0)
    for threshold in (1, 2, 6, 7):
        for _ in range(12):
            flips = sum(1<<int(o) for o in rng.permutation(64)[:threshold])
            pair = np.array([rng.integers(0, 2**64, dtype=np.uint64)]*2)
            pair[1] ^= np.uint64(flips)
            crowd = np.concatenate([pair, rng.integers(0, 2**64, 60, dtype=np.uint64)])
            for h in (pair, crowd):
                groups = similar_groups(h, threshold)
                assert np.array_equal(groups, all_pairs(h, threshold)) and groups[1] == 0
            assert similar_groups(pair, threshold-1).tolist() == [0, 1]


@pytest.mark.parametrize('make', [
    lambda rng: np.full(500, 2**64-1, np.uint64),
    lambda rng: np.zeros(500, np.uint64),
    lambda rng: np.arange(500, dtype=np.uint64),
    lambda rng: np.arange(500, dtype=np.uint64)<<np.uint64(55),
    lambda rng: np.uint64(1)<<rng.integers(0, 64, 500, dtype=np.uint64),
    lambda rng: np.where(rng.random(500)<.5, np.uint64(0), np.uint64(2**64-1)),
    lambda rng: rng.integers(0, 2**32, 500, dtype=np.uint64),
    lambda rng: flipped(rng, np.full(500, 12345, np.uint64), 9),
    lambda rng: rng.integers(0, 2**16, 500, dtype=np.uint64)*np.uint64(0x0001000100010001)])
@pytest.mark.parametrize('threshold', [0, 1, 6, 17, 64])
def test_groups_of_lopsided_bits(make, threshold):
    h = make(np.random.default_rng(1))
    assert np.array_equal(similar_groups(h, threshold), all_pairs(h, threshold))


def test_none_one_and_two():
    for empty in ([], np.zeros(0, np.uint64), np.ma.array(np.zeros(0, np.uint64))):
        assert similar_groups(empty).shape == (0,) and similar_groups(empty).dtype.kind == 'i'
    assert similar_groups([7]).tolist() == [0] and similar_groups([2**64-1], 0).tolist() == [0]
    assert similar_groups([0, 2**64-1], 63).tolist() == [0, 1] and similar_groups([0, 2**64-1], 64).tolist() == [0, 0]
    assert similar_groups([5, 5, 9, 5], 0).tolist() == [0, 0, 1, 0]


def test_kinds_of_numbers():
    h = clumps(3)>>np.uint64(1)
    for o in (h.tolist(), h.astype(np.int64), pd.Series(h), h[::-1][::-1], np.ma.array(h)):
        assert np.array_equal(similar_groups(o), similar_groups(h))
    assert similar_groups(np.array([1, 2, 200], np.uint8), 2).tolist() == [0, 0, 1]
    assert similar_groups(h.astype('>u8')).tolist() == similar_groups(h).tolist()
    before = h.copy()
    similar_groups(h)
    assert np.array_equal(h, before)


@pytest.mark.parametrize('threshold', [0, 6, 64])
def test_masked_hashes_are_alone_and_join_nobody(threshold):
    h = np.ma.array(np.array([0, 63, 4095, 0, 0], np.uint64), mask=[0, 1, 0, 1, 0])
    group = similar_groups(h, threshold)
    assert len(group) == 5 and (group[[1]] != np.delete(group, 1)).all() and (group[[3]] != np.delete(group, 3)).all()
    assert group[0] == group[4] and (group[2] == group[0]) == (threshold == 64)
    assert similar_groups(np.ma.array(np.zeros(3, np.uint64), mask=True)).tolist() == [0, 1, 2]


@pytest.mark.parametrize('threshold', [-1, 65, 6., '6', None, True])
def test_odd_thresholds(threshold):
    with pytest.raises(ValueError, match='threshold must be a whole number of bits from 0 to 64'):
        similar_groups([1, 2], threshold)


@pytest.mark.parametrize('hashes', [[.5], [[1, 2], [3, 4]], ['ff'], [-1, 2], np.array([-1]), [2**64]])
def test_odd_hashes(hashes):
    with pytest.raises(ValueError, match='hashes must be a list of whole numbers'): similar_groups(hashes)


def test_a_still_film_takes_little_memory():
    import tracemalloc
    rng = np.random.default_rng(0)
    for h in (np.full(100_000, 77, np.uint64), flipped(rng, np.full(100_000, 77, np.uint64), 4)):
        tracemalloc.start()
        assert similar_groups(h).max() == 0
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak<600e6


def test_random_hashes_at_a_threshold_that_prunes_nothing():
    h = np.random.default_rng(0).integers(0, 2**64, 20_000, dtype=np.uint64)
    assert similar_groups(h, 24).max() == 0 and similar_groups(h, 2).max() == len(h)-1


# accidents

def noise(n, seed=0, common=0, few=None):
    "Hashes as a pHash makes them: 32 of 64 bits, of waves that have a share in common, or are mixtures of a few"
    rng = np.random.default_rng(seed)
    waves = (1-common)*rng.normal(size=(n, 64)) + common*rng.normal(size=64)
    if few: waves = .1*waves + rng.normal(size=(n, few))@rng.normal(size=(few, 64))
    return np.packbits(waves>np.median(waves, axis=1, keepdims=True), axis=1).view('>u8').ravel().astype(np.uint64)


def near_share(h, t): return np.bitwise_count(h[:, None]^h)[np.triu_indices(len(h), 1)].__le__(t).mean()


@pytest.mark.parametrize('common', [0, .4, .55])
def test_accident_rate_is_the_share_of_near_pairs(common):
    h = noise(1500, common=common)
    for t in range(8, 32, 2):
        share = near_share(h, t)
        if share>1e-4: assert share/3<accident_rate(h, t)<share*3, (t, share)
    assert accident_rate(h, 7) == accident_rate(h, 6) and accident_rate(h, 64) == 1


def test_frames_of_shots_are_no_accidents():
    rng = np.random.default_rng(0)
    shots = flipped(rng, np.repeat(noise(150), rng.integers(1, 9, 150)), 2)
    assert careful_threshold(shots) == 6 and by_accident(shots)[0]<.01
    still = flipped(rng, np.full(500, noise(1)[0]), 3)
    assert careful_threshold(still) == 6 and accident_rate(still) == 0
    assert careful_threshold(noise(20, common=.9)) == 6 # too few to say anything
    for h in ([], [3]): assert careful_threshold(np.array(h, np.uint64)) == 6


def test_what_is_alike_by_accident_is_not_grouped():
    h = noise(1000, common=.6)
    lowered = careful_threshold(h)
    assert lowered<6 and by_accident(h, lowered)[0] <= max(.5, .1*by_accident(h, lowered)[1])
    parts = [np.arange(i, i+2) for i in range(0, 1000, 2)] # two pictures each have hardly any accident
    assert by_accident(h, 6, parts)[0]<by_accident(h, 6)[0]/5


def test_group_similar_lowers_or_refuses(tmp_path, monkeypatch):
    df = pd.DataFrame(dict(image=[f'{i}.png' for i in range(800)], source=''))
    few = np.concatenate([noise(790, common=.55), noise(5, 1), noise(5, 1)])
    monkeypatch.setattr(similar, 'phash', lambda *args, **kwargs: few)
    assert careful_threshold(few, 10)<10
    message = 'At a threshold of 10 bits .* chance alone .* grouped at . bits instead; accidents=None keeps 10'
    with pytest.warns(UserWarning, match=message): low = group_similar(df, tmp_path, 10)
    assert low.group[790:795].tolist() == low.group[795:].tolist()
    assert low.group.nunique()>group_similar(df, tmp_path, 10, accidents=None).group.nunique()
    monkeypatch.setattr(similar, 'phash', lambda *args, **kwargs: noise(800, few=2))
    with pytest.raises(ValueError, match='chance alone would put about .* even where hashes are equal'):
        group_similar(df, tmp_path)


# hashes

MODES = [('L', 'png'), ('1', 'png'), ('P', 'png'), ('P', 'gif'), ('RGBA', 'png'), ('LA', 'png'), ('CMYK', 'jpg'),
         ('RGB', 'jpg'), ('RGB', 'webp'), ('L', 'bmp'), ('I;16', 'png')]


@pytest.mark.parametrize('mode,ending', MODES)
def test_every_mode_as_imagehash(tmp_path, mode, ending):
    for i, size in enumerate([(40, 60), (1, 1), (2, 500), (32, 32), (7, 3)]):
        photo(tmp_path/f'{i}.{ending}', i, size, 'RGB' if mode == 'I;16' else mode)
    if mode == 'I;16':
        for i in range(5):
            deep = np.random.default_rng(i).integers(0, 65536, (30, 20)).astype(np.uint16)
            Image.fromarray(deep).save(tmp_path/f'{i}.png')
    paths = [f'{i}.{ending}' for i in range(5)]
    h = phash(paths, tmp_path)
    assert h.dtype == np.uint64 and not np.ma.isMaskedArray(h) and h.tolist() == [theirs(tmp_path/o) for o in paths]


def raw(path):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with Image.open(path) as img: return int(str(imagehash.phash(img)), 16)


def test_transparent_flat_and_moving(tmp_path):
    photo(tmp_path/'plain.jpg', 1)
    photo(tmp_path/'clear.png', 2, mode='P', transparency=bytes(range(256)))
    Image.new('RGB', (9, 9)).save(tmp_path/'black.png')
    Image.new('L', (9, 9), 255).save(tmp_path/'white.png')
    Image.new('L', (9, 9)).save(tmp_path/'film.gif', save_all=True, append_images=[Image.new('L', (9, 9), 200)])
    names = ['plain.jpg', 'clear.png', 'black.png', 'white.png', 'film.gif']
    h = phash(names, tmp_path)
    assert h.tolist() == [raw(tmp_path/o) for o in names] and h[2] == 0 and h[3] == 2**63


@pytest.mark.parametrize('ending', ['png', 'jpg', 'tif', 'webp'])
def test_a_turned_copy_has_the_same_hash(tmp_path, ending):
    "Stored turned, with the note that turns it back: 33 bits differed"
    few = np.random.default_rng(0).integers(0, 256, (8, 4, 3), dtype=np.uint8)
    im = Image.fromarray(np.kron(few, np.ones((32, 32, 1), np.uint8)))
    exif = Image.Exif(); exif[0x112] = 6
    im.save(tmp_path/f'a.{ending}')
    im.transpose(Image.Transpose.ROTATE_90).save(tmp_path/f'b.{ending}', exif=exif)
    a, b = phash([f'a.{ending}', f'b.{ending}'], tmp_path, cache=False).tolist()
    assert (a^b).bit_count() <= (0 if ending in ('png', 'tif') else 4)


@pytest.mark.parametrize('dtype,white', [(np.uint16, 65535), (np.int32, 65535), (np.float32, 1), (np.float32, 255)])
def test_deep_pictures_are_not_all_alike(tmp_path, dtype, white):
    "Every 16-bit picture had one hash, so a film of them was one shot"
    for i in range(4):
        grey = np.random.default_rng(i).random((64, 32))
        Image.fromarray((grey*white).astype(dtype)).save(tmp_path/f'{i}.tif')
        Image.fromarray((grey*255).astype(np.uint8)).save(tmp_path/f'{i}.png')
    deep, plain = [phash([f'{i}.{o}' for i in range(4)], tmp_path, cache=False) for o in ('tif', 'png')]
    assert len(set(deep.tolist())) == 4 and np.bitwise_count(deep^plain).max() <= 2


def test_a_large_jpeg_keeps_its_hash(tmp_path):
    "Decoded at an eighth, it may differ by a bit or two"
    for i in range(5):
        few = np.random.default_rng(i).integers(0, 256, (12, 8, 3), dtype=np.uint8)
        im = Image.fromarray(few).resize((600, 900), Image.Resampling.BICUBIC)
        im.save(tmp_path/f'{i}.jpg', quality=95)
    h = phash([f'{i}.jpg' for i in range(5)], tmp_path)
    assert max((int(a)^raw(tmp_path/f'{i}.jpg')).bit_count() for i, a in enumerate(h)) <= 4


def test_hashes_of_an_older_library_are_not_believed(tmp_path, reads):
    name = photo(tmp_path/'a.png').name
    stamp = os.stat(tmp_path/name)
    from importlib.metadata import version
    header = f"path,bytes,mtime_ns,\"phash (imagehash {version('imagehash')}, pillow {version('pillow')})\""
    (tmp_path/CACHE).write_text(f"{header}\na.png,{stamp.st_size},{stamp.st_mtime_ns},{'0'*16}\n")
    with pytest.warns(UserWarning, match='every picture is hashed again'):
        assert phash([name], tmp_path).tolist() == [theirs(tmp_path/name)]
    assert reads == [name]


def test_paths_of_any_kind_twice_and_in_order(tmp_path, monkeypatch):
    (tmp_path/'sub').mkdir()
    a, b = photo(tmp_path/'a.png', 1), photo(tmp_path/'sub'/'b é,"x".png', 2)
    expected = [theirs(o) for o in (b, a, b)]
    assert phash([b, a, b]).tolist() == expected and (tmp_path/CACHE).is_file()
    assert phash([str(b), str(a), str(b)]).tolist() == expected
    assert phash(np.array(['sub/'+b.name, 'a.png', 'sub/'+b.name]), str(tmp_path)).tolist() == expected
    assert phash(pd.Series(['sub/'+b.name, 'a.png', 'sub/'+b.name], index=[5, 5, 1]), tmp_path).tolist() == expected
    monkeypatch.chdir(tmp_path)
    assert phash(['sub/'+b.name, 'a.png', 'sub/'+b.name]).tolist() == expected
    assert phash((o for o in [a]), n_workers=1).tolist() == expected[1:2]
    assert sorted(o.name for o in tmp_path.iterdir()) == [CACHE, 'a.png', 'sub']
    assert [o.name for o in (tmp_path/'sub').iterdir()] == [b.name]


def test_no_paths(tmp_path):
    for o in (phash([]), phash([], tmp_path)): assert o.shape == (0,) and o.dtype == np.uint64
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="must be a list of files, got the one path 'a.png'"): phash('a.png')
    with pytest.raises(ValueError, match='must be a list of files'): phash(Path('a.png'))
    with pytest.raises(ValueError, match='is not a folder'): phash(['a.png'], tmp_path/'none')


def test_unreadable_files_are_masked_and_named(tmp_path):
    good = photo(tmp_path/'good.jpg')
    (tmp_path/'empty.jpg').write_bytes(b'')
    (tmp_path/'text.jpg').write_text('a letter')
    (tmp_path/'cut.jpg').write_bytes(good.read_bytes()[:700])
    (tmp_path/'folder.jpg').mkdir()
    names = ['empty.jpg', 'good.jpg', 'text.jpg', 'cut.jpg', 'folder.jpg', 'none.jpg', 'good.jpg']
    message = '5 of 6 pictures .* cannot be read and have no hash: empty.jpg: '
    with pytest.warns(AnnotationWarning, match=message) as caught: h = phash(names, tmp_path)
    faults = caught[0].message.faults
    assert faults.image.tolist() == ['empty.jpg', 'text.jpg', 'cut.jpg', 'folder.jpg', 'none.jpg']
    assert faults.line.tolist() == [0, 2, 3, 4, 5] and faults.fault.str.len().min()>5
    assert h.dtype == np.uint64
    assert h.mask.tolist() == [True, False, True, True, True, True, False]
    assert h[1] == theirs(good)
    assert similar_groups(h).tolist() == [0, 1, 2, 3, 4, 5, 1]
    with pytest.warns(AnnotationWarning): only = phash(['none.jpg'], tmp_path)
    assert only.mask.all() and similar_groups(only).tolist() == [0]


# the cache

def test_nothing_is_read_twice(tmp_path, reads):
    names = [photo(tmp_path/f'{i}.png', i).name for i in range(5)]
    first = phash(names[:3], tmp_path)
    assert sorted(reads) == names[:3]
    assert np.array_equal(phash(names[:3], tmp_path), first) and len(reads) == 3
    whole = phash(names, tmp_path)
    assert sorted(reads[3:]) == names[3:] and np.array_equal(whole[:3], first)
    assert np.array_equal(phash(names[::-1], tmp_path), whole[::-1]) and len(reads) == 5
    shutil.copytree(tmp_path, tmp_path.parent/f'{tmp_path.name}-moved')
    assert np.array_equal(phash(names, tmp_path.parent/f'{tmp_path.name}-moved'), whole) and len(reads) == 5


def test_a_changed_file_is_read_again(tmp_path, reads):
    names = [photo(tmp_path/f'{i}.bmp', i).name for i in range(3)]
    phash(names, tmp_path)
    photo(tmp_path/'1.bmp', 9)
    os.utime(tmp_path/'1.bmp', ns=(1, 1))
    del reads[:]
    assert phash(names, tmp_path).tolist() == [theirs(tmp_path/o) for o in names] and reads == ['1.bmp']
    stamp = os.stat(tmp_path/'2.bmp')
    photo(tmp_path/'2.bmp', 8, size=(41, 60))
    os.utime(tmp_path/'2.bmp', ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert phash(names, tmp_path).tolist() == [theirs(tmp_path/o) for o in names] and reads == ['1.bmp', '2.bmp']


def test_a_deleted_and_a_mended_file(tmp_path, reads):
    names = [photo(tmp_path/f'{i}.png', i).name for i in range(2)]
    phash(names, tmp_path)
    (tmp_path/'0.png').rename(tmp_path/'away')
    with pytest.warns(AnnotationWarning, match='1 of 2 pictures'):
        assert phash(names, tmp_path).mask.tolist() == [True, False]
    photo(tmp_path/'0.png', 5)
    assert phash(names, tmp_path).tolist() == [theirs(tmp_path/o) for o in names]


@pytest.mark.parametrize('spoil', [
    lambda b: b'', lambda b: b[:-9], lambda b: b[:-20], lambda b: b[:len(b)//2], lambda b: b'\0'*500,
    lambda b: os.urandom(500), lambda b: b.replace(b'path,', b'file,'),
    lambda b: b.replace(b'imagehash ', b'imagehash 0.'), lambda b: b+b'"',
    lambda b: b+b'a.png,1\n', lambda b: b+b'a.png,x,y,0123456789abcdef\n',
    lambda b: b+b'a.png,1,1,012345678 abcdeg\n'])
def test_a_broken_cache_is_made_anew(tmp_path, reads, spoil):
    names = [photo(tmp_path/f'{i}.png', i).name for i in range(4)]
    first = phash(names, tmp_path)
    cache = tmp_path/CACHE
    good = cache.read_bytes()
    cache.write_bytes(spoil(good))
    del reads[:]
    with pytest.warns(UserWarning, match='the kept hashes cannot be used .* every picture is hashed again'):
        assert np.array_equal(phash(names, tmp_path), first)
    assert sorted(reads) == names and sorted(cache.read_bytes().splitlines()) == sorted(good.splitlines())


def test_where_nothing_can_be_written(tmp_path, monkeypatch):
    names = [photo(tmp_path/'a.png').name]
    def refuse(*args): raise PermissionError(13, 'Permission denied')
    with monkeypatch.context() as m:
        m.setattr(similar.os, 'replace', refuse)
        with pytest.warns(UserWarning, match=r"the hashes cannot be kept \(Permission denied\)"):
            h = phash(names, tmp_path)
    assert h.tolist() == [theirs(tmp_path/'a.png')] and [o.name for o in tmp_path.iterdir()] == names
    (tmp_path/CACHE).mkdir()
    with pytest.warns(UserWarning) as caught: assert phash(names, tmp_path).tolist() == h.tolist()
    assert len(caught) == 2 and sorted(o.name for o in tmp_path.iterdir()) == [CACHE, 'a.png']


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() == 0, reason='root may write anywhere')
def test_a_read_only_folder(tmp_path):
    names = [photo(tmp_path/'a.png').name]
    tmp_path.chmod(0o555)
    try:
        with pytest.warns(UserWarning, match='cannot be kept'): assert len(phash(names, tmp_path)) == 1
    finally: tmp_path.chmod(0o755)


def test_another_cache_or_none(tmp_path, reads):
    (tmp_path/'pictures').mkdir()
    names = [photo(tmp_path/'pictures'/'a.png').name]
    phash(names, tmp_path/'pictures', cache=False)
    assert [o.name for o in (tmp_path/'pictures').iterdir()] == names
    for _ in range(2): phash(names, tmp_path/'pictures', cache=tmp_path/'mine.csv')
    assert len(reads) == 2 and (tmp_path/'mine.csv').is_file()
    assert [o.name for o in (tmp_path/'pictures').iterdir()] == names


def test_an_interrupted_run_keeps_what_it_has(tmp_path, monkeypatch):
    names = [photo(tmp_path/f'{i}.png', i).name for i in range(40)]
    plain = similar.progress_bar
    def interrupted(hashes, **kwargs):
        for i, o in enumerate(plain(hashes, **kwargs)):
            if i == 4: raise KeyboardInterrupt
            yield o
    with monkeypatch.context() as m:
        m.setattr(similar, 'progress_bar', interrupted)
        with pytest.raises(KeyboardInterrupt): phash(names, tmp_path)
    assert pd.read_csv(tmp_path/CACHE).path.tolist() == names[:4]
    assert phash(names, tmp_path).tolist() == [theirs(tmp_path/o) for o in names]
    assert len(pd.read_csv(tmp_path/CACHE)) == 40


@pytest.mark.skipif(os.name == 'nt', reason='such names are no Windows names')
def test_odd_names_are_kept(tmp_path, reads):
    odd = ['a,b.png', 'a"b.png', 'a\nb.png', 'a\rb.png', ' a .png', 'é.png', os.fsdecode(b'\xff.png')]
    names = [photo(tmp_path/o, i).name for i, o in enumerate(odd)]
    for _ in range(2): assert phash(names, tmp_path).tolist() == [theirs(tmp_path/o) for o in names]
    assert len(reads) == len(names)


# the table

def test_the_group_column(tmp_path):
    for o in ('a', 'b'): (tmp_path/o).mkdir()
    for o in ('a/1.png', 'a/2.png', 'b/1.png'): photo(tmp_path/o, 1)
    photo(tmp_path/'b/2.png', 2)
    (tmp_path/'b/3.png').write_text('')
    images = ['a/1.png', 'b/1.png', 'b/2.png', 'a/2.png', 'b/3.png']
    df = pd.DataFrame(dict(image=images, split='train', source=list('abbab'), group='old'), index=[4, 4, 3, 2, 1])
    before = df.copy()
    with pytest.warns(AnnotationWarning): found = group_similar(df, tmp_path)
    assert found.group.tolist() == ['similar000000', 'similar000001', 'similar000002', 'similar000000', '']
    assert df.equals(before)
    assert found.drop(columns='group').equals(df.drop(columns='group'))
    with pytest.warns(AnnotationWarning): found = group_similar(df, tmp_path, within=None)
    assert found.group.tolist() == ['similar000000', 'similar000000', 'similar000001', 'similar000000', '']
    bare = df.drop(columns=['group', 'source'])
    with pytest.warns(AnnotationWarning): assert group_similar(bare, tmp_path, 64, within=None).group.nunique() == 2
    with pytest.raises(ValueError, match="no column 'source'.*within=None"):
        group_similar(df.drop(columns='source'), tmp_path)
    with pytest.raises(ValueError, match="no column 'image'"): group_similar(df.drop(columns='image'), tmp_path)
    assert group_similar(df[:0], tmp_path).group.tolist() == []
    gaps = df[:3].assign(source=[None, '', float('nan')])
    assert group_similar(gaps, tmp_path).group.tolist() == ['similar000000', 'similar000001', 'similar000002']


def test_pair_scores_by_counting():
    rng = np.random.default_rng(0)
    for _ in range(20):
        n = rng.integers(2, 40)
        found, true = rng.integers(0, 6, n), rng.choice(list('abcd'), n)
        pair = np.triu(np.ones((n, n), bool), 1)
        f, t = (found[:, None] == found)&pair, (true[:, None] == true)&pair
        expected = ((f&t).sum()/f.sum() if f.any() else np.nan, (f&t).sum()/t.sum() if t.any() else np.nan)
        np.testing.assert_allclose(pair_scores(found, pd.Series(true, index=rng.permutation(n))), expected)
    assert np.isnan(pair_scores([1, 2], [1, 2])).all() and np.isnan(pair_scores([], [])).all()
    with pytest.raises(ValueError, match='one length'): pair_scores([1], [1, 2])

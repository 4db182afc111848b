"Readers of face sets on small trees in exactly the owners' formats, and on trees that are not"
import shutil, sys, warnings
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import savemat
from portrait_nb.annotations import COLUMNS, AnnotationWarning, read_annotations, write_annotations
from portrait_nb.data import portrait_dls
from portrait_nb.faces.conventions import (CELEBA_40, CELEBAMASK_ORDER, FLIP_68, GROUPINGS, PARSING, WFLW_FLIP,
                                           WFLW_PARTS, WFLW_TO_68, flip_points, regroup, reorder, to_68)
from portrait_nb.faces.facereaders import (WFLW_FLAGS, YAWS, aflw2000, celebamask_hq, face_mat, face_points, face_pose,
                                           face_sources, lfwa, lp300w, maad_face, parsing_mask, wflw, wflw_faces,
                                           write_points)
from portrait_nb.sources import SourceError, celeba
from portrait_nb.tasks import Task, Tasks, feature_split


def picture(path, size=(24, 24)):
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (sum(map(ord, str(path)))%256, 80, 120)
    Image.new('RGB', size, colour).save(path, 'PNG' if path.suffix.lower() == '.png' else 'JPEG')


def one_sentence(match, f, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', AnnotationWarning)
        with pytest.raises(SourceError, match=match) as e: f(*args, **kwargs)
    assert '\n' not in str(e.value) and str(e.value).rstrip('?.') != str(e.value)
    return str(e.value)


def quiet(f, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter('error', AnnotationWarning)
        return f(*args, **kwargs)


def heard(f, *args, **kwargs):
    "What `f` returns, the sentences that it warns in, and the files that they quote"
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter('always')
        found = f(*args, **kwargs)
    ours = [o for o in warned if o.category is AnnotationWarning]
    return found, [str(o.message) for o in ours], [o.filename for o in ours]


def round_trip(df, tasks, root, reader):
    "Through the csv, all of its checks, and the loaders"
    assert list(df) == list(dict.fromkeys([*COLUMNS, *tasks.names])) and df.attrs['source_set'] == reader
    assert all(isinstance(o, str) for c in df for o in df[c])
    write_annotations(df, root/'my.csv')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', AnnotationWarning)
        back = read_annotations(root/'my.csv', root, tasks)
    pd.testing.assert_frame_equal(back.astype(object), df.astype(object), check_dtype=False)
    if (df.split == 'train').sum() < 2: return
    x, y = portrait_dls(back, root, tasks, size=(32, 32), bs=2, num_workers=0, device='cpu').one_batch()
    assert x.shape == (2, 3, 32, 32) and list(y) == tasks.names


# --- groupings

def forty(): return Tasks([Task(o, 'appearance', ('no', 'yes')) for o in CELEBA_40])


@pytest.mark.parametrize('name, sizes', [
    ('sspl-4', dict(whole=12, upper=13, middle=6, lower=9)),
    ('mcnn-9', {'gender': 1, 'nose': 2, 'mouth': 4, 'eyes': 5, 'face': 6, 'around the head': 13, 'facial hair': 5,
                'cheeks': 2, 'fat': 2}),
    ('mgmtn-8', {'mouth': 5, 'ear': 1, 'lower face': 5, 'cheeks': 2, 'nose': 2, 'eyes': 5, 'hair': 10, 'object': 10})])
def test_every_grouping_has_all_forty_once(name, sizes):
    assert list(GROUPINGS[name]) == list(CELEBA_40) and len(set(CELEBA_40)) == 40
    assert pd.Series(GROUPINGS[name]).value_counts().to_dict() == sizes
    by_name, by_hand = regroup(forty(), name), regroup(forty(), GROUPINGS[name])
    assert by_name == by_hand and by_name.names == list(CELEBA_40) and set(by_name.aspects) == set(sizes)
    assert set(feature_split(by_name, 512)) == set(CELEBA_40)


def test_sspl_groups_are_those_of_the_public_code():
    "The index lists of SPL-Net, in full"
    whole, upper = (0, 2, 10, 13, 18, 20, 25, 26, 31, 32, 33, 39), (1, 3, 4, 5, 8, 9, 11, 12, 15, 17, 23, 28, 35)
    middle, lower = (7, 19, 27, 29, 30, 34), (6, 14, 16, 21, 22, 24, 36, 37, 38)
    for aspect, rows in dict(whole=whole, upper=upper, middle=middle, lower=lower).items():
        assert {CELEBA_40[i] for i in rows} == {k for k, v in GROUPINGS['sspl-4'].items() if v == aspect}


def test_regroup():
    tasks = Tasks([Task('identity', 'appearance', None), Task('Smiling', 'emotion', ('no', 'yes')),
                   Task('expression', 'emotion', ('calm', 'glad'), multilabel=True)])
    moved = regroup(tasks, dict(Smiling='mouth', expression='face'))
    assert [o.aspect for o in moved] == ['appearance', 'mouth', 'face'] and moved.names == tasks.names
    assert moved.identity is not None and moved['expression'].labels == ('calm', 'glad')
    assert moved['expression'].multilabel
    assert tasks['Smiling'].aspect == 'emotion' # the old ones stay
    assert regroup(tasks, dict(identity='who', Smiling='a', expression='b'))['identity'].aspect == 'who'
    assert [o.aspect for o in regroup(tasks, {}, rest='all')] == ['appearance', 'all', 'all']
    known = regroup(tasks.with_identities(['a', 'b']), 'mgmtn-8', rest='other')
    assert known.identity.labels == ('a', 'b') and [o.aspect for o in known] == ['appearance', 'mouth', 'other']


@pytest.mark.parametrize('aspects, rest, match', [
    (dict(Smilling='m', Bald='h'), None, "'Smilling' is none of the sub-tasks; did you mean 'Smiling'"),
    (dict(Smilling='m', Bald='h'), 'x', "'Smilling' is none"),
    (dict(Bald='h'), None, '1 of 2 sub-tasks would have no aspect: Smiling'),
    ({}, None, '2 of 2'), ('mgmtn8', None, "did you mean 'mgmtn-8'"), (dict(Smiling='m', Bald=''), None, 'aspect'),
    (dict(Smiling='m', Bald='a.b'), None, 'aspect'), ({3: 'm'}, None, 'none of the sub-tasks'),
    (['Smiling', 'mouth'], None, 'or one of sspl-4, mcnn-9, mgmtn-8; got a list')])
def test_regroup_refuses(aspects, rest, match):
    tasks = Tasks([Task('Smiling', 'emotion', ('no', 'yes')), Task('Bald', 'appearance', ('no', 'yes'))])
    with pytest.raises(ValueError, match=match) as e: regroup(tasks, aspects, rest)
    assert '\n' not in str(e.value)


def test_a_grouping_by_name_takes_fewer_than_forty_and_not_more():
    without = Tasks([o for o in forty() if o.name != 'Attractive'])
    assert len(regroup(without, 'sspl-4')) == 39
    with pytest.raises(ValueError, match="'Attractive' is none"): regroup(without, GROUPINGS['sspl-4'])
    more = Tasks([*forty(), Task('Asian', 'appearance', ('no', 'yes'))])
    with pytest.raises(ValueError, match='1 of 41 sub-tasks would have no aspect: Asian'): regroup(more, 'sspl-4')
    assert regroup(more, 'sspl-4', rest='whole')['Asian'].aspect == 'whole'


def test_groupings_fit_what_celeba_reads(tmp_path):
    rng = np.random.default_rng(0)
    lines = [f"{i}.jpg {' '.join(map(str, rng.choice([-1, 1], 40)))}\n" for i in range(3)]
    for i in range(3): picture(tmp_path/f'img_align_celeba/{i}.jpg')
    (tmp_path/'list_attr_celeba.txt').write_text(f"3\n{' '.join(CELEBA_40)}\n"+''.join(lines))
    (tmp_path/'list_eval_partition.txt').write_text('0.jpg 0\n1.jpg 0\n2.jpg 2\n')
    df, tasks = celeba(tmp_path)
    for o in GROUPINGS: assert set(regroup(tasks, o).aspects) == set(GROUPINGS[o].values())


# --- MATLAB's format 7.3 and LFWA

def write_73(path, classes=True, **variables):
    "As MATLAB's save -v7.3: a header of 512 bytes, arrays transposed, strings by reference as 16-bit codes"
    h5py = pytest.importorskip('h5py')
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, 'w', userblock_size=512) as f:
        refs = f.create_group('#refs#')
        def put(group, name, data, kind):
            x = group.create_dataset(name, data=data)
            if classes: x.attrs['MATLAB_class'] = np.bytes_(kind)
            return x
        def codes(o): return np.frombuffer(o.encode('utf-16-le'), np.uint16)[:, None]
        def text(o): return put(refs, f'{len(refs):x}', codes(o), 'char').ref
        for name, o in variables.items():
            if isinstance(o, str): put(f, name, codes(o), 'char')
            elif isinstance(o[0], str): put(f, name, np.array([[text(s) for s in o]], dtype=h5py.ref_dtype), 'cell')
            else: put(f, name, np.asarray(o, float).T, 'double')
    with open(path, 'r+b') as f: f.write(b'MATLAB 7.3 MAT-file, Platform: PCWIN64'.ljust(124)+b'\x00\x02IM')


PEOPLE = ('Ann_Lee', 'Bo_Ek', 'Zo\u00eb_Roy', 'Di_Fox')


def lfw_tree(root, n_each=3, attributes=40, values=(0, 1), seed=0, **other):
    rng = np.random.default_rng(seed)
    names = [f'{o}\\{o}_{i+1:04d}.jpg' for o in PEOPLE for i in range(n_each)]
    for o in names: picture(root/'lfw'/o.replace('\\', '/'))
    flags = rng.integers(0, 2, (len(names), attributes))
    known = [o.replace('_', ' ') for o in CELEBA_40]
    if attributes == 73: known = ['Male', 'Asian', *(f'No Thing {i}' for i in range(71))]
    half = np.arange(1, len(names)+1)
    cut = len(names)//2
    v = {**dict(AttrName=known, label=np.array(values)[flags], name=names), **other}
    write_73(root/f'lfw_att_{attributes}.mat', **v)
    write_73(root/'indices_train_test.mat', indices_img_train=half[:cut, None], indices_img_test=half[None, cut:],
             indices_identity_train=[[1], [2]])
    return names, flags


@pytest.mark.parametrize('values', [(0, 1), (-1, 1), (1, 2)])
def test_lfwa(tmp_path, values):
    names, flags = lfw_tree(tmp_path, values=values)
    df, tasks = quiet(lfwa, tmp_path)
    assert tasks.names == list(CELEBA_40)
    assert (tasks['Smiling'].aspect, tasks['Male'].aspect) == ('emotion', 'appearance')
    assert list(df.image) == ['lfw/'+o.replace('\\', '/') for o in names]
    assert list(df.split) == ['train']*6+['gallery']*6 and list(df.identity) == [o.split('\\')[0] for o in names]
    assert (df[tasks.names].to_numpy() == np.where(flags == 1, 'yes', 'no')).all()
    round_trip(df, tasks, tmp_path, 'lfwa')


def test_lfwa_73_and_unknown_answers(tmp_path):
    names, flags = lfw_tree(tmp_path, attributes=73)
    df, tasks = quiet(lfwa, tmp_path, n_attributes=73)
    assert len(tasks) == 73 and tasks.names[:3] == ['Male', 'Asian', 'No_Thing_0']
    lfw_tree(tmp_path, attributes=73, label=np.where(flags == 0, np.nan, 1.))
    assert set(lfwa(tmp_path, n_attributes=73)[0].Asian) == {'', 'yes'}
    with pytest.raises(ValueError, match='must be one of 40, 73, got 10'): lfwa(tmp_path, n_attributes=10)


@pytest.mark.parametrize('folder', ['lfw-deepfunneled', 'lfw_funneled', 'lfwa', '.'])
def test_lfwa_folders(tmp_path, folder):
    lfw_tree(tmp_path/'a')
    want = lfwa(tmp_path/'a')[0]
    (tmp_path/'b').mkdir()
    if folder == '.': shutil.copytree(tmp_path/'a/lfw', tmp_path/'b', dirs_exist_ok=True)
    else: shutil.copytree(tmp_path/'a/lfw', tmp_path/'b'/folder)
    (tmp_path/'b/Anno').mkdir()
    for o in (tmp_path/'a').glob('*.mat'): shutil.copy(o, tmp_path/'b/Anno')
    df = quiet(lfwa, tmp_path/'b')[0]
    assert [o.rpartition('/')[2] for o in df.image] == [o.rpartition('/')[2] for o in want.image]
    assert df.drop(columns='image').equals(want.drop(columns='image'))
    assert all((tmp_path/'b'/o).is_file() for o in df.image)
    assert list(df.identity) == list(want.identity)


def test_lfwa_from_files_of_an_older_format(tmp_path):
    names, flags = lfw_tree(tmp_path)
    want = lfwa(tmp_path)[0]
    def cell(o): return np.array(o, object)[:, None]
    savemat(tmp_path/'lfw_att_40.mat', dict(AttrName=cell(list(CELEBA_40)), label=flags, name=cell(names)))
    savemat(tmp_path/'indices_train_test.mat', dict(indices_img_train=[range(1, 7)], indices_img_test=[range(7, 13)]))
    assert lfwa(tmp_path)[0].equals(want)


def test_lfwa_faults(tmp_path):
    root = tmp_path/'LFWA'
    names, flags = lfw_tree(root)
    for wrong in (tmp_path, root/'lfw', root/'lfw/Ann_Lee'):
        assert f'did you mean {root}?' in one_sentence('LFWA: looked in .* for lfw_att_40.mat', lfwa, wrong)
    one_sentence('it holds', lfwa, root, n_attributes=73)
    def fails(match, **other):
        lfw_tree(root, **other)
        return one_sentence(match, lfwa, root)
    fails('12 images and 40 attributes want labels of 12 x 40, but they are 40 x 12', label=flags.T)
    fails('12 images and 39 attributes want labels of 12 x 39', AttrName=list(CELEBA_40[:-1]))
    fails('but they are 11 x 40', label=flags[:-1])
    fails('the attribute Male is listed twice', AttrName=[*CELEBA_40[:-1], 'male'])
    fails('Ann_Lee/Ann_Lee_0001.jpg is listed for the second time, as number 12', name=names[:-1]+names[:1])
    strangers = [f'a\\{i+1}.jpg' for i in range(12)]
    fails('looked in .* for lfw/a/1.jpg, lfw/a/2.jpg and 10 more, but none is there', name=strangers)
    lfw_tree(root)
    write_73(root/'lfw_att_40.mat', label=flags, name=names)
    one_sentence('looked for the variable AttrName, but it holds label, name', lfwa, root)
    (root/'lfw_att_40.mat').write_bytes((root/'lfw_att_40.mat').read_bytes()[:4000])
    one_sentence('does not read as a MATLAB file of format 7.3', lfwa, root)
    (root/'lfw_att_40.mat').write_bytes(b'<html>')
    one_sentence('does not read as a MATLAB file', lfwa, root)
    (root/'lfw_att_40.mat').write_bytes(b'')
    one_sentence('does not read as a MATLAB file', lfwa, root)


def test_lfwa_halves(tmp_path):
    lfw_tree(tmp_path)
    file = tmp_path/'indices_train_test.mat'
    def halves(train, test): write_73(file, indices_img_train=[train], indices_img_test=[test])
    for train, test, match in ((range(6), range(6, 12), 'it holds the numbers 0 to 5, but there are images 1 to 12'),
                               (range(1, 7), range(7, 14), 'it holds the numbers 7 to 13'),
                               (range(1, 7), range(6, 13), 'image 6 is in both halves')):
        halves(list(train), list(test))
        one_sentence(match, lfwa, tmp_path)
    write_73(tmp_path/'indices_train_test.mat', indices_img_train=[[1.]])
    one_sentence('looked for the variable indices_img_test', lfwa, tmp_path)
    halves([1, 2], [7, 8, 9]) # some are in neither
    (df, _), warned, quoted = heard(lfwa, tmp_path)
    assert len(df) == 5 and warned == ['LFWA: 7 images left out, indices_train_test.mat has them in neither half.']
    assert quoted == [__file__]
    halves([1, 4], [2, 5]) # the same people
    (df, tasks), warned, _ = heard(lfwa, tmp_path)
    assert set(df.identity) == {''} and '2 people of the test are in the training too' in warned[1]
    round_trip(df, tasks, tmp_path, 'lfwa')


def test_lfwa_images_that_are_not_there(tmp_path):
    lfw_tree(tmp_path)
    (tmp_path/'lfw/Ann_Lee/Ann_Lee_0001.jpg').unlink()
    (tmp_path/'lfw/Ann_Lee/Ann_Lee_0002.jpg').rename(tmp_path/'lfw/Ann_Lee/Ann_Lee_0002.JPG')
    (df, _), warned, _ = heard(lfwa, tmp_path)
    assert len(df) == 11 and df.image[0] == 'lfw/Ann_Lee/Ann_Lee_0002.JPG'
    assert df.attrs['left_out'] == {'missing file': 1}
    assert '1 of 12 images left out' in warned[0] and len(warned) == 1


def test_format_73_in_its_variants(tmp_path):
    write_73(tmp_path/'a.mat', text='one \u00e9', numbers=[[1, 2, 3], [4, 5, 6]], cells=['a', 'b\u0161'])
    assert face_mat(tmp_path/'a.mat', 'text', 'cells') == ['one \u00e9', ['a', 'b\u0161']]
    assert face_mat(tmp_path/'a.mat', 'numbers')[0].tolist() == [[1, 2, 3], [4, 5, 6]]
    write_73(tmp_path/'b.mat', classes=False, cells=['a', 'bc'], numbers=[[7.]])
    assert face_mat(tmp_path/'b.mat', 'cells', 'numbers') == [['a', 'bc'], [[7]]]
    h5py = pytest.importorskip('h5py')
    with h5py.File(tmp_path/'c.mat', 'w') as f: # no header; strings of HDF5's own; a group
        f['names'] = ['x', 'yz']
        f.create_group('s')['v'] = np.eye(2)
        f['empty'] = np.zeros(2, np.uint64)
        f['empty'].attrs.update(MATLAB_empty=1, MATLAB_class=np.bytes_('char'))
    names, s, empty = face_mat(tmp_path/'c.mat', 'names', 's', 'empty')
    assert names == ['x', 'yz'] and s['v'].tolist() == [[1, 0], [0, 1]] and empty == ''
    one_sentence('there is no such file', face_mat, tmp_path/'d.mat', 'x')


def test_without_h5py_we_say_what_to_install(tmp_path, monkeypatch):
    lfw_tree(tmp_path)
    monkeypatch.setitem(sys.modules, 'h5py', None)
    with pytest.raises(ImportError, match=r"format 7.3, needs h5py.*pip install 'portrait_nb\[faces\]'"): lfwa(tmp_path)


# --- MAAD-Face

MAAD = ['Male', 'Young', 'Mouth_Closed', 'Smiling', 'Asian']


def maad_tree(root, people=30, each=3, train='train', test='test', order=None, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(people):
        who = f'n{i+1:06d}'
        for k in range(each):
            picture(root/(test if i%5 == 0 else train)/who/f'{k+1:04d}_01.jpg', (8, 8))
            rows.append([f'{who}/{k+1:04d}_01.jpg', i+1, *rng.integers(-1, 2, len(MAAD))])
    df = pd.DataFrame(rows, columns=['Filename', 'Identity', *MAAD])
    df = df[order or list(df)]
    df.to_csv(root/'MAAD_Face.csv', index=False)
    return df


@pytest.mark.parametrize('train, test', [
    ('train', 'test'), ('data/train', 'data/test'), ('vggface2_train/train', 'vggface2_test/test'), ('', '')])
def test_maad_face(tmp_path, train, test):
    csv = maad_tree(tmp_path, train=train, test=test)
    df, tasks = quiet(maad_face, tmp_path)
    assert tasks.names == ['identity', *MAAD] and tasks['Mouth_Closed'].aspect == tasks['Smiling'].aspect == 'emotion'
    assert [o.split('/', o.count('/')-1)[-1] for o in df.image] == list(csv.Filename)
    assert (df[MAAD].to_numpy() == np.array(['no', '', 'yes'])[csv[MAAD].to_numpy()+1]).all()
    assert list(df.identity) == [str(o) for o in csv.Identity]
    sides = df.assign(test=df.split != 'train').groupby('identity').test.nunique()
    assert sides.max() == 1 and set(df.split) == {'train', 'query', 'gallery'}
    queries = df[df.split == 'query']
    assert queries.identity.is_unique and set(queries.identity) == set(df[df.split == 'gallery'].identity)
    assert .03 < queries.identity.nunique()/30 < .5
    round_trip(df, tasks, tmp_path, 'maad_face')


def test_maad_columns_go_by_name(tmp_path):
    csv = maad_tree(tmp_path)
    want = maad_face(tmp_path)[0]
    shuffled = csv[['Smiling', 'Identity', 'Asian', 'Filename', 'Mouth_Closed', 'Young', 'Male']]
    shuffled.to_csv(tmp_path/'MAAD_Face.csv') # with a column of numbers, as pandas writes it
    df, tasks = quiet(maad_face, tmp_path)
    assert df[list(want)].equals(want)
    assert tasks.names == ['identity', 'Smiling', 'Asian', 'Mouth_Closed', 'Young', 'Male']
    text = csv.to_csv(index=False).replace('/', '\\')
    (tmp_path/'MAAD_Face.csv').write_bytes(b'\xef\xbb\xbf'+text.encode()) # a mark, backslashes
    assert quiet(maad_face, tmp_path)[0].equals(want)


def test_maad_first_and_a_partial_download(tmp_path):
    maad_tree(tmp_path, people=40)
    df, _ = quiet(maad_face, tmp_path, first=60)
    whole, _ = maad_face(tmp_path)
    assert list(df.image) == list(whole.image[:60]) and df.attrs['left_out'] == {'missing file': 0}
    # dealt by people, whatever else is there
    assert df.split.eq('train').tolist() == whole.split[:60].eq('train').tolist()
    shutil.rmtree(tmp_path/'train/n000002')
    (df, _), warned, quoted = heard(maad_face, tmp_path)
    assert len(df) == 117 and df.attrs['left_out'] == {'missing file': 3} and '3 of 120 pictures left out' in warned[0]
    assert quoted == [__file__]
    assert len(quiet(maad_face, tmp_path, first=117)[0]) == 117
    assert '117 of the 118 pictures asked for are in' in heard(maad_face, tmp_path, first=118)[1][0]
    for first in (1, 0, 2.5, '100', True):
        with pytest.raises(ValueError, match='first is how many pictures to take'): maad_face(tmp_path, first=first)


def test_maad_csv_elsewhere(tmp_path):
    maad_tree(tmp_path/'vgg')
    want = maad_face(tmp_path/'vgg')[0]
    (tmp_path/'labels').mkdir()
    shutil.move(tmp_path/'vgg/MAAD_Face.csv', tmp_path/'labels')
    for o in (tmp_path/'labels', str(tmp_path/'labels/MAAD_Face.csv')):
        assert maad_face(tmp_path/'vgg', o)[0].equals(want)
    one_sentence('there is no such file.*it holds test, train', maad_face, tmp_path/'vgg', tmp_path/'vgg')
    one_sentence('there is no such folder', maad_face, tmp_path/'gone', tmp_path/'labels')


def test_maad_faults(tmp_path):
    root = tmp_path/'vgg'
    csv = maad_tree(root)
    file = root/'MAAD_Face.csv'
    for wrong in (tmp_path, root/'train'):
        assert f'did you mean {root}?' in one_sentence('MAAD_Face.csv', maad_face, wrong)
    def fails(match, df, **kwargs):
        file.write_text(df if isinstance(df, str) else df.to_csv(index=False))
        return one_sentence(match, maad_face, root, **kwargs)
    fails('line 1: looked for the column Identity, but it holds Filename, Male', csv.drop(columns='Identity'))
    fails('no attributes follow', csv[['Filename', 'Identity']])
    fails('line 7, Young: must be -1 .no., 0 .not known. or 1 .yes., but is 2', csv.assign(Young=[0]*5+[2]+[0]*84))
    fails('line 3, Young: must be', csv.astype(dict(Young=object)).assign(Young=[1, 'yes']+[0]*88))
    fails('line 4, Young: .* but is nan', csv.astype(float, errors='ignore').assign(Young=[1, 0, np.nan]+[0]*87))
    fails('0001_01.jpg is listed for the second time, as number 91', pd.concat([csv, csv[:1]]))
    fails('has no rows|no rows below', csv[:0])
    fails('does not read as a csv', '')
    fails('does not read as a csv', csv.to_csv(index=False)+'n000001/1.jpg,1,1,1,1,1,1,1,1,1\n')
    strangers = csv.assign(Filename=[f'm.0abc/{i}.jpg' for i in csv.index])
    fails('lists 90 pictures, and none is in .*is the list another set', strangers)
    fails('are too few to deal, no', csv, first=2)
    for o in ('train', 'test'): shutil.rmtree(root/o)
    (root/'images').mkdir()
    fails('three folders down for VGGFace2.s folders of people', csv)


# --- CelebAMask-HQ

def parts_of(root, k, parts, folder='CelebAMask-HQ-mask-anno', mode='RGB'):
    inner = root/folder/str(k//2000)
    inner.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items(): Image.fromarray(np.uint8(255*part)).convert(mode).save(inner/f'{k:05d}_{name}.png')


def box(top, bottom, left, right, n=32):
    part = np.zeros((n, n), bool)
    part[top:bottom, left:right] = True
    return part


def test_the_two_orders():
    assert len(PARSING) == len(CELEBAMASK_ORDER) == 19 and set(PARSING) == set(CELEBAMASK_ORDER)
    assert [PARSING.index(o) for o in ('background', 'skin', 'nose', 'neck', 'hair', 'hat')] == [0, 1, 10, 14, 17, 18]
    numbers = [CELEBAMASK_ORDER.index(o) for o in ('background', 'skin', 'nose', 'hair', 'hat', 'neck', 'cloth')]
    assert numbers == [0, 1, 2, 13, 14, 17, 18]


@pytest.mark.parametrize('dtype', [np.uint8, np.int64, np.uint16])
def test_reorder(dtype):
    mask = np.random.default_rng(0).integers(0, 19, (5, 7)).astype(dtype)
    ours = reorder(mask)
    assert ours.dtype == np.uint8 and ours.shape == mask.shape
    assert [[PARSING[o] for o in row] for row in ours] == [[CELEBAMASK_ORDER[o] for o in row] for row in mask]
    assert (reorder(ours, PARSING, CELEBAMASK_ORDER) == mask).all() and (reorder(mask, PARSING, PARSING) == mask).all()
    assert reorder(np.zeros((0, 4), dtype)).shape == (0, 4)


@pytest.mark.parametrize('mask, kwargs, match', [
    (np.array([[19]]), {}, 'the mask holds 19 to 19, and `source` names 0 to 18'), (np.array([-1]), {}, 'holds -1'),
    (np.array([.5]), {}, 'whole numbers'), (np.array([0]), dict(source=('background', 'noze')), "did you mean 'nose'")])
def test_reorder_refuses(mask, kwargs, match):
    with pytest.raises(ValueError, match=match): reorder(mask, **kwargs)


@pytest.mark.parametrize('folder', ['CelebAMask-HQ-mask-anno', 'CelebAMaskHQ-mask-anno'])
@pytest.mark.parametrize('mode', ['RGB', 'L', '1', 'P'])
def test_parsing_mask(tmp_path, folder, mode):
    parts = dict(skin=box(4, 30, 4, 28), nose=box(12, 18, 14, 18), hair=box(0, 10, 2, 30), hat=box(0, 6, 2, 30),
                 neck=box(26, 32, 10, 20))
    parts_of(tmp_path, 2004, parts, folder, mode)
    want = np.zeros((32, 32), int)
    for name in ('skin', 'nose', 'hair', 'hat', 'neck'): want[parts[name]] = PARSING.index(name)
    for image in (2004, np.int64(2004), '2004', 'CelebA-HQ-img/2004.jpg', tmp_path/'2004.png'):
        mask = parsing_mask(tmp_path, image)
        assert mask.dtype == np.uint8 and (mask == want).all()
    theirs = parsing_mask(tmp_path, 2004, CELEBAMASK_ORDER)
    assert (reorder(theirs) == mask).all() and theirs.max() == CELEBAMASK_ORDER.index('neck')


def test_later_parts_cover_earlier_ones(tmp_path):
    whole = np.ones((8, 8), bool)
    for n in range(1, 19):
        parts_of(tmp_path, 0, {CELEBAMASK_ORDER[n]: whole})
        assert set(parsing_mask(tmp_path, 0).ravel()) == {PARSING.index(CELEBAMASK_ORDER[n])}


def test_parsing_mask_faults(tmp_path):
    root = tmp_path/'CelebAMask-HQ'
    parts_of(root, 3, dict(skin=box(0, 9, 0, 9)))
    assert f'did you mean {root}?' in one_sentence('CelebAMask-HQ-mask-anno', parsing_mask, tmp_path, 3)
    one_sentence('for 00004_skin.png and the other parts, but none is there', parsing_mask, root, 4)
    one_sentence('for 12345_skin.png .* there is no such folder', parsing_mask, root, 12345)
    for image in ('hair', -1, 1.5, None, True):
        with pytest.raises(ValueError, match='image is a number such as 12'): parsing_mask(root, image)
    parts_of(root, 3, dict(hair=box(0, 9, 0, 9, n=16)))
    match = '00003_hair.png: the part is 16 x 16 pixels, and the parts before it are 32 x 32'
    one_sentence(match, parsing_mask, root, 3)
    (root/'CelebAMask-HQ-mask-anno/0/00003_hair.png').write_bytes(b'no picture')
    with pytest.raises(OSError, match='00003_hair.png: the picture cannot be read'): parsing_mask(root, 3)


def hq_tree(root, n=6):
    rng = np.random.default_rng(0)
    value = rng.choice([-1, 1], (n, 40))
    for k in range(n): picture(root/f'CelebA-HQ-img/{k}.jpg')
    lines = [f"{k}.jpg {' '.join(f'{o:2d}' for o in row)}\n" for k, row in enumerate(value)]
    (root/'CelebAMask-HQ-attribute-anno.txt').write_text(f"{n}\n{' '.join(CELEBA_40)}\n"+''.join(lines))
    original = [f'{100-k:06d}.jpg' for k in range(n)]
    rows = [f'{k:<8}{99-k:<12}{o}\n' for k, o in enumerate(original)]
    (root/'CelebA-HQ-to-CelebA-mapping.txt').write_text('idx     orig_idx    orig_file\n'+''.join(rows))
    cel = root.parent/'CelebA'
    (cel/'Eval').mkdir(parents=True, exist_ok=True)
    (cel/'Eval/list_eval_partition.txt').write_text(''.join(f'{o} {k%3}\n' for k, o in enumerate(original)))
    (cel/'identity_CelebA.txt').write_text(''.join(f'{o} {7000+k}\n' for k, o in enumerate(original)))
    return value, cel


def test_celebamask_hq(tmp_path):
    root = tmp_path/'CelebAMask-HQ'
    value, cel = hq_tree(root)
    df, tasks = quiet(celebamask_hq, root, cel)
    assert list(df.image) == [f'CelebA-HQ-img/{k}.jpg' for k in (0, 2, 3, 5)]
    assert list(df.split) == ['train', 'gallery']*2 and list(df.identity) == ['7000', '7002', '7003', '7005']
    assert (df[tasks.names].to_numpy() == np.where(value[[0, 2, 3, 5]] == 1, 'yes', 'no')).all()
    assert tasks.names == list(CELEBA_40) and tasks['Smiling'].aspect == 'emotion'
    assert list(celebamask_hq(root, cel, test='val')[0].image.str[-5:]) == ['0.jpg', '1.jpg', '3.jpg', '4.jpg']
    (cel/'identity_CelebA.txt').unlink()
    assert set(quiet(celebamask_hq, root, cel)[0].identity) == {''}
    round_trip(df, tasks, root, 'celebamask_hq')


def test_celebamask_hq_without_celeba(tmp_path):
    root = tmp_path/'CelebAMask-HQ'
    hq_tree(root)
    (df, tasks), warned, quoted = heard(celebamask_hq, root)
    assert set(df.split) == {'train'} and set(df.identity) == {''} and len(df) == 6
    assert 'all 6 pictures are train' in warned[0] and quoted == [__file__]
    with pytest.raises(ValueError, match="there is no part 'val'"): celebamask_hq(root, test='val')
    with pytest.raises(ValueError, match="'test' or 'val'"): celebamask_hq(root, test='dev')


def test_celebamask_hq_faults(tmp_path):
    root = tmp_path/'CelebAMask-HQ'
    value, cel = hq_tree(root)
    for wrong in (root/'CelebA-HQ-img', tmp_path):
        assert f'did you mean {root}?' in one_sentence('CelebAMask-HQ: looked in', celebamask_hq, wrong, cel)
    one_sentence('CelebA: looked in .* for list_eval_partition.txt', celebamask_hq, root, root/'CelebA-HQ-img')
    file, mapping = root/'CelebAMask-HQ-attribute-anno.txt', root/'CelebA-HQ-to-CelebA-mapping.txt'
    good, pairs = file.read_text(), mapping.read_text()
    def fails(match, file, text):
        before = file.read_text()
        file.write_text(text)
        one_sentence(match, celebamask_hq, root, cel)
        file.write_text(before)
    fails('the file is empty', file, '')
    fails('1.jpg is listed for the second time', file, good.replace('2.jpg', '1.jpg'))
    fails('fewer than the 41 columns', file, good+'7.jpg -1\n')
    fails('line 3: must be like', mapping, pairs.replace('000099.jpg', ''))
    fails('line 3: must be like', mapping, pairs.replace('000099.jpg', '000099'))
    fails('line 4: picture 1 is listed for the second time', mapping, pairs.replace('\n2 ', '\n1 '))
    fails('there are none', mapping, 'idx orig_idx orig_file\n')
    fails('it names none of 0.jpg, 1.jpg and 4 more', mapping, '40 1 000002.jpg\n')
    fails('is 3 columns|must begin with a picture', file, pairs)
    (root/'CelebA-HQ-img/0.jpg').unlink()
    mapping.write_text(pairs.replace(pairs.split('\n')[6]+'\n', ''))
    (df, _), warned, _ = heard(celebamask_hq, root, cel)
    assert len(df) == 2 and '1 of 3 images left out' in warned[1]
    assert 'left out, it does not name them: 5.jpg' in warned[0]
    mapping.unlink()
    one_sentence('for CelebA-HQ-to-CelebA-mapping.txt, which says', celebamask_hq, root, cel)


# --- WFLW: what the points are

def test_points_and_parts():
    assert [i for o in WFLW_PARTS.values() for i in o] == list(range(98))
    for flip in (WFLW_FLIP, FLIP_68): assert [flip[i] for i in flip] == list(range(len(flip)))
    pairs = {0: 32, 15: 17, 33: 46, 37: 42, 38: 50, 41: 47, 55: 59, 56: 58, 60: 72, 61: 71, 62: 70, 63: 69, 64: 68,
             65: 75, 66: 74, 67: 73, 76: 82, 77: 81, 78: 80, 83: 87, 84: 86, 88: 92, 89: 91, 93: 95, 96: 97}
    for a, b in pairs.items(): assert WFLW_FLIP[a] == b and WFLW_FLIP[b] == a
    assert [i for i, o in enumerate(WFLW_FLIP) if i == o] == [16, 51, 52, 53, 54, 57, 79, 85, 90, 94]
    assert len(set(WFLW_TO_68)) == 68 and [WFLW_TO_68[i] for i in (0, 8, 16, 17, 26, 30, 33, 36, 45, 48, 67)] == \
        [0, 16, 32, 33, 46, 54, 57, 60, 72, 76, 95]


def test_flips_of_68_are_those_of_ibug():
    "Written out by hand: jaw, brows, nose, eyes, lips"
    ibug = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46,
            39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
    assert list(FLIP_68) == ibug


def symmetric_face():
    "98 points that lie as WFLW's do, each curve by angle and order; no list of pairs is used"
    def arc(n, cx, cy, rx, ry, start, stop):
        a = np.radians(np.linspace(start, stop, n))
        return np.c_[cx+rx*np.cos(a), cy-ry*np.sin(a)]
    jaw = arc(33, 0, 0, 50, 70, 180, 360)
    def brow(x): return np.r_[arc(5, x, -25, 14, 6, 180, 0), arc(5, x, -22, 13, 3, 0, 180)[:4]]
    left = brow(-25) # in the picture: upper edge from outside in, lower edge back
    right = np.r_[arc(5, 25, -25, 14, 6, 180, 0), arc(5, 25, -22, 13, 3, 0, 180)[1:]]
    ridge, base = np.c_[np.zeros(4), np.linspace(-12, 8, 4)], np.c_[np.linspace(-8, 8, 5), [12, 14, 15, 14, 12]]
    def eye(x): return arc(9, x, -12, 9, 4, 180, -180)[:8]
    outer, inner = arc(13, 0, 32, 18, 8, 180, -180)[:12], arc(9, 0, 32, 14, 4, 180, -180)[:8]
    return np.r_[jaw, left, right, ridge, base, eye(-25), eye(25), outer, inner, [[-25, -12]], [[25, -12]]]+[60, 60]


def test_a_symmetric_face_is_its_own_mirror():
    face = symmetric_face()
    assert face.shape == (98, 2)
    np.testing.assert_allclose(flip_points(face, 120), face, atol=1e-9)
    np.testing.assert_allclose(flip_points(to_68(face), 120), to_68(face), atol=1e-9)
    wrong = face[:, :]*[-1, 1]+[120, 0] # mirrored and not renamed: far off
    assert np.abs(wrong-face).max() > 90


def test_flip_points_keeps_shape_nan_and_input():
    points = np.random.default_rng(0).uniform(0, 50, (3, 98, 2)).astype(np.float32)
    points[0, 5] = np.nan
    before = points.copy()
    flipped = flip_points(points, 50)
    assert flipped.dtype == np.float32 and np.isnan(flipped[0, 27]).all() and np.isnan(flipped).sum() == 2
    np.testing.assert_array_equal(points, before)
    np.testing.assert_allclose(flip_points(flipped, 50), points, atol=1e-4)
    np.testing.assert_allclose(flip_points(to_68(points), 50), to_68(flip_points(points, 50)), atol=1e-6)
    for wrong in (np.zeros((97, 2)), np.zeros((98, 3)), np.zeros(98)):
        with pytest.raises(ValueError, match='flip_points takes points of'): flip_points(wrong, 9)
    with pytest.raises(ValueError, match='to_68 takes points of'): to_68(np.zeros((68, 2)))


# --- WFLW: the lists

def wflw_line(points, box=(1, 2, 30, 40), flags=(0,)*6, path='0--Parade/1.jpg'):
    return ' '.join([*(f'{o:.6f}' for o in np.ravel(points)), *map(str, box), *map(str, flags), path])+'\n'


def wflw_tree(root, inner='WFLW_annotations/list_98pt_rect_attr_train_test'):
    rng = np.random.default_rng(0)
    faces = [('train', 'a/1.jpg', (0, 0, 10, 10), (1, 0, 0, 0, 0, 0)),
             ('train', 'a/1.jpg', (5, 5, 60, 60), (0, 1, 0, 1, 0, 0)),
             ('train', 'b/2.jpg', (0, 0, 20, 20), (0, 0, 1, 0, 0, 1)),
             ('test', 'b/3.jpg', (0, 0, 9, 9), (0, 0, 0, 0, 1, 0)),
             ('test', 'b/3.jpg', (0, 0, 9, 9), (0, 0, 0, 0, 0, 0))]
    points = symmetric_face()[None]*.4+rng.uniform(0, 4, (5, 1, 2))
    (root/inner).mkdir(parents=True, exist_ok=True)
    for part in ('train', 'test'):
        rows = [wflw_line(p, box, flags, path) for p, (split, path, box, flags) in zip(points, faces) if split == part]
        (root/inner/f'list_98pt_rect_attr_{part}.txt').write_text(''.join(rows))
    for o in ('a/1.jpg', 'b/2.jpg', 'b/3.jpg'): picture(root/'WFLW_images'/o, (64, 64))
    return points, root/inner


@pytest.mark.parametrize('inner', ['', 'WFLW_annotations', 'WFLW_annotations/list_98pt_rect_attr_train_test'])
def test_wflw(tmp_path, inner):
    points, _ = wflw_tree(tmp_path, inner)
    faces, found = quiet(wflw_faces, tmp_path)
    assert found.dtype == np.float32 and len(faces) == 5
    np.testing.assert_allclose(found, points, atol=1e-3)
    assert list(faces.line) == [1, 2, 3, 1, 2] and list(faces.columns[3:7]) == ['left', 'top', 'right', 'bottom']
    (df, tasks), warned, quoted = heard(wflw, tmp_path)
    assert tasks.names == list(WFLW_FLAGS) and [o.aspect for o in tasks] == ['posture', 'emotion', *['appearance']*4]
    assert list(df.image) == ['WFLW_images/a/1.jpg', 'WFLW_images/b/2.jpg', 'WFLW_images/b/3.jpg']
    assert list(df.split) == ['train', 'train', 'gallery']
    flags = [[0, 1, 0, 1, 0, 0], [0, 0, 1, 0, 0, 1], [0, 0, 0, 0, 1, 0]]
    assert df[tasks.names].to_numpy().tolist() == [[('no', 'yes')[o] for o in row] for row in flags]
    assert '2 faces of 5 left out, another face of the same picture is larger' in warned[0] and quoted == [__file__]
    np.testing.assert_allclose(face_points(tmp_path, df), points[[1, 2, 3]], atol=1e-3)
    round_trip(df, tasks, tmp_path, 'wflw')


def test_wflw_crops(tmp_path):
    points, _ = wflw_tree(tmp_path/'WFLW')
    crops = tmp_path/'crops'
    df, tasks = quiet(wflw, tmp_path/'WFLW', crops=crops, size=128, margin=.1)
    names = ('train/00001', 'train/00002', 'train/00003', 'gallery/00001', 'gallery/00002')
    assert list(df.image) == [f'{o}.jpg' for o in names]
    found = face_points(crops, df)
    assert {Image.open(crops/o).size for o in df.image} == {(128, 128)}
    low, high = found.min((1, 2)), found.max((1, 2))
    # the taller side with its margin fills the crop
    np.testing.assert_allclose([low.min(), high.max()], [128*.1/1.2, 128*1.1/1.2], atol=.01)
    for p, q in zip(found, points): # a shift and one scale, nothing else
        scale = np.ptp(p[:, 1])/np.ptp(q[:, 1])
        np.testing.assert_allclose(p-p.mean(0), (q-q.mean(0))*scale, atol=.01)
    round_trip(df, tasks, crops, 'wflw')
    before = {o: (crops/o).stat().st_mtime_ns for o in df.image}
    (crops/'train/00002.jpg').unlink()
    again = wflw(tmp_path/'WFLW', crops=crops, size=128, margin=.1)[0]
    assert again.equals(df) and (crops/'train/00002.jpg').is_file()
    assert all((crops/o).stat().st_mtime_ns == t for o, t in before.items() if '00002' not in o)
    for other in (dict(size=64, margin=.1), dict(size=128, margin=.2)):
        one_sentence('holds crops of another size or margin', wflw, tmp_path/'WFLW', crops=crops, **other)
    assert (face_points(crops, df) == found).all()
    (crops/'points.npz').unlink()
    one_sentence('holds pictures under the names of our crops', wflw, tmp_path/'WFLW', crops=crops, size=128, margin=.1)


def test_cutting_goes_on_where_it_stopped(tmp_path, monkeypatch):
    from portrait_nb.faces import facereaders
    points, _ = wflw_tree(tmp_path/'WFLW')
    opened = []

    def stop_at_three(path):
        opened.append(path)
        if len(opened) == 3: raise KeyboardInterrupt
        return Image.open(path).convert('RGB')

    monkeypatch.setattr(facereaders, 'open_picture', stop_at_three)
    with pytest.raises(KeyboardInterrupt): wflw(tmp_path/'WFLW', crops=tmp_path/'crops')
    assert len(list((tmp_path/'crops').rglob('*.jpg'))) == 2
    df, _ = wflw(tmp_path/'WFLW', crops=tmp_path/'crops')
    assert len(opened) == 6 and len(df) == 5 and np.isfinite(face_points(tmp_path/'crops', df)).all()


def test_a_crop_shows_what_its_points_say(tmp_path):
    "A white dot under every point of a black picture is under the moved point of the crop, past the border too"
    points = symmetric_face()*.45-[6, 0] # some of it is left of the picture
    img = np.zeros((64, 64, 3), np.uint8)
    chin = points[16]
    img[int(chin[1])-1:int(chin[1])+2, int(chin[0])-1:int(chin[0])+2] = 255
    for part in ('train', 'test'):
        (tmp_path/f'list_98pt_rect_attr_{part}.txt').write_text(wflw_line(points, path=f'{part}.png'))
        (tmp_path/'WFLW_images').mkdir(exist_ok=True)
        Image.fromarray(img).save(tmp_path/f'WFLW_images/{part}.png')
    df, _ = wflw(tmp_path, crops=tmp_path/'crops', size=256)
    crop = np.asarray(Image.open(tmp_path/'crops'/df.image[0]).convert('L'))
    rows, cols = np.nonzero(crop > 128)
    moved = face_points(tmp_path/'crops', df)[0, 16]
    assert np.abs(moved-[cols.mean(), rows.mean()]).max() < 5 # within a pixel of the original


def test_wflw_odd_lines(tmp_path):
    points, inner = wflw_tree(tmp_path/'WFLW')
    root, file = tmp_path/'WFLW', inner/'list_98pt_rect_attr_train.txt'
    good = file.read_text()
    lines = good.splitlines(True)
    def fails(match, text):
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        one_sentence(match, wflw, root)
    short = lines[0]+lines[1].split(' ', 1)[1]
    fails('line 2: must have 207 words, 98 points, a box, six flags and a picture, but has 206', short)
    fails('line 1: must have 207 words.*but has 147; is it the list of another set', ' '.join(['1']*146)+' a.jpg\n')
    fails('line 1: could not convert', good.replace(' ', ' x', 1))
    of_two = lines[0].replace(' 1 0 0 0 0 0 ', ' 2 0 0 0 0 0 ')
    fails('line 1: the six flags before the picture must be 0 or 1, but are 2', of_two)
    fails('line 1: must end with a picture', lines[0].replace('.jpg', '.mat'))
    fails('the list is empty', '\n \n')
    fails('must have 207 words', b'\xff\xfe1 2 3\n')
    file.write_bytes(b'\xef\xbb\xbf'+(good+'\n\n').replace('\n', '\r\n').encode())
    assert len(wflw_faces(root)[0]) == 5
    file.write_text(good+lines[0])
    (faces, _), warned, _ = heard(wflw_faces, root)
    assert len(faces) == 5 and '1 line left out that say what another says' in warned[0]


def test_wflw_wrong_trees(tmp_path):
    root = tmp_path/'WFLW'
    points, inner = wflw_tree(root)
    for wrong in (tmp_path, root/'WFLW_images'):
        assert f'did you mean {root}?' in one_sentence('WFLW: looked in', wflw, wrong)
    (root/'WFLW_images/b/2.jpg').unlink()
    (df, _), warned, _ = heard(wflw, root)
    assert len(df) == 2 and '1 of 5 images left out' in warned[0] and df.attrs['left_out'] == {'missing file': 1}
    (root/'WFLW_images/b/3.jpg').rename(root/'WFLW_images/b/3.JPG')
    (df, _), _, _ = heard(wflw, root, crops=tmp_path/'crops')
    assert list(df.image) == ['train/00001.jpg', 'train/00002.jpg', 'gallery/00001.jpg', 'gallery/00002.jpg']
    np.testing.assert_allclose(face_points(root, heard(wflw, root)[0][0]), points[[1, 3]], atol=1e-3)
    shutil.rmtree(root/'WFLW_images/a')
    shutil.rmtree(root/'WFLW_images/b')
    one_sentence('looked in .* for WFLW_images/a/1.jpg.*none is there', wflw, root)
    (inner/'list_98pt_rect_attr_test.txt').unlink()
    one_sentence('list_98pt_rect_attr_test.txt', wflw, root)


# --- points.npz

def test_stored_points(tmp_path):
    points, pose = np.random.default_rng(0).normal(size=(3, 98, 2)), np.eye(3)
    points[1, 4] = np.nan
    write_points(tmp_path, ['a.jpg', 'b/c.jpg', 'd.jpg'], points, pose)
    df = pd.DataFrame(dict(image=['d.jpg', 'x.jpg', 'a.jpg', 'b/c.jpg', 'd.jpg']))
    found = face_points(tmp_path, df)
    assert found.dtype == np.float32 and found.shape == (5, 98, 2) and np.isnan(found[1]).all()
    np.testing.assert_allclose(found[[0, 2, 3, 4]], points[[2, 0, 1, 2]], rtol=1e-6)
    np.testing.assert_array_equal(face_pose(tmp_path, df)[[0, 2, 3]], pose[[2, 0, 1]])
    assert face_points(tmp_path, df[:0]).shape == (0, 98, 2)
    assert sorted(o.name for o in tmp_path.iterdir()) == ['points.npz']
    write_points(tmp_path, ['a.jpg'], np.zeros((1, 68, 2)))
    assert face_points(tmp_path, df).shape == (5, 68, 2)
    one_sentence('looked in .* for poses in points.npz', face_pose, tmp_path, df)


def test_stored_points_faults(tmp_path):
    df = pd.DataFrame(dict(image=['a.jpg']))
    for images, points, pose, match in ((['a', 'b'], np.zeros((1, 98, 2)), None, '2 images, and points of 1'),
                                        (['a'], np.zeros((1, 98, 2)), np.zeros((2, 3)), '1 images, and pose of 2'),
                                        (['a'], np.zeros((1, 98)), None, r'points must be \(N, n, 2\), got \(1, 98\)'),
                                        (['a', 'a'], np.zeros((2, 98, 2)), None, 'a is listed for the second time')):
        with pytest.raises(ValueError, match=match): write_points(tmp_path, images, points, pose)
    one_sentence('face_points: looked in .* but it is empty', face_points, tmp_path, df)
    (tmp_path/'points.npz').write_bytes(b'PK\x03\x04 no')
    one_sentence('does not read as an npz', face_points, tmp_path, df)
    np.savez(tmp_path/'points.npz', points=np.zeros((1, 98, 2)))
    one_sentence('looked for the array image', face_points, tmp_path, df)
    np.savez(tmp_path/'points.npz', image=['a', 'b'], points=np.zeros((1, 98, 2)))
    one_sentence('2 images, and points of 1', face_points, tmp_path, df)
    with pytest.raises(ValueError, match="no column 'image'"): face_points(tmp_path, pd.DataFrame(dict(path=['a'])))


# --- 300W-LP and AFLW2000-3D

def save_face(path, degrees, points, key='pt2d', **other):
    picture(path)
    rows = {'pt2d': points.T, 'pt3d_68': np.c_[points, np.arange(68)].T}[key]
    pose = np.array([[*np.radians(degrees), 10, 20, -30, 1e-3]])
    v = {'Pose_Para': pose, key: rows, 'Shape_Para': np.zeros((199, 1)), **other}
    savemat(path.with_suffix('.mat'), {k: o for k, o in v.items() if o is not None})


def lp_tree(root):
    rng = np.random.default_rng(0)
    truth = {}
    photos = dict(AFW='AFW_1051618982_1', HELEN='HELEN_1003168_1', IBUG='IBUG_image_003_1', LFPW='LFPW_0001')
    for folder, photo in photos.items():
        for k, yaw in enumerate((3., -45.)):
            for flip, sign in (('', 1), ('_Flip', -1)):
                name = f'{folder}{flip}/{photo}_{k}.jpg'
                truth[name] = ((7., sign*yaw, -2.), rng.uniform(0, 450, (68, 2)))
                save_face(root/name, *truth[name])
    (root/'Code').mkdir()
    (root/'landmarks/AFW').mkdir(parents=True)
    return truth


def test_lp300w(tmp_path):
    truth = lp_tree(tmp_path)
    df, tasks = quiet(lp300w, tmp_path)
    assert set(df.image) == set(truth) and set(df.split) == {'train'} and tasks == Tasks([Task('yaw', 'posture', YAWS)])
    assert set(df.source) == {'AFW', 'HELEN', 'IBUG', 'LFPW'} and df.group.nunique() == 4
    assert set(df[df.source == 'IBUG'].group) == {'IBUG_image_003_1'} and set(df.identity) == {''}
    assert [YAWS.index(o) for o in df.yaw] == [int(abs(truth[o][0][1]) > 30) for o in df.image]
    some = df.sample(frac=1, random_state=1)[:9]
    np.testing.assert_allclose(face_points(tmp_path, some), [truth[o][1] for o in some.image], atol=1e-3)
    np.testing.assert_allclose(face_pose(tmp_path, some), [truth[o][0] for o in some.image], atol=1e-4)
    round_trip(df, tasks, tmp_path, 'lp300w')


def test_points_count_from_the_top_of_the_picture(tmp_path):
    "They are the pixels that the file names: no y is turned over"
    points = symmetric_face()[:68]
    save_face(tmp_path/'image00002.jpg', (1, 2, 3), points, 'pt3d_68')
    df, _ = aflw2000(tmp_path)
    np.testing.assert_allclose(face_points(tmp_path, df)[0], points, atol=1e-4)


@pytest.mark.parametrize('yaw, label', [(0, 0), (30, 0), (-30, 0), (30.1, 1), (-60, 1), (60.1, 2), (-89, 2), (101, 2)])
def test_yaw_labels(tmp_path, yaw, label):
    save_face(tmp_path/'image00004.jpg', (80, yaw, 70), np.ones((68, 2)), 'pt3d_68')
    df, _ = aflw2000(tmp_path)
    assert df.yaw[0] == YAWS[label]


def test_aflw2000(tmp_path):
    rng = np.random.default_rng(0)
    truth = {f'image{i:05d}.jpg': ((i, -20*i, 5), rng.uniform(0, 450, (68, 2))) for i in (2, 4, 6)}
    for name, (pose, points) in truth.items(): save_face(tmp_path/name, pose, points, 'pt3d_68', pt2d=-np.ones((2, 21)))
    picture(tmp_path/'overview.png')
    df, tasks = quiet(aflw2000, tmp_path)
    assert list(df.image) == list(truth) and set(df.split) == {'gallery'}
    assert list(df.yaw) == [YAWS[1], YAWS[2], YAWS[2]]
    np.testing.assert_allclose(face_points(tmp_path, df), [o[1] for o in truth.values()], atol=1e-3)
    np.testing.assert_allclose(face_pose(tmp_path, df), [o[0] for o in truth.values()], atol=1e-3)
    round_trip(df, tasks, tmp_path, 'aflw2000')


def test_hidden_points_are_nan(tmp_path):
    points = np.full((68, 2), 5.)
    points[3] = -1
    points[4] = (-1, 7)
    save_face(tmp_path/'image00002.jpg', (0, 0, 0), points)
    found = face_points(tmp_path, aflw2000(tmp_path)[0])[0]
    assert np.isnan(found[3]).all() and found[4].tolist() == [-1, 7] and np.isnan(found).sum() == 2


@pytest.mark.parametrize('other, match', [
    (dict(Pose_Para=None), 'looked for the variable Pose_Para, but it holds'),
    (dict(pt2d=None), '68 points.*but found none'),
    (dict(Pose_Para=np.zeros((1, 6))), 'Pose_Para must hold 7 numbers, pitch, yaw and roll first, but holds 6'),
    (dict(pt2d=np.zeros((2, 21))), 'but found 2 x 21'), (dict(pt2d=np.zeros((68, 2))), 'but found 68 x 2')])
def test_a_mat_that_cannot_be_used_is_named(tmp_path, other, match):
    save_face(tmp_path/'image00002.jpg', (0, 0, 0), np.ones((68, 2)), **other)
    sentence = one_sentence(match, aflw2000, tmp_path)
    assert 'AFLW2000-3D: none of 1 .mat files can be used; the first is ' in sentence and 'image00002.mat' in sentence
    save_face(tmp_path/'image00004.jpg', (0, 0, 0), np.ones((68, 2)))
    (df, _), warned, quoted = heard(aflw2000, tmp_path)
    assert list(df.image) == ['image00004.jpg']
    assert '1 picture of 2 left out' in warned[0] and 'image00002.mat' in warned[0]
    assert quoted == [__file__] and df.attrs['left_out'] == {'missing file': 1}
    one_sentence('image00002.mat', face_points, tmp_path, pd.DataFrame(dict(image=['image00002.jpg'])))


def test_pose_sets_missing_and_torn_files(tmp_path):
    truth = lp_tree(tmp_path)
    names = sorted(truth)
    (tmp_path/names[0]).with_suffix('.mat').unlink()
    torn = (tmp_path/names[3]).with_suffix('.mat')
    torn.write_bytes(torn.read_bytes()[:150])
    for o in ('IBUG', 'IBUG_Flip'): shutil.rmtree(tmp_path/o)
    (df, _), warned, _ = heard(lp300w, tmp_path)
    assert len(df) == len(truth)-6 and df.attrs['left_out'] == {'missing file': 2}
    assert not {names[0], names[3]} & set(df.image)
    assert 'has no folder IBUG' in warned[0] and f'left out without a .mat: {names[0]}' in warned[1]
    assert '1 picture of 12 left out' in warned[2] and 'does not read as a MATLAB file' in warned[2]
    some = pd.DataFrame(dict(image=[names[0], names[1]]))
    found = face_pose(tmp_path, some)
    assert np.isnan(found[0]).all() and np.isfinite(found[1]).all() # NaN where there is no file
    assert np.isnan(face_points(tmp_path, some)[0]).all()
    for o in tmp_path.glob('*/*.mat'): o.unlink()
    one_sentence('none of 12 pictures in .* has its .mat beside it', lp300w, tmp_path)


def test_pose_sets_wrong_folders(tmp_path):
    lp_tree(tmp_path/'300W_LP')
    save_face(tmp_path/'AFLW2000/image00002.jpg', (0, 0, 0), np.ones((68, 2)))
    sentence = one_sentence('300W-LP: looked in .* for the folders AFW', lp300w, tmp_path)
    assert f"did you mean {tmp_path/'300W_LP'}?" in sentence
    one_sentence('300W-LP: looked in .* it holds image00002.jpg', lp300w, tmp_path/'AFLW2000')
    for wrong in (tmp_path, tmp_path/'300W_LP', tmp_path/'300W_LP/AFW'):
        one_sentence('AFLW2000-3D: looked in .* for pictures like image00002.jpg', aflw2000, wrong)
    assert f"did you mean {tmp_path/'AFLW2000'}?" in one_sentence('AFLW2000-3D', aflw2000, tmp_path)
    one_sentence('there is no such folder', aflw2000, tmp_path/'gone/far/away')
    (tmp_path/'empty/AFW').mkdir(parents=True)
    one_sentence('for pictures like AFW/AFW_1051618982_1_0.jpg, but there are none', lp300w, tmp_path/'empty')


# --- the list

def test_face_sources():
    df = face_sources()
    assert set(df.index) == {o.__name__ for o in (lfwa, maad_face, celebamask_hq, wflw, lp300w, aflw2000)}
    assert (df[['holds', 'terms', 'homepage']] != '').all(axis=None) and df.homepage.str.match('https?://').all()


def test_pictures_in_the_root_itself_are_found(tmp_path):
    from portrait_nb.sources import on_disk, spelt_on_disk
    picture(tmp_path/'a.JPG')
    picture(tmp_path/'b/c.png')
    assert spelt_on_disk(tmp_path, ['a.jpg', 'b/c.jpg', 'd.jpg', 'b/d.jpg']) == ['a.JPG', 'b/c.png', None, None]
    one_sentence(r'looked in .* for x.jpg, but none is there; \.: it holds a.JPG, b', on_disk, 'a set', tmp_path,
                 pd.DataFrame(dict(image=['x.jpg'], split=['train'])))


def test_mirrored_points_are_on_the_mirrored_pixels():
    img, points = np.zeros((4, 10)), np.full((98, 2), np.nan)
    img[1, 3] = 1
    points[60] = (3.5, 1.5) # the middle of that pixel
    (row,), (col,) = np.nonzero(img[:, ::-1])
    assert flip_points(points, 10)[72].tolist() == [col+.5, row+.5]

"Readers of public sets on small trees in exactly the owners' formats, and on trees that are not"
import io, shutil, warnings
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import loadmat, savemat
from portrait_nb.annotations import COLUMNS, AnnotationError, AnnotationWarning, read_annotations, write_annotations
from portrait_nb.data import portrait_dls
from portrait_nb.sources import (BINARY, MARKET, RAF, SourceError, celeba, dukemtmc, folder_source, market1501,
                                 pa100k, peta, portrait_sources, rafdb, rapv2, utkface)
from portrait_nb.tasks import PORTRAIT, Task, Tasks


def picture(path, format=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = 'PNG' if path.suffix.lower() == '.png' else 'JPEG'
    Image.new('RGB', (16, 32), (sum(map(ord, path.name))%256, 80, 120)).save(path, format or ending)
    with open(path, 'ab') as f: f.write(path.name.encode()) # no two files are the same


def struct(**fields):
    "A MATLAB struct of one, as (1, 1) records of objects"
    x = np.empty((1, 1), dtype=[(k, object) for k in fields])
    for k, v in fields.items(): x[k][0, 0] = v
    return x


def cell(items, column=True):
    x = np.empty((len(items), 1) if column else (1, len(items)), object)
    for i, o in enumerate(items): x[(i, 0) if column else (0, i)] = o
    return x


def strings(items, column=True): return cell([np.array([o]) for o in items], column)


def quiet(f, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter('error', AnnotationWarning)
        return f(*args, **kwargs)


def one_sentence(match, f, *args, **kwargs):
    with pytest.raises(SourceError, match=match) as e: f(*args, **kwargs)
    assert '\n' not in str(e.value)
    return str(e.value)


def round_trip(df, tasks, root):
    "Through the csv, all of its checks, and the loaders"
    assert list(df) == list(dict.fromkeys([*COLUMNS, *tasks.names]))
    assert all(isinstance(o, str) for c in df for o in df[c])
    write_annotations(df, root/'my.csv')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', AnnotationWarning)
        back = read_annotations(root/'my.csv', root, tasks)
    pd.testing.assert_frame_equal(back.astype(object), df.astype(object), check_dtype=False)
    dls = portrait_dls(back, root, tasks, size=(32, 16), bs=2, num_workers=0, device='cpu')
    x, y = dls.one_batch()
    assert x.shape == (2, 3, 32, 16) and list(y) == tasks.names
    assert len(dls.gallery_df) == (df.split == 'gallery').sum()


# --- Market-1501 and DukeMTMC-reID

UP = ['upblack', 'upwhite', 'upred', 'uppurple', 'upyellow', 'upgray', 'upblue', 'upgreen']
DOWN = ['downblack', 'downwhite', 'downpink', 'downpurple', 'downyellow', 'downgray', 'downblue', 'downgreen',
        'downbrown']
TRAIN = ['age', 'backpack', 'bag', 'handbag', *sorted(DOWN), *sorted(UP), 'clothes', 'down', 'up', 'hair', 'hat',
         'gender']
TEST = ['age', 'backpack', 'bag', 'handbag', 'clothes', 'down', 'up', 'hair', 'hat', 'gender', *UP, *DOWN]


def market_values(n, seed):
    "{field: (n,) numbers}; the first identity has no colour"
    rng = np.random.default_rng(seed)
    v = {o: rng.integers(1, 3, n).astype(np.uint8)
         for o in ('backpack', 'bag', 'handbag', 'clothes', 'down', 'up', 'hair', 'hat', 'gender')}
    v['age'] = rng.integers(1, 5, n).astype(np.uint8)
    for part in (UP, DOWN):
        worn = rng.integers(0, len(part), n); worn[0] = -1
        for i, o in enumerate(part): v[o] = (1+(worn == i)).astype(np.uint8)
    return v


def market_part(ids, order, seed, values=None):
    v = market_values(len(ids), seed) if values is None else values
    return struct(**{o: v[o][None] for o in order}, image_index=strings(ids, column=False))


def market_tree(root, train=('0002', '0007', '0010'), test=('0001', '0003')):
    names = [f'bounding_box_train/{o}_c{c}s1_00045{c}_0{k}.jpg' for o in train for c, k in ((1, 1), (1, 2), (6, 1))]
    names += [f'query/{o}_c{c}s1_001051_00.jpg' for o in test for c in (1, 2)]
    names += [f'bounding_box_test/{o}_c{c}s3_00105{c}_00.jpg' for o in test for c in (1, 2, 5)]
    names += ['bounding_box_test/-1_c1s1_000401_03.jpg', 'bounding_box_test/-1_c3s2_000402_01.jpg',
              'bounding_box_test/0000_c1s1_000151_01.jpg', 'bounding_box_test/0000_c4s6_000152_01.jpg']
    for o in names: picture(root/o)
    for d in ('bounding_box_train', 'query', 'bounding_box_test'): (root/d/'Thumbs.db').write_bytes(b'\xd0\xcf\x11\xe0')
    parts = struct(test=market_part(test, TEST, 1), train=market_part(train, TRAIN, 2))
    savemat(root.parent/'market_attribute.mat', dict(market_attribute=parts))
    return names


@pytest.fixture
def market(tmp_path):
    root = tmp_path/'data/Market-1501-v15.09.15'
    market_tree(root)
    return root


def test_the_tree_is_as_the_real_file_reads(market):
    m = loadmat(market.parent/'market_attribute.mat')['market_attribute'][0][0]
    assert m.dtype.names == ('test', 'train') and len(m[0][0][0]) == 28
    assert m['train'][0][0]['image_index'][0][1][0] == '0007' and m[0][0][0]['gender'][0].shape == (2,)


def test_market_identities(market):
    df, tasks = quiet(market1501, market)
    assert tasks.names == ['identity'] and tasks.identity.labels is None
    assert dict(df.split.value_counts()) == dict(train=9, query=4, gallery=8)
    assert (df.identity == '').sum() == 2
    assert set(df.image[df.identity == '']) == {'bounding_box_test/0000_c1s1_000151_01.jpg',
                                            'bounding_box_test/0000_c4s6_000152_01.jpg'}
    assert not df.image.str.contains('/-1_').any() and df.attrs['left_out'] == {'junk':2}
    assert dict(zip(df.image, df.source))['bounding_box_train/0002_c6s1_000456_01.jpg'] == 'c6'
    assert set(df.identity) == {'', '0001', '0002', '0003', '0007', '0010'}
    round_trip(df, tasks, market)


def test_market_attributes_by_name(market):
    df, tasks = quiet(market1501, str(market), str(market.parent/'market_attribute.mat'))
    assert [len(o.labels) for o in tasks.attributes] == [2, 4]+[2]*8+[8, 9]
    by = df.drop_duplicates('identity').set_index('identity')
    for ids, seed in ((('0001', '0003'), 1), (('0002', '0007', '0010'), 2)):
        v = market_values(len(ids), seed)
        for i, who in enumerate(ids):
            assert by.age[who] == ('young', 'teenager', 'adult', 'old')[v['age'][i]-1]
            assert by.gender[who] == ('male', 'female')[v['gender'][i]-1]
            assert by.hair[who] == ('short', 'long')[v['hair'][i]-1]
            assert by.up[who] == ('long', 'short')[v['up'][i]-1] and by.down[who] == ('long', 'short')[v['down'][i]-1]
            assert by.clothes[who] == ('dress', 'pants')[v['clothes'][i]-1]
            for o in ('hat', 'backpack', 'bag', 'handbag'): assert by[o][who] == ('no', 'yes')[v[o][i]-1]
            for o, part in (('up', UP), ('down', DOWN)):
                assert by[o+'colour'][who] == ''.join(f[len(o):] for f in part if v[f][i] == 2)
    assert (by.upcolour['0001'], by.downcolour['0002']) == ('', '')
    assert set(df[df.identity == ''][[o.name for o in tasks.attributes]].to_numpy().ravel()) == {''}
    round_trip(df, tasks, market)


def test_market_attributes_in_a_folder_and_other_spellings(market):
    want, _ = market1501(market, market.parent)
    # a character matrix, numbers, a column
    for spell in (np.array, lambda ids: np.array(list(map(int, ids))), strings):
        parts = {k: {**{f: v[None] for f, v in market_values(len(ids), seed).items()}, 'image_index': spell(ids)}
                 for k, ids, seed in (('test', ('0001', '0003'), 1), ('train', ('0002', '0007', '0010'), 2))}
        savemat(market.parent/'market_attribute.mat', dict(market_attribute=parts))
        assert market1501(market, market.parent)[0].equals(want)


def test_market_one_identity(tmp_path):
    root = tmp_path/'m'
    market_tree(root, train=('0002',), test=('0001',))
    df, tasks = quiet(market1501, root, tmp_path)
    assert df.gender[0] == MARKET['gender'][market_values(1, 2)['gender'][0]-1]


def test_market_odd_files(market):
    picture(market/'bounding_box_train/0011_c2s1_000001_00.JPG')
    for o in ('._0002_c1s1_000451_03.jpg', '.DS_Store', 'readme.txt', '0002_c1s1_000451_03.jpg.mat'):
        (market/'bounding_box_train'/o).write_bytes(b'x')
    df, _ = quiet(market1501, market)
    assert (df.identity == '0011').sum() == 1 and (df.split == 'train').sum() == 10
    picture(market/'query/holiday.jpg')
    with pytest.warns(AnnotationWarning, match=r'1 of 25 pictures left out.*query/holiday.jpg'):
        again, _ = market1501(market)
    assert again.equals(df)


def test_market_wrong_folders(market, tmp_path):
    for wrong in (market.parent.parent, market/'query', market.parent/'Market', market.parent/'market_attribute.mat'):
        sentence = one_sentence('looked in .* for the folders bounding_box_train, query, bounding_box_test, but',
                                market1501, wrong)
        assert f'did you mean {market}?' in sentence, wrong
    (tmp_path/'x/y/z/nothing').mkdir(parents=True)
    assert one_sentence('it is empty', market1501, tmp_path/'x/y/z/nothing').endswith('it is empty.')
    for o in (market/'query').iterdir(): o.unlink()
    one_sentence('looked in .*query for pictures named like 0002_c1s1_000451_03.jpg, but it is empty',
                 market1501, market)
    (market/'query/a.txt').touch()
    one_sentence('it holds a.txt', market1501, market)


def test_market_from_the_folder_it_was_unpacked_in(market):
    (inner, _), (outer, _) = market1501(market), market1501(market.parent)
    assert list(outer.image) == [f'{market.name}/{o}' for o in inner.image]
    assert outer.drop(columns='image').equals(inner.drop(columns='image'))
    assert all((market.parent/o).is_file() for o in outer.image)


def test_market_relative_folder(market, monkeypatch):
    monkeypatch.chdir(market/'query')
    assert f'did you mean {market}?' in one_sentence('looked in', market1501, '.')
    monkeypatch.chdir(market)
    assert len(market1501('.')[0]) == 21


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    for o in ('bounding_box_train', 'query', 'bounding_box_test'): (tmp_path/o).symlink_to(f'disk/{o}')
    sentence = one_sentence('Market-1501', market1501, tmp_path)
    assert "the link 'bounding_box_test' leads to 'disk/bounding_box_test', and nothing is there" in sentence


def test_market_wrong_attributes(market, tmp_path):
    def part(ids): return {**{f: v[None] for f, v in market_values(len(ids), 0).items()}, 'image_index': strings(ids)}
    file, good = tmp_path/'a.mat', dict(train=part(('0002', '0007', '0010')), test=part(('0001', '0003')))
    def fails(match, x, key='market_attribute'):
        savemat(file, {key: x})
        return one_sentence(match, market1501, market, file)
    fails('looked for the variable market_attribute, but it holds duke_attribute', good, 'duke_attribute')
    fails(r'market_attribute: looked for the field train, but it holds test', dict(test=good['test']))
    fails(r'market_attribute.test: looked for the field image_index',
          {**good, 'test': {k:v for k, v in good['test'].items() if k != 'image_index'}})
    fails('hat is not in both train and test', {**good, 'test': {k:v for k, v in good['test'].items() if k != 'hat'}})
    fails('hat, hair are not|hair, hat are not',
          {**good, 'train': {k:v for k, v in good['train'].items() if k not in ('hat', 'hair')}})
    fails('train: hat has 2 values for 3 identities', {**good, 'train': {**good['train'], 'hat': np.uint8([[1, 2]])}})
    fails('names an identity twice', {**good, 'test': {**good['test'], 'image_index': strings(['0001', '1'])}})
    fails('is none', np.eye(3))
    fails("knows none of the 5 identities, 0001, 0002, 0003 and 2 more; is it another set's",
          {k: {**v, 'image_index': strings(['9001', '9002', '9003'][:len(v['image_index'])])} for k, v in good.items()})
    one_sentence('there is no such file', market1501, market, tmp_path/'b.mat')
    one_sentence('market_attribute.mat: there is no such file', market1501, market, market)
    file.write_bytes(b'<html>not found</html>'*20)
    one_sentence('does not read as a MATLAB file', market1501, market, file)
    file.write_bytes(b''); one_sentence('does not read as a MATLAB file', market1501, market, file)
    file.write_bytes((market.parent/'market_attribute.mat').read_bytes()[:700])
    one_sentence('does not read as a MATLAB file', market1501, market, file)
    file.write_bytes(b'MATLAB 7.3 MAT-file'.ljust(124)+b'\x00\x02IM'+bytes(64))
    one_sentence('7.3', market1501, market, file)


def test_market_identity_without_attributes(market, tmp_path):
    picture(market/'bounding_box_train/0044_c1s1_000451_03.jpg')
    with pytest.warns(AnnotationWarning, match='no attributes for 1 identities, left unlabelled: 0044'):
        df, tasks = market1501(market, market.parent)
    assert set(df[df.identity == '0044'].iloc[0][[o.name for o in tasks.attributes]]) == {''}


def test_market_is_not_opened(market):
    n = len(market1501(market)[0])
    for o in market.glob('*/*.jpg'): o.write_bytes(b'')
    assert len(market1501(market, market.parent)[0]) == n


def duke_tree(root):
    for o in ('bounding_box_train/0001_c2_f0046182', 'bounding_box_train/0005_c1_f0051000', 'query/0002_c3_f0044158',
              'bounding_box_test/0002_c5_f0060155', 'bounding_box_test/7139_c8_f0120000'):
        picture(root/f'{o}.jpg')
    fields = ['backpack', 'bag', 'handbag', 'boots', 'gender', 'hat', 'shoes', 'top',
              *(f'down{o}' for o in 'black white red gray blue green brown'.split()),
              *(f'up{o}' for o in 'black white red purple gray blue green brown'.split())]
    def part(ids, order, **own):
        return struct(**{o: np.uint8([own.get(o, [1]*len(ids))]) for o in order},
                      image_index=strings(ids, column=False))
    train = part(['0001', '0005'], fields, gender=[2, 0], shoes=[2, 1], upred=[2, 0], downblue=[1, 2])
    test = part(['0002', '7139'], fields[::-1], top=[2, 1], upbrown=[1, 2])
    savemat(root/'duke_attribute.mat', dict(duke_attribute=struct(train=train, test=test)))


def test_duke(tmp_path):
    root = tmp_path/'DukeMTMC-reID'
    duke_tree(root)
    df, tasks = quiet(dukemtmc, root, root/'duke_attribute.mat')
    assert len(tasks) == 11 and tasks['upcolour'].n_labels == 8 and tasks['downcolour'].n_labels == 7
    assert list(df.gender) == ['female', '', 'male', 'male', 'male'] and list(df.shoes) == ['light', 'dark']+['dark']*3
    assert list(df.top) == ['short', 'short', 'long', 'long', 'short']
    assert list(df.upcolour) == ['red', '', '', '', 'brown'] and list(df.downcolour) == ['', 'blue', '', '', '']
    assert list(df.source) == ['c2', 'c1', 'c3', 'c5', 'c8']
    assert list(df.identity) == ['0001', '0005', '0002', '0002', '7139']
    round_trip(df, tasks, root)
    one_sentence('read them with dukemtmc', market1501, root, root/'duke_attribute.mat')
    one_sentence('DukeMTMC-reID: looked in', dukemtmc, root/'query')
    assert len(dukemtmc(tmp_path)[0]) == len(dukemtmc(root)[0])


# --- PA-100K

PA = ['Female', 'AgeOver60', 'Age18-60', 'AgeLess18', 'Front', 'Side', 'Back', 'Hat', 'Glasses', 'HandBag',
      'ShoulderBag', 'Backpack', 'HoldObjectsInFront', 'ShortSleeve', 'LongSleeve', 'UpperStride', 'UpperLogo',
      'UpperPlaid', 'UpperSplice', 'LowerStripe', 'LowerPattern', 'LongCoat', 'Trousers', 'Shorts', 'Skirt&Dress',
      'boots']
PARTS = dict(train=range(0, 5), val=range(5, 7), test=range(7, 10))


def pa_tree(root, seed=0, data='data', **other):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, (10, 26)).astype(np.uint8)
    for cols in (slice(1, 4), slice(4, 7)): label[:, cols] = np.eye(3, dtype=np.uint8)[rng.integers(0, 3, 10)]
    label[1, 1:4] = 0; label[2, 4:7] = 1 # no age; every view
    files = [f'{i+1:06d}.jpg' for i in range(10)]
    for o in files: picture(root/data/o)
    m = dict(attributes=strings(PA), **{f'{k}_images_name': strings([files[i] for i in v]) for k, v in PARTS.items()},
             **{f'{k}_label': label[list(v)] for k, v in PARTS.items()})
    savemat(root/'annotation.mat', {**m, **other})
    return label, m


def test_pa100k(tmp_path):
    label, _ = pa_tree(tmp_path)
    df, tasks = quiet(pa100k, tmp_path)
    assert len(tasks) == 22 and tasks.names[:4] == ['gender', 'age', 'view', 'Hat']
    assert {o.name for o in tasks.of('posture')} == {'view', 'HoldObjectsInFront'}
    rows = [*PARTS['train'], *PARTS['test']]
    assert list(df.image) == [f'data/{i+1:06d}.jpg' for i in rows] and list(df.split) == ['train']*5+['gallery']*3
    assert list(df.gender) == [('male', 'female')[label[i, 0]] for i in rows]
    assert list(df.age) == ['' if i == 1 else ('over 60', '18-60', 'under 18')[label[i, 1:4].argmax()] for i in rows]
    assert list(df['view']) == ['' if i == 2 else ('front', 'side', 'back')[label[i, 4:7].argmax()] for i in rows]
    for o in PA[7:]: assert list(df[o]) == [BINARY[label[i, PA.index(o)]] for i in rows]
    assert set(df.identity) == {''}
    val, _ = pa100k(tmp_path, test='val')
    assert list(val.image[5:]) == ['data/000006.jpg', 'data/000007.jpg'] and list(val.split[5:]) == ['gallery']*2
    round_trip(df, tasks, tmp_path)
    with pytest.raises(ValueError, match="'test' or 'val'"): pa100k(tmp_path, test='train')


def test_pa100k_as_unpacked(tmp_path):
    pa_tree(tmp_path, data='release_data/release_data')
    df, _ = quiet(pa100k, tmp_path)
    assert df.image[0] == 'release_data/release_data/000001.jpg'


def test_pa100k_faults(tmp_path):
    label, m = pa_tree(tmp_path/'pa')
    root = tmp_path/'pa'
    for wrong in (tmp_path, root/'data'):
        sentence = one_sentence('looked in .* for annotation.mat and the folder data', pa100k, wrong)
        assert f'did you mean {root}?' in sentence
    savemat(root/'annotation.mat', {k:v for k, v in m.items() if not k.startswith('test')})
    one_sentence('looked for the variables test_images_name, test_label, but it holds attributes', pa100k, root)
    assert len(pa100k(root, test='val')[0]) == 7
    pa_tree(root, test_label=label[:2])
    one_sentence('test_label: 3 images and 26 attributes want labels of 3 x 26, but they are 2 x 26', pa100k, root)
    pa_tree(root, attributes=strings(PA[:-1])); one_sentence('5 images and 25 attributes', pa100k, root)
    pa_tree(root, attributes=strings([*PA[:-1], 'Hat']))
    one_sentence('the attribute Hat is listed twice', pa100k, root)
    pa_tree(root)
    (root/'data/000001.jpg').unlink(); (root/'data/000009.jpg').rename(root/'data/000009.JPG')
    with pytest.warns(AnnotationWarning, match='1 of 8 images left out.*data/000001.jpg'): df, _ = pa100k(root)
    assert df.attrs['left_out'] == {'missing file':1} and 'data/000009.JPG' in set(df.image)
    for o in (root/'data').iterdir(): o.unlink()
    one_sentence('looked in .* for data/000001.jpg, data/000002.jpg and 6 more, but none is there; data: it is empty',
                 pa100k, root)


# --- RAPv2 and PETA

SELECTED = ['Femal', 'AgeLess16', 'Age17-30', 'Age31-45', 'Age46-60', 'BodyFat', 'BodyNormal', 'BodyThin',
            *(f'ub-{i}' for i in range(37)), *(f'action-{i}' for i in range(9))]
RAP = [*SELECTED[:5], 'AgeBiger60', 'BodyFatter', *SELECTED[5:8], 'BodyThiner', *(f'up-Color{i}' for i in range(95)),
       *SELECTED[8:]]


def rap_tree(root, n=10, female='Femal', **other):
    rng = np.random.default_rng(0)
    names = [f'CAM{1+i%4:02d}-2014-02-15-20140215161032-20140215162620-tarid{i}-frame{i}-line1.png' for i in range(n)]
    for o in names: picture(root/'RAP_dataset'/o)
    data = rng.integers(0, 2, (n, 152)).astype(np.uint8)
    data[:, RAP.index('ub-3')] = 2
    order = [rng.permutation(n)+1 for _ in range(5)]
    folds = cell([struct(train_index=np.uint32(o[None, :5]), val_index=np.uint32(o[None, 5:7]),
                         test_index=np.uint32(o[None, 7:])) for o in order], column=False)
    attribute = strings([female if o == 'Femal' else o for o in RAP])
    fields = dict(name=strings(names), data=data, attribute=attribute,
                  selected_attribute=np.uint8([[RAP.index(o)+1 for o in SELECTED]]), partition_attribute=folds,
                  person_identity=np.int16(rng.integers(1, 4, (n, 1))))
    (root/'RAP_annotation').mkdir(exist_ok=True)
    savemat(root/'RAP_annotation/RAP_annotation.mat', dict(RAP_annotation=struct(**{**fields, **other})))
    return names, data, order


def test_rapv2(tmp_path):
    names, data, order = rap_tree(tmp_path)
    rap = loadmat(tmp_path/'RAP_annotation/RAP_annotation.mat')['RAP_annotation'] # as the literature reads it
    assert rap['name'][0][0][3][0][0] == names[3]
    assert list(rap['partition_attribute'][0][0][0][2]['train_index'][0][0][0]) == list(order[2][:5])
    assert rap['selected_attribute'][0][0][0].size == 54
    for fold in range(5):
        df, tasks = quiet(rapv2, tmp_path, fold=fold)
        rows = [*(order[fold][:5]-1), *(order[fold][7:]-1)]
        assert list(df.image) == [f'RAP_dataset/{names[i]}' for i in rows]
        for o in SELECTED[8:]: assert list(df[o]) == [{0:'no', 1:'yes', 2:''}[data[i, RAP.index(o)]] for i in rows]
        assert list(df.gender) == [('male', 'female')[data[i, 0]] for i in rows]
        for task, cols, labels in (('age', [1, 2, 3, 4], ['under 16', '17-30', '31-45', '46-60']),
                                 ('physique', [7, 8, 9], ['heavy', 'medium', 'thin'])):
            flags = data[np.ix_(rows, cols)]
            assert list(df[task]) == [labels[o.argmax()] if o.sum() == 1 else '' for o in flags]
    assert len(tasks) == 49 and tasks['physique'].labels == PORTRAIT['physique'].labels
    assert len(tasks.of('posture')) == 9 and set(df['ub-3']) == {''}
    assert set(df.source) <= {'CAM01', 'CAM02', 'CAM03', 'CAM04'} and set(df.identity) == {''}
    assert list(rapv2(tmp_path, test='val')[0].image[5:]) == [f'RAP_dataset/{names[i-1]}' for i in order[0][5:7]]
    round_trip(df, tasks, tmp_path)
    rap_tree(tmp_path, female='Female')
    assert rapv2(tmp_path, fold=4)[0].gender.equals(df.gender)


def test_rapv2_faults(tmp_path):
    root = tmp_path/'rap'
    names, data, order = rap_tree(root)
    with pytest.raises(ValueError, match='fold must be 0 to 4, got 5'): rapv2(root, fold=5)
    for wrong in (tmp_path, root/'RAP_annotation', root/'RAP_dataset'):
        assert f'did you mean {root}?' in one_sentence('RAP_annotation/RAP_annotation.mat', rapv2, wrong)
    def fold(*parts): return cell([struct(train_index=parts[0], val_index=parts[1], test_index=parts[2])])
    rap_tree(root, partition_attribute=fold(np.arange(5)[None], np.array([[5]]), np.array([[6]])))
    one_sentence('train of fold 0 holds the numbers 0 to 4, but there are images 1 to 10', rapv2, root)
    rap_tree(root, partition_attribute=fold(np.arange(1, 5)[None], np.array([[5]]), np.array([[11]])))
    one_sentence('test of fold 0 holds the numbers 11 to 11', rapv2, root)
    rap_tree(root, partition_attribute=fold(np.arange(1, 5)[None], np.array([[5]]), np.array([[6]])))
    assert len(rapv2(root)[0]) == 5
    rap_tree(root, selected_attribute=np.arange(54)[None]); one_sentence('numbers from 1 to 152', rapv2, root)
    rap_tree(root, data=data[:, :54]); one_sentence('10 images and 152 attributes', rapv2, root)
    savemat(root/'RAP_annotation/RAP_annotation.mat', dict(RAP_annotation=struct(name=strings(names), data=data)))
    one_sentence('looked for the fields attribute, selected_attribute, partition_attribute', rapv2, root)


PETA = ['personalLess30', 'personalLess45', 'personalLess60', 'personalLarger60', *(f'a{i}' for i in range(12)),
        'personalMale', *(f'b{i}' for i in range(18)), *(f'c{i}' for i in range(69)), 'personalLess15']


def peta_tree(root, n=10, base=1, names=PETA):
    rng = np.random.default_rng(0)
    for i in range(n): picture(root/f'images/{i+1:05d}.png')
    table = np.concatenate([rng.integers(0, 9, (n, 4)), rng.integers(0, 2, (n, len(PETA)))], 1).astype(np.uint16)
    order = [rng.permutation(n)+base for _ in range(5)]
    folds = cell([struct(train=np.uint16(o[:5, None]), val=np.uint16(o[5:7, None]), test=np.uint16(o[7:, None]))
                  for o in order])
    savemat(root/'PETA.mat', dict(peta=struct(data=table, attribute=strings(names), selected=np.arange(1, 36)[:, None],
                                              partition=folds)))
    return table[:, 4:], order


def test_peta(tmp_path):
    data, order = peta_tree(tmp_path)
    m = loadmat(tmp_path/'PETA.mat')['peta'] # as the literature reads it
    assert (m[0][0][0][:, 4:] == data).all() and m[0][0][1][16][0][0] == 'personalMale'
    assert list(m[0][0][3][2][0][0][0][1][:, 0]) == list(order[2][5:7])
    df, tasks = quiet(peta, tmp_path, fold=3)
    rows = [*(order[3][:5]-1), *(order[3][7:]-1)]
    assert len(tasks) == 32 and list(df.image) == [f'images/{i+1:05d}.png' for i in rows]
    assert list(df.gender) == [('female', 'male')[data[i, 16]] for i in rows]
    assert list(df.age) == [['16-30', '31-45', '46-60', 'over 60'][data[i, :4].argmax()] if data[i, :4].sum() == 1
                            else '' for i in rows]
    for o in PETA[4:16]: assert list(df[o]) == [BINARY[data[i, PETA.index(o)]] for i in rows]
    full, all_tasks = peta(tmp_path, fold=3, n_attributes=105)
    assert len(all_tasks) == 101 and all_tasks['age'].labels == ('under 16', '16-30', '31-45', '46-60', 'over 60')
    round_trip(df, tasks, tmp_path)


def test_peta_faults(tmp_path):
    root = tmp_path/'PETA'
    peta_tree(root, base=0)
    one_sentence('but there are images 1 to 10', lambda: [peta(root, fold=i) for i in range(5)])
    peta_tree(root, names=PETA[:-1]); one_sentence('10 images and 104 attributes', peta, root)
    savemat(root/'PETA.mat', dict(peta=struct(a=np.eye(3)))); one_sentence('this is another file', peta, root)
    savemat(root/'PETA.mat', dict(x=1)); one_sentence('looked for the variable peta, but it holds x', peta, root)
    assert f'did you mean {root}?' in one_sentence('PETA.mat and the folder images', peta, root/'images')


# --- CelebA

CELEBA = [*(f'Attribute_{i}' for i in range(38)), 'Male', 'Smiling']


def celeba_tree(root, anno='', evaluation='', images='img_align_celeba', n=9, end='\n', announced=None):
    rng = np.random.default_rng(0)
    value, part, files = rng.choice([-1, 1], (n, 40)), [0, 0, 0, 0, 1, 1, 2, 2,
                                                        2][:n], [f'{i+1:06d}.jpg' for i in range(n)]
    for o in files: picture(root/images/o)
    for d in (anno, evaluation): (root/d).mkdir(parents=True, exist_ok=True)
    def put(path, lines): path.write_bytes(end.join([*lines, '']).encode())
    put(root/anno/'list_attr_celeba.txt', [str(announced or n), ' '.join(CELEBA)+' ',
                                           *(f"{o} {' '.join(f'{v:2d}' for v in row)}"
                                             for o, row in zip(files, value))])
    put(root/evaluation/'list_eval_partition.txt', [f'{o} {p}' for o, p in zip(files, part)])
    put(root/anno/'identity_CelebA.txt', [f'{o} {100*p+i%2+1}' for i, (o, p) in enumerate(zip(files, part))])
    return value, np.array(part)


@pytest.mark.parametrize('layout', [{}, dict(anno='Anno', evaluation='Eval', images='Img/img_align_celeba'),
                                    dict(images='img_align_celeba/img_align_celeba'), dict(end='\r\n')])
def test_celeba(tmp_path, layout):
    value, part = celeba_tree(tmp_path, **layout)
    df, tasks = quiet(celeba, tmp_path)
    assert tasks.names == CELEBA and all(o.labels == BINARY for o in tasks) and tasks.identity is None
    assert {o.name for o in tasks.of('emotion')} == {'Smiling'}
    assert (df[CELEBA].to_numpy() == np.where(value[part != 1] == 1, 'yes', 'no')).all()
    assert list(df.split) == ['train']*4+['gallery']*3
    assert list(df.identity) == ['1', '2', '1', '2', '201', '202', '201']
    assert df.image[0] == f"{layout.get('images', 'img_align_celeba')}/000001.jpg"
    val, _ = celeba(tmp_path, test='val')
    assert list(val.identity[4:]) == ['101', '102']
    round_trip(df, tasks, tmp_path)


def test_celeba_faults(tmp_path):
    root = tmp_path/'CelebA'
    celeba_tree(root, anno='Anno', evaluation='Eval', images='Img/img_align_celeba')
    for wrong in (tmp_path, root/'Anno', root/'Img/img_align_celeba'):
        sentence = one_sentence('list_attr_celeba.txt, list_eval_partition.txt and img_align_celeba', celeba, wrong)
        assert f'did you mean {root}?' in sentence
    (root/'Anno/identity_CelebA.txt').unlink()
    assert set(quiet(celeba, root)[0].identity) == {''}
    file = root/'Anno/list_attr_celeba.txt'
    good = file.read_text()
    def fails(match, text):
        file.write_text(text)
        return one_sentence(match, celeba, root)
    fails("line 1: a line with the attributes' names must stand before", good.split('\n', 2)[2])
    fails('line 3: the picture has 40 values, but the line above names 39 attributes', good.replace(' Smiling', ''))
    fails('the file is empty', '')
    fails('the column Smiling must hold numbers', '\n'.join(o+'x' if '.jpg' in o else o for o in good.split('\n')))
    fails('line 3: must begin with a picture', good.replace('000001.jpg', ''))
    fails('line 4: fewer than the 41 columns',
          '\n'.join(o if i != 3 else '000002.jpg 1' for i, o in enumerate(good.split('\n'))))
    fails('does not read as a list of 41 columns', good.replace('000003.jpg', '000003.jpg 1 1'))
    fails('line 5: 000001.jpg is listed for the second time', good.replace('000003.jpg', '000001.jpg'))
    file.write_text(good.replace('9', '202599', 1))
    with pytest.warns(AnnotationWarning, match='line 1 announces 202,599 images, 9 follow'):
        assert len(celeba(root)[0]) == 7
    file.write_text(good)
    part = root/'Eval/list_eval_partition.txt'
    part.write_text(part.read_text().replace('000001.jpg 0\n', '').replace('000002.jpg 0', '000002.jpg 7'))
    with pytest.warns(AnnotationWarning, match='2 images left out.*000001.jpg, 000002.jpg'):
        assert list(celeba(root)[0].image.str[-6:-4]) == ['03', '04', '07', '08', '09']
    part.write_text(''.join(f'{i+1:06d}.jpg 1\n' for i in range(9)))
    one_sentence('its lists name none', celeba, root)


# --- UTKFace and RAF-DB

def test_utkface(tmp_path):
    root = tmp_path/'UTKFace'
    names = {'25_0_2_20170116174525125.jpg.chip.jpg':('young adult', 'male', 'asian'),
             '1_1_4_20161219154018461.jpg':('child', 'female', 'other'),
             '61_1_20170109142408075.jpg.chip.jpg':('senior', '', ''),
             '39_1_20170116174525125.jpg':('young adult', '', ''),
             '24_0_1_20170116220224657 .jpg.chip.jpg':('young adult', 'male', 'black'),
             '55_0_0_20170116232725357jpg.chip.jpg':('middle-aged', 'male', 'white'),
             '53__0_20170116184028385.jpg':('middle-aged', '', 'white'),
             '13_3_1_20170101.JPG':('teenager', '', 'black'), '116_1_3_20170112213001988.jpg':('senior', 'female',
                                                                                               'indian'),
             '7_1__20170112213001988.jpg':('child', 'female', ''), '30_1_0.jpg':('young adult', 'female', 'white'),
             '61_20170109150557335.jpg':('senior', '', '')}
    for o in names: picture(root/o)
    with pytest.warns(AnnotationWarning, match='5 of 12 names lack a field'): df, tasks = utkface(root)
    assert tasks == Tasks([PORTRAIT['gender'], PORTRAIT['age']]) and 'race' not in df
    with pytest.warns(AnnotationWarning): raced, race_tasks = utkface(root, race=True)
    assert {o.image:(o.age, o.gender, o.race) for o in raced.itertuples()} == names
    assert race_tasks.names == ['gender', 'age', 'race']
    for i in range(200): picture(root/f'{i%100+1}_{i%2}_0_20170112213{i:06d}.jpg')
    with pytest.warns(AnnotationWarning): more, _ = utkface(root)
    assert 25<(more.split == 'gallery').sum()<60 and set(more.split) == {'train', 'gallery'}
    # where an image belongs does not depend on the others
    assert more.set_index('image').split[df.image].tolist() == df.split.tolist()
    round_trip(more, tasks, root)
    for o in ('1_holiday.jpg', '2017_1_1_20170112213001988.jpg', 'readme.txt', '._25_0_2_20170116174525125.jpg'):
        (root/o).write_bytes(b'')
    with pytest.warns(AnnotationWarning) as heard: assert len(utkface(root)[0]) == 212
    assert '2 of 214 pictures left out' in str(heard[0].message)


def test_utkface_faults(tmp_path):
    picture(tmp_path/'UTK/part1/25_0_2_20170116174525125.jpg')
    sentence = one_sentence('looked in .* for faces named like', utkface, tmp_path/'UTK')
    assert f"did you mean {tmp_path/'UTK/part1'}?" in sentence
    (tmp_path/'a/b/c').mkdir(parents=True); one_sentence('it is empty', utkface, tmp_path/'a/b/c')


def raf_tree(root, lines):
    for o, _ in lines: picture(root/f'basic/Image/aligned/{o}_aligned.jpg')
    (root/'basic/EmoLabel').mkdir(exist_ok=True)
    (root/'basic/EmoLabel/list_patition_label.txt').write_text(''.join(f'{o}.jpg {k}\n' for o, k in lines))


def test_rafdb(tmp_path):
    lines = [(f'train_{i+1:05d}', 1+i%7) for i in range(9)] + [(f'test_{i+1:04d}', 7-i%7) for i in range(4)]
    raf_tree(tmp_path, lines)
    df, tasks = quiet(rafdb, tmp_path)
    assert list(df.expression) == [RAF[k-1] for _, k in lines] and list(df.split) == ['train']*9+['gallery']*4
    assert set(tasks['expression'].labels) == set(RAF)
    assert tasks['expression'].labels == PORTRAIT['expression'].labels and not tasks['expression'].multilabel
    assert df.image[0] == 'basic/Image/aligned/train_00001_aligned.jpg'
    round_trip(df, tasks, tmp_path)
    file = tmp_path/'basic/EmoLabel/list_patition_label.txt'
    good = file.read_text()
    for line, match in (('train_00001.jpg 0', 'line 1'), ('train_00001.jpg', 'line 1'),
                       ('valid_00001.jpg 3', 'line 1'), ('train_00001 3', 'line 1')):
        file.write_text(line+'\n'); one_sentence(match, rafdb, tmp_path)
    file.write_text('\n \n'); one_sentence('it is empty', rafdb, tmp_path)
    file.write_text(good.replace(' ', '\t')+'\n'); assert len(rafdb(tmp_path)[0]) == 13
    (tmp_path/'basic/Image/aligned/train_00002_aligned.jpg').unlink()
    with pytest.warns(AnnotationWarning, match='1 of 13 images left out'): assert len(rafdb(tmp_path)[0]) == 12
    for wrong in ('basic/EmoLabel', 'basic/Image', 'basic/Image/aligned'):
        sentence = one_sentence('list_patition_label.txt and basic/Image/aligned', rafdb, tmp_path/wrong)
        assert f"did you mean {tmp_path/'basic'}?" in sentence


# --- any folder

def test_folder_source(tmp_path):
    for o in ('train/hall/7_yes.jpg', 'train/hall/8_no.JPG', 'train/shop/7_no.png', 'test/shop/9_yes.jpg',
              'val/shop/9_no.jpg'):
        picture(tmp_path/o)
    (tmp_path/'test/Thumbs.db').touch(); (tmp_path/'train/notes.txt').touch(); (tmp_path/'train/._7_yes.jpg').touch()
    pattern = r'(?P<split>\w+)/(?P<source>\w+)/(?P<identity>\d+)_(?P<hat>\w+)'
    one_sentence("val/shop/9_no.jpg has the split 'val', which is none of train, query, gallery, test",
                 folder_source, tmp_path, pattern)
    df, tasks = quiet(folder_source, str(tmp_path), pattern, splits=dict(train='train', test='gallery', val=''))
    assert tasks == Tasks([Task('identity', 'appearance', None), Task('hat', 'appearance', ['no', 'yes'])])
    images = ['test/shop/9_yes.jpg', 'train/hall/7_yes.jpg', 'train/hall/8_no.JPG', 'train/shop/7_no.png']
    assert df.to_dict('list') == dict(image=images, split=['gallery', 'train', 'train', 'train'],
                                      identity=['9', '7', '8', '7'], source=['shop', 'hall', 'hall', 'shop'],
                                      group=['']*4, hat=['yes', 'yes', 'no', 'no'])
    round_trip(df, tasks, tmp_path)
    own = Tasks([Task('hat', 'posture', ['yes', 'no'])])
    df, tasks = folder_source(tmp_path, r'_(?P<hat>\w+)\.', tasks=own)
    assert tasks is own and set(df.split) == {'train'} and set(df.identity) == {''} and len(df) == 5


def test_folder_source_faults(tmp_path):
    picture(tmp_path/'a/1_x.jpg'); picture(tmp_path/'a/other.jpg')
    for pattern, match in (('(?P<a', 'not a regular expression'), (r'(\d)', 'no named group'),
                          (r'(?P<image>\d)', "cannot be called 'image'"), (r'(?P<source>\d)', 'nothing to learn')):
        with pytest.raises(ValueError, match=match): folder_source(tmp_path, pattern)
    with pytest.raises(ValueError, match="'hat' has 1 label"), pytest.warns(AnnotationWarning):
        folder_source(tmp_path, r'\d_(?P<hat>x)')
    one_sentence('none of 2 is: a/1_x.jpg, a/other.jpg', folder_source, tmp_path, r'(?P<identity>\d{4})')
    one_sentence('there is no such folder', folder_source, tmp_path/'b', r'(?P<identity>\d)')
    (tmp_path/'c').mkdir()
    one_sentence('there is no picture: it is empty', folder_source, tmp_path/'c', r'(?P<identity>\d)')
    with pytest.warns(AnnotationWarning, match='1 of 2 pictures left out'):
        assert len(folder_source(tmp_path, r'(?P<identity>\d)_')[0]) == 1


def test_optional_group(tmp_path):
    for o in ('1_x.jpg', '2.jpg', '3_y.jpg'): picture(tmp_path/o)
    df, tasks = folder_source(tmp_path, r'(?P<identity>\d)(?:_(?P<hat>\w))?\.')
    assert list(df.hat) == ['x', '', 'y'] and tasks['hat'].labels == ('x', 'y')
    round_trip(df, tasks, tmp_path)


# --- the list

def test_portrait_sources():
    df = portrait_sources()
    assert set(df.index) == {o.__name__ for o in (market1501, dukemtmc, pa100k, rapv2, peta, celeba, utkface, rafdb)}
    assert (df[['holds', 'terms', 'homepage']] != '').all(axis=None) and df.homepage.str.match('https?://').all()
    assert issubclass(SourceError, AnnotationError) and issubclass(SourceError, ValueError)


def test_what_folder_source_is_told_must_fit(tmp_path):
    for o in ('train/male_1.jpg', 'test/female_2.jpg'):
        (tmp_path/o).parent.mkdir(exist_ok=True)
        (tmp_path/o).write_bytes(b'')
    pattern = r'^(?P<split>\w+)/(?P<gender>[a-z]+)_'
    gender, age = Task('gender', 'appearance', ['male', 'female']), Task('age', 'appearance', ['old', 'young'])
    assert folder_source(tmp_path, pattern, Tasks([gender]))[0].gender.tolist() == ['female', 'male']
    for match, kwargs in [("is called 'age'", dict(tasks=Tasks([gender, age]))),
                          ("has the gender 'female'", dict(tasks=Tasks([Task('gender', 'appearance', ['male', 'f'])]))),
                          ("says 'validation'", dict(splits=dict(train='train', test='validation'))),
                          ('leaves out every one of 2', dict(splits=dict(train='', test='')))]:
        with pytest.raises(ValueError, match=match): folder_source(tmp_path, pattern, **kwargs)


# --- packings, codings and copies that people have

def heard_from(f, *args, **kwargs):
    "What `f` returns, the sentences that it warns in, and the files that they quote"
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter('always')
        found = f(*args, **kwargs)
    ours = [o for o in heard if o.category is AnnotationWarning]
    return found, [str(o.message) for o in ours], [o.filename for o in ours]


def test_utkface_copies_stand_on_one_side(tmp_path):
    root = tmp_path/'UTKFace'
    for i in range(60): picture(root/f'{i+1}_{i%2}_0_20170112213{i:06d}.jpg')
    for i in range(0, 60, 3):
        shutil.copy(root/f'{i+1}_{i%2}_0_20170112213{i:06d}.jpg', root/f'{i+1}_{i%2}_{i%2}_20180112213{i:06d}.jpg')
    shutil.copy(root/'2_1_0_20170112213000001.jpg', root/'99_1_0_20190112213000001.jpg')
    (df, tasks), warned, quoted = heard_from(utkface, root)
    content = [(root/o).read_bytes() for o in df.image]
    assert (df.groupby(content).split.nunique() == 1).all() and set(df.split) == {'train', 'gallery'} and len(df) == 81
    assert warned == ['UTKFace: 21 of 81 pictures are byte for byte another one; copies stay on one side of the split. '
                    '1 of 21 sets of copies differ in gender or age: 2_1_0_20170112213000001.jpg, 99_1_0_20190112213000001.jpg.']
    assert quoted == [__file__] and df.attrs['source_set'] == 'utkface'
    assert '11 of 21 sets of copies differ in gender or age or race' in heard_from(utkface, root, race=True)[1][0]
    for o in root.iterdir(): o.rename(root/f'{o.stem}1.jpg') # under other names the split is the same
    again = heard_from(utkface, root)[0][0]
    assert dict(zip(content, df.split)) == {(root/o).read_bytes():s for o, s in zip(again.image, again.split)}


def test_utkface_folders(tmp_path):
    for i in range(6): picture(tmp_path/f'UTKFace/{i+1}_0_0_2017011221300000{i}.jpg')
    for i in range(2): picture(tmp_path/f'crop_part1/{i+1}_0_0_2017011221300000{i}.jpg')
    assert f"did you mean {tmp_path/'UTKFace'}?" in one_sentence('faces named like', utkface, tmp_path) # the fuller one
    for i in range(6): picture(tmp_path/f'wild/part{1+i%3}/{i+1}_0_0_2017011221300000{i}.jpg')
    df = quiet(utkface, tmp_path/'wild')[0]
    assert len(df) == 6 and df.image[0] == 'part1/1_0_0_20170112213000000.jpg' and set(df.age) == {'child'}


@pytest.mark.parametrize('coding', [(-1, 1), (0, 1)])
@pytest.mark.parametrize('count', [True, False])
@pytest.mark.parametrize('csv', [True, False])
def test_celeba_lists(tmp_path, coding, count, csv):
    value, part = celeba_tree(tmp_path)
    want = quiet(celeba, tmp_path)[0]
    cut, head = (',', 'image_id,') if csv else (' ', '')
    def put(name, lines):
        (tmp_path/f'{name}.txt').unlink()
        (tmp_path/f'{name}.{"csv" if csv else "txt"}').write_text('\n'.join(lines)+'\n')
    rows = [f'{i+1:06d}.jpg' for i in range(9)]
    counted = ['9'] if count and not csv else []
    put('list_attr_celeba', [*counted, head+cut.join(CELEBA),
                             *(cut.join([o, *(str(coding[max(v, 0)]) for v in row)]) for o, row in zip(rows, value))])
    put('list_eval_partition', [*([head+'partition'] if csv else []), *(f'{o}{cut}{p}' for o, p in zip(rows, part))])
    put('identity_CelebA', [*([head+'identity'] if csv and count else []),
                            *(f'{o}{cut}{100*p+i%2+1}' for i, (o, p) in enumerate(zip(rows, part)))])
    df, _ = quiet(celeba, tmp_path)
    pd.testing.assert_frame_equal(df, want)


def test_celeba_of_pngs(tmp_path):
    celeba_tree(tmp_path, images='Img/img_align_celeba')
    (tmp_path/'Img/img_align_celeba').rename(tmp_path/'Img/img_align_celeba_png')
    for o in (tmp_path/'Img/img_align_celeba_png').iterdir(): o.rename(o.with_suffix('.png'))
    assert quiet(celeba, tmp_path)[0].image[0] == 'Img/img_align_celeba_png/000001.png'


def test_one_answer_is_told(tmp_path):
    celeba_tree(tmp_path)
    rows = [f'{i+1:06d}.jpg' for i in range(150)]
    for o in rows: picture(tmp_path/'img_align_celeba'/o)
    (tmp_path/'list_eval_partition.txt').write_text(''.join(f'{o} {2*(i>99)}\n' for i, o in enumerate(rows)))
    (tmp_path/'identity_CelebA.txt').unlink()
    lines = [f'{o} -1 {1-2*(i%2)}\n' for i, o in enumerate(rows)]
    (tmp_path/'list_attr_celeba.txt').write_text('Bald Male\n'+''.join(lines))
    _, warned, quoted = heard_from(celeba, tmp_path)
    assert len(warned) == 1 and 'CelebA: 1 of 2 sub-tasks have one answer in all 150 rows' in warned[0]
    assert 'Bald (always no)' in warned[0] and quoted == [__file__]


@pytest.mark.parametrize('coded', [lambda o: o, lambda o: o.astype(int)*2-1, lambda o: o+1])
def test_codings_of_a_matrix(tmp_path, coded):
    label, m = pa_tree(tmp_path)
    want = quiet(pa100k, tmp_path)[0]
    savemat(tmp_path/'annotation.mat', {k: coded(v) if k.endswith('label') else v for k, v in m.items()})
    pd.testing.assert_frame_equal(quiet(pa100k, tmp_path)[0], want)
    data, _ = peta_tree(tmp_path/'peta')
    want = quiet(peta, tmp_path/'peta')[0]
    mat = loadmat(tmp_path/'peta/PETA.mat')
    mat['peta'][0, 0][0] = np.c_[mat['peta'][0, 0][0][:, :4], coded(data)].astype(int)
    savemat(tmp_path/'peta/PETA.mat', dict(peta=mat['peta']))
    pd.testing.assert_frame_equal(quiet(peta, tmp_path/'peta')[0], want)


def test_an_unexpected_number_is_told(tmp_path):
    label, _ = pa_tree(tmp_path)
    train = label[:5].copy(); train[2, 7] = 9
    pa_tree(tmp_path, train_label=train)
    (df, _), warned, _ = heard_from(pa100k, tmp_path)
    assert df.Hat[2] == '' and len(warned) == 1 and '1 answers are neither 0 (no) nor 1 (yes), like 9' in warned[0]


def test_market_attributes_counted_from_zero(market):
    want = market1501(market, market.parent)[0]
    parts = {k: {**{f: v[None]-1 for f, v in market_values(len(ids), seed).items()}, 'image_index': strings(ids)}
             for k, ids, seed in (('test', ('0001', '0003'), 1), ('train', ('0002', '0007', '0010'), 2))}
    savemat(market.parent/'market_attribute.mat', dict(market_attribute=parts))
    pd.testing.assert_frame_equal(quiet(market1501, market, market.parent)[0], want)


def test_shots_of_market_and_duke(tmp_path):
    root = tmp_path/'market1501'
    market_tree(root, train=('0002',), test=('0001',))
    boxes = ((100, 1, '000100'), (100, 2, '000100'), (125, 1, '000100'), (225, 1, '000100'), (326, 1, '000326'),
             (350, 0, '000326'))
    shots = {f'0007_c1s1_{frame:06d}_0{k}.jpg': shot for frame, k, shot in boxes}
    for o in shots: picture(root/'bounding_box_train'/o)
    picture(root/'bounding_box_train/0007_c1s2_000126_00.jpg')
    picture(root/'bounding_box_train/0007_c2s1_000126_00.jpg')
    df, _ = quiet(market1501, tmp_path) # the folder as public code calls it, from the one above
    group = dict(zip(df.image.str.rsplit('/', n=1).str[1], df.group))
    assert {o: group[o] for o in shots} == {o: f'0007_c1s1_{v}' for o, v in shots.items()}
    assert group['0007_c1s2_000126_00.jpg'] == '0007_c1s2_000126'
    assert group['0007_c2s1_000126_00.jpg'] == '0007_c2s1_000126'
    assert set(df.group[df.identity == '']) == {''} and df.attrs['source_set'] == 'market1501'
    assert df.image[0].startswith('market1501/')
    duke = tmp_path/'DukeMTMC-reID'
    duke_tree(duke)
    for frame in (46302, 46543): picture(duke/f'bounding_box_train/0001_c2_f{frame:07d}.jpg')
    assert list(quiet(dukemtmc, duke)[0].group[:3]) == ['0001_c2_0046182', '0001_c2_0046182', '0001_c2_0046543']


def test_shots_do_not_change_the_camera_rule():
    from portrait_nb.metrics import retrieval_scores
    from portrait_nb.sources import REID_NAME, _shots
    rng, n = np.random.default_rng(0), 400
    names = [f'query/{1+i%20:04d}_c{rng.integers(1,5)}s1_{rng.integers(0,900):06d}_00.jpg' for i in range(n)]
    df = pd.DataFrame([REID_NAME.search(o).groupdict('') for o in names])
    df['group'] = _shots(df, 100)
    features, q = rng.normal(size=(n, 8)).astype(np.float32), np.arange(n)<80
    ids, cams, groups = (df[o].to_numpy() for o in ('identity', 'source', 'group'))
    parts = features[q], features[~q], ids[q], ids[~q]
    by_camera = dict(query_cams=cams[q], gallery_cams=cams[~q])
    both = [retrieval_scores(*parts, *shots, **by_camera) for shots in ((), (groups[q], groups[~q]))]
    assert both[0].mAP == both[1].mAP and both[0].cmc == both[1].cmc and df.group.nunique()<n


def test_an_empty_cell_is_named(tmp_path):
    label, m = pa_tree(tmp_path)
    names = m['test_images_name'].copy(); names[1, 0] = np.zeros((0, 0), np.uint8) # as MATLAB writes []
    savemat(tmp_path/'annotation.mat', {**m, 'test_images_name': names})
    one_sentence('test_images_name, row 2 of 3: the cell is empty', pa100k, tmp_path)
    names[1, 0] = np.array([], '<U1')
    savemat(tmp_path/'annotation.mat', {**m, 'test_images_name': names})
    one_sentence('test_images_name, row 2 of 3: the cell is empty', pa100k, tmp_path)


def test_other_packings(tmp_path):
    for places in (('annotation/', 'data/data'), ('', 'images'), ('', 'release_data')):
        root = tmp_path/places[1].replace('/', '-')
        pa_tree(root, data=places[1])
        (root/places[0]).mkdir(exist_ok=True); shutil.move(root/'annotation.mat', root/places[0]/'annotation.mat')
        assert quiet(pa100k, root)[0].image[0] == f'{places[1]}/000001.jpg'
    rap_tree(tmp_path/'rap')
    shutil.move(tmp_path/'rap/RAP_annotation/RAP_annotation.mat', tmp_path/'rap')
    (tmp_path/'rap/RAP_annotation').rmdir()
    assert len(quiet(rapv2, tmp_path/'rap')[0]) == 8
    (tmp_path/'PETA dataset/3DPeS/archive').mkdir(parents=True)
    (tmp_path/'PETA dataset/3DPeS/archive/Label.txt').touch()
    one_sentence("the owners' ten sets with a Label.txt each", peta, tmp_path/'PETA dataset')


def test_rap_v1_is_told(tmp_path):
    rap_tree(tmp_path)
    old = dict(partition=cell(['x']), label=np.zeros((3, 92)), attribute_chinese=strings(['a']),
               attribute_eng=strings(['a']), position=np.zeros((3, 16)), imagesname=strings(['a.png']),
               attribute_exp=strings(['a']))
    savemat(tmp_path/'RAP_annotation/RAP_annotation.mat', dict(RAP_annotation=struct(**old)))
    one_sentence('this is RAP v1', rapv2, tmp_path)


def test_rafdb_packings(tmp_path):
    lines = [(f'train_{i+1:05d}', 1+i%7) for i in range(9)] + [(f'test_{i+1:04d}', 7-i%7) for i in range(4)]
    raf_tree(tmp_path, lines)
    want = quiet(rafdb, tmp_path)[0]
    (tmp_path/'basic').rename(tmp_path/'raf-basic')
    for root, below in ((tmp_path, 'raf-basic/'), (tmp_path/'raf-basic', '')):
        df = quiet(rafdb, root)[0]
        assert list(df.image) == [o.replace('basic/', below) for o in want.image]
        assert list(df.expression) == list(want.expression)
    mirror = tmp_path/'mirror'
    for part in ('train', 'test'):
        named = [(o, k) for o, k in lines if o.startswith(part)]
        for o, k in named: picture(mirror/f'DATASET/{part}/{k}/{o}_aligned.jpg')
        (mirror/f'{part}_labels.csv').write_text('image,label\n'+''.join(f'{o}_aligned.jpg,{k}\n' for o, k in named))
    df, tasks = quiet(rafdb, mirror)
    assert list(df.expression) == list(want.expression) and list(df.split) == list(want.split)
    assert df.image[0] == 'DATASET/train/1/train_00001_aligned.jpg'
    round_trip(df, tasks, mirror)


# --- a partial download

def test_a_part_of_which_nothing_is_left(tmp_path):
    celeba_tree(tmp_path)
    for i in (6, 7, 8): (tmp_path/f'img_align_celeba/{i+1:06d}.jpg').unlink()
    (df, _), warned, quoted = heard_from(celeba, tmp_path)
    assert set(df.split) == {'train'} and len(warned) == 2 and set(quoted) == {__file__}
    assert 'there are 4 of 4 of train and 0 of 3 of gallery' in warned[0]
    assert warned[1] == ('CelebA: no picture of the gallery part is left, so nothing can be scored: '
                       'fetch the rest of the pictures, or let celeba(root, first=10_000) deal a test of its own from the pictures that are there.')


def first_tree(root, n=300, people=60):
    celeba_tree(root)
    rng = np.random.default_rng(1)
    rows, who = [f'{i+1:06d}.jpg' for i in range(n)], rng.integers(1, people+1, n)
    for o in rows: picture(root/'img_align_celeba'/o)
    value = rng.choice([-1, 1], (n, 3))
    lines = [f'{o} {a} {b} {c}\n' for o, (a, b, c) in zip(rows, value)]
    (root/'list_attr_celeba.txt').write_text('Bald Male Smiling\n'+''.join(lines))
    (root/'identity_CelebA.txt').write_text(''.join(f'{o} {w}\n' for o, w in zip(rows, who)))
    (root/'list_eval_partition.txt').unlink()
    return rows, who


def test_celeba_first(tmp_path):
    rows, who = first_tree(tmp_path)
    df, tasks = quiet(celeba, tmp_path, first=200)
    assert len(df) == 200 and tasks.names == ['identity', 'Bald', 'Male', 'Smiling']
    assert set(df.split) == {'train', 'query', 'gallery'}
    assert list(df.image) == [f'img_align_celeba/{o}' for o in rows[:200]]
    assert list(df.identity) == [str(o) for o in who[:200]]
    test = df[df.split != 'train']
    assert not set(test.identity) & set(df.identity[df.split == 'train'])
    assert .1<test.identity.nunique()/df.identity.nunique()<.35
    queries = df[df.split == 'query']
    assert queries.identity.is_unique and set(queries.identity) <= set(df.identity[df.split == 'gallery'])
    round_trip(df, tasks, tmp_path)
    pd.testing.assert_frame_equal(celeba(tmp_path, first=200)[0], df)
    more = celeba(tmp_path, first=300)[0]
    # people stay where they are
    assert dict(zip(df.identity, df.split != 'train')).items() <= dict(zip(more.identity,
                                                                           more.split != 'train')).items()


def test_celeba_first_keeps_copies_together(tmp_path):
    rows, who = first_tree(tmp_path)
    a, b = 0, next(i for i in range(300) if who[i] != who[0])
    # one photograph under two names
    shutil.copy(tmp_path/'img_align_celeba'/rows[a], tmp_path/'img_align_celeba'/rows[b])
    (df, _), warned, quoted = heard_from(celeba, tmp_path, first=300)
    assert (df.split[a] == 'train') == (df.split[b] == 'train')
    assert df.group[a] == df.group[b] != ''
    assert (df.group != '').sum() == 2
    assert len(warned) == 1 and '1 of 300 pictures are byte for byte another one' in warned[0]
    assert '1 of 1 sets of copies differ in identity' in warned[0] and quoted == [__file__]


def test_celeba_first_refused(tmp_path):
    rows, _ = first_tree(tmp_path)
    with pytest.raises(ValueError, match='2 or more, got 0'): celeba(tmp_path, first=0)
    with pytest.raises(ValueError, match="test='val' has no meaning"): celeba(tmp_path, test='val', first=10)
    one_sentence('too few to deal', celeba, tmp_path, first=2)
    (df, _), warned, _ = heard_from(celeba, tmp_path, first=10_000)
    assert len(df) == 300
    assert warned == [f"CelebA: 300 of the 10,000 pictures asked for are in {tmp_path/'img_align_celeba'}."]
    (tmp_path/'identity_CelebA.txt').unlink()
    one_sentence('takes identity_CelebA.txt', celeba, tmp_path, first=100)


def test_where_a_table_comes_from(tmp_path, market):
    pa_tree(tmp_path/'pa'); celeba_tree(tmp_path/'cel'); raf_tree(tmp_path, [('train_00001', 1), ('test_0001', 2)])
    readers = ((market1501, market), (pa100k, tmp_path/'pa'), (celeba, tmp_path/'cel'), (rafdb, tmp_path))
    got = {f.__name__: f(root)[0].attrs['source_set'] for f, root in readers}
    assert all(k == v for k, v in got.items()) and set(got) <= set(portrait_sources().index)

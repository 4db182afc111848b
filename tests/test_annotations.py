"Hostile tables, hostile files, and the rules of `portrait_nb.annotations`"
import os, pickle, warnings
import numpy as np, pandas as pd, pytest
from PIL import Image
from portrait_nb.annotations import (SPLITS, AnnotationError, AnnotationWarning, clean_path, label_shares, matched,
                                     plot_labels, read_annotations, read_header, summarise, write_annotations)
from portrait_nb.pictures import picture_fault
from portrait_nb.tasks import PORTRAIT, Task, Tasks

pytestmark = [pytest.mark.filterwarnings('error'),
              pytest.mark.filterwarnings('ignore::portrait_nb.annotations.AnnotationWarning')]
TASKS = Tasks([Task('identity', 'appearance', None), Task('gender', 'appearance', ['male', 'female']),
               Task('mood', 'emotion', ['happy', 'sad', 'calm'], multilabel=True)])
HEADER = 'image,split,identity,gender,mood\n'


@pytest.fixture
def root(tmp_path):
    root = tmp_path/'photos'
    (root/'sub').mkdir(parents=True)
    for o in 'abcdef': Image.new('RGB', (8, 16), o and (9*ord(o)%255, 80, 90)).save(root/f'{o}.jpg')
    return root


@pytest.fixture
def read(root, tmp_path):
    def read(text, header=HEADER, tasks=TASKS, **kwargs):
        csv = tmp_path/'t.csv'
        csv.write_bytes(text if isinstance(text, bytes) else (header+text).encode())
        return read_annotations(csv, root, tasks, n_workers=2, **kwargs)
    return read


@pytest.fixture
def fails(read):
    def fails(text, *contains, **kwargs):
        with pytest.raises(AnnotationError) as e: read(text, **kwargs)
        for o in contains: assert o in str(e.value), str(e.value)
        return e.value.faults
    return fails


def places(faults): return list(zip(faults.line, faults.column))


def test_good_table_is_strings_in_order(read):
    df = read('a.jpg,train,0012,male,happy\nb.jpg,train,NA,,sad|calm\nc.jpg,train,Nan,female,\nd.jpg,train,None,,\n')
    assert list(df) == ['image', 'split', 'identity', 'source', 'group', 'gender', 'mood']
    assert df.identity.tolist() == ['0012', 'NA', 'Nan', ''] and df.mood[1] == 'sad|calm'
    assert df.gender[1] == '' == df.group[0]
    assert all(isinstance(o, str) for c in df for o in df[c]) and df.index.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize('text', [
    '\ufeff'+HEADER+'a.jpg,train,1,male,\nb.jpg,train,2,,\n',
    (HEADER+'a.jpg,train,1,male,\nb.jpg,train,2,,\n').replace('\n', '\r\n'),
    (HEADER+'a.jpg,train,1,male,\nb.jpg,train,2,,').replace('\n', '\r'),
    HEADER+'\n.\\a.jpg, train,1 ,male,\n,,,,\nsub/../b.jpg,train,2,,\n',
    ',image,split,identity,gender,mood,\n0,a.jpg,train,1,male,,\n1,b.jpg,train,2,,,\n'])
def test_spellings_of_the_same_table(read, text):
    df = read(text.encode())
    assert df.image.tolist() == ['a.jpg', 'b.jpg'] and df.identity.tolist() == ['1', '2']
    assert df.gender.tolist() == ['male', '']


def test_every_fault_in_one_error(fails, root, tmp_path):
    (root/'empty.jpg').write_bytes(b'')
    (root/'text.jpg').write_text('hello')
    (root/'cut.jpg').write_bytes((root/'a.jpg').read_bytes()[:-40])
    rows = ['a.jpg,train,1,mael,happy', 'sub/../a.jpg,train,,,', 'none.jpg,test,,,', '../x.jpg,train,,,',
            '/etc/passwd,train,,,', r'C:\x.jpg,train,,,', 'b.jpg,train,,male|female,happy|happy',
            'c.jpg,train,7,,', 'd.jpg,gallery,7,,',
            'empty.jpg,train,,,', 'text.jpg,train,,,', 'cut.jpg,train,,,', 'sub,train,,,', 'e.jpg,train']
    faults = fails('\n'.join(rows)+'\n', str(tmp_path/'t.csv'), "did you mean 'male'?")
    assert places(faults) == [(2, 'gender'), (3, 'image'), (4, 'split'), (4, 'image'), (5, 'image'), (6, 'image'),
                              (7, 'image'), (8, 'gender'), (8, 'mood'), (9, 'identity'),
                              (11, 'image'), (12, 'image'), (13, 'image'), (14, 'image'), (15, '')]


def test_message_shows_twenty_and_the_count(fails):
    faults = fails(''.join(f'a.jpg,train,{i},x{i},\n' for i in range(1000)), '1,999 faults in 1,000 of 1,000 rows',
                   'and 1,979 more')
    assert len(faults) == 1999


def test_error_survives_pickling(fails, read):
    with pytest.raises(AnnotationError) as e: read('a.jpg,train,1,x,\n')
    again = pickle.loads(pickle.dumps(e.value))
    assert str(again) == str(e.value) and again.faults.equals(e.value.faults)


@pytest.mark.parametrize('raw,contains', [
    (b'', 'the file is empty'), (b'\n\n,,\n', 'the file is empty'), (HEADER.encode(), 'not one row'),
    ((HEADER+'a.jpg,train,1,male,\nb.jpg,train,Ren\xe9e,,\n').encode('latin-1'),
     "line 3: not UTF-8; the cell reads 'Renée'"),
    (HEADER.encode('utf-16'), 'UTF-16'), (HEADER.encode('utf-16-le'), 'UTF-16'), (b'PK\x03\x04..', 'workbook'),
    (b'\xff\xd8\xff\xe0\x00\x10JFIF', 'not text'),
    (HEADER.replace(',', ';').encode(), "separated by ';'"),
    (b'image,split,identity,gender,mood,gender\n', "column 'gender': this column is named twice"),
    (b'image,Split,identity,gender,mood\n', "column 'split': this column is missing; did you mean 'Split'?"),
    (b'image,split,identity,gender\na.jpg,train,,\n', "column 'mood': this column is missing"),
    (b'image,"split\nfoo', 'does not read as a csv'),
    (b'<html>\n<body>', "'image'"), (b'image,split\n', "'gender'")])
@pytest.mark.parametrize('on_error', ['raise', 'drop'])
def test_not_a_table(fails, raw, contains, on_error): assert len(fails(raw, contains, on_error=on_error))


def test_missing_csv_root_and_bad_arguments(root, tmp_path):
    with pytest.raises(AnnotationError, match='no such file'): read_annotations(tmp_path/'no.csv', root, TASKS)
    with pytest.raises(AnnotationError, match='folder'): read_annotations(tmp_path, root, TASKS)
    with pytest.raises(AnnotationError, match='no such folder'): read_annotations(tmp_path/'no.csv', root/'no', TASKS)
    with pytest.raises(ValueError, match='on_error'): read_annotations(tmp_path/'no.csv', root, TASKS, on_error='skip')


def test_lines_are_those_of_an_editor(fails):
    header = HEADER.strip()+',note\n'
    assert places(fails('a.jpg,train,,,,"two\nlines"\n\n,,,,,\nb.jpg,train,,x,,\n', header=header)) == [(6, 'gender')]


def test_open_quote_does_not_swallow_in_silence(fails, read):
    faults = fails('a.jpg,train,"1,male,\nb.jpg,train,"2",male,\nc.jpg,train,3,x,\n',
                   'lines 2 to 3 were read as one row')
    assert places(faults) == [(2, ''), (4, 'gender')]
    assert 'never closed, so lines 3 to 4' in fails('a.jpg,train,,,\nb.jpg,train,"1,male,\nc.jpg,train,3,x,\n').fault[0]
    with pytest.warns(AnnotationWarning, match='left out 1 of 2'):
        assert len(read('a.jpg,train,,,\nb.jpg,train,"1,male,\n', on_error='drop')) == 1


def test_control_characters_and_huge_cells(fails):
    huge = ['c.jpg,train,1,'+'m'*10**6+','+'happy|'*10**5, 'd'*10**6+',train,,,', '../'*10**5+'x,train,,,']
    faults = fails('\n'.join(['a\0.jpg,train,1,male,', 'b.jpg,\x1b[31mtrain,1,male,', *huge])+'\n')
    assert places(faults) == [(2, 'image'), (3, 'split'), (4, 'gender'), (4, 'mood'), (5, 'image'), (6, 'image')]
    assert '\x1b' not in ''.join(faults.fault) and '\0' not in ''.join(faults.fault)
    assert faults.fault.str.len().max() < 200


def test_message_of_a_huge_table_stays_small(read):
    with pytest.raises(AnnotationError) as e: read('m'*10**6+',t\x1b,'+'i'*10**6+','+'g'*10**6+',x|x\n')
    assert len(str(e.value)) < 3000 and '\x1b' not in str(e.value)


def test_unicode_and_case_of_identities(fails, read):
    faults = fails('a.jpg,train,Rene\u0301,,\nb.jpg,gallery,Ren\u00e9,,\n', 'identity in train and test')
    assert places(faults) == [(2, 'identity')]
    assert read('a.jpg,train,Ann,,\nb.jpg,gallery,ann,,\n').identity.tolist() == ['Ann', 'ann']


def test_labels_in_another_unicode_form_come_out_as_the_task_spells_them(read):
    tasks = Tasks([Task('age', 'a', ['a\u0302ge\u0301', 'neuf'])])
    assert read('a.jpg,train,\u00e2g\u00e9\n', header='image,split,age\n', tasks=tasks).age[0] == 'a\u0302ge\u0301'


@pytest.mark.parametrize('good,bad', [('happy|sad', 'sad|'), (' happy | sad ', '|'), ('calm', 'happy||sad'),
                                      ('', 'happy|happy'), ('sad', 'Sad'), ('happy', 'happy,')])
def test_multilabel_cells(read, fails, good, bad):
    assert read(f'a.jpg,train,,,{good}\n').mood[0] == good.replace(' ', '')
    fails(f'a.jpg,train,,,{bad}\n')


def test_paths():
    assert clean_path('x/./y/../a.jpg') == 'x/a.jpg' and clean_path('..a/..b.jpg') == '..a/..b.jpg'
    assert clean_path(r'x\a.jpg') == 'x/a.jpg'
    for o in ['..', '../a', 'x/../../a', '/a', '//server/a', r'\\server\a', 'c:/a', r'C:\a', '', ' ', '.', 'x/..']:
        with pytest.raises(ValueError): clean_path(o)


@pytest.mark.skipif(os.name == 'nt', reason='links need rights on Windows')
def test_links_and_odd_files(root, tmp_path, fails):
    (tmp_path/'other.jpg').write_bytes((root/'a.jpg').read_bytes())
    (root/'out.jpg').symlink_to(tmp_path/'other.jpg')
    (root/'up').symlink_to(tmp_path)
    (root/'in.jpg').symlink_to('a.jpg')
    (root/'loop.jpg').symlink_to('loop.jpg')
    (root/'gone.jpg').symlink_to('nothing.jpg')
    os.link(root/'b.jpg', root/'hard.jpg')
    os.mkfifo(root/'pipe.jpg')
    faults = fails(''.join(f'{o}.jpg,train,,,\n'
                           for o in ['out', 'up/other', 'in', 'a', 'loop', 'gone', 'b', 'hard', 'pipe', 'c']))
    assert faults.line.tolist() == [3, 5, 6, 7, 9, 10]
    assert faults.kind.tolist() == ['duplicate image', 'duplicate image', 'missing file', 'missing file',
                                    'duplicate image', 'unreadable file']
    assert 'back to itself' in faults.fault[2] and "a link to 'nothing.jpg', which is not there" in faults.fault[3]


@pytest.mark.skipif(os.name == 'nt', reason='links need rights on Windows')
def test_pictures_on_another_disk(root, tmp_path, read, fails):
    disk = tmp_path/'disk'
    (disk/'train').mkdir(parents=True)
    (disk/'train'/'1.jpg').write_bytes((root/'a.jpg').read_bytes())
    (disk/'secret.jpg').write_bytes((root/'a.jpg').read_bytes())
    (root/'train').symlink_to(disk/'train')
    assert read('train/1.jpg,train,,,\n').image.tolist() == ['train/1.jpg']
    assert 'leads out of the root' in fails('../disk/train/1.jpg,train,,,\n').fault[0]
    assert 'no such file' in fails('train/../secret.jpg,train,,,\n').fault[0]


@pytest.mark.skipif(os.name == 'nt', reason='links need rights on Windows')
def test_a_disk_that_is_not_mounted_is_one_sentence(root, read, fails):
    (root/'far').symlink_to('/no/such/disk')
    (root/'round').symlink_to('round')
    rows = ''.join(f'far/{i}.jpg,train,,,\n' for i in range(500))
    sentence = ("all 500 rows have the same fault in the column image: "
                "the folder 'far' is a link to '/no/such/disk', which is not there")
    assert len(fails(rows, sentence)) == 500
    with pytest.raises(AnnotationError) as e: read(rows)
    assert str(e.value).count('far/') == 1 and 'on_error' not in str(e.value)
    assert "the folder 'round' is a link that leads back to itself" in fails('round/1.jpg,train,,,\n').fault[0]


def test_what_all_rows_have_is_one_sentence(root, read, fails):
    faults = fails(''.join(f'/disk/{i}.jpg,train,,{g},\n' for i, g in enumerate(['male', 'femal', 'female'])),
                   'all 3 rows have the same fault', "did you mean 'female'?", '4 faults in 3 of 3 rows')
    assert len(faults) == 4
    with pytest.raises(AnnotationError) as e: read(''.join(f'{o}/{i}.jpg,train,,,\n' for i in range(200) for o in 'xy'))
    assert 'not one of the 400 images was found below' in str(e.value) and len(str(e.value).splitlines()) < 5


@pytest.mark.parametrize('cell, says', [('happy,sad', "write 'happy|sad'"), ('happy; sad', "write 'happy|sad'"),
                                        ('happy/calm', "write 'happy|calm'"), ('hapy,sad', 'did you mean'),
                                        ('happy|-', 'keep one or the other')])
def test_labels_joined_by_another_sign(fails, cell, says): assert says in fails(f'a.jpg,train,,,"{cell}"\n').fault[0]


def test_none_of_these(read, fails):
    df = read('a.jpg,train,,,happy\nb.jpg,train,,,-\nc.jpg,train,,, - \nd.jpg,train,,,\n')
    assert df.mood.tolist() == ['happy', '-', '-', '']
    assert label_shares(df, TASKS['mood']).train['happy'] == 1/3
    assert summarise(df, TASKS).loc['without mood', 'all'] == 1
    assert 'leave the cell empty' in fails('a.jpg,train,,-,\n').fault[0]
    with pytest.raises(ValueError, match="'-' cannot be a label"): Task('bag', 'appearance', ['bag', '-'])


def test_a_root_that_is_a_link(root, tmp_path):
    (tmp_path/'link').symlink_to(root)
    write_annotations(pd.DataFrame(dict(image=['a.jpg'], split=['train'], identity=[''], gender=[''], mood=[''])),
                      tmp_path/'t.csv')
    assert len(read_annotations(tmp_path/'t.csv', tmp_path/'link', TASKS)) == 1


@pytest.mark.parametrize('format', ['JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'TIFF', 'PPM'])
def test_pictures_whole_and_cut(tmp_path, format):
    path = tmp_path/'x'
    Image.effect_noise((60, 60), 90).convert('RGB').save(path, format)
    raw = path.read_bytes()
    assert picture_fault(path) is None
    path.write_bytes(raw[:len(raw)*2//3])
    assert 'cannot be decoded' in picture_fault(path)


def test_pictures_odd_and_hostile(tmp_path):
    path = tmp_path/'x.jpg'
    Image.new('CMYK', (9, 9)).save(path)
    path.write_bytes(path.read_bytes()+b'a trailer as phones write it'*9)
    assert picture_fault(path) is None
    path.write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n')
    assert 'is not a picture' in picture_fault(path)


@pytest.mark.parametrize('size', [(20_000, 9_000), (10_000, 10_000)])
def test_decompression_bombs(root, fails, size):
    Image.new('1', size).save(root/'bomb.png')
    fails('bomb.png,train,,,\n', 'decompression bomb')


def test_missing_files_are_looked_for(fails, root):
    for o in ['B.JPEG', 'c.JPG']: (root/o).write_bytes((root/'a.jpg').read_bytes())
    faults = fails('C .jpg,train,,,\nd.png,train,,,\nno/x.jpg,train,,,\n', 'is that the right root?')
    assert [o.split(';')[0] for o in faults.fault] == ['there is no such file', 'there is no such file',
                                                       "there is no folder 'no' below the root"]
    assert "'d.jpg'" in faults.fault[1]


def test_verify_false_looks_at_no_file(read): assert len(read('nowhere.jpg,train,,,\n', verify=False)) == 1


def test_drop_keeps_the_good_rows_and_warns(read):
    with pytest.warns(AnnotationWarning, match='left out 3 of 6 rows for 3 faults') as warned:
        df = read('a.jpg,train,1,x,\nb.jpg,train,2,,\n./b.jpg,gallery,2,,\nc.jpg,train\nd.jpg,query,3,,\n'
                  'e.jpg,gallery,3,,\n', on_error='drop')
    assert df.image.tolist() == ['b.jpg', 'd.jpg', 'e.jpg'] and df.index.tolist() == [0, 1, 2]
    assert df.attrs['left_out'] == {'rows': 3, 'label': 1, 'duplicate image': 1, 'crooked line': 1}
    assert warned[0].message.faults.line.tolist() == [2, 4, 5] and warned[0].filename == __file__


def test_drop_of_a_leak_leaves_out_the_train_rows(read):
    with pytest.warns(AnnotationWarning, match='identity in train and test 2'):
        df = read('a.jpg,train,7,,\nb.jpg,gallery,7,,\nc.jpg,train,7,,\nd.jpg,train,9,,\n', on_error='drop')
    assert df.image.tolist() == ['b.jpg', 'd.jpg']


def test_drop_sees_what_the_checks_before_have_left(read):
    with pytest.warns(AnnotationWarning):
        df = read('a.jpg,train,7,,\nb.jpg,gallery,7,x,\nc.jpg,train,,x,\nc.jpg,train,,male,\n', on_error='drop')
    assert df.image.tolist() == ['a.jpg', 'c.jpg'] and df.gender[1] == 'male'


def test_drop_of_everything_is_an_error(fails): fails('a.jpg,train,,x,\n', 'No good row is left', on_error='drop')


def test_drop_of_nothing_is_silent(read):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert read('a.jpg,train,,,\nb.jpg,train,1,,\n', on_error='drop').attrs['left_out'] == {'rows': 0}


def test_warnings_for_what_is_odd(read):
    with pytest.warns(AnnotationWarning, match="more than one gender: '1' .male in line 2, female in line 3"):
        read('a.jpg,train,1,male,\nb.jpg,train,1,female,\n')
    with pytest.warns(AnnotationWarning, match='2 of 3 queries without a true match.*lines 2, 5'):
        read('a.jpg,query,1,,,g\nb.jpg,gallery,1,,,g\nc.jpg,query,2,,,h\nd.jpg,query,,,,\ne.jpg,gallery,2,,,\n',
             header=HEADER.strip()+',group\n')
    with pytest.warns(AnnotationWarning, match='no row has an identity'): read('a.jpg,train,,,\n')


def test_matched_against_a_double_loop():
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(split=rng.choice(SPLITS, 400), identity=rng.choice(['', *'abcdefgh'], 400),
                           group=rng.choice(['', *'xyz'], 400)))
    gallery = [o for o in df.itertuples() if o.split == 'gallery' and o.identity]
    slow = [any(g.identity == q.identity and not (g.group and g.group == q.group) for g in gallery)
            for q in df.itertuples() if q.split == 'query']
    assert matched(df).tolist() == slow and 0 < sum(slow) < len(slow)


def test_round_trip_is_exact(root, tmp_path):
    df = pd.DataFrame(dict(image=['a.jpg', 'b.jpg', 'c.jpg'], split='train', identity=['NA', '007', 'a, "b"'],
                           source=['é', '李', '1e9'], group='', gender=['', 'male', 'female'],
                           mood=['happy|sad', '', ''], note=['x\r\ny', '\r', ' z '])).astype(str)
    for o in range(2):
        write_annotations(df, tmp_path/'t.csv')
        df2 = read_annotations(tmp_path/'t.csv', root, TASKS)
        pd.testing.assert_frame_equal(df2, df)
    assert sorted(o.name for o in tmp_path.iterdir()) == ['photos', 't.csv']


def test_writing_refuses_and_leaves_the_old_file(tmp_path):
    good = pd.DataFrame(dict(image=['a.jpg'], split=['train']))
    path = tmp_path/'t.csv'
    write_annotations(good, path)
    before = path.read_bytes()
    for bad in [good.assign(n=1), good.assign(n=None), good.assign(n=np.nan), good[['image']],
                good.assign(n='\ud800'), good[['image', 'split', 'split']]]:
        with pytest.raises(AnnotationError, match='write_annotations'): write_annotations(bad, path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_other_tasks(read):
    attributes = Tasks([Task(f'attr{i}', 'face', ['no', 'yes']) for i in range(40)])
    df = read('a.jpg,train'+',yes'*40+'\nb.jpg,gallery'+',no'*40+'\n',
              header='image,split,'+','.join(attributes.names)+'\n', tasks=attributes)
    assert df.identity.tolist() == ['', ''] and len(summarise(df, attributes)) == 42
    assert label_shares(df, attributes['attr3']).loc['yes'].tolist() == [1, 0]


@pytest.mark.parametrize('column', ['person', 'identity'])
def test_identity_under_another_name(read, fails, column):
    tasks = Tasks([Task('person', 'appearance', None)])
    df = read('a.jpg,train,7\n', header=f'image,split,{column}\n', tasks=tasks)
    assert df.person.tolist() == df.identity.tolist() == ['7']
    faults = fails('a.jpg,train,7\nb.jpg,query,7\n', header=f'image,split,{column}\n', tasks=tasks)
    assert places(faults) == [(2, 'person')]


def test_tasks_whose_identities_are_known_do_not_limit_the_table(read):
    assert read('a.jpg,gallery,new,,\n', tasks=TASKS.with_identities(['old'])).identity[0] == 'new'


@pytest.mark.parametrize('column', ['person', 'identity'])
def test_known_identities_under_another_name(read, column):
    tasks = Tasks([Task('person', 'appearance', None)]).with_identities(['old', 'older'])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        df = read('a.jpg,query,new\nb.jpg,gallery,new\nc.jpg,train,old\nd.jpg,gallery,\n',
                  header=f'image,split,{column}\n', tasks=tasks)
    assert df.person.tolist() == df.identity.tolist() == ['new', 'new', 'old', '']


def test_header_alone(tmp_path):
    (tmp_path/'t.csv').write_bytes('\ufeff\n image,Split , Gr\u00f6\u00dfe,\r\n'.encode())
    assert read_header(tmp_path/'t.csv') == ['image', 'Split', 'Gr\u00f6\u00dfe', '']
    for raw, words in [(b'image;split\n', "separated by ';'.*LibreOffice"), (b'', 'empty'),
                      (HEADER.encode('utf-16'), 'UTF-16'), (b'PK\x03\x04..', 'workbook'),
                      (b'a\n\xe9\n', 'line 2: not UTF-8')]:
        (tmp_path/'t.csv').write_bytes(raw)
        with pytest.raises(AnnotationError, match=words): read_header(tmp_path/'t.csv')


def test_too_few_cells_and_too_many(fails):
    faults = fails('a.jpg,train,1\nb.jpg,train,1,male,happy,sad\n')
    few, many = faults.fault
    assert few == '3 cells where the header has 5; leave a cell empty, with its comma, for what is not known'
    assert 'holds a comma must stand in quotes' in many


def test_summarise_and_figure():
    import matplotlib; matplotlib.use('Agg')
    df = pd.DataFrame([['a', 'train', '1', *['']*7], ['b', 'query', '', *['']*7]],
                      columns=['image', 'split', *PORTRAIT.names], dtype=str)
    counts = summarise(df, PORTRAIT)
    assert counts.loc['images'].tolist() == [1, 1, 0, 2] and counts.loc['without identity', 'all'] == 1
    assert counts.loc['without age', 'all'] == 2
    assert (label_shares(df, PORTRAIT['age']) == 0).all(axis=None)
    plot_labels(df, PORTRAIT)


# -- names

@pytest.mark.parametrize('other', ['0002', '2\u00a0', 'Two', '２'])
def test_identities_that_look_like_one_are_named(read, other):
    one = 'two' if other == 'Two' else '2'
    same = other.strip() == one
    rows = f'a.jpg,train,{one},male,\nb.jpg,query,{other},male,\nc.jpg,gallery,{other},male,\n'
    if same:
        with pytest.raises(AnnotationError, match='is also in query'): read(rows)
        return
    with pytest.warns(AnnotationWarning) as warned: read(rows)
    sentence = next(str(o.message) for o in warned if 'identities that differ only' in str(o.message))
    assert f"{one!r} (train, line 2) and {other!r} (query, line 3)" in sentence


def test_identities_that_differ_draw_no_warning(read):
    with warnings.catch_warnings():
        warnings.simplefilter('error', AnnotationWarning)
        read('a.jpg,train,ann,male,\nb.jpg,train,anna,male,\nc.jpg,train,20,male,\nd.jpg,train,2,male,\n')


@pytest.mark.parametrize('cell, name', [('ann\u200b', 'U+200B ZERO WIDTH SPACE'), ('\ufeffann', 'U+FEFF'),
                                        ('an\u00adn', 'U+00AD SOFT HYPHEN')])
def test_unseen_characters_are_named(read, cell, name):
    with pytest.raises(AnnotationError) as e: read(f'a.jpg,train,ann,male,\nb.jpg,train,{cell},male,\n')
    assert name in str(e.value) and places(e.value.faults) == [(3, 'identity')]


def test_a_name_may_need_a_joiner(read): assert read('a.jpg,train,علی\u200cرضا,male,\n').identity[0] == 'علی\u200cرضا'


def test_a_folder_that_a_mac_took_apart_is_found(tmp_path):
    folder = tmp_path/'a\u0308'
    folder.mkdir()
    Image.new('RGB', (8, 8)).save(folder/'1.png')
    (tmp_path/'t.csv').write_text('image,split,identity,gender,mood\n\u00e4/1.png,train,1,,\n', encoding='utf-8')
    with pytest.raises(AnnotationError, match=r"on the disk it is 'a\\u0308/1.png'"):
        read_annotations(tmp_path/'t.csv', tmp_path, TASKS)
    (tmp_path/'t.csv').write_text('image,split,identity,gender,mood\nA\u0308/1.PNG,train,1,,\n', encoding='utf-8')
    with pytest.raises(AnnotationError, match='did you mean'): read_annotations(tmp_path/'t.csv', tmp_path, TASKS)


def test_fixed_is_a_list_of_sub_tasks(read, tmp_path):
    text = 'a.jpg,train,1,male,\nb.jpg,train,1,female,\n'
    for fixed, message in (('gender', r"write fixed=\['gender'\]"), (['Gender'], "did you mean 'gender'"),
                       (['hat'], 'there are gender, mood')):
        with pytest.raises(ValueError, match=message): read(text, fixed=fixed)
    for fixed in (None, ['gender']):
        with pytest.warns(AnnotationWarning, match='more than one gender'): read(text, fixed=fixed)


def test_a_match_is_of_another_group_and_camera():
    df = pd.DataFrame([['query', 'ann', '1', ''], ['query', 'bob', '1', 'x'], ['query', 'cy', '1', 'x'],
                       ['gallery', 'ann', '1', 'y'], ['gallery', 'ann', '2', 'z'], ['gallery', 'bob', '1', 'y'],
                       ['gallery', 'bob', '2', 'x'], ['gallery', 'cy', '1', 'x'], ['gallery', 'cy', '3', 'y']],
                      columns=['split', 'identity', 'source', 'group'])
    assert matched(df).tolist() == [True, True, True] and matched(df, cameras=True).tolist() == [True, False, True]
    assert matched(df.assign(source=df.source.astype(float)), cameras=True).tolist() == [True, False, True]


def test_a_sentence_on_cameras_comes_with_the_count(read):
    text = 'a.jpg,query,1,,,s1\nb.jpg,gallery,1,,,s1\n'
    def sentences(**kwargs):
        with pytest.warns(AnnotationWarning) as found:
            read('image,split,identity,gender,mood,source\n'+text, header='', **kwargs)
        return [str(o.message) for o in found]
    assert sentences(cameras=True)[0].count('from another camera') == 1

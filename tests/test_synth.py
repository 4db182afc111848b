"""The promises of synth beyond its notebook: several seeds, interruptions, processes, scripts without a guard."""
import io, json, os, subprocess, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pandas as pd, pytest
from PIL import Image
from portrait_nb import synth
from portrait_nb.synth import (PRESETS, UNIDENTIFIED, annotated, draw_portrait, image_table, long_tail, make_portraits,
                               population)
from portrait_nb.tasks import PORTRAIT


def lts(counts, k=.2):
    held = np.sort(np.asarray(counts))[::-1].cumsum()
    return (np.argmax(held >= k*held[-1])+1)/(k*len(counts))


def files(root): return {str(o.relative_to(root)): o.read_bytes() for o in Path(root).rglob('*') if o.is_file()}


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp('synth')/'tiny'
    return root, make_portraits(root, 'tiny', n_workers=0)


@pytest.mark.parametrize('seed', [0, 1, 7])
@pytest.mark.parametrize('preset', ['tiny', 'small', 'bench'])
def test_plan(preset, seed):
    p, df = PRESETS[preset], image_table(preset, seed)
    known = df[df.identity != '']
    for s in ('train', 'query', 'gallery'):
        part, named = df[df.split == s], known[known.split == s]
        assert len(part) == p.images[s] and named.identity.nunique() == p.identities[s]
        assert abs((part.identity == '').mean()-UNIDENTIFIED[s])<.01
        if preset != 'tiny': assert .06 <= lts(named.identity.value_counts()) <= .11
    train, query, gallery = (set(known[known.split == s].identity) for s in ('train', 'query', 'gallery'))
    assert not train&gallery and query <= gallery
    groups = known[known.split == 'gallery'].groupby('identity').group.agg(set)
    assert all(groups[i]-{g} for i, g in known[known.split == 'query'][['identity', 'group']].itertuples(index=False))
    assert df.image.is_unique and (known.groupby('identity').source.nunique() == 1).all()
    fixed = df.groupby('person')[['gender', 'age', 'physique', 'height', 'source']].nunique()
    assert (fixed == 1).all(axis=None)
    if preset != 'tiny': assert (known.groupby('identity').scene.nunique()>1).all()


def test_full_is_table_2():
    p = population('full')
    assert p[['train', 'query', 'gallery']].sum().tolist() == [151_633, 12_361, 86_006]
    known = p[p.identity != '']
    assert [(known[s]>0).sum() for s in ('train', 'query', 'gallery')] == [640, 404, 426] and known.identity.is_unique
    for s in ('train', 'query', 'gallery'): assert .06 <= lts(known[s][known[s]>0]) <= .11


def test_plan_is_a_function_of_preset_and_seed():
    pd.testing.assert_frame_equal(image_table('tiny', 3), image_table('tiny', 3))
    assert not image_table('tiny', 3).equals(image_table('tiny', 4))


def test_long_tail_keeps_its_total():
    for n, total, head in ((1, 5, 1), (3, 9, 1), (50, 1000, 2), (404, 12361, 6)):
        c = long_tail(n, total, head)
        assert c.sum() == total and c.min() >= 1 and (np.diff(c) <= 0).all()


def test_table_on_disk(tiny):
    root, df = tiny
    on_disk = pd.read_csv(root/'annotations.csv', dtype=str, keep_default_na=False)
    assert on_disk.equals(df)
    assert list(df) == ['image', 'split', 'identity', 'source', 'group', *[t.name for t in PORTRAIT.attributes]]
    for o in df.image:
        with Image.open(root/o) as im: assert im.size == (32, 64) and im.mode == 'RGB'; im.load()
    for t in PORTRAIT.attributes: assert set('|'.join(df[t.name]).split('|'))-{''} == set(t.labels)
    scenes = pd.read_csv(root/'scenes.csv')
    assert scenes.image.tolist() == df.image.tolist() and {'view', 'framing', 'person', 'scene', 'shot'} <= set(scenes)
    assert not {'view', 'framing', 'person', 'scene'}&set(df)
    assert not [o for o in root.rglob('*.part')]


def test_no_expression_from_behind(tiny):
    root, df = tiny
    scenes = pd.read_csv(root/'scenes.csv')
    assert (df.expression[scenes['view'] == 'back'] == '').all() and (df.expression != '').any()


def test_workers_change_nothing(tiny, tmp_path):
    make_portraits(tmp_path/'two', 'tiny', n_workers=2)
    assert files(tmp_path/'two') == files(tiny[0])


def test_interrupted_run_goes_on(tiny, tmp_path, monkeypatch):
    save, n = synth.save_whole, [0]
    def tired(path, data):
        n[0] += 1
        if n[0] == 120: path.with_name(f'.{path.name}.part').write_bytes(data[:50]); raise KeyboardInterrupt
        save(path, data)
    monkeypatch.setattr(synth, 'save_whole', tired)
    with pytest.raises(KeyboardInterrupt): make_portraits(tmp_path/'x', 'tiny', n_workers=0)
    monkeypatch.setattr(synth, 'save_whole', save)
    assert 100<len(list((tmp_path/'x').rglob('*.jpg')))<120 and not (tmp_path/'x'/'annotations.csv').exists()
    drawn, play = [], synth.play
    monkeypatch.setattr(synth, 'play', lambda *args: (drawn.append(1), play(*args))[1])
    make_portraits(tmp_path/'x', 'tiny', n_workers=0)
    assert 180<len(drawn)<200 and files(tmp_path/'x') == files(tiny[0])


def test_a_dead_worker_ends_in_an_error(tmp_path, monkeypatch):
    start = synth._start
    def one_dies(module, n, sink):
        workers = start(module, n, sink)
        workers[0].kill()
        return workers
    monkeypatch.setattr(synth, '_start', one_dies)
    with pytest.raises(RuntimeError, match='goes on where it stopped'):
        make_portraits(tmp_path/'x', 'tiny', n_workers=2)
    assert not (tmp_path/'x'/'annotations.csv').exists()


def test_script_without_a_guard(tmp_path):
    script = "from portrait_nb.synth import make_portraits\nprint(len(make_portraits('set', 'tiny', n_workers=2)))\n"
    (tmp_path/'script.py').write_text(script)
    env = {**os.environ, 'PYTHONPATH': str(Path(synth.__file__).parent.parent)}
    done = subprocess.run([sys.executable, 'script.py'], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip().endswith('300'), done.stderr


def test_folders_of_others_are_refused(tiny, tmp_path):
    (tmp_path/'notes.txt').write_text('mine')
    with pytest.raises(ValueError, match='did not write'): make_portraits(tmp_path, 'tiny')
    assert [o.name for o in tmp_path.iterdir()] == ['notes.txt']
    with pytest.raises(ValueError, match='another kind'): make_portraits(tiny[0], 'tiny', seed=5)
    with pytest.raises(ValueError, match='is a file'): make_portraits(tmp_path/'notes.txt', 'tiny')
    (tmp_path/'odd').mkdir(); (tmp_path/'odd'/'portraits.json').write_text('not json')
    with pytest.raises(ValueError, match='portraits.json'): make_portraits(tmp_path/'odd', 'tiny')
    with pytest.raises(ValueError, match='tiny, hats, small, bench, full'): make_portraits(tmp_path/'new', 'medium')
    assert not (tmp_path/'new').exists()


def test_seeds_and_sizes():
    row = image_table('tiny').iloc[0].to_dict()
    a, b = draw_portrait(row, (64, 32)), draw_portrait(row, (64, 32))
    assert a.shape == (64, 32, 3) and a.dtype == np.uint8 and (a == b).all()
    assert (draw_portrait(row, (64, 32), seed=1) != a).any() and draw_portrait(row).shape == (256, 128, 3)


def test_a_process_reports_each_picture_in_one_piece(monkeypatch):
    "Two processes write into one pipe; unbuffered, `print` sends a name and its line end apart"
    pieces = []
    out = SimpleNamespace(write=pieces.append, flush=lambda: None)
    monkeypatch.setattr(synth, '_draw_files', lambda *_: iter(['a.jpg', 'b.jpg']))
    monkeypatch.setattr(sys, 'stdin', io.StringIO(json.dumps(dict(root='x', rows=[], size=[4, 2], seed=0))))
    monkeypatch.setattr(sys, 'stdout', out)
    synth._worker()
    assert pieces == ['a.jpg\n', 'b.jpg\n']

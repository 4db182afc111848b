"The commands as a user runs them: round trips on tiny sets, and the sentences in which mistakes end."
import inspect, json, os, re, shutil, subprocess, sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import portrait_nb
from portrait_nb import cli
from portrait_nb.tasks import Task, Tasks

matplotlib.use('agg')
pytestmark = pytest.mark.usefixtures('one_thread')
TINY = dict(backbone='test_resnet', pretrained='no', epochs=1, bs=4, height=32, width=16, positives='mean')


@pytest.fixture(scope='module')
def people(tmp_path_factory):
    "A folder of twelve photos and a table of theirs with three of the paper's columns"
    d = tmp_path_factory.mktemp('people')
    (d/'photos').mkdir()
    rng = np.random.default_rng(0)
    people = [('train', who) for who in range(3) for _ in range(2)]
    people += [(split, who) for who in (7, 8) for split in ('query', 'gallery', 'gallery')]
    rows = []
    for i, (split, who) in enumerate(people):
        Image.fromarray(rng.integers(0, 255, (32, 16, 3), dtype=np.uint8)).save(d/f'photos/{i}.png')
        gender, expression = ('female', 'anger|fear') if who % 2 else ('male', 'neutral')
        rows.append(dict(image=f'{i}.png', split=split, identity=f'p{who}', gender=gender, expression=expression))
    pd.DataFrame(rows).to_csv(d/'my.csv', index=False)
    return d


def call(command, *args, **kwargs):
    "A command from Python; paths become text, as the shell would have them"
    text = lambda o: str(o) if isinstance(o, Path) else o
    return command(*map(text, args), **{k: text(v) for k, v in kwargs.items()})


def train(csv, root, out, **kwargs): call(cli.portrait_train, annotations=csv, root=root, out=out, **{**TINY, **kwargs})


@pytest.fixture(scope='module')
def trained(people):
    train(people/'my.csv', people/'photos', people/'run')
    return people/'run'


def train_fails(csv, out, *words, root='.', **kwargs):
    with pytest.raises(SystemExit) as e: train(csv, root, out, **kwargs)
    for o in words: assert o in str(e.value), str(e.value)
    assert str(e.value).startswith('portrait_train: ') and not Path(out).exists()


def sh(command, *args):
    return subprocess.run([Path(sys.executable).parent/command, *map(str, args)], capture_output=True, text=True)


def write_tasks(file, *tasks): file.write_text(json.dumps(Tasks(tasks).to_dict(), indent=1))


COMMANDS = ('portrait_synth', 'portrait_demo', 'portrait_import', 'portrait_lint', 'portrait_train', 'portrait_eval',
            'portrait_interpret', 'portrait_ablate')


@pytest.mark.parametrize('command', COMMANDS)
def test_help(command):
    r = sh(command, '--help')
    assert r.returncode == 0 and r.stdout.startswith(f'usage: {command}')
    assert getattr(cli, command).__doc__ in ' '.join(r.stdout.split())


@pytest.mark.parametrize('command', COMMANDS)
def test_every_option_in_both_spellings(command):
    "`--metric_loss br`, `--metric-loss br`, `--metric-loss=br`: whatever fastcore calls them"
    f, values = getattr(cli, command), {str: 'word', int: 3, float: .5}
    arguments = inspect.signature(f).parameters
    needed = [o.name for o in arguments.values() if o.default is o.empty]
    usual = {o.name: 'word' if o.name in needed else o.default for o in arguments.values()}
    for name in arguments:
        if name in needed: continue
        kind = arguments[name].annotation
        for flag in {f'--{name}', f"--{name.replace('_', '-')}"}:
            value = True if kind is bool else values[kind]
            for words in [[flag]] if kind is bool else [[flag, str(value)], [f'{flag}={value}']]:
                words = ['word']*len(needed) + words
                assert vars(cli._parser(f, words).parse_args(words)) == {**usual, name: value}
    help = cli._parser(f).format_help()
    assert not re.search('--[a-z]+-[a-z]', help) and all('--'+o in help for o in arguments if o not in needed)


@pytest.mark.parametrize('words, sentence', [
    (['--score_every=0'], 'portrait_train: --score_every must be'),
    (['--score-every', '0'], 'portrait_train: --score-every must be'),
    (['--metric-loss', 'zz'], '--metric-loss must be one of br'),
    (['--metric_loss', 'zz'], '--metric_loss must be one of br'),
    (['--score-every', 'x'], 'argument --score-every: invalid int'),
    (['--score_every', 'x'], 'argument --score_every: invalid int'),
    (['--score-e=0'], '--score-every must be'), (['--bad-word', '1'], 'unrecognized arguments: --bad-word 1'),
    (['--score-every', '1', '--score_every=0'], 'must be a whole number, 1 or more'),
    (['--seed', '-1'], '--seed must be a whole number, 0 or more, of at most 18 digits, got -1'),
    (['--seed', '9'*31], '--seed must be a whole number'),
    (['--metric-loss', 'br', '--tasks=my--metric_loss'], '--tasks my--metric_loss: there is no such file'),
    (['--metric-loss', 'br', '--tasks=--metric_loss'], '--tasks --metric_loss: there is no such file'),
    (['--score-every', '0', '--tasks=my --score_every'], '--score-every must be')])
def test_a_mistake_is_named_as_it_was_typed(people, tmp_path, monkeypatch, capsys, words, sentence):
    own = ['--annotations', str(people/'my.csv'), '--root', str(people/'photos'), '--out', str(tmp_path/'out')]
    monkeypatch.setattr(sys, 'argv', ['portrait_train', *own, *words])
    script = compile('portrait_train()', 'portrait_train', 'exec')
    with pytest.raises(SystemExit) as e:
        exec(script, dict(__name__='__main__', __file__='portrait_train', portrait_train=cli.portrait_train))
    assert sentence in f'{e.value} {capsys.readouterr().err}' and not (tmp_path/'out').exists()


def test_in_a_shell_both_spellings_train(people, tmp_path):
    "One process, which runs pip's script twice"
    own = ['--annotations', people/'my.csv', '--root', people/'photos', *(f'--{k}={v}' for k, v in TINY.items())]
    ways = {tmp_path/'a': ['--metric-loss', 'none', '--score-every=1'],
            tmp_path/'b': ['--metric_loss=none', '--score_every', '1']}
    lines = [[str(o) for o in ('portrait_train', *own, '--out', out, *words)] for out, words in ways.items()]
    twice = f"""
import runpy, sys
for words in {lines!r}:
    sys.argv = words
    try: runpy.run_path({str(Path(sys.executable).parent/'portrait_train')!r}, run_name='__main__')
    except SystemExit as e: assert not e.code, e.code
"""
    r = subprocess.run([sys.executable, '-c', twice], capture_output=True, text=True)
    assert (r.returncode, r.stderr) == (0, '') and '\r' not in r.stdout and r.stdout.count('The model is in') == 2
    for out in ways:
        config = json.loads((out/'config.json').read_text())
        assert (config['score_every'], config['learner']['metric_loss']) == (1, None)


def test_the_version(monkeypatch):
    assert sh('portrait_synth', '--version').stdout == f'portrait_nb {portrait_nb.__version__}\n'


@pytest.mark.parametrize('command, given, words', [
    ('portrait_eval', dict(model='m', annotations='a.csv', report='FILE'), '--report'),
    ('portrait_eval', dict(model='m', annotations='a.csv', out='none/s.csv'), 'there is no folder'),
    ('portrait_eval', dict(model='m', annotations='a.csv', out='.'), 'is a folder; give a file'),
    ('portrait_interpret', dict(model='m', photo='a.png', out='none/a.png'), 'there is no folder'),
    ('portrait_interpret', dict(model='m', photo='a.png', k=0), '--k must be a whole number, 1 or more'),
    ('portrait_lint', dict(annotations='a.csv', bs=0), '--bs must be'),
    ('portrait_lint', dict(annotations='a.csv', least=-1), '--least must be'),
    ('portrait_synth', dict(path='drawn', workers=-1), '--workers must be'),
    ('portrait_synth', dict(path='FILE'), 'is a file; give a folder'),
    ('portrait_synth', dict(path='FILE/x'), "'FILE' is a file, and no folder can be made in it"),
    ('portrait_synth', dict(path='drawn', seed=-1), '--seed must be a whole number'),
    ('portrait_synth', dict(path='drawn', seed=10**30), '--seed must be a whole number'),
    ('portrait_demo', dict(out='out', seed=-1), '--seed must be a whole number'),
    ('portrait_demo', dict(data='FILE/x'), "'FILE' is a file, and no folder"),
    ('portrait_eval', dict(model='m', annotations='a.csv', report='FILE/x/y'), "'FILE' is a file, and no folder"),
    ('portrait_train', dict(annotations='a.csv', root='p', out='FILE/x'), "'FILE' is a file, and no folder"),
    ('portrait_train', dict(annotations='a.csv', root='p', seed=-1), '--seed must be a whole number'),
    ('portrait_ablate', dict(out='FILE/x'), "'FILE' is a file, and no folder"),
    ('portrait_ablate', dict(root='FILE'), 'is a file; give a folder'),
    ('portrait_ablate', dict(seeds='0,-1'), '--seeds must be a whole number'),
    ('portrait_ablate', dict(results='FILE/r.csv'), 'is a file; give a folder'),
    ('portrait_ablate', dict(results='FILE'), "'FILE' exists already and is no table of results"),
    ('portrait_import', dict(reader='wflw', root='w', crops='FILE'), 'is a file; give a folder'),
    ('portrait_demo', dict(out='FILE'), 'is a file; give a folder'),
    ('portrait_ablate', dict(out='FILE'), 'is a file; give a folder'),
    ('portrait_ablate', dict(results='.'), 'is a folder; give a file')])
def test_arguments_are_looked_at_before_anything_is_opened(tmp_path, monkeypatch, command, given, words):
    monkeypatch.chdir(tmp_path)
    Path('FILE').write_text('mine')
    with pytest.raises(SystemExit) as e: getattr(cli, command)(**given)
    assert words in str(e.value) and [o.name for o in tmp_path.iterdir()] == ['FILE']


def test_what_training_leaves(trained):
    files = {'model', 'log.csv', 'scores.csv', 'curves.png', 'config.json', 'environment.json', 'last.pt'}
    assert {o.name for o in trained.iterdir()} == files
    assert set(pd.read_csv(trained/'log.csv').task) >= {'identity', 'gender', 'expression'}


def test_eval_repeats_the_scores_of_training(trained, people, tmp_path, capsys):
    call(cli.portrait_eval, trained/'model', people/'my.csv', people/'photos', out=tmp_path/'again.csv')
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path/'again.csv'), pd.read_csv(trained/'scores.csv'), atol=1e-4)
    assert 'PIQ' in capsys.readouterr().out
    call(cli.portrait_eval, trained/'model', people/'my.csv', people/'photos')
    assert 'None' not in capsys.readouterr().out


def test_eval_of_people_that_training_has_not_seen(trained, people, tmp_path, capsys):
    df = pd.read_csv(people/'my.csv').query('split!="train"').assign(identity=lambda o: 'new '+o.identity)
    df.to_csv(tmp_path/'new.csv', index=False)
    call(cli.portrait_eval, trained/'model', tmp_path/'new.csv', people/'photos')
    assert 'mAP' in capsys.readouterr().out


def test_interpret_describes_searches_and_draws(trained, people, tmp_path, capsys):
    photo, figure = people/'photos/0.png', tmp_path/'figure.png'
    call(cli.portrait_interpret, trained/'model', photo, gallery=people/'photos', k=2, out=figure)
    out = capsys.readouterr().out
    assert all(o in out for o in ('gender', 'expression', '0.png', 'similarity')) and Image.open(figure).size[0] > 100


def test_train_on_tasks_of_ones_own_without_query_and_gallery(people, tmp_path, capsys):
    hat, coat = Task('hat', 'clothes', ['none', 'cap', 'straw']), Task('coat', 'clothes', ['no', 'yes'])
    write_tasks(tmp_path/'my.json', hat, coat, Task('bag', 'things', ['rucksack', 'case'], multilabel=True))
    df = pd.DataFrame(dict(image=[f'{i}.png' for i in range(6)], split='train', hat=['none', 'cap', 'straw']*2,
                           coat=['no', 'yes']*3, bag=['', 'rucksack', 'rucksack|case']*2))
    df.to_csv(tmp_path/'my.csv', index=False)
    train(tmp_path/'my.csv', people/'photos', tmp_path/'run', tasks=tmp_path/'my.json')
    assert 'Nothing is scored' in capsys.readouterr().out and not (tmp_path/'run/scores.csv').exists()
    call(cli.portrait_interpret, tmp_path/'run/model', people/'photos/0.png')
    assert [o.split()[0] for o in capsys.readouterr().out.strip().splitlines()] == ['hat', 'coat', 'bag']


def test_an_identity_of_another_name(people, tmp_path, capsys):
    gender = Task('gender', 'appearance', ['male', 'female'])
    write_tasks(tmp_path/'my.json', Task('person', 'appearance', None), gender)
    for column in ('person', 'identity'):
        pd.read_csv(people/'my.csv').rename(columns=dict(identity=column)).to_csv(tmp_path/'my.csv', index=False)
        train(tmp_path/'my.csv', people/'photos', tmp_path/column, tasks=tmp_path/'my.json')
        call(cli.portrait_eval, tmp_path/column/'model', tmp_path/'my.csv', people/'photos')
        assert 'mAP' in capsys.readouterr().out


TABLE = 'image,split,gender\nRené.png,train,male\n'


@pytest.mark.parametrize('content, words', [
    (TABLE.replace(',', ';').encode(), ["separated by ';'", 'LibreOffice']),
    (TABLE.replace(',', '\t').encode(), ['separated by']),
    (TABLE.encode('cp1252'), ['line 2', "'René.png' in Windows-1252"]),
    (TABLE.encode('utf-16'), ['UTF-16']),
    (b'PK\x03\x04\x14\x00', ['a workbook']),
    (b'', ['empty']),
    (b'image,split,identity,Gender,ages\na.png,train,1,male,\n',
     ["did you mean 'gender': rename the column 'Gender' to 'gender'", "'ages' to 'age'", '--tasks']),
    (b'image,split,Expressions\n', ["'Expressions' to 'expression'"]),
    (b'image,split,hat\n', ['none of the columns', "'hat'"]),
    (b'Image,split,gender\n', ["did you mean 'Image'?"]),
    (b'image,split,gender\nnone.png,train,mail\n../x.png,test,male\n',
     ['2 rows', "did you mean 'male'?", 'leads out of the root'])])
def test_tables_that_are_none(tmp_path, content, words):
    (tmp_path/'t.csv').write_bytes(content)
    train_fails(tmp_path/'t.csv', tmp_path/'out', str(tmp_path/'t.csv'), *words)


def test_columns_that_only_sound_alike_are_the_users(people, tmp_path, capsys):
    pd.read_csv(people/'my.csv').assign(weight=70, page=3, wage=2).to_csv(tmp_path/'my.csv', index=False)
    train(tmp_path/'my.csv', people/'photos', tmp_path/'run')
    assert 'not trained: age, physique, height, body, arm' in capsys.readouterr().out


@pytest.mark.parametrize('content, words', [
    (b'{', 'not json'), (b'[]', 'and this is a list'), (b'\xff\xfe', 'not UTF-8'), (None, 'no such file'),
    (b'{"tasks": [{"name": "hat", "aspect": "clothes", "labels": ["one"]}]}', "'hat' has 1 label")])
def test_task_files_that_are_none(people, tmp_path, content, words):
    if content is not None: (tmp_path/'t.json').write_bytes(content)
    train_fails(people/'my.csv', tmp_path/'out', '--tasks', 't.json', words, tasks=str(tmp_path/'t.json'))


def test_a_folder_is_no_task_file(people, tmp_path):
    train_fails(people/'my.csv', tmp_path/'out', '--tasks', 'is a folder; give a file', tasks=tmp_path)
    file = people/'my.csv'/'t.json'
    train_fails(people/'my.csv', tmp_path/'out', f"--tasks {file}: this can't be read", tasks=file)


@pytest.mark.parametrize('kwargs, words', [
    (dict(backbone='resnet_of_mine'), 'resnet_of_mine'), (dict(split='halves'), 'halves'),
    (dict(metric_loss='sift'), 'sift'), (dict(weighting='heavy'), 'heavy'), (dict(height=2), '--height must be'),
    (dict(bs=0), 'bs must be'), (dict(pretrained='no.pth'), 'no.pth'),
    (dict(bs=10, sampling='pk'), '--bs must be 8, 12'), (dict(bs=8, sampling='shuffle'), '--bs must be 9')])
def test_arguments_that_nobody_knows(people, tmp_path, kwargs, words):
    train_fails(people/'my.csv', tmp_path/'out', words, root=people/'photos', **kwargs)


def test_missing_files_and_folders(people, trained, tmp_path):
    train_fails(tmp_path/'no.csv', tmp_path/'out', 'there is no such file')
    train_fails(people/'my.csv', tmp_path/'out', 'there is no such folder', root=tmp_path/'no')
    table, photos, model, photo = people/'my.csv', people/'photos', trained/'model', people/'photos/0.png'
    demo = dict(out=tmp_path/'demo', data=tmp_path/'drawn')
    for command, given, words in [
            (cli.portrait_train, dict(), '--annotations my.csv --root photos/'),
            (cli.portrait_train, dict(annotations=table, root='.', out=trained), 'nothing is overwritten'),
            (cli.portrait_eval, dict(model=tmp_path, annotations=table, root=photos), 'is not a portrait model'),
            (cli.portrait_eval, dict(model=model, annotations=tmp_path/'no.csv', root='.'), 'no such file'),
            (cli.portrait_interpret, dict(model=model, photo=tmp_path/'no.png'), 'cannot be read'),
            (cli.portrait_interpret, dict(model=model, photo=photo, gallery=tmp_path/'no'), 'is not a folder'),
            (cli.portrait_interpret, dict(model=model, photo=photo, gallery=photos, k=-30),
             'k must be a whole number, 1 or more'),
            (cli.portrait_demo, dict(demo, preset='tiny', epochs=0), '--epochs'),
            (cli.portrait_synth, dict(path=tmp_path/'drawn', preset='huge'), 'huge'),
            (cli.portrait_demo, dict(demo, preset='huge'), 'huge')]:
        with pytest.raises(SystemExit) as e: call(command, **given)
        assert words in str(e.value) and str(e.value).startswith('portrait_')
    assert not (tmp_path/'drawn').exists()


def test_a_model_without_identity_searches_nothing_and_says_so_first(people, tmp_path, capsys):
    from portrait_nb import interpret
    from portrait_nb.model import PortraitNet
    from portrait_nb.tasks import PORTRAIT, Tasks
    net = PortraitNet(Tasks([PORTRAIT['gender']]), 'test_resnet', pretrained=False, size=(64, 32))
    look = interpret.Interpreter(net)
    with pytest.MonkeyPatch.context() as m:
        m.setattr(interpret, 'Interpreter', lambda model: look)
        with pytest.raises(SystemExit, match='no identity task'):
            call(cli.portrait_interpret, 'model', people/'photos/0.png', gallery=people/'photos')
    assert 'gender' not in capsys.readouterr().out


def test_a_mistake_is_answered_before_torch_is_imported(people, tmp_path):
    (tmp_path/'t.csv').write_text('image;split;gender\n')
    calls = [('portrait_train', dict(annotations=str(tmp_path/'t.csv'), root='.', out=str(tmp_path/'out'))),
             ('portrait_train', dict(annotations='a.csv', root='.', epochs=0)),
             ('portrait_lint', dict(annotations='a.csv', bs=0)),
             ('portrait_lint', dict(annotations=str(tmp_path/'t.csv'))),
             ('portrait_eval', dict(model='m', annotations='a.csv', by='gender')),
             ('portrait_interpret', dict(model='m', photo='a.png', k=0)), ('portrait_demo', dict(seed=-1))]
    code = f"""
import sys
from portrait_nb import cli
for name, given in {calls!r}:
    try: getattr(cli, name)(**given)
    except SystemExit as e: print(e.code)
    assert 'torch' not in sys.modules, name
"""
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert r.returncode == 0 and [o.split(':')[0] for o in r.stdout.splitlines()] == [name for name, _ in calls], r


def test_in_a_shell_a_mistake_is_one_sentence_and_exit_code_1(people, tmp_path):
    (tmp_path/'t.csv').write_text('image;split;gender\n')
    r = sh('portrait_train', '--annotations', tmp_path/'t.csv', '--root', people/'photos', '--out', tmp_path/'out')
    assert r.returncode == 1 and "separated by ';'" in r.stderr and 'Traceback' not in r.stderr


@pytest.mark.parametrize('words, kwargs', [
    ('--epochs', dict(epochs=0)), ('--workers', dict(workers=-1)), ('--ema', dict(ema=1.)),
    ('--score_every', dict(score_every=0)), ('--epochs', dict(epochs=-1)), ('--lr', dict(lr=float('nan'))),
    ('--bs', dict(bs=1)), ('--metric_loss', dict(metric_loss='zz')), ('--split', dict(split='both')),
    ('--weighting', dict(weighting='best')), ('no file', dict(pretrained='none.safetensors'))])
def test_what_could_only_fail_later_is_refused_first(people, tmp_path, words, kwargs):
    train_fails(people/'my.csv', tmp_path/'out', words, root=people/'photos', **kwargs)


def test_out_must_not_be_a_file(people, tmp_path):
    (tmp_path/'out').write_text('mine')
    with pytest.raises(SystemExit, match='is a file'): train(people/'my.csv', people/'photos', tmp_path/'out')
    assert (tmp_path/'out').read_text() == 'mine'


def test_interpret_draws_without_a_gallery(trained, people, tmp_path):
    call(cli.portrait_interpret, trained/'model', people/'photos/0.png', out=tmp_path/'figure.png')
    assert Image.open(tmp_path/'figure.png').width > 500


def test_eval_scores_features_of_any_tool(tmp_path, capsys):
    from portrait_nb.metrics import retrieval_scores
    r, files = np.random.default_rng(0), {}
    for k, n in (('query', 40), ('gallery', 150)):
        features = r.normal(size=(n, 8)).astype(np.float32)
        files[k] = dict(features=features, ids=r.integers(0, 6, n), cams=r.integers(0, 3, n))
        np.savez(tmp_path/f'{k}.npz', **files[k])
    q, g = files['query'], files['gallery']
    expected = retrieval_scores(q['features'], g['features'], q['ids'], g['ids'], query_cams=q['cams'],
                                gallery_cams=g['cams'])
    both = (tmp_path/'query.npz', tmp_path/'gallery.npz')
    call(cli.portrait_eval, *both, features=True, out=tmp_path/'scores.csv')
    scores = pd.read_csv(tmp_path/'scores.csv', index_col='score').model
    assert scores[['mAP', 'plain_mAP']].tolist() == pytest.approx([expected.macro_mAP, expected.mAP], abs=1e-5)
    with pytest.raises(SystemExit, match='--report is for a model and a table'):
        call(cli.portrait_eval, *both, features=True, report=tmp_path/'r')
    np.savez(tmp_path/'half.npz', features=q['features'])
    with pytest.raises(SystemExit, match="no array 'ids'"):
        call(cli.portrait_eval, tmp_path/'half.npz', tmp_path/'gallery.npz', features=True)


def test_lint_exits_1_where_it_is_fatal(portraits, tmp_path, capsys):
    root, df = portraits
    call(cli.portrait_lint, root/'annotations.csv', bs=16)
    assert '0 fatal' in capsys.readouterr().out
    df.assign(identity=['z']*len(df)).to_csv(tmp_path/'leak.csv', index=False)
    with pytest.raises(SystemExit) as e: call(cli.portrait_lint, tmp_path/'leak.csv', root=root, bs=16)
    assert e.value.code == 1 and 'in train and in the test' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='k must be a whole number, 2 or more'):
        call(cli.portrait_lint, root/'annotations.csv', k=0)


def test_lint_of_a_table_with_faults_says_the_rest_too(portraits, tmp_path, capsys):
    root, df = portraits
    bad = df.assign(gender=['males', *df.gender[1:]], split=[*df.split[:-1], 'tests'])
    bad.loc[2, 'image'] = '../secret.jpg'
    bad.to_csv(tmp_path/'bad.csv', index=False)
    with pytest.raises(SystemExit) as e: call(cli.portrait_lint, tmp_path/'bad.csv', root=root, bs=16)
    out = capsys.readouterr().out
    assert e.value.code == 1 and "did you mean 'test" not in out
    assert "'males' is no label of gender" in out and '0 fatal' in out


def test_lint_names_the_lines_of_the_file(people, tmp_path, capsys):
    lines = (people/'my.csv').read_text().splitlines()
    (tmp_path/'gaps.csv').write_text('\n'.join([lines[0], '', '', *lines[1:]]))
    call(cli.portrait_lint, tmp_path/'gaps.csv', root=people/'photos', bs=4, least=100)
    out = capsys.readouterr().out.splitlines()
    at = next(i for i, o in enumerate(out) if o.startswith('warning: gender'))
    numbers = {o.split()[0] for o in out[at+2:at+10] if o.strip().endswith('male')}
    assert numbers <= {str(i) for i in range(4, 10)}
    assert any(o.split()[:2] == ['line'] or 'line' in o for o in out[at:at+6])


def test_eval_of_a_table_without_a_column(trained, people, tmp_path):
    df = pd.read_csv(people/'my.csv')
    df.drop(columns='gender').to_csv(tmp_path/'less.csv', index=False)
    df.rename(columns=dict(gender='Gender')).to_csv(tmp_path/'near.csv', index=False)
    for csv, words in (('less', "no column 'gender', and the model answers that; add it"),
                       ('near', "rename the column 'Gender' to 'gender'")):
        with pytest.raises(SystemExit, match=words):
            call(cli.portrait_eval, trained/'model', tmp_path/f'{csv}.csv', root=people/'photos')


def test_a_terminal_with_another_alphabet(people, tmp_path):
    (tmp_path/'bad.csv').write_text('image,split,gender\na.jpg,train,males\n')
    code = f"from portrait_nb.cli import portrait_lint; portrait_lint({str(tmp_path/'bad.csv')!r})"
    environment = {**os.environ, 'PYTHONIOENCODING': 'cp1252'}
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, env=environment, text=True, encoding='cp1252')
    assert r.returncode == 1 and 'codec' not in r.stderr
    assert '  ------' in r.stdout and "'males' is no label" in r.stdout


def test_what_trains_is_written_into_the_run(people, tmp_path):
    train(people/'my.csv', people/'photos', tmp_path/'out', bf16=True, ema=.9, score_every=1, workers=0)
    config = json.loads((tmp_path/'out'/'config.json').read_text())
    assert (config['bf16'], config['ema'], config['score_every'], config['loading']['num_workers']) == (True, .9, 1, 0)


def test_resume_takes_no_other_recipe(trained, people, tmp_path, capsys):
    for wrong, words in ((dict(epochs=200), '--epochs is for a new run'), (dict(bf16=True), '--bf16 is for a new run'),
                         (dict(out='elsewhere'), '--out is for'),
                         (dict(workers=-1), '--workers must be a whole number, 0 or more')):
        with pytest.raises(SystemExit, match=words): call(cli.portrait_train, resume=trained, **wrong)
    shutil.copytree(people/'photos', tmp_path/'photos')
    call(cli.portrait_train, resume=trained, root=tmp_path/'photos', workers=1)
    assert 'is finished: all 1 epochs are done' in capsys.readouterr().out


def test_both_kinds_of_mean_are_written(trained):
    names = list(pd.read_csv(trained/'scores.csv').score)
    assert names[:2] == ['mAP', 'rank1'] and {'plain_mAP', 'plain_rank1'} <= set(names) and 'n_queries' not in names


def test_the_subgroups_that_were_asked_for(trained, people, tmp_path):
    where = (trained/'model', people/'my.csv', people/'photos')
    call(cli.portrait_eval, *where, report=tmp_path/'r', by='gender')
    assert set(pd.read_csv(tmp_path/'r/report_subgroups.csv').gender) <= {'male', 'female'}
    with pytest.raises(SystemExit, match="--by must be one of gender, got 'expression'"):
        call(cli.portrait_eval, *where, report=tmp_path/'r', by='expression')
    with pytest.raises(SystemExit, match='--by makes the subgroups of a report'):
        call(cli.portrait_eval, *where, by='gender')


def test_a_report_opens_only_what_it_scores(trained, people, tmp_path, capsys):
    "Of the train rows it needs no picture; the page may do without any"
    df = pd.read_csv(people/'my.csv')
    (tmp_path/'photos').mkdir()
    for o in df.image[df.split != 'train']: shutil.copy(people/'photos'/o, tmp_path/'photos'/o)
    where = (trained/'model', people/'my.csv', tmp_path/'photos')
    call(cli.portrait_eval, *where, report=tmp_path/'r', out=tmp_path/'again.csv')
    out = capsys.readouterr().out
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path/'again.csv'), pd.read_csv(trained/'scores.csv'), atol=1e-4)
    assert all(o in out for o in ('By group: ', 'report.html holds pictures', 'majority'))
    assert 'no train rows' not in out
    page = (tmp_path/'r/report.html').read_text()
    assert all(o in page for o in ('<img ', 'my.csv', str(trained/'model')))
    assert str(people) not in page.replace(str(trained), '')
    call(cli.portrait_eval, *where, report=tmp_path/'r', no_pictures=True)
    assert '<img ' not in (tmp_path/'r/report.html').read_text()
    assert 'report.html holds pictures' not in capsys.readouterr().out
    (tmp_path/'photos'/df.image[df.split == 'gallery'].iloc[0]).unlink()
    with pytest.raises(SystemExit, match='1 fault in 1 of 12 rows'): call(cli.portrait_eval, *where)
    with pytest.raises(SystemExit, match='--no_pictures is for the page'):
        call(cli.portrait_eval, *where, no_pictures=True)


def test_groups_are_offered_where_nobody_has_a_gender_or_age(people, tmp_path, capsys):
    df = pd.read_csv(people/'my.csv').rename(columns=dict(gender='Male'))
    df.to_csv(tmp_path/'my.csv', index=False)
    expression = Task('expression', 'b', ['neutral', 'anger', 'fear'], multilabel=True)
    write_tasks(tmp_path/'tasks.json', Task('Male', 'a', ['male', 'female']), expression)
    train(tmp_path/'my.csv', people/'photos', tmp_path/'run', tasks=tmp_path/'tasks.json')
    capsys.readouterr()
    where = (tmp_path/'run/model', tmp_path/'my.csv', people/'photos')
    call(cli.portrait_eval, *where, report=tmp_path/'r')
    assert 'Say with --by which of these make groups: Male\n' in capsys.readouterr().out
    assert not (tmp_path/'r/report_subgroups.csv').exists()
    call(cli.portrait_eval, *where, report=tmp_path/'r', by='Male')
    assert '--by' not in capsys.readouterr().out and (tmp_path/'r/report_subgroups.csv').exists()
    df[df.split != 'train'].to_csv(tmp_path/'test.csv', index=False)
    call(cli.portrait_eval, where[0], tmp_path/'test.csv', where[2])
    assert 'no train rows: the majority guess' in capsys.readouterr().out


def test_pictures_in_both_folders_are_named(trained, people, tmp_path, capsys):
    "A query that lies in the gallery under another name finds itself"
    df = pd.read_csv(people/'my.csv').query('split!="train"').reset_index(drop=True)
    shutil.copytree(people/'photos', tmp_path/'photos')
    first = df[df.split == 'query'].iloc[0]
    shutil.copy(tmp_path/'photos'/first.image, tmp_path/'photos/copy.png')
    copy = pd.DataFrame([{**first, 'image': 'copy.png', 'split': 'gallery'}])
    pd.concat([df, copy]).to_csv(tmp_path/'my.csv', index=False)
    with pytest.warns(UserWarning, match='1 of 2 queries find themselves'):
        call(cli.portrait_eval, trained/'model', tmp_path/'my.csv', tmp_path/'photos')


def test_rows_of_a_table_of_ones_own(people, tmp_path, capsys, monkeypatch):
    from portrait_nb import ablation
    scale = ablation.Scale('tiny', 1, 1e-2, stand_ins=dict(hrnet_w32=('test_resnet', None)), preset='tiny', bs=4)
    monkeypatch.setitem(ablation.SCALES, 'tiny', scale)
    monkeypatch.setattr(ablation.table_loaders, '__defaults__', (*ablation.table_loaders.__defaults__[:-1], (32, 16)))
    gender = Task('gender', 'appearance', ['male', 'female'])
    write_tasks(tmp_path/'my.json', Task('identity', 'appearance', None), gender)
    gone = pd.DataFrame([dict(image='gone.png', split='train', identity='p0', gender='male')])
    pd.concat([pd.read_csv(people/'my.csv'), gone]).to_csv(tmp_path/'my.csv', index=False)
    own = dict(preset='tiny', rows='fss', annotations=tmp_path/'my.csv', root=people/'photos', out=tmp_path/'out',
               tasks=tmp_path/'my.json')
    with pytest.raises(SystemExit, match='gone.png'): call(cli.portrait_ablate, **own)
    call(cli.portrait_ablate, **own | dict(rows=' fss '), drop=True)
    lines = pd.read_csv(tmp_path/'out/tiny.csv')
    assert lines.train_images.tolist() == [6] and 'gender' in lines and 'expression' not in lines
    assert 'PIQ' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='--tasks and --drop are for a table of your own'):
        cli.portrait_ablate(preset='tiny', drop=True)


@pytest.mark.parametrize('wrong, words', [
    (dict(rows=''), "--rows must be one of .* got ''"), (dict(rows='fss, best'), "got 'best'"),
    (dict(seeds='x'), "--seeds must be whole numbers .* got 'x'")])
def test_ablate_refuses_before_it_draws(tmp_path, monkeypatch, wrong, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=words): cli.portrait_ablate(preset='tiny', **wrong)
    assert not list(tmp_path.iterdir())


# --- portrait_import

def raf(root):
    "A small RAF-DB as its owners pack it"
    (root/'Image/aligned').mkdir(parents=True)
    (root/'EmoLabel').mkdir()
    lines = []
    for part, n in (('train', 9), ('test', 4)):
        for i in range(n):
            Image.new('RGB', (16, 32), (20*i, 90, 30)).save(root/f'Image/aligned/{part}_{i:04d}_aligned.jpg')
            lines.append(f'{part}_{i:04d}.jpg {1+i%7}\n')
    (root/'EmoLabel/list_patition_label.txt').write_text(''.join(lines))
    return root


def test_import_of_a_set_can_be_trained_on(tmp_path, capsys):
    root = raf(tmp_path/'my sets')
    call(cli.portrait_import, 'rafdb', root, out=tmp_path/'my.csv')
    out = capsys.readouterr().out
    for words in ('13 portraits in', '9 train, 4 gallery; 1 sub-tasks', 'non-commercial research only', 'whdeng.cn'):
        assert words in out
    assert f"portrait_lint {tmp_path}/my.csv --root '{root}' --tasks {tmp_path}/my.json\n" in out
    given = out.strip().splitlines()[-1].replace(f"'{root}'", 'ROOT').split()
    assert given[0] == 'portrait_train' and given[1::2] == ['--annotations', '--root', '--tasks', '--out']
    assert {o.name for o in tmp_path.iterdir()} == {'my sets', 'my.csv', 'my.json'}
    assert Tasks.from_dict(json.loads((tmp_path/'my.json').read_text())).names == ['expression']
    assert (pd.read_csv(tmp_path/'my.csv', keep_default_na=False).expression != '').all()
    train(tmp_path/'my.csv', root, tmp_path/'run', tasks=tmp_path/'my.json')
    assert 'expression' in capsys.readouterr().out


def test_import_takes_the_options_of_its_reader(tmp_path, capsys):
    for i in range(12):
        file = tmp_path/'p'/('train' if i < 8 else 'test')/f"{i%3}_{'hat' if i%2 else 'no'}{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    pattern = r'^(?P<split>\w+)/(?P<identity>\d)_(?P<hat>hat|no)'
    call(cli.portrait_import, 'folder_source', tmp_path/'p', out=tmp_path/'my.csv', pattern=pattern)
    assert '8 train' in capsys.readouterr().out
    assert json.loads((tmp_path/'my.json').read_text())['tasks'][1]['labels'] == ['hat', 'no']


@pytest.mark.parametrize('given, words', [
    (dict(reader='raf'), ['reader must be one of market1501']),
    (dict(first=3), ['--first is not for rafdb, which takes no options']),
    (dict(reader='peta', race=True), ['--race is not for peta', '--fold, --test, --n_attributes']),
    (dict(reader='folder_source'), ['needs --pattern']), (dict(out='x.txt'), ['must end in .csv']),
    (dict(out='none/x.csv'), ['there is no folder']), (dict(root='none'), ['RAF-DB: looked in none'])])
def test_imports_that_are_refused(tmp_path, monkeypatch, given, words):
    raf(tmp_path/'set')
    monkeypatch.chdir(tmp_path)
    given = dict(reader='rafdb', root='set', out='my.csv') | given
    with pytest.raises(SystemExit) as e: cli.portrait_import(**given)
    assert str(e.value).startswith('portrait_import: ') and all(o in str(e.value) for o in words), str(e.value)
    assert {o.name for o in tmp_path.iterdir()} == {'set'}


@pytest.mark.parametrize('there', ['my.csv', 'my.json'])
def test_import_overwrites_nothing(tmp_path, there):
    raf(tmp_path/'set')
    (tmp_path/there).write_text('mine')
    with pytest.raises(SystemExit, match='exists already, and nothing is overwritten'):
        call(cli.portrait_import, 'rafdb', tmp_path/'set', out=tmp_path/'my.csv')
    assert (tmp_path/there).read_text() == 'mine' and {o.name for o in tmp_path.iterdir()} == {'set', there}


@pytest.mark.parametrize('reader, options, words', [
    ('lfwa', dict(), '12 portraits'), ('maad_face', dict(first=20, attributes='SET'), '20 portraits'),
    ('celebamask_hq', dict(celeba='CelebA', test='val'), '4 portraits'), ('celebamask_hq', dict(), '6 portraits'),
    ('wflw', dict(), '3 portraits'), ('wflw', dict(crops='cut out', size=64, margin=.1), '5 portraits'),
    ('lp300w', dict(), '16 portraits'), ('aflw2000', dict(), '2 portraits')])
@pytest.mark.filterwarnings('ignore')
def test_import_of_face_sets(tmp_path, monkeypatch, capsys, reader, options, words):
    import test_facereaders as trees
    from portrait_nb.annotations import read_annotations
    from portrait_nb.faces.facereaders import face_sources
    def aflw_tree(root):
        for i in (2, 4): trees.save_face(root/f'image{i:05d}.jpg', (1, 2, 3), np.ones((68, 2)), 'pt3d_68')
    write = dict(lfwa=trees.lfw_tree, maad_face=trees.maad_tree, celebamask_hq=trees.hq_tree, wflw=trees.wflw_tree,
                 lp300w=trees.lp_tree, aflw2000=aflw_tree)[reader]
    monkeypatch.chdir(tmp_path)
    write(tmp_path/'SET')
    cli.portrait_import(reader, 'SET', **options)
    out = capsys.readouterr().out
    assert f'{words} in my.csv' in out and f'Terms: {face_sources().terms[reader]}.' in out
    root = options.get('crops', 'SET')
    assert f"--root {root!r} " in out if ' ' in root else f'--root {root} ' in out
    tasks = Tasks.from_dict(json.loads(Path('my.json').read_text()))
    assert len(read_annotations('my.csv', root, tasks)) == int(words.split()[0])
    if reader == 'wflw' and options:
        assert {Image.open(o).size for o in Path(root).rglob('*.jpg')} == {(64, 64)}


@pytest.mark.parametrize('reader, options, words', [
    ('lfwa', dict(size=64), '--size is not for lfwa, which takes --n_attributes'),
    ('wflw', dict(size=64), '--size is of the faces that we cut out: give --crops FOLDER'),
    ('wflw', dict(margin=.1), '--margin is of the faces'), ('aflw2000', dict(celeba='x'), 'which takes no options')])
def test_options_of_other_readers_are_refused(tmp_path, reader, options, words):
    with pytest.raises(SystemExit, match=words): cli.portrait_import(reader, str(tmp_path), **options)


def test_every_reader_of_the_library_is_a_word_of_the_command():
    from portrait_nb.faces.facereaders import face_sources
    from portrait_nb.sources import portrait_sources
    assert {*portrait_sources().index, *face_sources().index, 'folder_source'} == {*cli.READERS}
    about = cli._parser(cli.portrait_import).format_help()
    assert all(o in about for o in cli.READERS)


def test_what_a_command_warns_of(tmp_path):
    "One sentence, without a line of the library's; of warnings that are not ours, only the one of importing fastai is left out"
    root = raf(tmp_path/'set')
    (root/'Image/aligned/train_0003_aligned.jpg').unlink()
    code = f'''
import warnings
import portrait_nb
from portrait_nb import cli
@cli.says_why
def other():
    import fastai.layers
    warnings.warn('something else', FutureWarning)
    warnings.warn('torch.jit.trace is deprecated', FutureWarning)
cli.portrait_import('rafdb', {str(root)!r}, out={str(tmp_path/'my.csv')!r})
other()
'''
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert r.returncode == 0 and 'torch.jit.script' not in r.stderr
    assert 'something else' in r.stderr and 'torch.jit.trace' in r.stderr
    first, second, *_ = r.stderr.splitlines()
    assert first.startswith('portrait_import: RAF-DB: 1 of 13 images left out') and '.py' not in first
    assert 'FutureWarning' in second


def test_nobodys_file_is_written_over(tmp_path):
    from portrait_nb.cli import portrait_eval, portrait_interpret
    table, photo, scores = tmp_path/'my.csv', tmp_path/'me.png', tmp_path/'scores.csv'
    table.write_text('image,split\na.jpg,query\n')
    Image.new('RGB', (32, 64)).save(photo)
    before = table.read_bytes(), photo.read_bytes()
    with pytest.raises(SystemExit, match='no table of scores'): portrait_eval('model', str(table), out=str(table))
    with pytest.raises(SystemExit, match='no picture of this'): portrait_interpret('model', 'x', out=str(photo))
    with pytest.raises(SystemExit, match='must end in .png'):
        portrait_interpret('model', 'x', out=str(tmp_path/'a.xyz'))
    assert (table.read_bytes(), photo.read_bytes()) == before
    scores.write_text('score,model\nPIQ,0.5\n')
    with pytest.raises(SystemExit, match='no-model') as e: portrait_eval('no-model', str(table), out=str(scores))
    assert 'exists already' not in str(e.value) # its own earlier scores are replaced

"The commands as a user runs them: round trips on tiny sets, and the sentences in which mistakes end."
import json, os, shutil, subprocess, sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

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
    rows = [('train', who, who % 2) for who in range(3) for _ in range(2)] + [(split, who, who % 2) for who in (7, 8) for split in ('query', 'gallery', 'gallery')]
    for i in range(12): Image.fromarray(rng.integers(0, 255, (32, 16, 3), dtype=np.uint8)).save(d/f'photos/{i}.png')
    df = pd.DataFrame([(f'{i}.png', s, f'p{w}', ['male', 'female'][g], ['neutral', 'anger|fear'][g]) for i, (s, w, g) in enumerate(rows)],
                      columns=['image', 'split', 'identity', 'gender', 'expression'])
    df.to_csv(d/'my.csv', index=False)
    return d


@pytest.fixture(scope='module')
def trained(people):
    cli.portrait_train(annotations=str(people/'my.csv'), root=str(people/'photos'), out=str(people/'run'), **TINY)
    return people/'run'


def train_fails(csv, out, *words, root='.', **kwargs):
    with pytest.raises(SystemExit) as e: cli.portrait_train(annotations=str(csv), root=str(root), out=str(out), **{**TINY, **kwargs})
    for o in words: assert o in str(e.value), str(e.value)
    assert str(e.value).startswith('portrait_train: ') and not Path(out).exists()


def sh(command, *args): return subprocess.run([Path(sys.executable).parent/command, *map(str, args)], capture_output=True, text=True)


@pytest.mark.parametrize('command', ['portrait_synth', 'portrait_demo', 'portrait_train', 'portrait_eval', 'portrait_interpret'])
def test_help(command):
    r = sh(command, '--help')
    assert r.returncode == 0 and r.stdout.startswith(f'usage: {command}') and getattr(cli, command).__doc__ in ' '.join(r.stdout.split())


def test_what_training_leaves(trained):
    assert {o.name for o in trained.iterdir()} == {'model', 'log.csv', 'scores.csv', 'curves.png', 'config.json', 'environment.json', 'last.pt'}
    assert set(pd.read_csv(trained/'log.csv').task) >= {'identity', 'gender', 'expression'}


def test_eval_repeats_the_scores_of_training(trained, people, tmp_path, capsys):
    cli.portrait_eval(str(trained/'model'), str(people/'my.csv'), str(people/'photos'), out=str(tmp_path/'again.csv'))
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path/'again.csv'), pd.read_csv(trained/'scores.csv'), atol=1e-4)
    assert 'PIQ' in capsys.readouterr().out
    cli.portrait_eval(str(trained/'model'), str(people/'my.csv'), str(people/'photos'))
    assert 'None' not in capsys.readouterr().out


def test_eval_of_people_that_training_has_not_seen(trained, people, tmp_path, capsys):
    df = pd.read_csv(people/'my.csv').query('split!="train"').assign(identity=lambda o: 'new '+o.identity)
    df.to_csv(tmp_path/'new.csv', index=False)
    cli.portrait_eval(str(trained/'model'), str(tmp_path/'new.csv'), str(people/'photos'))
    assert 'mAP' in capsys.readouterr().out


def test_interpret_tells_searches_and_draws(trained, people, tmp_path, capsys):
    cli.portrait_interpret(str(trained/'model'), str(people/'photos/0.png'), gallery=str(people/'photos'), k=2, out=str(tmp_path/'told.png'))
    told = capsys.readouterr().out
    assert all(o in told for o in ('gender', 'expression', '0.png', 'similarity')) and Image.open(tmp_path/'told.png').size[0] > 100


def test_train_on_tasks_of_ones_own_without_query_and_gallery(people, tmp_path, capsys):
    tasks = Tasks([Task('hat', 'clothes', ['none', 'cap', 'straw']), Task('coat', 'clothes', ['no', 'yes']), Task('bag', 'things', ['rucksack', 'case'], multilabel=True)])
    (tmp_path/'my.json').write_text(json.dumps(tasks.to_dict(), indent=1))
    pd.DataFrame(dict(image=[f'{i}.png' for i in range(6)], split='train', hat=['none', 'cap', 'straw']*2, coat=['no', 'yes']*3, bag=['', 'rucksack', 'rucksack|case']*2)).to_csv(tmp_path/'my.csv', index=False)
    cli.portrait_train(annotations=str(tmp_path/'my.csv'), root=str(people/'photos'), tasks=str(tmp_path/'my.json'), out=str(tmp_path/'run'), **TINY)
    assert 'Nothing is scored' in capsys.readouterr().out and not (tmp_path/'run/scores.csv').exists()
    cli.portrait_interpret(str(tmp_path/'run/model'), str(people/'photos/0.png'))
    assert [o.split()[0] for o in capsys.readouterr().out.strip().splitlines()] == tasks.names


def test_an_identity_of_another_name(people, tmp_path, capsys):
    tasks = Tasks([Task('person', 'appearance', None), Task('gender', 'appearance', ['male', 'female'])])
    (tmp_path/'my.json').write_text(json.dumps(tasks.to_dict()))
    for column in ('person', 'identity'):
        pd.read_csv(people/'my.csv').rename(columns=dict(identity=column)).to_csv(tmp_path/'my.csv', index=False)
        cli.portrait_train(annotations=str(tmp_path/'my.csv'), root=str(people/'photos'), tasks=str(tmp_path/'my.json'), out=str(tmp_path/column), **TINY)
        cli.portrait_eval(str(tmp_path/column/'model'), str(tmp_path/'my.csv'), str(people/'photos'))
        assert 'mAP' in capsys.readouterr().out


TABLE = 'image,split,gender\nRené.png,train,male\n'

@pytest.mark.parametrize('content, words', [
    (TABLE.replace(',', ';').encode(), ["separated by ';'", 'LibreOffice']), (TABLE.replace(',', '\t').encode(), ['separated by']),
    (TABLE.encode('cp1252'), ['line 2', "'René.png' in Windows-1252"]), (TABLE.encode('utf-16'), ['UTF-16']), (b'PK\x03\x04\x14\x00', ['a workbook']), (b'', ['empty']),
    (b'image,split,identity,Gender,ages\na.png,train,1,male,\n', ["did you mean 'gender': rename the column 'Gender' to 'gender'", "'ages' to 'age'", '--tasks']),
    (b'image,split,Expressions\n', ["'Expressions' to 'expression'"]), (b'image,split,hat\n', ['none of the columns', "'hat'"]), (b'Image,split,gender\n', ["did you mean 'Image'?"]),
    (b'image,split,gender\nnone.png,train,mail\n../x.png,test,male\n', ['2 rows', "did you mean 'male'?", 'leads out of the root'])])
def test_tables_that_are_none(tmp_path, content, words):
    (tmp_path/'t.csv').write_bytes(content)
    train_fails(tmp_path/'t.csv', tmp_path/'out', str(tmp_path/'t.csv'), *words)


def test_columns_that_only_sound_alike_are_the_users(people, tmp_path, capsys):
    pd.read_csv(people/'my.csv').assign(weight=70, page=3, wage=2).to_csv(tmp_path/'my.csv', index=False)
    cli.portrait_train(annotations=str(tmp_path/'my.csv'), root=str(people/'photos'), out=str(tmp_path/'run'), **TINY)
    assert 'not trained: age, physique, height, body, arm' in capsys.readouterr().out


@pytest.mark.parametrize('content, words', [
    (b'{', 'not json'), (b'[]', 'and this is a list'), (b'\xff\xfe', 'not UTF-8'), (b'{"tasks": [{"name": "hat", "aspect": "clothes", "labels": ["one"]}]}', "'hat' has 1 label"), (None, 'no such file')])
def test_task_files_that_are_none(people, tmp_path, content, words):
    if content is not None: (tmp_path/'t.json').write_bytes(content)
    train_fails(people/'my.csv', tmp_path/'out', '--tasks', 't.json', words, tasks=str(tmp_path/'t.json'))


@pytest.mark.parametrize('kwargs, words', [(dict(backbone='resnet_of_mine'), 'resnet_of_mine'), (dict(split='halves'), 'halves'), (dict(metric_loss='sift'), 'sift'),
                                           (dict(weighting='heavy'), 'heavy'), (dict(height=2), 'size must be'), (dict(bs=0), 'bs must be'), (dict(pretrained='no.pth'), 'no.pth')])
def test_arguments_that_nobody_knows(people, tmp_path, kwargs, words): train_fails(people/'my.csv', tmp_path/'out', words, root=people/'photos', **kwargs)


def test_missing_files_and_folders(people, trained, tmp_path):
    train_fails(tmp_path/'no.csv', tmp_path/'out', 'there is no such file')
    train_fails(people/'my.csv', tmp_path/'out', 'there is no such folder', root=tmp_path/'no')
    for call, words in [(lambda: cli.portrait_train(), '--annotations my.csv --root photos/'),
                        (lambda: cli.portrait_train(annotations=str(people/'my.csv'), root='.', out=str(trained)), 'nothing is overwritten'),
                        (lambda: cli.portrait_eval(str(tmp_path), str(people/'my.csv'), str(people/'photos')), 'is not a portrait model'),
                        (lambda: cli.portrait_eval(str(trained/'model'), str(tmp_path/'no.csv'), '.'), 'no such file'),
                        (lambda: cli.portrait_interpret(str(trained/'model'), str(tmp_path/'no.png')), 'cannot be read'),
                        (lambda: cli.portrait_interpret(str(trained/'model'), str(people/'photos/0.png'), gallery=str(tmp_path/'no')), 'is not a folder'),
                        (lambda: cli.portrait_interpret(str(trained/'model'), str(people/'photos/0.png'), gallery=str(people/'photos'), k=-30), 'k must be a whole number, 1 or more'),
                        (lambda: cli.portrait_demo(str(tmp_path/'demo'), str(tmp_path/'drawn'), preset='tiny', epochs=0), '--epochs'),
                        (lambda: cli.portrait_synth(str(tmp_path/'drawn'), preset='huge'), 'huge'),
                        (lambda: cli.portrait_demo(str(tmp_path/'demo'), str(tmp_path/'drawn'), preset='huge'), 'huge')]:
        with pytest.raises(SystemExit) as e: call()
        assert words in str(e.value) and str(e.value).startswith('portrait_')
    assert not (tmp_path/'drawn').exists()


def test_a_model_without_identity_searches_nothing_and_says_so_first(people, tmp_path, capsys):
    from portrait_nb import interpret
    from portrait_nb.model import PortraitNet
    from portrait_nb.tasks import PORTRAIT, Tasks
    look = interpret.Interpreter(PortraitNet(Tasks([PORTRAIT['gender']]), 'test_resnet', pretrained=False, size=(64,32)))
    with pytest.MonkeyPatch.context() as m:
        m.setattr(interpret, 'Interpreter', lambda model: look)
        with pytest.raises(SystemExit, match='no identity task'): cli.portrait_interpret('model', str(people/'photos/0.png'), gallery=str(people/'photos'))
    assert 'gender' not in capsys.readouterr().out


def test_in_a_shell_a_mistake_is_one_sentence_and_exit_code_1(people, tmp_path):
    (tmp_path/'t.csv').write_text('image;split;gender\n')
    r = sh('portrait_train', '--annotations', tmp_path/'t.csv', '--root', people/'photos', '--out', tmp_path/'out')
    assert r.returncode == 1 and "separated by ';'" in r.stderr and 'Traceback' not in r.stderr


@pytest.mark.parametrize('words, kwargs', [
    ('--epochs', dict(epochs=0)), ('--workers', dict(workers=-1)), ('--ema', dict(ema=1.)), ('--score_every', dict(score_every=0)), ('--epochs', dict(epochs=-1)), ('--lr', dict(lr=float('nan'))), ('--bs', dict(bs=1)),
    ('--metric_loss', dict(metric_loss='zz')), ('--split', dict(split='both')), ('--weighting', dict(weighting='best')), ('no file', dict(pretrained='none.safetensors'))])
def test_what_could_only_fail_later_is_refused_first(people, tmp_path, words, kwargs):
    train_fails(people/'my.csv', tmp_path/'out', words, root=people/'photos', **kwargs)


def test_out_must_not_be_a_file(people, tmp_path):
    (tmp_path/'out').write_text('mine')
    with pytest.raises(SystemExit, match='is a file'): cli.portrait_train(annotations=str(people/'my.csv'), root=str(people/'photos'), out=str(tmp_path/'out'), **TINY)
    assert (tmp_path/'out').read_text() == 'mine'


def test_interpret_draws_without_a_gallery(trained, people, tmp_path):
    cli.portrait_interpret(str(trained/'model'), str(people/'photos/0.png'), out=str(tmp_path/'told.png'))
    assert Image.open(tmp_path/'told.png').width > 500


def test_eval_scores_features_of_any_tool(tmp_path, capsys):
    from portrait_nb.metrics import retrieval_scores
    r, files = np.random.default_rng(0), {}
    for k, n in (('query', 40), ('gallery', 150)):
        files[k] = dict(features=r.normal(size=(n, 8)).astype(np.float32), ids=r.integers(0, 6, n), cams=r.integers(0, 3, n))
        np.savez(tmp_path/f'{k}.npz', **files[k])
    q, g = files['query'], files['gallery']
    want = retrieval_scores(q['features'], g['features'], q['ids'], g['ids'], query_cams=q['cams'], gallery_cams=g['cams'])
    cli.portrait_eval(str(tmp_path/'query.npz'), str(tmp_path/'gallery.npz'), features=True, out=str(tmp_path/'scores.csv'))
    assert pd.read_csv(tmp_path/'scores.csv', index_col='score').model[['mAP', 'plain_mAP']].tolist() == pytest.approx([want.macro_mAP, want.mAP], abs=1e-5)
    with pytest.raises(SystemExit, match='--report is for a model and a table'): cli.portrait_eval(str(tmp_path/'query.npz'), str(tmp_path/'gallery.npz'), features=True, report=str(tmp_path/'r'))
    np.savez(tmp_path/'half.npz', features=q['features'])
    with pytest.raises(SystemExit, match="no array 'ids'"): cli.portrait_eval(str(tmp_path/'half.npz'), str(tmp_path/'gallery.npz'), features=True)


def test_lint_exits_1_where_it_is_fatal(portraits, tmp_path, capsys):
    root, df = portraits
    cli.portrait_lint(str(root/'annotations.csv'), bs=16)
    assert '0 fatal' in capsys.readouterr().out
    df.assign(identity=['z']*len(df)).to_csv(tmp_path/'leak.csv', index=False)
    with pytest.raises(SystemExit) as e: cli.portrait_lint(str(tmp_path/'leak.csv'), root=str(root), bs=16)
    assert e.value.code == 1 and 'in train and in the test' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='k must be a whole number, 2 or more'): cli.portrait_lint(str(root/'annotations.csv'), k=0)


def test_lint_of_a_table_with_faults_says_the_rest_too(portraits, tmp_path, capsys):
    root, df = portraits
    bad = df.assign(gender=['males', *df.gender[1:]], split=[*df.split[:-1], 'tests'])
    bad.loc[2, 'image'] = '../secret.jpg'
    bad.to_csv(tmp_path/'bad.csv', index=False)
    with pytest.raises(SystemExit) as e: cli.portrait_lint(str(tmp_path/'bad.csv'), root=str(root), bs=16)
    told = capsys.readouterr().out
    assert e.value.code == 1 and "'males' is no label of gender" in told and "did you mean 'test" not in told and '0 fatal' in told


def test_lint_names_the_lines_of_the_file(people, tmp_path, capsys):
    lines = (people/'my.csv').read_text().splitlines()
    (tmp_path/'gaps.csv').write_text('\n'.join([lines[0], '', '', *lines[1:]]))
    cli.portrait_lint(str(tmp_path/'gaps.csv'), root=str(people/'photos'), bs=4, least=100)
    told = capsys.readouterr().out.splitlines()
    at = next(i for i, o in enumerate(told) if o.startswith('warning: gender'))
    assert {o.split()[0] for o in told[at+2:at+10] if o.strip().endswith('male')} <= {str(i) for i in range(4, 10)} and any(o.split()[:2] == ['line'] or 'line' in o for o in told[at:at+6])


def test_eval_of_a_table_without_a_column(trained, people, tmp_path):
    df = pd.read_csv(people/'my.csv')
    df.drop(columns='gender').to_csv(tmp_path/'less.csv', index=False)
    df.rename(columns=dict(gender='Gender')).to_csv(tmp_path/'near.csv', index=False)
    for csv, words in (('less', "no column 'gender', and the model answers that; add it"), ('near', "rename the column 'Gender' to 'gender'")):
        with pytest.raises(SystemExit, match=words): cli.portrait_eval(str(trained/'model'), str(tmp_path/f'{csv}.csv'), root=str(people/'photos'))


def test_a_terminal_with_another_alphabet(people, tmp_path):
    (tmp_path/'bad.csv').write_text('image,split,gender\na.jpg,train,males\n')
    run = subprocess.run([sys.executable, '-c', f"from portrait_nb.cli import portrait_lint; portrait_lint({str(tmp_path/'bad.csv')!r})"],
                         capture_output=True, env={**os.environ, 'PYTHONIOENCODING': 'cp1252'}, text=True, encoding='cp1252')
    assert run.returncode == 1 and '  ------' in run.stdout and "'males' is no label" in run.stdout and 'codec' not in run.stderr


def test_what_trains_is_written_into_the_run(people, tmp_path):
    cli.portrait_train(annotations=str(people/'my.csv'), root=str(people/'photos'), out=str(tmp_path/'out'), bf16=True, ema=.9, score_every=1, workers=0, **TINY)
    config = json.loads((tmp_path/'out'/'config.json').read_text())
    assert (config['bf16'], config['ema'], config['score_every'], config['loading']['num_workers']) == (True, .9, 1, 0)


def test_resume_takes_no_other_recipe(trained, people, tmp_path, capsys):
    for wrong, word in ((dict(epochs=200), '--epochs is for a new run'), (dict(bf16=True), '--bf16 is for a new run'), (dict(out='elsewhere'), '--out is for'), (dict(workers=-1), '--workers must be 0 or more')):
        with pytest.raises(SystemExit, match=word): cli.portrait_train(resume=str(trained), **wrong)
    shutil.copytree(people/'photos', tmp_path/'photos')
    cli.portrait_train(resume=str(trained), root=str(tmp_path/'photos'), workers=1)
    assert 'is finished: all 1 epochs are done' in capsys.readouterr().out


def test_both_kinds_of_mean_are_told(trained):
    scores = pd.read_csv(trained/'scores.csv', index_col='score').model
    assert list(scores.index[:2]) == ['mAP', 'rank1'] and {'plain_mAP', 'plain_rank1'} <= set(scores.index) and 'n_queries' not in scores.index


def test_the_subgroups_that_were_asked_for(trained, people, tmp_path):
    where = (str(trained/'model'), str(people/'my.csv'), str(people/'photos'))
    cli.portrait_eval(*where, report=str(tmp_path/'r'), by='gender')
    assert set(pd.read_csv(tmp_path/'r/report_subgroups.csv').gender) <= {'male', 'female'}
    with pytest.raises(SystemExit, match="--by must be one of gender, got 'expression'"): cli.portrait_eval(*where, report=str(tmp_path/'r'), by='expression')
    with pytest.raises(SystemExit, match='--by makes the subgroups of a report'): cli.portrait_eval(*where, by='gender')


def test_a_report_opens_only_what_it_scores(trained, people, tmp_path, capsys):
    "Of the train rows it needs no picture; the page may do without any"
    df = pd.read_csv(people/'my.csv')
    (tmp_path/'photos').mkdir()
    for o in df.image[df.split != 'train']: shutil.copy(people/'photos'/o, tmp_path/'photos'/o)
    where = (str(trained/'model'), str(people/'my.csv'), str(tmp_path/'photos'))
    cli.portrait_eval(*where, report=str(tmp_path/'r'), out=str(tmp_path/'again.csv'))
    told = capsys.readouterr().out
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path/'again.csv'), pd.read_csv(trained/'scores.csv'), atol=1e-4)
    assert 'By group: ' in told and 'report.html holds pictures' in told and 'majority' in told and 'no train rows' not in told
    page = (tmp_path/'r/report.html').read_text()
    assert '<img ' in page and 'my.csv' in page and str(trained/'model') in page and str(people) not in page.replace(str(trained), '')
    cli.portrait_eval(*where, report=str(tmp_path/'r'), no_pictures=True)
    assert '<img ' not in (tmp_path/'r/report.html').read_text() and 'report.html holds pictures' not in capsys.readouterr().out
    (tmp_path/'photos'/df.image[df.split == 'gallery'].iloc[0]).unlink()
    with pytest.raises(SystemExit, match='1 fault in 1 of 12 rows'): cli.portrait_eval(*where)
    with pytest.raises(SystemExit, match='--no_pictures is for the page'): cli.portrait_eval(*where, no_pictures=True)


def test_groups_are_offered_where_nobody_has_a_gender_or_age(people, tmp_path, capsys):
    df = pd.read_csv(people/'my.csv').rename(columns=dict(gender='Male'))
    df.to_csv(tmp_path/'my.csv', index=False)
    (tmp_path/'tasks.json').write_text(json.dumps(Tasks([Task('Male', 'a', ['male','female']), Task('expression', 'b', ['neutral','anger','fear'], multilabel=True)]).to_dict()))
    cli.portrait_train(annotations=str(tmp_path/'my.csv'), root=str(people/'photos'), tasks=str(tmp_path/'tasks.json'), out=str(tmp_path/'run'), **TINY)
    capsys.readouterr()
    where = (str(tmp_path/'run/model'), str(tmp_path/'my.csv'), str(people/'photos'))
    cli.portrait_eval(*where, report=str(tmp_path/'r'))
    assert 'Say with --by which of these make groups: Male\n' in capsys.readouterr().out and not (tmp_path/'r/report_subgroups.csv').exists()
    cli.portrait_eval(*where, report=str(tmp_path/'r'), by='Male')
    assert '--by' not in capsys.readouterr().out and (tmp_path/'r/report_subgroups.csv').exists()
    df[df.split != 'train'].to_csv(tmp_path/'test.csv', index=False)
    cli.portrait_eval(where[0], str(tmp_path/'test.csv'), where[2])
    assert 'no train rows: the majority guess' in capsys.readouterr().out


def test_pictures_in_both_folders_are_told(trained, people, tmp_path, capsys):
    "A query that lies in the gallery under another name finds itself"
    df = pd.read_csv(people/'my.csv').query('split!="train"').reset_index(drop=True)
    shutil.copytree(people/'photos', tmp_path/'photos')
    first = df[df.split == 'query'].iloc[0]
    shutil.copy(tmp_path/'photos'/first.image, tmp_path/'photos/copy.png')
    pd.concat([df, pd.DataFrame([{**first, 'image': 'copy.png', 'split': 'gallery'}])]).to_csv(tmp_path/'my.csv', index=False)
    with pytest.warns(UserWarning, match='1 of 2 queries find themselves'): cli.portrait_eval(str(trained/'model'), str(tmp_path/'my.csv'), str(tmp_path/'photos'))


def test_rows_of_a_table_of_ones_own(people, tmp_path, capsys, monkeypatch):
    from portrait_nb import ablation
    monkeypatch.setitem(ablation.SCALES, 'tiny', ablation.Scale('tiny', 1, 1e-2, stand_ins=dict(hrnet_w32=('test_resnet', None)), preset='tiny', bs=4))
    monkeypatch.setattr(ablation.table_loaders, '__defaults__', (*ablation.table_loaders.__defaults__[:-1], (32, 16)))
    (tmp_path/'my.json').write_text(json.dumps(Tasks([Task('identity', 'appearance', None), Task('gender', 'appearance', ['male', 'female'])]).to_dict()))
    pd.concat([pd.read_csv(people/'my.csv'), pd.DataFrame([dict(image='gone.png', split='train', identity='p0', gender='male')])]).to_csv(tmp_path/'my.csv', index=False)
    own = dict(preset='tiny', rows='fss', annotations=str(tmp_path/'my.csv'), root=str(people/'photos'), out=str(tmp_path/'out'), tasks=str(tmp_path/'my.json'))
    with pytest.raises(SystemExit, match='gone.png'): cli.portrait_ablate(**own)
    cli.portrait_ablate(**own, drop=True)
    lines = pd.read_csv(tmp_path/'out/tiny.csv')
    assert lines.train_images.tolist() == [6] and 'gender' in lines and 'expression' not in lines and 'PIQ' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='--tasks and --drop are for a table of your own'): cli.portrait_ablate(preset='tiny', drop=True)


@pytest.mark.parametrize('wrong, said', [(dict(rows=''), "--rows must be one of .* got ''"), (dict(rows='fss,best'), "got 'best'"), (dict(seeds='x'), "--seeds must be whole numbers .* got 'x'")])
def test_ablate_refuses_before_it_draws(tmp_path, monkeypatch, wrong, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=said): cli.portrait_ablate(preset='tiny', **wrong)
    assert not list(tmp_path.iterdir())


# --- portrait_import

def raf(root):
    for part, n in (('train', 9), ('test', 4)):
        for i in range(n):
            (root/'Image/aligned').mkdir(parents=True, exist_ok=True)
            Image.new('RGB', (16, 32), (20*i, 90, 30)).save(root/f'Image/aligned/{part}_{i:04d}_aligned.jpg')
    (root/'EmoLabel').mkdir()
    (root/'EmoLabel/list_patition_label.txt').write_text(''.join(f'{part}_{i:04d}.jpg {1+i%7}\n' for part, n in (('train', 9), ('test', 4)) for i in range(n)))
    return root


def test_import_of_a_set_can_be_trained_on(tmp_path, capsys):
    root = raf(tmp_path/'my sets')
    cli.portrait_import('rafdb', str(root), out=str(tmp_path/'my.csv'))
    told = capsys.readouterr().out
    assert '13 portraits in' in told and '9 train, 4 gallery; 1 sub-tasks' in told and 'non-commercial research only' in told and 'whdeng.cn' in told
    assert f"portrait_lint {tmp_path}/my.csv --root '{root}' --tasks {tmp_path}/my.json\n" in told
    given = told.strip().splitlines()[-1].replace(f"'{root}'", 'ROOT').split()
    assert given[0] == 'portrait_train' and given[1::2] == ['--annotations', '--root', '--tasks', '--out']
    df, tasks = pd.read_csv(tmp_path/'my.csv', keep_default_na=False), Tasks.from_dict(json.loads((tmp_path/'my.json').read_text()))
    assert tasks.names == ['expression'] and (df.expression != '').all() and {o.name for o in tmp_path.iterdir()} == {'my sets', 'my.csv', 'my.json'}
    cli.portrait_train(annotations=str(tmp_path/'my.csv'), root=str(root), tasks=str(tmp_path/'my.json'), out=str(tmp_path/'run'), **TINY)
    assert 'expression' in capsys.readouterr().out


def test_import_takes_the_options_of_its_reader(tmp_path, capsys):
    for i in range(12): (tmp_path/f'p/{"train" if i < 8 else "test"}').mkdir(parents=True, exist_ok=True)
    for i in range(12): (tmp_path/f'p/{"train" if i < 8 else "test"}/{i%3}_{"hat" if i%2 else "no"}{i}.png').touch()
    cli.portrait_import('folder_source', str(tmp_path/'p'), out=str(tmp_path/'my.csv'), pattern=r'^(?P<split>\w+)/(?P<identity>\d)_(?P<hat>hat|no)')
    assert '8 train' in capsys.readouterr().out and json.loads((tmp_path/'my.json').read_text())['tasks'][1]['labels'] == ['hat', 'no']


@pytest.mark.parametrize('given, words', [
    (dict(reader='raf'), ['--reader must be one of market1501']), (dict(first=3), ['--first is not for rafdb, which takes no options']), (dict(reader='peta', race=True), ['--race is not for peta', '--fold, --test, --n_attributes']),
    (dict(reader='folder_source'), ['needs --pattern']), (dict(out='x.txt'), ['must end in .csv']), (dict(out='none/x.csv'), ['there is no folder']), (dict(root='none'), ['RAF-DB: looked in none'])])
def test_imports_that_are_refused(tmp_path, monkeypatch, given, words):
    raf(tmp_path/'set')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as e: cli.portrait_import(**{**dict(reader='rafdb', root='set', out='my.csv'), **given})
    assert str(e.value).startswith('portrait_import: ') and all(o in str(e.value) for o in words), str(e.value)
    assert {o.name for o in tmp_path.iterdir()} == {'set'}


@pytest.mark.parametrize('there', ['my.csv', 'my.json'])
def test_import_overwrites_nothing(tmp_path, there):
    raf(tmp_path/'set')
    (tmp_path/there).write_text('mine')
    with pytest.raises(SystemExit, match='exists already, and nothing is overwritten'): cli.portrait_import('rafdb', str(tmp_path/'set'), out=str(tmp_path/'my.csv'))
    assert (tmp_path/there).read_text() == 'mine' and {o.name for o in tmp_path.iterdir()} == {'set', there}


def test_what_a_command_warns_of(tmp_path):
    "One sentence, without a line of the library's; of warnings that are not ours only the one that importing fastai causes is passed over"
    root = raf(tmp_path/'set')
    (root/'Image/aligned/train_0003_aligned.jpg').unlink()
    code = f'''
import warnings
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
    assert r.returncode == 0 and 'torch.jit.script' not in r.stderr and 'something else' in r.stderr and 'torch.jit.trace' in r.stderr
    assert r.stderr.splitlines()[0].startswith('portrait_import: RAF-DB: 1 of 13 images left out') and '.py' not in r.stderr.splitlines()[0] and 'FutureWarning' in r.stderr.splitlines()[1]

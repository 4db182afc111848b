"Trainings that are killed, and what becomes of them: every kill point ends in the bytes of a run that was never broken."
import errno, io, json, multiprocessing, os, shutil, signal, subprocess, sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from fastai.basics import Callback, OptimWrapper
from fastai.callback import fp16
from functools import partial

from portrait_nb import runs
from portrait_nb.annotations import AnnotationError
from portrait_nb.callbacks import EMA
from portrait_nb.runs import RunError, new_run, open_run, read_checkpoint, run_config
from portrait_nb.tasks import PORTRAIT, Tasks

pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('one_thread')]
LOADING = dict(size=(64, 32), bs=8, num_workers=0, device='cpu')
LEARNER = dict(backbone='test_resnet', pretrained=False, positives='mean', lr=1e-2)
KINDS = dict(plain={}, all=dict(schedule='fit_one_cycle', fit=dict(lr_max=1e-2), ema=.9, bf16=True, score_every=1,
                                loading={**LOADING, 'sampling': 'pk', 'num_workers': 1}))


def config_of(root, **kwargs):
    return run_config(root/'annotations.csv', root, PORTRAIT,
                      **{**dict(n_epoch=3, loading=LOADING, learner=LEARNER), **kwargs})


def quiet(run, cbs=None):
    with run.learn.no_bar(), run.learn.no_logging(): return run.fit(cbs)


def die(*_): os.kill(os.getpid(), signal.SIGKILL)


class Dying:
    "A file that takes half of what is written, then the process dies"
    def __init__(self, *args): self.f = io.open(*args)
    def write(self, data):
        self.f.write(data[:len(data)//2])
        self.f.flush()
        die()
    def __enter__(self): return self
    def __exit__(self, *args): pass


def call_nth(n, f, instead):
    "`f`, but `instead` of its call number `n`"
    def inner(*args, **kwargs):
        inner.n += 1
        return (instead if inner.n == n else f)(*args, **kwargs)
    inner.n = 0
    return inner


def replaced(f, *args): f(*args); die()


def half_a_line(self):
    with open(self.folder/'log.csv', 'a') as f: f.write('1,train,ident')
    die()


def nth_checkpoint(n, real, instead):
    "Count only what happens to last.pt"
    counted = call_nth(n, real, instead)
    return lambda a, b, *args: (counted if 'last.pt' in str(a) else real)(a, b, *args)


def install(where):
    "Make this process die at a place; a callback, or nothing"
    name, _, n = where.partition(':')
    n = int(n or 0)
    if name == 'batch': return Callback(after_backward=lambda cb: cb.epoch == n and cb.iter == 2 and die())
    if name == 'valid': return Callback(after_pred=lambda cb: not cb.training and cb.epoch == n and die())
    if name == 'half': runs.open = nth_checkpoint(n, io.open, Dying)
    if name == 'unmoved': runs.os = Patched(replace=nth_checkpoint(n, os.replace, die))
    if name == 'moved': runs.os = Patched(replace=nth_checkpoint(n, os.replace, partial(replaced, os.replace)))
    if name == 'unsynced': runs.os = Patched(fsync=call_nth(n, os.fsync, die))
    if name == 'log': runs.KeepRun._append_log = call_nth(n, runs.KeepRun._append_log, half_a_line)
    return None


class Patched:
    "`os`, with some functions of ours"
    def __init__(self, **kwargs): self.__dict__.update(kwargs)
    def __getattr__(self, k): return getattr(os, k)


def train(path, config, where):
    "In a process of its own: begin or take up the run at `path`, and die where told"
    torch.set_num_threads(1)
    multiprocessing.set_start_method('fork', force=True) # for the workers of loaders, as in a process from the shell
    cb = install(where)
    quiet(open_run(path) if (path/'config.json').exists() else new_run(path, config), cb)


@pytest.fixture(scope='module')
def start():
    ctx = multiprocessing.get_context('forkserver')
    ctx.set_forkserver_preload(['portrait_nb.runs'])
    def inner(*args, target=train):
        p = ctx.Process(target=target, args=args)
        p.start()
        p.join()
        return p.exitcode
    return inner


@pytest.fixture(scope='module')
def unbroken(start, portraits, tmp_path_factory):
    "Runs that were never broken, one a kind"
    d, runs_of = tmp_path_factory.mktemp('unbroken'), {}
    def inner(kind):
        if kind not in runs_of:
            assert start(d/kind, config_of(portraits[0], **KINDS[kind]), '') == 0
            runs_of[kind] = d/kind
        return runs_of[kind]
    return inner


def same(a, b):
    if torch.is_tensor(a): return torch.equal(a, b) and a.stride() == b.stride()
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b))
    return a == b or a != a and b != b


def same_end(a, b):
    one, two = read_checkpoint(a/'last.pt'), read_checkpoint(b/'last.pt')
    assert one['epoch'] == one['n_epoch'] == 3
    for k in one['learner']: assert same(one['learner'][k], two['learner'][k]), k
    assert same(one, two)
    for o in ('log.csv', 'scores_by_epoch.csv'):
        assert (a/o).exists() == (b/o).exists() and (not (a/o).exists() or (a/o).read_bytes() == (b/o).read_bytes())
    if (a/'best.pt').exists(): assert same(read_checkpoint(a/'best.pt'), read_checkpoint(b/'best.pt'))
    assert sorted(o.name for o in b.iterdir()) == sorted(o.name for o in a.iterdir())


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='kills by signal')
@pytest.mark.parametrize('kind, places', [
    ('plain', ['half:1']), ('plain', ['batch:0']), ('plain', ['batch:2']), ('plain', ['valid:1']),
    ('plain', ['half:3']), ('plain', ['unmoved:2']), ('plain', ['moved:3']), ('plain', ['moved:4']),
    ('plain', ['unsynced:8']),
    ('plain', ['log:2']), ('plain', ['batch:0', 'half:2', 'moved:1', 'batch:2']),
    ('all', ['batch:1']), ('all', ['unmoved:3']), ('all', ['log:1', 'valid:2'])],
    ids=lambda o: '-'.join(o) if isinstance(o, list) else o)
def test_killed_and_taken_up_is_as_never_broken(start, unbroken, portraits, tmp_path, kind, places):
    path, config = tmp_path/'run', config_of(portraits[0], **KINDS[kind])
    for o in places: assert start(path, config, o) == -signal.SIGKILL
    assert start(path, config, '') == 0
    same_end(unbroken(kind), path)


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='kills by signal')
def test_the_best_is_never_missing(start, portraits, tmp_path):
    assert start(tmp_path/'run', config_of(portraits[0], **KINDS['all']), 'moved:2') == -signal.SIGKILL
    last, best = (read_checkpoint(tmp_path/'run'/o) for o in ('last.pt', 'best.pt'))
    assert same(last, best) and last['best'] == last['scores'][0]['PIQ']


def test_a_finished_run_is_left_alone(unbroken, tmp_path, capsys):
    path = shutil.copytree(unbroken('all'), tmp_path/'run')
    before = {o.name: o.read_bytes() for o in path.iterdir() if o.name != 'curves.png'}
    learn = quiet(open_run(path))
    assert 'is finished: all 3 epochs are done' in capsys.readouterr().out
    assert {k: (path/k).read_bytes() for k in before} == before
    state = read_checkpoint(path/'last.pt')['learner']
    assert same(dict(learn.model.state_dict()), state['callbacks']['ema']['average'])
    assert not same(state['model'], state['callbacks']['ema']['average'])


def test_what_is_printed_is_the_whole_table(unbroken, portraits, tmp_path):
    def lines(run, cbs=None):
        run.learn.logger, out = (lambda o: out.append(list(o)[:3])), []
        with run.learn.no_bar():
            try: run.fit(cbs)
            except RunError: pass
        return out
    def stop(cb):
        if cb.epoch == 2: raise RunError('stopped')
    run = new_run(tmp_path/'run', config_of(portraits[0]))
    first = lines(run, Callback(before_train=stop))
    again = open_run(tmp_path/'run')
    whole = lines(again)
    assert [o[0] for o in whole] == [0, 1, 2] and whole[:2] == first
    assert whole == [[i, *o[:2]] for i, o in enumerate(again.learn.recorder.values)]
    assert len(again.learn.recorder.losses) == 3*5 and again.learn.recorder.iters == [5, 10, 15]
    same_end(unbroken('plain'), tmp_path/'run')


@pytest.mark.parametrize('room', [0, 1, 10_000])
def test_a_full_disk(portraits, tmp_path, monkeypatch, room):
    class Full(Dying):
        def write(self, data):
            self.f.write(data[:room])
            raise OSError(errno.ENOSPC, 'No space left on device')
        def __exit__(self, *args): self.f.close()
    def fill(cb):
        if cb.epoch == 1: monkeypatch.setattr(runs, 'open', Full, raising=False)
    with pytest.raises(RunError) as e:
        quiet(new_run(tmp_path/'run', config_of(portraits[0])), Callback(after_train=fill))
    assert str(e.value).count('\n') == 0
    assert 'No space left on device' in str(e.value)
    assert f'holds 1 of 3 epochs: go on with portrait_train --resume {tmp_path/"run"}' in str(e.value)
    monkeypatch.undo()
    assert read_checkpoint(tmp_path/'run/last.pt')['epoch'] == 1
    assert not list((tmp_path/'run').glob('.*'))


@pytest.mark.parametrize('num_workers', [0, 1])
def test_a_picture_that_breaks_and_is_mended(portraits, unbroken, tmp_path, num_workers):
    root = shutil.copytree(portraits[0], tmp_path/'photos')
    victim = root/pd.read_csv(root/'annotations.csv').image[3]
    good = victim.read_bytes()
    def harm(cb):
        if cb.epoch == 1: victim.write_bytes(b'no picture')
    with pytest.raises(RunError) as e:
        quiet(new_run(tmp_path/'run', config_of(root, loading={**LOADING, 'bs': 9, 'num_workers': num_workers})),
              Callback(before_train=harm))
    assert str(victim) in str(e.value) and 'holds 1 of 3 epochs' in str(e.value) and '\n' not in str(e.value)
    victim.write_bytes(good)
    quiet(open_run(tmp_path/'run'))
    quiet(new_run(tmp_path/'never', config_of(root, loading={**LOADING, 'bs': 9, 'num_workers': num_workers})))
    same_end(tmp_path/'never', tmp_path/'run')


def lose_a_worker(path, config, file):
    "In a process of its own, which torch's signal handler may interrupt where it likes: kill a worker, write down how the run ends"
    torch.set_num_threads(1)
    multiprocessing.set_start_method('fork', force=True)
    def harm(cb):
        if cb.training and (cb.epoch, cb.iter) == (1, 1): multiprocessing.active_children()[0].kill()
    try: quiet(new_run(path, config), Callback(before_batch=harm))
    except RunError as e: file.write_text(str(e))


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='kills by signal')
def test_a_worker_that_dies(start, portraits, tmp_path):
    assert start(tmp_path/'run', config_of(portraits[0], loading={**LOADING, 'bs': 2, 'num_workers': 2}),
                 tmp_path/'said', target=lose_a_worker) == 0
    sentence = (tmp_path/'said').read_text()
    assert 'process that reads pictures has died' in sentence and 'holds 1 of 3 epochs' in sentence
    assert '\n' not in sentence
    assert read_checkpoint(tmp_path/'run/last.pt')['epoch'] == 1


def test_ctrl_c_says_how_to_go_on(portraits, unbroken, tmp_path, capsys):
    def interrupt(cb):
        if cb.training and (cb.epoch, cb.iter) == (1, 3): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        quiet(new_run(tmp_path/'run', config_of(portraits[0])), Callback(after_step=interrupt))
    assert f"holds 1 of 3 epochs: go on with portrait_train --resume {tmp_path/'run'}" in capsys.readouterr().out
    quiet(open_run(tmp_path/'run'))
    same_end(unbroken('plain'), tmp_path/'run')


def test_a_loss_that_is_no_number(portraits, tmp_path):
    def harm(cb):
        if cb.training and (cb.epoch, cb.iter) == (1, 1): cb.xb[0][0, 0, 0, 0] = float('nan')
    words = 'inputs of this batch are not finite.*bad_batch_epoch1_1.pt.*The same batch will come again.*holds 1 of 3'
    with pytest.raises(RunError, match=words):
        quiet(new_run(tmp_path/'run', config_of(portraits[0])), Callback(before_batch=harm))
    assert torch.load(tmp_path/'run/bad_batch_epoch1_1.pt', weights_only=True)['xb'][0].isnan().sum() == 1


def test_data_that_moved_or_changed(portraits, unbroken, tmp_path):
    root = shutil.copytree(portraits[0], tmp_path/'photos')
    def stop(cb):
        if cb.epoch == 1: raise RunError('stopped')
    with pytest.raises(RunError, match='stopped'):
        quiet(new_run(tmp_path/'run', config_of(root)), Callback(before_train=stop))
    there = root.rename(tmp_path/'elsewhere')
    with pytest.raises(RunError, match='is gone: there is no'): open_run(tmp_path/'run')
    quiet(open_run(tmp_path/'run', annotations=there/'annotations.csv', root=there))
    same_end(unbroken('plain'), tmp_path/'run')
    text = (there/'annotations.csv').read_text()
    (there/'annotations.csv').write_text(text.replace('male', 'female', 1))
    with pytest.raises(RunError, match='SHA-256 differs'): open_run(tmp_path/'run', there/'annotations.csv', there)


def test_faulty_rows_that_come_or_go_between(portraits, tmp_path):
    root = shutil.copytree(portraits[0], tmp_path/'photos')
    images = pd.read_csv(root/'annotations.csv').image
    (root/images[0]).unlink()
    new_run(tmp_path/'run', config_of(root, drop=True))
    (root/images[1]).unlink()
    with pytest.raises(RunError, match='88 rows of .* can be used, 89 could'): open_run(tmp_path/'run')


def test_nothing_is_overwritten_and_nothing_is_left(portraits, tmp_path):
    config = config_of(portraits[0])
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine/thesis.txt').write_text('years of work')
    with pytest.raises(FileExistsError, match='choose another folder'): new_run(tmp_path/'mine', config)
    with pytest.raises(FileExistsError, match='choose another folder'): new_run(tmp_path/'mine/thesis.txt', config)
    for bad, error in ((dict(learner=dict(backbone='no_such')), ValueError),
                       (dict(loading=dict(sampling='none')), ValueError),
                       (dict(learner={**LEARNER, 'colour': 1}), TypeError)):
        with pytest.raises(error): new_run(tmp_path/'new', config_of(portraits[0], **bad))
    assert [o.name for o in tmp_path.iterdir()] == ['mine']
    assert (tmp_path/'mine/thesis.txt').read_text() == 'years of work'
    (tmp_path/'empty').mkdir()
    new_run(tmp_path/'empty', config)
    with pytest.raises(FileExistsError, match='portrait_train --resume'): new_run(tmp_path/'empty', config)
    with pytest.raises(AnnotationError):
        new_run(tmp_path/'far/away', config_of(portraits[0], drop=False) | dict(root=str(tmp_path/'nowhere')))
    assert not (tmp_path/'far').exists()


@pytest.mark.parametrize('harm, words', [
    (lambda p: (p/'config.json').unlink(), 'is not a run'),
    (lambda p: (p/'config.json').write_text('{'), 'is not json'),
    (lambda p: (p/'config.json').write_text('{"format": 99}'), 'format 1'),
    (lambda p: (p/'last.pt').write_bytes(b''), 'damaged'),
    (lambda p: (p/'last.pt').write_bytes((p/'last.pt').read_bytes()[:5000]), 'damaged'),
    (lambda p: torch.save(dict(format=99), p/'last.pt'), 'format 1'),
    (lambda p: torch.save({'a': Path('x')}, p/'last.pt'), 'not a checkpoint')])
def test_a_damaged_run_ends_in_a_sentence(unbroken, tmp_path, harm, words):
    path = shutil.copytree(unbroken('plain'), tmp_path/'run')
    harm(path)
    with pytest.raises(RunError, match=words) as e: quiet(open_run(path))
    assert '\n' not in str(e.value)


def change(path, **kwargs):
    (path/'config.json').write_text(json.dumps({**json.loads((path/'config.json').read_text()), **kwargs}))


@pytest.mark.parametrize('kind, kwargs, words', [
    ('plain', dict(n_epoch=4), 'begun with 3 epochs, this is a fit of 4'),
    ('plain', dict(learner={**LEARNER, 'split': 'shared'}), 'does not fit'),
    ('all', dict(ema=None), "callback 'ema'"),
    ('plain', dict(learner={**LEARNER, 'weighting': 'average'}), 'does not fit')])
def test_a_checkpoint_of_another_learner_is_refused(unbroken, tmp_path, kind, kwargs, words):
    path = shutil.copytree(unbroken(kind), tmp_path/'run')
    change(path, **kwargs)
    with pytest.raises((RunError, ValueError), match=words): quiet(open_run(path))


def test_a_run_goes_on_with_other_workers(start, unbroken, portraits, tmp_path):
    assert start(tmp_path/'run', config_of(portraits[0]), 'batch:1') == -signal.SIGKILL
    assert start(tmp_path/'run', 2, target=with_workers) == 0
    same_end(unbroken('plain'), tmp_path/'run')


def with_workers(path, n):
    torch.set_num_threads(1)
    multiprocessing.set_start_method('fork', force=True)
    quiet(open_run(path, workers=n))


def test_torchs_optimisers_resume_too(portraits, tmp_path, monkeypatch):
    build = runs.fss_learner
    monkeypatch.setattr(runs, 'fss_learner', partial(build, opt_func=partial(OptimWrapper, opt=torch.optim.AdamW)))
    config = config_of(portraits[0])
    def stop(cb):
        if cb.epoch == 2: raise RunError('stopped')
    with pytest.raises(RunError, match='stopped'): quiet(new_run(tmp_path/'run', config), Callback(before_train=stop))
    quiet(open_run(tmp_path/'run'))
    quiet(new_run(tmp_path/'never', config))
    same_end(tmp_path/'never', tmp_path/'run')


def test_the_scale_of_fp16_is_kept(portraits, tmp_path, monkeypatch):
    "fastai's MixedPrecision with a scaler that works on a CPU, and doubles its scale every fifth step"
    scaler = torch.amp.GradScaler
    on_cpu = partial(scaler, 'cpu', init_scale=64, growth_interval=5)
    monkeypatch.setattr(fp16, 'GradScaler', lambda _, **kwargs: on_cpu(**kwargs))
    scales, config = [], config_of(portraits[0])
    def stop(cb):
        if cb.epoch == 1: raise RunError('stopped')
    note = Callback(after_backward=lambda cb: scales.append(cb.learn.scaler.get_scale()))
    with pytest.raises(RunError, match='stopped'):
        quiet(new_run(tmp_path/'run', config), [fp16.MixedPrecision(), Callback(before_train=stop)])
    with pytest.raises(ValueError, match='to_fp16'): quiet(open_run(tmp_path/'run'))
    quiet(open_run(tmp_path/'run'), [fp16.MixedPrecision(), note])
    resumed, scales[:] = list(scales), []
    quiet(new_run(tmp_path/'never', config), [fp16.MixedPrecision(), note])
    assert scales[-len(resumed):] == resumed and scales[0] == 64 < resumed[0] < resumed[-1]
    same_end(tmp_path/'never', tmp_path/'run')


def test_weights_without_a_gradient_stay_without(portraits, tmp_path):
    "A weight that got a gradient once is stepped by momentum ever after; one that never did is not"
    def once(cb):
        extra = cb.model.extra
        if cb.training: cb.learn.loss_grad = cb.loss_grad + (extra[0]*2 if (cb.epoch, cb.iter) == (0, 0) else 0)
    def with_extra(run):
        run.learn.model.extra = torch.nn.ParameterList([torch.nn.Parameter(torch.ones(())),
                                                        torch.nn.Parameter(torch.ones(()))])
        return run
    def stop(cb):
        if cb.epoch == 1: raise RunError('stopped')
    config = config_of(portraits[0])
    with pytest.raises(RunError, match='stopped'):
        quiet(with_extra(new_run(tmp_path/'run', config)), [Callback(after_loss=once), Callback(before_train=stop)])
    quiet(with_extra(open_run(tmp_path/'run')), Callback(after_loss=once))
    quiet(with_extra(new_run(tmp_path/'never', config)), Callback(after_loss=once))
    a, b = (read_checkpoint(tmp_path/o/'last.pt')['learner'] for o in ('never', 'run'))
    assert same(a, b) and a['model']['extra.1'] == 1 and a['model']['extra.0'] < 1


def test_an_augment_and_few_tasks_travel_through_the_configuration(portraits, tmp_path):
    tasks = Tasks(PORTRAIT.attributes)
    config = run_config(portraits[0]/'annotations.csv', portraits[0], tasks, n_epoch=1,
                        loading={**LOADING, 'augment': dict(erase=.1, pad=2)}, learner=LEARNER, score_every=1)
    new_run(tmp_path/'run', config)
    run = open_run(tmp_path/'run')
    augment = run.learn.dls.train.after_batch.fs[-1]
    assert augment.pad == 2 and run.learn.dls.tasks.names == tasks.names
    quiet(run)
    assert pd.read_csv(tmp_path/'run/scores_by_epoch.csv').PIQ.between(0, 1).all()
    quiet(run.__class__(run.path, run.config, run.use_best()))


def test_a_resume_needs_no_pretrained_weights(portraits, tmp_path):
    donor = new_run(tmp_path/'donor', config_of(portraits[0]))
    torch.save(donor.learn.model.body.state_dict(), tmp_path/'w.pth')
    config = config_of(portraits[0], learner={**LEARNER, 'pretrained': str(tmp_path/'w.pth')})
    def stop(cb): raise RunError('stopped')
    with pytest.raises(RunError, match='stopped'): quiet(new_run(tmp_path/'run', config), Callback(before_train=stop))
    (tmp_path/'w.pth').unlink()
    with pytest.raises(FileNotFoundError): new_run(tmp_path/'other', config)
    quiet(open_run(tmp_path/'run'))
    assert read_checkpoint(tmp_path/'run/last.pt')['epoch'] == 3


def test_train_rows_alone_are_not_validated(portraits, tmp_path):
    root = shutil.copytree(portraits[0], tmp_path/'photos')
    df = pd.read_csv(root/'annotations.csv', dtype=str, keep_default_na=False)
    df[df.split == 'train'].to_csv(root/'annotations.csv', index=False)
    quiet(new_run(tmp_path/'run', config_of(root, n_epoch=1)))
    assert set(pd.read_csv(tmp_path/'run/log.csv').phase) == {'train'}


def test_two_processes_do_not_train_one_run(portraits, tmp_path):
    run = new_run(tmp_path/'run', config_of(portraits[0]))
    with run.alone():
        with pytest.raises(RunError, match='is being trained by another process'): quiet(open_run(tmp_path/'run'))
        second = subprocess.run([sys.executable, '-c',
                                f"from portrait_nb.runs import open_run; open_run({str(tmp_path/'run')!r}).fit()"],
                               capture_output=True, text=True)
        assert second.returncode and 'is being trained by another process' in second.stderr
    quiet(open_run(tmp_path/'run'))
    assert read_checkpoint(tmp_path/'run'/'last.pt')['epoch'] == run.config['n_epoch']


def test_what_cannot_be_scored_is_refused_before_it_is_trained(portraits, tmp_path):
    root, df = portraits
    df.drop(columns='source').to_csv(tmp_path/'no_source.csv', index=False)
    df[df.split != 'query'].to_csv(tmp_path/'no_query.csv', index=False)
    for name, words, kwargs in (('no_source', 'needs a camera', dict(cameras=True)),
                                ('no_query', 'nothing to score on', dict(score_every=1))):
        config = run_config(tmp_path/f'{name}.csv', root, PORTRAIT, n_epoch=1, loading=LOADING, learner=LEARNER,
                            **kwargs)
        with pytest.raises(ValueError, match=words): new_run(tmp_path/'run', config)
    assert not (tmp_path/'run').exists()


def test_identity_alone_has_no_losses_in_validation_to_draw(portraits, tmp_path):
    config = run_config(portraits[0]/'annotations.csv', portraits[0], Tasks([PORTRAIT['identity']]), n_epoch=1,
                        loading=LOADING, learner={**LEARNER, 'weighting': 'average'})
    run = new_run(tmp_path/'run', config)
    quiet(run)
    assert (tmp_path/'run'/'curves.png').exists()
    with pytest.raises(ValueError, match="nothing to plot of 'valid'"): run.learn.loss_recorder.plot('valid')


def test_an_environment_begins_with_what_was_run():
    where = runs.environment(preset='tiny', seed=3)
    assert list(where)[:3] == ['preset', 'seed', 'date']
    assert set(where) - {'preset', 'seed'} == set(runs.environment())
    assert where['hardware'] == (torch.cuda.get_device_name() if torch.cuda.is_available() else runs.processor())


def test_one_process_is_the_first(capsys):
    assert runs.on_first_process(divmod, 7, 2) == (3, 1) and runs.from_all_processes('me') == ['me']
    with pytest.raises(ZeroDivisionError): runs.on_first_process(divmod, 7, 0)


def test_looking_at_a_run_leaves_what_is_being_written(portraits, tmp_path):
    "Half a checkpoint is swept away by whoever trains the run, not by whoever opens it"
    new_run(tmp_path/'run', config_of(portraits[0], n_epoch=1))
    (tmp_path/'run'/'.last.pt.new').write_bytes(b'half')
    run = open_run(tmp_path/'run')
    assert (tmp_path/'run'/'.last.pt.new').exists()
    quiet(run)
    assert not (tmp_path/'run'/'.last.pt.new').exists()

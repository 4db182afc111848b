"Rows: what they train, that they resume, that eight networks are scored as one"
import matplotlib.pyplot as plt, pandas as pd, pytest
from PIL import Image
from conftest import write_set
from dataclasses import replace
from fastai.callback.core import Callback
from filelock import FileLock
import portrait_nb.ablation as ablation
from portrait_nb.ablation import n_epochs, read_results, row_learner, run_key, same_data
from portrait_nb.data import portrait_dls
from portrait_nb.metrics import piq
from portrait_nb.results import plot_rows, summary
from portrait_nb.rows import ROWS, TABLE4, TABLE5, Experiments, Row, Scale, grid
from portrait_nb.runs import RunError
from portrait_nb.tasks import PORTRAIT, Task, Tasks

SHORT = Scale('short', 2, 1e-2, stand_ins=dict(hrnet_w32=('test_byobnet', 16), hrnet_w64=('byobnet_wide', 16),
                                               resnet50=('test_byobnet', None),
                                               tf_efficientnetv2_b0=('test_efficientnet', 16)), bs=16)


def loaders(portraits, tasks=PORTRAIT, **kwargs):
    root, df = portraits
    return portrait_dls(df, root, tasks, size=(64, 32), bs=16, num_workers=0, seed=0, device='cpu', **kwargs)


def where(tmp_path): return dict(out=tmp_path/'runs', results=tmp_path/'r.csv')


def scores_of(table): return table.drop(columns=['seconds', 'date', 'commit']).reset_index(drop=True)


@pytest.mark.parametrize('row', ROWS, ids=lambda o: o.name)
def test_a_learner_trains_what_its_row_says(portraits, row):
    names = ['age'] if row.split == 'single' else ()
    learn = row_learner(loaders(portraits), row, SHORT, names=names)
    model, loss = learn.model, learn.loss_func
    assert model.split == ('shared' if row.split == 'single' else row.split)
    for o in ('metric_loss', 'weighting', 'lam', 'positives'): assert getattr(loss, o) == getattr(row, o)
    assert model.tasks.names == list(names or row.tasks or PORTRAIT.names)
    assert model.output_stride == (None if row.backbone == 'resnet50' else 16)
    sampler = learn.dls.train.sampler
    assert (sampler is None) == (row.sampling == 'random')
    assert sampler is None or sampler.mixed == (row.sampling == 'shuffle')
    assert hasattr(learn, 'logit_adjustment') == bool(row.tau)


def test_the_same_portraits_in_other_batches(portraits):
    dls = loaders(portraits)
    again = same_data(dls, sampling='pk', seed=3)
    assert set(again.train.dataset.df.image) == set(dls.train.dataset.df.image)
    assert list(again.query_df.image) == list(dls.query_df.image)
    assert again.tasks == dls.tasks
    assert again.train.bs == 16
    assert again.size == (64, 32)
    assert [type(o) for o in again.train.after_batch.fs] == [type(o) for o in dls.train.after_batch.fs]
    assert same_data(dls, ['age']).tasks.names == ['age']
    assert len(same_data(loaders(portraits, augment=False)).train.after_batch.fs) == len(dls.train.after_batch.fs)-1


def test_a_key_changes_with_what_is_trained_and_nothing_else(portraits):
    dls, row = loaders(portraits), Row('a')
    key = run_key(dls, row, SHORT, 0)
    assert run_key(loaders(portraits), replace(row, name='b'), replace(SHORT, name='other'), 0) == key
    assert run_key(same_data(dls, seed=5), row, SHORT, 0) == key
    others = {**SHORT.stand_ins, 'resnet50': ('test_resnet', None)} # in place of what this row does not train
    assert run_key(dls, row, replace(SHORT, stand_ins=others), 0) == key
    root, df = portraits
    other = [run_key(dls, replace(row, lam=.1), SHORT, 0), run_key(dls, row, replace(SHORT, n_epoch=3), 0),
             run_key(dls, row, SHORT, 1), run_key(loaders((root, df[:-1])), row, SHORT, 0),
             run_key(loaders(portraits, augment=False), row, SHORT, 0)]
    other.append(run_key(dls, row, replace(SHORT, stand_ins={'hrnet_w32': ('test_byobnet', None)}), 0))
    assert len({key, *other}) == 7


@pytest.mark.parametrize('tasks', [PORTRAIT, Tasks(PORTRAIT.attributes), Tasks([PORTRAIT['identity']])],
                         ids=['portrait', 'attributes', 'identity'])
def test_a_line_holds_the_scores_of_the_learner(portraits, tasks, tmp_path, monkeypatch):
    dls, expected = loaders(portraits, tasks), {}
    real = ablation.outcome
    def outcome(learn, *args):
        expected.update(learn.portrait_scores(), params=sum(o.numel() for o in learn.model.parameters()))
        return real(learn, *args)
    monkeypatch.setattr(ablation, 'outcome', outcome)
    line = Experiments([Row('fss')]).run(dls, SHORT, **where(tmp_path)).iloc[0]
    for k in [*tasks.names, 'mAP', 'rank1', 'rank5', 'PIQ', 'params']:
        if k in expected: assert line[k] == pytest.approx(expected[k], abs=1e-5)
    assert 'PIQ_low' in line
    assert line.PIQ_low <= line.PIQ <= line.PIQ_high
    assert line.backbone == 'test_byobnet'
    assert line.n_epoch == 2


@pytest.mark.parametrize('sampling', ['random', 'pk', 'shuffle'])
def test_at_an_even_scale_every_row_gets_as_many_batches(portraits, sampling, tmp_path):
    root, df = portraits
    few = df.assign(identity=df.identity.where(df.groupby(['split', 'identity']).cumcount() < 4, ''))
    dls, row, scale = loaders((root, few)), replace(TABLE4['shared'], sampling=sampling), replace(SHORT, n_epoch=4,
                                                                                                  even=True)
    of_row, epochs = len(row_learner(dls, row, scale).dls.train), n_epochs(dls, row, scale)
    assert abs(epochs*of_row-4*len(dls.train)) <= of_row/2 and n_epochs(dls, row, replace(scale, even=False)) == 4
    if sampling == 'pk': assert epochs == 8
    line = Experiments([row]).run(dls, scale, **where(tmp_path)).iloc[0]
    assert line.n_epoch == epochs == pd.read_csv(tmp_path/'r_losses.csv').epoch.max()+1


def test_another_picture_is_another_run(tmp_path):
    df = write_set(tmp_path)
    key = run_key(loaders((tmp_path, df)), Row('a'), SHORT, 0)
    Image.new('RGB', (32, 64)).save(tmp_path/df.image[0])
    assert run_key(loaders((tmp_path, df)), Row('a'), SHORT, 0) != key


def test_piq_needs_every_sub_task(portraits, tmp_path):
    table = (TABLE4+TABLE5).run(loaders(portraits), SHORT, ['fss', 'reid-none'], **where(tmp_path)).set_index('row')
    assert table.PIQ.notna().fss and pd.isna(table.PIQ['reid-none']) and table.mAP.notna().all()
    assert list(summary(table.reset_index()).index) == ['fss']


def test_differences_are_those_of_the_lines(portraits, tmp_path):
    dls, run = loaders(portraits), where(tmp_path)
    lines = TABLE4.run(dls, SHORT, ['single', 'fss'], (0, 1), **run).groupby('row').mean(numeric_only=True)
    table = TABLE4.differences(dls, [('fss', 'single')], SHORT, (0, 1), run['out'], n=20).set_index('score')
    for k in ('mAP', 'rank1', 'age', 'expression', 'PIQ'):
        assert table.difference[k] == pytest.approx(lines.loc['fss', k]-lines.loc['single', k], abs=1e-5)
    assert (table.low <= table.difference).all()
    assert (table.difference <= table.high).all()
    assert (table.trainings == 2).all()
    with pytest.raises(ValueError, match="row 'fss' with seed 2 is not among the runs"):
        TABLE4.differences(dls, [('fss', 'single')], SHORT, (2,), run['out'])


def test_circumstances_of_all_sittings(portraits, tmp_path, monkeypatch):
    dls, run, real = loaders(portraits), where(tmp_path), ablation.environment
    class Stop(Callback):
        def before_epoch(self):
            if self.epoch == 1: raise KeyboardInterrupt
    monkeypatch.setattr(ablation, 'environment', lambda: dict(real(), commit='first'))
    whole = ablation.row_learner
    monkeypatch.setattr(ablation, 'row_learner', lambda *a: whole(*a).add_cb(Stop()))
    with pytest.raises(KeyboardInterrupt): TABLE4.run(dls, SHORT, ['fss'], **run)
    monkeypatch.setattr(ablation, 'row_learner', whole)
    monkeypatch.setattr(ablation, 'environment', lambda: dict(real(), commit='second'))
    assert TABLE4.run(dls, SHORT, ['fss'], **run).commit[0] == 'first; second'


def test_eight_networks_are_scored_as_one(portraits, tmp_path):
    dls, run = loaders(portraits), where(tmp_path)
    line = TABLE4.run(dls, SHORT, ['single'], **run).iloc[0]
    assert line.PIQ == pytest.approx(piq({'mAP': line.mAP, 'rank1': line.rank1,
                                          **{t.name: line[t.name] for t in PORTRAIT.attributes}}), abs=1e-4)
    alone = row_learner(dls, Row('x', 'shared'), SHORT, 0, ['age'])
    with alone.no_bar(), alone.no_logging(): alone.fit_one_cycle(2, 1e-2)
    assert line.age == pytest.approx(alone.portrait_scores()['age'], abs=1e-5)
    losses = pd.read_csv(tmp_path/'r_losses.csv')
    assert len(losses) == 2*8 and set(losses.task) == set(PORTRAIT.names) and line.params > 8*150_000


def test_what_is_there_is_not_trained_again(portraits, tmp_path, monkeypatch):
    dls, run = loaders(portraits), where(tmp_path)
    first = TABLE4.run(dls, SHORT, ['fss'], **run)
    monkeypatch.setattr(ablation, 'row_learner', lambda *a: pytest.fail('trained again'))
    assert TABLE4.run(dls, SHORT, ['fss'], **run).equals(first)
    run['results'].unlink()
    assert scores_of(TABLE4.run(dls, SHORT, ['fss'], **run)).equals(scores_of(first))


def test_columns_may_differ_between_lines(portraits, tmp_path):
    dls, run = loaders(portraits), where(tmp_path)
    TABLE5.run(dls, SHORT, ['reid-none'], **run)
    both = (TABLE4+TABLE5).run(dls, SHORT, ['fss', 'reid-none'], **run)
    assert list(both.row) == ['reid-none', 'fss']
    assert both.age.isna().tolist() == [True, False]
    assert both.mAP.notna().all()
    assert read_results(run['results']).equals(both) and list(summary(both, 'age').index) == ['fss']


class Stop(Callback):
    "An interrupt in the middle of the second epoch"
    order = 200
    def after_batch(self):
        if self.training and self.epoch == 1: raise KeyboardInterrupt


def test_an_interrupted_row_goes_on(portraits, tmp_path, monkeypatch):
    dls, real = loaders(portraits), ablation.row_learner
    whole = TABLE4.run(dls, SHORT, ['uncertainty'], **where(tmp_path/'a'))
    def stopping(*args):
        learn = real(*args)
        learn.add_cb(Stop())
        return learn
    monkeypatch.setattr(ablation, 'row_learner', stopping)
    with pytest.raises(KeyboardInterrupt): TABLE4.run(dls, SHORT, ['uncertainty'], **where(tmp_path/'b'))
    assert not (tmp_path/'b'/'r.csv').exists()
    monkeypatch.setattr(ablation, 'row_learner', real)
    rest = TABLE4.run(dls, SHORT, ['uncertainty'], **where(tmp_path/'b'))
    assert scores_of(rest).equals(scores_of(whole))


def test_two_processes_keep_out_of_each_others_way(portraits, tmp_path, capsys):
    dls, run = loaders(portraits), where(tmp_path)
    folder = run['out']/run_key(dls, TABLE4['fss'], SHORT, 0)
    folder.mkdir(parents=True)
    with FileLock(folder/'lock'): got = TABLE4.run(dls, SHORT, ['fss', 'shared'], **run)
    assert 'fss, seed 0: another process is training it.' in capsys.readouterr().out and list(got.row) == ['shared']


def test_grid_multiplies_out():
    got = grid(Row('x', metric_loss='br'), lam=(.1, .5), positives=('sum', 'mean'))
    assert [(o.lam, o.positives) for o in got] == [(.1, 'sum'), (.1, 'mean'), (.5, 'sum'), (.5, 'mean')]
    assert all(o.metric_loss == 'br' for o in got)
    with pytest.raises(TypeError): grid(Row('x'), depth=(1, 2))


def test_wrong_use(portraits, tmp_path):
    with pytest.raises(ValueError, match="same name, 'a'"): Experiments([Row('a'), Row('a')])
    with pytest.raises(KeyError, match="no row 'best'"):
        TABLE4.run(loaders(portraits), SHORT, ['best'], **where(tmp_path))
    with pytest.raises(ValueError, match="scale must be one of"):
        TABLE4.run(loaders(portraits), 'huge', **where(tmp_path))


def test_a_sub_task_cannot_take_the_column_of_a_setting(portraits, tmp_path):
    root, df = portraits
    tasks = Tasks([Task('lr', 'appearance', PORTRAIT['gender'].labels)])
    dls = loaders((root, df.assign(lr=df.gender)), tasks)
    with pytest.raises(ValueError, match="The sub-task 'lr' has the name of a column"):
        TABLE4.run(dls, SHORT, ['fss'], **where(tmp_path))
    assert loaders(portraits, Tasks([PORTRAIT['height']])).tasks.names == ['height']
    line = TABLE4.run(loaders(portraits, Tasks([PORTRAIT['identity']])), SHORT, ['fss'], **where(tmp_path)).iloc[0]
    assert 'height' not in line and line['size'] == '64x32'


@pytest.mark.parametrize('row, words', [(TABLE4['pk'], "identit"), (Row('odd', metric_loss='bra'), "'bra'"),
                                        (Row('odd', weighting='equal'), "'equal'")],
                         ids=lambda o: getattr(o, 'name', None))
def test_a_later_row_that_cannot_be_trained_is_refused_before_the_first(portraits, tmp_path, row, words):
    "A table without identity has no P-K batches"
    dls = loaders(portraits, Tasks(PORTRAIT.attributes))
    with pytest.raises(ValueError, match=words): Experiments([Row('fss'), row]).run(dls, SHORT, **where(tmp_path))
    assert not (tmp_path/'runs').exists()


@pytest.mark.parametrize('row, tasks, words', [(Row('x', 'single', sampling='pk'), PORTRAIT, 'draws by identity'),
                                               (TABLE5['reid-br'], Tasks(PORTRAIT.attributes),
                                                "trains the sub-task 'identity', which these portraits do not have")],
                         ids=['single', 'reid'])
def test_rows_that_do_not_fit_their_sub_tasks_are_refused(portraits, tmp_path, row, tasks, words):
    with pytest.raises(ValueError, match=words):
        Experiments([Row('fss'), row]).run(loaders(portraits, tasks), SHORT, **where(tmp_path))
    assert not (tmp_path/'runs').exists()


def test_what_cannot_be_scored_is_refused_before_it_is_trained(portraits, tmp_path):
    root, df = portraits
    with pytest.raises(ValueError, match='needs a camera'):
        TABLE4.run(loaders((root, df.drop(columns='source'))), SHORT, ['fss'], cameras=True, **where(tmp_path))
    with pytest.raises(ValueError, match='nothing to score on'):
        TABLE4.run(loaders((root, df[df.split != 'query'])), SHORT, ['fss'], **where(tmp_path))
    assert not (tmp_path/'runs').exists()


def test_two_names_for_one_training(portraits, tmp_path):
    "In one call they are refused; later the second name is told, and nothing is trained"
    dls, run = loaders(portraits), where(tmp_path)
    with pytest.raises(ValueError, match="'br' and 'br lam=0.5' train the same"):
        Experiments([TABLE4['br'], *grid(TABLE4['br'], lam=(.5, 1.))]).run(dls, SHORT, **run)
    first = TABLE4.run(dls, SHORT, ['br'], **run)
    again = grid(TABLE4['br'], lam=(.5,)).run(dls, SHORT, **run)
    assert list(again.row) == ['br lam=0.5']
    assert again.key.equals(first.key)
    assert list(read_results(run['results']).row) == ['br']


def test_identity_alone_without_a_match_has_a_line_without_scores(portraits, tmp_path):
    root, df = portraits
    dls = loaders((root, df.assign(identity=[o if s == 'train' else f'{s}{i}'
                                             for i, (o, s) in enumerate(zip(df.identity, df.split))])),
                  Tasks([PORTRAIT['identity']]))
    line = Experiments([Row('fss')]).run(dls, SHORT, **where(tmp_path)).iloc[0]
    assert line.row == 'fss' and 'mAP' not in line


def test_broken_off_between_the_two_files(portraits, tmp_path, monkeypatch):
    "The losses are there once, and the line comes with the next call"
    dls, run, real = loaders(portraits), where(tmp_path), ablation._append
    def append(file, lines):
        if file == run['results']: raise KeyboardInterrupt
        real(file, lines)
    monkeypatch.setattr(ablation, '_append', append)
    with pytest.raises(KeyboardInterrupt): TABLE4.run(dls, SHORT, ['fss'], **run)
    monkeypatch.setattr(ablation, '_append', real)
    line = TABLE4.run(dls, SHORT, ['fss'], **run)
    assert len(line) == 1 and len(pd.read_csv(tmp_path/'r_losses.csv')) == 2*8


def test_the_commit_is_that_of_the_training(portraits, tmp_path, monkeypatch):
    "Not that of the moment when the line is written"
    now, real = dict(commit='early'), ablation.outcome
    monkeypatch.setattr(ablation, 'environment', lambda: dict(now))
    monkeypatch.setattr(ablation, 'outcome', lambda *args: (now.update(commit='late'), real(*args))[1])
    assert TABLE4.run(loaders(portraits), SHORT, ['fss'], **where(tmp_path)).commit[0] == 'early'


def test_a_score_with_a_blank_in_its_name_is_drawn():
    fig, ax = plt.subplots()
    plot_rows(ax, pd.DataFrame([{'row': 'a', 'hair colour': .5, 'hair colour_low': .4, 'hair colour_high': .7}]), ['a'],
              'hair colour')
    assert [o.get_text() for o in ax.get_yticklabels()] == ['a']
    plt.close(fig)


def test_a_damaged_outcome_ends_in_a_sentence(portraits, tmp_path):
    dls, run = loaders(portraits), where(tmp_path)
    TABLE4.run(dls, SHORT, ['fss'], **run)
    run['results'].unlink()
    file = run['out']/run_key(dls, TABLE4['fss'], SHORT, 0)/'outcome.pt'
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RunError, match='is not a checkpoint, or was damaged'): TABLE4.run(dls, SHORT, ['fss'], **run)


def test_accuracy_and_the_majority_guess_stand_in_every_line(portraits, tmp_path):
    "Counted by hand from what the run has kept"
    dls, run = loaders(portraits), where(tmp_path)
    line = TABLE4.run(dls, SHORT, ['fss'], **run).iloc[0]
    predicted = ablation.run_predictions(dls, TABLE4['fss'], SHORT, 0, run['out'])[0]['said']
    for name in ('gender', 'age', 'body'):
        actual = pd.concat([pd.Series(o.dataset.labels[name].numpy()) for o in (dls.query, dls.gallery)]).to_numpy()
        known, common = actual != -1, pd.Series(dls.train.dataset.labels[name].numpy()).loc[lambda o: o != -1].mode()[0]
        assert line[f'{name}_accuracy'] == pytest.approx((predicted[name].numpy() == actual)[known].mean(), abs=1e-5)
        assert line[f'{name}_majority'] == pytest.approx((actual == common)[known].mean(), abs=1e-5)
    assert {f'{t.name}_{o}' for t in PORTRAIT.attributes for o in ('accuracy', 'majority')} <= set(line.index)

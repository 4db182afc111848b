import hashlib, pickle, random, sys
from importlib.util import find_spec
from types import SimpleNamespace
import numpy as np
import pandas as pd
import pytest, torch
from fastai.basics import Learner
from PIL import Image
from torch import nn
from portrait_nb.data import (Augment, PKSampler, PictureError, PortraitLoaders, denormalise, encode_labels, label_text,
                              normalise, portrait_dl, portrait_dls, read_portrait)
from portrait_nb.losses import PortraitLoss
from portrait_nb.model import PortraitNet
from portrait_nb.tasks import PORTRAIT, Task, Tasks

SIZE = (64, 32)


def table(root, n=40, seed=0):
    "A small table and its pictures: every third portrait unidentified, a cell in five empty"
    rng, rows = np.random.default_rng(seed), []
    for i in range(n):
        split = 'train' if i<n*.6 else 'query' if i<n*.7 else 'gallery'
        identity = '' if i%3 == 0 and split != 'query' else f"{split[0]}{i%4}"
        r = dict(image=f'{i}.png', split=split, identity=identity, source='a', group=str(i//2))
        for t in PORTRAIT.attributes: r[t.name] = t.labels[rng.integers(t.n_labels)] if rng.random()<.8 else ''
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(root/r['image'])
        rows.append(r)
    rows[1]['expression'] = 'anger|fear'
    return pd.DataFrame(rows)


@pytest.fixture(scope='module')
def root(tmp_path_factory): return tmp_path_factory.mktemp('portraits')


@pytest.fixture(scope='module')
def df(root): return table(root)


def load(df, root, tasks=PORTRAIT, **kw):
    return portrait_dls(df, root, tasks, **{**dict(size=SIZE, bs=8, num_workers=0, seed=0, device='cpu'), **kw})


# --- pictures

@pytest.mark.parametrize('mode', ['L', '1', 'P', 'RGBA', 'LA', 'CMYK', 'YCbCr', 'I;16'])
def test_every_mode_becomes_rgb(tmp_path, mode):
    img = Image.new('RGB', (40, 60), (200, 200, 200))
    img = Image.fromarray(np.full((60, 40), 200*257, np.uint16)) if mode == 'I;16' else img.convert(mode)
    f = tmp_path/('a.tif' if mode in ('CMYK', 'YCbCr') else 'a.png')
    img.save(f)
    x = read_portrait(f, (30, 20))
    assert x.shape == (3, 30, 20) and x.dtype == torch.uint8 and x.is_contiguous()
    if mode != '1': assert (x.float()-200).abs().max()<8 # a web palette dithers


def test_palette_with_transparency_is_quiet(tmp_path, recwarn):
    img = Image.new('P', (10, 20)); img.putpalette([10, 20, 30]*256)
    img.save(tmp_path/'a.png', transparency=b'\x00'*3)
    assert read_portrait(tmp_path/'a.png', (20, 10))[:, 0, 0].tolist() == [10, 20, 30] and not len(recwarn)


def test_orientation(tmp_path):
    img = Image.new('RGB', (80, 160), 'white'); img.paste('red', (0, 0, 80, 80)) # red above
    for tag, turn in ((1, 0), (3, 180), (6, 90), (8, 270)):
        exif = Image.Exif(); exif[0x0112] = tag
        img.rotate(turn, expand=True).save(tmp_path/'a.jpg', exif=exif)
        x = read_portrait(tmp_path/'a.jpg', (32, 16)).float()
        assert x[1, :14].mean()<20 and x[1, 18:].mean()>235, tag


def test_sources_agree(tmp_path):
    a = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    Image.fromarray(a).save(tmp_path/'a.png')
    for o in (tmp_path/'a.png', str(tmp_path/'a.png'), Image.fromarray(a), a):
        assert (read_portrait(o, SIZE).permute(1, 2, 0).numpy() == a).all()


@pytest.mark.parametrize('content', [b'', b'hello', b'\x89PNG\r\n\x1a\n'+b'\x00'*40])
def test_bad_pictures_are_named(tmp_path, content):
    f = tmp_path/'bad.png'; f.write_bytes(content)
    with pytest.raises(PictureError, match='bad.png: the picture cannot be read') as e: read_portrait(f)
    assert '\n' not in str(e.value)
    with pytest.raises(PictureError, match='this bytes'): read_portrait(b'x')


# --- labels

def test_encode_against_a_loop():
    rng = np.random.default_rng(0)
    for t in PORTRAIT.attributes:
        cells = []
        for _ in range(50):
            k = rng.choice(t.n_labels, rng.integers(1, 3) if t.multilabel else 1, replace=False)
            cells.append('' if rng.random()<.2 else '|'.join(t.labels[i] for i in k))
        y = encode_labels(pd.Series(cells), t)
        assert y.dtype == (torch.float32 if t.multilabel else torch.int64)
        for c, row in zip(cells, y):
            if not c and t.multilabel: assert row.tolist() == [-1.]*t.n_labels
            elif t.multilabel: assert row.tolist() == [float(o in c.split('|')) for o in t.labels]
            else: assert row.item() == (t.labels.index(c) if c else -1)
    assert encode_labels(pd.Series([], dtype=str), PORTRAIT['expression']).shape == (0, 7)


def test_none_of_these_is_a_row_of_zeros():
    bag = Task('bag', 'appearance', ['hat', 'glasses'], multilabel=True)
    assert encode_labels(pd.Series(['-', '', 'hat']), bag).tolist() == [[0, 0], [-1, -1], [1, 0]]
    assert label_text(bag, torch.zeros(2)) != label_text(bag, -torch.ones(2))


def test_many_identities_are_quick():
    names = [f'{i:06d}' for i in range(30_000)]
    y = encode_labels(pd.Series(names[::-1]), Task('identity', 'appearance', names, is_identity=True))
    assert y.tolist() == list(range(30_000))[::-1]


# --- loaders

def test_every_label_arrives_with_its_picture(df, root):
    dls = load(df, root, augment=False)
    assert isinstance(dls, PortraitLoaders)
    train, n = df[df.split == 'train'].reset_index(drop=True), 0
    pictures = torch.stack([read_portrait(root/o, SIZE) for o in train.image])
    for x, y in dls.train:
        for k, o in enumerate(denormalise(x)):
            i = int((pictures == o).flatten(1).all(1).nonzero())
            for t in dls.tasks: assert (y[t.name][k] == encode_labels(train[t.name], t)[i]).all()
            n += 1
    assert n == 24 and len(dls.train) == 3


def test_identities(df, root):
    dls = load(df, root)
    known = sorted(set(df[df.split == 'train'].identity)-{''})
    assert list(dls.tasks.identity.labels) == known
    y = torch.cat([y['identity'] for _, y in dls.train])
    assert y.min() == -1 and y.max() == len(known)-1
    for dl in (dls.valid, dls.query, dls.gallery):
        for _, y in dl: assert (y['identity'] == -1).all()
    assert dls.query_df.identity.tolist() == df[df.split == 'query'].identity.tolist()
    assert dls.gallery_df.group.tolist() == df[df.split == 'gallery'].group.tolist()
    assert len(dls.valid.dataset) == len(dls.query_df)+len(dls.gallery_df) and dls.size == SIZE


def test_query_and_gallery_keep_the_order_of_the_table(df, root):
    dls = load(df, root)
    for dl, part in ((dls.query, 'query'), (dls.gallery, 'gallery')):
        x = torch.cat([x for x, _ in dl])
        assert (denormalise(x) == torch.stack([read_portrait(root/o, SIZE) for o in df[df.split == part].image])).all()


def test_same_seed_same_batches(df, root):
    def two_epochs(**kw):
        dls = load(df, root, **kw)
        return [(x.double().sum().item(), y['age'].tolist()) for _ in range(2) for x, y in dls.train]
    a = two_epochs(seed=3)
    torch.rand(3); random.random()
    assert a == two_epochs(seed=3) == two_epochs(seed=3, num_workers=1)
    assert a != two_epochs(seed=4) and a[:3] != a[3:]


@pytest.mark.parametrize('sampling,expected', [('random', '32f4459cc02bfb73'), ('pk', '9fa256be33e2f6bb'),
                                               ('shuffle', 'e777a3e0a7a50ecd')])
def test_the_batches_of_seed_0(df, root, sampling, expected):
    "The bits of an epoch, as trainings of the past saw them"
    digest = hashlib.sha256()
    for x, y in load(df, root, sampling=sampling, k=2).train:
        digest.update(denormalise(x).numpy().tobytes())
        for o in y.values(): digest.update(o.numpy().tobytes())
    assert digest.hexdigest()[:16] == expected


def test_the_programs_own_random_numbers_are_left_alone(df, root):
    dls = load(df, root)
    torch.manual_seed(0); a = torch.rand(3)
    torch.manual_seed(0); aug = Augment(SIZE)(torch.rand(4, 3, *SIZE)*0, split_idx=0); b = torch.rand(3)
    torch.manual_seed(0); torch.rand(4, 3, *SIZE); assert (b == torch.rand(3)).all()


def test_augmentation_is_for_training_only(df, root):
    x = torch.rand(4, 3, *SIZE)
    aug = Augment(SIZE)
    assert (aug(x, split_idx=1) == x).all() and not (aug(x, split_idx=0) == x).all()
    plain = load(df, root, augment=False)
    assert not any(isinstance(o, Augment) for o in plain.train.after_batch.fs)
    assert any(isinstance(o, Augment) for o in load(df, root).train.after_batch.fs)


def test_an_augment_of_ones_own(df, root):
    own = Augment(SIZE, erase=0, flip=1, pad=0)
    dls = load(df, root, augment=own)
    assert [o for o in dls.train.after_batch.fs if isinstance(o, Augment)] == [own]
    assert not any(isinstance(o, Augment) for dl in (dls.valid, dls.query, dls.gallery) for o in dl.after_batch.fs)
    plain = load(df, root, augment=Augment(SIZE, erase=0, flip=0, pad=0))
    assert torch.equal(dls.train.one_batch()[0], plain.train.one_batch()[0].flip(3)) # the same seed, so the same order
    dl = portrait_dl(df[df.split == 'train'], root, dls.tasks, size=SIZE, bs=8, device='cpu', train=True, augment=own)
    assert own in list(dl.after_batch.fs)


@pytest.mark.parametrize('augment,fault', [('mild', 'must be True, False or an Augment'), (None, 'must be True, False'),
                                           (Augment((32, 16)), 'made for portraits of .32, 16.')])
def test_augment_refusals(df, root, augment, fault):
    with pytest.raises(ValueError, match=fault): load(df, root, augment=augment)


@pytest.mark.parametrize('h,pad', [(256, 10), (128, 5), (64, 2), (16, 1)])
def test_padding_follows_the_height(h, pad): assert Augment((h, h//2)).pad == pad


def test_each_portrait_gets_its_own_draw():
    x = torch.rand(1, 3, *SIZE).expand(64, -1, -1, -1)
    y = Augment(SIZE)(x, split_idx=0)
    assert y.shape == x.shape and y.dtype == torch.float32 and len({tuple(o.flatten()[::37].tolist()) for o in y})>32


def test_normalise_is_imagenets():
    x = torch.randint(0, 256, (2, 3, 8, 4), dtype=torch.uint8)
    m, s = [torch.tensor(o)[:, None, None] for o in ([.485, .456, .406], [.229, .224, .225])]
    torch.testing.assert_close(normalise(x), (x/255-m)/s)
    assert (denormalise(normalise(x)) == x).all()


@pytest.mark.parametrize('n,bs,batches', [(5, 128, [5]), (8, 8, [8]), (9, 8, [8]), (17, 8, [8, 8]), (2, 1, [1, 1])])
def test_batch_sizes(df, root, n, bs, batches):
    dls = load(df[df.split == 'train'].iloc[:n], root, Tasks([PORTRAIT['age']]), bs=bs)
    assert [len(x) for x, _ in dls.train] == batches == [bs if len(batches)>1 else min(n, bs)]*len(dls.train)
    assert len(dls.valid) == len(dls.query) == len(dls.gallery) == 0


# --- samplers

def people(rng, n_ids, most, n_rest):
    ids = [f'p{i}' for i in range(n_ids) for _ in range(rng.integers(1, most))]+['']*n_rest
    return rng.permutation(np.array(ids, dtype=object))


@pytest.mark.parametrize('seed', range(25))
def test_deal_against_its_rules(seed):
    rng = np.random.default_rng(seed)
    k, p = int(rng.integers(2, 6)), int(rng.integers(2, 8))
    ids = people(rng, int(rng.integers(p, 40)), [3, 10, 80][seed%3], int(rng.integers(0, 50)))
    sampler = PKSampler(ids, k)
    _, n, _ = sampler.plan(p*k)
    groups = sum(-(-len(o)//k) for o in sampler.own)
    rows = sampler.epoch(p*k, seed)
    assert rows.shape == (n, p*k) == (-(-groups//p), p*k)
    for b in rows.reshape(n, p, k):
        assert all(len(set(ids[g])) == 1 for g in b) and len({ids[g[0]] for g in b}) == p and '' not in ids[b.flatten()]
        for g in b: assert len(set(g)) == min(k, (ids == ids[g[0]]).sum()) # no repeat inside a group that need not be
    for own in sampler.own:
        times = np.bincount(rows.flatten(), minlength=len(ids))[own]
        assert times.max()-times.min() <= 1 and times.sum() >= min(len(own), n*k)
        if len(own) <= n*k: assert times.min() >= 1


@pytest.mark.parametrize('bs,p', [(32, None), (30, None), (32, 2), (32, 4), (32, 8)])
def test_mixed_epochs(bs, p):
    rng = np.random.default_rng(0)
    ids = people(rng, 30, 12, 150)
    sampler = PKSampler(ids, p=p, mixed=True)
    p_, n, alone = sampler.plan(bs)
    assert p_ == p or p is None
    assert (alone>0) == (p_*4 == bs)
    rows = sampler.epoch(bs, 7)
    assert rows.shape == (n+alone, bs)
    named = (ids[rows] != '').sum(1)
    assert sorted(set(named)) == ([0, bs] if alone else [p_*4]) and (named == 0).sum() == alone
    for b in rows[named>0]: assert sorted(pd.Series(ids[b]).replace('', np.nan).value_counts()) == [4]*p_
    assert set(rows.flatten()) == set(range(len(ids)))
    rest = np.bincount(rows.flatten(), minlength=len(ids))[ids == '']
    assert rest.max()-rest.min() <= 1


def test_proportion_of_the_mix():
    ids = np.array([f'{i%50}' for i in range(1000)]+['']*1000, dtype=object)
    sampler = PKSampler(ids, mixed=True)
    assert sampler.plan(128) == (16, 16, 0)
    assert np.bincount(sampler.epoch(128, 0).flatten()).tolist().count(1)>1900


def test_epochs_follow_from_seed_and_number():
    ids = people(np.random.default_rng(0), 20, 9, 40)
    for mixed in (False, True):
        a, b = PKSampler(ids, mixed=mixed), PKSampler(list(ids), mixed=mixed)
        b.epoch(16, 5) # asks nothing of the past
        assert (a.epoch(16, (3, 1)) == b.epoch(16, (3, 1))).all()
        assert not (a.epoch(16, (3, 1)) == a.epoch(16, (3, 2))).all()


def test_samplers_at_the_papers_size_are_quick():
    rng = np.random.default_rng(0)
    ids = np.array([f'{i}' for i in np.minimum(rng.zipf(1.3, 70_000), 640)]+['']*95_000, dtype=object)
    for mixed in (False, True):
        rows = PKSampler(ids, mixed=mixed).epoch(128, 0)
        assert rows.shape[1] == 128 and len(rows)>500


@pytest.mark.parametrize('sampling', ['random', 'pk', 'shuffle'])
def test_sampled_loaders(df, root, sampling):
    kw = dict(sampling=sampling, k=2)
    def two_epochs(**over):
        dls = load(df, root, **{**kw, **over})
        return [(x.double().sum().item(), y['identity'].tolist()) for _ in range(2) for x, y in dls.train]
    a = two_epochs(seed=3)
    n = len(load(df, root, **kw).train)
    assert len(a) == 2*n and a == two_epochs(seed=3, num_workers=2) and a != two_epochs(seed=4) and a[:n] != a[n:]
    resumed = load(df, root, seed=3, **kw).train
    resumed.skip_epochs(1)
    assert [y['identity'].tolist() for _, y in resumed] == [o for _, o in a[n:]]
    for _, ids in a:
        c = pd.Series(ids).value_counts()
        if sampling == 'pk': assert c.tolist() == [2]*4
        if sampling == 'shuffle': assert -1 in c and set(c.drop(-1)) == {2}


def test_the_other_loaders_are_not_sampled(df, root):
    dls = load(df, root, sampling='pk', k=2)
    assert [o.sampler is None for o in (dls.train, dls.valid, dls.query, dls.gallery)] == [False, True, True, True]
    assert dls.train.new(shuffle=False, drop_last=False).get_idxs() == list(range(24))
    other = portrait_dl(df, root, dls.tasks, size=SIZE, bs=8, device='cpu').dataset
    assert dls.train.new(other).sampler is None and dls.train.new().sampler is dls.train.sampler
    assert [len(x) for x, _ in dls.train.new(bs=4)] == [4]*len(dls.train.new(bs=4))


@pytest.mark.parametrize('world', [2, 3])
@pytest.mark.parametrize('sampling', ['pk', 'shuffle'])
def test_every_process_gets_whole_batches(df, root, sampling, world, monkeypatch):
    if not find_spec('accelerate'): # fastai.distributed imports it, and DistributedDL doesn't use it
        monkeypatch.setitem(sys.modules, 'accelerate', SimpleNamespace(Accelerator=type('Accelerator', (), {})))
    from fastai.distributed import DistributedDL
    monkeypatch.setenv('WORLD_SIZE', str(world))
    monkeypatch.setattr(DistributedDL, '_broadcast', lambda self, t, rank: t)
    parts = []
    for rank in range(world):
        dl = DistributedDL(load(df, root, sampling=sampling, k=2, seed=1).train, rank=rank, world_size=world)
        parts.append([y['identity'].tolist() for _, y in dl])
        assert len(parts[-1]) == len(dl)
    assert len({len(o) for o in parts}) == 1
    batches = sum(parts, [])
    assert batches == [y['identity'].tolist() for _, y in load(df, root, sampling=sampling, k=2, seed=1).train]
    for b in batches: assert set(pd.Series(b).replace(-1, np.nan).value_counts()) == {2}


def test_sampling_refusals(df, root):
    def refuse(match, d=df, tasks=PORTRAIT, **kw):
        with pytest.raises(ValueError, match=match): load(d, root, tasks, **kw)
    refuse("divisible by k=3, got bs=8; take bs=6", sampling='pk', k=3)
    refuse("needs 8 identities in the train split, which has 4; take bs=8 at most", sampling='pk', k=2, bs=16)
    refuse("take p=4 at most", sampling='shuffle', k=2, p=5, bs=16)
    eight = df.assign(identity=[*'abcdefgh', *['']*32])
    refuse("bs=8 does not hold p=5 identities x k=2", sampling='shuffle', k=2, p=5, d=eight)
    refuse("bs=8 does not hold p=3 identities x k=2", sampling='pk', k=2, p=3)
    refuse("take more than bs=4", sampling='shuffle', k=2, bs=4)
    refuse("draws by identity, and none of the sub-tasks age is one", tasks=Tasks([PORTRAIT['age']]), sampling='pk')
    refuse("there are none; use sampling='pk'", d=df[df.identity != ''], sampling='shuffle')
    refuse("sampling must be", sampling='best')
    refuse("sampling must be", sampling=None)
    for k in (1, 0, -4, 2.5, '4'): refuse("k must be 2 or more", sampling='pk', k=k)
    for p in (1, 0, 2.5): refuse("p must be 2 or more", sampling='shuffle', p=p)


def test_a_learner_trains_on_p_k(df, root):
    dls = load(df, root, sampling='pk', k=2)
    net = PortraitNet(dls.tasks, 'test_resnet', pretrained=False, size=SIZE)
    learn = Learner(dls, net, loss_func=PortraitLoss(dls.tasks, metric_loss='triplet'))
    with learn.no_logging(): learn.fit(1, 1e-3)
    assert np.isfinite(learn.recorder.values[0][0])


def test_bad_picture_in_an_epoch(df, root):
    (root/'broken.png').write_bytes((root/'0.png').read_bytes()[:100])
    bad = pd.concat([df, df.iloc[:1].assign(image='broken.png')], ignore_index=True)
    for n in (0, 1):
        with pytest.raises(PictureError) as e: list(load(bad, root, num_workers=n).train)
        message = str(e.value)
        assert message.startswith(str(root)) and '\n' not in message
        assert 'broken.png: the picture cannot be read' in message


def test_refusals(df, root):
    def refuse(match, d=df, r=root, tasks=PORTRAIT, **kw):
        with pytest.raises(ValueError, match=match): load(d, r, tasks, **kw)
    refuse("no column 'split'", df.drop(columns='split'))
    refuse("no column 'image'", df.drop(columns='image'))
    refuse("no column 'arm'", df.drop(columns='arm'))
    refuse("no column 'identity'", df.drop(columns='identity'))
    splits = ['train', 'train', 'test']+['train']*(len(df)-3)
    refuse("Row 2 of the table, column 'split': 'test'", df.assign(split=splits))
    refuse("at least two rows", df[df.split != 'train'])
    refuse("at least two rows", df[:0])
    refuse("No train row has an identity", df.assign(identity=''))
    refuse("is not a folder", r=root/'nowhere')
    refuse("bs must be", bs=0)
    for s in (64, (64,), (4, 4), '64'): refuse('size must be', size=s)
    odd = df.copy(); odd.loc[7, 'body'] = 'flying'
    refuse("Row 7 of the table, column 'body': unknown label 'flying'", odd)


def test_given_identities_are_kept(df, root):
    names = [*sorted(set(df[df.split == 'train'].identity)-{''}), 'zz']
    dls = load(df, root, PORTRAIT.with_identities(names))
    assert list(dls.tasks.identity.labels) == names
    with pytest.raises(ValueError, match="column 'identity': unknown label"):
        load(df, root, PORTRAIT.with_identities(names[1:]))


def test_missing_cells_and_an_identity_under_another_name(df, root):
    odd = df.rename(columns=dict(identity='actor')).replace('', np.nan)
    tasks = Tasks([Task('actor', 'appearance', None), PORTRAIT['age'], PORTRAIT['expression']])
    assert list(load(odd, root, tasks).tasks.identity.labels) == list(load(df, root).tasks.identity.labels)
    assert list(load(df, root, tasks).tasks.identity.labels) == list(load(df, root).tasks.identity.labels)


def test_one_loader_for_scores(df, root):
    tasks = load(df, root).tasks
    dl = portrait_dl(df[df.split == 'gallery'], root, tasks, size=SIZE, bs=8, device='cpu')
    assert sum(len(x) for x, _ in dl) == (df.split == 'gallery').sum()
    assert dl.df.image.tolist() == df[df.split == 'gallery'].image.tolist()


def test_datasets_can_travel_to_a_process(df, root):
    ds = load(df, root).train.dataset
    assert (pickle.loads(pickle.dumps(ds))[3][0] == ds[3][0]).all()


def test_show_batch(df, root, monkeypatch):
    import portrait_nb.data as D
    sheets = []
    monkeypatch.setattr(D, 'display', sheets.append)
    dls = load(df, root)
    dls.show_batch(); dls.query.show_batch(max_n=2); dls.train.show_batch(dls.train.one_batch(), max_n=3)
    load(df, root, Tasks([PORTRAIT['expression']])).show_batch()
    assert len(sheets) == 4


# --- a Learner

@pytest.mark.parametrize('tasks', [PORTRAIT, Tasks([PORTRAIT['age']]), Tasks([Task('identity', 'appearance', None)])])
def test_a_learner_trains(df, root, tasks):
    torch.manual_seed(0)
    dls = load(df, root, tasks)
    net = PortraitNet(dls.tasks, 'test_resnet', pretrained=False, size=SIZE)
    loss = PortraitLoss(dls.tasks, metric_loss='br', weighting='uncertainty')
    learn = Learner(dls, net, loss_func=loss)
    before = net.neck(tasks.names[0]).classifier.weight.detach().clone()
    with learn.no_logging(): learn.fit(1, 1e-3)
    assert not torch.equal(before, net.neck(tasks.names[0]).classifier.weight)
    assert np.isfinite(learn.recorder.values[0][0])
    assert all(not o.bn.bias.any() for o in net.necks)


def test_a_learner_without_query_and_gallery(df, root):
    dls = load(df[df.split == 'train'], root)
    net = PortraitNet(dls.tasks, 'test_resnet', pretrained=False, size=SIZE)
    learn = Learner(dls, net, loss_func=PortraitLoss(dls.tasks))
    with learn.no_logging(): learn.fit(1, 1e-3)
    assert np.isfinite(learn.recorder.values[0][0])

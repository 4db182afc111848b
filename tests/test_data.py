import pickle, random
import numpy as np
import pandas as pd
import pytest, torch
from fastai.basics import Learner
from PIL import Image
from torch import nn
from portrait_nb.data import (Augment, PictureError, PortraitLoaders, denormalise, encode_labels, normalise, portrait_dl, portrait_dls, read_portrait)
from portrait_nb.losses import PortraitLoss
from portrait_nb.model import PortraitNet
from portrait_nb.tasks import PORTRAIT, Task, Tasks

SIZE = (64,32)

def table(root, n=40, seed=0):
    "A small table and its pictures: every third portrait unidentified, a cell in five empty"
    rng,rows = np.random.default_rng(seed),[]
    for i in range(n):
        split = 'train' if i<n*.6 else 'query' if i<n*.7 else 'gallery'
        r = dict(image=f'{i}.png', split=split, identity='' if i%3==0 and split!='query' else f"{split[0]}{i%4}", source='a', group=str(i//2))
        for t in PORTRAIT.attributes: r[t.name] = t.labels[rng.integers(t.n_labels)] if rng.random()<.8 else ''
        Image.fromarray(rng.integers(0,256,(*SIZE,3),dtype=np.uint8)).save(root/r['image'])
        rows.append(r)
    rows[1]['expression'] = 'anger|fear'
    return pd.DataFrame(rows)

@pytest.fixture(scope='module')
def root(tmp_path_factory): return tmp_path_factory.mktemp('portraits')

@pytest.fixture(scope='module')
def df(root): return table(root)

def load(df, root, tasks=PORTRAIT, **kw): return portrait_dls(df, root, tasks, **{**dict(size=SIZE, bs=8, num_workers=0, seed=0, device='cpu'), **kw})

# --- pictures

@pytest.mark.parametrize('mode', ['L','1','P','RGBA','LA','CMYK','YCbCr','I;16'])
def test_every_mode_becomes_rgb(tmp_path, mode):
    img = Image.new('RGB', (40,60), (200,200,200))
    img = Image.fromarray(np.full((60,40), 200*257, np.uint16)) if mode=='I;16' else img.convert(mode)
    f = tmp_path/('a.tif' if mode in ('CMYK','YCbCr') else 'a.png')
    img.save(f)
    x = read_portrait(f, (30,20))
    assert x.shape==(3,30,20) and x.dtype==torch.uint8 and x.is_contiguous()
    if mode!='1': assert (x.float()-200).abs().max()<8 # a web palette dithers

def test_palette_with_transparency_is_quiet(tmp_path, recwarn):
    img = Image.new('P', (10,20)); img.putpalette([10,20,30]*256)
    img.save(tmp_path/'a.png', transparency=b'\x00'*3)
    assert read_portrait(tmp_path/'a.png', (20,10))[:,0,0].tolist()==[10,20,30] and not len(recwarn)

def test_orientation(tmp_path):
    img = Image.new('RGB', (80,160), 'white'); img.paste('red', (0,0,80,80)) # red above
    for tag,turn in ((1,0),(3,180),(6,90),(8,270)):
        exif = Image.Exif(); exif[0x0112] = tag
        img.rotate(turn, expand=True).save(tmp_path/'a.jpg', exif=exif)
        x = read_portrait(tmp_path/'a.jpg', (32,16)).float()
        assert x[1,:14].mean()<20 and x[1,18:].mean()>235, tag

def test_sources_agree(tmp_path):
    a = np.random.default_rng(0).integers(0,256,(64,32,3),dtype=np.uint8)
    Image.fromarray(a).save(tmp_path/'a.png')
    for o in (tmp_path/'a.png', str(tmp_path/'a.png'), Image.fromarray(a), a): assert (read_portrait(o, SIZE).permute(1,2,0).numpy()==a).all()

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
            k = rng.choice(t.n_labels, rng.integers(1,3) if t.multilabel else 1, replace=False)
            cells.append('' if rng.random()<.2 else '|'.join(t.labels[i] for i in k))
        y = encode_labels(pd.Series(cells), t)
        assert y.dtype==(torch.float32 if t.multilabel else torch.int64)
        for c,row in zip(cells, y):
            if t.multilabel: assert row.tolist()==([-1.]*t.n_labels if not c else [float(o in c.split('|')) for o in t.labels])
            else: assert row.item()==(t.labels.index(c) if c else -1)
    assert encode_labels(pd.Series([],dtype=str), PORTRAIT['expression']).shape==(0,7)

def test_many_identities_are_quick():
    names = [f'{i:06d}' for i in range(30_000)]
    y = encode_labels(pd.Series(names[::-1]), Task('identity','appearance',names,identity=True))
    assert y.tolist()==list(range(30_000))[::-1]

# --- loaders

def test_every_label_arrives_with_its_picture(df, root):
    dls = load(df, root, augment=False)
    assert isinstance(dls, PortraitLoaders)
    train,seen = df[df.split=='train'].reset_index(drop=True),0
    pictures = torch.stack([read_portrait(root/o, SIZE) for o in train.image])
    for x,y in dls.train:
        for k,o in enumerate(denormalise(x)):
            i = int((pictures==o).flatten(1).all(1).nonzero())
            for t in dls.tasks: assert (y[t.name][k]==encode_labels(train[t.name], t)[i]).all()
            seen += 1
    assert seen==24 and len(dls.train)==3

def test_identities(df, root):
    dls = load(df, root)
    known = sorted(set(df[df.split=='train'].identity)-{''})
    assert list(dls.tasks.identity.labels)==known
    y = torch.cat([y['identity'] for _,y in dls.train])
    assert y.min()==-1 and y.max()==len(known)-1
    for dl in (dls.valid, dls.query, dls.gallery):
        for _,y in dl: assert (y['identity']==-1).all()
    assert dls.query_df.identity.tolist()==df[df.split=='query'].identity.tolist()
    assert dls.gallery_df.group.tolist()==df[df.split=='gallery'].group.tolist()
    assert len(dls.valid.dataset)==len(dls.query_df)+len(dls.gallery_df) and dls.size==SIZE

def test_query_and_gallery_keep_the_order_of_the_table(df, root):
    dls = load(df, root)
    for dl,part in ((dls.query,'query'), (dls.gallery,'gallery')):
        x = torch.cat([x for x,_ in dl])
        assert (denormalise(x)==torch.stack([read_portrait(root/o, SIZE) for o in df[df.split==part].image])).all()

def test_same_seed_same_batches(df, root):
    def two_epochs(**kw):
        dls = load(df, root, **kw)
        return [(x.double().sum().item(), y['age'].tolist()) for _ in range(2) for x,y in dls.train]
    a = two_epochs(seed=3)
    torch.rand(3); random.random()
    assert a==two_epochs(seed=3)==two_epochs(seed=3, num_workers=1)
    assert a!=two_epochs(seed=4) and a[:3]!=a[3:]

def test_the_programs_own_random_numbers_are_left_alone(df, root):
    dls = load(df, root)
    torch.manual_seed(0); a = torch.rand(3)
    torch.manual_seed(0); aug = Augment(SIZE)(torch.rand(4,3,*SIZE)*0, split_idx=0); b = torch.rand(3)
    torch.manual_seed(0); torch.rand(4,3,*SIZE); assert (b==torch.rand(3)).all()

def test_augmentation_is_for_training_only(df, root):
    x = torch.rand(4,3,*SIZE)
    aug = Augment(SIZE)
    assert (aug(x, split_idx=1)==x).all() and not (aug(x, split_idx=0)==x).all()
    plain = load(df, root, augment=False)
    assert not any(isinstance(o, Augment) for o in plain.train.after_batch.fs)
    assert any(isinstance(o, Augment) for o in load(df, root).train.after_batch.fs)

@pytest.mark.parametrize('h,pad', [(256,10),(128,5),(64,2),(16,1)])
def test_padding_follows_the_height(h, pad): assert Augment((h,h//2)).pad==pad

def test_each_portrait_gets_its_own_draw():
    x = torch.rand(1,3,*SIZE).expand(64,-1,-1,-1)
    y = Augment(SIZE)(x, split_idx=0)
    assert y.shape==x.shape and y.dtype==torch.float32 and len({tuple(o.flatten()[::37].tolist()) for o in y})>32

def test_normalise_is_imagenets():
    x = torch.randint(0,256,(2,3,8,4),dtype=torch.uint8)
    m,s = [torch.tensor(o)[:,None,None] for o in ([.485,.456,.406],[.229,.224,.225])]
    torch.testing.assert_close(normalise(x), (x/255-m)/s)
    assert (denormalise(normalise(x))==x).all()

@pytest.mark.parametrize('n,bs,batches', [(5,128,[5]), (8,8,[8]), (9,8,[8]), (17,8,[8,8]), (2,1,[1,1])])
def test_batch_sizes(df, root, n, bs, batches):
    dls = load(df[df.split=='train'].iloc[:n], root, Tasks([PORTRAIT['age']]), bs=bs)
    assert [len(x) for x,_ in dls.train]==batches==[bs if len(batches)>1 else min(n,bs)]*len(dls.train)
    assert len(dls.valid)==len(dls.query)==len(dls.gallery)==0

def test_bad_picture_in_an_epoch(df, root):
    (root/'broken.png').write_bytes((root/'0.png').read_bytes()[:100])
    bad = pd.concat([df, df.iloc[:1].assign(image='broken.png')], ignore_index=True)
    for n in (0,1):
        with pytest.raises(PictureError) as e: list(load(bad, root, num_workers=n).train)
        assert 'broken.png: the picture cannot be read' in str(e.value) and '\n' not in str(e.value) and str(e.value).startswith(str(root))

def test_refusals(df, root):
    def refuse(match, d=df, r=root, tasks=PORTRAIT, **kw):
        with pytest.raises(ValueError, match=match): load(d, r, tasks, **kw)
    refuse("no column 'split'", df.drop(columns='split'))
    refuse("no column 'image'", df.drop(columns='image'))
    refuse("no column 'arm'", df.drop(columns='arm'))
    refuse("no column 'identity'", df.drop(columns='identity'))
    refuse("Row 2 of the table, column 'split': 'test'", df.assign(split=['train']*2+['test']+['train']*(len(df)-3)))
    refuse("at least two rows", df[df.split!='train'])
    refuse("at least two rows", df[:0])
    refuse("No train row has an identity", df.assign(identity=''))
    refuse("is not a folder", r=root/'nowhere')
    refuse("comes with a later release", sampling='pk')
    refuse("comes with a later release", sampling='shuffle')
    refuse("sampling must be", sampling='best')
    refuse("bs must be", bs=0)
    for s in (64, (64,), (4,4), '64'): refuse('size must be', size=s)
    odd = df.copy(); odd.loc[7,'body'] = 'flying'
    refuse("Row 7 of the table, column 'body': unknown label 'flying'", odd)

def test_given_identities_are_kept(df, root):
    names = [*sorted(set(df[df.split=='train'].identity)-{''}), 'zz']
    dls = load(df, root, PORTRAIT.with_identities(names))
    assert list(dls.tasks.identity.labels)==names
    with pytest.raises(ValueError, match="column 'identity': unknown label"): load(df, root, PORTRAIT.with_identities(names[1:]))

def test_missing_cells_and_an_identity_under_another_name(df, root):
    odd = df.rename(columns=dict(identity='actor')).replace('', np.nan)
    tasks = Tasks([Task('actor','appearance',None), PORTRAIT['age'], PORTRAIT['expression']])
    assert list(load(odd, root, tasks).tasks.identity.labels)==list(load(df, root).tasks.identity.labels)
    assert list(load(df, root, tasks).tasks.identity.labels)==list(load(df, root).tasks.identity.labels)

def test_one_loader_for_scores(df, root):
    tasks = load(df, root).tasks
    dl = portrait_dl(df[df.split=='gallery'], root, tasks, size=SIZE, bs=8, device='cpu')
    assert sum(len(x) for x,_ in dl)==(df.split=='gallery').sum() and dl.df.image.tolist()==df[df.split=='gallery'].image.tolist()

def test_datasets_can_travel_to_a_process(df, root):
    ds = load(df, root).train.dataset
    assert (pickle.loads(pickle.dumps(ds))[3][0]==ds[3][0]).all()

def test_show_batch(df, root, monkeypatch):
    import portrait_nb.data as D
    shown = []
    monkeypatch.setattr(D, 'display', shown.append)
    dls = load(df, root)
    dls.show_batch(); dls.query.show_batch(max_n=2); dls.train.show_batch(dls.train.one_batch(), max_n=3)
    load(df, root, Tasks([PORTRAIT['expression']])).show_batch()
    assert len(shown)==4

# --- a Learner

@pytest.mark.parametrize('tasks', [PORTRAIT, Tasks([PORTRAIT['age']]), Tasks([Task('identity','appearance',None)])])
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
    dls = load(df[df.split=='train'], root)
    learn = Learner(dls, PortraitNet(dls.tasks, 'test_resnet', pretrained=False, size=SIZE), loss_func=PortraitLoss(dls.tasks))
    with learn.no_logging(): learn.fit(1, 1e-3)
    assert np.isfinite(learn.recorder.values[0][0])

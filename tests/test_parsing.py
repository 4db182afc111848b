"Masks of faces: read, cut, learnt, and written for a whole set"
import json, random
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from fastai.callback.core import Callback
from fastai.torch_core import set_seed
from portrait_nb.callbacks import SkipValidation
from portrait_nb.runs import KeepRun
from portrait_nb.pictures import PictureError
from portrait_nb.attributes import mean_iou
from portrait_nb.faces.conventions import PARSING, flip_parsing
from portrait_nb.faces.facesets import drawn_faces, make_faces
from portrait_nb.faces.parsing import *

@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('faces')/'set'
    make_faces(root, 'tiny', n_workers=0)
    return root

@pytest.fixture(scope='module')
def tables(root):
    "Train rows and validation rows, with exact masks"
    df,val = drawn_faces(root)[0],drawn_faces(root, 'val')[0]
    return [with_parsing(o, root) for o in (df[df.split=='train'], val[val.split!='train'])]

def write(path, array, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **kwargs)
    return path

# reading

def test_a_squeezed_mask_holds_no_new_number(tmp_path):
    mask = np.random.default_rng(0).choice([0,2,18], (97,53)).astype(np.uint8)
    small = read_mask(write(tmp_path/'m.png', mask), (40,31))
    assert small.shape==(40,31) and set(small.unique().tolist())=={0,2,18}

def test_what_is_no_mask_ends_in_a_sentence(tmp_path):
    colours = write(tmp_path/'rgb.png', np.zeros((4,4,3), np.uint8))
    odd = write(tmp_path/'odd.png', np.full((4,4), 19, np.uint8))
    with pytest.raises(ValueError, match='is no mask'): read_mask(colours)
    with pytest.raises(ValueError, match='holds the number 19'): read_mask(odd)
    assert read_mask(write(tmp_path/'unknown.png', np.full((4,4), 255, np.uint8))).min()==255
    whole = write(tmp_path/'whole.png', np.random.default_rng(0).integers(0, 19, (60,60)).astype(np.uint8)).read_bytes()
    for n in (0, 20, 200, len(whole)//2):
        (tmp_path/'cut.png').write_bytes(whole[:n])
        with pytest.raises(PictureError, match='cut.png: the mask cannot be read'): read_mask(tmp_path/'cut.png')

def test_a_jpeg_is_no_mask(tmp_path):
    file = write(tmp_path/'m.jpg', np.zeros((8,8), np.uint8))
    with pytest.raises(ValueError, match='m.jpg is a JPEG.*keep masks as PNG'): read_mask(file)

def test_a_broken_mask_stops_a_training_with_its_name(root, tables, tmp_path):
    train = tables[0].head(4).copy()
    (root/'broken.png').write_bytes(b'nothing')
    train['parsing'] = ['broken.png', *train.parsing[1:]]
    dls = masked_dls(train, root, tables[1].head(2), size=(32,26), bs=4)
    with pytest.raises(PictureError, match='broken.png: the mask cannot be read'): next(iter(dls.train))

def test_a_face_without_a_mask_is_unknown(root, tables):
    train = tables[0].head(3).copy()
    train['parsing'] = [train.parsing.iloc[0], '', np.nan]
    faces = MaskedFaces(train, root, (32,26))
    assert (faces[0][0][3]<19).all()
    for i in (1,2): assert (faces[i][0][3]==UNKNOWN).all()

def test_a_drawn_set_without_its_masks_is_named(root, tables):
    df = tables[0].head(2).assign(image=['pictures/nobody.jpg', tables[0].image.iloc[1]])
    with pytest.raises(FileNotFoundError, match='lacks 1 mask, e.g. parsing/nobody.png'): with_parsing(df, root)

# cutting

def between(picture, row, col):
    "What lies at a place between four pixels; beyond the edge is the edge"
    h,w = picture.shape
    row,col = np.clip(row, 0, h-1),np.clip(col, 0, w-1)
    r,c = int(row),int(col)
    down,right = row-r,col-c
    r1,c1 = min(r+1, h-1),min(c+1, w-1)
    above = picture[r,c]*(1-right)+picture[r,c1]*right
    below = picture[r1,c]*(1-right)+picture[r1,c1]*right
    return (above*(1-down)+below*down).item()

def test_crops_are_those_of_an_independent_loop():
    "Every pixel of a crop lies where the numbers say, picture and mask alike"
    g = torch.Generator().manual_seed(0)
    h,w = 24,20
    x = torch.randint(0, 19, (5,4,h,w), generator=g, dtype=torch.uint8)
    drawn = draw_crops(random.Random(1), 5)
    pictures,masks = crop_faces(x, drawn)
    assert pictures.shape==(5,3,h,w) and masks.shape==(5,h,w)
    for i,(share,x0,y0,side) in enumerate(drawn.tolist()):
        for r in range(h):
            for c in range(w):
                across,down = (2*c+1)/w-1,(2*r+1)/h-1
                col = ((share*side*across+x0+1)*w-1)/2
                row = ((share*down+y0+1)*h-1)/2
                if min(abs(col%1-.5), abs(row%1-.5))<1e-3: continue # on the line between two pixels
                at = int(np.clip(round(row), 0, h-1)),int(np.clip(round(col), 0, w-1))
                expected = x[i,3][at].item()
                assert pictures[i,0,r,c]==pytest.approx(between(x[i,0].float(), row, col), abs=2e-3)
                if side<0: expected = flip_parsing(np.array([[expected]]))[0,0]
                assert masks[i,r,c]==expected

def test_a_mirrored_face_keeps_unknown_pixels():
    x = torch.full((1,4,8,6), UNKNOWN, dtype=torch.uint8)
    assert (crop_faces(x, torch.tensor([[1.,0,0,-1]]))[1]==UNKNOWN).all()

def test_crops_stay_inside_and_keep_their_share():
    share,x0,y0,side = draw_crops(random.Random(0), 2000, least=.5).unbind(1)
    assert .5<=share.min() and share.max()<=1 and share.min()<.51 and share.max()>.99
    assert (x0.abs()+share<=1+1e-6).all() and (y0.abs()+share<=1+1e-6).all()
    assert .45<(side<0).float().mean()<.55

# loaders

def test_the_same_seed_gives_the_same_batches(root, tables):
    train,valid = tables
    def batches(seed, workers=0):
        dls = masked_dls(train.head(24), root, valid.head(8), size=(32,26), bs=8, seed=seed, num_workers=workers)
        return [o for _ in range(2) for o in dls.train],[list(dls.valid) for _ in range(2)]
    (one,first),(two,_),(other,_),(worked,_) = batches(0),batches(0),batches(1),batches(0, 2)
    assert len(one)==6
    for again in (two,worked): assert all(a.equal(c) and b.equal(d) for (a,b),(c,d) in zip(one, again))
    assert not one[0][0].equal(other[0][0])
    assert not one[0][0].equal(one[3][0]) # another epoch
    assert all(a.equal(c) and b.equal(d) for (a,b),(c,d) in zip(*first)) # validation cuts nothing

def test_faces_are_learnt_from_or_validated_on(root, tables):
    train,valid = tables
    with pytest.raises(ValueError, match='1 picture would be learnt from and validated on'):
        masked_dls(train, root, pd.concat([valid, train.head(1)]))
    with pytest.raises(ValueError, match='no face in valid'): masked_dls(train, root, valid.head(0))
    with pytest.raises(ValueError, match='no face in train'): masked_dls(train.assign(split='query'), root, valid)
    with pytest.raises(ValueError, match="'parsing'"): masked_dls(train.drop(columns='parsing'), root, valid)

# the network

NETWORKS = ('test_resnet',None),('test_byobnet',None),('resnet10t',None),('test_byobnet',8)

@pytest.mark.parametrize('backbone,stride', NETWORKS)
def test_any_cnn_gives_its_maps(backbone, stride):
    net = ParsingNet(backbone, (64,52), output_stride=stride).eval()
    with torch.no_grad(): out = net(torch.zeros(2,3,64,52))
    assert out.shape==(2,len(PARSING),32,26)

def test_a_network_without_maps_ends_in_a_sentence():
    with pytest.raises(ValueError, match='Linear has no forward_intermediates'):
        feature_maps(torch.nn.Linear(1,1), torch.zeros(1))

def test_a_size_that_a_network_cannot_read_ends_in_a_sentence():
    with pytest.raises(ValueError, match='cannot read pictures of 64 x 52 pixels.*multiples of 32'):
        ParsingNet('hrnet_w18_small', (64,52))

def test_weights_are_the_roots_of_rarity():
    masks = [np.array([[0,0,0,0],[0,0,0,1]], np.uint8), np.array([[0,255,255,255]], np.uint8)]
    weights = part_weights(masks) # 8 of background, 1 of skin, 3 unknown
    a,b = (9/8)**.5,9**.5
    mean = (8*a+b)/9
    assert weights[:2].tolist()==pytest.approx([a/mean, b/mean]) and (weights[2:]==0).all()

def test_the_loss_is_cross_entropy_of_known_pixels():
    g = torch.Generator().manual_seed(0)
    logits,masks = torch.randn(2,19,4,3, generator=g),torch.randint(0, 19, (2,4,3), generator=g)
    masks[0,:2] = UNKNOWN
    expected = F.cross_entropy(logits, masks, ignore_index=UNKNOWN, label_smoothing=.1)
    assert ParsingLoss()(logits, masks)==pytest.approx(expected.item(), rel=1e-5)
    weights = torch.rand(19, generator=g)
    known = masks!=UNKNOWN
    logp = logits.log_softmax(1).permute(0,2,3,1)[known]
    each = [-weights[y]*o[y] for o,y in zip(logp, masks[known])]
    assert ParsingLoss(weights, 0.)(logits, masks)==pytest.approx((sum(each)/known.sum()).item(), rel=1e-5)

def test_a_larger_mask_is_read_at_the_size_of_the_scores():
    logits,small = torch.randn(1,19,3,2),torch.tensor([[[0,1],[2,3],[4,5]]])
    large = small.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert ParsingLoss()(logits, large).equal(ParsingLoss()(logits, small))

# learning

def trained(root, train, valid, epochs=120):
    set_seed(0)
    dls = masked_dls(train, root, valid, size=(64,52), bs=15)
    learn = parser_learner(dls, 'test_byobnet', lr=1e-2)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, 1e-2, cbs=SkipValidation())
    return learn

@pytest.fixture(scope='module')
def learn(root, tables): return trained(root, tables[0].sample(30, random_state=0), tables[1])

def test_thirty_masks_teach_more_than_the_commonest_part_of_every_place(root, tables, learn):
    train,valid = ([MaskedFaces(o, root, (64,52))[i][0][3] for i in range(len(o))] for o in tables)
    guess = torch.stack([(torch.stack(train)==k).sum(0) for k in range(len(PARSING))]).argmax(0)
    guessed = mean_iou([guess]*len(valid), valid).mean
    with learn.no_bar(): found = learn.validate()[1]
    assert found>guessed+.05

def test_the_same_seed_gives_the_same_parser(root, tables):
    one,two = (trained(root, tables[0].head(15), tables[1], 2).model.state_dict() for _ in range(2))
    assert all(one[k].equal(two[k]) for k in one)

def test_an_interrupted_training_goes_on_to_the_same_weights(root, tables, tmp_path):
    def fit(*cbs):
        set_seed(0, reproducible=True)
        dls = masked_dls(tables[0].head(40), root, tables[1].head(8), size=(32,26), bs=16)
        learn = parser_learner(dls, 'test_byobnet')
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(4, 1e-2, cbs=list(cbs))
        return learn.model.state_dict()
    class Stop(Callback):
        def after_epoch(self):
            if self.epoch==1: raise KeyboardInterrupt
    whole = fit()
    with pytest.raises(KeyboardInterrupt): fit(KeepRun(tmp_path), Stop())
    gone_on = fit(KeepRun(tmp_path))
    assert all(whole[k].equal(gone_on[k]) for k in whole)

def test_fastai_shows_and_sums_up_a_parser(learn, capsys):
    with learn.no_bar():
        learn.show_results(max_n=2)
        assert 'ParsingNet' in str(learn.summary())

def test_a_parser_comes_back_as_it_was(root, tables, learn, tmp_path):
    parser = FaceParser(learn.model)
    picture = root/tables[1].image.iloc[0]
    loaded = FaceParser.load(parser.save(tmp_path/'parser'))
    mask = parser(picture)
    assert mask.shape==Image.open(picture).size[::-1] and mask.dtype==np.uint8 and (mask==loaded(picture)).all()
    assert (mask==parser(np.array(Image.open(picture)))).all()
    parser.save(tmp_path/'parser') # over a parser
    (tmp_path/'other').mkdir()
    (tmp_path/'parser'/'notes.txt').write_text('mine')
    for o in ('parser','other'):
        with pytest.raises(FileExistsError, match='holds more than a parser'): parser.save(tmp_path/o)
    assert (tmp_path/'parser'/'notes.txt').read_text()=='mine'
    with pytest.raises(FileNotFoundError, match='is not a parser'): FaceParser.load(tmp_path/'other')

def test_a_changed_parser_is_refused(learn, tmp_path):
    path = FaceParser(learn.model).save(tmp_path/'parser')
    about = json.loads((path/'parser.json').read_text())
    for change in (dict(parts=about['parts'][::-1]), dict(format=2)):
        (path/'parser.json').write_text(json.dumps(about|change))
        with pytest.raises(ValueError, match='train it again'): FaceParser.load(path)
    (path/'parser.json').write_text('{')
    with pytest.raises(ValueError, match='is not json'): FaceParser.load(path)
    (path/'parser.json').write_text(json.dumps(about))
    with open(path/'parser.safetensors', 'ab') as f: f.write(b'x')
    with pytest.raises(ValueError, match='changed or cut short'): FaceParser.load(path)

# marking a set

@pytest.fixture
def photos(tmp_path):
    names = ['a/1.jpg', 'b/1.JPG', 'c.d/2.png']
    for i,o in enumerate(names): write(tmp_path/o, np.full((6,5,3), 40*i, np.uint8))
    return pd.DataFrame(dict(image=names))

def brightness(picture): return np.full(picture.shape[:2], int(picture.mean())//40, np.int64)

def test_any_function_marks_a_set(photos, tmp_path):
    marked = parse_faces(photos, tmp_path, brightness, 'masks')
    assert marked.parsing.tolist()==['masks/a/1.png', 'masks/b/1.png', 'masks/c.d/2.png']
    assert [read_mask(tmp_path/o).unique().tolist() for o in marked.parsing]==[[0],[1],[2]]

def test_an_interrupted_run_goes_on(photos, tmp_path):
    calls = []
    def parser(picture):
        calls.append(1)
        if len(calls)==2: raise KeyboardInterrupt
        return brightness(picture)
    with pytest.raises(KeyboardInterrupt): parse_faces(photos, tmp_path, parser, 'masks')
    assert len(list((tmp_path/'masks').rglob('*.png')))==1
    parse_faces(photos, tmp_path, parser, 'masks')
    assert len(calls)==4 and len(list((tmp_path/'masks').rglob('*.png')))==3

def test_a_folder_holds_the_masks_of_one_parser(photos, root, learn, tmp_path):
    def nothing(picture): return np.zeros(picture.shape[:2], np.uint8)
    parse_faces(photos, tmp_path, brightness, 'masks')
    before = {o: o.read_bytes() for o in (tmp_path/'masks').rglob('*') if o.is_file()}
    for other in (nothing, FaceParser(learn.model)):
        with pytest.raises(ValueError, match='take another folder'): parse_faces(photos, tmp_path, other, 'masks')
    assert before=={o: o.read_bytes() for o in (tmp_path/'masks').rglob('*') if o.is_file()}
    loaded = FaceParser.load(FaceParser(learn.model).save(tmp_path/'parser'))
    parse_faces(photos.head(1), tmp_path, FaceParser(learn.model), 'learnt')
    assert len(parse_faces(photos, tmp_path, loaded, 'learnt'))==3 # the same weights

def test_batches_can_be_looked_at(root, tables):
    dls = masked_dls(tables[0].head(8), root, tables[1].head(2), size=(32,26), bs=8)
    assert dls.train.show_batch(max_n=3).data[:2]==b'\xff\xd8'

@pytest.mark.parametrize('wrong', [
    lambda o: brightness(o)[:-1], lambda o: brightness(o).astype(float), lambda o: brightness(o)+19,
    lambda o: brightness(o)-1, lambda o: None])
def test_a_parser_that_gives_no_mask_is_named(photos, tmp_path, wrong):
    with pytest.raises(ValueError, match='1.jpg: it must give one number from 0 to 18'):
        parse_faces(photos, tmp_path, wrong, 'masks')
    assert not list((tmp_path/'masks').rglob('*.png'))

def test_no_mask_replaces_a_picture_or_another_mask(photos, tmp_path):
    with pytest.raises(ValueError, match='would replace a picture'): parse_faces(photos, tmp_path, brightness, '.')
    with pytest.raises(ValueError, match='start there'): parse_faces(photos, tmp_path, brightness, tmp_path/'masks')
    for o in ('../masks', 'a/../../masks'):
        with pytest.raises(ValueError, match='leads out of root'): parse_faces(photos, tmp_path, brightness, o)
    with pytest.raises(ValueError, match="Row 1 .*column 'image'"):
        parse_faces(photos.assign(image=['a/1.jpg',np.nan,'c']), tmp_path, brightness, 'masks')
    twins = pd.DataFrame(dict(image=['a/1.jpg','a/1.png']))
    with pytest.raises(ValueError, match='differ only in their endings'):
        parse_faces(twins, tmp_path, brightness, 'masks')

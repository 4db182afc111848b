"Describing a photo, searching a gallery, keeping one on disk, and the figure of all that."
from copy import deepcopy

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from portrait_nb import interpret
from portrait_nb.data import PictureError, portrait_dls, read_portrait
from portrait_nb.interpret import (Gallery, Interpreter, Portrait, _draw_bars, decode_logits, load_gallery,
                                   plot_interpretation)
from portrait_nb.learner import fss_learner, save_portrait_model
from portrait_nb.model import PortraitNet, weights_digest
from portrait_nb.tasks import PORTRAIT, Task, Tasks


def untrained(portraits, tasks=PORTRAIT):
    "A Learner on the made-up pictures"
    root, df = portraits
    dls = portrait_dls(df, root, tasks, size=(64, 32), bs=16, num_workers=0, device='cpu')
    return fss_learner(dls, 'test_resnet', pretrained=False)


@pytest.fixture(scope='module')
def look(portraits): return Interpreter(untrained(portraits))


@pytest.fixture
def people(look, portraits): return look.gallery(portraits[1], portraits[0])


# --- one portrait

@pytest.mark.parametrize('mode, size', [('RGB', (32, 64)), ('L', (32, 64)), ('RGBA', (40, 40)), ('P', (9, 200)),
                                        ('CMYK', (64, 64)), ('I;16', (32, 64)), ('1', (1, 1))])
def test_any_picture_is_described(look, mode, size, tmp_path):
    portrait = look.interpret(Image.new(mode, size))
    assert set(portrait.labels) == {t.name for t in PORTRAIT.attributes}
    for t in PORTRAIT.attributes:
        p = list(portrait.probabilities[t.name].values())
        assert len(p) == t.n_labels and all(0 <= o <= 1 for o in p)
        if not t.multilabel: assert sum(p) == pytest.approx(1, abs=1e-5)


def test_what_is_no_picture_is_named(look, tmp_path):
    (tmp_path/'a.jpg').write_text('not a picture')
    for name in ('a.jpg', 'none.jpg'):
        with pytest.raises(PictureError, match=name): look.interpret(tmp_path/name)


def test_saved_and_loaded_say_the_same(portraits, tmp_path):
    root, df = portraits
    learn = untrained(portraits, Tasks(PORTRAIT.attributes))
    image = root/df.image.iloc[0]
    portrait = Interpreter(learn).interpret(image)
    again = Interpreter(save_portrait_model(learn, tmp_path/'model')).interpret(image)
    assert portrait.embedding is None and portrait.labels == again.labels
    with pytest.raises(ValueError, match='no identity task'): Interpreter(learn).gallery(root)
    plot_interpretation(image, portrait, None, None, fname=tmp_path/'portrait.png')
    assert Image.open(tmp_path/'portrait.png').size[0] > 500


def test_a_learner_can_go_on_training_after_it_was_asked(portraits, look):
    model = look.model
    Interpreter(model, 'cpu').outputs([portraits[0]/portraits[1].image[0]])
    assert not any(p.is_inference() for p in model.parameters())


def test_long_names_keep_their_column():
    probabilities = {'age': {'old': .7}, '5_o_Clock_Shadow': {'no': .9}}
    portrait = Portrait({'age': 'old', '5_o_Clock_Shadow': 'no'}, probabilities, None, None)
    assert repr(portrait) == 'age              old 70%\n5_o_Clock_Shadow no 90%'


# --- tensors

def test_tensors_are_checked_like_arrays(look, portraits):
    root, df = portraits
    x = read_portrait(root/df.image[0], look.model.size)
    from_tensor, from_path = look.outputs([x])[1], look.outputs([root/df.image[0]])[1]
    for a, b in zip(from_tensor.values(), from_path.values()): torch.testing.assert_close(a, b)
    wrong = [(x/255, 'float32'), (x.int(), 'int32'), (x[:, :20, :20], r'\(3, 20, 20\)'),
             (x[None], r'\(1, 3, 64, 32\)'), (x.permute(1, 2, 0), r'\(64, 32, 3\)')]
    for bad, words in wrong:
        sentence = f'a tensor must be .*{words}.*pass the picture or its path'
        with pytest.raises(ValueError, match=sentence): look.outputs([bad])
    with pytest.raises(PictureError, match='of uint8, this one is'): look.outputs([np.zeros((64, 32, 3))])
    with pytest.raises(ValueError, match='is empty'): look.outputs([])


# --- searching

def test_search_is_the_plain_definition(look, portraits):
    root, df = portraits
    people = look.gallery(df[df.split == 'gallery'], root)
    image = root/df[df.split == 'query'].image.iloc[0]
    cos = people.embeddings@look.interpret(image).embedding
    found = look.search(image, people, k=5)
    np.testing.assert_allclose(found.similarity, np.sort(cos)[::-1][:5], rtol=1e-5)
    assert len(look.search(image, people, k=10**6)) == len(people)


def test_broken_photos_are_left_out_and_named(look, portraits, tmp_path):
    root, df = portraits
    for o in df.image[:3]: (tmp_path/o.replace('/', '_')).write_bytes((root/o).read_bytes())
    (tmp_path/'broken.png').write_bytes(b'\x89PNG')
    with pytest.warns(UserWarning, match='broken.png'): people = look.gallery(tmp_path)
    assert len(people) == 3
    with pytest.raises(FileNotFoundError, match='not a folder'): look.gallery(tmp_path/'none')
    (tmp_path/'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='no pictures'): look.gallery(tmp_path/'empty')


def test_search_by_a_bare_embedding(look, people, portraits):
    portrait = look.interpret(portraits[0]/portraits[1].image[0])
    expected = look.search(portrait, people, k=4)
    embedding = portrait.embedding
    for o in (embedding, 3*embedding, embedding.astype(float), torch.tensor(embedding)):
        found = look.search(o, people, k=4)
        assert found.image.tolist() == expected.image.tolist()
        assert np.allclose(found.similarity, expected.similarity, atol=1e-5)
    with pytest.raises(ValueError, match='numbers, what is searched for has 3'): look.search(np.ones(3), people)


@pytest.mark.parametrize('k', [0, -1, 2.5, '3', True, None])
def test_k_is_looked_at(look, people, k):
    with pytest.raises(ValueError, match='k must be a whole number, 1 or more'):
        look.search(people.embeddings[0], people, k)


# --- whose numbers

def test_another_model_of_the_same_shape_is_refused(look, people, portraits, tmp_path):
    root, df = portraits
    other = deepcopy(look.model)
    for p in other.parameters(): p.data = p.data*1.01
    later, image = Interpreter(other), root/df.image[0]
    with pytest.raises(ValueError, match='embedded by other weights .* embed the gallery again'):
        later.search(image, people)
    with pytest.raises(ValueError, match='embedded by other weights'): look.search(later.interpret(image), people)
    with pytest.raises(ValueError, match='embedded by other weights'): later.search(people.embeddings[0], people)
    assert look.search(image, people, k=1).image[0] == df.image[0]
    assert later.search(look.interpret(image), people, k=1).image[0] == df.image[0]
    assert later.search(image, later.gallery(df, root), k=1).image[0] == df.image[0]
    unknown = Gallery(people.df, people.embeddings, people.root) # made by hand: nothing is known, nothing refused
    assert len(later.search(image, unknown, k=3)) == 3


def test_a_step_of_training_makes_a_gallery_old(portraits):
    root, df = portraits
    learn = untrained(portraits)
    people = Interpreter(learn).gallery(df, root)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-4)
    with pytest.raises(ValueError, match='embedded by other weights'):
        Interpreter(learn).search(root/df.image[0], people)


def test_the_same_weights_on_disk_are_the_same(portraits, tmp_path):
    root, df = portraits
    learn = untrained(portraits)
    people = Interpreter(learn).gallery(df, root)
    again = Interpreter(save_portrait_model(learn, tmp_path/'model'), 'cpu')
    assert weights_digest(again.model) == weights_digest(learn.model) == people.weights
    assert again.search(root/df.image[0], people, k=1).image[0] == df.image[0]


# --- galleries

def test_a_gallery_takes_what_a_table_takes(look, tmp_path):
    "and nothing that is hidden"
    for o in ('a.jpg', 'b.gif', 'c.tif', 'd.ppm', '.thumbnails/a.jpg', '._a.jpg'):
        (tmp_path/o).parent.mkdir(exist_ok=True)
        Image.new('RGB', (32, 64), 'teal').save(tmp_path/o)
    assert look.gallery(tmp_path).df.image.tolist() == ['a.jpg', 'b.gif', 'c.tif', 'd.ppm']
    (tmp_path/'e.heic').touch()
    with pytest.warns(UserWarning, match='1 file is not looked at'): look.gallery(tmp_path)
    with pytest.raises(ValueError, match="no column 'image'"): look.gallery(pd.DataFrame(dict(path=['a'])), tmp_path)


def test_a_gallery_is_kept_as_it_was(people, tmp_path):
    odd, n = ['Zoë', '01', '1.0', 'NA', 'a,"b"\nc', ''], len(people)
    df = people.df.assign(note=[odd[i%6] for i in range(n)], n=range(n), share=np.linspace(0, 1, n),
                          even=[i%2 == 0 for i in range(n)])
    df.loc[3, 'share'] = np.nan
    loaded = load_gallery(Gallery(df, people.embeddings, people.root, people.weights).save(tmp_path/'new'/'people'))
    assert (loaded.embeddings == people.embeddings).all() and loaded.embeddings.dtype == np.float32
    assert loaded.weights == people.weights and loaded.root.samefile(people.root)
    for c in df:
        if c == 'share': assert np.allclose(loaded.df[c], df[c], equal_nan=True)
        else: assert loaded.df[c].equals(df[c]) or loaded.df[c].tolist() == df[c].tolist(), c
    assert [o.name for o in tmp_path.iterdir()] == ['new']
    assert [o.name for o in (tmp_path/'new').iterdir()] == ['people']
    assert load_gallery(tmp_path/'new'/'people', root=tmp_path).root == tmp_path


def test_nothing_is_lost_when_a_gallery_cannot_be_saved(people, tmp_path, monkeypatch):
    path, two = people.save(tmp_path/'people'), people.where(people.df.index < 2)
    with pytest.raises(FileExistsError, match='pass overwrite=True'): people.save(path)
    (tmp_path/'mine').mkdir()
    with pytest.raises(FileExistsError, match='is not a gallery; choose another'):
        people.save(tmp_path/'mine', overwrite=True)
    def full(*args, **kwargs): raise OSError(28, 'No space left on device')
    with monkeypatch.context() as m:
        m.setattr(interpret, 'save_file', full)
        with pytest.raises(OSError): two.save(path, overwrite=True)
    assert len(load_gallery(path)) == len(people)
    assert len(load_gallery(two.save(path, overwrite=True))) == 2
    assert sorted(o.name for o in tmp_path.iterdir()) == ['mine', 'people']


def cut_short(file): file.write_bytes(file.read_bytes()[:-9])


def of_format_2(file): file.write_text(file.read_text().replace('"format": 1', '"format": 2'))


@pytest.mark.parametrize('spoil, words', [
    (lambda d: (d/'gallery.json').unlink(), 'is not a gallery'),
    (lambda d: (d/'gallery.json').write_text('{'), 'is not json'),
    (lambda d: (d/'gallery.json').write_text('{"format": 1}'), "lacks 'weights'"),
    (lambda d: of_format_2(d/'gallery.json'), 'has format 2'),
    (lambda d: (d/'portraits.csv').unlink(), 'holds no portraits.csv'),
    (lambda d: (d/'portraits.csv').write_text('image\n'), 'was changed or cut short'),
    (lambda d: cut_short(d/'embeddings.safetensors'), 'was changed or cut short')])
def test_a_spoilt_gallery_is_one_sentence(people, tmp_path, spoil, words):
    spoil(people.save(tmp_path/'people'))
    with pytest.raises((ValueError, FileNotFoundError), match=words): load_gallery(tmp_path/'people')


# --- the figure

def drawn(tmp_path, *args, **kwargs):
    "The size of the figure in pixels"
    plot_interpretation(*args, fname=tmp_path/'a.png', **kwargs)
    return Image.open(tmp_path/'a.png').size


def test_the_figure_fits_what_is_answered(look, people, portraits, tmp_path, monkeypatch):
    root, df = portraits
    image = root/df.image[0]
    forty = Tasks([Task(f'Attribute_{i}', 'appearance', ('no', 'yes')) for i in range(40)])
    forty = Interpreter(PortraitNet(forty, 'test_resnet', pretrained=False, split='shared', size=(64, 32)))
    who = Tasks([Task('identity', 'appearance', ['a', 'b'], is_identity=True)])
    who = Interpreter(PortraitNet(who, 'test_resnet', pretrained=False, size=(64, 32)))
    eight = drawn(tmp_path, image, look.interpret(image), look.search(image, people), root)
    tall = drawn(tmp_path, image, forty.interpret(image), None, None)
    assert tall[1] > 40*20 and eight[1] < 400 # 20 pixels a bar at least
    narrow = drawn(tmp_path, image, who.interpret(image), who.search(image, who.gallery(df, root), k=3), root)
    assert narrow[0] < eight[0]-300 and 'search a gallery' in repr(who.interpret(image))
    shapes = []
    monkeypatch.setattr(interpret.plt.Axes, 'imshow', lambda self, x, **kw: shapes.append(x.shape[:2]))
    drawn(tmp_path, Image.new('RGB', (90, 109)), look.interpret(image), None, None)
    assert shapes == [(109, 90)]


def words_in_bars(portrait, actual):
    fig, ax = plt.subplots()
    _draw_bars(ax, portrait, actual)
    plt.close(fig)
    return [o.get_text() for o in ax.texts]


def test_none_of_these_is_right_where_the_table_says_so():
    hats = Tasks([Task('hats', 'appearance', ['cap', 'straw'], multilabel=True)])
    none, _ = decode_logits(torch.tensor([-2., -1]), hats['hats'])
    portrait = Portrait(dict(hats=none), dict(hats=dict(cap=.1, straw=.3)), None, hats)
    assert words_in_bars(portrait, dict(hats='-')) == ['none of these (straw 30%)', '✓ none of these']
    assert words_in_bars(portrait, dict(hats='cap'))[1] == '✗ cap'
    assert len(words_in_bars(portrait, dict(hats=''))) == 1


def test_the_figure_and_the_network_see_one_picture(look, tmp_path, monkeypatch):
    deep = np.random.default_rng(0).integers(0, 65536, (64, 32)).astype(np.uint16)
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(deep).save(tmp_path/'a.png')
    Image.fromarray((deep>>8).astype(np.uint8)).rotate(90, expand=True).save(tmp_path/'b.png', exif=exif)
    pictures = []
    monkeypatch.setattr(interpret.plt.Axes, 'imshow', lambda self, x, **kw: pictures.append(x))
    for o in ('a.png', 'b.png'): plot_interpretation(tmp_path/o, look.interpret(tmp_path/o), None, None)
    assert (pictures[0] == pictures[1]).all() and (pictures[0][..., 0] == deep>>8).all()

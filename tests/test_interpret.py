"Describing odd pictures, and searching."
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from portrait_nb.data import PictureError, portrait_dls
from portrait_nb.interpret import Interpreter, Portrait, _draw_bars, _told, plot_interpretation
from portrait_nb.learner import fss_learner, save_portrait_model
from portrait_nb.tasks import PORTRAIT, Task, Tasks


@pytest.fixture(scope='module')
def look(portraits):
    root, df = portraits
    return Interpreter(fss_learner(portrait_dls(df, root, PORTRAIT, size=(64, 32), bs=16, num_workers=0, device='cpu'), 'test_resnet', pretrained=False))


@pytest.mark.parametrize('mode, size', [('RGB', (32, 64)), ('L', (32, 64)), ('RGBA', (40, 40)), ('P', (9, 200)), ('CMYK', (64, 64)), ('I;16', (32, 64)), ('1', (1, 1))])
def test_any_picture_is_described(look, mode, size, tmp_path):
    told = look.interpret(Image.new(mode, size))
    assert set(told.labels) == {t.name for t in PORTRAIT.attributes}
    for t in PORTRAIT.attributes:
        p = list(told.probabilities[t.name].values())
        assert len(p) == t.n_labels and all(0 <= o <= 1 for o in p)
        if not t.multilabel: assert sum(p) == pytest.approx(1, abs=1e-5)


def test_what_is_no_picture_is_named(look, tmp_path):
    (tmp_path/'a.jpg').write_text('not a picture')
    for name in ('a.jpg', 'none.jpg'):
        with pytest.raises(PictureError, match=name): look.interpret(tmp_path/name)


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


def test_saved_and_loaded_say_the_same(portraits, tmp_path):
    root, df = portraits
    learn = fss_learner(portrait_dls(df, root, Tasks(PORTRAIT.attributes), size=(64, 32), bs=16, num_workers=0, device='cpu'), 'test_resnet', pretrained=False)
    image = root/df.image.iloc[0]
    told, again = Interpreter(learn).interpret(image), Interpreter(save_portrait_model(learn, tmp_path/'model')).interpret(image)
    assert told.embedding is None and told.labels == again.labels
    with pytest.raises(ValueError, match='no identity task'): Interpreter(learn).gallery(root)
    plot_interpretation(image, told, None, None, fname=tmp_path/'told.png')
    assert Image.open(tmp_path/'told.png').size[0] > 500


def test_a_learner_can_go_on_training_after_it_was_asked(portraits, look):
    model = look.model
    Interpreter(model, 'cpu').outputs([portraits[0]/portraits[1].image[0]])
    assert not any(p.is_inference() for p in model.parameters())


def test_none_of_these_is_right_where_the_table_says_so():
    hats = Tasks([Task('hats', 'appearance', ['cap','straw'], multilabel=True)])
    none,_ = _told(hats['hats'], torch.tensor([-2.,-1]))
    said = Portrait(dict(hats=none), dict(hats=dict(cap=.1, straw=.3)), None, hats)
    words = lambda truth: _drawn_words(said, dict(hats=truth))
    assert words('-')==['none of these (straw 30%)', '✓ none of these']
    assert words('cap')[1]=='✗ cap' and len(words(''))==1

def _drawn_words(said, actual):
    fig,ax = plt.subplots()
    _draw_bars(ax, said, actual)
    plt.close(fig)
    return [o.get_text() for o in ax.texts]

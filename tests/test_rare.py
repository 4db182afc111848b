"A rare attribute of the drawn portraits: does a network learn how rare it is?"
import numpy as np
import pytest
import torch

from portrait_nb.annotations import read_annotations
from portrait_nb.data import portrait_dls
from portrait_nb.learner import fss_learner, run_model
from portrait_nb.synth import HAT_TASK, make_portraits
from portrait_nb.tasks import PORTRAIT, Tasks

TASKS = Tasks([PORTRAIT['gender'], HAT_TASK])


@pytest.fixture(scope='module')
def hats(tmp_path_factory, one_thread):
    root = tmp_path_factory.mktemp('hats')/'drawn'
    make_portraits(root, 'hats', n_workers=0)
    df = read_annotations(root/'annotations.csv', root, TASKS)
    return portrait_dls(df, root, TASKS, size=(64, 32), bs=32, seed=0, augment=False)


def guesses_of_hats(dls, **kwargs):
    "Probabilities of a hat, and who wears one, after two epochs"
    torch.manual_seed(0)
    learn = fss_learner(dls, 'test_resnet', split='shared', metric_loss=None, weighting='average', pretrained=False,
                        **kwargs)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(2, 3e-3)
    guesses = run_model(learn.model, dls.valid)[1]['hat'].softmax(1)[:, 1].numpy()
    worn = dls.valid.dataset.labels['hat'].numpy()
    return guesses[worn >= 0], worn[worn >= 0]


def test_a_network_says_how_rare_a_hat_is(hats):
    guesses, worn = guesses_of_hats(hats)
    share = (hats.train.dataset.labels['hat'] == 1).float().mean()
    assert worn.mean()<.12 and abs(guesses.mean()-share)<.05
    assert ((guesses>.5) == worn).mean() >= 1-worn.mean()-.03


def test_without_a_bias_it_cannot(hats):
    guesses, worn = guesses_of_hats(hats, bias='none')
    assert guesses.mean()>.25
    assert guesses.mean() > 2*guesses_of_hats(hats)[0].mean()

"Other weightings and logit adjustment against plain computations"
import numpy as np, pandas as pd, pytest, torch
from fastai.callback.core import Callback
from portrait_nb.callbacks import BF16, EMA, DynamicWeights, SkipValidation
from portrait_nb.data import portrait_dls
from portrait_nb.learner import fss_learner, load_portrait_model, save_portrait_model
from portrait_nb.losses import PortraitLoss, batch_rank_loss, class_loss
from portrait_nb.model import PortraitNet
from portrait_nb.tasks import PORTRAIT, Task, Tasks
from portrait_nb.weighting import LogitAdjustment, dynamic_weights, gradient_lengths, label_priors

THREE = Tasks([Task('who', 'appearance', ['a', 'b', 'c']), Task('age', 'appearance', ['x', 'y']),
               Task('mood', 'emotion', ['p', 'q'], multilabel=True)])


def learner(portraits, tasks=PORTRAIT, cbs=(), **kwargs):
    root, df = portraits
    dls = portrait_dls(df, root, tasks, size=(64, 32), bs=16, num_workers=0, seed=0, device='cpu')
    return fss_learner(dls, 'test_resnet', pretrained=False, cbs=[SkipValidation(), *cbs], **kwargs)


def fit(learn, n=1):
    with learn.no_bar(), learn.no_logging(): learn.fit(n, 1e-3)
    return learn


def step(seed=0):
    g = torch.Generator().manual_seed(seed)
    f = {t.name: torch.randn(8, 6, generator=g, dtype=torch.float64, requires_grad=True) for t in THREE}
    heads = {t.name: torch.randn(6, t.n_labels, generator=g, dtype=torch.float64) for t in THREE}
    def some_labels(n, *shape): return torch.randint(0, n, shape, generator=g)
    labels = dict(who=some_labels(3, 8), age=some_labels(2, 8), mood=some_labels(2, 8, 2).double())
    return dict(features=f, logits={k: f[k]@heads[k] for k in f}), labels


@pytest.mark.parametrize('metric_loss', [None, 'br', 'triplet'])
def test_gradnorm_evens_the_gradients(metric_loss):
    out, labels = step()
    loss = PortraitLoss(THREE, metric_loss, 'gradnorm').double()
    loss(out, labels).backward()
    lengths = torch.stack([f.grad.norm() for f in out['features'].values()])
    assert lengths.tolist() == pytest.approx([lengths[0].item()]*3) and loss.weights.mean().item() == pytest.approx(1)


def test_gradnorm_averages_over_batches_and_skips_what_has_no_label():
    loss, norms = PortraitLoss(THREE, weighting='gradnorm').double(), []
    for seed in range(3):
        out, labels = step(seed)
        def length(t):
            cls = class_loss(out['logits'][t.name], labels[t.name])
            return torch.autograd.grad(cls, out['features'][t.name], retain_graph=True)[0].norm().item()
        each = [length(t) for t in THREE]
        norms = each if not norms else [.9*a+.1*b for a, b in zip(norms, each)]
        loss(out, labels)
    assert loss.norms.tolist() == pytest.approx(norms)
    before = loss.norms.clone()
    out, labels = step(9)
    value = loss(out, dict(labels, age=torch.full((8,), -1)))
    assert loss.norms[1] == before[1] and loss.norms[0] != before[0] and value.isfinite()
    weights = loss.weights.clone()
    with torch.no_grad(): loss(*step(4))
    assert (loss.weights == weights).all()


@pytest.mark.parametrize('split', ['fss', 'shared'])
@pytest.mark.parametrize('weighting', ['gradnorm', 'dwa'])
def test_weightings_train_under_bf16_and_travel(portraits, weighting, split, tmp_path):
    learn = fit(learner(portraits, weighting=weighting, split=split, metric_loss=None, cbs=[BF16(), EMA(.9)]), 4)
    w = learn.loss_func.weights
    assert w.std() > .01 if weighting == 'gradnorm' else 1e-6 < w.std() < .5
    assert w.mean().item() == pytest.approx(1, abs=1e-3)
    again = load_portrait_model(save_portrait_model(learn, tmp_path/'m'))
    assert again.criterion.weighting == weighting and torch.equal(again.criterion.weights, w)


def test_dynamic_weights_need_two_epochs_and_follow_the_log(portraits):
    learn = fit(learner(portraits, weighting='dwa', metric_loss='br'), 2)
    assert (learn.loss_func.weights == 1).all()
    learn = fit(learner(portraits, weighting='dwa', metric_loss='br'), 3)
    log = learn.loss_recorder.log
    total = (log.cls + .5*log.ml).groupby([log.epoch, log.task]).sum().unstack()[PORTRAIT.names]
    r = (total.loc[1]/total.loc[0]).to_numpy()
    want = 8*np.exp(r/2)/np.exp(r/2).sum()
    assert learn.loss_func.weights.tolist() == pytest.approx(want, rel=1e-4)


def test_shares_against_counting():
    rng = np.random.default_rng(0)
    y = rng.integers(-1, 4, 300)
    known = y[y >= 0]
    want = [(known == i).mean() for i in range(4)]
    assert label_priors(Task('t', 'a', list('abcd')), torch.tensor(y)).tolist() == pytest.approx(want)
    assert label_priors(Task('t', 'a', list('ab')), torch.tensor([0, 0, -1, 0])).tolist() == pytest.approx([1, 1/3])
    hot = torch.tensor([[1., 0], [0, 0], [-1, -1], [1, 1]])
    assert label_priors(Task('t', 'a', list('ab'), multilabel=True), hot).tolist() == pytest.approx([2/3, 1/3])


def test_adjusted_in_training_and_not_in_scoring(portraits):
    cb = LogitAdjustment(tau=.5)
    logged = []
    class Look(Callback):
        order = 19
        def after_pred(self):
            logits = {k: v.detach().clone() for k, v in self.pred['logits'].items()}
            logged.append((logits, self.training))
    class After(Look):
        order = 21
    fit(learner(portraits, cbs=[cb, Look(), After()]))
    (raw, training), (adjusted, _) = logged[:2]
    root, df = portraits
    train = df[df.split == 'train']
    share = train.gender[train.gender != ''].value_counts(normalize=True).reindex(PORTRAIT['gender'].labels).to_numpy()
    assert training and (adjusted['gender']-raw['gender'])[0].tolist() == pytest.approx(.5*np.log(share), rel=1e-4)
    assert torch.equal(adjusted['identity'], raw['identity'])
    rows = train.expression[train.expression != ''].str.split('|')
    p = np.array([[l in o for l in PORTRAIT['expression'].labels] for o in rows]).mean(0)
    assert (adjusted['expression']-raw['expression'])[3].tolist() == pytest.approx(.5*np.log(p/(1-p)), rel=1e-3)
    assert cb.run_valid is False


def test_gradient_lengths_by_finite_differences(portraits):
    "The derivative along the gradient is its length"
    root, df = portraits
    dls = portrait_dls(df, root, PORTRAIT, size=(64, 32), bs=16, num_workers=0, seed=0, device='cpu')
    torch.manual_seed(0)
    model = PortraitNet(dls.tasks, 'test_resnet', split='shared', pretrained=False, size=dls.size).double().eval()
    loss = PortraitLoss(dls.tasks, 'br')
    x, y = dls.train.one_batch()
    got, pooled = gradient_lengths(model, loss, x.double(), y), model.pooled(x.double()).detach()
    for t in dls.tasks:
        parts = dict(cls=lambda out: class_loss(out['logits'][t.name], y[t.name]),
                     ml=lambda out: .5*batch_rank_loss(out['features'][t.name], y[t.name]))
        for k, part in parts.items():
            f = lambda v: part(model.heads(v))
            v = pooled.clone().requires_grad_()
            along = torch.autograd.grad(f(v), v)[0]
            along = along/along.norm()
            slope = (f(pooled+1e-5*along)-f(pooled-1e-5*along))/2e-5
            assert got.loc[t.name, k] == pytest.approx(slope.item(), rel=1e-4)


def test_looking_for_a_learning_rate_leaves_the_weights_alone(portraits):
    learn = learner(portraits, weighting='dwa')
    with learn.no_bar(), learn.no_logging(): learn.lr_find(num_it=10, show_plot=False)
    assert learn.loss_func.weights.tolist() == [1.]*8


def test_what_the_callbacks_need_is_said(portraits):
    with pytest.raises(ValueError, match='the Learner needs both'): fit(learner(portraits, cbs=[DynamicWeights()]))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_dynamic_weights_against_numpy(dtype):
    g = torch.Generator().manual_seed(0)
    last, before = torch.rand(2, 9, generator=g, dtype=dtype)+.1
    r = (last/before).double().numpy()/2
    want = 9*np.exp(r)/np.exp(r).sum()
    assert dynamic_weights(last, before).tolist() == pytest.approx(want.tolist(), rel=1e-5)
    assert dynamic_weights(last, before).sum().item() == pytest.approx(9, rel=1e-5)


def test_a_loss_that_was_nothing_or_unknown_is_steady():
    last, before = np.array([1., 0, np.nan, 1, 2]), np.array([0., 0, 1, np.nan, 2])
    assert dynamic_weights(last, before).tolist() == pytest.approx([1.]*5)

"The losses against plain double loops in float64, and in every degenerate batch"
import copy, math, pickle, pytest, torch
from torch.utils._python_dispatch import TorchDispatchMode
from portrait_nb.losses import PortraitLoss, batch_hard_triplet_loss, batch_rank_loss, class_loss, labelled_mean
from portrait_nb.tasks import PORTRAIT, Task, Tasks

torch.set_num_threads(1)


def known_rows(labels):
    def known(y): return -1 not in y if isinstance(y, list) else y != -1
    return [i for i, y in enumerate(labels.tolist()) if known(y)]


def share(a, b): return any(i>0 and j>0 for i, j in zip(a, b)) if isinstance(a, list) else a == b


def cosine(a, b):
    norms = math.sqrt(sum(x*x for x in a))*math.sqrt(sum(x*x for x in b))
    return sum(x*y for x, y in zip(a, b))/norms if norms else 0.


def loop_batch_rank(features, labels, positives):
    f, y, rows = features.tolist(), labels.tolist(), known_rows(labels)
    total = 0.
    for i in rows:
        terms = []
        for j in rows:
            if j == i or not share(y[i], y[j]): continue
            down = sum(math.exp(cosine(f[i], f[c])) for c in rows if c != i)
            terms.append(-math.log(math.exp(cosine(f[i], f[j]))/down))
        if terms: total += sum(terms)/(len(terms) if positives == 'mean' else 1)
    return total/len(rows) if rows else 0.


def loop_triplet(features, labels, margin):
    f, y, rows = features.tolist(), labels.tolist(), known_rows(labels)
    dist = lambda i, j: math.sqrt(max(0, 2-2*cosine(f[i], f[j])))
    losses = []
    for i in rows:
        pos = [dist(i, j) for j in rows if j != i and share(y[i], y[j])]
        neg = [dist(i, j) for j in rows if j != i and not share(y[i], y[j])]
        if pos and neg: losses.append(max(0, max(pos)-min(neg)+margin))
    return sum(losses)/len(losses) if losses else 0.


def random_batch(seed):
    "Features of mixed lengths; labels single or multi-hot, some rows unknown, some rows of zeros"
    g = torch.Generator().manual_seed(seed)
    n, d = torch.randint(1, 14, (2,), generator=g).tolist()
    f = torch.randn(n, d+1, generator=g, dtype=torch.float64)*torch.rand(n, 1, generator=g)*10
    y = torch.randint(0, 4, (n,), generator=g) if seed%2 else (torch.rand(n, 3, generator=g)<.4).float()
    y[torch.rand(n, generator=g)<.25] = -1
    return f, y


@pytest.mark.parametrize('seed', range(30))
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_against_double_loop(seed, dtype):
    f, y = random_batch(seed)
    tol = dict(rel=1e-10, abs=1e-12) if dtype == torch.float64 else dict(rel=2e-5, abs=2e-5)
    for positives in ('sum', 'mean'):
        loss = batch_rank_loss(f.to(dtype), y, positives)
        assert loss.dtype == dtype and loss.item() == pytest.approx(loop_batch_rank(f, y, positives), **tol)
    for margin in (.3, 1.):
        loss = batch_hard_triplet_loss(f.to(dtype), y, margin)
        assert loss.dtype == dtype and loss.item() == pytest.approx(loop_triplet(f, y, margin), **tol)


@pytest.mark.parametrize('seed', range(8))
def test_unlabelled_rows_take_no_part(seed):
    f, y = random_batch(seed)
    rows = known_rows(y)
    if not rows: pytest.skip('all rows are unlabelled')
    f.requires_grad_()
    for loss in (batch_rank_loss, batch_hard_triplet_loss):
        whole, (grad,) = loss(f, y), torch.autograd.grad(loss(f, y), f)
        assert torch.allclose(whole, loss(f[rows], y[rows]), atol=1e-14)
        assert not grad[[i for i in range(len(f)) if i not in rows]].any()


def test_another_mark_for_unknown():
    f, y = torch.randn(6, 3), torch.tensor([0, 0, 255, 1, 1, 255])
    for loss in (batch_rank_loss, batch_hard_triplet_loss):
        assert torch.allclose(loss(f, y, ignore=255), loss(f, torch.where(y == 255, -1, y)))


@pytest.mark.parametrize('loss', [batch_rank_loss, lambda f, y: batch_rank_loss(f, y, 'mean'), batch_hard_triplet_loss])
@pytest.mark.parametrize('labels', [[], [0], [-1], [-1, -1, -1], [0, 1, 2], [-1, 2], [[0, 0], [0, 0], [1, 0]],
                                    [[-1, -1]]*3])
@pytest.mark.parametrize('half', [False, True])
def test_nothing_to_compare(loss, labels, half):
    f = torch.randn(len(labels), 4, dtype=torch.bfloat16 if half else torch.float32, requires_grad=True)
    value = loss(f, torch.tensor(labels))
    value.backward()
    assert value.item() == 0 and value.dtype == torch.float32 and not f.grad.any() and f.grad.isfinite().all()


@pytest.mark.parametrize('loss', [batch_rank_loss, batch_hard_triplet_loss])
def test_hostile_features(loss):
    y = torch.tensor([0, 0, 1, 1, -1])
    some_zero = torch.tensor([[0., 0], [1, 0], [1, 0], [0, 0], [2, 2]])
    for f in (torch.zeros(5, 3), torch.ones(5, 3), some_zero, torch.randn(5, 3)*1e-9, torch.randn(5, 3)*1e9):
        f.requires_grad_()
        value = loss(f, y)
        value.backward()
        assert value.isfinite() and f.grad.isfinite().all() and not f.grad[f.detach().norm(dim=1) == 0].any()
    f = torch.randn(5, 3)
    f[4] = torch.nan
    f.requires_grad_()
    loss(f, y).backward()
    assert f.grad.isfinite().all()


def test_gradients():
    for seed in range(6):
        f, y = random_batch(seed)
        f.requires_grad_()
        for loss in (batch_rank_loss, lambda f, y: batch_rank_loss(f, y, 'mean'), batch_hard_triplet_loss):
            assert torch.autograd.gradcheck(lambda f: loss(f, y), f)


def test_supervised_contrastive_identity():
    SupConLoss = pytest.importorskip('pytorch_metric_learning.losses').SupConLoss
    for n_labels in (2, 5, 30):
        f, y = torch.randn(32, 6, dtype=torch.float64), torch.randint(0, n_labels, (32,))
        anchors = sum((y == o).sum()>1 for o in y)
        assert torch.allclose(batch_rank_loss(f, y, 'mean'), SupConLoss(temperature=1)(f, y)*anchors/32, rtol=1e-9)


# -- PortraitLoss

EIGHT = PORTRAIT.with_identities([str(i) for i in range(9)])
MARKET = Tasks([Task('identity', 'appearance', ['a', 'b', 'c'], is_identity=True),
                Task('gender', 'appearance', ['f', 'm']), Task('age', 'appearance', ['1', '2', '3', '4'])])


def random_step(tasks, n=12, seed=0, unlabelled=()):
    g = torch.Generator().manual_seed(seed)
    def leaf(d): return torch.randn(n, d, generator=g, dtype=torch.float64, requires_grad=True)
    def some_labels(t):
        if t.multilabel: return torch.randint(0, 2, (n, t.n_labels), generator=g).float()
        return torch.randint(0, t.n_labels, (n,), generator=g)
    output = dict(logits={t.name: leaf(t.n_labels) for t in tasks}, features={t.name: leaf(5) for t in tasks})
    labels = {t.name: some_labels(t) for t in tasks}
    for name, y in labels.items(): y[torch.rand(n, generator=g)<(1.1 if name in unlabelled else .3)] = -1
    return output, labels


def loop_cls(logits, labels):
    rows, z, y = known_rows(labels), logits.tolist(), labels.tolist()
    losses = []
    for i in rows:
        if isinstance(y[i], list):
            each = [math.log1p(math.exp(-v if t else v)) for v, t in zip(z[i], y[i])]
            losses.append(sum(each)/len(each))
        else: losses.append(math.log(sum(math.exp(v) for v in z[i]))-z[i][y[i]])
    return sum(losses)/len(losses) if losses else 0.


@pytest.mark.parametrize('tasks', [EIGHT, MARKET])
@pytest.mark.parametrize('metric_loss', [None, 'br', 'triplet'])
@pytest.mark.parametrize('unlabelled', [(), ('gender',), ('identity', 'age')])
def test_equations_5_and_6(tasks, metric_loss, unlabelled):
    output, labels = random_step(tasks, seed=3, unlabelled=unlabelled)
    def metric(f, y):
        if metric_loss == 'br': return loop_batch_rank(f, y, 'mean')
        return loop_triplet(f, y, .3) if metric_loss else 0.
    cls = {t.name: loop_cls(output['logits'][t.name], labels[t.name]) for t in tasks}
    ml = {t.name: metric(output['features'][t.name], labels[t.name]) for t in tasks}
    L = {k: cls[k]+.7*ml[k] for k in cls}
    average = PortraitLoss(tasks, metric_loss, lam=.7, positives='mean')
    n_labelled = len(tasks)-len({*unlabelled} & {*tasks.names})
    assert average(output, labels).item() == pytest.approx(sum(L.values())/n_labelled, rel=1e-6)
    for name in cls:
        parts = average.parts[name]
        assert parts['cls'].item() == pytest.approx(cls[name], rel=1e-6)
        assert parts['ml'].item() == pytest.approx(ml[name], rel=1e-6)
        assert not average.parts[name]['cls'].requires_grad and average.counts[name] == len(known_rows(labels[name]))
    weighted = PortraitLoss(tasks, metric_loss, 'uncertainty', lam=.7, positives='mean')
    assert weighted.s.shape == (len(tasks),) and not weighted.s.any()
    with torch.no_grad(): weighted.s.copy_(torch.linspace(-1, 1, len(tasks)))
    s = dict(zip(tasks.names, weighted.s.tolist()))
    value = weighted(output, labels)
    assert value.item() == pytest.approx(sum(math.exp(-s[k])*L[k]+s[k] for k in L if k not in unlabelled), rel=1e-6)
    value.backward()
    for i, k in enumerate(tasks.names):
        want = 0 if k in unlabelled else 1-math.exp(-s[k])*L[k]
        assert weighted.s.grad[i].item() == pytest.approx(want, rel=1e-5, abs=1e-6)


def gradients(loss, output, labels):
    "The value of `loss`, and {(part, sub-task): gradient}"
    leaves = {(k, t): o.detach().clone().requires_grad_() for k, v in output.items() for t, o in v.items()}
    value = loss({k: {t: leaves[k, t] for t in v} for k, v in output.items()}, labels)
    value.backward()
    return value.detach(), {k: o.grad for k, o in leaves.items()}


@pytest.mark.parametrize('metric_loss', [None, 'br', 'triplet'])
@pytest.mark.parametrize('weighting', ['average', 'gradnorm', 'dwa'])
@pytest.mark.parametrize('absent', [('gender',), ('identity', 'gender', 'age', 'body', 'expression')])
def test_a_sub_task_without_labels_takes_no_part(metric_loss, weighting, absent):
    "The others have the loss and the gradients of a network that does not know it"
    output, labels = random_step(EIGHT, seed=5, unlabelled=absent)
    rest = Tasks([t for t in EIGHT if t.name not in absent])
    value, grads = gradients(PortraitLoss(EIGHT, metric_loss, weighting).double(), output, labels)
    alone, want = gradients(PortraitLoss(rest, metric_loss, weighting).double(), output, labels)
    assert value.item() == pytest.approx(alone.item(), rel=1e-6)
    for (part, t), g in grads.items():
        if t in absent: assert g is None or not g.any()
        elif want[part, t] is not None: torch.testing.assert_close(g, want[part, t], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize('n_tasks', [1, 2, 3, 7, 8, 27, 40])
def test_with_all_labelled_it_is_the_plain_mean_to_the_last_bit(n_tasks):
    "What was trained before an absent sub-task stopped counting as 0 trains the same today"
    for seed in range(20):
        losses = torch.rand(n_tasks, generator=torch.Generator().manual_seed(seed), requires_grad=True)
        new, old = labelled_mean(losses, torch.ones(n_tasks, dtype=torch.bool)), losses.mean()
        assert torch.equal(new, old)
        assert torch.equal(*(torch.autograd.grad(o, losses)[0] for o in (new, old)))


@pytest.mark.parametrize('seed', range(3))
def test_halves_of_a_mixed_set_train_as_if_each_were_alone(seed):
    "Two sets that answer different questions, in batches of one set each"
    def some(*names): return Tasks([EIGHT[o] for o in names])
    first, second = some('gender', 'age'), some('body', 'arm', 'expression')
    both = Tasks([*first, *second])
    for own, other in ((first, second), (second, first)):
        output, labels = random_step(both, seed=seed, unlabelled=other.names)
        mixed, grads = gradients(PortraitLoss(both), output, labels)
        alone, want = gradients(PortraitLoss(own), output, labels)
        torch.testing.assert_close(mixed, alone, rtol=1e-12, atol=0)
        assert all(torch.equal(grads['logits', t.name], want['logits', t.name]) for t in own)


@pytest.mark.parametrize('metric_loss', [None, 'br', 'triplet'])
@pytest.mark.parametrize('weighting', ['average', 'uncertainty'])
@pytest.mark.parametrize('n', [0, 1, 4])
def test_no_label_at_all(metric_loss, weighting, n):
    output, labels = random_step(EIGHT, n=n, unlabelled=EIGHT.names)
    loss = PortraitLoss(EIGHT, metric_loss, weighting)
    value = loss(output, labels)
    value.backward()
    assert value.item() == 0
    for leaf in [*output['logits'].values(), *loss.parameters()]:
        assert leaf.grad.isfinite().all() and not leaf.grad.any()


@pytest.mark.parametrize('metric_loss', [None, 'br', 'triplet'])
def test_nan_where_nothing_is_labelled(metric_loss):
    output, labels = random_step(EIGHT)
    with torch.no_grad():
        for t in EIGHT:
            blank = torch.tensor([i not in known_rows(labels[t.name]) for i in range(12)])
            for part in output.values(): part[t.name][blank] = torch.nan
    value = PortraitLoss(EIGHT, metric_loss, 'uncertainty')(output, labels)
    value.backward()
    assert value.isfinite() and all(o.grad.isfinite().all() for o in output['logits'].values())


def test_float32_under_autocast():
    output, labels = random_step(EIGHT)
    for kind in (torch.float32, torch.bfloat16, torch.float16):
        low = {k: {n: o.detach().to(kind) for n, o in v.items()} for k, v in output.items()}
        with torch.autocast('cpu', torch.bfloat16):
            for metric_loss in (None, 'br', 'triplet'):
                loss = PortraitLoss(EIGHT, metric_loss, 'uncertainty')
                value = loss(low, labels)
                exact = loss({k: {n: o.double() for n, o in v.items()} for k, v in low.items()}, labels)
                assert value.dtype == loss.s.dtype == torch.float32 and torch.allclose(value.double(), exact, rtol=1e-5)


# -- many sub-tasks at once

KINDS = [dict(labels=list('ab'))]*12 + [dict(labels=list('abc'))]*9 + [dict(labels=list('abcd'), multilabel=True)]*8
MANY = Tasks([Task(f't{i}', f'a{i%4}', **o) for i, o in enumerate([*KINDS, dict(labels=list('abcde'))])])


def many_step(dtype=torch.float64, n=12, unlabelled=('t3', 't14', 't25'), seed=0):
    "Features of unlike lengths"
    output, labels = random_step(MANY, n=n, seed=seed, unlabelled=unlabelled)
    g = torch.Generator().manual_seed(seed)
    features = {t.name: torch.randn(n, 3+i%4, generator=g, dtype=dtype) for i, t in enumerate(MANY)}
    return dict(features=features, logits={k: v.to(dtype) for k, v in output['logits'].items()}), labels


def one_by_one(loss):
    loss = copy.deepcopy(loss)
    loss.groups = [[i] for i in range(len(loss.tasks))]
    return loss


@pytest.mark.parametrize('dtype,rtol', [(torch.float64, 1e-10), (torch.float32, 2e-5)])
@pytest.mark.parametrize('shares', [1, 3])
@pytest.mark.parametrize('weighting', ['average', 'uncertainty', 'dwa'])
@pytest.mark.parametrize('metric_loss', [None, 'br', 'triplet'])
def test_at_once_and_one_by_one_agree(metric_loss, weighting, shares, dtype, rtol):
    output, labels = many_step(dtype)
    loss = PortraitLoss(MANY, metric_loss, weighting, positives='mean', shares=shares).to(dtype)
    if weighting == 'uncertainty': torch.nn.init.normal_(loss.s)
    assert sorted(map(len, loss.groups)) == [1, 8, 9, 12]
    alone = one_by_one(loss)
    (value, grads), (want, wanted) = gradients(loss, output, labels), gradients(alone, output, labels)
    torch.testing.assert_close(value, want, rtol=rtol, atol=0)
    for k, g in wanted.items():
        if g is None: assert grads[k] is None or not grads[k].any()
        else: torch.testing.assert_close(grads[k], g, rtol=10*rtol, atol=rtol/10)
    assert list(loss.parts) == list(loss.counts) == MANY.names
    for k in MANY.names:
        assert loss.counts[k] == alone.counts[k] and not loss.parts[k]['cls'].requires_grad
        for kind in ('cls', 'ml'):
            torch.testing.assert_close(loss.parts[k][kind], alone.parts[k][kind], rtol=rtol, atol=rtol/10)
    if weighting == 'uncertainty':
        torch.testing.assert_close(loss.s.grad, alone.s.grad, rtol=rtol, atol=rtol/10)
        assert not loss.s.grad[[3, 14, 25]].any()


def test_gradnorm_weighs_at_once_as_one_by_one():
    output, labels = many_step()
    heads = {k: torch.randn(v.shape[1], output['logits'][k].shape[1], dtype=torch.float64)
             for k, v in output['features'].items()}
    def weights(loss):
        f = {k: v.clone().requires_grad_() for k, v in output['features'].items()}
        loss(dict(features=f, logits={k: v@heads[k] for k, v in f.items()}), labels).backward()
        return loss.weights
    loss = PortraitLoss(MANY, 'br', 'gradnorm').double()
    alone = one_by_one(loss)
    torch.testing.assert_close(weights(loss), weights(alone), rtol=1e-9, atol=0)
    assert loss.weights.std() > .01


@pytest.mark.parametrize('metric_loss', [None, 'br', 'triplet'])
def test_many_against_plain_loops(metric_loss):
    output, labels = many_step()
    loss = PortraitLoss(MANY, metric_loss)
    loss(output, labels)
    def metric(f, y):
        if metric_loss == 'br': return loop_batch_rank(f, y, 'sum')
        return loop_triplet(f, y, .3) if metric_loss else 0.
    for k in MANY.names:
        f, y = output['features'][k], labels[k]
        assert loss.parts[k]['cls'].item() == pytest.approx(loop_cls(output['logits'][k], y), rel=1e-9)
        assert loss.parts[k]['ml'].item() == pytest.approx(metric(f, y), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize('metric_loss', [None, 'br', 'triplet'])
@pytest.mark.parametrize('n', [0, 1, 5])
def test_many_without_a_label(metric_loss, n):
    output, labels = many_step(torch.float32, n, MANY.names)
    value, grads = gradients(PortraitLoss(MANY, metric_loss, 'average'), output, labels)
    assert value == 0 and not any(g.any() for g in grads.values() if g is not None)
    output, labels = many_step(torch.float32, 12)
    for k in MANY.names:
        blank = [i for i in range(12) if i not in known_rows(labels[k])]
        for part in output.values(): part[k][blank] = torch.nan
    value, grads = gradients(PortraitLoss(MANY, metric_loss, 'average'), output, labels)
    assert value.isfinite() and all(g.isfinite().all() for g in grads.values() if g is not None)


class Watch(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.ops = set()
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.ops.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('metric_loss', [None, 'br', 'triplet'])
@pytest.mark.parametrize('tasks', [EIGHT, MANY])
def test_reads_nothing_back_from_the_device(tasks, metric_loss):
    output, labels = random_step(tasks)
    with Watch() as seen: PortraitLoss(tasks, metric_loss, 'uncertainty')(output, labels).backward()
    assert not seen.ops & {'_local_scalar_dense', 'nonzero', 'equal', 'masked_select'}


def test_s_is_saved_copied_and_kept_from_weight_decay():
    loss = PortraitLoss(MARKET, 'br', 'uncertainty')
    with torch.no_grad(): loss.s.copy_(torch.tensor([1., 2, 3]))
    again = PortraitLoss(MARKET, 'br', 'uncertainty')
    again.load_state_dict(loss.state_dict())
    output, labels = random_step(MARKET)
    loss(output, labels)
    for o in (again, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))): assert o.s.tolist() == [1, 2, 3]
    assert loss.no_weight_decay() == {'s'} and list(dict(loss.named_parameters())) == ['s']
    assert not list(PortraitLoss(MARKET).parameters()) and PortraitLoss(MARKET).no_weight_decay() == set()


def test_wrong_use():
    output, labels = random_step(MARKET)
    loss = PortraitLoss(MARKET, 'br')
    wrong = dict(metric_loss='arc', weighting='none', positives='max')
    for word, value in wrong.items():
        kwargs = {word: value}
        with pytest.raises(ValueError, match=word): PortraitLoss(MARKET, **kwargs)
    def without(d, key): return {k: v for k, v in d.items() if k != key}
    with pytest.raises(ValueError, match="no labels for the sub-task 'age'"): loss(output, without(labels, 'age'))
    logits, features = output['logits'], output['features']
    with pytest.raises(ValueError, match="no logits for the sub-task 'age'"):
        loss(dict(output, logits=without(logits, 'age')), labels)
    with pytest.raises(ValueError, match="no features for the sub-task 'age'"):
        loss(dict(output, features=without(features, 'age')), labels)
    with pytest.raises(ValueError, match=r"logits of 'gender' must be \(N, 2\)"):
        loss(dict(output, logits=dict(logits, gender=logits['age'])), labels)
    with pytest.raises(ValueError, match="labels of 'gender' must be"):
        loss(output, dict(labels, gender=labels['gender'][:3]))
    assert PortraitLoss(MARKET)(without(output, 'features'), labels).isfinite()
    for f, y in ((torch.ones(2), torch.ones(2)), (torch.ones(2, 3), torch.ones(3)),
                 (torch.ones(2, 3), torch.ones(2, 2, 2))):
        with pytest.raises(ValueError, match='features must be'): batch_rank_loss(f, y)
        with pytest.raises(ValueError, match='features must be'): batch_hard_triplet_loss(f, y)

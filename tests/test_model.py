import math
import copy
from types import SimpleNamespace
import pytest, timm, torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch.overrides import TorchFunctionMode
from portrait_nb import model as M
from portrait_nb.learner import load_portrait_model, save_portrait_model
from portrait_nb.losses import PortraitLoss
from portrait_nb.model import BNNeck, PortraitNet, of_one_kind, side_by_side
from portrait_nb.tasks import PORTRAIT, Task, Tasks, feature_split

TASKS = PORTRAIT.with_identities([f'p{i}' for i in range(11)])


@pytest.fixture(scope='module')
def net():
    torch.manual_seed(0)
    return PortraitNet(TASKS, 'test_resnet', pretrained=False, size=(64, 32)).eval()


def nowhere(*args, **kwargs): raise OSError('Name or service not known')


LENGTHS = dict(test_resnet=96, mobilenetv3_small_100=1024, test_vit=64, test_convnext=64, hrnet_w18_small=2048)


@pytest.mark.parametrize('backbone,n', LENGTHS.items())
@pytest.mark.parametrize('split', ['fss', 'shared'])
def test_shapes(backbone, n, split):
    net = PortraitNet(TASKS, backbone, split=split, pretrained=False, size=(64, 32))
    out = net(torch.randn(2, 3, 64, 32))
    assert net.training and net.n_features == n and list(out['logits']) == TASKS.names == list(out['features'])
    reads = feature_split(TASKS, n) if split == 'fss' else {t.name: torch.arange(n) for t in TASKS}
    for t in TASKS:
        assert out['features'][t.name].shape == (2, len(reads[t.name]))
        assert out['logits'][t.name].shape == (2, t.n_labels)


def test_heads_by_hand(net):
    pooled = torch.rand(6, 96)
    out = net.heads(pooled)
    for t in TASKS:
        neck, f = net.neck(t.name), pooled[:, feature_split(TASKS, 96)[t.name]]
        after = f/(1+neck.bn.eps)**.5 # in eval, before any training: mean 0, variance 1
        torch.testing.assert_close(out['features'][t.name], f)
        start = 0 if t.is_identity else -math.log(t.n_labels-1) if t.multilabel else -math.log(t.n_labels)
        torch.testing.assert_close(out['logits'][t.name], after@neck.classifier.weight.T + start)
        assert (neck.classifier.bias is None) == t.is_identity


@pytest.mark.parametrize('bias', ['attributes', 'none', 'all'])
def test_which_classifiers_have_a_bias_and_where_it_starts(bias):
    def some_shares(t):
        total = t.n_labels+2 if t.multilabel else sum(range(t.n_labels+1))
        return torch.arange(1., t.n_labels+1)/total
    shares = {t.name: some_shares(t) for t in TASKS.attributes}
    net = PortraitNet(TASKS, 'test_resnet', pretrained=False, size=(64, 32), bias=bias, shares=shares)
    for t in TASKS:
        start = net.neck(t.name).classifier.bias
        has = t.multilabel or bias == 'all' or bias == 'attributes' and not t.is_identity
        assert (start is not None) == has
        if not has: continue
        says = start.sigmoid() if t.multilabel else start.softmax(0)
        torch.testing.assert_close(says.detach(), shares.get(t.name, torch.full((t.n_labels,), 1/t.n_labels)))


def test_bias_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="bias must be 'attributes'"):
        PortraitNet(TASKS, 'test_resnet', pretrained=False, size=(64, 32), bias=True)


def learnt(neck, x, y):
    "What `neck` says of label 1 after learning `y`"
    opt = torch.optim.Adam([p for p in neck.parameters() if p.requires_grad], 3e-2)
    for _ in range(300):
        opt.zero_grad()
        F.cross_entropy(neck(x), y).backward()
        opt.step()
    return neck(x).softmax(1)[:, 1].detach()


def test_a_rare_label_is_said_as_often_as_it_is_borne():
    torch.manual_seed(0)
    x, y = torch.randn(2000, 16), (torch.rand(2000)<.05).long()
    with_one, without = learnt(BNNeck(16, 2), x, y), learnt(BNNeck(16, 2, bias=False), x, y)
    assert abs(with_one.mean()-y.float().mean())<.01 and (with_one>.5).float().mean()<.005
    assert without.mean()>.45


def test_last_stride():
    x = torch.randn(2, 3, 64, 32)
    def net(stride):
        return PortraitNet(TASKS, 'test_resnet', pretrained=False, size=(64, 32), output_stride=stride).eval()
    nets = [net(o) for o in (None, 32, 16)]
    assert [tuple(o.body.forward_features(x).shape[2:]) for o in nets] == [(2, 1), (2, 1), (4, 2)]
    assert [o.n_features for o in nets] == [96]*3
    nets[2].load_state_dict(nets[0].state_dict())
    with pytest.raises(ValueError, match="'test_vit' cannot be built with output_stride=16"):
        PortraitNet(TASKS, 'test_vit', pretrained=False, size=(64, 32), output_stride=16)


def test_classifier_starts_small():
    torch.manual_seed(0)
    neck = BNNeck(2000, 100, bias=False)
    assert abs(neck.classifier.weight.std().item()-.001)<2e-5 and neck.classifier.bias is None
    assert not neck.bn.bias.requires_grad and not neck.bn.bias.any()


def test_the_vector_is_what_timm_classifies():
    body = timm.create_model('mobilenetv3_small_100', pretrained=False, num_classes=0).eval()
    net = PortraitNet(TASKS, 'mobilenetv3_small_100', pretrained=False, size=(64, 32)).eval()
    net.body.load_state_dict(body.state_dict())
    x = torch.randn(2, 3, 64, 32)
    torch.testing.assert_close(net.pooled(x), body(x))


def test_gradient_stays_in_its_slice(net):
    for t in TASKS:
        pooled = torch.rand(4, 96, requires_grad=True)
        net.heads(pooled)['logits'][t.name].square().sum().backward()
        assert set(pooled.grad.abs().sum(0).nonzero().flatten().tolist()) == set(feature_split(TASKS,
                                                                                               96)[t.name].tolist())


def test_embed_has_length_one_and_does_not_depend_on_company(net):
    x = torch.randn(5, 3, 64, 32)
    with torch.no_grad(): e, alone = net.embed(x), torch.cat([net.embed(o[None]) for o in x])
    torch.testing.assert_close(e.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(e, alone, atol=1e-5, rtol=1e-4)
    bn = net.neck('identity').bn
    with torch.no_grad(): torch.testing.assert_close(e, F.normalize(bn(net(x)['features']['identity']), dim=1))


def test_embed_in_half_precision_is_float32(net):
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16): e = net.embed(torch.randn(2, 3, 64, 32))
    assert e.dtype == torch.float32


def test_odd_task_names():
    tasks = Tasks([Task(n, 'x', ['a', 'b']) for n in ('type', 'keys', 'training', 'forward', 'hat colour')])
    out = PortraitNet(tasks, 'test_resnet', pretrained=False, size=(64, 32))(torch.randn(2, 3, 64, 32))
    assert list(out['logits']) == tasks.names


def test_identity_under_another_name():
    tasks = Tasks([Task('actor', 'appearance', None), Task('mood', 'emotion', ['a', 'b'])]).with_identities(['x', 'y',
                                                                                                             'z'])
    net = PortraitNet(tasks, 'test_resnet', pretrained=False, size=(64, 32)).eval()
    assert net.embed(torch.randn(2, 3, 64, 32)).shape == (2, 48)


def test_state_dict_and_copies(net):
    other = PortraitNet(TASKS, 'test_resnet', pretrained=False, size=(64, 32)).eval()
    other.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 64, 32)
    for o in (other, copy.deepcopy(net)): torch.testing.assert_close(o(x)['logits']['arm'], net(x)['logits']['arm'])
    torch.nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(net))


def test_compiles_as_one_graph(net):
    x = torch.randn(2, 3, 64, 32)
    fast = torch.compile(net, backend='eager', fullgraph=True)
    torch.testing.assert_close(fast(x)['logits']['identity'], net(x)['logits']['identity'])


def test_refusals(net):
    def make(tasks=TASKS, backbone='test_resnet', **kw):
        return PortraitNet(tasks, backbone, pretrained=False, size=(64, 32), **kw)
    with pytest.raises(ValueError, match='pass dls.tasks'): make(PORTRAIT)
    with pytest.raises(ValueError, match="no backbone 'resnet5'; did you mean"): make(backbone='resnet5')
    with pytest.raises(ValueError, match="no backbone 'qqqqqqqq'; timm.list_models"): make(backbone='qqqqqqqq')
    with pytest.raises(ValueError, match="split must be"): make(split='half')
    many = [Task(f't{i}', 'x', ['a', 'b']) for i in range(33)]
    with pytest.raises(ValueError, match='too short for 41 sub-tasks'): make(Tasks([*TASKS, *many]))
    with pytest.raises(ValueError, match='no identity task among'):
        make(Tasks([Task('mood', 'emotion', ['a', 'b'])])).eval().embed(torch.randn(1, 3, 64, 32))
    with pytest.raises(KeyError, match="no task 'hair'"): net.neck('hair')


def test_no_network_ends_in_one_sentence(monkeypatch):
    monkeypatch.setattr(M, 'get_hf_file_metadata', nowhere)
    monkeypatch.setattr(M, 'try_to_load_from_cache', lambda *a, **k: None)
    with pytest.raises(ConnectionError) as e: PortraitNet(TASKS, 'hrnet_w32')
    message = str(e.value)
    assert all(o in message for o in ("'hrnet_w32'", 'pretrained=False', "pretrained='path/to/model.safetensors'",
                                      'Name or service'))
    assert '\n' not in message and message.count('. ') == 0


def test_no_weights_exist(monkeypatch):
    configs = {o: timm.get_pretrained_cfg(o) for o in timm.list_models('resnet*')}
    name = next(k for k, v in configs.items() if not v.hf_hub_id and not v.url)
    monkeypatch.setattr(M, 'get_hf_file_metadata', nowhere)
    with pytest.raises(RuntimeError, match='pretrained=False'): PortraitNet(TASKS, name)


def test_a_network_of_ones_own():
    @timm.models.register_model
    def test_of_my_own(pretrained=False, **kwargs):
        return timm.create_model('test_resnet', pretrained=pretrained, channels=(8, 16, 24, 32), **kwargs)
    net = PortraitNet(TASKS, 'test_of_my_own', pretrained=False, size=(128, 64), output_stride=16)
    assert net.body.num_features == net.n_features == 32
    with pytest.raises(ValueError, match="no pretrained weights of 'test_of_my_own': pass pretrained=False"):
        PortraitNet(TASKS, 'test_of_my_own')


def test_weights_in_the_cache_need_no_network(tmp_path, monkeypatch):
    import huggingface_hub.constants as C
    repo, revision = timm.get_pretrained_cfg('test_resnet').hf_hub_id, 'a'*40
    at = tmp_path/('models--'+repo.replace('/', '--'))
    (at/'refs').mkdir(parents=True); (at/'refs/main').write_text(revision)
    (at/'snapshots'/revision).mkdir(parents=True)
    source = timm.create_model('test_resnet', pretrained=False)
    save_file(source.state_dict(), at/'snapshots'/revision/'model.safetensors')
    monkeypatch.setattr(C, 'HF_HUB_CACHE', str(tmp_path)); monkeypatch.setattr(C, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(M, 'get_hf_file_metadata', nowhere)
    net = PortraitNet(TASKS, 'test_resnet', size=(64, 32))
    for k, v in net.body.state_dict().items(): torch.testing.assert_close(v, source.state_dict()[k])


@pytest.mark.parametrize('suffix', ['safetensors', 'pth'])
def test_weights_from_a_file(tmp_path, suffix):
    source, file = timm.create_model('test_resnet', pretrained=False), tmp_path/f'w.{suffix}'
    if suffix == 'pth': torch.save(source.state_dict(), file)
    else: save_file(source.state_dict(), file)
    net = PortraitNet(TASKS, 'test_resnet', pretrained=str(file), size=(64, 32))
    for k, v in net.body.state_dict().items(): torch.testing.assert_close(v, source.state_dict()[k])


def test_a_vit_file_is_fitted_to_our_size(tmp_path):
    source = timm.create_model('test_vit', pretrained=False) # built for 160 x 160
    save_file(source.state_dict(), tmp_path/'w.safetensors')
    net = PortraitNet(TASKS, 'test_vit', pretrained=tmp_path/'w.safetensors', size=(128, 64))
    assert net.body.pos_embed.shape != source.pos_embed.shape
    torch.testing.assert_close(net.body.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)


class Bomb:
    def __reduce__(self): return print, ('BOOM',)


def test_bad_files(tmp_path, capsys):
    def load(name): return PortraitNet(TASKS, 'test_resnet', pretrained=tmp_path/name, size=(64, 32))
    with pytest.raises(FileNotFoundError, match='no such file'): load('absent.safetensors')
    (tmp_path/'junk.safetensors').write_bytes(b'not weights at all')
    with pytest.raises(ValueError, match="junk.safetensors' cannot be read as weights of 'test_resnet'"):
        load('junk.safetensors')
    save_file({'head.weight': torch.zeros(2, 2)}, tmp_path/'other.safetensors')
    with pytest.raises(ValueError, match='of its tensors are missing'): load('other.safetensors')
    wrong = {k: v[:1].clone() if v.ndim else v for k, v in timm.create_model('test_resnet').state_dict().items()}
    save_file(wrong, tmp_path/'shape.safetensors')
    with pytest.raises(ValueError, match="shape.safetensors' cannot be read"): load('shape.safetensors')
    torch.save({'state_dict': Bomb()}, tmp_path/'bomb.pth')
    with pytest.raises(ValueError, match='bomb.pth'): load('bomb.pth')
    assert 'BOOM' not in capsys.readouterr().out


# --- whose numbers are these

def test_digest_follows_the_weights(net):
    from copy import deepcopy
    from portrait_nb.model import weights_digest
    first, copy = weights_digest(net), deepcopy(net)
    assert weights_digest(copy) == first == weights_digest(net) and len(first) == 16
    found = {first}
    for fused in (False, True): # a fused step is not counted by torch's versions
        for p in copy.parameters(): p.grad = torch.ones_like(p)
        torch.optim.Adam(copy.parameters(), 1e-6, fused=fused).step()
        found.add(weights_digest(copy))
        other = deepcopy(net); other.load_state_dict(copy.state_dict())
        assert weights_digest(other) == weights_digest(copy)
    with torch.no_grad(): next(p for p in copy.parameters() if p.numel()>2000).view(-1)[-1] += 1
    found.add(weights_digest(copy))
    copy.train()(torch.randn(4, 3, 64, 32)); found.add(weights_digest(copy))
    with torch.inference_mode(): found.add(weights_digest(deepcopy(net)))
    assert len(found) == 5
    assert weights_digest(net.to(memory_format=torch.channels_last)) == first


def test_embed_refuses_what_nobody_normalised(net):
    wrong = [(torch.zeros(2, 3, 64, 32, dtype=torch.uint8), 'of torch.uint8'), (torch.rand(2, 3, 64, 32), 'go from'),
             (255*torch.rand(2, 3, 64, 32), 'go from'), (torch.randn(2, 3, 32, 64), r'\(2, 3, 32, 64\)'),
             (torch.randn(3, 64, 32), r'\(3, 64, 32\)'), (torch.randn(2, 1, 64, 32), 'embed takes normalised')]
    for x, words in wrong:
        with pytest.raises(ValueError, match=words): net.embed(x)


# --- many necks at once

def forty_tasks():
    "Eight aspects; twenty sub-tasks of two labels, nine of three, eight multi-label ones, and three of other kinds"
    kinds = [dict(labels=list('ab'))]*20 + [dict(labels=list('abc'))]*9 + [dict(labels=list('abcd'), multilabel=True)]*8
    kinds += [dict(labels=list('abcde'))]*2
    tasks = [Task(f'sub-task {i}', f'aspect {i%8}', **o) for i, o in enumerate(kinds)]
    who = Task('identity', 'aspect 0', [f'p{i}' for i in range(11)], is_identity=True)
    return Tasks([*tasks[:7], who, *tasks[7:]])


FORTY = forty_tasks()


def forty_net(**kwargs):
    torch.manual_seed(0)
    net = PortraitNet(FORTY, 'mobilenetv3_small_100', pretrained=False, size=(64, 32), **kwargs)
    with torch.no_grad():
        for neck in net.necks:
            neck.bn.weight.uniform_(.5, 2)
            neck.classifier.weight.normal_()
    return net


def one_by_one(net):
    "The same network, each neck for itself"
    net = copy.deepcopy(net)
    net.groups = []
    return net


def same(a, b, share=1e-6):
    "Are they as near as float32 allows, measured by the largest number?"
    return a.shape == b.shape and (a-b).abs().max() <= share*b.abs().max()


def pulled(net, pooled, weights):
    "What the heads answer, and the gradients at the vector and at the parameters"
    pooled = pooled.clone().requires_grad_()
    out = net.heads(pooled)
    sum((weights[k]*v).sum() for k, v in out['logits'].items()).backward()
    return out, [pooled.grad, *(p.grad for p in net.necks.parameters() if p.requires_grad)]


@pytest.mark.parametrize('bias', ['attributes', 'none', 'all'])
@pytest.mark.parametrize('split', ['fss', 'fss-even', 'shared'])
def test_at_once_and_one_by_one_agree(split, bias):
    net = forty_net(split=split, bias=bias)
    alone = one_by_one(net)
    assert [len(o) for o in net.groups] == [20, 9, 8]
    digits = 3e-6 if split == 'shared' else 1e-6 # there a logit is the sum of 1024 products
    g = torch.Generator().manual_seed(1)
    weights = {t.name: torch.randn(12, t.n_labels, generator=g)/12 for t in FORTY}
    for training in (True, True, False):
        pooled = torch.rand(12, net.n_features, generator=g)
        for o in (net, alone): o.train(training).zero_grad()
        (out, grads), (want, wanted) = pulled(net, pooled, weights), pulled(alone, pooled, weights)
        assert list(out['logits']) == list(out['features']) == FORTY.names
        for t in FORTY.names:
            assert torch.equal(out['features'][t], want['features'][t])
            assert same(out['logits'][t], want['logits'][t], digits)
        assert all(same(*o, 5e-6) for o in zip(grads, wanted, strict=True))
        for a, b in zip(net.buffers(), alone.buffers(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    assert net.necks[0].bn.num_batches_tracked == 2


def test_in_float64_they_agree_to_twelve_digits():
    net = forty_net().double()
    alone, pooled = one_by_one(net), torch.rand(9, net.n_features, dtype=torch.float64)
    weights = {t.name: torch.ones(t.n_labels, dtype=torch.float64) for t in FORTY}
    (out, grads), (want, wanted) = pulled(net, pooled, weights), pulled(alone, pooled, weights)
    for t in FORTY.names: torch.testing.assert_close(out['logits'][t], want['logits'][t], rtol=1e-12, atol=1e-12)
    for a, b in zip(grads, wanted, strict=True): torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_the_papers_sub_tasks_go_one_by_one(net):
    assert net.groups == [] and of_one_kind([2]*7+[3]*7) == []
    assert of_one_kind([2, 3]*8) == [[*range(0, 16, 2)], [*range(1, 16, 2)]]


def test_the_weights_start_as_if_there_were_no_groups():
    "One body, then the necks in the order of the sub-tasks: a seed means what it meant"
    torch.manual_seed(3)
    net = PortraitNet(FORTY, 'mobilenetv3_small_100', pretrained=False, size=(64, 32))
    torch.manual_seed(3)
    body = timm.create_model('mobilenetv3_small_100', pretrained=False, num_classes=0)
    necks = nn.ModuleList(BNNeck(len(s.dims), t.n_labels, t.multilabel, not t.is_identity)
                          for s, t in zip(net.slices, FORTY))
    want = nn.ModuleDict(dict(body=body, necks=necks)).state_dict()
    have = net.state_dict()
    assert list(have) == list(want) and all(torch.equal(have[k], want[k]) for k in want)


def test_a_model_saved_one_by_one_answers_the_same(tmp_path):
    "The names in a file are those of single necks"
    net = one_by_one(forty_net())
    net.criterion = PortraitLoss(FORTY, None, 'uncertainty')
    with torch.no_grad(): [net.train()(torch.randn(8, 3, 64, 32)) for _ in range(3)]
    learn = SimpleNamespace(model=net, lr=1e-3, wd=0., dls=SimpleNamespace(loaders=[SimpleNamespace(bs=4)]))
    again, x = load_portrait_model(save_portrait_model(learn, tmp_path/'m')), torch.randn(3, 3, 64, 32)
    assert len(again.groups) == 3
    with torch.no_grad(): out, want = again(x)['logits'], net.eval()(x)['logits']
    for k, v in want.items(): torch.testing.assert_close(out[k], v, rtol=1e-5, atol=1e-5)


class Calls(TorchFunctionMode):
    "Counts the normalisations"
    n = 0
    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.n += func is F.batch_norm
        return func(*args, **(kwargs or {}))


def normalisations(net):
    with Calls() as calls: net.heads(torch.rand(4, net.n_features))
    return calls.n


CHANGES = dict(frozen=lambda o: o.bn.eval(), momentum=lambda o: setattr(o.bn, 'momentum', .3),
               cumulative=lambda o: setattr(o.bn, 'momentum', None), eps=lambda o: setattr(o.bn, 'eps', .1),
               layer=lambda o: setattr(o, 'classifier', nn.Sequential(o.classifier)),
               hook=lambda o: o.bn.register_forward_hook(lambda *a: None))


@pytest.mark.parametrize('change', CHANGES)
def test_a_neck_that_is_changed_takes_its_kind_out(change):
    net = forty_net()
    assert normalisations(net) == 3+3
    CHANGES[change](net.neck('sub-task 2'))
    assert normalisations(net) == 20+2+3
    alone, pooled = one_by_one(net), torch.rand(6, net.n_features)
    out, want = net.heads(pooled)['logits'], alone.heads(pooled)['logits']
    assert all(same(out[k], want[k]) for k in FORTY.names)


def test_hooks_see_every_neck():
    net, called = forty_net(), []
    for name, o in net.named_modules():
        if isinstance(o, BNNeck): o.register_forward_hook(lambda *a, name=name: called.append(name))
    net(torch.randn(2, 3, 64, 32))
    assert called == [f'necks.{i}' for i in range(40)]


def test_forty_over_all_processes_go_one_by_one():
    net = nn.SyncBatchNorm.convert_sync_batchnorm(forty_net())
    assert not any(M._alike([net.necks[i] for i in o]) for o in net.groups)


def test_forty_within_the_batch_norm_of_all_processes(monkeypatch):
    "On a CPU the necks stay at once, and one process alone has the numbers that it has without"
    distributed = pytest.importorskip('portrait_nb.distributed')
    monkeypatch.setattr(distributed.dist, 'all_reduce', lambda x: None)
    monkeypatch.setenv('WORLD_SIZE', '1')
    net = forty_net()
    alone, pooled = copy.deepcopy(net), torch.rand(6, net.n_features)
    with distributed.GlobalBatchNorm(): out = net.heads(pooled)['logits']
    want = alone.heads(pooled)['logits']
    assert all(same(out[k], want[k], 1e-5) for k in FORTY.names)
    for a, b in zip(net.buffers(), alone.buffers()): torch.testing.assert_close(a, b)


@pytest.mark.parametrize('training', [True, False])
def test_forty_compile_as_one_graph(training):
    net = forty_net().train(training)
    plain, x = copy.deepcopy(net), torch.randn(4, 3, 64, 32)
    torch.compiler.reset()
    fast = torch.compile(net, backend='eager', fullgraph=True)(x)['logits']
    for k, v in plain(x)['logits'].items(): torch.testing.assert_close(fast[k], v)
    for a, b in zip(net.buffers(), plain.buffers()): torch.testing.assert_close(a, b)


def test_forty_in_half_precision_and_in_batches_of_one():
    net = forty_net()
    pooled = torch.rand(8, net.n_features)
    with torch.autocast('cpu', torch.bfloat16): out = net.heads(pooled.bfloat16())
    want = one_by_one(net).heads(pooled.bfloat16().float())
    for k in FORTY.names:
        assert out['features'][k].dtype == torch.float32
        torch.testing.assert_close(out['logits'][k].float(), want['logits'][k], rtol=.05, atol=.3)
    with pytest.raises(ValueError, match='more than 1 value per channel'): net.heads(pooled[:1])
    assert net.eval().heads(pooled[:1])['logits']['identity'].shape == (1, 11)


def test_side_by_side():
    xs = [torch.randn(n, 3) for n in (2, 5, 4)]
    wide = side_by_side(xs)
    assert wide.shape == (3, 5, 3)
    for row, x in zip(wide, xs): assert torch.equal(row[:len(x)], x) and not row[len(x):].any()

"""What forty sub-tasks in eight aspects cost beside one head of forty outputs. Run from a checkout:
python tests/benchmarks/bench_subtasks.py      writes results/subtasks_speed.csv and prints it

Three ways: 'one head' is a batch normalisation, one linear layer with forty sigmoids and their mean loss, written
plainly; 'one by one' and 'at once' are `PortraitNet` and `PortraitLoss` without a metric loss, where every neck and
every loss is computed for itself, or those of a kind together, as the library does. All read the same made-up batch,
one label in ten unknown.
Two parts: 'heads' is what comes after the vector, forward, losses, backward and FusedAdam; 'step' is that with the
backbone before it.
All ways of a part take turns in one process of one thread, step by step, in processor seconds. `ms` is the median of a
way's turns, `ratio` the median over the turns of its time by that of one head in the same turn. `launches` are
the operations that torch starts in forward, losses and backward, views not among them: on a GPU each costs a launch."""
import argparse, time

import numpy as np
import pandas as pd

from common import RESULTS, in_own_process, provenance, write

BACKBONES = {'test_resnet': (64, 64), 'resnet18': (96, 80)}
BS, N_ASPECTS, N_EACH = 64, 8, 5
TURNS = dict(heads=200, step=dict(test_resnet=60, resnet18=24))
WAYS = ('one head', 'one by one', 'at once')


def forty_tasks():
    from portrait_nb.tasks import Task, Tasks
    places = [(i, j) for i in range(N_ASPECTS) for j in range(N_EACH)]
    return Tasks([Task(f'attribute {i} {j}', f'aspect {i}', ['no', 'yes']) for i, j in places])


def made_up_batch(tasks, size):
    import torch
    g = torch.Generator().manual_seed(0)
    x = torch.randn(BS, 3, *size, generator=g)
    y = torch.randint(2, (BS, len(tasks)), generator=g)
    y[torch.rand(y.shape, generator=g) < .1] = -1
    return x, y


def one_head(backbone, size):
    "A network with one head, as anyone would write it: (body, head, loss)"
    import timm, torch
    from torch import nn
    body = timm.create_model(backbone, num_classes=0)
    head = nn.Sequential(nn.BatchNorm1d(body.num_features), nn.Linear(body.num_features, N_ASPECTS*N_EACH))
    def loss(logits, y):
        known = y != -1
        each = nn.functional.binary_cross_entropy_with_logits(logits, y.clamp_min(0).float(), reduction='none')
        return torch.where(known, each, 0).sum()/known.sum()
    return body, head, loss


def forty_heads(tasks, backbone, size, way):
    "The library's network and loss, and the labels as it takes them: (body, head, loss)"
    from portrait_nb.losses import PortraitLoss
    from portrait_nb.model import PortraitNet
    net, loss = PortraitNet(tasks, backbone, pretrained=False, size=size), PortraitLoss(tasks)
    if way == 'one by one': net.groups, loss.groups = [], [[i] for i in range(len(tasks))]
    return net, net.heads, lambda out, y: loss(out, y)


def build(way, backbone, size):
    "{part: a step of `way`}, and what it launches between the vector and its gradient"
    import torch
    from torch import nn
    from portrait_nb.callbacks import FusedAdam
    torch.manual_seed(0)
    tasks = forty_tasks()
    x, y = made_up_batch(tasks, size)
    if way == 'one head':
        body, head, loss = one_head(backbone, size)
        modules, pooled_of = dict(heads=head, step=nn.ModuleList([body, head])), body
    else:
        net, head, loss = forty_heads(tasks, backbone, size, way)
        modules, pooled_of = dict(heads=net.necks, step=net), net.pooled
        y = dict(zip(tasks.names, y.T.contiguous()))
    for o in modules.values(): o.train()
    def adam(module): return FusedAdam([[p for p in module.parameters() if p.requires_grad]], lr=1e-4)
    opts = {k: adam(o) for k, o in modules.items()}
    with torch.no_grad(): vector = pooled_of(x)
    def run(part, start):
        loss(head(start()), y).backward()
        opts[part].step()
        opts[part].zero_grad()
    def leaf(): return vector.clone().requires_grad_()
    steps = dict(heads=lambda: run('heads', leaf), step=lambda: run('step', lambda: pooled_of(x)))
    return steps, lambda: launches(lambda: loss(head(leaf()), y).backward())


def launches(f):
    "Operations that torch starts, without views"
    from torch.utils._python_dispatch import TorchDispatchMode
    class Count(TorchDispatchMode):
        n = 0
        def __torch_dispatch__(self, f, types, args=(), kwargs=None):
            self.n += not f.is_view and 'empty' not in str(f) and 'detach' not in str(f)
            return f(*args, **(kwargs or {}))
    with Count() as count: f()
    return count.n


def by_turns(steps, turns):
    "{way: processor seconds of every turn}, after two that do not count; each turn begins with another way"
    took, ways = {k: [] for k in steps}, list(steps)
    for i in range(turns+2):
        for k in ways[i % len(ways):]+ways[:i % len(ways)]:
            start = time.process_time()
            steps[k]()
            took[k].append(time.process_time()-start)
    return {k: np.array(v[2:]) for k, v in took.items()}


def measure(part, backbone, turns):
    "The lines of a part, measured in this process"
    import torch
    torch.set_num_threads(1)
    size = BACKBONES[backbone]
    built = {way: build(way, backbone, size) for way in WAYS}
    took = by_turns({k: steps[part] for k, (steps, _) in built.items()}, turns)
    plain, rows = took['one head'], []
    for way, seconds in took.items():
        low, middle, high = np.quantile(seconds/plain, (.25, .5, .75))
        row = dict(part=part, backbone=backbone, size='x'.join(map(str, size)), bs=BS, way=way,
                   ms=round(1e3*float(np.median(seconds)), 2), ratio=round(middle, 3), ratio_low=round(low, 3),
                   ratio_high=round(high, 3), turns=turns)
        if part == 'heads': row['launches'] = built[way][1]()
        rows.append(row)
    return rows


def main():
    rows, made = [], provenance('torch', 'timm', 'fastai')
    for backbone in BACKBONES:
        for part in ('heads', 'step'):
            turns = TURNS[part] if part == 'heads' else TURNS[part][backbone]
            rows += in_own_process(__file__, 'one', part, backbone, turns, threads=1)
            print(pd.DataFrame(rows[-len(WAYS):]).to_string(index=False), flush=True)
    write(pd.DataFrame(rows).assign(**made), RESULTS/'subtasks_speed.csv')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('one', nargs='*', help=argparse.SUPPRESS)
    args = parser.parse_args().one
    if not args: main()
    else:
        import json
        print(json.dumps(measure(args[1], args[2], int(args[3]))))

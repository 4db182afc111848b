"A small set of made-up pictures with every column, shared by the tests that need one."
import numpy as np
import pandas as pd
import sys

import pytest
import torch
from PIL import Image

from portrait_nb.tasks import PORTRAIT


# files that take longest for their number of tests, the longest first
SLOW = ('test_cli', 'test_stops', 'test_distributed', 'test_runs', 'test_quiet')


def slow_first(paths):
    "Files in the order of `SLOW`, then those with most tests; there is a path for every test"
    count = {p: paths.count(p) for p in paths}
    return sorted(count, key=lambda p: (SLOW.index(p.stem) if p.stem in SLOW else len(SLOW), -count[p], p))


def pytest_configure(config):
    "Several processes take the files in our order, not in that of their numbers of tests"
    if hasattr(config.option, 'loadscopereorder'): config.option.loadscopereorder = False


def pytest_collection_modifyitems(config, items):
    "No process is idle at the end, while another has just begun a long file"
    if not hasattr(config, 'workerinput'): return
    order = {p: i for i, p in enumerate(slow_first([o.path for o in items]))}
    items.sort(key=lambda o: order[o.path])


def write_set(root, tasks=PORTRAIT, n=90, size=(32, 64), seed=0):
    "`n` noisy pictures, two frames a shot; half train, a tenth query, the rest gallery; returns the table"
    rng, rows = np.random.default_rng(seed), []
    for i in range(n):
        if i < n//2: split = 'train'
        else: split = 'query' if i < n*6//10 else 'gallery'
        identity = ''
        if split == 'query' or rng.random() < .7: identity = f"{'a' if split == 'train' else 'b'}{rng.integers(4)}"
        row = dict(image=f'{split}/{i:03d}.png', split=split, identity=identity, source='film', group=f'{split}{i//2}')
        for t in tasks.attributes:
            row[t.name] = ''
            if rng.random() < .1: continue
            n_labels = 2 if t.multilabel and rng.random() < .2 else 1
            row[t.name] = '|'.join(rng.choice(t.labels, n_labels, replace=False))
        rows.append(row)
        (root/split).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(root/row['image'])
    df = pd.DataFrame(rows)
    df.to_csv(root/'annotations.csv', index=False)
    return df


@pytest.fixture(autouse=True)
def no_figure_stays():
    "Figures of one test are not counted against the next"
    yield
    if 'matplotlib.pyplot' in sys.modules: sys.modules['matplotlib.pyplot'].close('all')


@pytest.fixture(scope='session')
def portraits(tmp_path_factory):
    root = tmp_path_factory.mktemp('portraits')
    return root, write_set(root)


@pytest.fixture(scope='module')
def one_thread():
    "Sums of floats are the same however busy the machine is"
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)

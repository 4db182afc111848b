"The feature-space plan over many lists and lengths, against the sentences of Section 5."
import subprocess, sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from portrait_nb.tasks import PORTRAIT, Task, Tasks, feature_plan, feature_split, largest_remainder

ID = Task('identity', 'appearance', None)


def attrs(aspect, *sizes):
    return [Task(f'{aspect} {i}', aspect, [f'l{j}' for j in range(n)]) for i, n in enumerate(sizes)]


LISTS = dict(portrait=PORTRAIT, identity=Tasks([ID]), market=Tasks([ID, *attrs('appearance', 2, 4)]),
             celeba=Tasks(attrs('face', *[2]*40)),
             no_identity=Tasks(attrs('appearance', 2, 5) + attrs('posture', 6)),
             identity_elsewhere=Tasks([Task('who', 'face', None), *attrs('body', 3, 3, 9)]))


@pytest.mark.parametrize('tasks', LISTS.values(), ids=LISTS)
@pytest.mark.parametrize('n', [160, 257, 512, 2048])
def test_plan_tiles_the_vector(tasks, n):
    plan = feature_plan(tasks, n)
    assert plan[0].start == 0 and plan[-1].stop == n
    assert all(a.stop == b.start for a, b in zip(plan, plan[1:]))
    split = feature_split(tasks, n)
    assert list(split) == tasks.names
    assert torch.cat(list(split.values())).unique().numel() == n
    for t in tasks:
        idx = split[t.name]
        assert idx.dtype == torch.int64 and len(idx) and (idx.diff() > 0).all()


@pytest.mark.parametrize('tasks', LISTS.values(), ids=LISTS)
def test_identity_reads_its_whole_aspect_and_no_other(tasks):
    if tasks.identity is None: return
    split = feature_split(tasks, 1024)
    mine = {o for t in tasks.of(tasks.identity.aspect) for o in split[t.name].tolist()}
    others = {o for t in tasks if t.aspect != tasks.identity.aspect for o in split[t.name].tolist()}
    assert set(split[tasks.identity.name].tolist()) == mine and not mine & others


@pytest.mark.parametrize('total', [0, 1, 7, 100, 2048])
@pytest.mark.parametrize('weights', [[1], [2, 5, 3, 3], [1, 1, 1], [.3, .3, .4], [Fraction(1, 3), 2]])
def test_largest_remainder_keeps_every_seat_and_stays_within_one(total, weights):
    seats = largest_remainder(total, weights)
    assert sum(seats) == total
    assert all(abs(s - total*w/sum(weights)) < 1 + 1e-9 for s, w in zip(seats, weights))


def test_shortest_vectors_are_refused_by_name():
    refused = {}
    for n in range(1, 60):
        try: split = feature_split(PORTRAIT, n)
        except ValueError as e: refused[n] = str(e).split("'")[1]
        else: assert all(len(v) for v in split.values())
    assert list(refused) == list(range(1, 13)) and set(refused.values()) <= set(PORTRAIT.names)


@pytest.mark.parametrize('n', range(13, 60))
def test_aspects_and_attributes_stay_apart_from_the_shortest_vector_on(n):
    split = {k: set(v.tolist()) for k, v in feature_split(PORTRAIT, n).items()}
    aspects = [set.union(*(split[t.name] for t in PORTRAIT.of(a))) for a in PORTRAIT.aspects]
    assert sum(map(len, aspects)) == n and set.union(*aspects) == set(range(n))
    four = [split[o] for o in ('gender', 'age', 'physique', 'height')]
    assert sum(map(len, four)) == len(set.union(*four)) and set.union(*four) < split['identity']
    assert split['body'] & split['arm'] and split['body'] - split['arm'] and split['arm'] - split['body']


@pytest.mark.parametrize('n', [13, 100, 256, 768, 2048])
def test_the_papers_eight_are_split_as_piq_weighs_them(n):
    sizes = [sum(len(o) for o in feature_plan(PORTRAIT, n) if o.aspect == a) for a in PORTRAIT.aspects]
    assert sizes == largest_remainder(n, [2, 1, 1])


def test_an_aspect_of_few_labels_gets_few_dimensions():
    def sizes(tasks, n=1000):
        return {a: sum(len(o) for o in feature_plan(tasks, n) if o.aspect == a) for a in tasks.aspects}
    assert sizes(Tasks(attrs('appearance', *[2]*38) + attrs('emotion', 2, 2))) == dict(appearance=905, emotion=95)
    with_identity = Tasks([ID, *attrs('appearance', *[2]*38), *attrs('emotion', 2, 2)])
    assert sizes(with_identity) == dict(appearance=950, emotion=50)
    assert sizes(Tasks(attrs('appearance', 2, 2) + attrs('emotion', *[2]*38))) == dict(appearance=95, emotion=905)
    # half is not few
    assert sizes(Tasks(attrs('appearance', 4) + attrs('emotion', 2))) == dict(appearance=500, emotion=500)
    assert sizes(Tasks([ID, *attrs('emotion', 2)])) == dict(appearance=500, emotion=500)


@pytest.mark.parametrize('make, words', [
    (lambda: Tasks([*attrs('posture', 2), *attrs('posture', 3)]), "named 'posture 0'"),
    (lambda: Task('identity', 'posture', ['a', 'b']), 'kept for the identity'),
    (lambda: Task('rank1', 'posture', ['a', 'b']), 'name of a score'),
    (lambda: Tasks([ID, Task('who', 'appearance', None)]), 'both identity tasks'),
    (lambda: Task('age', 'appearance', ['old']), "'age' has 1 label"),
    (lambda: Task('age', 'appearance', []), "'age' has 0 labels"),
    (lambda: Task('age', 'appearance', ['old', 3]), 'label 3'),
    (lambda: Task('', 'appearance', None), "name must be"),
    (lambda: Task('a.b', 'appearance', None), "without '.'"),
    (lambda: Tasks(['age']), "'age'"),
    (lambda: feature_plan(PORTRAIT, 2048, shared=1), 'shared'),
])
def test_what_cannot_be_learnt_is_refused(make, words):
    with pytest.raises(ValueError, match=words): make()


@pytest.mark.parametrize('name', ['epoch', 'train_loss', 'time', 'n', 'queries', 'people', 'similarity', 'mINP',
                                  'plain_rank5'])
def test_names_that_our_tables_need_are_refused(name):
    with pytest.raises(ValueError, match='take another name'): Task(name, 'appearance', ['a', 'b'])


class Counted(str):
    "A label that counts how often it is compared"
    compared = 0

    def __eq__(self, other):
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_many_labels_are_checked_in_one_pass():
    labels = [Counted(i) for i in range(1000)]
    Counted.compared = 0
    assert Task('street', 'place', labels).n_labels == 1000 and Counted.compared < 10_000
    with pytest.raises(ValueError, match="'7' is listed twice"): Task('street', 'place', [*labels, '7'])


def test_a_list_shows_itself_on_one_line_and_prints_as_a_table():
    assert repr(PORTRAIT) == 'Tasks(identity, gender, age, physique, height, body, arm, expression)'
    assert repr(Tasks(attrs('face', *[2]*40))).endswith(' and 32 more)')
    lines = str(PORTRAIT).splitlines()
    assert len(lines) == 8 and lines[1].split() == ['appearance', 'gender', 'male,', 'female']
    assert PORTRAIT._repr_markdown_().count('\n') == 9 and PORTRAIT._repr_html_().count('<tr>') == 9


def test_a_table_can_be_checked_without_torch():
    "A fresh process reads a table and prints the help of a command; torch takes seconds, and isn't needed for it"
    code = """
import sys
from portrait_nb import annotations, cli, errors, longtail, pictures, similar, sources, style, synth, tasks, words
assert 'torch' not in sys.modules and 'fastai' not in sys.modules
split = tasks.feature_split(tasks.PORTRAIT, 2048)
assert 'torch' in sys.modules and split['expression'].tolist() == list(range(1536, 2048))
"""
    assert not subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stderr


def written(**changes):
    "A sub-task as a file has it"
    return dict(tasks=[dict(name='hat', aspect='clothes', labels=['no', 'yes']) | changes])


@pytest.mark.parametrize('answer', ['no', 'false', 'true', '', 2, 1, 0, 0., [], {}])
@pytest.mark.parametrize('key', ['multilabel', 'identity'])
def test_only_true_and_false_are_answers(key, answer):
    with pytest.raises(ValueError, match=f"Task 'hat': .*{key}.* must be true or false, got "):
        Tasks.from_dict(written(**{key: answer}))


def test_true_and_false_and_nothing_are_read():
    for o in (True, False): assert Tasks.from_dict(written(multilabel=o))['hat'].multilabel is o
    assert Tasks.from_dict(written(identity=None))['hat'].is_identity is False
    assert Tasks.from_dict(written(identity=True)).identity.labels == ('no', 'yes')
    hat = Task('hat', 'clothes', ['no', 'yes'], multilabel=np.True_, is_identity=np.False_)
    assert hat.multilabel is True and hat.is_identity is False


@pytest.mark.parametrize('labels', [5, True, False, 'no', {'no': 1, 'yes': 2}])
@pytest.mark.parametrize('identity', [True, False])
def test_labels_are_a_list(labels, identity):
    with pytest.raises(ValueError, match="Task 'hat': labels must be a list of strings, got the "):
        Tasks.from_dict(written(labels=labels, identity=identity))


def test_names_from_a_file_stay_text_on_every_page():
    tasks = Tasks([Task('a|b\n<i>', '<b>\r|', ['<img src=x onerror=alert(1)>', 'x'])])
    html, markdown = tasks._repr_html_(), tasks._repr_markdown_()
    assert not any(o in html for o in ('<img', '<i>', '<b>\r')) and '&lt;img src=x' in html
    assert len(markdown.splitlines()) == 3 and r'a\|b \<i>' in markdown and r'\<img' in markdown
    assert len(repr(tasks).splitlines()) == len(str(tasks).splitlines()) == 1

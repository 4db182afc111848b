"README.md is what nbs/index.ipynb shows, its pictures too"

import base64
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PNG, JPEG = b'\x89PNG, or so', b'\xff\xd8 a photo'


@pytest.fixture
def maker(monkeypatch):
    "The module .ci/make_readme.py"
    monkeypatch.syspath_prepend(str(ROOT/'.ci'))
    sys.modules.pop('make_readme', None)
    import make_readme
    yield make_readme
    sys.modules.pop('make_readme', None)


def md(text): return dict(cell_type='markdown', source=text)


def code(source, *outputs): return dict(cell_type='code', source=source, outputs=list(outputs))


def stream(text): return dict(output_type='stream', name='stdout', text=[text])


def result(**data):
    return dict(output_type='execute_result', data={k.replace('_', '/'): v for k, v in data.items()})


def picture(data, kind='image/png'):
    return dict(output_type='display_data', data={kind: base64.b64encode(data).decode(), 'text/plain': ['<Figure>']})


@pytest.fixture
def project(tmp_path):
    "A function: a project whose index has these cells"
    (tmp_path/'nbs'/'data').mkdir(parents=True)

    def write(*cells):
        (tmp_path/'nbs'/'index.ipynb').write_text(json.dumps(dict(cells=cells)))
        return tmp_path
    return write


@pytest.fixture
def text(maker, project):
    "A function: the README of these cells"
    return lambda *cells: maker.readme(project(*cells)/'nbs'/'index.ipynb')


def test_text_code_and_what_it_printed_are_in_order(text):
    found = text(md('# A title'), code('1+1', result(text_plain=['2'])), code('print("a\\nb")', stream('a\nb\n')))
    assert found.split('\n\n')[1:] == ['# A title', '```python\n1+1\n```', '```\n2\n```',
                                       '```python\nprint("a\\nb")\n```', '```\na\nb\n```\n']


def test_a_progress_bar_leaves_nothing_behind(text):
    bar = '█\r |----| 0% [0/4]\r |████| 100% [4/4]\r                  \r'
    assert text(code('read()', stream(bar))).endswith('```python\nread()\n```\n')
    assert 'warned' not in text(code('read()', dict(stream('warned'), name='stderr')))
    assert '```\n3 faults\n```' in text(code('read()', stream('█\r3 faults\n')))
    assert '```\nab\n  cd\n```' in text(code('read()', stream('xb\ra\n  cd\n')))


@pytest.mark.parametrize('option', ['#| hide', '#|hide', '# | hide', '#| default_exp index', '#| include: false'])
def test_what_is_hidden_stays_away(text, option):
    assert 'secret' not in text(md('A'), code(f'{option}\nsecret = 1', stream('secret')), md('B'))


def test_code_may_be_hidden_folded_or_silent(text):
    assert 'code' not in text(code('#| echo: false\ncode', stream('shown'))).replace('```', '')
    folded = text(code('#| code-fold: true\n#| code-summary: "How"\ncode', stream('shown')))
    assert '<summary>How</summary>\n\n```python\ncode\n```\n\n</details>\n\n```\nshown\n```' in folded
    assert 'shown' not in text(code('#| output: false\ncode', stream('shown')))


def test_options_are_not_shown_as_code(text):
    assert '#|' not in text(code('#| echo: true\n#| fig-alt: "a line"\nplot()', picture(PNG)))


def test_links_start_from_the_folder_above(text):
    found = text(md('[a](data/050.ipynb) [b](images/c.png) [d](https://e.org/data/) [f](#data) [g](index.ipynb#top)'))
    assert '(nbs/data/050.ipynb)' in found and '(nbs/index.ipynb#top)' in found
    assert '(nbs/images/c.png)' in found # a folder that `make readme` makes
    assert '(https://e.org/data/)' in found and '(#data)' in found


def test_pictures_are_files_in_the_order_of_the_page(maker, project):
    root = project(code('#| hide\nplot()', picture(b'none')),
                   code('#| fig-alt: "a curve, falling"\nplot()', picture(PNG)),
                   code('#| fig-alt: "a face"\nshow()', picture(JPEG, 'image/jpeg')))
    found = maker.readme(root/'nbs'/'index.ipynb')
    assert '![a curve, falling](nbs/images/index/01.png)' in found and '![a face](nbs/images/index/02.jpg)' in found
    assert maker.pictures(root/'nbs'/'index.ipynb') == {'01.png': PNG, '02.jpg': JPEG}


def test_a_picture_without_words_is_refused(text):
    with pytest.raises(ValueError, match='fig-alt'): text(code('plot()', picture(PNG)))


def test_tables_become_markdown(text):
    html = ['<table border="1"><thead><tr><th></th><th>a</th><th>b|c</th></tr></thead>',
            '<tbody><tr><th>x</th><td>1</td><td>&lt;2&gt;</td></tr></tbody></table>']
    table = '|  | a | b\\|c |\n| --- | --- | --- |\n| x | 1 | &lt;2&gt; |'
    assert table in text(code('df', result(text_html=html, text_plain=['   a  b|c'])))
    spanned = '<table><thead><tr><th></th><th colspan="2">up</th></tr><tr><th>n</th><th>l</th><th>r</th></tr></thead></table>'
    assert '| n | up l | up r |' in text(code('df', result(text_html=spanned)))
    own = result(text_markdown='| a |\n|---|', text_html='<table></table>', text_plain=['no'])
    assert '\n\n| a |\n|---|' in text(code('df', own))


@pytest.mark.parametrize('cell, shown', [('&lt;img src=x&gt;', '&lt;img src=x&gt;'), ('x<br>y', 'x y'),
                                         ('a\n  b', 'a b'), ('c\\d', 'c\\\\d')])
def test_a_cell_of_a_table_stays_text_on_one_line(maker, cell, shown):
    html = f'<table><thead><tr><th>n</th></tr></thead><tbody><tr><td>{cell}</td></tr></tbody></table>'
    assert maker.as_markdown(html) == f'| n |\n| --- |\n| {shown} |'


def test_what_is_printed_stays_in_its_fence_and_has_no_colours(text):
    assert text(code('f()', stream('```\nx\n```\n'))).endswith('\n\n````\n```\nx\n```\n````\n')
    assert text(code('f()', stream('\x1b[31mred\x1b[0m\n'))).endswith('\n\n```\nred\n```\n')
    assert '![a \\[b\\]](' in text(code('#| fig-alt: "a [b]"\nplot()', picture(PNG)))
    assert '```\nshown\n```' in text(code('#| hide_input\nf()', stream('shown')))


@pytest.mark.parametrize('about', [' collapse="true" title="Why"', ' title="Why" collapse="true"', " title='Why'"])
def test_a_callout_may_have_other_settings(text, about):
    assert '> [!TIP]\n> **Why.** So.\n' in text(md(f'::: {{.callout-tip{about}}}\n\nSo.\n\n:::'))


def test_callouts_become_those_of_github(text):
    found = text(md('A\n\n::: {.callout-note title="Our choice"}\n\nWe draw.\n\nAnd then?\n\n:::\n\nB'))
    assert '\n\n> [!NOTE]\n> **Our choice.** We draw.\n>\n> And then?\n\nB\n' in found


def test_a_file_out_of_step_is_named(maker, project):
    root = project(md('A'), code('#| fig-alt: "a face"\nshow()', picture(JPEG, 'image/jpeg')))
    assert maker.out_of_step(root) == ['README.md', 'nbs/images/index/01.jpg']
    maker.write(root)
    assert maker.out_of_step(root) == []
    folder = root/'nbs'/'images'/'index'
    (folder/'07.png').write_bytes(b'of yesterday')
    assert maker.out_of_step(root) == ['nbs/images/index/07.png']
    (folder/'01.jpg').write_bytes(b'other')
    (root/'README.md').write_text('other')
    assert maker.out_of_step(root) == ['README.md', 'nbs/images/index/01.jpg', 'nbs/images/index/07.png']
    maker.write(root)
    assert maker.out_of_step(root) == [] and not (folder/'07.png').exists()


def test_the_page_of_this_project_is_light_and_its_links_lead_somewhere(maker):
    sizes = {k: len(v) for k, v in maker.pictures(ROOT/'nbs'/'index.ipynb').items()}
    assert max(sizes.values()) < 100_000 and sum(sizes.values()) < 600_000
    page = maker.readme(ROOT/'nbs'/'index.ipynb')
    assert max(len(line) for block in page.split('```python')[1:] for line in block.split('```')[0].splitlines()) <= 88
    for target in maker.LINK.findall(page):
        if not target.startswith(('http', '#')): assert (ROOT/target.partition('#')[0]).exists(), target

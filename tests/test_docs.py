"The site: what a page says of a name, where its links lead, and what the checks refuse"

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GITHUB = [*sorted((ROOT/'.github').rglob('*.y*ml')), ROOT/'CITATION.cff']
PICTURE = dict(output_type='display_data', metadata={}, data={'image/png': 'aGk=', 'text/plain': '<Figure>'})


@pytest.fixture
def docs(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT/'.ci'))
    sys.modules.pop('docs', None)
    import docs
    return docs


@pytest.fixture
def links(docs):
    "The links of the metrics notebook, on a site with three anchors"
    anchors = {'data/tasks.html#task', 'scores/metrics.html#piq', 'data/tasks.html#tasks'}
    return docs.Links(ROOT/'nbs/scores/010_metrics.ipynb', ROOT/'nbs', anchors)


@pytest.fixture
def check_links(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT/'.ci'))
    sys.modules.pop('check_links', None)
    import check_links
    return check_links


def test_pages_have_the_names_that_nbdev_links_to(docs):
    def name(o): return docs.page_name(Path(o)).as_posix()

    assert name('scores/010_metrics.ipynb') == 'scores/metrics.ipynb'
    assert name('reproductions/table4_sharing.ipynb') == 'reproductions/table4_sharing.ipynb'
    assert name('facts/README.md') == 'facts/index.md'
    assert name('images/010_x.png') == 'images/010_x.png'


def test_a_long_comment_is_folded_under_itself_and_loses_no_word(docs):
    line = '    sampling:str=None, # '+'word '*30
    found = docs.folded(line).split('\n')
    assert max(map(len, found)) <= docs.WIDTH
    assert {o.index('#') for o in found} == {line.index('#')}
    assert sum(o.count('word') for o in found) == 30
    assert docs.folded('    x, # short') == '    x, # short'


@pytest.mark.parametrize('default', ["' # '", '" # "', "'a # b', 'it\\'s # c'"])
def test_a_hash_in_a_default_begins_no_comment(docs, default):
    code = f'    sep:str={default},'
    assert docs.split_comment(f'{code} # what # joins') == (code, 'what # joins')
    assert docs.split_comment(code) == (code, '')
    found = docs.folded(f'{code} # '+'word '*30).split('\n')
    assert found[0].startswith(code) and sum(o.count('word') for o in found) == 30


def test_a_signature_may_open_a_bracket_before_its_comment(docs):
    assert docs.split_comment('def f(x, # the first') == ('def f(x,', 'the first')
    assert docs.split_comment('   )->dict: # all') == ('   )->dict:', 'all')


def test_a_signature_shows_values_but_names_what_has_a_long_one(docs):
    from portrait_nb.data import portrait_dls
    from portrait_nb.ablation import table_loaders
    text = str(docs.Signature(portrait_dls))
    assert 'size:tuple=(256, 128)' in text and 'tasks:Tasks=PORTRAIT' in str(docs.Signature(table_loaders))
    assert max(map(len, text.split('\n'))) <= docs.WIDTH


def test_fields_of_a_dataclass_show_their_meaning(docs):
    from portrait_nb.rows import Row
    text = str(docs.Signature(Row))
    assert text.startswith('class Row(') and re.search('metric_loss:str=None, # .*triplet', text)


def test_a_docstring_is_a_definitions_own(docs):
    from torch import nn

    class Silent(nn.Module):
        def forward(self, x): return x

    class Spoken(nn.Module):
        def __init__(self):
            "Speaks"

    assert docs.docstring(Silent) == '' and docs.docstring(Spoken) == 'Speaks'


@pytest.mark.parametrize('name, public', [('Task', True), ('Tasks.identity', True), ('_Search.settle', False),
                                          ('Task._check', False), ('_once', False), ('Tasks.__getitem__', True)])
def test_private_names_have_no_entry(docs, name, public):
    assert docs.is_public(name) == public


def test_code_becomes_a_link_from_the_page_that_it_stands_on(links):
    assert links('a `Task` here') == 'a [`Task`](../data/tasks.html#task) here'
    page = '[`Tasks.identity`](../data/tasks.html#tasks)'
    assert links('`Tasks.identity` has no entry of its own') == f'{page} has no entry of its own'
    assert links('`_pairs`, `nothing_of_ours`') == '`_pairs`, `nothing_of_ours`'
    assert links('``a `Task` here`` and `Task`') == '``a `Task` here`` and [`Task`](../data/tasks.html#task)'


def test_nothing_becomes_a_link_in_code_in_a_heading_or_in_another_link(links):
    for text in ('```python\nx # from `Task`\n```\n', '## The `Task`\n', '~~~\n[a](050_tasks.ipynb)\n~~~\n',
                 '````\n```\n```\n[a](050_tasks.ipynb)\n````\n', '[a](HTTP://x.y)',
                 'see [`Task`](../x.html)', '    an indented `Task`\n',
                 'type `[a](050_tasks.ipynb)` here', 'type ``[a](050_tasks.ipynb) ` `` here',
                 'type `[a\nb](050_tasks.ipynb)` here', 'code:\n\n    [a](050_tasks.ipynb)\n\n    [b](050_tasks.ipynb)\n',
                 '- one\n\n  two\n\ncode:\n\n    [a](050_tasks.ipynb)\n', '- one\n\n      [a](050_tasks.ipynb)\n',
                 '- one\n\n  ```\n  [a](050_tasks.ipynb)\n  ```\n', '   ~~~\n[a](050_tasks.ipynb)\n   ~~~\n'):
        assert links(text) == text
    assert links('## [`Task`](../x.html)') == '## `Task`'


def test_links_to_notebooks_and_to_files_of_the_repository(links):
    assert links('[tasks](../data/050_tasks.ipynb#a-plan)') == '[tasks](../data/tasks.ipynb#a-plan)'
    assert links('[numbers](../../results/demo.csv)') == \
        '[numbers](https://github.com/portrait-nb/portrait_nb/blob/main/results/demo.csv)'
    assert links('[results](../../results)').endswith('/tree/main/results)')
    assert links('[elsewhere](https://x.org/010_a.ipynb)') == '[elsewhere](https://x.org/010_a.ipynb)'


@pytest.mark.parametrize('text', [
    '- one\n\n    [a](X)\n', '1. one\n\n   [a](X)\n', 'a line that\n    goes on [a](X)\n', '`` ` `` and [a](X)', '[`a`](X)',
    '[![a](b.png)](X)', 'a ` b\n\nc ` [a](X)', '```a``` [a](X)', '~~~\n~~~\n[a](X)\n', '- one\n    - two [a](X)\n'])
def test_prose_beside_code_has_its_links(links, text):
    assert links(text.replace('X', '010_metrics.ipynb')) == text.replace('X', 'metrics.ipynb')


def test_an_exported_cell_that_is_no_python_is_named(docs):
    from execnb.nbio import NbCell
    def cell(source): return NbCell(7, dict(cell_type='code', source=source, metadata={}, outputs=[]))
    assert docs.definitions(cell('def f(): pass\nx = 1')) == ['f']
    with pytest.raises(SystemExit, match='a.ipynb, cell 7: an exported cell is no Python'):
        docs.definitions(cell('def f(: pass'), 'a.ipynb')


def test_a_file_that_is_no_notebook_is_named(docs, tmp_path):
    (tmp_path/'a.ipynb').write_text('<<<<<<< HEAD')
    with pytest.raises(SystemExit, match='a.ipynb: not a notebook'): list(docs.title_faults(tmp_path))


def test_notebooks_named_without_a_link_are_reported(links):
    links('see `010_metrics`, `lint` and [search](020_search.ipynb)')
    assert links.bare == ['010_metrics', 'lint']


def test_the_sidebar_names_every_notebook_once(docs, tmp_path):
    for o in ('a.ipynb', 'use/b.ipynb', 'use/.hidden/c.ipynb'):
        (tmp_path/o).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path/o).write_text('{}')

    def faults(*contents):
        quarto = dict(website=dict(sidebar=dict(contents=list(contents))))
        return list(docs.sidebar_faults(quarto, tmp_path))

    whole = dict(section='Use', contents=['use/b.ipynb'])
    assert faults(dict(text='Start', href='a.ipynb'), whole) == []
    assert faults(whole) == ['a.ipynb is not in the sidebar: add it to _quarto.yml.']
    assert any('gone.ipynb, which is not there' in o for o in faults('a.ipynb', whole, 'gone.ipynb'))
    assert any('twice' in o for o in faults('a.ipynb', 'a.ipynb', whole))


def test_the_sidebar_of_the_site(docs):
    import yaml
    quarto = yaml.safe_load((ROOT/'_quarto.yml').read_text())
    assert list(docs.sidebar_faults(quarto, ROOT/'nbs')) == []
    sections = [o.get('text') or o['section'] for o in quarto['website']['sidebar']['contents']]
    assert sections[0] == 'Start here' and sections[1] == 'Tutorials' and 'drawn' in sections[-1]


def test_words_beside_a_title_would_be_lost(docs, tmp_path):
    def faults(*sources, kinds=('markdown',)):
        cells = [dict(cell_type=k, source=o, metadata={}) for k, o in zip(kinds, sources)]
        (tmp_path/'a.ipynb').write_text(json.dumps(dict(cells=cells)))
        return list(docs.title_faults(tmp_path))

    assert faults('# Metrics\n\n> How good it is.') == [] and faults('# Metrics') == []
    assert len(faults('# Metrics\n\n> How good it is.\n\nRead first: tasks.')) == 1
    assert len(faults('x = 1', '# Metrics', kinds=('code', 'markdown'))) == 1


def test_headings_of_outputs_stay_out_of_the_contents_of_a_page(docs):
    assert docs.demoted('# Card\ntext') == '#### Card {.unlisted .unnumbered}\ntext'


def test_a_heading_that_closes_a_notebook_goes_and_the_text_above_it_stays(docs):
    from execnb.nbio import mk_cell
    cell = mk_cell('The last words.\n\n## Export -', 'markdown')
    docs.rm_header_dash(cell)
    assert cell.source == 'The last words.'


def test_the_words_of_a_figure_arrive_on_the_page():
    from smalldocs.notebook import to_markdown
    source = '#| fig-alt: "A bar for each label: most are happy"\nplot()'
    cell = dict(cell_type='code', source=source, metadata={}, outputs=[PICTURE])
    page = to_markdown(json.dumps(dict(cells=[cell], nbformat=4, metadata={})))[1]
    assert 'alt="A bar for each label: most are happy"' in page


def write_site(root, **pages):
    for name, body in pages.items(): (root/f'{name}.html').write_text(f'<html><body>{body}</body></html>')


def test_dead_links_and_anchors_are_found(check_links, tmp_path):
    (tmp_path/'sub').mkdir()
    (tmp_path/'sub/index.html').write_text('<h2 id="there">x</h2><a href="../a.html#top">up</a>')
    host = check_links.HOST
    write_site(tmp_path, a=f'''<a href="sub/#there">1</a><a href="sub/">2</a><a href="{host}sub/index.html">3</a>
        <a href="https://elsewhere.org/x">4</a><a href="mailto:a@b.c">5</a><a href="#own">6</a><p id="own">''')
    assert list(check_links.dead_links(check_links.read_pages(tmp_path), tmp_path)) == []
    write_site(tmp_path, b=f'''<a href="gone.html">1</a><a href="sub/#gone">2</a><img src="x.png">
        <a href="{host}gone">3</a>''')
    found = list(check_links.dead_links(check_links.read_pages(tmp_path), tmp_path))
    assert [o.rpartition(' ')[2] for o in found] == ['gone.html', 'sub/#gone', 'x.png', f'{host}gone']


@pytest.mark.parametrize('url, dead', [
    ('/x.html', True), ('/portrait_nb/a.html', False), ('/portrait_nb/x.html', True), ('http://[bad', True),
    ('http://portrait-nb.github.io/portrait_nb/x.html', True), ('//portrait-nb.github.io/portrait_nb/x.html', True),
    ('HTTPS://Portrait-NB.github.io/portrait_nb/x.html', True),
    ('//portrait-nb.github.io/portrait_nb/a.html#top', False),
    ('https://portrait-nb.github.io/other/', False), ('//elsewhere.org/x', False)])
def test_every_spelling_of_our_own_address_is_looked_up(check_links, tmp_path, url, dead):
    write_site(tmp_path, a=f'<a href="{url}">1</a>')
    found = list(check_links.dead_links(check_links.read_pages(tmp_path), tmp_path))
    assert found == ([f'a.html: no page or file {url}'] if dead else [])


def test_pictures_without_words_are_counted_or_refused(check_links, tmp_path, monkeypatch, capsys):
    picture = 'src="data:image/png;base64,aGk="'
    write_site(tmp_path, a=f'<img {picture} alt=""><img {picture}><img {picture} alt="A tree">')
    monkeypatch.setattr(check_links, 'ALT_REQUIRED', False)
    check_links.main(tmp_path)
    assert 'a.html: 2 of 3 pictures have no alt text.' in capsys.readouterr().out
    monkeypatch.setattr(check_links, 'ALT_REQUIRED', True)
    with pytest.raises(SystemExit, match='2 pictures without alt text'): check_links.main(tmp_path)


def test_a_folder_without_pages_is_no_site(check_links, tmp_path):
    with pytest.raises(SystemExit, match='make docs'): check_links.main(tmp_path)


@pytest.mark.parametrize('file', GITHUB, ids=lambda o: o.name)
def test_what_github_reads_is_valid_and_its_actions_are_pinned(file):
    import yaml
    text = file.read_text()
    assert isinstance(yaml.safe_load(text), dict)
    assert all(re.fullmatch(r'[\w/-]+@[0-9a-f]{40} # v[\d.]+', o) for o in re.findall('uses: (.*)', text))


def test_only_what_installs_itself_opens_in_colab(docs):
    def page(name): return ''.join(c.source for c in docs.processed(ROOT/'nbs'/name).cells)

    assert 'colab.research.google.com' in page('reproductions/table2.ipynb')
    metrics = page('scores/010_metrics.ipynb')
    assert 'colab.research.google.com' not in metrics and '[The notebook](https://github.com/' in metrics

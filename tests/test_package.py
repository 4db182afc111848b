"What setup.py and settings.ini promise of the package."
import re, subprocess, sys
from configparser import ConfigParser
from importlib.metadata import metadata
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def about(): return metadata('portrait_nb')


def settings():
    ini = ConfigParser(delimiters=['='])
    ini.read(root/'settings.ini', encoding='utf-8')
    return ini['DEFAULT']


def test_the_version_is_one(about):
    import portrait_nb
    assert about['Version'] == portrait_nb.__version__ == settings()['version']


def test_every_picture_and_link_works_on_a_package_index(about):
    "A package index has neither nbs/ nor results/"
    text = re.sub('```.*?```|`[^`\n]+`(?!\\])', '', about.get_payload() or about['Description'], flags=re.S)
    links = re.findall(r'\]\(([^()\s]+)\)', text)
    assert links and all(re.match('https?:|#', o) for o in links), [o for o in links if not re.match('https?:|#', o)]
    pictures = re.findall(r'!\[[^]]*\]\(([^()\s]+)\)', text)
    assert pictures and all(o.startswith('https://raw.githubusercontent.com/') for o in pictures)
    assert not re.search(r'<img[^>]*src="(?!https)', text)


def test_where_to_ask(about):
    links = dict(o.split(', ', 1) for o in about.get_all('Project-URL'))
    assert {'Docs', 'Source', 'Issues', 'Changelog'} <= set(links)
    assert all(o.startswith('https://') for o in links.values())
    assert not about['Author-email']


def test_the_sdist_has_what_its_setup_reads(tmp_path):
    "A build from the sdist has no checkout around it"
    listed = (root/'MANIFEST.in').read_text().split()
    assert {'settings.ini', 'LICENSE', 'README.md'} <= set(listed)
    for o in ('settings.ini', 'README.md', 'setup.py', 'pyproject.toml', 'LICENSE'):
        (tmp_path/o).write_bytes((root/o).read_bytes())
    r = subprocess.run([sys.executable, 'setup.py', '--version'], cwd=tmp_path, capture_output=True, text=True)
    assert r.returncode == 0 and r.stdout.split()[-1] == settings()['version']

"The package as settings.ini describes it; nbdev reads the same file."
import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

root = Path(__file__).resolve().parent
ini = ConfigParser(delimiters=['='])
ini.read(root/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
extras = ('dev','bench','distributed','faces','faces_referee')
git,docs = cfg['git_url'],cfg['doc_host']+cfg['doc_baseurl']
raw = f"{git.replace('github.com', 'raw.githubusercontent.com')}/{cfg['branch']}"

CODE,LINK = r'```.*?```|`[^`\n]+`', r'(!?)\[((?:`[^`\n]*`|[^][`])*)\]\(([^()\s]+)\)'

def absolute(match):
    "A link or picture of the README, for pages that lie elsewhere: a package index has no folder nbs/"
    bang,text,path = match.groups()
    if not path or re.match(r'[a-z]+:|#', path): return match[0]
    return f"{bang}[{text}]({raw if bang else git+'/blob/'+cfg['branch']}/{path})"

readme = (root/'README.md').read_text(encoding='utf-8')
setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'],
    author=cfg['author'], url=git, license='Apache-2.0',
    long_description=re.sub(f'{CODE}|{LINK}', absolute, readme, flags=re.S),
    long_description_content_type='text/markdown',
    project_urls=dict(Docs=docs, Source=git, Issues=f'{git}/issues', Changelog=f"{git}/blob/{cfg['branch']}/CHANGELOG.md"),
    classifiers=['Development Status :: 3 - Alpha', 'Intended Audience :: Science/Research', 'Programming Language :: Python :: 3',
                 'Topic :: Scientific/Engineering :: Image Recognition'],
    packages=find_packages(root, include=['portrait_nb*']), python_requires=f">={cfg['min_python']}",
    install_requires=cfg['requirements'].split(),
    extras_require={k.replace('_','-'): cfg[f'{k}_requirements'].split() for k in extras},
    entry_points={'console_scripts': cfg['console_scripts'].split(), 'nbdev': ['portrait_nb=portrait_nb._modidx:d']},
    zip_safe=False)

"The package as settings.ini describes it; nbdev reads the same file."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

ini = ConfigParser(delimiters=['='])
ini.read('settings.ini')
cfg = ini['DEFAULT']

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'],
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'], license='Apache-2.0',
    long_description=Path('README.md').read_text(), long_description_content_type='text/markdown',
    project_urls={'Source': cfg['git_url'], 'Documentation': cfg['doc_host']+cfg['doc_baseurl']},
    classifiers=['Development Status :: 3 - Alpha', 'Intended Audience :: Science/Research', 'Programming Language :: Python :: 3',
                 'Topic :: Scientific/Engineering :: Image Recognition'],
    packages=find_packages(include=['portrait_nb*']), python_requires=f">={cfg['min_python']}",
    install_requires=cfg['requirements'].split(), extras_require={k: cfg[f'{k}_requirements'].split() for k in ('dev','bench','distributed')},
    entry_points={'console_scripts': cfg['console_scripts'].split(), 'nbdev': ['portrait_nb=portrait_nb._modidx:d']},
    zip_safe=False)

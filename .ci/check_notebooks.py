"""Fail if a notebook is not clean, shows a path of the machine it ran on or a value that its cell no longer has, if the
library is not what the notebooks export, or if README.md and its pictures are not what index.ipynb says."""
import ast, filecmp, json, os, shutil, subprocess, sys, tempfile
from pathlib import Path

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root/'.ci'))
from check_reading import cells_of, notebooks
from make_readme import out_of_step

def rebuilt(tmp):
    "A copy of the project in `tmp`, cleaned and exported anew"
    unwanted = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints')
    for f in ('nbs', 'portrait_nb'): shutil.copytree(root/f, tmp/f, symlinks=True, ignore=unwanted)
    for f in ('settings.ini', 'setup.py', 'pyproject.toml', 'README.md', '_quarto.yml'): shutil.copy(root/f, tmp/f)
    for cmd in ('nbdev_clean', 'nbdev_export'):
        program,env = Path(sys.executable).parent/cmd,{**os.environ, 'PYTHONPATH': str(tmp)}
        subprocess.run([program], cwd=tmp, check=True, env=env)
    return tmp

def differing(tmp):
    "What is not the same in the project and in its rebuilt copy"
    found = [p for d,ext in (('nbs','ipynb'),('portrait_nb','py')) for p in sorted((root/d).rglob(f'*.{ext}'))]
    files = [p.relative_to(root) for p in found if '.ipynb_checkpoints' not in p.parts]
    new = [p.relative_to(tmp) for p in sorted((tmp/'portrait_nb').rglob('*.py'))]
    def same(f): return (root/f).exists() and (tmp/f).exists() and filecmp.cmp(root/f, tmp/f, shallow=False)
    return [f for f in dict.fromkeys(files+new) if not same(f)]

def with_paths():
    "Notebooks whose outputs name a folder of installed packages, as warnings do"
    for p in sorted((root/'nbs').rglob('*.ipynb')):
        if '.ipynb_checkpoints' in p.parts: continue
        outputs = [o for c in cells_of(p) for o in c.get('outputs', [])]
        if 'site-packages/' in json.dumps(outputs): yield p.relative_to(root)

def shows_nothing(source):
    "Does a cell end in what has no value to show: a statement, a test of fastcore, a semicolon?"
    if source.rstrip().endswith(';'): return True
    try: last = ast.parse(source).body[-1]
    except (SyntaxError, IndexError): return False
    if not isinstance(last, ast.Expr): return True
    return isinstance(last.value, ast.Call) and getattr(last.value.func, 'id', '').startswith('test_')

def with_stale_values():
    "Notebooks and cells that keep a value of what they were before"
    for p in sorted((root/'nbs').rglob('*.ipynb')):
        if '.ipynb_checkpoints' in p.parts: continue
        for i,c in enumerate(cells_of(p)):
            has_value = any(o['output_type']=='execute_result' for o in c.get('outputs', []))
            if has_value and shows_nothing(''.join(c['source'])): yield p.relative_to(root),i

def main():
    for p in notebooks(): cells_of(p) # nbdev would not name the one that is broken
    with tempfile.TemporaryDirectory() as tmp: bad = differing(rebuilt(Path(tmp).resolve()))
    for f in bad: print(f'{f}: not clean or not in sync. Run: nbdev_clean && nbdev_export && nbdev_clean')
    for f in with_paths(): bad.append(f); print(f'{f}: an output shows a path of this machine. Remove that output.')
    for f,i in with_stale_values():
        bad.append(f)
        print(f'{f}: cell {i} shows a value that it no longer has. Run the notebook again.')
    for f in out_of_step(root): bad.append(f); print(f'{f} is not what nbs/index.ipynb says. Run: make readme')
    if bad: sys.exit(1)
    print('Notebooks are clean; the library and README.md are in sync with them.')

if __name__=='__main__': main()

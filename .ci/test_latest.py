"""Build the wheel from the sdist, install it alone beside the newest fastai and fastcore, run every command there,
then the tests of the commands (`--all`: all tests). `--shared FOLDER`: take torch and what else is missing from that
folder of packages; `--pins PACKAGE==VERSION ...`: other versions than the newest."""
import argparse, os, shutil, subprocess, sys, venv
from pathlib import Path

root = Path(__file__).resolve().parent.parent
NEWEST = ['fastai', 'fastcore', 'fasttransform', 'fastprogress', 'plum-dispatch']
TESTS = ['tests/test_cli.py', 'tests/test_quiet.py', 'tests/test_tasks.py', 'tests/test_package.py']
TINY = '--backbone test_resnet --pretrained no --epochs 1 --bs 32 --height 64 --width 32'

def sh(*words, **kwargs):
    print('$', *words, flush=True)
    return subprocess.run([str(o) for o in words], check=True, **kwargs)

def wheel(folder):
    "The wheel that is built from the sdist, as pip would build it"
    shutil.rmtree(folder, ignore_errors=True)
    sh(sys.executable, '-m', 'build', '--outdir', folder, root, stdout=subprocess.DEVNULL)
    return next(folder.glob('*.whl'))

def environment(folder, shared):
    "A new virtual environment; with `shared`, the packages of that folder are found after its own"
    venv.create(folder, with_pip=True, clear=True)
    bin = folder/('Scripts' if os.name=='nt' else 'bin')
    where = 'import sysconfig; print(sysconfig.get_path("purelib"))'
    own = subprocess.run([bin/'python', '-c', where], capture_output=True, text=True, check=True).stdout.strip()
    if shared: (Path(own)/'zz_shared.pth').write_text(f'{Path(shared).resolve()}\n', 'utf-8')
    return bin

def install(bin, built, shared, pins):
    "The wheel, and the packages of `pins` (default: the newest of those that change most)"
    pip = [bin/'python', '-m', 'pip', 'install', '--quiet']
    sh(*pip, *(['--no-deps'] if shared else []), built)
    sh(*pip, *([] if pins else ['--upgrade']), *(pins or NEWEST), 'pytest')

def commands(bin, folder):
    "Every command once, and each of the options that fastcore 2 spells otherwise in both ways"
    def run(line, *codes):
        command,*words = line.split()
        env = {k: v for k,v in os.environ.items() if k not in ('PYTHONPATH','PYTHONWARNINGS')}
        print('$', line, flush=True)
        r = subprocess.run([bin/command, *words], cwd=folder, capture_output=True, text=True, env=env)
        if r.returncode in (0, *codes) and '\r' not in r.stdout: return r
        sys.exit(f'exit code {r.returncode}\n{r.stdout}\n{r.stderr}')
    table = 'drawn/annotations.csv'
    for o in ('synth','demo','import','lint','train','eval','interpret','ablate'):
        if run(f'portrait_{o} --help').stderr: sys.exit(f'portrait_{o} --help prints something to stderr')
    run('portrait_synth drawn --preset tiny')
    run('portrait_demo --preset tiny --data drawn --epochs 1 --out demo')
    (folder/'UTKFace').mkdir()
    for i,o in enumerate(sorted((folder/'drawn/train').rglob('*.jpg'))[:40]):
        shutil.copy(o, folder/f'UTKFace/{20+i}_{i%2}_{i%5}_201701161745{i:05d}.jpg')
    run('portrait_import utkface UTKFace --out utk.csv')
    run(f'portrait_lint {table}', 1) # 1 if it finds something fatal
    run(f'portrait_train --annotations {table} --root drawn --out a {TINY} --metric_loss none --score_every=1')
    run(f'portrait_train --annotations {table} --root drawn --out b {TINY} --metric-loss=none --score-every 1')
    run(f'portrait_eval a/model {table} --report r --no_pictures')
    run(f'portrait_eval a/model {table} --report s --no-pictures --by gender')
    photo = next((folder/'drawn/query').rglob('*.jpg')).relative_to(folder)
    run(f'portrait_interpret a/model {photo} --gallery drawn/gallery --k 2 --out figure.png')
    run('portrait_ablate --preset tiny --rows fss --root drawn --out ablation')

def tests(bin, folder, files):
    "The tests, copied away from the checkout so that they import what is installed"
    unwanted = shutil.ignore_patterns('.git', '.venv', 'portrait_nb', 'out', '*.egg-info')
    shutil.copytree(root, folder/'checkout', ignore=unwanted)
    env = {k: v for k,v in os.environ.items() if k!='PYTHONPATH'}
    sh(bin/'python', '-m', 'pytest', '-q', '-p', 'no:cacheprovider', *files, cwd=folder/'checkout', env=env)

def versions(bin):
    names = ['portrait_nb', *NEWEST, 'torch']
    code = ("from importlib.metadata import version\nimport portrait_nb\n"
            f"print(portrait_nb.__file__, *(f'{{o}} {{version(o)}}' for o in {names}), sep=', ')")
    r = subprocess.run([bin/'python', '-c', code], capture_output=True, text=True, check=True, cwd='/')
    return r.stdout.strip()

def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--folder', type=Path, default=root/'out/latest', help='what is built and written goes here')
    p.add_argument('--shared', help='a folder of packages, e.g. .venv/lib/python3.11/site-packages')
    p.add_argument('--pins', nargs='*', default=[], help='versions to install')
    p.add_argument('--all', action='store_true', help='all tests, not only those of the commands')
    p.add_argument('--no-tests', action='store_true', help='the commands only')
    a = p.parse_args()
    folder = a.folder.resolve()
    if folder!=root/'out/latest' and folder.exists() and any(folder.iterdir()):
        sys.exit(f'--folder {a.folder} is not empty, and we delete nothing of yours: give another one.')
    if folder!=root/'out/latest' and folder.is_relative_to(root):
        sys.exit(f'--folder {a.folder} is inside the checkout, which is copied: give one outside.')
    shutil.rmtree(folder, ignore_errors=True)
    built = wheel(folder/'dist')
    bin = environment(folder/'venv', a.shared)
    install(bin, built, a.shared, a.pins)
    (folder/'work').mkdir()
    commands(bin, folder/'work')
    files = ['tests'] if a.all else TESTS
    if not a.no_tests: tests(bin, folder, files)
    print(f'\nInstalled from {built.name}: {versions(bin)}')
    print('Every command ran' + ('.' if a.no_tests else f", and these tests passed: {' '.join(files)}"))

if __name__=='__main__': main()

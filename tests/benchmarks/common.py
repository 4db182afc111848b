"What the benchmarks share: the memory of a process, a process of its own for every measurement, and files that say how they were made"
import json, os, subprocess, sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

REPO = Path(__file__).resolve().parents[2]
RESULTS = REPO/'results'
THREADS = 2
sys.path.insert(0, str(REPO))


def memory(what):
    "VmRSS (now) or VmHWM (the highest) of this process in MB; NaN where the system does not tell"
    try: return int(next(o for o in open('/proc/self/status') if o.startswith(what)).split()[1])/1024
    except (OSError, StopIteration): return float('nan')


def forget_peak():
    try: Path('/proc/self/clear_refs').write_text('5')
    except OSError: pass


def child_environment(**more):
    "Of a process of its own: this checkout before what PYTHONPATH names already"
    path = os.pathsep.join(filter(None, [str(REPO), os.environ.get('PYTHONPATH')]))
    return {**os.environ, **more, 'PYTHONPATH': path}


def in_own_process(script, *args, threads=THREADS):
    "What `script` prints last, as JSON"
    env = child_environment(OMP_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS=str(threads))
    out = subprocess.run([sys.executable, script, *map(str, args)], capture_output=True, text=True, env=env)
    if out.returncode: sys.exit(out.stderr or f'{script}: exit code {out.returncode}')
    return json.loads(out.stdout.splitlines()[-1])


def _version(name):
    try: return version(name)
    except PackageNotFoundError: return ''


@cache
def provenance(*packages, cpu=True):
    "Date, commit, hardware and versions, as they were before the first file was written"
    from portrait_nb.runs import environment, processor
    e = environment()
    if cpu: e['hardware'] = processor()
    versions = {o.replace('-', '_'): _version(o) for o in packages}
    return {k: e[k] for k in ('date', 'commit', 'hardware', 'python')} | versions


def write(df, path):
    part = path.with_name(f'.{path.name}.part')
    df.to_csv(part, index=False)
    os.replace(part, path)
    print(f'wrote {path.relative_to(REPO)}')

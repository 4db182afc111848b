"""Run every notebook as nbdev_test does, the slowest first, so that no process is idle while the last one runs."""
import os, sys
from fastcore.parallel import parallel
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.test import test_nb

N_WORKERS = 2
# which take longest, the longest first; the times that a run prints say when to change this
SLOW = ('many_gpus', '050_runs', '040_distributed', '100_synth', '150_cli', 'index', '030_learner', 'market1501',
        '010_callbacks', 'your_photos', '030_report', 'your_sub_tasks', '110_data', '090_longtail')

def slowest_first(files):
    "`files` in the order of `SLOW`, the others behind"
    return sorted(files, key=lambda p: (SLOW.index(p.stem) if p.stem in SLOW else len(SLOW), p))

def main():
    cfg = get_config()
    files = slowest_first(p.absolute() for p in nbglob(as_path=True))
    skipped = cfg.tst_flags.split()
    os.chdir(cfg.nbs_path)
    found = parallel(test_nb, files, skip_flags=skipped, n_workers=N_WORKERS, basepath=cfg.config_path, pause=.01)
    pairs = list(zip(files, found))
    for p,(_,seconds) in sorted(pairs, key=lambda o: -o[1][1]): print(f'{seconds:4.0f} s  {p.name}')
    failed = [p.relative_to(cfg.nbs_path).as_posix() for p,(passed,_) in pairs if not passed]
    if failed: sys.exit(f'These notebooks fail: {", ".join(failed)}')
    print(f'All {len(files)} notebooks run.')

if __name__=='__main__': main()

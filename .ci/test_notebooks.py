"""Run every notebook in two processes, the slow ones first, so that neither process idles at the end.

The order is all that differs from `nbdev_test --n_workers 2 --timing`.
"""
import sys
from pathlib import Path
from fastcore.foundation import working_directory
from fastcore.parallel import parallel
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.test import _keep_file, test_nb

SLOW = ('150_cli', 'many_gpus', '040_distributed', '100_synth', '050_runs', 'index', '030_learner', 'market1501',
        '010_callbacks', 'your_photos', '030_facesets', '030_report', 'your_sub_tasks', '110_data')

def order(files):
    "The slow notebooks in their order, then the others by name"
    rank = {o: i for i,o in enumerate(SLOW)}
    return sorted(files, key=lambda f: (rank.get(f.stem, len(SLOW)), f.name))

def main():
    cfg = get_config()
    files = order(f.absolute() for f in nbglob(None, as_path=True) if _keep_file(f, '.notest'))
    if not files: sys.exit('No notebook was found.')
    with working_directory(cfg.nbs_path):
        results = parallel(test_nb, files, skip_flags=cfg.tst_flags.split(), force_flags=[], n_workers=2,
                           basepath=cfg.config_path, pause=.01, do_print=False)
    for (_,seconds),f in sorted(zip(results, files), key=lambda o: -o[0][1]): print(f'{f.name}: {seconds:.0f} secs')
    failed = [f.name for (passed,_),f in zip(results, files) if not passed]
    if failed: sys.exit(f"These notebooks failed: {', '.join(failed)}")

if __name__=='__main__': main()

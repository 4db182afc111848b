"""Fail if a notebook is not in its wing: its place in the corridor, and what it may import.

A wing imports from wings before it, a notebook from lower numbers of its own wing,
and nobody another module's private name.
"""
import ast, re, sys
from pathlib import Path
from check_reading import EXPORT, code_cells as cells

root = Path(__file__).resolve().parent.parent
WINGS = ('draw', 'data', 'model', 'scores', 'training', 'ablation', 'faces', 'use')
PACKAGES = ('draw', 'faces') # wings whose modules are a package of their own
READ_ONLY = ('tutorials', 'reproductions') # these export nothing

def module_of(path):
    "The module that a notebook exports, e.g. 'draw.brush'"
    found = re.search(r'^#\s*\|\s*default_exp (\S+)', '\n'.join(cells(path)), re.M)
    return found and found[1]

def expected(path):
    "The module that a notebook in this place has to export"
    wing,name = path.parent.name,re.sub(r'^\d+_', '', path.stem)
    return f'{wing}.{name}' if wing in PACKAGES else name

def imported(source):
    "Pairs (module of ours, names imported from it) of some code"
    source = re.sub(r'^[!%].*', 'pass', source, flags=re.M)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            path = ('portrait_nb' if node.level else '')+(f'.{node.module}' if node.level and node.module else node.module or '')
            names = [o.name for o in node.names]
            if path=='portrait_nb': # modules, or a private name of the package
                for name in names: yield (name, []) if not name.startswith('_') else ('the package', [name])
            elif path.startswith('portrait_nb.'): yield path.removeprefix('portrait_nb.'), names
        if isinstance(node, ast.Import):
            for o in node.names:
                if o.name.startswith('portrait_nb.'): yield o.name.removeprefix('portrait_nb.'), []

def place(path): return (WINGS.index(path.parent.name), int(path.stem.split('_')[0]))

def misplaced(nbs):
    for p in nbs:
        where = p.relative_to(root)
        if p.parent.name not in WINGS: yield f'{where}: not in a wing ({", ".join(WINGS)}).'
        elif not re.fullmatch(r'\d\d0_[a-z][a-z0-9_]*', p.stem):
            yield f'{where}: its name does not begin with a number by tens, as in 010_metrics.'
        elif module_of(p)!=expected(p):
            yield f'{where}: exports {module_of(p)}; from this place it has to be {expected(p)}.'

def wrong_imports(nbs):
    home = {module_of(p): p for p in nbs}
    for p in nbs:
        for source in filter(EXPORT.search, cells(p)):
            for module,names in imported(source):
                if module in (module_of(p), 'the package'): continue
                where = p.relative_to(root)
                if module not in home: yield f'{where}: imports portrait_nb.{module}, which no notebook exports.'
                elif place(home[module])>=place(p):
                    yield f'{where}: imports {module} from {home[module].relative_to(root)}, which comes later.'

def private_imports(sources):
    for path,own,source in sources:
        for module,names in imported(source):
            private = [o for o in names if o.startswith('_')]
            if private and module!=own:
                names = ', '.join(private)
                yield f'{path.relative_to(root)}: imports {names} of portrait_nb.{module}: make public what others need.'

def no_python(pages):
    "Exported cells that can't be parsed, by the name of their notebook"
    for p in pages:
        for source in filter(EXPORT.search, cells(p)):
            try: list(imported(source))
            except SyntaxError as e:
                yield f'{p.relative_to(root)}: an exported cell is no Python: {e.msg}: {(e.text or "").strip()}'

def main():
    pages = sorted(p for p in (root/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
    nbs = [p for p in pages if p.parent.name not in READ_ONLY and p.name!='index.ipynb']
    scripts = [p for d in ('tests','results') for p in sorted((root/d).rglob('*.py'))]
    faults = list(no_python(pages))
    if faults: sys.exit('\n'.join(faults))
    faults = list(misplaced(nbs))
    if not faults: faults += wrong_imports(nbs)
    exported = [(p, module_of(p), s) for p in nbs for s in filter(EXPORT.search, cells(p))]
    exported += [(p, None, p.read_text('utf-8')) for p in scripts if p.is_relative_to(root/'results')]
    faults += private_imports(exported)
    print(*faults, sep='\n')
    if faults: sys.exit(1)
    print('Every notebook is in its place, and imports what comes before it.')

if __name__=='__main__': main()

"""Fail if code is hard to read: long lines, dense lines, long cells, definitions without a demonstration.

A place to look, not a verdict: what passes here may still read badly.
"""
import ast, json, re, sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
LINE,STRING = 120,160     # characters of a line; of one that a single string fills
NODES,CELL,SHOWN = 13,60,.8 # nodes per exported line, lines of an exported cell, definitions with evidence right below
DENSE = ('draw',)         # wings whose lines may be dense: drawing is arithmetic
EXPORT = re.compile(r'^#\s*\|\s*export[si]?\b', re.M)
DEFINES = re.compile(r'^\s*(def|class) ', re.M)
BEFORE = r"[\w.]+(, *\w+)* *=+ *|return |yield |raise \w+\(|print\(|assert .*, "
ONE_STRING = re.compile(rf"""\s*({BEFORE})?\(?[frb]{{0,2}}(["']).*\3[)\]}},:]*""")

def notebooks():
    found = sorted((root/'nbs').rglob('*.ipynb'))
    return [p for p in found if not any(o.startswith(('.','_')) for o in p.relative_to(root).parts)]

def cells_of(path):
    "The cells of a notebook; if it is none, the check ends and names it"
    try:
        cells = json.loads(path.read_text('utf-8'))['cells']
        for c in cells: c['cell_type'],''.join(c['source'])
        return cells
    except (ValueError, KeyError, TypeError) as e:
        sys.exit(f'{path}: not a notebook ({type(e).__name__}: {e}). Mend it, perhaps a merge left its marks in it.')

def code_cells(path): return [''.join(c['source']) for c in cells_of(path) if c['cell_type']=='code']

def code_lines(source): return [o for o in source.split('\n') if o.strip() and not re.match(r'#\s*\|', o)]

def long_lines(source):
    for line in source.split('\n'):
        if re.match(r'#\| fig-(alt|cap):', line): continue # words, which have to stand on one line
        if len(line)>STRING or len(line)>LINE and not ONE_STRING.fullmatch(line): yield line

def n_nodes(lines):
    "Syntax nodes of a cell; magics count as one statement"
    plain = [re.sub(r'^\s*[!%].*', 'pass', o) for o in lines]
    return sum(1 for _ in ast.walk(ast.parse('\n'.join(plain))))

def shares(cells):
    "(definitions, those followed by code that is not exported before the next definition)"
    def kind(o):
        if not EXPORT.search(o): return 'evidence' if code_lines(o) and 'nbdev_export()' not in o else 'nothing'
        return 'definition' if DEFINES.search(o) else 'exported'
    kinds = [o for o in map(kind, cells) if o!='nothing']
    after = [b for a,b in zip(kinds, [*kinds[1:], 'end']) if a=='definition']
    return len(after),after.count('evidence')

def mixed_imports(cells):
    "Cells of a module's notebook that import beside other code: nbdev_docs would run the whole cell"
    if not any(EXPORT.search(o) for o in cells): return
    for o in cells:
        nodes = list(ast.walk(ast.parse('\n'.join(re.sub(r'^\s*[!%].*', 'pass', l) for l in code_lines(o)))))
        imports = any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in nodes)
        others = any(isinstance(n, (ast.Expr, ast.Assign)) for n in nodes)
        if imports and others and not EXPORT.search(o) and 'nbdev_export()' not in o: yield o

def faults_of(path):
    where,cells = path.relative_to(root),code_cells(path)
    for o in mixed_imports(cells): yield f'{where}: a cell imports beside other code: {code_lines(o)[0][:70]} ...'
    for o in cells:
        for line in long_lines(o): yield f'{where}: {len(line)} characters: {line.strip()[:70]} ...'
    exported = [code_lines(o) for o in cells if EXPORT.search(o)]
    n_lines = sum(map(len, exported))
    if not n_lines: return
    longest = max(exported, key=len)
    if len(longest)>CELL: yield f'{where}: an exported cell of {len(longest)} lines: {longest[0][:70]} ...'
    nodes = sum(map(n_nodes, exported))/n_lines
    if round(nodes, 1)>NODES and path.parent.name not in DENSE:
        yield f'{where}: {nodes:.1f} syntax nodes per line; {NODES} are the limit.'
    definitions,shown = shares(cells)
    if definitions and shown/definitions<SHOWN:
        yield f'{where}: {shown} of {definitions} definitions are followed by a demonstration or a test: {SHOWN:.0%} have to be.'

def main():
    faults = []
    for p in notebooks():
        try: faults += faults_of(p)
        except (SyntaxError, ValueError, KeyError) as e: faults.append(f'{p.relative_to(root)}: cannot be read: {e}')
    for p in [p for d in ('tests','results','.ci') for p in sorted((root/d).rglob('*.py'))]:
        where = p.relative_to(root)
        faults += [f'{where}: {len(o)} characters: {o.strip()[:70]} ...' for o in long_lines(p.read_text('utf-8'))]
    print(*faults, sep='\n')
    if faults: sys.exit(f'{len(faults)} places are hard to read.')
    print('Lines are short, and definitions are shown at work.')

if __name__=='__main__': main()

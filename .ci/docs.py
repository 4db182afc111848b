"""Build the site into _docs: nbdev's processors turn the notebooks into pages, and smalldocs renders those.

With `--with quarto` Quarto does. What a page says of a public name comes from the imported library: no cell runs.
"""
import argparse, ast, inspect, io, os, re, shutil, subprocess, sys, textwrap, tokenize, yaml
from dataclasses import is_dataclass
from functools import reduce
from importlib import import_module
from itertools import groupby
from pathlib import Path
from check_reading import cells_of
from execnb.nbio import mk_cell, read_nb, write_nb
from fastcore.basics import AttrDict
from fastcore.docments import DocmentText
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup
from nbdev.frontmatter import FrontmatterProc
from nbdev.process import NBProcessor, Processor
from nbdev.processors import add_fold, clean_magics, filter_stream_, hide_, hide_line, populate_language
from nbdev.processors import rm_export, strip_ansi, strip_hidden_metadata
from nbdev.quarto import refresh_quarto_yml
from nbdev.showdoc import showdoc_nm

root = Path(__file__).resolve().parent.parent
WIDTH = 86                   # characters of a signature's line that a window of 1280 pixels shows
COPIED = ('.qmd', '.yml', '.css', '.png', '.jpg', '.csv') # files beside the notebooks that belong to the site
ALSO = ('CHANGELOG.md', 'CONTRIBUTING.md')                # pages from the root of the repository
FENCES = re.compile(r'^[ \t]*(`{3,}(?=[^`\n]*$)|~{3,}).*?(?:^[ \t]*\1[`~]*[ \t]*$|\Z)|^:::.*?$', re.M|re.S)
A_LINK = r'!?\[(?:[^\[\]]|\[[^\]]*\])*\]\([^)]*\)'
TICKS = r'(?<!`)(?P<ticks>``+)(?!`).*?(?<!`)(?P=ticks)(?!`)' # code between two ticks or more
SPANS = re.compile(rf'{A_LINK}|{TICKS}|(?<!`)`(?P<name>[^`\s]+?)(\(\))?`(?!`)')
CODE = r'(?<!`)(?P<ticks>`+)(?!`)(?:(?!\n[^\S\n]*\n).)*?(?<!`)(?P=ticks)(?!`)'
TARGET = r'(?P<to>\]\()(?P<file>[^)\s#]+)(?P<anchor>#[^)\s]*)?(?=[)\s])'
TARGET = re.compile(f'{CODE}|{TARGET}', re.S) # code too, which is passed over
ITEM = re.compile(r' *(?:[-*+]|\d+[.)]) +')

def notebooks(nbs):
    found = sorted(nbs.rglob('*.ipynb'))
    return [p for p in found if not any(o.startswith(('.','_')) for o in p.relative_to(nbs).parts)]

def page_name(path):
    "scores/010_metrics.ipynb becomes scores/metrics.ipynb, as nbdev's links expect; a README is its folder's first page"
    if path.name=='README.md': return path.with_name('index.md')
    return path.with_name(re.sub(r'^\d+[a-z]?_(?=.*\.ipynb$)', '', path.name))

def outside_fences(change, text):
    "`text` with everything changed that is not in a code fence or the line that opens a call-out"
    parts,end = [],0
    for m in FENCES.finditer(text):
        parts += [change(text[end:m.start()]), m[0]]
        end = m.end()
    return ''.join([*parts, change(text[end:])])

def marked(lines):
    "Pairs (is it a line of an indented block of code?, line)"
    needed,after_blank = 4,True # blanks before code; in an item of a list they count from its text
    for line in lines:
        n,is_blank,item = len(line)-len(line.lstrip(' ')),not line.strip(),ITEM.match(line)
        ends_list = after_blank and not is_blank and not item and n<needed-4
        if ends_list: needed = 4
        is_code = after_blank and not is_blank and n>=needed
        if item and not is_code: needed = item.end()+4
        yield is_code,line
        after_blank = is_blank or is_code

# The entry of a public name

class Written:
    "A default as the source writes it"
    def __init__(self, source): self.source = source
    def __repr__(self): return self.source

def is_literal(o):
    try: ast.literal_eval(repr(o))
    except (ValueError, SyntaxError): return False
    return True

def written_defaults(f):
    "The defaults of a function or dataclass, by name, as its source writes them"
    if inspect.isclass(f) and not is_dataclass(f): f = f.__init__
    try: node = ast.parse(textwrap.dedent(inspect.getsource(f))).body[0]
    except (OSError, TypeError, SyntaxError): return {}
    if isinstance(node, ast.ClassDef):
        fields = [o for o in node.body if isinstance(o, ast.AnnAssign) and o.value]
        return {o.target.id: ast.unparse(o.value) for o in fields}
    names = [o.arg for o in node.args.args]
    pairs = list(zip(reversed(names), reversed(node.args.defaults)))
    pairs += [(o.arg, d) for o,d in zip(node.args.kwonlyargs, node.args.kw_defaults) if d]
    return {name: ast.unparse(d) for name,d in pairs}

def split_comment(line):
    "A line of code, and the words of its comment; a # in a string begins none"
    at = -1
    try:
        for o in tokenize.generate_tokens(io.StringIO(line).readline):
            if o.type==tokenize.COMMENT: at = o.start[1]-1
    except (tokenize.TokenError, SyntaxError): pass # the brackets of a signature close on another line
    return (line[:at], line[at+3:]) if at>=0 else (line, '')

def folded(line):
    "A line of a signature, its comment folded under itself where it is too long"
    code,doc = split_comment(line)
    if len(line)<=WIDTH or not doc: return line
    beside = len(code)<=WIDTH//2
    pad = '\n'+' '*(len(code)+1 if beside else 8)+'# '
    lines = textwrap.wrap(doc, max(WIDTH-len(pad)+1, 20), break_on_hyphens=False)
    return code+(' # ' if beside else pad)+pad.join(lines)

class Signature(DocmentText):
    "A signature with the meaning of each argument; what is no literal stands there as it was written"
    def __init__(self, f):
        super().__init__(f, maxline=WIDTH, docstring=False)
        source = written_defaults(f)
        for name,p in self.dm.items():
            if name in source and not is_literal(p.default): p.default = Written(source[name])

    def __str__(self):
        text = super().__str__()
        if inspect.isclass(self.obj): text = re.sub(r'\)(->None)?:$', ')', re.sub('^def ', 'class ', text))
        return '\n'.join(map(folded, text.split('\n')))

def is_ours(f): return (getattr(f, '__module__', None) or '').startswith('portrait_nb')

def unwrapped(o):
    "The function behind a property or decorators, as long as it is one of ours"
    o = next((f for f in (getattr(o, 'fget', None), getattr(o, 'fset', None)) if is_ours(f)), o)
    return inspect.unwrap(o, stop=lambda f: not is_ours(f.__wrapped__))

def docstring(o):
    "The docstring that a definition itself has: none of its base's, and no signature that `dataclass` wrote"
    doc = inspect.cleandoc(o.__doc__ or (o.__dict__.get('__init__', o).__doc__ if inspect.isclass(o) else '') or '')
    return '' if is_dataclass(o) and doc.startswith(f'{o.__name__}(') else doc

def source_link(o, cfg):
    file = Path(inspect.getsourcefile(o)).resolve().relative_to(root)
    line = inspect.getsourcelines(o)[1]
    return f'[source]({cfg.git_url}/blob/{cfg.branch}/{file}#L{line}){{.source-link target="_blank"}}'

def entry(name, o, cfg):
    "Markdown for a public name: heading, signature, docstring"
    o = unwrapped(o)
    heading = f'### {name}'.replace('__', r'\_\_')
    first,_,rest = docstring(o).partition('\n')
    about = f'{first}\n{rest}'.strip()
    return f'---\n\n{source_link(o, cfg)}\n\n{heading}\n\n```python\n{Signature(o)}\n```\n\n{about}'

def is_public(name):
    parts = name.split('.')
    return not any(o.startswith('_') for o in parts[:-1]) and not re.match('_(?!_)', parts[-1])

def definitions(cell, page=''):
    "Names that an exported cell defines, `Class.name` where it patches a class"
    nodes = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    try: body = ast.parse(cell.source).body
    except SyntaxError as e: sys.exit(f'{page}, cell {cell.idx_}: an exported cell is no Python ({e}): mend it.')
    names = [showdoc_nm(o) for o in body if isinstance(o, nodes)]
    return [o for name in names for o in ([name] if isinstance(name, str) else name)]

class Entries(Processor):
    "Add the entries of what a cell exports below it, or above it where the page shows its source"
    def begin(self):
        cfg,nb = get_config(),self.nb
        modules = [c.directives_['default_exp'][0] for c in nb.cells if 'default_exp' in c.directives_]
        nb.anchors_,nb.undocumented_,cells = set(),[],[]
        for c in nb.cells:
            shown = c.cell_type=='code' and {'export','exports'}&set(c.directives_) and 'hide' not in c.directives_
            where = c.directives_.get('export') or c.directives_.get('exports') or modules
            entries = []
            for name in filter(is_public, definitions(c, nb.path_) if shown else []):
                o = reduce(getattr, name.split('.'), import_module(f'{cfg.lib_name}.{where[0]}'))
                if not docstring(unwrapped(o)):
                    nb.undocumented_.append(name)
                    if name.endswith('__'): continue
                entries.append(mk_cell(entry(name, o, cfg), 'markdown'))
                nb.anchors_.add(name.lower())
            cells += [*entries, c] if 'exports' in c.directives_ else [c, *entries]
        nb.cells = cells

# Pages

class Front(FrontmatterProc):
    "The title and the sentence below it become the page's own, with links to the notebook"
    def end(self):
        cfg = get_config()
        path = Path(self.nb.path_).resolve().relative_to(root).as_posix()
        at = f'{cfg.git_url.removeprefix("https://github.com/")}/blob/{cfg.branch}/{path}'
        self.nb.frontmatter_ = self.fm
        links = f'[The notebook](https://github.com/{at})'
        if any('! [ -e /content ]' in (c.source or '') for c in self.nb.cells): # it installs what it needs there
            links = f'[Open in Colab](https://colab.research.google.com/github/{at}) {links}'
        front = f'---\n{yaml.dump({**self.fm}, allow_unicode=True)}---\n'
        self.nb.cells[:0] = [mk_cell(front, 'raw'), mk_cell(f'::: {{.notebook-links}}\n{links}\n:::', 'markdown')]

def rm_header_dash(cell):
    "Remove headings with a dash at their end, which close a notebook"
    if cell.cell_type!='markdown': return
    cell.source = re.sub(r'^#+ .* -\s*\Z', '', cell.source, flags=re.M).strip()
    if not cell.source: del cell['source']

def demoted(text):
    "Headings that an output shows stay out of the page's own contents"
    return re.sub(r'^#+ (.*)$', r'#### \1 {.unlisted .unnumbered}', text, flags=re.M)

PROCESSORS = [Front, populate_language, Entries, strip_ansi, hide_line, filter_stream_, rm_header_dash, rm_export,
              clean_magics, hide_, add_fold, strip_hidden_metadata]

def processed(path):
    nb = read_nb(path)
    NBProcessor(nb=nb, procs=PROCESSORS).process()
    return nb

class Links:
    "Links of one page: code that names something public, other notebooks, files of the repository"
    def __init__(self, path, nbs, anchors):
        self.folder,self.nbs,self.anchors,self.cfg = path.parent,nbs,anchors,get_config()
        self.up = '../'*len(path.parent.relative_to(nbs).parts)
        self.host = f'{self.cfg.doc_host}{self.cfg.doc_baseurl}/'
        self.lookup,self.bare = NbdevLookup(),[]
        self.beside = {page_name(p).stem for p in path.parent.glob('*.ipynb')}
        self.pages = {o for p in notebooks(nbs) for o in (p.stem, page_name(p).stem)}

    def symbol(self, name):
        "Where the page of a public name is, or None. A word in lower case is ours: fastcore has `first`, `store`, `ids` ..."
        url = self.lookup.doc(name)
        if not url or not is_public(name): return
        if not url.startswith(self.host): return url if re.search('[A-Z_]', name) else None
        page,_,anchor = url.removeprefix(self.host).partition('#')
        if not anchor: return f'{self.up}{page}'
        for o in (anchor, anchor.rpartition('.')[0]):
            if o and f'{page}#{o}' in self.anchors: return f'{self.up}{page}#{o}'

    def _span(self, m):
        name = m['name']
        if not name: return m[0]
        url = self.symbol(name)
        if name in self.pages and (not url or name in self.beside): self.bare.append(name)
        return f'[{m[0]}]({url})' if url else m[0]

    def _target(self, m):
        file = m['file']
        if not file or re.match(r'(?i)[a-z]+:|/', file): return m[0]
        p = Path(os.path.normpath(self.folder/file))
        if p.is_relative_to(self.nbs): new = page_name(Path(file)).as_posix()
        elif p.is_relative_to(root) and p.exists():
            kind = 'tree' if p.is_dir() else 'blob'
            new = f'{self.cfg.git_url}/{kind}/{self.cfg.branch}/{p.relative_to(root).as_posix()}'
        else: new = file
        return f'{m["to"]}{new}{m["anchor"] or ""}'

    def _line(self, line):
        "A line of prose; a heading is no link"
        if line.startswith('#'): return re.sub(r'\[(`[^`]+`)\]\([^)]*\)', r'\1', line)
        return line if line.startswith('    ') else SPANS.sub(self._span, line)

    def __call__(self, text):
        def prose(lines): return ''.join(map(self._line, TARGET.sub(self._target, ''.join(lines)).splitlines(True)))
        def change(o):
            parts = groupby(marked(o.splitlines(True)), lambda pair: pair[0])
            return ''.join((''.join if is_code else prose)([line for _,line in part]) for is_code,part in parts)
        return outside_fences(change, text)

def link_all(nb, links):
    for c in nb.cells:
        if c.cell_type=='markdown': c.source = links(c.source)
        for o in c.get('outputs', []):
            if 'text/markdown' in o.get('data', {}):
                o.data['text/markdown'] = links(demoted(''.join(o.data['text/markdown']))).splitlines(True)

def strings(o):
    "Every string in lists and dictionaries"
    if isinstance(o, str): yield o
    for v in o.values() if isinstance(o, dict) else o if isinstance(o, list) else []: yield from strings(v)

def mapped(change, o):
    if isinstance(o, str): return change(o)
    if isinstance(o, dict): return {k: mapped(change, v) for k,v in o.items()}
    return [mapped(change, v) for v in o] if isinstance(o, list) else o

def sidebar_faults(quarto, nbs):
    "Sentences on notebooks that the sidebar lacks, and on entries without a notebook"
    listed = [o for o in strings(quarto['website']['sidebar']['contents']) if re.search(r'\.(ipynb|qmd|md)$', o)]
    there = {p.relative_to(nbs).as_posix() for p in notebooks(nbs)}
    for o in sorted(there-set(listed)): yield f'{o} is not in the sidebar: add it to _quarto.yml.'
    for o in listed:
        if not (nbs/o).exists(): yield f'the sidebar names {o}, which is not there: mend _quarto.yml.'
        if listed.count(o)>1: yield f'the sidebar names {o} twice: mend _quarto.yml.'

def title_faults(nbs):
    "nbdev takes the first cell for the title and one sentence below it; what else is in it would be lost"
    for p in notebooks(nbs):
        cells_of(p)
        first = next((c for c in read_nb(p).cells if (c.source or '').strip()), None)
        first = first.source if first and first.cell_type=='markdown' else ''
        if not re.fullmatch(r'# [^\n]+(\s+> [^\n]+)?\s*', first):
            yield f'{p.relative_to(nbs)}: the first cell has to be "# title" and "> one sentence", nothing else.'

def write_pages(nbs, proc):
    "Every page into `proc`; the processed notebooks by the name of their page"
    pages = {page_name(p).relative_to(nbs): processed(p) for p in notebooks(nbs)}
    anchors = {f'{name.with_suffix(".html").as_posix()}#{o}' for name,nb in pages.items() for o in nb.anchors_}
    for name,nb in pages.items():
        links = Links(Path(nb.path_), nbs, anchors)
        link_all(nb, links)
        nb.bare_ = links.bare
        (proc/name).parent.mkdir(parents=True, exist_ok=True)
        write_nb(nb, proc/name)
    return pages

def copy_beside(nbs, proc):
    "What stands beside the notebooks, and the pages of the repository's root"
    files = [p for p in nbs.rglob('*') if p.suffix in COPIED or p.name=='README.md']
    for p in files:
        name = p.relative_to(nbs)
        if any(o.startswith('.') for o in name.parts) or name.name=='_quarto.yml': continue
        to = proc/page_name(name)
        to.parent.mkdir(parents=True, exist_ok=True)
        if p.suffix in ('.qmd', '.md'): to.write_text(Links(p, nbs, set())(p.read_text('utf-8')), 'utf-8')
        else: shutil.copy(p, to)
    for o in ALSO:
        if not (root/o).exists(): continue
        (proc/o.lower()).write_text(Links(root/o, root, set())((root/o).read_text('utf-8')), 'utf-8')

# The whole site

def render(tool, proc):
    quiet = [Path(sys.executable).parent/'smalldocs', 'render', '.', '--quiet']
    subprocess.run(quiet if tool=='smalldocs' else ['quarto', 'render', '--no-execute'], cwd=proc, check=True)

def index_for_models(quarto, pages, cfg, base, ext):
    "llms.txt: the pages by section, each with its sentence"
    lines = [f'# {cfg.title}', f'\n> {cfg.description}']
    for section in quarto['website']['sidebar']['contents']:
        lines.append(f'\n## {section.get("section") or section.get("text")}\n')
        for o in strings(section):
            name = page_name(Path(o))
            if name not in pages: continue
            front = pages[name].frontmatter_
            lines.append(f'- [{front["title"]}]({base}{name.with_suffix(ext)}): {front.get("description", "")}')
    return '\n'.join(lines)+'\n'

def shows_a_bar(cell): return any('█' in str(o.get('text', '')) for o in cell.get('outputs', []))

def report(pages):
    "What should be mended and is no reason to fail: notebooks named without a link, names without a docstring, bars"
    for name,nb in pages.items():
        if any(map(shows_a_bar, nb.cells)): print(f'{name}: an output shows a progress bar that moved.')
        for o in dict.fromkeys(nb.bare_):
            print(f'{name}: `{o}` is a notebook too: if you mean that, write a link with words.')
        if nb.undocumented_: print(f'{name}: without a docstring: {", ".join(nb.undocumented_)}.')

def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--with', dest='tool', choices=('smalldocs','quarto'), default='smalldocs')
    tool,cfg = parser.parse_args().tool,get_config()
    nbs,proc = cfg.nbs_path,root/'_proc'
    quarto = yaml.safe_load((root/'_quarto.yml').read_text('utf-8'))
    faults = [*sidebar_faults(quarto, nbs), *title_faults(nbs)]
    if faults: sys.exit('\n'.join(faults))
    shutil.rmtree(proc, ignore_errors=True)
    proc.mkdir()
    refresh_quarto_yml()
    copy_beside(nbs, proc)
    pages = write_pages(nbs, proc)
    to_pages = mapped(lambda o: page_name(Path(o)).as_posix() if re.search(r'\.(ipynb|md)$', o) else o, quarto)
    (proc/'_quarto.yml').write_text(yaml.dump(to_pages, sort_keys=False, allow_unicode=True), 'utf-8')
    render(tool, proc)
    shutil.rmtree(cfg.doc_path, ignore_errors=True)
    shutil.move(proc/cfg.doc_path.name, cfg.doc_path)
    base = f'{cfg.doc_host}{cfg.doc_baseurl}/'
    ext = '.llms.md' if tool=='smalldocs' else '.html.md'
    (cfg.doc_path/'llms.txt').write_text(index_for_models(quarto, pages, cfg, base, ext), 'utf-8')
    (cfg.doc_path/'robots.txt').write_text(f'User-agent: *\nAllow: /\nSitemap: {base}sitemap.xml\n', 'utf-8')
    report(pages)

if __name__=='__main__': main()

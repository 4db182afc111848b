"""Write README.md from nbs/index.ipynb: its text, its code, and what the code printed. The pictures that it drew become
files under nbs/images/index/."""
import base64, re, sys
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from check_reading import cells_of

NOTE = '<!-- Written by `make readme` from nbs/index.ipynb; edit the notebook. -->'
OPTION = re.compile(r'^#\s*\|\s*(.*)$')
HIDDEN = re.compile(r'hide\s*$|default_exp\b|include:\s*false')
COLOUR = re.compile(r'\x1b\[[\d;]*m')
ENDINGS = {'image/png': 'png', 'image/jpeg': 'jpg'}
CALLOUT = re.compile(r'^::: \{\.callout-(\w+)([^}\n]*)\}\n+(.*?)\n+:::$', re.M|re.S)
TITLE = re.compile(r"""title=(["'])(.*?)\1""")
LINK = re.compile(r'\]\(([^)\s]+)\)')
PICTURES = 'images/index'

class TableReader(HTMLParser):
    "The rows of an html table, each a list of texts; `n_head` of them are the header"
    def __init__(self):
        super().__init__()
        self.rows,self.n_head,self.span = [],0,0 # columns of the cell that we are in, 0 between cells

    def handle_starttag(self, tag, attrs):
        if tag=='br': self.handle_data(' ')
        if tag=='tr': self.rows.append([])
        if tag in ('td','th'):
            self.span = int(dict(attrs).get('colspan', 1))
            self.rows[-1] += ['']*self.span

    def handle_endtag(self, tag):
        if tag=='thead': self.n_head = len(self.rows)
        if tag in ('td','th'): self.span = 0

    def handle_data(self, data):
        for i in range(1, self.span+1): self.rows[-1][-i] += data

def as_cell(text:str)->str:
    "`text` on one line of a table in markdown, where no tag comes alive"
    return escape(' '.join(text.split()), quote=False).replace('\\', r'\\').replace('|', r'\|')

def as_markdown(html:str)->str:
    "The html table of a DataFrame as a table in markdown"
    reader = TableReader()
    reader.feed(html)
    rows = [list(map(as_cell, row)) for row in reader.rows]
    heads,body = rows[:reader.n_head],rows[reader.n_head:]
    head = [' '.join(filter(None, o)) for o in zip(*heads)]
    lines = [head, ['---']*len(head), *body]
    return '\n'.join(f"| {' | '.join(o)} |" for o in lines)

def option_lines(cell)->list:
    found = map(OPTION.match, ''.join(cell['source']).splitlines())
    return [m[1].strip() for m in found if m]

def options(cell)->dict:
    "The `#|` lines of a code cell: {'echo': 'false', 'hide': ''}"
    pairs = [l.partition(':') for l in option_lines(cell)]
    return {k.strip(): v.strip().strip('"') for k,_,v in pairs}

def is_hidden(cell)->bool: return any(map(HIDDEN.match, option_lines(cell)))

def drawn(cells)->list:
    "`(cell, output, name of its file)` of every picture that a cell shows, in order"
    found = []
    for c in cells:
        if c['cell_type']!='code' or is_hidden(c): continue
        for o in c['outputs']:
            kind = next((k for k in ENDINGS if k in o.get('data', {})), None)
            if kind: found.append((c, o, f'{len(found)+1:02d}.{ENDINGS[kind]}'))
    return found

def pictures(index)->dict:
    "{file name: bytes} of every picture that the notebook shows"
    cells = cells_of(Path(index))
    found = {}
    for _,output,name in drawn(cells):
        kind = next(k for k in ENDINGS if k in output['data'])
        found[name] = base64.b64decode(''.join(output['data'][kind]))
    return found

def as_seen(text:str)->str:
    "What a terminal shows of `text`: a carriage return begins the line anew, and an empty progress bar is nothing"
    lines = []
    for line in COLOUR.sub('', text).split('\n'):
        seen = ''
        for part in line.split('\r'): seen = part+seen[len(part):]
        lines.append(seen.rstrip())
    seen = '\n'.join(lines).rstrip()
    return '' if seen.strip()=='█' else seen

def fenced(text:str, language:str='')->str:
    "`text` as a block of code, its fence longer than any in it"
    fence = '`'*max([3, *(len(o)+1 for o in re.findall('`{3,}', text))])
    return f'{fence}{language}\n{text}\n{fence}'

def printed(cell, names)->list:
    "What a code cell shows: pictures as links, tables as markdown, all other text in a fenced block"
    shown = []
    for o in cell['outputs']:
        if o.get('name')=='stderr': continue # a warning of somebody's library
        data = o.get('data', {})
        text = as_seen(''.join(o.get('text', data.get('text/plain', ''))))
        if id(o) in names:
            alt = options(cell).get('fig-alt')
            if not alt: raise ValueError(f"A picture of the index has no `#| fig-alt`:\n{''.join(cell['source'])}")
            alt = re.sub(r'([\[\]])', r'\\\1', alt)
            shown.append(f'![{alt}]({PICTURES}/{names[id(o)]})')
        elif 'text/markdown' in data: shown.append(''.join(data['text/markdown']).strip())
        elif '<table' in ''.join(data.get('text/html', '')): shown.append(as_markdown(''.join(data['text/html'])))
        elif text: shown.append(fenced(text))
    return shown

def as_note(match)->str:
    "A call-out of Quarto as GitHub's"
    kind,about,text = match.groups()
    title = TITLE.search(about)
    kind = kind.upper() if kind in ('note','tip','warning','important','caution') else 'NOTE'
    text = f'**{title[2]}.** {text}' if title else text
    return '\n'.join(f'> {l}'.rstrip() for l in [f'[!{kind}]', *text.splitlines()])

def blocks(cells):
    "The parts of the README, in order"
    names = {id(o): name for _,o,name in drawn(cells)}
    for c in cells:
        source = ''.join(c['source']).strip()
        if not source: continue
        if c['cell_type']=='markdown': yield CALLOUT.sub(as_note, source)
        elif c['cell_type']=='code' and not is_hidden(c):
            lines = [l for l in source.splitlines() if not OPTION.match(l)]
            code = fenced('\n'.join(lines).strip(), 'python')
            how = options(c)
            if how.get('code-fold')=='true':
                yield f"<details>\n<summary>{how.get('code-summary', 'Code')}</summary>\n\n{code}\n\n</details>"
            elif how.get('echo')!='false': yield code
            if how.get('output')!='false': yield from printed(c, names)

def readme(index)->str:
    "The text of README.md; links are those of the notebook, seen from the folder above"
    cells = cells_of(Path(index))
    text = '\n\n'.join([NOTE, *blocks(cells)])
    beside = {'images', *(o.name for o in Path(index).parent.iterdir())}
    beside = '|'.join(map(re.escape, sorted(beside)))
    return re.sub(rf'\]\((?=({beside})[/)#])', '](nbs/', text) + '\n'

def out_of_step(root)->list:
    "README.md and the files of its pictures that are not what nbs/index.ipynb says, as paths below `root`"
    index,folder = Path(root)/'nbs'/'index.ipynb',Path(root)/'nbs'/PICTURES
    wanted = pictures(index)
    there = {p.name: p.read_bytes() for p in folder.iterdir()} if folder.is_dir() else {}
    bad = [f'nbs/{PICTURES}/{k}' for k in sorted({*wanted, *there}) if wanted.get(k)!=there.get(k)]
    file = Path(root)/'README.md'
    is_ours = file.is_file() and file.read_text('utf-8')==readme(index)
    return bad if is_ours else ['README.md', *bad]

def write(root):
    "Write README.md and its pictures, and delete pictures that it no longer shows"
    index,folder = Path(root)/'nbs'/'index.ipynb',Path(root)/'nbs'/PICTURES
    text,wanted = readme(index),pictures(index)
    folder.mkdir(parents=True, exist_ok=True)
    for p in folder.iterdir():
        if p.name not in wanted: p.unlink()
    for name,data in wanted.items(): (folder/name).write_bytes(data)
    (Path(root)/'README.md').write_text(text, 'utf-8')

if __name__=='__main__':
    root = Path(__file__).resolve().parent.parent
    write(root)
    if bad := out_of_step(root): sys.exit(f'not in step: {bad}')

"Write README.md from nbs/index.ipynb: its text, its code, and what the code printed. Pictures stay links to files."
import json, re
from pathlib import Path

HIDDEN = ('#| hide', '#|hide', '#| default_exp')

def printed(cell):
    "The plain text that a code cell shows, as a fenced block; tables given as markdown stay markdown"
    out = []
    for o in cell.get('outputs', []):
        data = o.get('data', {})
        if 'text/markdown' in data: out.append(''.join(data['text/markdown']))
        elif any(k.startswith('image/') for k in data): continue
        else:
            text = ''.join(o.get('text', data.get('text/plain', ''))).rstrip()
            if text: out.append(f'```\n{text}\n```')
    return out

def blocks(cells):
    for c in cells:
        src = ''.join(c['source']).strip()
        if not src or src.startswith(HIDDEN): continue
        if c['cell_type']=='markdown': yield src
        elif c['cell_type']=='code':
            shown = '\n'.join(l for l in src.splitlines() if not l.startswith('#|'))
            if not src.startswith('#| echo: false'): yield f'```python\n{shown}\n```'
            yield from printed(c)

def readme(index)->str:
    cells = json.loads(Path(index).read_text())['cells']
    note = '<!-- Written by `make readme` from nbs/index.ipynb; edit the notebook. -->'
    text = '\n\n'.join([note, *blocks(cells)])
    beside = '|'.join(re.escape(o.name) for o in Path(index).parent.iterdir())
    return re.sub(rf'\]\((?=({beside})[/)])', '](nbs/', text) + '\n'

if __name__=='__main__':
    root = Path(__file__).resolve().parent.parent
    (root/'README.md').write_text(readme(root/'nbs'/'index.ipynb'))

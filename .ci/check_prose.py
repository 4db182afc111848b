"""Fail if a notebook's prose is not one person explaining to another, or a picture has no words beside it.

Figures are a floor, not the aim: read the page aloud.
"""
import re, sys
from check_reading import cells_of, notebooks, root

PEOPLE,SEMICOLONS,CHOICE = 150,6,60 # at least, per 10,000 words; at most, per 100 sentences; words of an "Our choice"
WE = re.compile(r"\b(we|us|our|you|your|let's|we'll|we've|you'll|you've|you're|we're)\b", re.I)
NOT_PROSE = re.compile(r'```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$', re.S)
OUR_CHOICE = re.compile(r'^:::+ *\{\.callout-\w+[^}]*title=["\']Our choice[^}]*\}\n(.*?)^:::+\s*$', re.M|re.S)
ALT = re.compile(r'^#\s*\|\s*fig-alt:\s*["\']?[^\s"\']', re.M)

def words_of(text): return re.findall(r"[A-Za-z][\w'’-]*", text)

def voice(text):
    "(we, us, you ... per 10,000 words; semicolons per 100 sentences)"
    text = NOT_PROSE.sub(' ', text)
    n_words,n_sentences = max(1, len(words_of(text))),max(1, len(re.findall(r'[.!?:](\s|$)', text)))
    return 10_000*len(WE.findall(text))/n_words,100*text.count(';')/n_sentences

def divisions(text):
    "Is every `:::` that opens closed?"
    fences = re.findall(r'^:::+[^\S\n]*(\S?)', NOT_PROSE.sub(' ', text), re.M)
    depth = 0
    for o in fences:
        depth += 1 if o else -1
        if depth<0: return False
    return depth==0

def unspoken(cells):
    "Code cells that show a picture without saying in words what is on it"
    for i,c in enumerate(cells):
        kinds = {k for o in c.get('outputs', []) for k in o.get('data', {})}
        if any(k.startswith('image/') for k in kinds) and not ALT.search(''.join(c['source'])): yield i

def faults_of(path):
    where,cells = path.relative_to(root),cells_of(path)
    prose = [''.join(c['source']) for c in cells if c['cell_type']=='markdown']
    people,semicolons = voice('\n'.join(prose))
    if round(people)<PEOPLE: yield f'{where}: {people:.0f} times "we" or "you" in 10,000 words; {PEOPLE} are the least.'
    if round(semicolons)>SEMICOLONS:
        yield f'{where}: {semicolons:.0f} semicolons in 100 sentences; {SEMICOLONS} are the most.'
    for i,c in enumerate(cells):
        if c['cell_type']!='markdown': continue
        text = ''.join(c['source'])
        if not divisions(text): yield f'{where}, cell {i}: a `:::` is opened and not closed, or closed and not opened.'
        if re.search(r'^>.*our choice', text, re.M|re.I):
            yield f'{where}, cell {i}: "Our choice" is a call-out, not a quotation.'
        for choice in OUR_CHOICE.findall(text):
            n = len(words_of(choice))
            if n>CHOICE: yield f'{where}, cell {i}: an "Our choice" of {n} words; {CHOICE} are the most.'
    for i in unspoken(cells): yield f'{where}, cell {i}: a picture without `#| fig-alt: "..."`.'

def main():
    faults = [o for p in notebooks() for o in faults_of(p)]
    print(*faults, sep='\n')
    if faults: sys.exit(f'{len(faults)} places do not speak to the reader.')
    print('The pages speak to their reader, and pictures have words.')

if __name__=='__main__': main()

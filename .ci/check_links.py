"""Fail if the built site has a dead link, a dead anchor, or more pictures without words than allowed.

Links to the address that the site is published at count as its own. Pages of other sites are not fetched.
"""
import posixpath, sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

HOST = 'https://portrait-nb.github.io/portrait_nb/'
ALT_REQUIRED = True # a picture without alt text fails the check
LINKS = {'a': 'href', 'img': 'src', 'link': 'href', 'script': 'src'}
CARDS = ('og:image', 'twitter:image')
TOP = {'', 'top'}           # anchors that every page has

class Page(HTMLParser):
    "The anchors, links and pictures of a page"
    def __init__(self, text):
        super().__init__()
        self.anchors,self.links,self.n_pictures,self.mute = set(TOP),[],0,0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.anchors |= {a[o] for o in ('id','name') if a.get(o)}
        url = a.get(LINKS.get(tag, ''))
        if tag=='meta' and CARDS.count(a.get('property', a.get('name'))): url = a.get('content')
        if tag=='link' and a.get('rel')=='canonical': url = None
        if url: self.links.append(url)
        if tag=='img':
            self.n_pictures += 1
            self.mute += not (a.get('alt') or '').strip()

def own_path(url, host=HOST):
    "The path of a link within the site, with a slash before it; a relative one as it is; None if it leads elsewhere"
    here,parts = urlparse(host),urlparse(url)
    if parts.scheme not in ('','http','https') or parts.netloc.lower() not in ('',here.netloc): return
    path = parts._replace(scheme='', netloc='').geturl()
    if path.startswith(here.path): return '/'+path.removeprefix(here.path)
    if parts.netloc: return
    if path.startswith('/'): raise ValueError(f'{url} is not below {here.path}')
    return url

def target(page, url, root):
    "(file, anchor) that a link of a page leads to, or None if it leaves the site"
    own = own_path(url)
    if own is None: return
    parts = urlparse(own)
    path,folder = unquote(parts.path),posixpath.dirname(page)
    if not path: file = page
    elif path.startswith('/'): file = posixpath.normpath(path.lstrip('/') or '.')
    else: file = posixpath.normpath(posixpath.join(folder, path))
    if (root/file).is_dir(): file = posixpath.normpath(posixpath.join(file, 'index.html'))
    return file,unquote(parts.fragment)

def read_pages(root):
    found = [p for p in sorted(root.rglob('*.html')) if 'site_libs' not in p.parts]
    return {p.relative_to(root).as_posix(): Page(p.read_text('utf-8')) for p in found}

def dead_links(pages, root):
    for name,page in pages.items():
        for url in dict.fromkeys(page.links):
            try: found = target(name, url, root)
            except ValueError: found = None,None # no address, or none below the site
            if not found: continue
            file,anchor = found
            if file is None or not (root/file).exists(): yield f'{name}: no page or file {url}'
            elif file in pages and anchor not in pages[file].anchors: yield f'{name}: no anchor {url}'

def main(folder='_docs'):
    root = Path(folder)
    pages = read_pages(root)
    if not pages: sys.exit(f'{folder} has no pages: build them with make docs.')
    faults = list(dead_links(pages, root))
    mute = {name: page.mute for name,page in pages.items() if page.mute}
    for name,n in mute.items(): print(f'{name}: {n} of {pages[name].n_pictures} pictures have no alt text.')
    print(*faults, sep='\n')
    n_mute = sum(mute.values())
    if faults or mute and ALT_REQUIRED: sys.exit(f'{len(faults)} dead links, {n_mute} pictures without alt text.')
    print(f'{len(pages)} pages: every link and anchor of the site leads somewhere.')

if __name__=='__main__': main(*sys.argv[1:])

"""`make pdf`: the pages of the site, except the reference, as one PDF, printed by the browser that the tests use."""

import functools
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bs4 import BeautifulSoup, Tag

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TITLE = "AlignedReID, explained and reproduced"
BOOK = "book.html"  # what is printed, in site/ for as long as that takes
PDF = "build/alignedreid.pdf"
PATIENCE = 600_000  # ms; several hundred equations are typeset
# What a page has just for the screen: controls, scripts, and the code of cells that are folded away.
SCREEN_ONLY = "script, a.headerlink, .downloads, .start, .sliding label, details.above-input, .prev-next-footer"
STYLE = """
@page { size: A4; margin: 18mm 17mm 20mm; }
html { font-size: 10pt; }
body { background: #fff; color: #000; }
article { max-width: none; padding: 0; }
section.page { break-before: page; }
h1, h2, h3, h4 { break-after: avoid; }
figure, tr, img, div.math, .touch, .admonition { break-inside: avoid; }
thead { display: table-header-group; }
summary { break-after: avoid; }
figure img, .cell_output img, .touch > img { max-width: 100%; max-height: 200mm; }
article pre { white-space: pre-wrap; font-size: 8pt; background: #f5f5f5 !important; overflow: visible; }
article pre, div.highlight, .cell_input, .cell_output:not(:has(table)) { break-inside: avoid; }
article table { display: table; font-size: 8pt; background: none; overflow: visible; }
div.math mjx-container { background: none !important; overflow: visible !important; }
mjx-container g[stroke-width="0"] { stroke: none; }  /* PDF viewers draw lines of no width one pixel wide */
mjx-container :is(line, [data-line]) { stroke: currentColor; }
a { color: #0b3d91; text-decoration: none; }
summary { list-style: none; font-weight: 600; }
.contents li { list-style: none; }
"""
FOOT = '<div style="width: 100%; font: 8pt sans-serif; text-align: center"><span class="pageNumber"></span></div>'


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, *args: object) -> None:
        """Nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serves a folder on a free port of this machine alone; the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def chromium() -> str:
    """The browser's file.

    Raises:
        ValueError: there is none.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not path:
        raise ValueError("no Chromium on this machine: `make test` installs it; CHROMIUM=/path/to/chrome names one")
    return path


def pages(site: Path) -> list[str]:
    """The pages in the order of the site's menu, the front page first, without the reference."""
    menu = BeautifulSoup((site / "index.html").read_text("utf-8"), "html.parser").select("nav.bd-links a.internal")
    names = dict.fromkeys(str(link["href"]).partition("#")[0] for link in menu)
    return ["index.html", *(name for name in names if name.endswith(".html") and not name.startswith("reference"))]


def together(site: Path) -> str:
    """One page of HTML with the content of all; links between pages lead to places in it.

    Raises:
        ValueError: a page has no content.
    """
    names = pages(site)
    parts, contents = [], []
    for name in names:
        page = BeautifulSoup((site / name).read_text("utf-8"), "html.parser")
        article = page.select_one("article.bd-article")
        if article is None or article.h1 is None:
            raise ValueError(f"site/{name} has no article with a title: make site")
        for node in article.select(SCREEN_ONLY):
            node.decompose()
        for details in article.select("details"):
            details["open"] = ""  # solutions
        for node in article.select("[id]"):
            node["id"] = place(name, str(node["id"]))
        for node in article.select("svg *"):
            rename_parts(node, name)
        for link in article.select("a[href]"):
            relink(link, name, names)
        contents.append(f'<li><a href="#{place(name)}">{article.h1.get_text()}</a></li>')
        parts.append(f'<section class="page" id="{place(name)}">{article.decode_contents()}</section>')
    first = BeautifulSoup((site / names[1]).read_text("utf-8"), "html.parser")
    styles = "".join(map(str, first.select("link[rel=stylesheet]")))
    scripts = "".join(str(script) for script in first.select("script") if re.search("MathJax|tex-svg", str(script)))
    contents.pop(0)
    parts.insert(1, f'<section class="page contents"><h1>Contents</h1><ul>{"".join(contents)}</ul></section>')
    return (
        '<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8">'
        f"<title>{TITLE}</title>{styles}<style>{STYLE}</style>{scripts}</head>"
        f'<body><article class="bd-article bd-content">{"".join(parts)}</article></body></html>'
    )


def place(name: str, within: str = "") -> str:
    """The id in the whole book of an id in a page, or of the page."""
    return f"{name.removesuffix('.html')}--{within}"


def rename_parts(node: Tag, name: str) -> None:
    """Lets a drawing's references to its own parts (markers, what clips a line) follow the parts' new ids."""
    for key, value in node.attrs.items():
        if key in ("href", "xlink:href") and str(value).startswith("#"):
            node[key] = f"#{place(name, str(value)[1:])}"
        elif "url(#" in str(value):
            node[key] = re.sub(r"url\(#([^)]+)\)", lambda part: f"url(#{place(name, part[1])})", str(value))


def relink(link: Tag, name: str, names: list[str]) -> None:
    """Turns a link to a page of the book into one to its place in the whole; one to other pages becomes plain text."""
    target, _, within = str(link["href"]).partition("#")
    if ":" in target:
        return
    page = os.path.normpath(os.path.join(os.path.dirname(name), target)) if target else name
    if page in names:
        link["href"] = f"#{place(page, within)}"
    else:
        del link["href"]


def run(root: Path) -> None:
    """Prints the built site into `build/alignedreid.pdf`.

    Raises:
        ValueError: the site is not built, or there is no browser, or equations are not typeset.
    """
    from playwright.sync_api import sync_playwright  # slow, and the other commands need it not

    site = root / "site"
    if not (site / "index.html").exists():
        raise ValueError("no site/index.html: make site")
    browser_file = chromium()
    whole = site / BOOK
    whole.write_text(together(site), "utf-8")
    try:
        with served(site) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=browser_file, args=FLAGS, timeout=PATIENCE)
            page = browser.new_page()
            page.set_default_timeout(PATIENCE)
            page.set_viewport_size({"width": 670, "height": 1000})  # the width between the margins of the paper
            page.emulate_media(media="print", reduced_motion="reduce")
            page.goto(f"{address}/{BOOK}", wait_until="load")
            page.evaluate("async () => { if (window.MathJax && MathJax.startup) await MathJax.startup.promise; }")
            if left := page.locator(".math:not(:has(mjx-container))").count():
                raise ValueError(f"{left} equations of site/{BOOK} were not typeset: make site, then make pdf")
            beside = root / f"{PDF}.tmp"
            beside.parent.mkdir(exist_ok=True)
            page.pdf(
                path=beside,
                prefer_css_page_size=True,
                print_background=True,
                display_header_footer=True,
                header_template="<i></i>",
                footer_template=FOOT,
                outline=True,
                tagged=True,
            )
            browser.close()
            os.replace(beside, root / PDF)
    finally:
        whole.unlink()
    size = (root / PDF).stat().st_size
    print(f"{PDF}, {size / 1e6:.1f} MB", file=sys.stderr)

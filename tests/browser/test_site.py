"""The site, read by a real browser: every page of `site/`, served from this machine alone."""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from browsing import PATIENCE, PHONE, SITE, WIDE, serve
from PIL import Image
from playwright.sync_api import Browser, Page

PAGES = sorted(str(p.relative_to(SITE)) for p in SITE.rglob("*.html") if "_static" not in p.parts)

# What is wrong with a page that has been loaded, a sentence each.
LOOK = """async () => {
  const found = [], article = document.querySelector('article') || document.body;
  for (const image of document.images) {
    image.loading = 'eager';
    await image.decode().catch(() => {});
    const name = image.getAttribute('src').slice(0, 60);
    const moved = image.matches('.touch.on > img');  // hidden: a figure that its reader moves stands in its place
    if (!image.naturalWidth || !(image.clientWidth || moved)) found.push(`picture without size: ${name}`);
    if (!(image.alt || '').trim()) found.push(`picture without words: ${name}`);
  }
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  for (const formula of document.querySelectorAll('.math'))
    if (!formula.querySelector('mjx-container svg'))
      found.push(`mathematics not typeset: ${formula.textContent.slice(0, 60)}`);
  for (const error of document.querySelectorAll('[data-mml-node="merror"]'))
    found.push(`mathematics with an error: ${error.textContent.slice(0, 60)}`);
  const prose = article.cloneNode(true);
  prose.querySelectorAll('pre, code, script, .math').forEach(node => node.remove());
  const raw = prose.textContent.match(/(\\$\\$|\\\\\\(|\\\\\\[|\\\\begin\\{).{0,40}/);
  if (raw) found.push(`mathematics left as text: ${raw[0]}`);
  return found;
}"""


def look(page: Page, address: str, name: str) -> list[str]:
    """Visits a page, on a wide screen and on a phone; returns what is wrong with it."""
    found: list[str] = []
    page.set_default_timeout(PATIENCE)
    page.on("console", lambda message: message.type == "error" and found.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: found.append(f"script: {error}"))
    page.on("requestfailed", lambda request: found.append(f"request failed: {request.url}"))
    page.on("response", lambda r: r.status >= 400 and found.append(f"answer {r.status}: {r.url}"))
    local = (f"{address}/", "data:", "blob:")
    page.on("request", lambda r: r.url.startswith(local) or found.append(f"request outside: {r.url}"))
    page.goto(f"{address}/{name}", wait_until="load")
    found += page.evaluate(LOOK)
    page.set_viewport_size(PHONE)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    found += page.evaluate(WIDE)
    return found


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()


def test_site_is_built() -> None:
    assert "index.html" in PAGES, "no site/index.html: make site"
    assert any(name.startswith("00_") for name in PAGES), "the site has no chapters"


@pytest.mark.parametrize("name", PAGES)
def test_page(page: Page, site: str, name: str) -> None:
    assert look(page, site, name) == []


def broken_links(folder: Path) -> list[str]:
    """Links between the pages of a folder that lead to no file, or to no place in it."""
    pages = {path: path.read_text() for path in folder.rglob("*.html") if "_static" not in path.parts}
    places = {path: set(re.findall(r'\b(?:id|name)="([^"]+)"', text)) for path, text in pages.items()}
    found = []
    for path, text in pages.items():
        for link in re.findall(r'<a\b[^>]*?\bhref="([^"]+)"', text):
            target, _, place = html.unescape(link).partition("#")
            if re.match(r"[a-z]+:", target):
                continue  # to somewhere else
            file = (path.parent / unquote(target)).resolve() if target else path
            if file.is_dir():
                file /= "index.html"
            if not file.exists() or (place and file in places and unquote(place) not in places[file]):
                found.append(f"{path.name}: {link}")
    return found


def test_no_link_is_broken() -> None:
    assert broken_links(SITE) == []


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="b.html#there">x</a><a href="#here">y</a><p id="here"><a href="https://x.y">'
    )
    (tmp_path / "b.html").write_text('<p id="there"><a class="z" href="c.html">x</a><a href="a.html#gone">y</a>')
    assert broken_links(tmp_path) == ["b.html: c.html", "b.html: a.html#gone"]


def test_chapters_papers_and_the_library_lead_to_each_other(page: Page, site: str) -> None:
    """From a chapter to a function and back, and to a paper and back, by the links of the pages."""
    page.goto(f"{site}/05_losses.html")
    page.click("article a[href*='reference.html#alignedreid_lib.losses.global_triplet']")
    page.wait_for_url(re.compile(r"/reference\.html#alignedreid_lib\.losses\.global_triplet$"))
    described = page.locator("dl:has(> dt[id='alignedreid_lib.losses.global_triplet'])")
    described.locator("a[href^='05_losses.html']").first.click()
    page.wait_for_url(re.compile(r"/05_losses\.html"))
    page.click("article a[href='bibliography.html#hermans2017']")
    page.wait_for_url(re.compile(r"/bibliography\.html#hermans2017$"))
    page.click("#hermans2017 a[href='05_losses.html'], #hermans2017 ~ p a[href='05_losses.html']")
    page.wait_for_url(re.compile(r"/05_losses\.html$"))


def test_the_site_is_small() -> None:
    assert sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file()) < 30e6


FAULTS = {
    "console:": "<script>console.error('oh')</script>",
    "script:": "<script>nothing.here()</script>",
    "answer 404": "<link rel='stylesheet' href='absent.css'>",
    "request outside": "<script async src='http://localhost:9/x.js'></script>",
    "request failed": "<script async src='http://127.0.0.1:9/x.js'></script>",
    "picture without size": "<img alt='a street' src='broken.png'>",
    "picture without words": "<img src='dot.png'>",
    "mathematics not typeset": "<span class='math'>\\(x\\)</span>",
    "mathematics left as text": "<p>an equation $$x^2$$</p>",
    "mathematics with an error": "<i data-mml-node='merror'>Undefined control sequence</i>",
    "scrolls sideways": "<div style='width: 900px'>wide</div>",
}


def test_every_fault_is_seen(browser: Browser, tmp_path: Path) -> None:
    """A page without faults is passed; each fault of one that has them all is reported: the checks can fail."""
    Image.new("RGB", (8, 8)).save(tmp_path / "dot.png")
    head = "<!doctype html><meta name='viewport' content='width=device-width'><link rel='icon' href='data:,'>"
    (tmp_path / "good.html").write_text(f"{head}<article><img alt='a dot' src='dot.png'></article>")
    (tmp_path / "bad.html").write_text(f"{head}<article>{''.join(FAULTS.values())}</article>")
    for address in serve(tmp_path):
        assert look(browser.new_page(), address, "good.html") == []
        found = look(browser.new_page(), address, "bad.html")
    assert [name for name in FAULTS if not any(sentence.startswith(name) for sentence in found)] == []

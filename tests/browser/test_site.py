"""The site, read by a real browser: every page of `site/`, served from this machine alone."""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
import sliding
from browsing import PATIENCE, PHONE, SITE, WIDE, serve
from PIL import Image
from playwright.sync_api import Browser, Page

NOTEBOOKS = SITE.parent / "notebooks"
PAGES = sorted(str(p.relative_to(SITE)) for p in SITE.rglob("*.html") if "_static" not in p.parts)

# What is wrong with a page that was loaded on a phone, a sentence each.
LOOK = """async () => {
  const found = [], article = document.querySelector('article') || document.body;
  for (const image of document.images) {
    image.loading = 'eager';
    await image.decode().catch(() => {});
    const name = image.getAttribute('src').slice(0, 60);
    const moved = image.matches('.touch.on > img');  // hidden: a figure that its reader moves stands in its place
    const folded = image.closest('details:not([open])');
    if (!image.naturalWidth || !(image.clientWidth || moved || folded)) found.push(`picture without size: ${name}`);
    if (!(image.alt || '').trim()) found.push(`picture without words: ${name}`);
  }
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  for (const formula of document.querySelectorAll('.math'))
    if (!formula.querySelector('mjx-container svg'))
      found.push(`mathematics not typeset: ${formula.textContent.slice(0, 60)}`);
  for (const error of document.querySelectorAll('[data-mml-node="merror"]'))
    found.push(`mathematics with an error: ${error.textContent.slice(0, 60)}`);
  const prose = article.cloneNode(true);
  prose.querySelectorAll('pre, code, script, style, .math').forEach(node => node.remove());
  const raw = prose.textContent.match(/(\\$\\$|\\\\\\(|\\\\\\[|\\\\begin\\{).{0,40}/);
  if (raw) found.push(`mathematics left as text: ${raw[0]}`);
  const words = [prose.textContent, ...[...article.querySelectorAll('[alt], [aria-label]')]
    .map(node => node.getAttribute('alt') || node.getAttribute('aria-label'))];
  for (const text of words.map(text => text.match(/.{0,30}[^.]\\.\\.(?![.\\/])/)).filter(Boolean))
    found.push(`two full stops: ${text[0]}`);
  return found;
}"""
# What is cut off, or where it cannot be seen that more follows.
CUT = """() => {
  const found = [], edge = document.documentElement.clientWidth;
  const drawn = [...document.querySelectorAll('article mjx-container[display=true], div.math > svg, article table')];
  for (const node of drawn.filter(node => node.getClientRects().length && !node.closest('.touch'))) {
    const style = getComputedStyle(node), box = node.getBoundingClientRect();
    const more = node.scrollWidth > node.clientWidth + 1;
    const what = node.matches('table') ? 'table' : 'equation', name = node.textContent.trim().slice(0, 40);
    if (box.right > edge + 1) found.push(`${what} beyond the edge: ${name}`);
    else if (more && style.overflowX !== 'auto') found.push(`${what} cut: ${name}`);
    else if (more && !style.backgroundImage.includes('gradient')) found.push(`${what} scrolls unseen: ${name}`);
  }
  for (const number of document.querySelectorAll('div.math > .eqno')) {
    const formula = number.parentElement.querySelector('mjx-container');
    if (formula && number.getBoundingClientRect().top < formula.getBoundingClientRect().bottom - 1)
      found.push(`number not below its equation: ${number.textContent}`);
  }
  return found;
}"""
# What is wrong on a screen of 1280 pixels.
SCREEN = """() => {
  const found = [], height = document.documentElement.scrollHeight;
  if (height > 30000) found.push(`page of ${height} pixels`);
  for (const code of document.querySelectorAll('.cell_input pre'))
    if (code.scrollWidth > code.clientWidth) found.push(`code scrolls sideways: ${code.textContent.slice(0, 40)}`);
  const heads = ['H1', 'H2', 'H3', 'H4'].map(name => document.querySelector(`article ${name}`)).filter(Boolean);
  const looks = heads.map(getComputedStyle).map(style => [parseFloat(style.fontSize), +style.fontWeight]);
  looks.slice(1).forEach(([size, weight], k) => {
    if (size >= looks[k][0] || weight > looks[k][1])
      found.push(`heading stronger than the one above: ${heads[k + 1].textContent}`);
  });
  return found;
}"""
# Text with too little contrast (WCAG AA: 4.5, or 3 where it is large), each pair of colours once; filtered pictures.
DIM = """theme => {
  document.documentElement.dataset.theme = theme;
  const rgb = colour => colour.match(/[\\d.]+/g).map(Number);
  const over = ([r, g, b, a = 1], below) => [r, g, b].map((v, k) => a * v + (1 - a) * below[k]);
  const light = colour => colour.map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [.2126, .7152, .0722][k], 0);
  const grounds = new Map();
  const ground = node => {
    if (!node) return [255, 255, 255];
    if (!grounds.has(node)) {
      const own = rgb(getComputedStyle(node).backgroundColor);
      grounds.set(node, own.length < 4 ? own : over(own, ground(node.parentElement)));
    }
    return grounds.get(node);
  };
  const found = new Map(), article = document.querySelector('article') || document.body;
  const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement, words = walker.currentNode.data.trim().slice(0, 30);
    if (!words || node.closest('svg, script, style, .touch, mjx-container, .headerlink, [class*=kbd]')) continue;
    const style = getComputedStyle(node);
    if (!node.getClientRects().length || style.visibility === 'hidden') continue;
    const behind = ground(node), own = over(rgb(style.color), behind);
    const [low, high] = [light(own), light(behind)].sort((a, b) => a - b), ratio = (high + .05) / (low + .05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.6 && style.fontWeight >= 700);
    const pair = `${style.color} on ${behind.map(Math.round)}`;
    if (ratio < (large ? 3 : 4.5) - .01)
      found.set(pair, `dim in ${theme} mode: ${ratio.toFixed(2)}, ${pair}: ${words}`);
  }
  for (const image of article.querySelectorAll('img'))
    if (getComputedStyle(image).filter !== 'none') { found.set('filter', `picture filtered in ${theme} mode`); break; }
  return [...found.values()];
}"""
STILL = "* { transition: none !important; animation: none !important }"
FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def look(page: Page, address: str, name: str) -> list[str]:
    """Visits a page, on a phone and on a wide screen, light and dark; returns what is wrong with it."""
    found: list[str] = []
    page.set_default_timeout(PATIENCE)
    page.on("console", lambda message: message.type == "error" and found.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: found.append(f"script: {error}"))
    page.on("requestfailed", lambda request: found.append(f"request failed: {request.url}"))
    page.on("response", lambda r: r.status >= 400 and found.append(f"answer {r.status}: {r.url}"))
    local = (f"{address}/", "data:", "blob:")
    page.on("request", lambda r: r.url.startswith(local) or found.append(f"request outside: {r.url}"))
    page.set_viewport_size(PHONE)  # first, since equations are broken into lines once
    page.goto(f"{address}/{name}", wait_until="load")
    page.add_style_tag(content=STILL)
    found += page.evaluate(LOOK)
    found += page.evaluate(CUT)
    found += page.evaluate(WIDE)
    page.set_viewport_size({"width": 1280, "height": 900})
    page.evaluate(FRAMES)
    found += page.evaluate(SCREEN)
    for theme in ("light", "dark"):
        found += page.evaluate(DIM, theme)
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
    link = page.locator("a[href*='reference/losses.html#alignedreid_lib.losses.global_triplet']")
    page.locator("article details", has=link).locator("summary").click()  # the folded list of what a chapter uses
    page.locator("article details").locator(link).click()
    page.wait_for_url(re.compile(r"/reference/losses\.html#alignedreid_lib\.losses\.global_triplet$"))
    described = page.locator("dl:has(> dt[id='alignedreid_lib.losses.global_triplet'])")
    described.locator("a[href^='../05_losses.html']").first.click()
    page.wait_for_url(re.compile(r"/05_losses\.html"))
    page.click("article a[href='bibliography.html#hermans2017']")
    page.wait_for_url(re.compile(r"/bibliography\.html#hermans2017$"))
    page.click("#hermans2017 a[href='05_losses.html'], #hermans2017 ~ p a[href='05_losses.html']")
    page.wait_for_url(re.compile(r"/05_losses\.html$"))


def test_the_dark_mode_of_the_system_is_followed(browser: Browser, site: str) -> None:
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(f"{site}/index.html")
        assert page.evaluate("() => document.documentElement.dataset.theme") == scheme
        page.close()


def test_the_focus_of_the_keyboard_is_seen(page: Page, site: str) -> None:
    """On the front page and in a chapter, for the first links, buttons and fields that Tab reaches."""
    page.set_viewport_size({"width": 1280, "height": 900})
    for name in ("index.html", "04_alignment.html"):
        page.goto(f"{site}/{name}")
        page.add_style_tag(content=STILL)
        page.evaluate("() => document.querySelector('article').setAttribute('tabindex', -1)")
        page.evaluate("() => document.querySelector('article').focus()")
        seen = set()
        for _ in range(12):
            page.keyboard.press("Tab")
            what, width, style = page.evaluate("""() => {
              const node = document.activeElement, style = getComputedStyle(node);
              const ring = node.querySelector('.ring');
              const width = ring ? getComputedStyle(ring).strokeWidth : style.outlineWidth;
              return [node.outerHTML.slice(0, 200), parseFloat(width), ring ? 'solid' : style.outlineStyle];
            }""")
            assert width >= 2 and style == "solid", what
            seen.add(what)
        assert len(seen) > 5


def test_the_box_of_the_front_page_slides_by_itself(browser: Browser, site: str) -> None:
    """One position at a time, with the numbers of chapter 04; it stops when asked, and does not move unasked."""
    data = sliding.data_of(nbformat.read(NOTEBOOKS / "04_alignment.ipynb", as_version=4))
    visible = """figure => [...figure.querySelectorAll('.frame')]
      .filter(use => getComputedStyle(use).visibility === 'visible').map(use => use.getAttribute('href'))"""
    page = browser.new_page()
    page.goto(f"{site}/index.html")
    box = page.locator(".sliding")
    for paused in (True, False):
        box.get_by_label("pause").set_checked(paused)
        states = box.evaluate("figure => figure.getAnimations({subtree: true}).map(each => each.playState)")
        assert set(states) == {"paused" if paused else "running"}
    seen = set()
    for time in range(50, 20_000, 100):  # of the animations' clock, between its steps
        box.evaluate(SET_TIME, time)
        here = box.evaluate(visible)
        assert len(here) == 2 and here[0].replace("box", "bars") == here[1], f"at {time} ms: {here}"
        seen.add(here[0])
    assert len(seen) == len(data["shifts"]), "every position is shown"
    for k, shift in enumerate(data["shifts"]):
        words = box.locator(f"#box-{k} text").text_content()
        assert words == f"box {sliding.where(shift)}"
        for name, stranger in zip(("rigid", "aligned"), data["strangers"], strict=True):
            assert box.locator(f"#bars-{k} text.{name}").text_content() == f"{data[name][k]:.2f}"
            width = float(box.locator(f"#bars-{k} rect").nth(int(name == "aligned")).get_attribute("width") or 0)
            assert width / (sliding.BAR / 1.25) == pytest.approx(data[name][k] / stranger, abs=0.01)
    page.emulate_media(reduced_motion="reduce")
    still = box.evaluate(visible)
    assert len(still) == 2 and box.evaluate("figure => figure.getAnimations({subtree: true}).length") == 0
    assert not box.get_by_label("pause").is_visible()
    page.close()


def test_a_chapter_can_be_downloaded(page: Page, site: str) -> None:
    page.goto(f"{site}/04_alignment.html")
    for suffix in (".ipynb", ".py"):
        with page.expect_download() as download:
            page.locator(".downloads a[download]", has_text=suffix).click()
        file = NOTEBOOKS / f"04_alignment{suffix}"
        assert download.value.suggested_filename == file.name
        assert Path(download.value.path()).read_bytes() == file.read_bytes()


def test_the_site_is_small() -> None:
    assert sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file()) < 30e6


# Sets the clock of all animations in a figure.
SET_TIME = """(figure, time) => {
  for (const each of figure.getAnimations({subtree: true})) { each.pause(); each.currentTime = time; }
}"""
WIDE_SVG = "<svg style='width: 900px; min-width: 900px; height: 9px'></svg>"
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
    "two full stops": "<p>A sentence..</p>",
    "equation beyond the edge": f"<div class='math'>{WIDE_SVG}</div>",
    "equation cut": f"<mjx-container display=true style='display: block; overflow: hidden'>{WIDE_SVG}</mjx-container>",
    "equation scrolls unseen": f"<mjx-container display=true style='display: block; overflow: auto'>{WIDE_SVG}"
    "</mjx-container>",
    "table beyond the edge": "<table><tr><td style='min-width: 500px'>x</table>",
    "table cut": "<table style='display: block; overflow: hidden'><tr><td style='min-width: 500px'>x</table>",
    "number not below": f"<div class=math><i class=eqno>(1)</i><mjx-container>{WIDE_SVG}</mjx-container></div>",
    "page of": "<div style='height: 30001px'></div>",
    "code scrolls": f"<div class=cell_input><pre style='overflow: auto; width: 20em'>{'x' * 90}</pre></div>",
    "heading stronger": "<h2 style='font-size: 20px'>a</h2><h3 style='font-size: 24px'>b</h3>",
    "dim in light": "<p style='color: #999'>dim</p>",
    "dim in dark": "<style>[data-theme=dark] b { color: #444; background: #111 }</style><b>dim</b>",
    "picture filtered": "<style>[data-theme=dark] img { filter: brightness(.8) }</style><img alt='a' src='dot.png'>",
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

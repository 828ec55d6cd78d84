"""What the tests in a browser share: the browser, and a server of the site on this machine alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Locator, ViewportSize, sync_playwright
from printing import FLAGS, chromium, served

SITE = Path(__file__).resolve().parents[2] / "site"
Open = Callable[..., Locator]  # opens the page of an interactive figure, see the fixture `figure`
FIGURES = {
    "slide_the_box": "04_alignment.html",
    "pull_the_points": "05_losses.html",
    "order_the_list": "08_evaluation.html",
    "choose_the_threshold": "08_evaluation.html",
    "who_knows_whom": "09_reranking.html",
}
PATIENCE = 300_000  # ms; a busy machine is no fault
PHONE: ViewportSize = {"width": 390, "height": 844}
# What reaches beyond the right edge, if the page can be scrolled sideways.
WIDE = """() => {
  const edge = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= edge) return [];
  const wide = [...document.querySelectorAll('article *')].filter(e => e.getBoundingClientRect().right > edge);
  const names = wide.slice(0, 3).map(e => `${e.tagName.toLowerCase()}.${e.className}`);
  return [`scrolls sideways at ${edge} px: ${document.documentElement.scrollWidth} px wide (${names})`];
}"""


def serve(folder: Path) -> Iterator[str]:
    """Serves a folder on a free port of this machine and yields its address."""
    with served(folder) as address:
        yield address


@contextmanager
def launched() -> Iterator[Browser]:
    """The browser, closed at the end."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS, timeout=PATIENCE)
        yield browser
        browser.close()

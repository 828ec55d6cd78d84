"""What the tests in a browser share: the browser, and a server of the site on this machine alone."""

import functools
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import Browser, Locator, ViewportSize, sync_playwright

SITE = Path(__file__).resolve().parents[2] / "site"
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


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *args: object) -> None:
        """Nothing."""


def serve(folder: Path) -> Iterator[str]:
    """Serves a folder on a free port of this machine and yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def chromium() -> str:
    """The browser's file."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    assert path, "no Chromium on this machine: `make test` installs it; CHROMIUM=/path/to/chrome names one"
    return path


@contextmanager
def launched() -> Iterator[Browser]:
    """The browser, closed at the end."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS, timeout=PATIENCE)
        yield browser
        browser.close()

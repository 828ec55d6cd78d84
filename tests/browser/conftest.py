"""The browser and the served site, for every module of tests."""

from collections.abc import Iterator
from typing import Any

import pytest
from browsing import FIGURES, PATIENCE, SITE, Open, launched, serve
from playwright.sync_api import Browser, Locator


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    yield from serve(SITE)


@pytest.fixture
def figure(browser: Browser, site: str) -> Iterator[Open]:
    """Opens a page and returns the figure in it; options are those of a browser context."""
    contexts = []

    def visit(name: str, **options: Any) -> Locator:
        contexts.append(browser.new_context(**options))
        contexts[-1].set_default_timeout(PATIENCE)
        page = contexts[-1].new_page()
        page.goto(f"{site}/{FIGURES[name]}", wait_until="load")
        return page.locator(f".touch.{name}")

    yield visit
    for context in contexts:
        context.close()

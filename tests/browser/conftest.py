"""The browser and the served site, for every module of tests."""

from collections.abc import Iterator

import pytest
from browsing import SITE, launched, serve
from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    yield from serve(SITE)

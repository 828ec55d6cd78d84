"""The chapters' pages: the figure that poses the problem, folded code, charts in the page's colours."""

import pytest
from browsing import PHONE, SITE
from playwright.sync_api import Browser

CHAPTERS = sorted(path.name for path in SITE.glob("[0-9][0-9]_*.html"))
FOLD = 900  # px from the top of the page

# The lower edge of the first figure, without its caption; what of it is not in the page's colours.
LOOK = """() => {
  const found = {}, figure = document.querySelector('article figure img, article figure svg, article .touch');
  found.bottom = figure ? Math.round(figure.getBoundingClientRect().bottom + scrollY) : null;
  const cells = [...document.querySelectorAll('article .cell')].filter(cell =>
    cell.matches('.tag_parameters') || cell.querySelector('figure'));
  found.open = cells.filter(cell => cell.querySelector('.cell_input') && !cell.querySelector('details')
    && !cell.matches('.tag_show-input')).length;
  found.numbers = [...document.querySelectorAll('figcaption .caption-number')].map(number => number.textContent.trim());
  found.equations = [...document.querySelectorAll('.eqno')].map(number => number.firstChild.textContent.trim());
  const texts = [...document.querySelectorAll('.chart svg')].map(chart =>
    [...chart.querySelectorAll('text')].filter(text => !text.closest('.on-image'))).flat();
  found.texts = texts.length;
  const page = getComputedStyle(document.querySelector('.bd-article')).color;
  const lightness = colour => (colour.match(/[0-9.]+/g) || []).slice(0, 3).reduce((sum, part) => sum + +part, 0) / 3;
  found.dim = texts.filter(text => lightness(getComputedStyle(text).fill) < 90).map(text => text.textContent);
  found.filtered = [...document.querySelectorAll('article img')]
    .filter(image => getComputedStyle(image).filter !== 'none').length;
  const fades = chart => parseFloat(getComputedStyle(chart).getPropertyValue('--fade')) > 0;
  found.unseen = [...document.querySelectorAll('.chart')]
    .filter(chart => chart.getClientRects().length)
    .filter(chart => fades(chart) !== chart.scrollWidth > chart.clientWidth + 1).length;
  found.wide = Math.max(0, document.documentElement.scrollWidth - document.documentElement.clientWidth);
  return found;
}"""


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_problem_is_posed_above_the_fold(browser: Browser, site: str, name: str) -> None:
    """The first figure lies above it, whole; a figure's code is folded; in the dark, charts are light on dark."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="dark")
    page = context.new_page()
    page.goto(f"{site}/{name}", wait_until="load")
    page.evaluate("() => { document.documentElement.dataset.theme = 'dark'; }")
    found = page.evaluate(LOOK)
    page.set_viewport_size(PHONE)
    small = page.evaluate(LOOK)
    assert small["wide"] == 0, "a chart scrolls inside its box"
    assert small["unseen"] == 0, "a chart fades if, and only if, more of it follows"
    context.close()
    assert (found["open"], found["filtered"], found["dim"]) == (0, 0, [])
    chapter = int(name[:2])
    assert found["numbers"] == [f"Figure {chapter}.{k}" for k in range(1, len(found["numbers"]) + 1)]
    assert found["equations"] == [f"({chapter}.{k})" for k in range(1, len(found["equations"]) + 1)]
    assert found["bottom"] and found["bottom"] <= FOLD, f"{name}: its first figure ends at {found['bottom']} px"

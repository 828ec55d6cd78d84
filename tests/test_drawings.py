"""What the site does to figures and code cells: colours, numbers, folding."""

import re
from types import SimpleNamespace
from typing import Any

import cells
import drawings
import nbformat
import pytest

SVG = """<svg xmlns:xlink="x" width="360pt" height="90pt" viewBox="0 0 360 90">
<defs><style type="text/css">*{stroke-linejoin: round}</style></defs>
<path style="fill: #ffffff"/><path style="fill: none; stroke: #0072b2"/><text style="font-size: 9px">title</text>
<g class="on-image"><text style="fill: #000000">17</text></g><path style="stroke: #123456"/></svg>"""


def test_a_chart_takes_the_colours_of_the_page_and_what_is_on_an_image_keeps_its_own() -> None:
    page = drawings.inlined(SVG, 'a line & a "matrix"')
    head = 'aria-label="a line &amp; a &quot;matrix&quot;" style="width: 480px; --least: 326px"'
    assert head in page and "pt" not in page
    assert "<style" not in page, "it would hold for the whole page"
    assert "fill: var(--chart-paper)" in page and "stroke: var(--chart-blue)" in page
    assert '<g class="on-image"><text style="fill: #000000">17</text></g>' in page
    assert "#123456" in page, "a colour without a role stays"


def test_every_colour_of_the_palette_has_a_role_and_a_value_for_the_dark() -> None:
    from alignedreid_lib import figures

    css = (drawings.Path(drawings.__file__).parent / "book.css").read_text()
    for colour in figures.COLOURS:
        assert f"--chart-{drawings.COLOURS[colour.lower()]}: {colour.lower()[:7]}" in css.replace("#000;", "#000000;")


def test_figures_and_equations_are_numbered_per_chapter() -> None:
    found: Any = {
        "04_alignment": {"figure": {"fig-a": (7,), "fig-b": (8,)}, "displaymath": {"eq-a": (31,)}},
        "00_quickstart": {"figure": {"id1": (1,)}},
        "index": {"figure": {"id1": (9,)}},
    }
    drawings.number(SimpleNamespace(), SimpleNamespace(toc_fignumbers=found))  # type: ignore[arg-type]
    assert found["04_alignment"] == {"figure": {"fig-a": (4, 1), "fig-b": (4, 2)}, "displaymath": {"eq-a": (4, 1)}}
    assert found["00_quickstart"]["figure"]["id1"] == (0, 1) and found["index"]["figure"]["id1"] == (9,)


FOLDED = {
    "seed = 1": False,
    "import numpy as np\nfrom a import b": True,
    "import numpy as np\nx = np.zeros(3)": False,
    "from a import runs\n\nsettings = runs.read_settings(globals(), seed=runs.SEED)": True,
    "from a import b\n\n@b\nclass Settings:\n    seed = 1\n": True,
    "def draw_points(ax):\n    ax.plot([1])": True,
    "def distance(a, b):\n    return a - b": False,
    "def draw_points(ax):\n    ax.plot([1])\n\ndistance = 1": False,
    "%matplotlib inline": False,
}


@pytest.mark.parametrize("source", FOLDED)
def test_cells_that_explain_nothing_are_folded(source: str) -> None:
    cell = nbformat.v4.new_code_cell(source)
    assert cells.is_folded(cell) == FOLDED[source]
    cell.metadata["tags"] = ["parameters"]
    assert cells.is_folded(cell)
    cell.metadata["tags"] = ["show-input"]
    cell.outputs = [nbformat.v4.new_output("display_data", data={"image/svg+xml": "<svg/>"})]
    assert not cells.is_folded(cell), "a cell may ask to stay open"
    cell.metadata["tags"] = []
    assert cells.is_folded(cell), "a figure's cell"


def test_no_chapter_folds_a_check() -> None:
    """What is folded holds no assertion: the reader would not see what the chapter proves."""
    from test_book import CHAPTERS, NOTEBOOKS

    for name in CHAPTERS:
        for number, cell in enumerate(nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells, 1):
            if cell.cell_type == "code" and cells.is_folded(cell):
                assert not re.search(r"^assert\b", cell.source, re.M), f"{name}: cell {number} is folded"

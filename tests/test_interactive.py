"""The outputs that hold interactive figures; tests/browser drives them."""

import json
import re
import tomllib
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from alignedreid_lib import alignment, figures
from alignedreid_lib.errors import InputError

SHIFTS = [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0]
LABELS = torch.tensor([4, 4, 9, 9])
POINTS = torch.tensor([[0.0, 1.0], [2.0, 1.0], [1.0, 0.5], [3.0, 0.25]])


def static() -> figures.Figure:
    fig = figures.Figure(figsize=(2, 1))
    fig.subplots().plot([1, 2])
    return fig


def sliding(shifts: list[float] = SHIFTS) -> figures.Interactive:
    """A box over a street of random colours, 4 stripes high; a stripe is 4 rows."""
    rng = np.random.default_rng(0)
    street = rng.integers(0, 256, (28, 8, 3), dtype=np.uint8)
    images = [street[int(4 * shift) + 4 :][:16] for shift in SHIFTS]
    stripes = torch.from_numpy(np.stack([image.reshape(4, 4, 8, 3).mean((1, 2)) for image in images])) / 255
    return figures.slide_the_box(
        images, stripes, shifts, (1.5, 2.5), full=1.0, static=static(), words='a "static" figure'
    )


def pulled(points: torch.Tensor = POINTS, labels: torch.Tensor = LABELS) -> figures.Interactive:
    return figures.pull_the_points(points, labels, static=static(), words="points")


PEOPLE = list("BBAAA??BBBAA??")


def known(count: int = 14, people: list[str] = PEOPLE, **settings: float) -> figures.Interactive:
    points = np.random.default_rng(0).normal(size=(count, 2))
    return figures.who_knows_whom(points, people, **settings, static=static(), words="points")


def check_output(make: Callable[[], figures.Interactive]) -> None:
    """The output of a figure is small, self-contained, and the same every time."""
    text = make()._repr_html_()
    assert text == make()._repr_html_()
    assert not re.search(r"\bid=|https?://(?!www\.w3\.org)|<link|@import|url\(", text), "no ids, no other files"
    data = text.split('<script type="application/json">')[1].split("</script>")[0]
    picture = re.search(r'src="[^"]*"', text)
    assert picture and len(text) - len(data) - len(picture[0]) < 15_000, "a small script"
    assert make()._repr_svg_().startswith("<svg")


@pytest.mark.parametrize("make", [sliding, pulled, known])
def test_the_output_is_small_self_contained_and_the_same_every_time(make) -> None:
    check_output(make)


def test_words_and_data_cannot_end_the_html_that_holds_them() -> None:
    figure = figures.Interactive("slide_the_box", {"x": "</script><b>"}, static(), 'a "b" <c>')
    text = figure._repr_html_()
    assert 'alt="a &quot;b&quot; &lt;c&gt;"' in text
    data = text.split('<script type="application/json">')[1].split("</script>")[0]
    assert json.loads(data) == {"x": "</script><b>"}


def test_the_scripts_are_in_the_package() -> None:
    folder = resources.files("alignedreid_lib.figures.interactive")
    names = {file.name for file in folder.iterdir()}
    assert {"common.css", "common.js", "slide_the_box.js", "pull_the_points.js", "who_knows_whom.js"} <= names
    settings = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    assert {"*.js", "*.css"} <= set(settings["tool"]["setuptools"]["package-data"]["*"]), "installed, too"


def test_sliding_holds_the_library_s_numbers() -> None:
    data = sliding().data
    stripes = torch.tensor(data["stripes"], dtype=torch.float64)
    assert data["size"] == [8, 28], "the street that all boxes are cut from"
    for k in range(len(SHIFTS)):
        costs = alignment.stripe_distances(stripes[2], stripes[k])
        assert np.allclose(data["costs"][k], costs, atol=1e-3)
        assert data["rigid"][k] == pytest.approx(float(costs.diagonal().sum()), abs=1e-2)
        assert data["aligned"][k] == pytest.approx(float(alignment.shortest_path(costs)), abs=1e-2)
        if SHIFTS[k]:  # the table of a picture and itself is symmetric: two paths are equally short
            assert data["paths"][k] == alignment.trace_path(costs)
        for i, j in ((0, 0), (0, 3), (2, 1), (3, 3)):
            sums = alignment.shortest_path(costs[: i + 1, : j + 1])
            assert data["sums"][k][i][j] == pytest.approx(float(sums), abs=1e-2)
    assert data["rigid"][2] == pytest.approx(0, abs=1e-3), "the perfect box against itself"


def test_pulled_counts_people_from_0() -> None:
    assert pulled().data["people"] == [0, 0, 1, 1]


def test_the_query_s_person_is_0_and_strangers_are_2() -> None:
    data = known(k1=5, k2=2, lambda_value=0.5).data
    assert data["people"] == [0, 0, 1, 1, 1, 2, 2, 0, 0, 0, 1, 1, 2, 2]
    assert [data[name] for name in ("k", "k2", "lambda")] == [5, 2, 0.5]
    assert np.shape(data["points"]) == (14, 2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: sliding([0.0, 1.0]), "7 images"),
        (lambda: sliding([-1, -0.5, 0, 0.5, 1, 1.5, 3]), "equal steps"),
        (lambda: sliding([1, 2, 3, 4, 5, 6, 7]), "through 0"),
        (lambda: pulled(POINTS[:, :1]), r"\[N, 2\]"),
        (lambda: pulled(labels=torch.tensor([0, 1, 2, 2])), "two identities"),
        (lambda: pulled(labels=torch.tensor([0, 1, 1, 1])), "two points or more"),
        (lambda: known(13), r"\[N, 2\]"),
        (lambda: known(13, PEOPLE[:13]), "N above 13"),
        (lambda: known(people=list("BBAAA??BBBAA?C")), "two people"),
        (lambda: known(people=list("BB?????BBB????")), "two people"),
        (lambda: known(people=list("?BAAA??BBBAA??")), "not a stranger"),
        (lambda: known(people=list("BAAAA??AAAAA??")), "only image of B"),
        (lambda: known(k1=13), "k1 13"),
        (lambda: known(k2=0), "k2 0"),
        (lambda: known(lambda_value=1.1), "lambda_value 1.1"),
        (lambda: figures.Interactive("absent", {}, static(), "")._repr_html_(), "'absent'"),
        (lambda: figures.Interactive("slide_the_box", {"x": np.nan}, static(), "")._repr_html_(), "finite"),
        (lambda: figures.Interactive("slide_the_box", {"x": POINTS}, static(), "")._repr_html_(), "lists"),
    ],
)
def test_wrong_input_is_one_line(make, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()


@pytest.mark.parametrize(
    ("chapter", "name"),
    [("04_alignment", "slide_the_box"), ("05_losses", "pull_the_points"), ("09_reranking", "who_knows_whom")],
)
def test_chapters_hold_the_scripts_as_they_are(chapter: str, name: str) -> None:
    """A committed output is a copy of the script; one that was edited since needs `make pairs ONLY=... FORCE=1`."""
    notebook = nbformat.read(Path(__file__).parents[1] / "notebooks" / f"{chapter}.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    (html,) = [text for o in outputs if "touch" in (text := o.get("data", {}).get("text/html", ""))]
    made = {"slide_the_box": sliding, "pull_the_points": pulled, "who_knows_whom": known}[name]()._repr_html_()
    for begin, end in (("<style>", "</style>"), ("<script>", "</script>")):
        parts = [text.partition(begin)[2].partition(end)[0] for text in (html, made)]
        assert parts[0] == parts[1] and parts[0]

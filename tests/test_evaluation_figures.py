"""The outputs of chapter 08's interactive figures; tests/browser/test_order_figure.py drives them."""

import base64
import io
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image
from test_interactive import check_output, static

from alignedreid_lib import figures
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import verification

RNG = np.random.default_rng(0)
SAME, DIFFERENT = RNG.gamma(6, 0.8, 300).astype(np.float32), RNG.gamma(12, 1.1, 9000).astype(np.float32)
LABELS = [[(9, 2), (4, 2), (9, 1)], [(9, 3), (4, 3), (9, 1)]]


def ordered(labels=LABELS, start=(0, 2), counts=(3, 3)) -> figures.Interactive:
    """Two cards; the image of each label is of one grey, 10 more than the one before it."""
    images = [[np.full((20, 10, 3), 60 * k + 10 * j, np.uint8) for j in range(n)] for k, n in enumerate(counts, 1)]
    query = np.full((20, 10, 3), 255, np.uint8)
    return figures.order_the_list((9, 1), query, labels, images, start, static=static(), words="a list")


def thresholded(same=SAME, different=DIFFERENT, num_queries=30, rates=(0.1, 0.001)) -> figures.Interactive:
    return figures.choose_the_threshold(same, different, num_queries, rates, static=static(), words="pairs")


@pytest.mark.parametrize("make", [ordered, thresholded])
def test_the_output_is_small_self_contained_and_the_same_every_time(make) -> None:
    check_output(make)


def test_the_sheet_has_a_column_for_the_query_and_one_for_each_card() -> None:
    data = ordered().data
    assert (data["query"], data["start"], data["cards"]) == ([9, 1], [0, 2], [[list(x) for x in row] for row in LABELS])
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["sheet"].partition(",")[2]))))
    width, height = data["size"]
    assert sheet.shape == (3 * height, 3 * width, 3)
    middles = sheet[height // 2 :: height, width // 2 :: width, 0].T.astype(int)
    assert np.abs(middles - [[255] * 3, [60, 70, 80], [120, 130, 140]]).max() <= 3


def test_accepted_pairs_are_those_of_the_roc() -> None:
    """Counted one by one, and as the library's curve gives them, at every edge and at every chosen threshold."""
    data = thresholded().data
    edges, (thresholds, *chosen) = np.array(data["edges"]), data["chosen"]
    assert 100 <= len(edges) - 1 <= 250 and np.allclose(np.diff(edges), edges[1])
    assert edges[0] == 0 and edges[-2] < max(SAME.max(), DIFFERENT.max()) <= edges[-1]
    curve = verification.roc(SAME, DIFFERENT)
    assert thresholds == [verification.choose_threshold(curve, rate) for rate in data["rates"]] and len(thresholds) == 2
    for at, accepted in ((edges, data["accepted"]), (thresholds, chosen)):
        for values, rates, counts in ((DIFFERENT, curve[1], accepted[0]), (SAME, curve[2], accepted[1])):
            assert counts == [(values <= t).sum() for t in at]
            below = np.searchsorted(curve.thresholds, at, "right") - 1
            assert np.allclose(np.array(counts) / len(values), np.where(below < 0, 0, rates[below]), atol=1e-12)


def test_a_rate_that_no_threshold_keeps_is_left_out() -> None:
    data = thresholded([2.0, 3.0], [1.0, 4.0], rates=(0.5, 0.1)).data
    assert data["rates"] == [0.5] and data["chosen"] == [[3.0], [1], [2]]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ordered(start=(0, 3)), "give each card"),
        (lambda: ordered(start=(0,)), "give each card"),
        (lambda: ordered(counts=(3, 2)), "give each card"),
        (lambda: ordered(counts=(3,)), "give each card"),
        (lambda: ordered([], (), ()), "0 cards"),
        (lambda: thresholded([-1.0, 2.0]), "0 or more"),
        (lambda: thresholded([0.0], [0.0]), "some above 0"),
        (lambda: thresholded([np.inf]), "to inf"),
        (lambda: thresholded(num_queries=0), "one query"),
        (lambda: thresholded([]), "both are needed"),
    ],
)
def test_wrong_input_is_one_line(make, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()


def test_the_chapter_holds_the_scripts_as_they_are() -> None:
    """A committed output is a copy of the script; one that was edited since needs `make pairs ONLY=... FORCE=1`."""
    notebook = nbformat.read(Path(__file__).parents[1] / "notebooks" / "08_evaluation.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    found = [text for o in outputs if 'class="touch' in (text := o.get("data", {}).get("text/html", ""))]
    for html, made in zip(found, (ordered()._repr_html_(), thresholded()._repr_html_()), strict=True):
        for begin, end in (("<style>", "</style>"), ("<script>", "</script>")):
            parts = [text.partition(begin)[2].partition(end)[0] for text in (html, made)]
            assert parts[0] == parts[1] and parts[0]

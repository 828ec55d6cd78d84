"""Figures: what is drawn is what was given, everything lies inside, and nothing outside is touched."""

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import oracles
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from PIL import Image

from alignedreid_lib import figures
from alignedreid_lib.datasets import Dataset
from alignedreid_lib.errors import InputError


def make_pictures(count, size=(128, 64)):
    rng = np.random.default_rng(count)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Three queries and fourteen gallery pictures of five people and two cameras."""
    folder = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(0)
    paths = [folder / f"{k}.png" for k in range(17)]
    for path, picture in zip(paths, make_pictures(17), strict=True):
        Image.fromarray(picture).save(path)
    marks = rng.permutation([0] * 3 + [1] * 14)
    return Dataset(folder, "test", paths, rng.integers(1000, 1005, 17), rng.integers(0, 2, 17), None, marks)


def metrics(epochs):
    names = ("loss", *(f"global_{n}" for n in ("precision", "satisfaction", "positive_distance", "negative_distance")))
    return [{"epoch": e, "lr": 1, **{name: 1 / (e + k) for k, name in enumerate(names)}} for e in range(1, epochs + 1)]


def every_figure(dataset):
    distances = np.random.default_rng(1).random((3, 14)) * 100
    labels = np.repeat(np.arange(5), 4)
    return {
        "sheet": figures.contact_sheet(make_pictures(23), [f"id {k}" for k in range(23)], 10),
        "sheet of two lines": figures.contact_sheet(make_pictures(7), [f"id {k}\ncamera {k}" for k in range(7)], 6),
        "sheet of one": figures.contact_sheet(make_pictures(1)),
        "batch": figures.batch_grid(make_pictures(20), labels, 4),
        "lists": figures.ranked_lists([0, 2], dataset, distances),
        "curves": figures.training_curves(metrics(30)),
        "one epoch": figures.training_curves(metrics(1)),
        "cmc": figures.cmc_curves({"a model of a long name": np.linspace(0.4, 1, 50), "histogram": [0.1, 0.2]}),
        "cmc of one": figures.cmc_curves({"one": [0.5]}),
        "histogram": figures.histogram_of_images_per_id(labels),
    }


def test_every_figure_is_a_page_wide_and_all_its_text_lies_inside(dataset):
    for name, fig in every_figure(dataset).items():
        assert 4 <= fig.get_figwidth() <= 8 and fig.get_figheight() <= 10, name
        fig.draw_without_rendering()
        drawn = fig.get_tightbbox()  # of all that is drawn, in inches
        assert min(drawn.x0, drawn.y0) > -0.01, f"{name}: something is cut at the left or below"
        assert drawn.x1 < fig.get_figwidth() + 0.01 and drawn.y1 < fig.get_figheight() + 0.01, f"{name}: cut"


def test_pyplot_is_left_alone(dataset):
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    before = dict(mpl.rcParams)
    every_figure(dataset)
    assert plt.get_fignums() == [] and dict(mpl.rcParams) == before


def boxes(fig):
    """(left, top, right, bottom) in inches of every picture of a sheet, in drawing order."""
    (ax,) = fig.axes
    return [(x0, y1, x1, y0) for x0, x1, y0, y1 in (image.get_extent() for image in ax.get_images())]


def test_contact_sheet_draws_every_picture_once_without_overlap():
    pictures = make_pictures(7) + make_pictures(3, (60, 60))
    tensors = [torch.from_numpy(picture).permute(2, 0, 1) for picture in pictures]
    for given in (pictures, tensors):
        fig = figures.contact_sheet(given, columns=4)
        drawn = fig.axes[0].get_images()
        assert len(drawn) == 10
        for image, picture in zip(drawn, pictures, strict=True):
            np.testing.assert_array_equal(image.get_array(), picture)
        places = boxes(fig)
        for (left, top, right, bottom), picture in zip(places, pictures, strict=True):
            assert left >= 0 and right <= 8.001 and top >= 0 and bottom <= fig.get_figheight() + 0.001
            assert (bottom - top) / (right - left) == pytest.approx(picture.shape[0] / picture.shape[1])
        for k, one in enumerate(places):
            for other in places[:k]:
                apart = one[0] >= other[2] or one[1] >= other[3] or other[0] >= one[2] or other[1] >= one[3]
                assert apart, f"{one} lies over {other}"


def test_batch_grid_keeps_an_identity_in_one_row():
    labels = np.repeat([3, 1, 4, 1, 5], 4)
    fig = figures.batch_grid(make_pictures(20), labels, 4)
    tops = np.array(boxes(fig))[:, 1].reshape(5, 4)
    assert (tops == tops[:, :1]).all() and len(np.unique(tops)) == 3, "at most eight images in a row"
    titles = [text.get_text() for text in fig.axes[0].texts]
    assert titles == [f"identity {k}" for k in (3, 1, 4, 1, 5)]


@pytest.mark.parametrize(("top", "rank"), [(10, ""), (4, "rank ")])
def test_ranked_lists_mark_right_and_wrong_and_leave_junk_out(dataset, top, rank):
    distances = np.random.default_rng(2).integers(0, 9, (3, 14))
    queries, gallery = np.flatnonzero(dataset.marks == 0), np.flatnonzero(dataset.marks == 1)
    fig = figures.ranked_lists([2, 0], dataset, torch.from_numpy(distances), top=top)
    ax = fig.axes[0]
    images, marks, colours, captions = [], [], [], []
    for q in (2, 0):
        query = queries[q]
        problem = (dataset.ids[query], dataset.ids[gallery], dataset.cameras[query], dataset.cameras[gallery])
        order = oracles.ranked_list(distances[q], *problem)[:top]
        right = [dataset.ids[gallery[g]] == dataset.ids[query] for g in order]
        images += [query, *gallery[order]]
        marks += ["✓" if r else "✗" for r in right]
        colours += [figures.BLACK, *(figures.BLUE if r else figures.VERMILLION for r in right)]
        captions.append(f"id {dataset.ids[query]}, cam {dataset.cameras[query]}")
        captions += [f"{rank}{k}: {distances[q, g]:#.3g}" for k, g in enumerate(order, start=1)]
    assert ({"✓", "✗"} == set(marks) or top < 10) and len(images) <= 2 * (top + 1)
    for drawn, k in zip(ax.get_images(), images, strict=True):
        np.testing.assert_array_equal(drawn.get_array(), np.asarray(Image.open(dataset.paths[k])))
    texts = [text.get_text() for text in ax.texts]
    assert [text for text in texts if text in "✓✗"] == marks
    assert [text for text in texts if ":" in text or text.startswith("id ")][1:] == captions  # after the heading
    frames = [to_hex(patch.get_edgecolor()).upper() for patch in ax.patches if isinstance(patch, Rectangle)]
    assert frames == colours


def test_photographs_keep_their_pixels_and_colours(dataset):
    """A sheet holds every photograph as it is, up to JPEG; its frames and texts are drawn, not painted."""
    grey = np.full((128, 64, 3), 120, np.uint8)
    grey[60:70, 20:30] = (0, 170, 60)
    svg = figures.contact_sheet([grey, *make_pictures(3)], list("abcd")).svg()
    found = re.findall(r"data:image/jpeg;base64,([^\"]+)", svg)
    assert len(found) == 4 and "image/png" not in svg and len(svg) < 80_000
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(found[0]))))
    assert shown.shape == grey.shape and np.abs(shown.astype(int) - grey).max() <= 32
    assert np.abs(shown[62:68, 22:28].astype(int) - grey[62:68, 22:28]).max() <= 24
    coarse = figures.contact_sheet(make_pictures(1, (32, 16))).svg()
    assert "pixelated" in coarse and "image/jpeg" not in coarse, "an image of few pixels shows them"


def chart() -> figures.Figure:
    """A matrix with a number and a line on it, a curve with a title, and a photograph."""
    fig = figures.Figure(figsize=(6, 2), layout="constrained")
    left, middle, right = fig.subplots(1, 3)
    left.imshow(np.arange(4).reshape(2, 2))
    left.text(0, 0, "17", color="white")
    left.plot([0, 1], [0, 1], color=figures.BLACK)
    left.hlines([0.5], -0.5, 1.5, color="white")
    middle.plot([0, 1], [0, 1], color=figures.SAME)
    middle.set_title("A curve & 0.12345")
    right.imshow(make_pictures(1)[0])
    right.text(0, -9, "beside", color=figures.BLACK)
    return fig


def test_a_chart_is_an_svg_whose_text_is_text():
    fig = chart()
    svg = fig._repr_svg_()
    assert svg == chart().svg(), "the same bytes at every execution"
    root = ElementTree.fromstring(svg)
    texts = ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"17", "beside", "A curve & 0.12345"} <= set(texts), "no digit is lost"
    assert len(svg) < 60_000
    matrix, photograph = list(root.iter("{http://www.w3.org/2000/svg}image"))
    assert (matrix.get("width"), matrix.get("height")) == ("2", "2"), "one pixel per cell"
    assert "pixelated" in matrix.get("style") and photograph.get("class") == "photograph"
    assert (photograph.get("width"), photograph.get("style")) == ("64", None), "its own pixels, smoothed by the reader"
    groups = [node for node in root.iter() if node.get("class") == "on-image"]
    assert len(groups) == 3 and "17" in "".join("".join(group.itertext()) for group in groups), (
        "what is over the matrix, and nothing else"
    )


def test_names_in_charts_of_one_page_are_different():
    other = chart()
    other.axes[1].plot([1, 0], [0, 1])
    names = [set(re.findall(r'id="([^"]+)"', fig.svg())) for fig in (chart(), other)]
    assert names[0] and names[1] and not names[0] & names[1]
    for svg in (chart().svg(), other.svg()):
        used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", svg))
        assert used == set(re.findall(r'id="([^"]+)"', svg)), "every name is used, and every used name is there"


def test_training_curves_draw_the_metrics():
    rows = metrics(30)
    fig = figures.training_curves(rows)
    drawn = {tuple(line.get_ydata()) for ax in fig.axes for line in ax.lines}
    names = ("loss", *(f"global_{n}" for n in ("precision", "satisfaction", "positive_distance", "negative_distance")))
    assert drawn == {tuple(row[name] for row in rows) for name in names}
    styles = [(line.get_color(), line.get_linestyle()) for line in fig.axes[1].lines]
    assert styles[0][0] != styles[1][0] and styles[0][1] != styles[1][1]


def test_cmc_curves_start_at_rank_1_and_name_it():
    (ax,) = figures.cmc_curves({"trained": [0.814, 0.9, 0.95], "untrained": [0.1, 0.2]}).axes
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [0.814, 0.9, 0.95])
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["trained: rank-1 81.4%", "untrained: rank-1 10.0%"]


def test_histogram_counts_identities():
    (ax,) = figures.histogram_of_images_per_id([7, 7, 7, 8, 8, 9, 9]).axes
    assert {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in ax.patches} == {2: 2, 3: 1}
    assert ax.get_title(loc="left") + ax.get_title() == "7 images of 3 identities, 2.3 on average"


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda d: figures.contact_sheet([]), "0 images"),
        (lambda d: figures.contact_sheet(make_pictures(3), ["a"]), "1 titles"),
        (lambda d: figures.contact_sheet([np.zeros((4, 4))]), "float64"),
        (lambda d: figures.batch_grid(make_pictures(5), [1, 1, 2, 2, 3], 2), "P x 2"),
        (lambda d: figures.batch_grid(make_pictures(4), [1, 2, 1, 2], 2), "not adjacent"),
        (lambda d: figures.ranked_lists([0], d, np.zeros((3, 3))), "this dataset needs"),
        (lambda d: figures.ranked_lists([3], d, np.zeros((3, 14))), r"0 \.\.\. 2"),
        (lambda d: figures.ranked_lists([], d, np.zeros((3, 14))), r"0 \.\.\. 2"),
        (lambda d: figures.training_curves([]), "0 rows"),
        (lambda d: figures.training_curves([{"epoch": 1, "loss": 1}]), "precision"),
        (lambda d: figures.cmc_curves({}), "nothing"),
        (lambda d: figures.cmc_curves({"percent": [50, 60]}), "percent"),
        (lambda d: figures.cmc_curves({"broken": [np.nan]}), "broken"),
        (lambda d: figures.cmc_curves({"low": [0.5, 0.9]}, bottom=0.75), "bottom is 0.75, and a curve begins at 0.5"),
        (lambda d: figures.histogram_of_images_per_id([]), "at least one image"),
    ],
)
def test_bad_input_is_refused(dataset, draw, words):
    with pytest.raises(InputError, match=words):
        draw(dataset)

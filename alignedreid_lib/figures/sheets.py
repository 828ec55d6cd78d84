"""Sheets of images: people in rows, framed and titled; and the palette of all figures.

One colour has one meaning in the whole book: blue is the same person, or right; vermillion a different person, or
wrong. A tick, a cross, a marker or a line style shows the same, so colour is never needed. Used by every chapter,
through `figures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from alignedreid_lib.batches import images
from alignedreid_lib.datasets import Dataset
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import GALLERY, QUERY, ranked_list
from alignedreid_lib.figures.drawing import Figure

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK = COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000",
)  # fmt: skip  # Okabe and Ito 2008, without yellow
SAME, OTHER = RIGHT, WRONG = BLUE, VERMILLION
GREY = "#666666"
NEUTRAL = (BLACK, GREEN, PURPLE, ORANGE, SKY, GREY)  # of things that are neither: models, terms, distances
STYLES = ("-", "--", "-.", ":")

WIDTH = 8.0  # inches; 800 pixels in a notebook, a page of the site
LINE = 0.16  # inches: a line of small text
GAP = 0.05  # inches between images
SMALL = 7.5  # points
MOST = 8  # images in a row: more of them are too small to compare
WIDE = 0.85  # inches: an image of this width has space below for a word with the rank


def contact_sheet(
    pictures: Sequence[Any], titles: Sequence[str] | None = None, columns: int = MOST, width: float = WIDTH
) -> Figure:
    """Images in rows, each with a title.

    Args:
        pictures: uint8 each, tensors [3, h, w] or arrays [h, w, 3]; sizes may differ.
        titles: short texts of one line or more, one above each image.
        columns: images per row.
        width: the width of the sheet in inches; a page has 8.

    Raises:
        InputError: no images, or not one title per image.
    """
    pixels = [pixels_of(picture) for picture in pictures]
    if not pixels or columns < 1 or (titles is not None and len(titles) != len(pixels)):
        given = "no titles" if titles is None else f"{len(titles)} titles"
        raise InputError(f"{len(pixels)} images, {given}, {columns} columns: give a title to each, or none")
    head = LINE * (1 + max(title.count("\n") for title in titles)) if titles is not None else 0.0
    cell = (width - (columns - 1) * GAP) / columns
    height = cell * _aspect(pixels)
    fig, ax = _sheet(-(-len(pixels) // columns) * (head + height + GAP) - GAP, width)
    for k, picture in enumerate(pixels):
        left, top = k % columns * (cell + GAP), k // columns * (head + height + GAP)
        _place(ax, picture, left, top + head, cell, height)
        if titles is not None:
            _write(ax, left + cell / 2, top + head - 0.03, titles[k], ha="center", va="bottom")
    return fig


def batch_grid(batch: Sequence[Any], labels: ArrayLike, images_per_id: int) -> Figure:
    """A batch of P identities x K images; the K images of an identity are adjacent, under its label.

    Args:
        batch: N = P * K images, identity after identity, as for `contact_sheet`.
        labels: [N] the identity of each.
        images_per_id: K.

    Raises:
        InputError: the batch is not P x K, or an identity's images are not adjacent.
    """
    pixels = [pixels_of(picture) for picture in batch]
    labels = np.asarray(labels)
    if images_per_id < 1 or not pixels or labels.shape != (len(pixels),) or len(pixels) % images_per_id:
        raise InputError(f"{len(pixels)} images with labels {labels.shape} are not a batch of P x {images_per_id}")
    people = labels.reshape(-1, images_per_id)
    if (people != people[:, :1]).any():
        raise InputError(f"the images of an identity are not adjacent in labels {labels.tolist()}")
    side = min(max(1, MOST // images_per_id), len(people))  # identities side by side: one per row would be too high
    apart = 4 * GAP
    cell = min((WIDTH - (side - 1) * apart) / (side * images_per_id), 0.7)
    height = cell * _aspect(pixels)
    width = side * images_per_id * cell + (side - 1) * apart
    fig, ax = _sheet(-(-len(people) // side) * (LINE + height + 2 * GAP) - 2 * GAP, max(width, 2.0))
    for p, person in enumerate(people):
        left = p % side * (cell * images_per_id + apart)
        top = p // side * (LINE + height + 2 * GAP) + LINE
        _write(ax, left, top - 0.03, f"identity {person[0]}", va="bottom", weight="bold")
        for k in range(images_per_id):
            _place(ax, pixels[p * images_per_id + k], left + k * cell, top, cell - 0.01, height)
    return fig


def ranked_lists(
    queries: Sequence[int], dataset: Dataset, distances: ArrayLike | torch.Tensor, top: int = MOST - 1
) -> Figure:
    """The nearest gallery images of some queries; a frame and a mark tell right from wrong.

    Images of the query's identity from the query's own camera are left out, as they are in the scores.

    Args:
        queries: which rows of `distances` to show.
        dataset: a val or test part; its images of mark 0 are the rows, those of mark 1 the columns, in order.
        distances: [Q, G].
        top: gallery images per query.

    Raises:
        InputError: distances of a wrong shape, or a query without a row.
    """
    if isinstance(distances, torch.Tensor):
        distances = distances.detach().float().cpu().numpy()
    distances = np.asarray(distances)
    marks = np.full(len(dataset), -1) if dataset.marks is None else dataset.marks
    rows, columns = np.flatnonzero(marks == QUERY), np.flatnonzero(marks == GALLERY)
    if distances.shape != (len(rows), len(columns)):
        raise InputError(f"distances have shape {distances.shape}: this dataset needs {(len(rows), len(columns))}")
    if not len(queries) or min(queries) < 0 or max(queries) >= len(rows):
        raise InputError(f"queries are {list(queries)}: give some of 0 ... {len(rows) - 1}")
    found, shown = [], []
    for query in queries:
        row = rows[query]
        people, cameras = (dataset.ids[row], dataset.ids[columns]), (dataset.cameras[row], dataset.cameras[columns])
        found.append(ranked_list(distances[query], *people, *cameras, top, not dataset.cameras_known))
        shown.append([pixels_of(images.decode(dataset.paths[k])) for k in (row, *columns[found[-1]])])
    apart, margin = 0.25, 0.04
    first = margin + apart + (cell := (WIDTH - apart - 2 * margin - top * 2 * GAP) / (top + 1))
    height = cell * _aspect([picture for row in shown for picture in row])
    pitch = height + LINE + 3 * GAP
    size = SMALL if cell <= WIDE else SMALL + 1.5
    fig, ax = _sheet(LINE + GAP + len(found) * pitch)
    head: dict[str, Any] = {"y": LINE / 2, "va": "center", "weight": "bold"}
    _write(ax, margin, text="query", **head)
    _write(ax, first, text="gallery, nearest first: rank and distance", **head)
    _write(ax, WIDTH - 0.62, text="✓ right", ha="right", color=BLUE, **head)
    _write(ax, WIDTH - 0.05, text="✗ wrong", ha="right", color=VERMILLION, **head)
    for line, query in enumerate(queries):
        y = LINE + 2 * GAP + line * pitch
        person, camera = dataset.ids[rows[query]], dataset.cameras[rows[query]]
        _place(ax, shown[line][0], margin, y, cell, height, BLACK)
        where = f", cam {camera}" if dataset.cameras_known else ""
        _write(ax, margin, y + height + GAP, f"id {person}{where}", va="top")
        for k, image in enumerate(found[line]):
            left = first + k * (cell + 2 * GAP)
            colour, mark = (BLUE, "✓") if dataset.ids[columns[image]] == person else (VERMILLION, "✗")
            _place(ax, shown[line][k + 1], left, y, cell, height, colour, mark)
            caption = f"{k + 1}: {short(distances[query, image])}"
            if cell > WIDE:
                caption = f"rank {caption}"
            _write(ax, left + cell / 2, y + height + GAP, caption, ha="center", va="top", color=colour, size=size)
    return fig


def pixels_of(picture: Any) -> np.ndarray:
    """uint8 [h, w, 3] of a tensor [3, h, w] or an array [h, w, 3]."""
    pixels = picture.permute(1, 2, 0).cpu().numpy() if isinstance(picture, torch.Tensor) else np.asarray(picture)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise InputError(f"an image is {pixels.dtype} {pixels.shape}: give uint8, tensor [3, h, w] or array [h, w, 3]")
    return pixels


def _aspect(pixels: Sequence[np.ndarray]) -> float:
    """Height over width of the tallest image."""
    return max(picture.shape[0] / picture.shape[1] for picture in pixels)


def _sheet(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """A figure and one invisible axes that covers it, measured in inches from the upper left."""
    fig = Figure(figsize=(width, height))
    fig.set_layout_engine("none")  # whatever the style sets
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    ax.set_axis_off()
    return fig, ax


def _place(
    ax: Axes, pixels: np.ndarray, left: float, top: float, width: float, height: float,
    frame: str | None = None, mark: str = "",
) -> None:  # fmt: skip
    """Fit an image into a box of a sheet, centred, with its aspect ratio."""
    scale = min(width / pixels.shape[1], height / pixels.shape[0])
    w, h = pixels.shape[1] * scale, pixels.shape[0] * scale
    x, y = left + (width - w) / 2, top + (height - h) / 2
    ax.imshow(pixels, extent=(x, x + w, y + h, y), aspect="auto", zorder=1)
    if frame:
        ax.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=frame, linewidth=2.5, zorder=2))
    if mark:
        box = {"boxstyle": "square,pad=0.15", "facecolor": frame, "edgecolor": "none"}
        _write(ax, x + 0.02, y + 0.02, mark, color="white", va="top", bbox=box)


def _write(ax: Axes, x: float, y: float, text: str, size: float = SMALL, **style: Any) -> None:
    ax.text(x, y, text, fontsize=size, zorder=3, **style)


def short(value: float) -> str:
    """Three digits that matter."""
    return f"{value:.0f}" if value >= 99.5 else f"{value:#.3g}"

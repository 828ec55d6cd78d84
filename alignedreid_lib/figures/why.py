"""Figures that explain an answer: cells, stripes and a map of the features. Used by chapter 12, through `figures`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from alignedreid_lib.errors import InputError
from alignedreid_lib.explain import PathCosts, Plane, SimilarityMap
from alignedreid_lib.figures.sheets import (
    BLACK,
    BLUE,
    GREY,
    NEUTRAL,
    SMALL,
    VERMILLION,
    WIDTH,
    Figure,
    pixels_of,
    short,
)

MARKS = ("o", "s", "^", "D", "v", "P", "X")  # one for each colour, then for the next round of colours


def similarity(a: Any, b: Any, found: SimilarityMap) -> Figure:
    """Two images, and what the cells of each add to the distance: vermillion more different, blue more alike.

    Args:
        a, b: the images, uint8, tensors [3, h, w] or arrays [h, w, 3].
        found: see `explain.similarity_map`.
    """
    fig = Figure(figsize=(WIDTH * 0.85, 3.2), layout="constrained")
    axes = fig.subplots(1, 4)
    limit = max(float(part.abs().max()) for part in (found.first, found.second)) or 1.0
    colours = LinearSegmentedColormap.from_list("parts", [BLUE, "#f7f7f7", VERMILLION])
    scale = ScalarMappable(Normalize(-limit, limit), colours)
    for k, (picture, part) in enumerate(((a, found.first), (b, found.second))):
        pixels = pixels_of(picture)
        name = ("first image", "second image")[k]
        axes[2 * k].imshow(pixels)
        axes[2 * k].set_title(name, fontsize=SMALL + 1)
        grey = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2) / 255
        over = scale.to_rgba(grow(part.numpy(), pixels.shape[:2]))[..., :3]
        axes[2 * k + 1].imshow(0.45 * grey + 0.55 * over)
        axes[2 * k + 1].set_title(f"adds {short(float(part.sum()))}", fontsize=SMALL + 1)
    for ax in axes:
        ax.set_axis_off()
    fig.colorbar(scale, ax=axes, label="added to the distance", shrink=0.8)
    fig.suptitle(f"global distance {short(found.distance)}", fontsize=SMALL + 2.5)
    return fig


def grow(cells: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Cells [H, W] as a map over an image, [h, w]: linear between the cells' centres, constant outside of them."""
    factors = [new / old for new, old in zip(size, cells.shape, strict=True)]
    return ndimage.zoom(cells, factors, order=1, mode="nearest", grid_mode=True)


def matched_stripes(a: Any, b: Any, found: PathCosts) -> Figure:
    """Two images in stripes; a line joins each pair of stripes on the shortest path, thick if it costs little.

    Args:
        a, b: see `similarity`.
        found: see `explain.path_costs`.
    """
    count = len(found.costs)
    fig = Figure(figsize=(4.6, 3.8), layout="constrained")
    ax = fig.subplots()
    for left, picture in ((0.0, a), (2.4, b)):
        ax.imshow(pixels_of(picture), extent=(left, left + 1, count, 0), aspect="auto")
        ax.hlines(range(1, count), left, left + 1, color="white", linewidth=0.6)
    least, span = float(found.costs.min()), float(found.costs.max() - found.costs.min()) or 1.0
    for i, j in found.path:
        cost = float(found.costs[i, j])
        strength = 1 - (cost - least) / span
        style: dict[str, Any] = {"linewidth": 0.5 + 2.5 * strength, "alpha": 0.3 + 0.7 * strength}
        ax.plot([1.02, 2.38], [i + 0.5, j + 0.5], color=BLUE, **style)
        if i == j:  # the text of others would cover these
            ax.text(1.7, i + 0.42, f"{cost:.2f}", ha="center", va="bottom", fontsize=SMALL, color=BLACK)
    ax.set(xlim=(0, 3.4), ylim=(count, 0), title=f"local distance {short(found.distance)}")
    ax.set_axis_off()
    return fig


def feature_map(found: Plane, people: Sequence[Any] | ArrayLike, cameras: Sequence[Any] | ArrayLike) -> Figure:
    """The same map of the features twice: coloured by person, and by camera. A mark tells what a colour cannot.

    Args:
        found: see `explain.plane`.
        people, cameras: [N] labels of the points.

    Raises:
        InputError: not one label per point.
    """
    if len(np.asarray(people)) != len(found.points) or len(np.asarray(cameras)) != len(found.points):
        raise InputError(f"{len(found.points)} points: give the person and the camera of each")
    fig = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    for ax, title, labels in zip(fig.subplots(1, 2), ("by person", "by camera"), (people, cameras), strict=True):
        _scatter(ax, found, np.asarray(labels))
        ax.set(title=title, xlabel=f"direction 1: {found.shares[0]:.0%} of the variance")
        ax.set_ylabel(f"direction 2: {found.shares[1]:.0%}")
    return fig


def _scatter(ax: Axes, found: Plane, labels: NDArray[Any]) -> None:
    x, y = found.points.numpy().T
    values = np.unique(labels)
    for k, value in enumerate(values):
        rows = labels == value
        style: dict[str, Any] = {"color": NEUTRAL[k % len(NEUTRAL)], "marker": MARKS[(k // len(NEUTRAL)) % len(MARKS)]}
        ax.scatter(x[rows], y[rows], s=22, alpha=0.8, linewidth=0, label=str(value), **style)
    ax.axhline(0, color=GREY, linewidth=0.4)
    ax.axvline(0, color=GREY, linewidth=0.4)
    if len(values) <= 14:
        ax.legend(ncols=2, fontsize=SMALL, handletextpad=0.1, columnspacing=0.6, loc="best")

"""The book's figures: each function takes data and returns a Figure; nothing is shown, saved or remembered.

Blue is right and vermillion is wrong, and never colour alone: a tick, a cross or another line style says the same.
Used by every chapter.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import figure
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike
from PIL import Image

from alignedreid_lib import images
from alignedreid_lib.datasets import Dataset, DatasetCard
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import GALLERY, QUERY, ranked_list
from alignedreid_lib.verification import choose_threshold, roc

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK = COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000",
)  # fmt: skip  # Okabe and Ito 2008, without yellow
GREY = "#666666"
STYLES = ("-", "--", "-.", ":")

WIDTH = 8.0  # inches; 800 pixels in a notebook
_LINE = 0.16  # inches: a line of small text
_GAP = 0.05  # inches between pictures
_SMALL = 7.5  # points


class Figure(figure.Figure):
    """A matplotlib figure that a notebook shows as a small PNG: a palette instead of true colour.

    Ranked lists of four queries take a quarter of the bytes, so that a notebook of photographs stays small.
    """

    def _repr_png_(self) -> bytes:
        rendered, data = io.BytesIO(), io.BytesIO()
        self.savefig(rendered, format="png")
        pixels = np.array(Image.open(rendered).convert("RGB"))
        # A palette that covers all colours: one by frequency would give all of them to the greys of photographs.
        some = Image.fromarray(np.ascontiguousarray(pixels[::3, ::3]))
        palette = some.quantize(128, Image.Quantize.MAXCOVERAGE, kmeans=1).getpalette() or []
        colours = np.array(palette, np.float32).reshape(-1, 3)
        lengths = (colours**2).sum(axis=1)
        nearest = [(lengths - 2 * (row.astype(np.float32) @ colours.T)).argmin(axis=1) for row in pixels]
        indexed = Image.fromarray(np.array(nearest, np.uint8))
        indexed.putpalette(palette)
        indexed.save(data, "PNG", optimize=True)
        return data.getvalue()


def contact_sheet(pictures: Sequence[Any], titles: Sequence[str] | None = None, columns: int = 10) -> Figure:
    """Pictures side by side, row after row.

    Args:
        pictures: uint8 each, tensors [3, h, w] or arrays [h, w, 3]; sizes may differ.
        titles: a short one above each.
        columns: pictures in a row.

    Raises:
        InputError: no pictures, or titles of another number.
    """
    pixels = [_pixels(picture) for picture in pictures]
    if not pixels or columns < 1 or (titles is not None and len(titles) != len(pixels)):
        given = "no titles" if titles is None else f"{len(titles)} titles"
        raise InputError(f"{len(pixels)} pictures, {given}, {columns} columns: give a title to each, or none")
    head = _LINE if titles is not None else 0.0
    cell = (WIDTH - (columns - 1) * _GAP) / columns
    height = cell * _aspect(pixels)
    fig, ax = _sheet(-(-len(pixels) // columns) * (head + height + _GAP) - _GAP)
    for k, picture in enumerate(pixels):
        left, top = k % columns * (cell + _GAP), k // columns * (head + height + _GAP)
        _place(ax, picture, left, top + head, cell, height)
        if titles is not None:
            _write(ax, left + cell / 2, top + head - 0.03, titles[k], ha="center", va="bottom")
    return fig


def batch_grid(batch: Sequence[Any], labels: ArrayLike, images_per_id: int) -> Figure:
    """A batch of P identities x K images; the K images of an identity stand together under its label.

    Args:
        batch: N = P * K pictures, identity after identity, as for `contact_sheet`.
        labels: [N] the identity of each.
        images_per_id: K.

    Raises:
        InputError: the batch is not P x K, or an identity's pictures do not stand together.
    """
    pixels = [_pixels(picture) for picture in batch]
    labels = np.asarray(labels)
    if images_per_id < 1 or not pixels or labels.shape != (len(pixels),) or len(pixels) % images_per_id:
        raise InputError(f"{len(pixels)} pictures with labels {labels.shape} are no batch of P x {images_per_id}")
    people = labels.reshape(-1, images_per_id)
    if (people != people[:, :1]).any():
        raise InputError(f"the pictures of an identity do not stand together in labels {labels.tolist()}")
    side = min(max(1, 16 // images_per_id), len(people))  # identities side by side: a row each would be a tower
    apart = 4 * _GAP
    cell = min((WIDTH - (side - 1) * apart) / (side * images_per_id), 0.9)
    height = cell * _aspect(pixels)
    fig, ax = _sheet(-(-len(people) // side) * (_LINE + height + 2 * _GAP) - 2 * _GAP)
    for p, person in enumerate(people):
        left = p % side * (cell * images_per_id + apart)
        top = p // side * (_LINE + height + 2 * _GAP) + _LINE
        _write(ax, left, top - 0.03, f"identity {person[0]}", va="bottom", weight="bold")
        for k in range(images_per_id):
            _place(ax, pixels[p * images_per_id + k], left + k * cell, top, cell - 0.01, height)
    return fig


def ranked_lists(
    queries: Sequence[int], dataset: Dataset, distances: ArrayLike | torch.Tensor, top: int = 10
) -> Figure:
    """For some queries, the gallery images nearest to them: a frame and a mark tell right from wrong.

    Images of the query's identity from the query's own camera are left out, as they are in the scores.

    Args:
        queries: which rows of `distances` to show.
        dataset: a val or test part; its pictures of mark 0 are the rows, those of mark 1 the columns, in order.
        distances: [Q, G].
        top: gallery images a query.

    Raises:
        InputError: the distances are not those of the dataset, or a query is not among them.
    """
    if isinstance(distances, torch.Tensor):
        distances = distances.detach().float().cpu().numpy()
    distances = np.asarray(distances)
    marks = np.full(len(dataset), -1) if dataset.marks is None else dataset.marks
    rows, columns = np.flatnonzero(marks == QUERY), np.flatnonzero(marks == GALLERY)
    if distances.shape != (len(rows), len(columns)):
        raise InputError(f"distances have shape {distances.shape}: the dataset asks for {(len(rows), len(columns))}")
    if not len(queries) or min(queries) < 0 or max(queries) >= len(rows):
        raise InputError(f"queries are {list(queries)}: give some of 0 ... {len(rows) - 1}")
    found, shown = [], []
    for query in queries:
        row = rows[query]
        people, cameras = (dataset.ids[row], dataset.ids[columns]), (dataset.cameras[row], dataset.cameras[columns])
        found.append(ranked_list(distances[query], *people, *cameras, top, not dataset.cameras_known))
        shown.append([_pixels(images.decode(dataset.paths[k])) for k in (row, *columns[found[-1]])])
    apart, margin = 0.25, 0.04
    first = margin + apart + (cell := (WIDTH - apart - 2 * margin - top * 2 * _GAP) / (top + 1))
    height = cell * _aspect([picture for row in shown for picture in row])
    pitch = height + _LINE + 3 * _GAP
    fig, ax = _sheet(_LINE + _GAP + len(found) * pitch)
    head: dict[str, Any] = {"y": _LINE / 2, "va": "center", "weight": "bold"}
    _write(ax, margin, text="query", **head)
    _write(ax, first, text="gallery, nearest first: rank and distance", **head)
    _write(ax, WIDTH - 0.62, text="✓ right", ha="right", color=BLUE, **head)
    _write(ax, WIDTH - 0.05, text="✗ wrong", ha="right", color=VERMILLION, **head)
    for line, query in enumerate(queries):
        y = _LINE + 2 * _GAP + line * pitch
        person, camera = dataset.ids[rows[query]], dataset.cameras[rows[query]]
        _place(ax, shown[line][0], margin, y, cell, height, BLACK)
        where = f", cam {camera}" if dataset.cameras_known else ""
        _write(ax, margin, y + height + _GAP, f"id {person}{where}", va="top")
        for k, image in enumerate(found[line]):
            left = first + k * (cell + 2 * _GAP)
            colour, mark = (BLUE, "✓") if dataset.ids[columns[image]] == person else (VERMILLION, "✗")
            _place(ax, shown[line][k + 1], left, y, cell, height, colour, mark)
            caption = f"{k + 1}: {_short(distances[query, image])}"
            _write(ax, left + cell / 2, y + height + _GAP, caption, ha="center", va="top", color=colour)
    return fig


def training_curves(metrics: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss, the share of satisfied triplets, and the distances of the hardest pairs, epoch by epoch.

    Args:
        metrics: a row an epoch, as `metrics.jsonl` has them.

    Raises:
        InputError: no rows, or rows without these figures.
    """
    terms = ["global", "local"] if metrics and "local_loss" in metrics[0] else ["global"]
    shares = {"precision": "negative farther", "satisfaction": "by the margin"}
    triplets = {f"{term}_{name}": f"{term}: {label}" for term in terms for name, label in shares.items()}
    panels = {"Loss": {"loss": "loss"}, "Satisfied triplets": triplets}
    for term in terms:
        panels[f"Hardest {term} distances"] = {f"{term}_{sign}_distance": sign for sign in ("negative", "positive")}
    names = ["epoch", *(name for lines in panels.values() for name in lines)]
    absent = [name for name in names if not metrics or any(name not in row for row in metrics)]
    if absent:
        raise InputError(f"{len(metrics)} rows of metrics lack {', '.join(absent)}: give the rows of a run's metrics")
    epochs = [row["epoch"] for row in metrics]
    fig = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    for ax, (title, lines) in zip(fig.subplots(1, len(panels)), panels.items(), strict=True):
        for (name, label), colour, style in zip(lines.items(), COLOURS, STYLES, strict=False):
            values = [row[name] for row in metrics]
            ax.plot(epochs, values, style, color=colour, label=label, marker="o" if len(epochs) == 1 else None)
        ax.set(title=title, xlabel="epoch")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        ax.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        if lines is triplets:
            ax.set_ylim(0, 1.02)
            ax.yaxis.set_major_formatter(PercentFormatter(1))
        else:
            ax.set_ylim(0, 1.08 * max(row[name] for name in lines for row in metrics) or 1)
        if len(lines) > 1:
            ax.legend()
    return fig


def cmc_curves(curves: Mapping[str, ArrayLike]) -> Figure:
    """CMC of several models or distances over the rank.

    Args:
        curves: by name, [top] each, fractions; element k is the score of rank k + 1.

    Raises:
        InputError: no curve, or one that is not a row of fractions.
    """
    lines = {name: np.asarray(curve, dtype=float) for name, curve in curves.items()}
    good = {name: line.ndim == 1 and len(line) and ((line >= 0) & (line <= 1)).all() for name, line in lines.items()}
    bad = [name for name in lines if not good[name]]
    if bad or not lines:
        raise InputError(f"cmc_curves: {', '.join(bad) or 'nothing'} given; give fractions [top] for each name")
    fig = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    ax = fig.subplots()
    for k, (name, line) in enumerate(lines.items()):
        ranks = np.arange(1, len(line) + 1)
        colour, style = COLOURS[k % len(COLOURS)], STYLES[k % len(STYLES)]
        ax.plot(ranks, line, style, color=colour, label=f"{name}: rank-1 {line[0]:.1%}")
        ax.plot(1, line[0], "o", color=colour, clip_on=False, zorder=3)
    longest = max(map(len, lines.values()))
    ticks = MaxNLocator(10, integer=True).tick_values(1, longest)
    ax.set_xticks(sorted({1, *(int(t) for t in ticks if 1 < t <= longest)}))
    ax.set(xlabel="rank k", ylabel="queries with a match in the first k", xlim=(1, max(longest, 2)), ylim=(0, 1.02))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1))
    return fig


def open_set(same: ArrayLike, different: ArrayLike, false_accept_rate: float) -> Figure:
    """Distances of pairs of one person and of two with a threshold between them, and the ROC it lies on.

    Args:
        same, different: [S], [D] distances, see `verification.pair_distances`.
        false_accept_rate: that the threshold is chosen for.
    """
    curve = roc(same, different)
    threshold = choose_threshold(curve, false_accept_rate)
    at = np.searchsorted(curve.thresholds, threshold, "right") - 1
    false, true = (float(rate[at]) if at >= 0 else 0.0 for rate in curve[1:])
    fig = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    left, right = fig.subplots(1, 2)
    span = (float(curve.thresholds[0]), float(curve.thresholds[-1]))
    for values, label, colour, style in ((same, "one person", BLUE, "-"), (different, "two people", VERMILLION, "--")):
        heights, edges = np.histogram(np.asarray(values), bins=60, range=span, density=True)
        left.stairs(heights, edges, color=colour, linestyle=style, label=label, linewidth=1.8)
    if at >= 0:
        left.axvline(threshold, color=BLACK, linestyle=":", label=f"threshold {_short(threshold)}")
    left.set(xlabel="distance", yticks=[], title="Pairs")
    left.legend()
    right.plot(curve.false_accept_rate, curve.true_accept_rate, color=BLUE)
    right.plot(false, true, "o", color=BLACK)
    right.annotate(
        f"{true:.0%} found\nat {false:.2%} false alarms", (false, true), (8, -18), textcoords="offset points", va="top"
    )
    low = max(0.1 / np.asarray(different).size, 1e-5)
    right.set(xscale="log", xlim=(low, 1), ylim=(0, 1.02), title="ROC")
    right.set(xlabel="false-accept rate", ylabel="true-accept rate")
    right.yaxis.set_major_formatter(PercentFormatter(1))
    return fig


def dataset_card(dataset: Dataset, card: DatasetCard, pictures: int = 16) -> Figure:
    """A card as a picture: images of an identity, what two cameras share, and one image each of some identities.

    Args:
        dataset: a part.
        card: what `datasets.describe` found in it.
        pictures: how many images to show.
    """
    bad = {name for name, _ in card.unreadable}
    firsts = [k for k in np.unique(dataset.ids, return_index=True)[1] if dataset.paths[k].name not in bad]
    chosen = [firsts[k] for k in np.linspace(0, len(firsts) - 1, min(pictures, len(firsts))).astype(int)]
    fig = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    halves: Any = fig.subfigures(2, 1, height_ratios=(2, 1))
    panels, row = halves
    left, right = panels.subplots(1, 2, width_ratios=(3, 2))
    draw_images_per_id(left, dataset.ids)
    if card.ids_per_camera:
        names = [str(camera) for camera in card.ids_per_camera]
        image = right.imshow(card.camera_pairs, cmap="cividis", vmin=0)
        right.set(title="Identities seen by two cameras", xlabel="camera", ylabel="camera")
        right.set(xticks=range(len(names)), xticklabels=names, yticks=range(len(names)), yticklabels=names)
        panels.colorbar(image, ax=right, label="identities", ticks=MaxNLocator(4, integer=True))
        if len(names) <= 10:
            half = card.camera_pairs.max() / 2
            for (i, k), shared in np.ndenumerate(card.camera_pairs):
                colour = "white" if shared < half else BLACK
                right.text(k, i, str(shared), ha="center", va="center", fontsize=_SMALL, color=colour)
    else:
        right.text(0.5, 0.5, "cameras are not known", ha="center", va="center", transform=right.transAxes)
        right.set(xticks=[], yticks=[])
    right.grid(False)
    for ax, k in zip(np.ravel(row.subplots(1, len(chosen) or 1)), chosen, strict=False):
        ax.imshow(_pixels(images.decode(dataset.paths[k])))
    for ax in row.axes:
        ax.set_axis_off()
    return fig


def histogram_of_images_per_id(ids: ArrayLike) -> Figure:
    """How many identities have how many images.

    Args:
        ids: [N] the identity of each image.

    Raises:
        InputError: no ids.
    """
    ids = np.asarray(ids)
    if ids.ndim != 1 or not len(ids):
        raise InputError(f"ids have shape {ids.shape}: give the identity of each image, one image at least")
    fig = Figure(figsize=(WIDTH * 0.75, 2.6), layout="constrained")
    draw_images_per_id(fig.subplots(), ids)
    return fig


def draw_images_per_id(ax: Axes, ids: np.ndarray) -> None:
    """The histogram of `histogram_of_images_per_id`, into axes."""
    counts = np.unique(ids, return_counts=True)[1]
    values, heights = np.unique(counts, return_counts=True)
    width = 0.85 if np.ptp(values) < 60 else max(0.85, np.ptp(values) / 60)
    ax.bar(values, heights, width=width, color=BLUE)
    ax.set(
        xlabel="images of an identity",
        ylabel="identities",
        title=f"{len(ids)} images of {len(counts)} identities, {counts.mean():.1f} on average",
    )
    ax.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.grid(axis="x", visible=False)


def _pixels(picture: Any) -> np.ndarray:
    """uint8 [h, w, 3] of a tensor [3, h, w] or an array [h, w, 3]."""
    pixels = picture.permute(1, 2, 0).cpu().numpy() if isinstance(picture, torch.Tensor) else np.asarray(picture)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise InputError(f"a picture is {pixels.dtype} {pixels.shape}: give uint8, tensor [3, h, w] or array [h, w, 3]")
    return pixels


def _aspect(pixels: Sequence[np.ndarray]) -> float:
    """Height over width of the tallest picture."""
    return max(picture.shape[0] / picture.shape[1] for picture in pixels)


def _sheet(height: float) -> tuple[Figure, Axes]:
    """A figure and one invisible axes that covers it, measured in inches from the upper left."""
    fig = Figure(figsize=(WIDTH, height))
    fig.set_layout_engine("none")  # whatever the style says
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(height, 0), autoscale_on=False)
    ax.set_axis_off()
    return fig, ax


def _place(
    ax: Axes, pixels: np.ndarray, left: float, top: float, width: float, height: float,
    frame: str | None = None, mark: str = "",
) -> None:  # fmt: skip
    """Fit a picture into a box of a sheet, in the middle, its shape kept."""
    scale = min(width / pixels.shape[1], height / pixels.shape[0])
    w, h = pixels.shape[1] * scale, pixels.shape[0] * scale
    x, y = left + (width - w) / 2, top + (height - h) / 2
    ax.imshow(pixels, extent=(x, x + w, y + h, y), aspect="auto", zorder=1)
    if frame:
        ax.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=frame, linewidth=2.5, zorder=2))
    if mark:
        box = {"boxstyle": "square,pad=0.15", "facecolor": frame, "edgecolor": "none"}
        _write(ax, x + 0.02, y + 0.02, mark, color="white", va="top", bbox=box)


def _write(ax: Axes, x: float, y: float, text: str, **style: Any) -> None:
    ax.text(x, y, text, fontsize=_SMALL, zorder=3, **style)


def _short(value: float) -> str:
    """Three digits that matter."""
    return f"{value:.0f}" if value >= 99.5 else f"{value:#.3g}"

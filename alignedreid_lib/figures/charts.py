"""The book's figures: each function takes data and returns a Figure; nothing is shown, saved or remembered.

Sheets of images and the palette come from `sheets`. Used by every chapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike

from alignedreid_lib.batches import images
from alignedreid_lib.datasets import Dataset, DatasetCard
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.verification import choose_threshold, roc
from alignedreid_lib.figures.drawing import Figure
from alignedreid_lib.figures.sheets import (
    BLACK,
    GREY,
    NEUTRAL,
    OTHER,
    SAME,
    SMALL,
    STYLES,
    WIDTH,
    pixels_of,
    short,
)


def training_curves(metrics: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss, the share of satisfied triplets, and the distances of the hardest pairs, epoch by epoch.

    Args:
        metrics: one row per epoch, as in `metrics.jsonl`.

    Raises:
        InputError: no rows, or rows without these figures.
    """
    terms = ["global", "local"] if metrics and "local_loss" in metrics[0] else ["global"]
    shares = {"precision": "negative farther", "satisfaction": "by the margin"}
    prefix = {term: f"{term}: " if len(terms) > 1 else "" for term in terms}
    triplets = {f"{term}_{name}": prefix[term] + label for term in terms for name, label in shares.items()}
    labels = {"loss": "sum", "global_loss": "global", "local_loss": "local", "id_loss": "identification"}
    lines = {name: label for name, label in labels.items() if metrics and name in metrics[0]}
    panels = {"Loss": lines if len(lines) > 2 else {"loss": "loss"}, "Satisfied triplets": triplets}
    for term in terms:
        panels[f"Hardest {term} distances"] = {f"{term}_{sign}_distance": sign for sign in ("negative", "positive")}
    names = ["epoch", *(name for lines in panels.values() for name in lines)]
    absent = [name for name in names if not metrics or any(name not in row for row in metrics)]
    if absent:
        raise InputError(f"{len(metrics)} rows of metrics lack {', '.join(absent)}: give the rows of a run's metrics")
    epochs = [row["epoch"] for row in metrics]
    fig = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    for ax, (title, lines) in zip(fig.subplots(1, len(panels)), panels.items(), strict=True):
        signs = {"positive": SAME, "negative": OTHER}
        for (name, label), neutral, style in zip(lines.items(), NEUTRAL, STYLES, strict=False):
            colour = signs.get(label, neutral)
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
            ax.legend(loc="lower right" if lines is triplets else "best")  # below the rising shares
    return fig


def cmc_curves(curves: Mapping[str, ArrayLike], bottom: float = 0.0) -> Figure:
    """CMC of several models or distances over the rank.

    Args:
        curves: by name, [top] each, fractions; element k is the score of rank k + 1.
        bottom: where the axis of the scores begins; for curves that cross near the top.

    Raises:
        InputError: no curve, one that is not a row of fractions, or one that is below `bottom`.
    """
    lines = {name: np.asarray(curve, dtype=float) for name, curve in curves.items()}
    good = {name: line.ndim == 1 and len(line) and ((line >= 0) & (line <= 1)).all() for name, line in lines.items()}
    bad = [name for name in lines if not good[name]]
    if bad or not lines:
        raise InputError(f"cmc_curves: {', '.join(bad) or 'nothing'} given; give fractions [top] for each name")
    if (lowest := min(line.min() for line in lines.values())) < bottom:
        raise InputError(f"bottom is {bottom:g}, and a curve begins at {lowest:.3g}: give at most that")
    fig = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    ax = fig.subplots()
    for k, (name, line) in enumerate(lines.items()):
        ranks = np.arange(1, len(line) + 1)
        colour, style = NEUTRAL[k % len(NEUTRAL)], STYLES[k % len(STYLES)]
        ax.plot(ranks, line, style, color=colour, label=f"{name}: rank-1 {line[0]:.1%}")
        ax.plot(1, line[0], "o", color=colour, clip_on=False, zorder=3)
    longest = max(map(len, lines.values()))
    ticks = MaxNLocator(10, integer=True).tick_values(1, longest)
    ax.set_xticks(sorted({1, *(int(t) for t in ticks if 1 < t <= longest)}))
    ax.set(xlabel="rank k", ylabel="queries with a match in the first k")
    ax.set(xlim=(1, max(longest, 2)), ylim=(bottom, 1 + 0.02 * (1 - bottom)))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1))
    return fig


def open_set(same: ArrayLike, different: ArrayLike, false_accept_rate: float, of: str = "Pairs") -> Figure:
    """Distances of pairs of one person and of two with a threshold between them, and its point on the ROC.

    Args:
        same, different: [S], [D] distances, see `verification.pair_distances`.
        false_accept_rate: the rate for which the threshold is chosen.
        of: what has the distances; the title of their histogram.
    """
    curve = roc(same, different)
    threshold = choose_threshold(curve, false_accept_rate)
    at = np.searchsorted(curve.thresholds, threshold, "right") - 1
    false, true = (float(rate[at]) if at >= 0 else 0.0 for rate in curve[1:])
    fig = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    left, right = fig.subplots(1, 2)
    span = (float(curve.thresholds[0]), float(curve.thresholds[-1]))
    for values, label, colour, style in ((same, "one person", SAME, "-"), (different, "two people", OTHER, "--")):
        heights, edges = np.histogram(np.asarray(values), bins=60, range=span, density=True)
        left.stairs(heights, edges, color=colour, linestyle=style, label=label, linewidth=1.8)
    if at >= 0:
        left.axvline(threshold, color=BLACK, linestyle=":", label=f"threshold {short(threshold)}")
    left.set(xlabel="distance", yticks=[], title=of)
    left.legend()
    right.plot(curve.false_accept_rate, curve.true_accept_rate, color=BLACK)
    right.plot(false, true, "o", color=BLACK)
    right.annotate(
        f"{true:.0%} found\nat {false:.2%} false alarms", (false, true), (8, -18), textcoords="offset points", va="top"
    )
    low = max(0.1 / np.asarray(different).size, 1e-5)
    right.set(xscale="log", xlim=(low, 1), ylim=(0, 1.02), title="ROC")
    right.set(xlabel="false-accept rate", ylabel="true-accept rate")
    right.yaxis.set_major_formatter(PercentFormatter(1))
    return fig


def dataset_card(dataset: Dataset, card: DatasetCard, pictures: int = 8) -> Figure:
    """A card as a figure: images of an identity, what two cameras share, and one image each of some identities.

    Args:
        dataset: a part.
        card: what `datasets.describe` found in it.
        pictures: how many images to show.
    """
    bad = {name for name, _ in card.unreadable}
    firsts = [k for k in np.unique(dataset.ids, return_index=True)[1] if dataset.paths[k].name not in bad]
    chosen = [firsts[k] for k in np.linspace(0, len(firsts) - 1, min(pictures, len(firsts))).astype(int)]
    fig = Figure(figsize=(WIDTH, 5.0), layout="constrained")
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
                right.text(k, i, str(shared), ha="center", va="center", fontsize=SMALL, color=colour)
    else:
        right.text(0.5, 0.5, "cameras are not known", ha="center", va="center", transform=right.transAxes)
        right.set(xticks=[], yticks=[])
    right.grid(False)
    for ax, k in zip(np.ravel(row.subplots(1, len(chosen) or 1)), chosen, strict=False):
        ax.imshow(pixels_of(images.decode(dataset.paths[k])))
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
        raise InputError(f"ids have shape {ids.shape}: give the identity of each image, at least one image")
    fig = Figure(figsize=(WIDTH * 0.75, 2.6), layout="constrained")
    draw_images_per_id(fig.subplots(), ids)
    return fig


def draw_images_per_id(ax: Axes, ids: np.ndarray) -> None:
    """The histogram of `histogram_of_images_per_id`, into axes."""
    counts = np.unique(ids, return_counts=True)[1]
    values, heights = np.unique(counts, return_counts=True)
    width = 0.85 if np.ptp(values) < 60 else max(0.85, np.ptp(values) / 60)
    ax.bar(values, heights, width=width, color=GREY)
    ax.set(
        xlabel="images of an identity",
        ylabel="identities",
        title=f"{len(ids)} images of {len(counts)} identities, {counts.mean():.1f} on average",
    )
    ax.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.grid(axis="x", visible=False)

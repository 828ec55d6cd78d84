"""The data of chapter 08's interactive figures: a ranked list to order, and a threshold to choose."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.verification import choose_threshold, roc
from alignedreid_lib.figures.drawing import Figure
from alignedreid_lib.figures.interactive.output import Interactive, jpeg_address

Label = tuple[int, int]  # identity and camera of an image

CARD = (48, 96)  # width and height of the image on a card, in pixels
BINS = 100  # the histograms have as many bins, or up to 2.5 times as many: their width is 1, 2 or 5 times a power of 10


def order_the_list(
    query: Label,
    query_image: np.ndarray,
    cards: Sequence[Sequence[Label]],
    images: Sequence[Sequence[np.ndarray]],
    start: Sequence[int],
    *,
    static: Figure,
    words: str,
) -> Interactive:
    """A ranked list that the reader orders, with its CMC under each protocol and both average precisions.

    The script computes the scores itself; they are compared with `ranking.score_ranking` by the browser's tests.

    Args:
        query: identity and camera of the query.
        query_image: uint8 [h, w, 3].
        cards: n cards, nearest first; each can be several images, of which these are the identities and cameras.
        images: n lists of images, uint8 [h, w, 3] each, one for each label of `cards`.
        start: [n] which of its images each card is at first.
        static, words: see `Interactive`.

    Raises:
        InputError: no cards, or labels, images and starts that do not fit each other.
    """
    kinds = {len(labels) for labels in cards} | {len(row) for row in images}
    if len(kinds) != 1 or not len(cards) == len(images) == len(start) or not all(0 <= k < max(kinds) for k in start):
        raise InputError(
            f"{len(cards)} cards, {len(images)} lists of images and starts {list(start)}: give each card the same "
            "number of labels and images, and the number of the one that it starts with"
        )
    rows = [[query_image] * max(kinds), *images]
    sheet = np.concatenate([np.concatenate([_small(image) for image in row]) for row in rows], axis=1)
    data = {
        "query": [int(value) for value in query],
        "cards": [[[int(value) for value in label] for label in labels] for labels in cards],
        "start": [int(k) for k in start],
        "size": list(CARD),
        "sheet": jpeg_address(sheet, quality=70),  # a column for the query, then one for each card
    }
    return Interactive("order_the_list", data, static, words)


def choose_the_threshold(
    same: ArrayLike,
    different: ArrayLike,
    num_queries: int,
    rates: Sequence[float] = (0.1, 0.01, 0.001, 0.0001),
    *,
    static: Figure,
    words: str,
) -> Interactive:
    """A threshold that the reader moves over the distances of pairs, with its point on the ROC.

    Args:
        same, different: [S], [D] distances, see `verification.pair_distances`.
        num_queries: the queries that these are pairs of.
        rates: false-accept rates; the reader can choose the threshold for each that can be kept.
        static, words: see `Interactive`.

    Raises:
        InputError: as `verification.roc` and `verification.choose_threshold`; distances below 0, or all 0; no query.
    """
    curve = roc(same, different)
    if curve.thresholds[0] < 0 or not 0 < curve.thresholds[-1] < math.inf or num_queries < 1:
        raise InputError(
            f"distances from {curve.thresholds[0]:g} to {curve.thresholds[-1]:g} and {num_queries} queries: "
            "give distances of 0 or more, some above 0, and one query or more"
        )
    totals = np.array([np.size(different), np.size(same)])

    def accepted(thresholds: ArrayLike) -> list[list[int]]:
        """How many pairs of two people, and of one, are accepted up to each threshold."""
        at = np.searchsorted(curve.thresholds, thresholds, "right")
        rates = np.stack([np.concatenate([[0.0], rate])[at] for rate in curve[1:]])
        return np.rint(rates * totals[:, None]).astype(int).tolist()

    step = _round_step(float(curve.thresholds[-1]) / BINS)
    edges = [round(k * step, 10) for k in range(math.ceil(float(curve.thresholds[-1]) / step) + 1)]
    found = {rate: choose_threshold(curve, rate) for rate in rates}
    chosen = {rate: t for rate, t in found.items() if t > -math.inf}
    data = {
        "edges": edges,
        "accepted": accepted(edges),
        "rates": list(chosen),
        "chosen": [list(chosen.values()), *accepted(list(chosen.values()))],
        "queries": int(num_queries),
    }
    return Interactive("choose_the_threshold", data, static, words)


def _round_step(most: float) -> float:
    """The largest of ..., 0.1, 0.2, 0.5, 1, 2, 5, ... that is not above a number."""
    power = 10.0 ** math.floor(math.log10(most))
    return max(power * k for k in (1, 2, 5) if power * k <= most * (1 + 1e-9))


def _small(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize(CARD, Image.Resampling.LANCZOS))

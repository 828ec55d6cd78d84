"""The data of the interactive figure of re-ranking. Shown in notebook 09."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alignedreid_lib.errors import InputError
from alignedreid_lib.figures.drawing import Figure
from alignedreid_lib.figures.interactive.output import Interactive

MOST_NEIGHBOURS = 12  # what the reader can set k to


def who_knows_whom(
    points: np.ndarray,
    people: Sequence[str],
    k1: int = 6,
    k2: int = 3,
    lambda_value: float = 0.3,
    *,
    static: Figure,
    words: str,
) -> Interactive:
    """Images as points of a plane, re-ranked stage by stage; the reader moves the query, `k1` and `lambda_value`.

    The script re-ranks by itself; the browser's tests compare it with `evaluation.reranking`. It gives the image with
    the lower number the lower rank where distances are equal, which the library does not promise.

    Args:
        points: [N, 2], the query first.
        people: [N] names of the query's person and of one other; strangers are "?".
        k1: number of neighbours to start with, 1 to 12.
        k2: number of rows that are averaged.
        lambda_value: share of the original distance to start with.
        static, words: see `Interactive`.

    Raises:
        InputError: other shapes, other people, or a setting out of range.
    """
    names = list(dict.fromkeys([*people[:1], *sorted(set(people) - {"?"}), "?"]))
    if points.shape != (len(people), 2) or len(people) <= MOST_NEIGHBOURS + 1 or len(names) != 3 or people[0] == "?":
        raise InputError(
            f"points of shape {points.shape} with people {', '.join(people)}: give [N, 2] with N above "
            f'{MOST_NEIGHBOURS + 1}, two people, and "?" for strangers; the query is first and not a stranger'
        )
    if list(people).count(people[0]) < 2:
        raise InputError(f"the query is the only image of {people[0]}: give a match to be ranked")
    if not (1 <= k1 <= MOST_NEIGHBOURS and 1 <= k2 <= len(people) and 0 <= lambda_value <= 1):
        raise InputError(
            f"k1 {k1}, k2 {k2} and lambda_value {lambda_value}: give 1 to {MOST_NEIGHBOURS}, 1 to {len(people)} and "
            "a share from 0 to 1"
        )
    data = {
        "points": np.round(points.astype(float), 2).tolist(),
        "people": [names.index(name) for name in people],
        "k": k1,
        "most": MOST_NEIGHBOURS,
        "k2": k2,
        "lambda": lambda_value,
    }
    return Interactive("who_knows_whom", data, static, words)

"""Chapter 05: the hardest positive and the hardest negative of every anchor."""

from collections.abc import Callable
from typing import Any

from alignedreid_lib.exercises.checking import Exercise

Matrix = list[list[float]]
A, B, C = 0, 1, 2


def _line(*points: float) -> Matrix:
    """The distances of points on a line."""
    return [[abs(x - y) for y in points] for x in points]


def _miner(
    positive: Callable[..., float] = max,
    negative: Callable[..., float] = min,
    itself: bool = False,
    masked: bool = True,
    empty: float | None = None,
) -> Callable[..., Any]:
    """A function that mines: what is hardest, among which images, and what is given where none is left."""

    def mine(distances: Matrix, labels: list[int]) -> list[tuple[float | None, float | None]]:
        mined = []
        for a, row in enumerate(distances):
            others = [i for i in range(len(labels)) if i != a or itself]
            positives = [row[i] for i in others if labels[i] == labels[a]]
            negatives = [row[i] for i in others if labels[i] != labels[a] or not masked]
            chosen = (positive(positives) if positives else empty, negative(negatives) if negatives else empty)
            mined.append(chosen)
        return mined

    return mine


def _numbers(distances: Matrix, labels: list[int]) -> list[list[int | None]]:
    """Which images are hardest, instead of how far they are."""
    mined = _miner()(distances, labels)
    return [[None if d is None else row.index(d) for d in pair] for row, pair in zip(distances, mined, strict=True)]


def _multiplied(distances: Matrix, labels: list[int]) -> list[tuple[float, float]]:
    """Masks by products, whose zeros win the minimum."""
    of = range(len(labels))
    same = [[float(labels[a] == labels[i]) for i in of] for a in of]
    return [
        (max(distances[a][i] * same[a][i] for i in of), min(distances[a][i] * (1 - same[a][i]) for i in of)) for a in of
    ]


EXERCISE = Exercise(
    right=_miner(),
    cases={
        "the six points of the chapter": (_line(0, 1, 4, 6, 7, 9), [A, A, A, B, B, B]),
        "points of two people in mixed order": (_line(0, 3, 2, 7, 8), [A, B, A, B, A]),
        "two images at the same point": (_line(1, 1, 5, 9), [A, A, B, B]),
        "two positives at the same distance": (_line(2, 0, 4, 3, 9), [A, A, A, B, B]),
        "a person with one image": (_line(0, 2, 5), [A, A, C]),
        "a batch of one person": (_line(0, 2), [A, A]),
    },
    mistakes={
        "Your nearest negative may show the anchor's own person: leave out all images of this person before you take "
        "the minimum.": _miner(masked=False),
        "You take the nearest positive, which is the easiest: batch-hard mining takes the farthest.": _miner(
            positive=min
        ),
        "You take the farthest negative, which is the easiest: batch-hard mining takes the nearest.": _miner(
            negative=max
        ),
        "You return the negative first: return (hardest positive, hardest negative).": lambda distances, labels: [
            (negative, positive) for positive, negative in _miner()(distances, labels)
        ],
        "The anchor is its own positive: a person with one image has no positive, so give None.": _miner(itself=True),
        "Multiplying by a mask leaves zeros, and the minimum finds these: put infinity where there is no "
        "negative.": _multiplied,
        "Where no image is left you give 0: a distance of 0 would be a perfect match, so give None.": _miner(empty=0.0),
        "You return the numbers of the images: return their distances from the anchor.": _numbers,
        "You take means over all positives and negatives: batch-hard mining takes the farthest positive and the "
        "nearest negative.": _miner(lambda found: sum(found) / len(found), lambda found: sum(found) / len(found)),
    },
    notice="One image decides each distance, so one wrong label in the data is chosen again and again.",
)

"""Same person or not: with an open set, the person in a query may not be in the gallery at all.

A ranking always has a first rank; a threshold on the distance can also answer "nobody". How often it errs in either
direction is a curve, the ROC. Derived in notebooks/08_evaluation.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alignedreid_lib import evaluation
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.features import Features


class PairDistances(NamedTuple):
    """Distances of pairs of a query and a gallery image."""

    same: NDArray[np.float32]  # [S] of one person, seen by two cameras
    different: NDArray[np.float32]  # [D] of two people


class Roc(NamedTuple):
    """The error and success rates of accepting every pair up to a threshold; all three ascend."""

    thresholds: NDArray[np.float64]  # [T]
    false_accept_rate: NDArray[np.float64]  # [T] accepted share of the pairs of two people
    true_accept_rate: NDArray[np.float64]  # [T] accepted share of the pairs of one person


def pair_distances(features: Features, distance: str = "global") -> PairDistances:
    """The distances of all pairs of a query and a gallery image, without junk.

    Args:
        features: of a val or test part.
        distance: see `evaluation.distance_matrix`.

    Raises:
        InputError: no pair of one person, or none of two.
    """
    queries, gallery = evaluation.split(features)
    matrix = evaluation.distance_matrix(distance, queries, gallery).numpy()
    same = queries.ids[:, None] == gallery.ids[None, :]
    junk = same & (queries.cameras[:, None] == gallery.cameras[None, :]) & gallery.cameras_known
    pairs = PairDistances(matrix[same & ~junk], matrix[~same])
    if not len(pairs.same) or not len(pairs.different):
        raise InputError(f"{len(pairs.same)} pairs of one person, {len(pairs.different)} of two: both are needed")
    return pairs


def roc(same: ArrayLike, different: ArrayLike) -> Roc:
    """The receiver operating characteristic of a threshold on distances, with a point for each different distance.

    Args:
        same, different: [S], [D] distances of pairs that should be accepted, and of pairs that should not.

    Raises:
        InputError: no distances of one kind, or nan.
    """
    one, two = np.asarray(same, np.float64).ravel(), np.asarray(different, np.float64).ravel()
    if not len(one) or not len(two):
        raise InputError(f"{len(one)} distances of one person, {len(two)} of two: both are needed")
    if np.isnan(one).any() or np.isnan(two).any():
        raise InputError("the distances contain nan: look for broken features first")
    thresholds = np.unique(np.concatenate([one, two]))
    accepted = [np.searchsorted(np.sort(values), thresholds, "right") / len(values) for values in (two, one)]
    return Roc(thresholds, *accepted)


def choose_threshold(curve: Roc, false_accept_rate: float) -> float:
    """The largest distance to accept so that the false-accept rate is at most the given one, else minus infinity.

    Raises:
        InputError: a rate outside 0 to 1.
    """
    if not 0 <= false_accept_rate <= 1:
        raise InputError(f"false_accept_rate is {false_accept_rate!r}; give a share from 0 to 1")
    allowed = np.flatnonzero(curve.false_accept_rate <= false_accept_rate)
    return float(curve.thresholds[allowed[-1]]) if len(allowed) else -np.inf

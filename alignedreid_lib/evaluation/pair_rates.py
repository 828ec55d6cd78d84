"""How many pairs of one person a threshold accepts that lets few pairs of two people pass, from blocks of distances.

`verification.roc` draws the whole curve from all distances at once; this needs two points of it for galleries of any
size, and keeps few distances. Derived in notebooks/08_evaluation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignedreid_lib.evaluation.matches_and_junk import RankingProblem, Values, as_array

ONE_IN = (100, 1000)  # pairs of two people may pass: false-positive rates of 1e-2 and 1e-3


class PairRates:
    """Collects the distances that decide the true-positive rate at each false-positive rate of `ONE_IN`.

    These are all distances of one person (without junk), and the smallest ones of two people: with D pairs of two
    people, a rate of 1 / n allows floor(D / n) of them, so the threshold is below the next one.

    Args:
        problem: all queries, and the gallery.
    """

    def __init__(self, problem: RankingProblem) -> None:
        people, counts = np.unique(problem.gallery_ids, return_counts=True)
        at = np.minimum(np.searchsorted(people, problem.query_ids), len(people) - 1)
        alike = np.where(people[at] == problem.query_ids, counts[at], 0)  # [Q] gallery images of the query's identity
        self.different = int(problem.shape[0] * problem.shape[1] - alike.sum())
        self.allowed = [self.different // number for number in ONE_IN]
        self._same: list[NDArray[Any]] = []
        self._smallest: NDArray[Any] = np.zeros(0)

    def add(self, problem: RankingProblem, distances: Values) -> None:
        """The distances of some of the queries.

        Args:
            problem: these queries, and the gallery.
            distances: [q, G], array or tensor.
        """
        matrix = as_array(distances)
        alike = problem.query_ids[:, None] == problem.gallery_ids
        junk = problem.query_cameras[:, None] == problem.gallery_cameras
        self._same.append(matrix[alike & ~junk])
        most = max(self.allowed) + 1
        found = matrix[~alike]
        if len(self._smallest) >= most:
            found = found[found < self._smallest.max()]
        found = np.concatenate([self._smallest, found])
        self._smallest = np.partition(found, most - 1)[:most] if len(found) > most else found

    def rates(self) -> tuple[float, ...]:
        """The share of pairs of one person below each threshold, in [0, 1]; nan if either kind of pair is absent."""
        same = np.concatenate([*self._same, np.zeros(0)])
        if not len(same) or not self.different:
            return (float("nan"),) * len(ONE_IN)
        ordered = np.sort(self._smallest)
        return tuple(float((same < ordered[allowed]).mean()) for allowed in self.allowed)

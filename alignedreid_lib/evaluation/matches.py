"""Where a query's matches stand: their ranks, counted without sorting the gallery's indices.

Derived in notebooks/08_evaluation.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class MatchRanks(NamedTuple):
    """All M matches of Q queries, query after query, the nearest first."""

    num_queries: int  # Q, those without a match counted too
    query: NDArray[np.int64]  # [M] which query, ascending
    order: NDArray[np.int64]  # [M] how many matches of the same query lie before: 0, 1, 2, ...
    rank: NDArray[np.int64]  # [M] how many gallery images lie before, matches counted, junk not

    @property
    def counts(self) -> NDArray[np.int64]:
        """[Q] matches of each query."""
        return np.bincount(self.query, minlength=self.num_queries)


class OwnImages(NamedTuple):
    """All M gallery images of the queries' identities, junk included, query after query."""

    begins: NDArray[np.int64]  # [Q + 1] where each query's begin
    query: NDArray[np.int64]  # [M]
    image: NDArray[np.int64]  # [M] ascending inside a query


def own_images(query_ids: NDArray[np.int64], gallery_ids: NDArray[np.int64]) -> OwnImages:
    """Find the gallery images of each query's identity; ids [Q] and [G] are numbers."""
    by_id = np.argsort(gallery_ids, kind="stable")  # [G] stable: inside an id the gallery's order
    sorted_ids = gallery_ids[by_id]
    firsts = np.searchsorted(sorted_ids, query_ids, "left")
    sizes = np.searchsorted(sorted_ids, query_ids, "right") - firsts
    begins = np.append(0, np.cumsum(sizes))
    query = np.repeat(np.arange(len(query_ids)), sizes)
    return OwnImages(begins, query, by_id[np.arange(len(query)) + np.repeat(firsts - begins[:-1], sizes)])


def add_before(
    before: NDArray[np.int64],
    block: NDArray[Any],
    first: int,
    value: NDArray[Any],
    image: NDArray[np.int64],
    begins: NDArray[np.int64],
) -> None:
    """Count, for images of each row, how many entries of the row lie before: smaller, or equal and earlier.

    Args:
        before: [M] the counts to add to.
        block: [n, g] distances to gallery images first ... first + g.
        value, image: [M] distances and places of the images, row after row, ascending in each.
        begins: [n + 1] where each row's begin.
    """
    ordered = np.sort(
        block, axis=1
    )  # values, not indices: several times faster; and whole rows: to pick some is slower
    smaller, through = np.empty_like(before), np.empty_like(before)
    for row, begin, end in zip(ordered, begins[:-1].tolist(), begins[1:].tolist(), strict=True):
        smaller[begin:end] = row.searchsorted(value[begin:end], "left")
        through[begin:end] = row.searchsorted(value[begin:end], "right")
    before += smaller
    inside = (image >= first) & (image < first + block.shape[1])
    for i in np.flatnonzero(through - smaller > inside):  # not alone: ties
        row = block[np.searchsorted(begins, i, "right") - 1]
        before[i] += np.count_nonzero(row[: max(image[i] - first, 0)] == value[i])


def without_junk(
    own: OwnImages,
    image: NDArray[np.int64],
    before: NDArray[np.int64],
    query_cameras: NDArray[np.int64],
    gallery_cameras: NDArray[np.int64],
) -> MatchRanks:
    """The ranks of the matches among the queries' own images, in their order of distance: junk is taken off."""
    junk = gallery_cameras[image] == query_cameras[own.query]
    junk_before = np.cumsum(np.append(0, junk))  # over all: take off what earlier queries had
    rank = before - (junk_before[:-1] - np.repeat(junk_before[own.begins[:-1]], np.diff(own.begins)))
    query, rank = own.query[~junk], rank[~junk]
    counts = np.bincount(query, minlength=len(query_cameras))
    order = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
    return MatchRanks(len(query_cameras), query, order, rank)

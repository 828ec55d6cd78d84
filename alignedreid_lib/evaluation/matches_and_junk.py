"""The rank of every match, counted without sorting the gallery's indices.

A query's *matches* are the gallery images of its identity from other cameras. Images of its identity from its own
camera are *junk* and are left out. A match's rank is the number of gallery images before it, without junk: the
distances smaller than its own are counted. Images at equal distance keep the gallery's order.

Derived in notebooks/08_evaluation.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from alignedreid_lib import devices
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.rank_counts import as_array, count_before, count_on_device, over_blocks

Values = ArrayLike | torch.Tensor
Columns = Callable[[int, int], Values]  # gives the distances [Q, end - begin] to gallery images begin ... end


class MatchRanks(NamedTuple):
    """All M matches of Q queries, sorted by query, then by distance."""

    num_queries: int  # Q, including queries without a match
    query: NDArray[np.int64]  # [M] index of the query, ascending
    rank: NDArray[np.int64]  # [M] how many gallery images come before: matches count, junk does not

    @property
    def counts(self) -> NDArray[np.int64]:
        """[Q] matches of each query."""
        return np.bincount(self.query, minlength=self.num_queries)

    @property
    def order(self) -> NDArray[np.int64]:
        """[M] how many matches of the same query come before: 0, 1, 2, ..."""
        return np.arange(len(self.query)) - (np.cumsum(self.counts) - self.counts)[self.query]


class RankingProblem:
    """Queries, a gallery, and which gallery images match a query: everything except the distances.

    Args:
        query_ids, gallery_ids: [Q], [G] identities: integers of any value, or strings.
        query_cameras, gallery_cameras: [Q], [G] cameras: likewise.
        keep_same_camera: images of the query's identity from its own camera are matches too, not junk.

    Raises:
        InputError: no query, no gallery, different lengths, or labels that are neither integers nor strings.
    """

    def __init__(
        self,
        query_ids: Values,
        gallery_ids: Values,
        query_cameras: Values,
        gallery_cameras: Values,
        keep_same_camera: bool = False,
    ):
        self.query_ids, self.gallery_ids = _numbered("ids", query_ids, gallery_ids)
        self.query_cameras, self.gallery_cameras = _numbered("cameras", query_cameras, gallery_cameras)
        self.shape = (len(self.query_ids), len(self.gallery_ids))
        cameras = (len(self.query_cameras), len(self.gallery_cameras))
        for side, ids, found in zip(("query", "gallery"), self.shape, cameras, strict=True):
            if ids != found:
                raise InputError(f"there are {ids} {side}_ids and {found} {side}_cameras: give one of each per image")
        if keep_same_camera:
            self.query_cameras = np.full(self.shape[0], -1)  # no gallery image has this camera

    def columns(self, distances: Values | Columns, begin: int, end: int) -> Any:
        """Distances to gallery images begin ... end, array or tensor [Q, end - begin]; a matrix gives all of its own.

        Raises:
            InputError: a wrong shape, or not real numbers.
        """
        name = f"distances({begin}, {end})" if callable(distances) else "distances"
        given = distances(begin, end) if callable(distances) else distances
        matrix: Any = given if isinstance(given, torch.Tensor) else np.asarray(given)
        shape, wanted = tuple(matrix.shape), (self.shape[0], end - begin)
        if shape != wanted:
            raise InputError(f"{name} has shape {shape}: the ids and cameras need {wanted}")
        if as_array(matrix[:0]).dtype.kind not in "fiu":  # no row: reading values would make an accelerator wait
            raise InputError(f"{name} is {matrix.dtype}: give real numbers")
        return matrix

    def find_matches(self, distances: Values | Columns, chunk: int | None = None) -> MatchRanks:
        """The rank of every match.

        Args:
            distances: matrix [Q, G], or a function that gives some of its columns, see `streaming.score_stream`.
            chunk: columns at a time, for a function.

        Raises:
            InputError: distances of a wrong shape or type, or nan.
        """
        begins, image = self._own_images
        query = np.repeat(np.arange(self.shape[0]), np.diff(begins))
        if isinstance(distances, torch.Tensor) and devices.is_accelerator(distances.device):
            before = count_on_device(self.columns(distances, 0, self.shape[1]), query, image, begins)
            nearest = np.lexsort((before, query))
            image, before = image[nearest], before[nearest]
        else:
            image, before = self._count_on_host(distances, chunk or self.shape[1], query)
        junk = self.gallery_cameras[image] == self.query_cameras[query]
        junk_before = np.cumsum(junk) - junk  # over all queries: subtract the junk of earlier queries
        rank = before - (junk_before - junk_before[begins[query]])
        return MatchRanks(self.shape[0], query[~junk], rank[~junk])

    def _count_on_host(
        self, distances: Values | Columns, chunk: int, query: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The images of `_own_images`, each query's nearest first, and how many images come before each: [M], [M]."""
        begins, image = self._own_images
        num_gallery = self.shape[1]
        firsts = range(0, num_gallery, chunk)

        def columns(first: int) -> Any:
            return self.columns(distances, first, min(first + chunk, num_gallery))

        places, values = [np.zeros(0, np.int64)], [np.zeros(0, bool)]  # bool: the distances decide the joined type
        for first in firsts:
            here = np.flatnonzero((image >= first) & (image < first + chunk))
            if len(here):
                places.append(here)
                values.append(as_array(columns(first)[query[here], image[here] - first]))
        value = np.concatenate(values)[np.argsort(np.concatenate(places))]
        nearest = np.lexsort((value, query))  # stable: equal distances stay in the gallery's order
        image, value = image[nearest], value[nearest]
        before = np.zeros(len(image), np.int64)
        for first in firsts:

            def count(start: int, rows: NDArray[Any], first: int = first) -> None:
                bounds = begins[start : start + len(rows) + 1]
                own = slice(bounds[0], bounds[-1])  # a view: each thread writes to its own part
                before[own] += count_before(rows, first, value[own], image[own], bounds - bounds[0])

            over_blocks(count, columns(first))
        return image, before

    @cached_property
    def _own_images(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Gallery images of each query's identity, junk included: where each query's begin [Q + 1], and indices [M]."""
        num_ids = 1 + max(self.query_ids.max(), self.gallery_ids.max())
        one_hot = [
            sparse.csr_array((np.ones(len(ids), bool), ids, np.arange(len(ids) + 1)), shape=(len(ids), num_ids))
            for ids in (self.query_ids, self.gallery_ids)
        ]
        own = (one_hot[0] @ one_hot[1].T).sorted_indices()
        return own.indptr.astype(np.int64), own.indices.astype(np.int64)


def _numbered(what: str, query: Values, gallery: Values) -> list[NDArray[np.int64]]:
    """Labels of both sides as numbers counted from 0: [Q], [G]."""
    both = []
    for name, values in ((f"query_{what}", query), (f"gallery_{what}", gallery)):
        labels = as_array(values)
        if labels.ndim != 1 or not len(labels):
            raise InputError(f"{name} have shape {labels.shape}: give a list, one for each image, at least one")
        if labels.dtype.kind not in "iuUS":
            raise InputError(f"{name} are {labels.dtype}: give integers or strings")
        both.append(labels.astype(np.int64) if labels.dtype.kind in "iu" else labels)
    if both[0].dtype.kind != both[1].dtype.kind:
        raise InputError(f"query_{what} are {both[0].dtype}, gallery_{what} {both[1].dtype}: give one type")
    codes = np.unique(np.concatenate(both), return_inverse=True)[1]
    return np.split(codes, [len(both[0])])

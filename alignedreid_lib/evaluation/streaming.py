"""Scores of galleries too large for a distance matrix: the gallery comes in chunks, and only counts are kept.

A match's rank is the number of gallery images before it. So it is enough to know the distances of the matches, and
then to count, chunk by chunk, what is smaller. Derived in notebooks/08_evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import problem, ranking
from alignedreid_lib.evaluation.problem import Values
from alignedreid_lib.evaluation.ranking import AveragePrecision, MatchRanks, RankingScores

_THREADS = 4
_ROWS = 64  # queries at a time and thread


def score_stream(
    distances: Callable[[int, int], Values],
    query_ids: Values,
    gallery_ids: Values,
    query_cameras: Values,
    gallery_cameras: Values,
    protocol: Literal["market1501", "allshots"] = "market1501",
    average_precision: AveragePrecision = "trapezoid",
    top: int = 50,
    keep_same_camera: bool = False,
    chunk: int = 16384,
) -> RankingScores:
    """The scores of `ranking.score_ranking`, exactly, without ever holding the matrix [Q, G].

    Args:
        distances: distances(begin, end) gives those of all queries to gallery images begin ... end, [Q, end - begin].
            It is called once for every chunk, and once more before for chunks that hold images of the queries'
            identities; both times it has to give the same numbers.
        query_ids, ...: as in `score_ranking`.
        protocol: not `cuhk03`, whose draw of one image an identity needs all distances of a query at once.
        chunk: gallery images at a time; memory grows with Q times it.

    Raises:
        InputError: as `score_ranking`; the protocol `cuhk03`; chunks of another shape.
    """
    if protocol not in ("market1501", "allshots"):
        raise InputError(f"protocol {protocol!r} cannot be scored in chunks: choose market1501 or allshots")
    if isinstance(top, bool) or not isinstance(top, int | np.integer) or top < 1:
        raise InputError(f"top is {top!r}: give the length of the CMC, an integer of 1 or more")
    people = (query_ids, gallery_ids, query_cameras, gallery_cameras)
    found = find_matches_stream(distances, *people, keep_same_camera, chunk)
    return ranking.scores_of(found, ranking.cumulative_matches(found, protocol, top), average_precision)


def find_matches_stream(
    distances: Callable[[int, int], Values],
    query_ids: Values,
    gallery_ids: Values,
    query_cameras: Values,
    gallery_cameras: Values,
    keep_same_camera: bool = False,
    chunk: int = 16384,
) -> MatchRanks:
    """The rank of every match; args and errors are those of `score_stream`."""
    if chunk < 1:
        raise InputError(f"chunk is {chunk}; give gallery images at a time, 1 or more")
    shape = (len(np.asarray(query_ids)), len(np.asarray(gallery_ids)))
    if 0 in shape:
        raise InputError(f"there are {shape[0]} queries and {shape[1]} gallery images: neither may be 0")
    people = (query_ids, gallery_ids, query_cameras, gallery_cameras)
    queries, gallery, query_at, gallery_at = problem.checked_labels(*people, shape, keep_same_camera)
    own = ranking.own_images(queries, gallery)

    def block(begin: int) -> NDArray[Any]:
        end = min(begin + chunk, shape[1])
        found = problem.checked_block(distances(begin, end))
        if found.shape != (shape[0], end - begin):
            raise InputError(f"distances({begin}, {end}) has shape {found.shape}: give ({shape[0]}, {end - begin})")
        return found

    value = np.zeros(len(own.image))
    for begin in range(0, shape[1], chunk):
        here = np.flatnonzero((own.image >= begin) & (own.image < begin + chunk))
        if len(here):
            value[here] = block(begin)[own.query[here], own.image[here] - begin]
    nearest = np.lexsort((value, own.query))
    image, value = own.image[nearest], value[nearest]
    before = np.zeros(len(image), np.int64)
    starts = range(0, shape[0], _ROWS)
    with ThreadPoolExecutor(_THREADS) as pool:
        for begin in range(0, shape[1], chunk):
            whole = block(begin)
            typed = value.astype(whole.dtype)  # as they came: 64 bits beside 32 would compare slowly

            def count(start: int, whole: NDArray[Any] = whole, begin: int = begin, typed: NDArray[Any] = typed) -> None:
                begins = own.begins[start : start + _ROWS + 1]
                part = slice(begins[0], begins[-1])  # a view: threads write to parts of their own
                rows = whole[start : start + _ROWS]
                ranking.add_before(before[part], rows, begin, typed[part], image[part], begins - begins[0])

            list(pool.map(count, starts))
    return ranking.without_junk(own, image, before, query_at, gallery_at)

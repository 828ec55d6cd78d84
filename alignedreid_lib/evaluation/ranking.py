"""From distances to CMC and mean average precision, without sorting more than a score needs.

A query's *matches* are the gallery images of its identity from other cameras; images of its identity from its
own camera are *junk*, and left out as if they were not there. Every score follows from one number a match: its
rank, the count of gallery images before it, junk left out. Equal distances are ordered as the gallery is.

Derived in notebooks/08_evaluation.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.matches import MatchRanks, add_before, own_images, without_junk
from alignedreid_lib.evaluation.problem import Problem, Values, checked, over_blocks

Protocol = Literal["market1501", "allshots", "cuhk03"]
AveragePrecision = Literal["trapezoid", "step"]


class RankingScores(NamedTuple):
    """What `score_ranking` returns: means over the valid queries, and the values of each query."""

    cmc: NDArray[np.float64]  # [top], cmc[k] is the rank-(k+1) score; nan if no query is valid
    mean_ap: float  # nan if no query is valid
    cmc_per_query: NDArray[np.float64]  # [Q, top], zeros where the query has no match
    ap_per_query: NDArray[np.float64]  # [Q], nan where the query has no match
    valid: NDArray[np.bool_]  # [Q], True where the query has a match


def score_ranking(
    distances: Values,
    query_ids: Values,
    gallery_ids: Values,
    query_cameras: Values,
    gallery_cameras: Values,
    protocol: Protocol = "market1501",
    average_precision: AveragePrecision = "trapezoid",
    top: int = 50,
    keep_same_camera: bool = False,
) -> RankingScores:
    """CMC and average precision of every query, and their means over the queries that have a match.

    Args:
        distances: [Q, G] numpy array or tensor, real numbers, smaller is nearer; infinity is allowed.
        query_ids, gallery_ids: [Q], [G] identities: integers of any value, or strings.
        query_cameras, gallery_cameras: [Q], [G] cameras: likewise.
        protocol: how the CMC counts. `market1501`: 1 from the first match on. `allshots`: the share of the
            matches with at most k images of other identities before them. `cuhk03`: only images of other
            cameras, and one image an identity, drawn at random; the exact expectation, not a sample.
        average_precision: `trapezoid`, as Market-1501's own evaluation, or `step`, as later toolboxes. It is
            the same under every protocol: all matches count, and all images but junk.
        top: length of the CMC, 1 or more; it may be longer than the gallery.
        keep_same_camera: images of the query's identity from its own camera are matches too, not junk.

    Returns:
        RankingScores; a query without a match is not valid and left out of the means.

    Raises:
        InputError: a wrong shape or length, no query, no gallery, nan, or an unknown protocol or definition.

    Source: Zheng et al. ICCV 2015 (Market-1501), Li et al. CVPR 2014 (CUHK03).
    Derived in notebooks/08_evaluation.
    """
    if protocol not in get_args(Protocol):
        raise InputError(f"protocol {protocol!r} is not known: choose one of {', '.join(get_args(Protocol))}")
    if isinstance(top, bool) or not isinstance(top, int | np.integer) or top < 1:
        raise InputError(f"top is {top!r}: give the length of the CMC, an integer of 1 or more")
    problem = checked(distances, query_ids, gallery_ids, query_cameras, gallery_cameras, keep_same_camera)
    found = _find_matches(problem)
    cmc = _single_shot_cmc(problem, top) if protocol == "cuhk03" else cumulative_matches(found, protocol, top)
    return scores_of(found, cmc, average_precision)


def scores_of(found: MatchRanks, cmc: NDArray[np.float64], average_precision: AveragePrecision) -> RankingScores:
    """Put the scores of each query, CMC [Q, top] among them, and their means together."""
    aps = average_precisions(found, average_precision)
    valid = found.counts > 0
    if not valid.any():
        return RankingScores(np.full(cmc.shape[1], np.nan), float("nan"), cmc, aps, valid)
    return RankingScores(cmc[valid].mean(axis=0), float(aps[valid].mean()), cmc, aps, valid)


def find_matches(
    distances: Values,
    query_ids: Values,
    gallery_ids: Values,
    query_cameras: Values,
    gallery_cameras: Values,
    keep_same_camera: bool = False,
) -> MatchRanks:
    """The rank of every match: all that AP and CMC (but for the protocol `cuhk03`) need.

    Args and errors are those of `score_ranking`. Derived in notebooks/08_evaluation.
    """
    return _find_matches(checked(distances, query_ids, gallery_ids, query_cameras, gallery_cameras, keep_same_camera))


def join_matches(parts: Sequence[MatchRanks]) -> MatchRanks:
    """The matches of all queries from those of blocks of queries, in order; so the matrix is never needed whole."""
    firsts = np.cumsum([0] + [part.num_queries for part in parts])
    query = np.concatenate([part.query + first for part, first in zip(parts, firsts[:-1], strict=True)])
    order, rank = (np.concatenate([getattr(part, name) for part in parts]) for name in ("order", "rank"))
    return MatchRanks(int(firsts[-1]), query, order, rank)


def average_precisions(found: MatchRanks, definition: AveragePrecision) -> NDArray[np.float64]:
    """Area under the precision-recall curve of each query, [Q]; nan where a query has no match.

    Args:
        found: the matches.
        definition: `step`: the mean of the precision at every match. `trapezoid`: at every match the mean of
            the precision there and one place before; before the first place precision is 1.

    Raises:
        InputError: an unknown definition.

    Source: Zheng et al. ICCV 2015 for the trapezoid. Derived in notebooks/08_evaluation.
    """
    if definition not in get_args(AveragePrecision):
        known = ", ".join(get_args(AveragePrecision))
        raise InputError(f"average_precision {definition!r} is not known: choose one of {known}")
    heights = (found.order + 1) / (found.rank + 1)
    if definition == "trapezoid":
        before = np.where(found.rank == 0, 1.0, found.order / np.maximum(found.rank, 1))
        heights = (heights + before) / 2
    total = np.bincount(found.query, weights=heights, minlength=found.num_queries)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the nan of a query without a match
        return total / found.counts


def cumulative_matches(found: MatchRanks, protocol: Literal["market1501", "allshots"], top: int) -> NDArray[np.float64]:
    """CMC of each query, [Q, top], where the whole gallery takes part; zeros where a query has no match.

    Derived in notebooks/08_evaluation.
    """
    if protocol == "market1501":
        places, weights = found.rank, (found.order == 0).astype(np.float64)
    else:
        places, weights = found.rank - found.order, 1 / found.counts[found.query]
    steps = np.zeros((found.num_queries, top + 1))  # the last column holds what comes after `top`
    np.add.at(steps, (found.query, np.minimum(places, top)), weights)
    return np.minimum(steps[:, :top].cumsum(axis=1), 1.0)  # n times 1/n may be a rounding above 1


def _find_matches(problem: Problem) -> MatchRanks:
    own = own_images(problem.query_ids, problem.gallery_ids)

    def of_block(start: int, block: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        begins = own.begins[start : start + len(block) + 1]
        row, image = own.query[begins[0] : begins[-1]] - start, own.image[begins[0] : begins[-1]]
        value = block[row, image]
        nearest = np.lexsort((value, row))  # stable too: equal distances stay in the gallery's order
        image, value = image[nearest], value[nearest]
        before = np.zeros(len(row), np.int64)
        add_before(before, block, 0, value, image, begins - begins[0])
        return image, before

    image, before = (np.concatenate(parts) for parts in zip(*over_blocks(of_block, problem.distances), strict=True))
    return without_junk(own, image, before, problem.query_cameras, problem.gallery_cameras)


def _single_shot_cmc(problem: Problem, top: int) -> NDArray[np.float64]:
    """CMC [Q, top] where one image an id is drawn: P(at most k of the other ids' images lie before the match).

    Id i lies before a match with probability p_i, the share of its images that do. Ids are drawn independently,
    so the number of those before is a sum of coins with different p_i, a Poisson-binomial variable; its
    distribution comes from adding one coin after the other. Each match is the drawn one with equal chance.
    """
    by_id = np.argsort(problem.gallery_ids, kind="stable")  # [G] everything below is in this order
    ids, cameras = problem.gallery_ids[by_id], problem.gallery_cameras[by_id]
    starts = np.flatnonzero(np.diff(ids, prepend=-1))  # [I] where each id begins

    def curves(start: int, block: NDArray[Any]) -> NDArray[np.float64]:
        cmc = np.zeros((len(block), top))
        owners: list[int] = []  # the row of each match
        chances: list[NDArray[np.float64]] = []  # [I] of each match
        for row, values in enumerate(block[:, by_id]):
            other_camera = cameras != problem.query_cameras[start + row]
            images = np.maximum(np.add.reduceat(other_camera, starts, dtype=np.int64), 1)
            own = ids[starts] == problem.query_ids[start + row]
            for match in np.flatnonzero(other_camera & (ids == problem.query_ids[start + row])):
                before = values < values[match]
                before |= (values == values[match]) & (by_id < by_id[match])
                counts = np.add.reduceat(before & other_camera, starts, dtype=np.int64)
                owners.append(row)
                chances.append(np.where(own, 0, counts / images))
        if owners:
            number = np.zeros((top, len(owners)))  # [k, match]: P(k ids before), coins added so far
            number[0] = 1
            for chance in np.array(chances).T:
                moved = number * chance
                number -= moved
                number[1:] += moved[:-1]
            np.add.at(cmc, owners, (number.cumsum(axis=0) / np.bincount(owners)[owners]).T)
        return np.minimum(cmc, 1.0)

    return np.concatenate(over_blocks(curves, problem.distances))

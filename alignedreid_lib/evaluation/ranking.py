"""CMC and mean average precision from the ranks of the matches. Derived in notebooks/08_evaluation."""

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.matches_and_junk import Columns, MatchRanks, RankingProblem, Values
from alignedreid_lib.evaluation.rank_counts import over_blocks

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
        query_ids, ..., keep_same_camera: see `matches_and_junk.RankingProblem`.
        protocol: how the CMC counts. `market1501`: 1 once a match is found. `allshots`: the share of the matches
            with at most k images of other identities before them. `cuhk03`: only images of other
            cameras, and one image per identity, drawn at random; the exact expectation, not a sample.
        average_precision: `trapezoid`, as Market-1501's own evaluation, or `step`, as later toolboxes. It is
            the same under every protocol: all matches count, and all images but junk.
        top: length of the CMC, 1 or more; it may be longer than the gallery.

    Returns:
        RankingScores; a query without a match is not valid and left out of the means.

    Raises:
        InputError: a wrong shape or length, no query, no gallery, nan, or an unknown protocol or definition.

    Source: Zheng et al. ICCV 2015 (Market-1501), Li et al. CVPR 2014 (CUHK03).
    """
    problem = RankingProblem(query_ids, gallery_ids, query_cameras, gallery_cameras, keep_same_camera)
    return score(problem, distances, protocol, average_precision, top)


def score(
    problem: RankingProblem,
    distances: Values | Columns,
    protocol: Protocol,
    average_precision: AveragePrecision,
    top: int,
    chunk: int | None = None,
) -> RankingScores:
    """The scores of a ranking problem; args and errors are those of `score_ranking` and `streaming.score_stream`."""
    if protocol not in get_args(Protocol):
        raise InputError(f"protocol {protocol!r} is not known: choose one of {', '.join(get_args(Protocol))}")
    if isinstance(top, bool) or not isinstance(top, int | np.integer) or top < 1:
        raise InputError(f"top is {top!r}: give the length of the CMC, an integer of 1 or more")
    found = problem.find_matches(distances, chunk)
    aps = average_precisions(found, average_precision)
    cmc = curves(problem, distances, found, protocol, top)
    valid = found.counts > 0
    if not valid.any():
        return RankingScores(np.full(top, np.nan), float("nan"), cmc, aps, valid)
    return RankingScores(cmc[valid].mean(axis=0), float(aps[valid].mean()), cmc, aps, valid)


def average_precisions(found: MatchRanks, definition: AveragePrecision) -> NDArray[np.float64]:
    """Area under the precision-recall curve of each query, [Q]; nan where a query has no match.

    Args:
        definition: `step`: the mean of the precision at every match. `trapezoid`: at every match the mean of
            the precision there and one rank before; before rank 1 precision is 1.

    Raises:
        InputError: an unknown definition.

    Source: Zheng et al. ICCV 2015 for the trapezoid.
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


def inverse_penalties(found: MatchRanks) -> NDArray[np.float64]:
    """Matches per rank down to the last match, of each query, [Q] in (0, 1]; nan where a query has no match.

    A query's last match at rank r, counted from 1, among m matches gives m / r: the share of matches among all images
    that a user looks at to find every one of them.

    Source: Ye et al. 2021 (AGW); its mean over the queries is mINP.
    """
    last = np.zeros(found.num_queries)
    np.maximum.at(last, found.query, found.rank + 1)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the nan of a query without a match
        return found.counts / last


def curves(
    problem: RankingProblem, distances: Values | Columns, found: MatchRanks, protocol: Protocol, top: int
) -> NDArray[np.float64]:
    """CMC of each query, [Q, top]; zeros where a query has no match.

    Args:
        distances: only the protocol `cuhk03` reads them again; it needs a matrix.
        found: the matches by these distances.
    """
    if protocol == "cuhk03":
        return _single_shot_cmc(problem, problem.columns(distances, 0, problem.shape[1]), top)
    if protocol == "market1501":
        places, weights = found.rank, (found.order == 0).astype(np.float64)
    else:
        places, weights = found.rank - found.order, 1 / found.counts[found.query]
    steps = np.zeros((found.num_queries, top + 1))  # the last column collects what comes after `top`
    np.add.at(steps, (found.query, np.minimum(places, top)), weights)
    return np.minimum(steps[:, :top].cumsum(axis=1), 1.0)  # n times 1/n may be a rounding above 1


def _single_shot_cmc(problem: RankingProblem, distances: Any, top: int) -> NDArray[np.float64]:
    """CMC [Q, top] with one random image per id: P(at most k images of other ids are nearer than the match).

    Id i comes before a match with probability p_i, the share of its images that are nearer. Ids are drawn
    independently, so the number of ids before is a sum of coins with different p_i, a Poisson-binomial variable. Its
    distribution is computed by adding one coin at a time. Each match is drawn with equal probability.
    """
    by_id = np.argsort(problem.gallery_ids, kind="stable")  # [G] everything below is in this order
    ids, cameras = problem.gallery_ids[by_id], problem.gallery_cameras[by_id]
    starts = np.flatnonzero(np.diff(ids, prepend=-1))  # [I] where each id begins

    def of_block(start: int, block: NDArray[Any]) -> NDArray[np.float64]:
        cmc = np.zeros((len(block), top))
        owners: list[int] = []  # the row of each match
        chances: list[NDArray[np.float64]] = []  # [I] of each match
        for row, values in enumerate(block[:, by_id]):
            other_camera = cameras != problem.query_cameras[start + row]
            own = ids == problem.query_ids[start + row]
            others = other_camera & ~own
            images = np.maximum(np.add.reduceat(other_camera, starts, dtype=np.int64), 1)
            for match in np.flatnonzero(other_camera & own):
                nearer = (values < values[match]) | ((values == values[match]) & (by_id < by_id[match]))
                counts = np.add.reduceat(nearer & others, starts, dtype=np.int64)
                owners.append(row)
                chances.append(counts / images)
        if owners:
            number = np.zeros((top, len(owners)))  # [k, match]: P(k ids before), coins added so far
            number[0] = 1
            for chance in np.array(chances).T:
                moved = number * chance
                number -= moved
                number[1:] += moved[:-1]
            np.add.at(cmc, owners, (number.cumsum(axis=0) / np.bincount(owners)[owners]).T)
        return np.minimum(cmc, 1.0)

    return np.concatenate(over_blocks(of_block, distances))

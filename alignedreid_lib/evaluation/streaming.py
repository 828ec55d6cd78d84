"""Scores of galleries too large for a distance matrix, in chunks. Derived in notebooks/11_time_and_space."""

from typing import Literal

from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import ranking
from alignedreid_lib.evaluation.matches_and_junk import Columns, RankingProblem, Values


def score_stream(
    distances: Columns,
    query_ids: Values,
    gallery_ids: Values,
    query_cameras: Values,
    gallery_cameras: Values,
    protocol: Literal["market1501", "allshots"] = "market1501",
    average_precision: ranking.AveragePrecision = "trapezoid",
    top: int = 50,
    keep_same_camera: bool = False,
    chunk: int = 16384,
) -> ranking.RankingScores:
    """The scores of `ranking.score_ranking`, exactly, without ever holding the matrix [Q, G].

    Args:
        distances: distances(begin, end) gives those of all queries to gallery images begin ... end, [Q, end - begin].
            It is called once for every chunk, and once more before for chunks with images of the queries'
            identities; both times it has to give the same numbers.
        query_ids, ...: as in `score_ranking`.
        protocol: not `cuhk03`, whose draw of one image per identity needs all distances of a query at once.
        chunk: gallery images at a time; memory grows with Q times it.

    Raises:
        InputError: as `score_ranking`; the protocol `cuhk03`; chunks of a wrong shape.
    """
    if protocol not in ("market1501", "allshots"):
        raise InputError(f"protocol {protocol!r} cannot be scored in chunks: choose market1501 or allshots")
    if chunk < 1:
        raise InputError(f"chunk is {chunk}; give gallery images at a time, 1 or more")
    problem = RankingProblem(query_ids, gallery_ids, query_cameras, gallery_cameras, keep_same_camera)
    return ranking.score(problem, distances, protocol, average_precision, top, chunk)

"""From features to the score table that papers print. Derived in notebooks/08_evaluation."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignedreid_lib import devices, losses
from alignedreid_lib.datasets.partitions import GALLERY, MULTI_QUERY, QUERY
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import ranking
from alignedreid_lib.evaluation.distances import DISTANCES, distance_matrices, reranked_matrices
from alignedreid_lib.evaluation.features import Features
from alignedreid_lib.evaluation.matches_and_junk import RankingProblem, Values
from alignedreid_lib.evaluation.pair_rates import PairRates
from alignedreid_lib.evaluation.scores import MORE_SCORES, SCORES, QueryScores, ScoreRow, ScoreTable

_BLOCK_BYTES = 32 << 20  # limit for a block of one distance: 500 queries for a gallery of Market-1501's size


def evaluate(
    features: Features,
    distances: Sequence[str] = ("global", "local", "global+local"),
    rerank: bool = True,
    multi_query: Literal["average", "max"] | None = None,
    name: str = "",
    normalize: bool = False,
    protocol: ranking.Protocol = "market1501",
    device: str | None = None,
) -> ScoreTable:
    """Rank the gallery for every query, and score the ranking: the original reproduction's whole table by default.

    Args:
        features: of a val or test part: mark 0 are the queries, mark 1 the gallery; mark 2 is for `multi_query`.
        distances: what to rank by, one row of the table each, see `distance_matrix`.
        rerank: add a re-ranked row after each; it needs the distances within the gallery, G x G for local ones.
        multi_query: pool each query's features with those of mark 2, see `pool_queries`. None: single query.
        name: names the features, in the table's first column.
        normalize: scale features to unit length first, for networks trained so.
        protocol: how the CMC counts, see `ranking.score_ranking`.
        device: where distances, ranks and neighbours are computed: "auto", "cpu", "cuda", ...; None is the features'
            own. It needs twice the features' memory, 2 GB for blocks and, with re-ranking, 4 (Q + G)^2 bytes: 4.2 GB
            for Market-1501.

    Returns:
        ScoreTable with a row for each distance, and for each re-ranked one.

    Raises:
        InputError: no query or no gallery, an unknown distance, protocol or device, nothing to pool with, or nan in
            features.

    Source: Zheng et al. ICCV 2015; Zhong et al. CVPR 2017 for re-ranking.
    """
    if isinstance(distances, str) or not distances or any(distance not in DISTANCES for distance in distances):
        raise InputError(f"distances are {distances!r}: give a list of some of {', '.join(DISTANCES)}")
    if protocol not in get_args(ranking.Protocol):
        raise InputError(f"protocol {protocol!r} is not known: give one of {', '.join(get_args(ranking.Protocol))}")
    if not features.local_features.numel() and any(distance != "global" for distance in distances):
        raise InputError("the features have no local part: give distances=('global',)")
    if normalize:
        features = features.map(losses.unit_length)
    queries, gallery = split(features)
    if multi_query is not None:
        queries = pool_queries(queries, features[features.marks == MULTI_QUERY], multi_query)
        queries = queries.map(losses.unit_length) if normalize else queries
    there = features.global_features.device if device is None else devices.choose_device(device)
    queries, gallery = (side.map(lambda part: part.to(there)) for side in (queries, gallery))
    whole = _problem(queries, gallery)
    kinds = [(distance, reranked) for distance in distances for reranked in (False, True)[: 1 + rerank]]
    scored: dict[tuple[str, bool], list[NDArray[np.float64]]] = {kind: [] for kind in kinds}
    pairs = {kind: PairRates(whole) for kind in kinds}
    step = max(1, _BLOCK_BYTES // (4 * len(gallery)))
    for begin in range(0, len(queries), step):  # keeps no whole matrix, computes no local distance twice
        block = queries[begin : begin + step]
        problem = _problem(block, gallery)
        for distance, matrix in distance_matrices(distances, block, gallery).items():
            scored[distance, False].append(_score_queries(problem, matrix, protocol))
            pairs[distance, False].add(problem, matrix)
    if rerank:
        for distance, found in reranked_matrices(distances, queries, gallery):
            ranked = torch.from_numpy(found).to(there) if devices.is_accelerator(there) else found
            scored[distance, True].append(_score_queries(whole, ranked, protocol))
            pairs[distance, True].add(whole, found)
    rows = []
    for kind in kinds:
        scores = np.concatenate(scored[kind])
        valid = ~np.isnan(scores).any(axis=1)
        means = [float(column[valid].mean()) if valid.any() else math.nan for column in scores.T]
        entries: dict[str, Any] = dict(zip((*SCORES, "mean_inp"), means, strict=True))
        entries |= zip(MORE_SCORES[1:], pairs[kind].rates(), strict=True)
        if protocol == "market1501":  # under the others a query's rank-1 may be a fraction
            entries["per_query"] = QueryScores(scores[:, 0], scores[:, 3], queries.ids.astype(np.int64))
        entries |= {"num_queries": len(scores), "num_valid": int(valid.sum())}
        rows.append(ScoreRow(name, *kind, **entries, cameras_known=gallery.cameras_known))
    return ScoreTable(rows)


def _problem(queries: Features, gallery: Features) -> RankingProblem:
    people = (queries.ids, gallery.ids, queries.cameras, gallery.cameras)
    return RankingProblem(*people, keep_same_camera=not gallery.cameras_known)


def _score_queries(problem: RankingProblem, matrix: Values, protocol: ranking.Protocol) -> NDArray[np.float64]:
    """The scores of each query in the order of `scores.SCORES`, then its INP, [Q, 6]; nan where it is not valid."""
    found = problem.find_matches(matrix)
    places = ranking.curves(problem, matrix, found, protocol, top=10)[:, [0, 4, 9]]
    places[found.counts == 0] = math.nan
    aps = (ranking.average_precisions(found, definition) for definition in ("step", "trapezoid"))
    return np.column_stack([places, *aps, ranking.inverse_penalties(found)])


def pool_queries(queries: Features, others: Features, how: str) -> Features:
    """Each query's features pooled with those of multi-query images of its person in its camera, if there are any.

    Args:
        how: average or max, channel by channel; likewise for each stripe.

    Raises:
        InputError: an unknown `how`, or no multi-query images at all.

    Source: Zheng et al. ICCV 2015, section 5.
    """
    if how not in ("average", "max"):
        raise InputError(f"multi_query is {how!r}: give 'average', 'max' or None")
    if not len(others):
        raise InputError("there are no multi-query images (mark 2): only Market-1501 has them; leave multi_query None")
    alike = (queries.ids[:, None] == others.ids) & (queries.cameras[:, None] == others.cameras)  # [Q, M]

    def pool(own: Tensor, rest: Tensor) -> Tensor:
        chosen = [torch.from_numpy(np.flatnonzero(row)) for row in alike]  # indices: a mask makes an accelerator wait
        groups = [torch.cat([one[None], rest[index]]) for one, index in zip(own, chosen, strict=True)]
        return torch.stack([group.mean(0) if how == "average" else group.amax(0) for group in groups])

    return dataclasses.replace(
        queries,
        global_features=pool(queries.global_features, others.global_features),
        local_features=pool(queries.local_features, others.local_features),
    )


def split(features: Features) -> tuple[Features, Features]:
    """The queries and the gallery among the features of a val or test part.

    Raises:
        InputError: no queries, or no gallery.
    """
    queries, gallery = features[features.marks == QUERY], features[features.marks == GALLERY]
    if not len(queries) or not len(gallery):
        what = f"{len(queries)} queries (mark {QUERY}) and {len(gallery)} gallery images (mark {GALLERY})"
        raise InputError(f"the features have {what}: take features of a val or test part")
    return queries, gallery


def ranked_list(
    distances: np.ndarray,
    query_id: int,
    gallery_ids: np.ndarray,
    query_camera: int,
    gallery_cameras: np.ndarray,
    top: int = 10,
    keep_same_camera: bool = False,
) -> np.ndarray:
    """The gallery images that a user would be shown for one query, without junk unless `keep_same_camera`.

    Args:
        distances, gallery_ids, gallery_cameras: [G]; the distances are those to the query.

    Returns:
        indices into the gallery [top or fewer], nearest first; equal distances in the gallery's order.
    """
    kept = np.flatnonzero((gallery_ids != query_id) | (gallery_cameras != query_camera) | keep_same_camera)
    return kept[np.argsort(distances[kept], kind="stable")[:top]]

"""From features to the score table that papers print.

Derived in notebooks/08_evaluation.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from alignedreid_lib import losses
from alignedreid_lib.batches import images
from alignedreid_lib.datasets import Dataset
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import ranking
from alignedreid_lib.evaluation.distances import DISTANCES, add_up, reranked_matrix, summand
from alignedreid_lib.evaluation.features import Features
from alignedreid_lib.evaluation.scores import ScoreRow, ScoreTable

QUERY, GALLERY, MULTI_QUERY = 0, 1, 2  # marks

_BLOCK_BYTES = 32 << 20  # of distances held at a time: 500 queries for a gallery of Market-1501's size


def evaluate(
    features: Features,
    distances: Sequence[str] = ("global", "local", "global+local"),
    rerank: bool = True,
    multi_query: Literal["average", "max"] | None = None,
    name: str = "",
    normalize: bool = False,
    protocol: ranking.Protocol = "market1501",
) -> ScoreTable:
    """Rank the gallery for every query, and score the ranking: the original reproduction's whole table by default.

    Args:
        features: of a val or test part: mark 0 are the queries, mark 1 the gallery; mark 2 is for `multi_query`.
        distances: what to rank by, a row of the table each, see `distance_matrix`.
        rerank: add a re-ranked row after each; it needs the distances of the gallery to itself, G x G for local ones.
        multi_query: pool each query with the images of mark 2 that show its person in its camera: by the mean or the
            maximum of every channel. None: single query.
        name: of the features, for the table's first column.
        normalize: bring features to unit length first, for networks trained so.
        protocol: how the CMC counts, see `ranking.score_ranking`.

    Returns:
        ScoreTable with a row for each distance, and for each re-ranked one.

    Raises:
        InputError: no query or no gallery, an unknown distance or protocol, nothing to pool with, or a feature that is
            not a number.

    Source: Zheng et al. ICCV 2015; Zhong et al. CVPR 2017 for re-ranking. Derived in notebooks/08_evaluation.
    """
    if isinstance(distances, str) or not distances or any(distance not in DISTANCES for distance in distances):
        raise InputError(f"distances are {distances!r}: give a list of some of {', '.join(DISTANCES)}")
    if protocol not in get_args(ranking.Protocol):
        raise InputError(f"protocol {protocol!r} is not known: give one of {', '.join(get_args(ranking.Protocol))}")
    if not features.local_features.numel() and any(distance != "global" for distance in distances):
        raise InputError("the features have no local part: give distances=('global',)")
    if normalize:
        features = _unit_length(features)
    queries, gallery = split(features)
    if multi_query is not None:
        queries = pool_queries(queries, features[features.marks == MULTI_QUERY], multi_query)
        queries = _unit_length(queries) if normalize else queries
    found = _score_blocks(distances, queries, gallery, protocol)
    rows = []
    for distance in distances:
        rows.append(_row(name, distance, False, *found[distance], gallery.cameras_known))
        if rerank:
            matrix = reranked_matrix(distance, queries, gallery)
            scored = _score(matrix, queries, gallery, protocol)
            rows.append(_row(name, distance, True, *scored, gallery.cameras_known))
    return ScoreTable(rows)


def pool_queries(queries: Features, others: Features, how: str) -> Features:
    """Each query's features pooled with those of other images of its person in its camera.

    Args:
        queries: the single queries; one nobody stands beside keeps its own features.
        others: multi-query images.
        how: average or max, channel by channel; likewise for each stripe.

    Raises:
        InputError: another way, or no multi-query images at all.

    Source: Zheng et al. ICCV 2015, section 5.
    """
    if how not in ("average", "max"):
        raise InputError(f"multi_query is {how!r}: give 'average', 'max' or None")
    if not len(others):
        raise InputError("there are no multi-query images (mark 2): only Market-1501 has them; leave multi_query None")
    places: dict[tuple[int, int], list[int]] = {}
    for place, seen in enumerate(zip(others.ids.tolist(), others.cameras.tolist(), strict=True)):
        places.setdefault(seen, []).append(place)
    groups = [places.get(seen, []) for seen in zip(queries.ids.tolist(), queries.cameras.tolist(), strict=True)]

    def pool(own: Tensor, rest: Tensor) -> Tensor:
        joined = [torch.cat([one[None], rest[group]]) for one, group in zip(own, groups, strict=True)]
        return torch.stack([group.mean(0) if how == "average" else group.amax(0) for group in joined])

    return dataclasses.replace(
        queries,
        global_features=pool(queries.global_features, others.global_features),
        local_features=pool(queries.local_features, others.local_features),
    )


def _unit_length(features: Features) -> Features:
    units = (losses.unit_length(features.global_features), losses.unit_length(features.local_features))
    return dataclasses.replace(features, global_features=units[0], local_features=units[1])


def split(features: Features) -> tuple[Features, Features]:
    """The queries and the gallery among the features of a val or test part.

    Raises:
        InputError: there are none of one.
    """
    queries, gallery = features[features.marks == QUERY], features[features.marks == GALLERY]
    if not len(queries) or not len(gallery):
        what = f"{len(queries)} queries (mark {QUERY}) and {len(gallery)} gallery images (mark {GALLERY})"
        raise InputError(f"the features hold {what}: take features of a val or test part")
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
    """Which gallery images a user of the system would be shown for one query.

    Args:
        distances: [G] to that query.
        gallery_ids, gallery_cameras: [G].
        top: how many at most.
        keep_same_camera: show images of the query's identity from its own camera too.

    Returns:
        indices into the gallery [top or fewer], nearest first; equal distances in the gallery's order.
    """
    kept = np.flatnonzero((gallery_ids != query_id) | (gallery_cameras != query_camera) | keep_same_camera)
    return kept[np.argsort(distances[kept], kind="stable")[:top]]


def colour_histograms(dataset: Dataset, bins: int = 8) -> Features:
    """A baseline that has learned nothing: which colours a picture holds, wherever they are.

    Args:
        dataset: its pictures are decoded one after the other.
        bins: of hue, of saturation and of value each.

    Returns:
        Features whose global features [N, bins ** 3] are the roots of the colours' shares of the whole picture, so
        that their euclidean distance is Hellinger's between the histograms, times a constant. No local features
        ([N, 0, 0]).

    Raises:
        InputError: a picture that does not decode, or bins outside 1 ... 256.
    """
    if not 1 <= bins <= 256:
        raise InputError(f"bins is {bins}; it has to be between 1 and 256")
    shares = np.zeros((len(dataset), bins**3), np.float32)
    for row, path in zip(shares, dataset.paths, strict=True):
        picture = Image.fromarray(images.decode(path).permute(1, 2, 0).numpy())
        hsv = np.asarray(picture.convert("HSV")).reshape(-1, 3).astype(np.int64) * bins // 256
        colours = np.bincount(hsv @ (bins**2, bins, 1), minlength=bins**3)
        row[:] = colours / len(hsv)
    return Features.of(dataset, torch.from_numpy(np.sqrt(shares)), torch.zeros(len(dataset), 0, 0))


def _score_blocks(
    distances: Sequence[str], queries: Features, gallery: Features, protocol: ranking.Protocol
) -> dict[str, tuple[ranking.MatchRanks, np.ndarray]]:
    """Matches and CMC by each distance, without ever holding a whole matrix or computing a part twice."""
    parts: dict[str, list[tuple[ranking.MatchRanks, np.ndarray]]] = {distance: [] for distance in distances}
    names = sorted({part for distance in distances for part in distance.split("+")})
    step = max(1, _BLOCK_BYTES // (4 * len(gallery)))
    for begin in range(0, len(queries), step):
        block = queries[begin : begin + step]
        summands = {name: summand(name, block, gallery) for name in names}
        for distance, scored in parts.items():
            scored.append(_score(add_up(distance, summands), block, gallery, protocol))
    return {
        distance: (ranking.join_matches([found for found, _ in scored]), np.concatenate([cmc for _, cmc in scored]))
        for distance, scored in parts.items()
    }


def _score(
    matrix: Tensor | np.ndarray, queries: Features, gallery: Features, protocol: ranking.Protocol
) -> tuple[ranking.MatchRanks, np.ndarray]:
    """Matches, and the first ten places of the CMC of each query."""
    labels = (queries.ids, gallery.ids, queries.cameras, gallery.cameras)
    keep = not gallery.cameras_known
    found = ranking.find_matches(matrix, *labels, keep_same_camera=keep)
    if protocol != "cuhk03":
        return found, ranking.cumulative_matches(found, protocol, 10)
    scores = ranking.score_ranking(matrix, *labels, protocol, top=10, keep_same_camera=keep)
    return found, scores.cmc_per_query


def _row(
    name: str, distance: str, reranked: bool, found: ranking.MatchRanks, cmc: np.ndarray, cameras_known: bool
) -> ScoreRow:
    valid = found.counts > 0

    def mean(values: np.ndarray) -> float:
        return float(values[valid].mean()) if valid.any() else math.nan

    rank1, rank5, rank10 = (mean(cmc[:, k - 1]) for k in (1, 5, 10))
    step, trapezoid = (mean(ranking.average_precisions(found, kind)) for kind in ("step", "trapezoid"))
    counts = (found.num_queries, int(valid.sum()))
    return ScoreRow(name, distance, reranked, rank1, rank5, rank10, step, trapezoid, *counts, cameras_known)

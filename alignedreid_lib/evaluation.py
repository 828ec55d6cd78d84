"""From features to the score table that papers print.

Derived in notebooks/08_evaluation.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from alignedreid_lib import images, losses, ranking
from alignedreid_lib.alignment import local_distances
from alignedreid_lib.config import TrainConfig
from alignedreid_lib.datasets import Dataset, open_dataset
from alignedreid_lib.errors import InputError
from alignedreid_lib.features import Features, extract
from alignedreid_lib.model import AlignedReID

DISTANCES = ("global", "rigid", "local", "global+rigid", "global+local")
QUERY, GALLERY = 0, 1  # marks

_BLOCK = 512  # queries whose distances are held at a time: 33 MB for a gallery of Market-1501's size


@dataclass(frozen=True)
class ScoreRow:
    """The scores of one distance: fractions in [0, 1], means over the valid queries; nan where there is none.

    A query is valid if the gallery holds its identity, seen by another camera.
    """

    name: str  # of the features
    distance: str
    reranked: bool
    rank1: float
    rank5: float
    rank10: float
    mean_ap_step: float  # as later toolboxes
    mean_ap_trapezoid: float  # as Market-1501's own evaluation, and the original reproduction
    num_queries: int
    num_valid: int
    cameras_known: bool = True  # if not, images of the query's own camera were not left out


@dataclass(frozen=True)
class ScoreTable:
    """Rows of scores; shown as a table in a notebook, printed as Markdown, `+` puts tables below each other."""

    rows: list[ScoreRow]

    def __add__(self, other: ScoreTable) -> ScoreTable:
        return ScoreTable(self.rows + other.rows)

    def __str__(self) -> str:
        return self.to_markdown()

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    def to_markdown(self) -> str:
        """A Markdown table, columns aligned, scores in percent."""
        head = ["Features", "Distance", "Rank-1", "Rank-5", "Rank-10", "mAP (step)", "mAP (trapezoid)", "Queries"]
        lines = [head] + [_cells(row) for row in self.rows]
        if not any(row.name for row in self.rows):
            lines = [line[1:] for line in lines]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        pads = [str.ljust] * (len(widths) - 6) + [str.rjust] * 6  # six columns of numbers stand to the right
        rule = ["-" * (w - 1) + ("-" if pad is str.ljust else ":") for w, pad in zip(widths, pads, strict=True)]
        lines.insert(1, rule)
        padded = ([pad(c, w) for pad, c, w in zip(pads, line, widths, strict=True)] for line in lines)
        table = "\n".join(f"| {' | '.join(line)} |" for line in padded)
        if all(row.cameras_known for row in self.rows):
            return table
        return f"{table}\n\nCameras are not known: no image was left out for being of the query's own camera."

    def to_dict(self) -> dict[str, Any]:
        """What `json.dump` takes: {"rows": [{...}, ...]}; fractions, and None instead of nan."""
        rows = [dataclasses.asdict(row) for row in self.rows]
        return {"rows": [{k: None if v != v else v for k, v in row.items()} for row in rows]}  # nan != nan


def evaluate(
    features: Features,
    distances: Sequence[str] = ("global",),
    rerank: bool = False,
    name: str = "",
    normalize: bool = False,
) -> ScoreTable:
    """Rank the gallery for every query, and score the ranking by Market-1501's protocol.

    Args:
        features: of a val or test part: mark 0 are the queries, mark 1 the gallery, others take no part.
        distances: what to rank by, a row of the table each, see `distance_matrix`.
        rerank: re-ranking; not in this version.
        name: of the features, for the table's first column.
        normalize: bring features to unit length first, for networks trained so.

    Returns:
        ScoreTable with a row for each distance.

    Raises:
        InputError: no query or no gallery, an unknown distance, or a feature that is not a number.

    Source: Zheng et al. ICCV 2015. Derived in notebooks/08_evaluation.
    """
    if isinstance(distances, str) or not distances or any(distance not in DISTANCES for distance in distances):
        raise InputError(f"distances are {distances!r}: give a list of some of {', '.join(DISTANCES)}")
    if rerank:
        raise InputError("re-ranking is not in this version: leave rerank at False")
    if normalize:
        units = (losses.unit_length(features.global_features), losses.unit_length(features.local_features))
        features = dataclasses.replace(features, global_features=units[0], local_features=units[1])
    found = _match_ranks(distances, *split(features))
    rows = [_row(name, distance, False, ranks, features.cameras_known) for distance, ranks in found.items()]
    return ScoreTable(rows)


def validation(config: TrainConfig) -> Callable[[AlignedReID], dict[str, float]]:
    """What `train` calls to validate: the network ranks the val part by its global features.

    Returns:
        a function of the network that gives its `mean_ap` (step) and `rank1`, fractions.

    Raises:
        InputError: the dataset has no validation people.
    """
    dataset = open_dataset(config.folder, "val")
    if not len(dataset):
        raise InputError(f"{config.folder} has no validation people: prepare it with num_val_ids of 1 or more")
    store = images.ImageStore(dataset.paths, (config.height, config.width), config.memory_limit, config.workers)

    def validate(network: AlignedReID) -> dict[str, float]:
        found = extract(
            network, dataset, height=config.height, width=config.width, precision=config.precision, store=store
        )
        row = evaluate(found, ("global",), normalize=config.normalize).rows[0]
        return {"mean_ap": row.mean_ap_step, "rank1": row.rank1}

    return validate


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


def distance_matrix(distance: str, queries: Features, gallery: Features) -> Tensor:
    """Distances of all queries to all gallery images, float32 [Q, G]; smaller is nearer.

    Args:
        distance: `global`, the euclidean distance of global features; `local`, that of local features along the
            shortest path; `rigid`, the sum over corresponding stripes; or a sum, `global+local` or `global+rigid`.

    Raises:
        InputError: an unknown distance, or local features that do not fit each other.
    """
    if distance not in DISTANCES:
        raise InputError(f"distance {distance!r} is not known: choose one of {', '.join(DISTANCES)}")
    return _sum(distance, {part: _summand(part, queries, gallery) for part in distance.split("+")})


def _summand(part: str, queries: Features, gallery: Features) -> Tensor:
    if part == "global":
        return losses.euclidean_distances(queries.global_features, gallery.global_features)
    return local_distances(queries.local_features, gallery.local_features, aligned=part == "local")


def _sum(distance: str, summands: Mapping[str, Tensor]) -> Tensor:
    first, *others = (summands[part] for part in distance.split("+"))
    return first + others[0] if others else first


def _match_ranks(distances: Sequence[str], queries: Features, gallery: Features) -> dict[str, ranking.MatchRanks]:
    """The rank of every match by each distance, without ever holding a whole matrix or computing a part twice."""
    parts: dict[str, list[ranking.MatchRanks]] = {distance: [] for distance in distances}
    names = sorted({part for distance in distances for part in distance.split("+")})
    for begin in range(0, len(queries), _BLOCK):
        block = queries[begin : begin + _BLOCK]
        labels = (block.ids, gallery.ids, block.cameras, gallery.cameras)
        summands = {name: _summand(name, block, gallery) for name in names}
        for distance, ranks in parts.items():
            matrix = _sum(distance, summands)
            ranks.append(ranking.find_matches(matrix, *labels, keep_same_camera=not gallery.cameras_known))
    return {distance: ranking.join_matches(ranks) for distance, ranks in parts.items()}


def _row(name: str, distance: str, reranked: bool, found: ranking.MatchRanks, cameras_known: bool) -> ScoreRow:
    valid = found.counts > 0

    def mean(values: np.ndarray) -> float:
        return float(values[valid].mean()) if valid.any() else math.nan

    cmc = ranking.cumulative_matches(found, "market1501", 10)
    rank1, rank5, rank10 = (mean(cmc[:, k - 1]) for k in (1, 5, 10))
    step, trapezoid = (mean(ranking.average_precisions(found, kind)) for kind in ("step", "trapezoid"))
    counts = (found.num_queries, int(valid.sum()))
    return ScoreRow(name, distance, reranked, rank1, rank5, rank10, step, trapezoid, *counts, cameras_known)


def _cells(row: ScoreRow) -> list[str]:
    scores = (row.rank1, row.rank5, row.rank10, row.mean_ap_step, row.mean_ap_trapezoid)
    percents = ["-" if score != score else f"{100 * score:.1f}" for score in scores]
    all_valid = row.num_valid == row.num_queries
    queries = f"{row.num_queries}" if all_valid else f"{row.num_valid} of {row.num_queries}"
    return [row.name, row.distance + (", re-ranked" if row.reranked else ""), *percents, queries]

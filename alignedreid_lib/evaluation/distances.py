"""Distances of queries to gallery images: global, local, rigid, sums, re-ranked. Derived in notebooks/08_evaluation."""

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add

import numpy as np
from torch import Tensor

from alignedreid_lib import losses
from alignedreid_lib.alignment import local_distances
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import reranking
from alignedreid_lib.evaluation.features import Features

DISTANCES = ("global", "rigid", "local", "global+rigid", "global+local")


_BLOCK_BYTES = 128 << 20  # limit for a block of rows of global distances, of which three are in memory


def reranked_matrix(
    distance: str, queries: Features, gallery: Features, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
) -> np.ndarray:
    """Re-ranked distances of all queries to all gallery images, float32 [Q, G].

    Args and errors are those of `distance_matrix` and `reranking.rerank`. Derived in notebooks/09_reranking.
    """
    _check_known(distance)
    return next(reranked_matrices([distance], queries, gallery, k1, k2, lambda_value))[1]


def reranked_matrices(
    distances: Sequence[str],
    queries: Features,
    gallery: Features,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
) -> Iterator[tuple[str, np.ndarray]]:
    """Several re-ranked distances by name, one after another, float32 [Q, G] each; see `reranked_matrix`.

    A sum reuses the local distances of its other row, so they are computed once, those of the gallery with itself
    included. One matrix [G, G] is in memory at a time, none for `global`.
    """
    how = (k1, k2, lambda_value)
    if "global" in distances:  # from the features: no matrix of the gallery with itself
        yield "global", reranking.rerank(queries.global_features, gallery.global_features, *how)
    sides = [(queries, gallery), (queries, queries), (gallery, gallery)]
    for part in ("rigid", "local"):
        wanted = [name for name in (part, f"global+{part}") if name in distances]
        matrices = [distance_matrix(part, *side) for side in sides] if wanted else []
        for name in wanted:
            if name != part:
                for matrix, side in zip(matrices, sides, strict=True):
                    _add_global(matrix, *side)
            yield name, reranking.rerank_distances(matrices[0], matrices[1], matrices[2], *how)


def _add_global(matrix: Tensor, rows: Features, columns: Features) -> None:
    """Add global distances to a matrix, a block of rows at a time."""
    step = max(1, _BLOCK_BYTES // (4 * len(columns)))
    for begin in range(0, len(rows), step):
        block = rows.global_features[begin : begin + step]
        matrix[begin : begin + step] += losses.euclidean_distances(block, columns.global_features)


def distance_matrix(distance: str, queries: Features, gallery: Features) -> Tensor:
    """Distances of all queries to all gallery images, float32 [Q, G]; smaller is nearer.

    Args:
        distance: `global`, the euclidean distance of global features; `local`, that of local features along the
            shortest path; `rigid`, the sum over corresponding stripes; or a sum, `global+local` or `global+rigid`.

    Raises:
        InputError: an unknown distance, or local features that do not fit each other.
    """
    _check_known(distance)
    return distance_matrices([distance], queries, gallery)[distance]


def _check_known(distance: str) -> None:
    if distance not in DISTANCES:
        raise InputError(f"distance {distance!r} is not known: choose one of {', '.join(DISTANCES)}")


def distance_matrices(distances: Sequence[str], queries: Features, gallery: Features) -> dict[str, Tensor]:
    """Several distances by name, [Q, G] each; what two sums share is computed once."""
    parts = {}
    for part in {part for distance in distances for part in distance.split("+")}:
        if part == "global":
            parts[part] = losses.euclidean_distances(queries.global_features, gallery.global_features)
        elif 0 in (queries.local_features.shape[1], gallery.local_features.shape[1]):
            raise InputError(f"distance {part} needs local features, and there are none: choose global")
        else:
            parts[part] = local_distances(queries.local_features, gallery.local_features, aligned=part == "local")
    return {distance: reduce(add, (parts[part] for part in distance.split("+"))) for distance in distances}

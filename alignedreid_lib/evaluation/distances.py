"""Distances of queries to gallery images: global, local, rigid, sums, re-ranked. Derived in notebooks/08_evaluation."""

from collections.abc import Sequence
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


def reranked_matrix(
    distance: str, queries: Features, gallery: Features, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
) -> np.ndarray:
    """Re-ranked distances of all queries to all gallery images, float32 [Q, G].

    Args and errors are those of `distance_matrix` and `reranking.rerank`. Derived in notebooks/09_reranking.
    """
    if distance == "global":  # from the features: no matrix of the gallery with itself
        return reranking.rerank(queries.global_features, gallery.global_features, k1, k2, lambda_value)
    query_gallery = distance_matrix(distance, queries, gallery)
    query_query = distance_matrix(distance, queries, queries)
    gallery_gallery = distance_matrix(distance, gallery, gallery)
    return reranking.rerank_distances(query_gallery, query_query, gallery_gallery, k1, k2, lambda_value)


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
    return distance_matrices([distance], queries, gallery)[distance]


def distance_matrices(distances: Sequence[str], queries: Features, gallery: Features) -> dict[str, Tensor]:
    """Several distances by name, [Q, G] each; what two sums share is computed once."""
    parts = {}
    for part in {part for distance in distances for part in distance.split("+")}:
        if part == "global":
            parts[part] = losses.euclidean_distances(queries.global_features, gallery.global_features)
        else:
            parts[part] = local_distances(queries.local_features, gallery.local_features, aligned=part == "local")
    return {distance: reduce(add, (parts[part] for part in distance.split("+"))) for distance in distances}

"""k-reciprocal re-ranking: two images are near if they have the same neighbours.

The published code keeps several dense matrices of all images against all, 9 GB for Market-1501, and nearly all of
their entries are zero. Here distances are read in blocks, and neighbours and weights are sparse matrices.
N = Q + G images, queries first. Derived in notebooks/09_reranking.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from torch import Tensor

from alignedreid_lib import devices
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.distance_blocks import FeatureDistances, MatrixDistances
from alignedreid_lib.evaluation.matches_and_junk import Values

Distances = FeatureDistances | MatrixDistances

_BLOCK_BYTES = 128 << 20  # limit for a block of distances


class Neighbours(NamedTuple):
    """The nearest images of each image, nearest first."""

    indices: Tensor  # int64 [N, depth]
    squared: Tensor  # float32 [N, depth], distances


def rerank(
    query_features: Values, gallery_features: Values, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
) -> NDArray[np.float32]:
    """Re-ranked distances of queries to gallery images, from the euclidean distances of their features.

    Args:
        query_features, gallery_features: [Q, C], [G, C], arrays or tensors; the work is done on the tensors' device.
        k1: how many neighbours count; may be more than there are.
        k2: over how many neighbours weights are averaged; 1 turns the published "local query expansion" off.
        lambda_value: share of the original distance in the result, 0 to 1; the rest is Jaccard distance.

    Returns:
        float32 [Q, G], smaller is nearer; only comparable within a row.

    Raises:
        InputError: shapes that do not fit, nothing to rank, nan, or a setting out of range.

    Source: Zhong et al. CVPR 2017.
    """
    queries, gallery = _matrix("query_features", query_features), _matrix("gallery_features", gallery_features)
    if queries.shape[1] != gallery.shape[1]:
        raise InputError(f"query features have {queries.shape[1]} channels, gallery features {gallery.shape[1]}")
    if queries.device != gallery.device:
        raise InputError(f"query features are on {queries.device}, gallery features on {gallery.device}; use one")
    return _rerank(FeatureDistances(torch.cat([queries, gallery]), len(queries)), k1, k2, lambda_value)


def rerank_distances(
    query_gallery: Values,
    query_query: Values,
    gallery_gallery: Values,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
) -> NDArray[np.float32]:
    """Re-ranked distances from three matrices, for distances that are not euclidean (local ones).

    Args:
        query_gallery, query_query, gallery_gallery: [Q, G], [Q, Q], [G, G] distances, not squared.

    The other arguments, the result and the errors are those of `rerank`.
    """
    qg, qq = _matrix("query_gallery", query_gallery), _matrix("query_query", query_query)
    gg = _matrix("gallery_gallery", gallery_gallery)
    q, g = qg.shape
    if qq.shape != (q, q) or gg.shape != (g, g):
        raise InputError(
            f"query_gallery is {q} x {g}, so query_query has to be {q} x {q} and gallery_gallery {g} x {g}; they are "
            f"{tuple(qq.shape)} and {tuple(gg.shape)}"
        )
    if len({qg.device, qq.device, gg.device}) > 1:
        raise InputError("the three matrices are on different devices; use one")
    return _rerank(MatrixDistances(qg, qq, gg), k1, k2, lambda_value)


def _rerank(distances: Distances, k1: int, k2: int, lambda_value: float) -> NDArray[np.float32]:
    for name, value in (("k1", k1), ("k2", k2)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise InputError(f"{name} is {value!r}; give a count of neighbours, 1 or more")
    if isinstance(lambda_value, bool) or not 0 <= lambda_value <= 1:
        raise InputError(f"lambda_value is {lambda_value!r}; give a share from 0 to 1")
    with torch.no_grad():
        near, largest, original = nearest(distances, min(max(k1 + 1, k2), distances.size))
        neighbours = devices.fetch(near.indices)
        weights = gaussian_weights(expanded(neighbours, k1), distances, near, largest)
        if k2 > 1:
            weights = average_weights(weights, neighbours[:, :k2])
        result = devices.fetch(original.div_(largest[: distances.num_queries, None]).mul_(lambda_value))
    add_jaccard(result, weights, 1 - lambda_value)
    return result


def nearest(distances: Distances, depth: int) -> tuple[Neighbours, Tensor, Tensor]:
    """The nearest images of every image, itself included, and the largest squared distance of its row.

    Returns:
        neighbours [N, depth]; largest float32 [N]; squared distances of queries to gallery images [Q, G], a by-product.

    Raises:
        InputError: nan or infinity among the distances.
    """
    size, queries, device = distances.size, distances.num_queries, distances.device
    indices = torch.zeros(size, depth, dtype=torch.int64, device=device)
    squared = torch.full((size, depth), torch.inf, device=device)
    largest = torch.full((size,), -torch.inf, device=device)
    original = torch.empty(queries, size - queries, device=device)
    for first, column, block in distances.blocks(_BLOCK_BYTES // 4):
        rows = slice(first, first + len(block))
        largest[rows] = torch.maximum(largest[rows], block.amax(dim=1))
        found = block.topk(min(depth, block.shape[1]), dim=1, largest=False)
        best = torch.cat([squared[rows], found.values], dim=1).sort(dim=1, stable=True)
        both = torch.cat([indices[rows], found.indices + column], dim=1)
        squared[rows], indices[rows] = best.values[:, :depth], both.gather(1, best.indices[:, :depth])
        if first < queries < column + block.shape[1]:
            original[rows] = block[: queries - first, queries - column :]
    if not np.isfinite(devices.fetch(largest)).all():
        raise InputError("the distances contain nan or infinity: look for broken features first")
    squared.clamp_(min=0), original.clamp_(min=0)
    return Neighbours(indices, squared), largest.clamp_(min=1e-12), original  # clamped: 0 / 0 for equal images


def sparse_rows(neighbours: NDArray[np.int64], values: ArrayLike) -> sparse.csr_array:
    """Sparse [N, N]: row i has the `values`, [] or [N, k], at the k neighbours of image i, [N, k]."""
    size, k = neighbours.shape
    data = np.broadcast_to(np.asarray(values), neighbours.shape).flatten()
    # `flatten` copies, because scipy sorts the columns of a row in place.
    return sparse.csr_array((data, neighbours.flatten(), np.arange(0, size * k + 1, k)), shape=(size, size))


def reciprocal(neighbours: NDArray[np.int64], k: int) -> sparse.csr_array:
    """int32 [N, N]: 1 where two images are both among the other's first k + 1 neighbours.

    Source: Zhong et al. CVPR 2017, eq. 2.
    """
    first = sparse_rows(neighbours[:, : k + 1], np.int32(1))
    return first.multiply(first.T).tocsr()


def expanded(neighbours: NDArray[np.int64], k1: int) -> sparse.csr_array:
    """The expanded k-reciprocal neighbours, one row per image: bool [N, N].

    For each reciprocal neighbour, its own reciprocal neighbours for half of k1 are added if more than two thirds of
    them are reciprocal neighbours of the image already.

    Source: Zhong et al. CVPR 2017, eq. 3.
    """
    half = int(np.around(k1 / 2))  # to the even number, as published
    near, close = reciprocal(neighbours, k1), reciprocal(neighbours, half)
    shared = near.multiply(near @ close.T).tocoo()  # how many neighbours of the second are the first's already
    row, column = shared.coords
    taken = 3 * shared.data > 2 * close.sum(axis=1)[column]
    joined = sparse.csr_array((shared.data[taken] > 0, (row[taken], column[taken])), shape=near.shape)
    return (near + joined @ close).astype(bool)


def gaussian_weights(
    neighbours: sparse.csr_array, distances: Distances, near: Neighbours, largest: Tensor
) -> sparse.csr_array:
    """exp(-d) for each neighbour, with d the squared distance over the largest of its row; each row sums to 1.

    Source: Zhong et al. CVPR 2017, eq. 7.
    """
    known = torch.exp(-near.squared / largest[:, None])  # [N, depth] includes most of the neighbours
    weights = neighbours.multiply(sparse_rows(devices.fetch(near.indices), devices.fetch(known))).tocsr()
    rest = (neighbours.astype(np.int8) - weights.astype(bool).astype(np.int8)).tocoo()
    rest.eliminate_zeros()
    row, column = (torch.from_numpy(side.astype(np.int64)).to(distances.device) for side in rest.coords)
    rest.data = devices.fetch(torch.exp(-distances.pairs(row, column) / largest[row]))
    weights = (weights + rest).tocsr()
    weights.data /= np.repeat(weights.sum(axis=1), np.diff(weights.indptr))
    return weights


def average_weights(weights: sparse.csr_array, neighbours: NDArray[np.int64]) -> sparse.csr_array:
    """The mean of the rows of each image's first k2 neighbours, [N, k2]: local query expansion.

    Source: Zhong et al. CVPR 2017, eq. 11.
    """
    return sparse_rows(neighbours, np.float32(1 / neighbours.shape[1])) @ weights


def add_jaccard(result: NDArray[np.float32], weights: sparse.csr_array, share: float) -> None:
    """Add share * Jaccard distance of every query to every gallery image to `result` [Q, G].

    With rows V: 1 - sum min(V_q, V_g) / sum max(V_q, V_g). Rows sum to 1, so the sum of maxima is 2 minus that of
    minima, and only columns in which both are above 0 count.

    Source: Zhong et al. CVPR 2017, eq. 10.
    """
    queries, gallery = result.shape
    by_column = weights[queries:].tocsc()
    for query in range(queries):
        own = slice(weights.indptr[query], weights.indptr[query + 1])
        both = by_column[:, weights.indices[own]]
        minima = np.minimum(both.data, np.repeat(weights.data[own], np.diff(both.indptr)))
        shared = np.bincount(both.indices, minima, gallery)
        result[query] += share * (1 - shared / (2 - shared))


def _matrix(name: str, values: Any) -> Tensor:
    try:
        matrix = values.detach() if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
    except (TypeError, ValueError):
        raise InputError(f"{name} is not a matrix of numbers") from None
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(f"{name} has shape {tuple(matrix.shape)}: give a matrix, neither side 0")
    if matrix.dtype == torch.bool or matrix.is_complex():
        raise InputError(f"{name} is {matrix.dtype}: give real numbers")
    return matrix.float()

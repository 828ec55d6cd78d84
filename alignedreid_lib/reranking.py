"""k-reciprocal re-ranking: two pictures are near if they have the same neighbours.

The published code holds several matrices of all pictures against all, 9 GB for Market-1501. What it computes with
are short lists: a picture's nearest neighbours, and a row of weights that is zero almost everywhere. Here nothing of
[all, all] is ever held: distances come in blocks of rows, and rows of weights are sparse. N = Q + G pictures, queries
first. Derived in notebooks/09_reranking.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from alignedreid_lib.errors import InputError
from alignedreid_lib.pairwise import Distances, FeatureDistances, MatrixDistances

Values = ArrayLike | Tensor

_BLOCK_BYTES = 128 << 20  # of a block of rows of distances
_QUERIES = 64  # whose Jaccard distances are computed at a time


class Neighbours(NamedTuple):
    """The nearest pictures of each, nearest first."""

    indices: Tensor  # int64 [N, depth]
    squared: Tensor  # float32 [N, depth], distances


class Weights(NamedTuple):
    """A sparse matrix [N, N] row after row: the entries of row i lie at begins[i] ... begins[i + 1]."""

    begins: Tensor  # int64 [N + 1]
    columns: Tensor  # int64 [M], ascending in each row
    values: Tensor  # float32 [M]


def rerank(
    query_features: Values,
    gallery_features: Values,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
) -> NDArray[np.float32]:
    """Re-ranked distances of queries to gallery images, by their features' euclidean distance.

    Args:
        query_features: [Q, C], array or tensor; the work is done where the tensor is.
        gallery_features: [G, C].
        k1: how many neighbours count; may be more than there are.
        k2: over how many neighbours weights are averaged (1: none, the published "local query expansion" off).
        lambda_value: share of the original distance in the result, 0 to 1; the rest is Jaccard distance.

    Returns:
        float32 [Q, G], smaller is nearer; comparable inside a row only.

    Raises:
        InputError: shapes that do not fit, nothing to rank, nan, or a setting out of range.

    Source: Zhong et al. CVPR 2017. Derived in notebooks/09_reranking.
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
    """Re-ranked distances from the distances of all to all, for distances that are no features' (local ones).

    Args:
        query_gallery: [Q, G] distances, not squared.
        query_query: [Q, Q].
        gallery_gallery: [G, G].
        k1, k2, lambda_value: as in `rerank`.

    Returns and errors are those of `rerank`. Derived in notebooks/09_reranking.
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
        neighbours = near.indices
        rows, columns = expanded(neighbours, k1)
        weights = gaussian_weights(rows, columns, distances, near, largest)
        if k2 > 1:
            weights = average_weights(weights, neighbours[:, :k2])
        result = original.div_(largest[: distances.num_queries, None]).mul_(lambda_value)
        add_jaccard(result, weights, 1 - lambda_value)
    return result.cpu().numpy()


def nearest(distances: Distances, depth: int) -> tuple[Neighbours, Tensor, Tensor]:
    """Of every picture its nearest ones, itself among them, and the largest squared distance of its row.

    Returns:
        neighbours [N, depth]; largest float32 [N]; squared distances of queries to gallery images [Q, G], a by-product.

    Raises:
        InputError: nan or infinity among the distances.
    """
    size, queries = distances.size, distances.num_queries
    step = max(1, _BLOCK_BYTES // (4 * size))
    indices = torch.empty(size, depth, dtype=torch.int64, device=distances.device)
    squared = torch.empty(size, depth, device=distances.device)
    largest = torch.empty(size, device=distances.device)
    original = torch.empty(queries, size - queries, device=distances.device)
    for begin in range(0, size, step):
        end = min(begin + step, size)
        block, offset = distances.rows(begin, end)
        largest[begin:end] = block.amax(dim=1) + offset
        found = block.topk(depth, dim=1, largest=False)
        indices[begin:end] = found.indices
        squared[begin:end] = (found.values + offset[:, None]).clamp_(min=0)
        if begin < queries:
            cut = min(end, queries) - begin
            torch.add(block[:cut, queries:], offset[:cut, None], out=original[begin : begin + cut]).clamp_(min=0)
    if not largest.isfinite().all():
        raise InputError("the distances hold nan or infinity: look for broken features first")
    return Neighbours(indices, squared), largest.clamp_(min=1e-12), original  # all pictures alike: 0 / 0 otherwise


def reciprocal(neighbours: Tensor, k: int) -> Tensor:
    """Which of the first k + 1 neighbours of each picture have it among their own first k + 1: bool [N, k + 1].

    Source: Zhong et al. CVPR 2017, eq. 2. Derived in notebooks/09_reranking.
    """
    first = neighbours[:, : k + 1]
    own = torch.arange(len(first), device=first.device)
    found = torch.zeros_like(first, dtype=torch.bool)
    for place in range(first.shape[1]):  # [N, k + 1, k + 1] at once would be large
        found[:, place] = (first[first[:, place]] == own[:, None]).any(dim=1)
    return found


def expanded(neighbours: Tensor, k1: int) -> tuple[Tensor, Tensor]:
    """The expanded k-reciprocal neighbours of each picture, as pairs in rising order: rows and columns, int64 [M] each.

    The reciprocal neighbours of a reciprocal neighbour, for half of k1, are added where more than two thirds of them
    are reciprocal neighbours already.

    Source: Zhong et al. CVPR 2017, eq. 3. Derived in notebooks/09_reranking.
    """
    size = len(neighbours)
    half = int(np.around(k1 / 2))  # to the even number, as published
    near, is_near = neighbours[:, : k1 + 1], reciprocal(neighbours, k1)
    close, is_close = neighbours[:, : half + 1], reciprocal(neighbours, half)
    own = torch.arange(size, device=near.device)
    sets = torch.where(is_near, near, -1)  # [N, k1 + 1], -1 stands for nobody
    keys = [(own[:, None] * size + near)[is_near]]
    for place in range(near.shape[1]):
        candidate = near[:, place]  # [N]
        theirs, valid = close[candidate], is_close[candidate]  # [N, half + 1]
        shared = ((theirs[:, :, None] == sets[:, None, :]).any(dim=2) & valid).sum(dim=1)
        taken = is_near[:, place] & (3 * shared > 2 * valid.sum(dim=1))
        keys.append((own[:, None] * size + theirs)[valid & taken[:, None]])
    found = torch.cat(keys).unique()
    return found // size, found % size


def gaussian_weights(rows: Tensor, columns: Tensor, distances: Distances, near: Neighbours, largest: Tensor) -> Weights:
    """exp(-d) for each pair, d the squared distance over the largest of its row; each row adds up to 1.

    Source: Zhong et al. CVPR 2017, eq. 7. Derived in notebooks/09_reranking.
    """
    squared = torch.full((len(rows),), -1.0, device=rows.device)
    for place in range(near.indices.shape[1]):  # most pairs are neighbours, whose distances are known
        squared = torch.where(near.indices[rows, place] == columns, near.squared[rows, place], squared)
    unknown = (squared < 0).nonzero().squeeze(1)
    squared[unknown] = distances.pairs(rows[unknown], columns[unknown])
    values = torch.exp(-squared / largest[rows])
    total = torch.zeros(distances.size, device=values.device).index_add_(0, rows, values)
    return Weights(_begins(rows, distances.size), columns, values / total[rows])


def average_weights(weights: Weights, neighbours: Tensor) -> Weights:
    """The mean of the rows of each picture's first k2 neighbours, [N, k2]: local query expansion.

    Source: Zhong et al. CVPR 2017, eq. 11. Derived in notebooks/09_reranking.
    """
    size, k2 = neighbours.shape
    step = 2048  # pictures at a time: a few MB
    rows, columns, values = [], [], []
    for begin in range(0, size, step):
        chosen = neighbours[begin : begin + step]
        owner, entry = _entries(weights, chosen.reshape(-1))
        keys, place = ((begin + owner // k2) * size + weights.columns[entry]).unique(return_inverse=True)
        summed = torch.zeros(len(keys), device=keys.device).index_add_(0, place, weights.values[entry])
        rows.append(keys // size)
        columns.append(keys % size)
        values.append(summed / k2)
    return Weights(_begins(torch.cat(rows), size), torch.cat(columns), torch.cat(values))


def add_jaccard(result: Tensor, weights: Weights, share: float) -> None:
    """Add share * Jaccard distance of every query to every gallery image to `result` [Q, G].

    With rows V: 1 - sum min(V_q, V_g) / sum max(V_q, V_g). Rows add up to 1, so the sum of maxima is 2 less that of
    minima, and only columns in which both are above 0 need a look.

    Source: Zhong et al. CVPR 2017, eq. 10. Derived in notebooks/09_reranking.
    """
    queries, gallery = result.shape
    size = queries + gallery
    cut = int(weights.begins[queries])
    # The gallery's rows, column after column: which gallery images a column is above 0 for.
    image = torch.repeat_interleave(torch.arange(gallery, device=result.device), weights.begins[queries:].diff())
    order = torch.argsort(weights.columns[cut:], stable=True)
    by_column = Weights(_begins(weights.columns[cut:][order], size), image[order], weights.values[cut:][order])
    for begin in range(0, queries, _QUERIES):
        end = min(begin + _QUERIES, queries)
        own = slice(int(weights.begins[begin]), int(weights.begins[end]))
        query = torch.repeat_interleave(
            torch.arange(end - begin, device=result.device), weights.begins[begin : end + 1].diff()
        )
        owner, entry = _entries(by_column, weights.columns[own])
        minima = torch.minimum(weights.values[own][owner], by_column.values[entry])
        shared = torch.zeros((end - begin) * gallery, device=result.device)
        shared.index_add_(0, query[owner] * gallery + by_column.columns[entry], minima)
        shared = shared.view(end - begin, gallery)
        result[begin:end] += share * (1 - shared / (2 - shared))


def _begins(rows: Tensor, size: int) -> Tensor:
    """Where each of `size` rows begins in the ascending `rows`, int64 [size + 1]."""
    counts = torch.bincount(rows, minlength=size)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _entries(weights: Weights, rows: Tensor) -> tuple[Tensor, Tensor]:
    """All entries of some rows, one row after the other: (which of `rows`, place in the columns and values)."""
    first = weights.begins[rows]
    counts = weights.begins[rows + 1] - first
    owner = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), counts)
    within = torch.arange(len(owner), device=rows.device) - (counts.cumsum(0) - counts)[owner]
    return owner, first[owner] + within


def _matrix(name: str, values: Any) -> Tensor:
    try:
        matrix = values.detach() if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
    except (TypeError, ValueError):
        raise InputError(f"{name} is no matrix of numbers") from None
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(f"{name} has shape {tuple(matrix.shape)}: give a matrix, neither side 0")
    if matrix.dtype == torch.bool or matrix.is_complex():
        raise InputError(f"{name} is {matrix.dtype}: give real numbers")
    return matrix.float()

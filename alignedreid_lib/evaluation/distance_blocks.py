"""Squared distances of N images, the queries first, in blocks and in single pairs: never [N, N] at once.

Both classes have a `size` N, `num_queries` Q, a `device`, and two methods. `blocks(cells)` gives all distances, in
blocks of at most `cells` numbers (or one row): the block's first row, its first column, and the block itself, float32
[n, m], valid until the next one. `pairs(one, other)` gives those of image one[i] to image other[i], float32 [M].
Derived in notebooks/09_reranking.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

_PAIR_BYTES = 64 << 20  # limit for the features of a block of single pairs


class FeatureDistances:
    """Squared euclidean distances of the features of N images, [N, C]."""

    def __init__(self, features: Tensor, num_queries: int):
        self.features = features
        self.norms = self.features.square().sum(dim=1)  # [N]
        self.size, self.num_queries, self.device = len(features), num_queries, features.device

    def blocks(self, cells: int) -> Iterator[tuple[int, int, Tensor]]:
        # |x - y|^2 = |x|^2 + |y|^2 - 2 xy. The matrix is symmetric: a block right of the diagonal, transposed, is also
        # the one below it, so each product is computed once.
        buffer = torch.empty(max(self.size, min(cells, self.size**2)), device=self.device)
        begin = 0
        while begin < self.size:
            width = self.size - begin
            height = min(max(cells // width, 1), width)
            own, block = slice(begin, begin + height), buffer[: height * width].view(height, width)
            torch.addmm(self.norms[begin:], self.features[own], self.features[begin:].T, alpha=-2, out=block)
            block += self.norms[own, None]
            block.fill_diagonal_(-torch.inf)  # whatever the rounding, an image is its own nearest neighbour
            yield begin, begin, block
            if height < width:
                yield begin + height, begin, block[:, height:].T
            begin += height

    def pairs(self, one: Tensor, other: Tensor) -> Tensor:
        step = max(1, _PAIR_BYTES // (4 * self.features.shape[1]))
        parts = [self.norms[:0]]
        for x, y in zip(one.split(step), other.split(step), strict=True):
            products = torch.linalg.vecdot(self.features[x], self.features[y])
            parts.append((self.norms[x] + self.norms[y] - 2 * products).clamp_(min=0).masked_fill_(x == y, 0))
        return torch.cat(parts)


class MatrixDistances:
    """Squared distances of N images from three distance matrices."""

    # A row here is a column of the published code's joined matrix, which the published code transposes. This matters
    # only where query_query or gallery_gallery are not symmetric.
    def __init__(self, query_gallery: Tensor, query_query: Tensor, gallery_gallery: Tensor):
        self.qg, self.qq, self.gg = query_gallery, query_query, gallery_gallery
        self.num_queries, self.device = len(query_gallery), query_gallery.device
        self.size = sum(query_gallery.shape)

    def blocks(self, cells: int) -> Iterator[tuple[int, int, Tensor]]:
        q, step = self.num_queries, max(1, cells // self.size)
        for begin in range(0, self.size, step):
            end = min(begin + step, self.size)
            queries, gallery = slice(min(begin, q), min(end, q)), slice(max(begin, q) - q, max(end, q) - q)
            block = torch.empty(end - begin, self.size, device=self.device)
            torch.cat([self.qq[:, queries].T, self.qg[:, gallery].T], out=block[:, :q])
            torch.cat([self.qg[queries], self.gg[:, gallery].T], out=block[:, q:])
            yield begin, 0, block.square_()

    def pairs(self, one: Tensor, other: Tensor) -> Tensor:
        q = self.num_queries
        query_one, query_other = one.clamp(max=q - 1), other.clamp(max=q - 1)
        gallery_one, gallery_other = (one - q).clamp_(min=0), (other - q).clamp_(min=0)
        of_query = torch.where(other < q, self.qq[query_other, query_one], self.qg[query_one, gallery_other])
        of_gallery = torch.where(other < q, self.qg[query_other, gallery_one], self.gg[gallery_other, gallery_one])
        return torch.where(one < q, of_query, of_gallery).square_()

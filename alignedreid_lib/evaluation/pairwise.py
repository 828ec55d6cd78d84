"""Squared distances of N images, the queries first, in blocks of rows and in single pairs: never [N, N] at once.

Both classes have a `size` N, `num_queries` Q, a `device`, and two methods: `rows(begin, end)` gives distances of n
images to all, float32 [n, N], less one number per row, [n], valid until the next call; `pairs(one, other)` gives those
of image one[i] to image other[i], float32 [M]. Derived in notebooks/09_reranking.
"""

import torch
from torch import Tensor

_PAIR_BYTES = 64 << 20  # limit for the features of a block of single pairs


class FeatureDistances:
    """Squared euclidean distances of the features of N images, [N, C]."""

    def __init__(self, features: Tensor, num_queries: int):
        self.features = features
        self.norms = self.features.square().sum(dim=1)  # [N]
        self.size, self.num_queries, self.device = len(features), num_queries, features.device
        self._buffer = torch.empty(0, self.size, device=self.device)

    def rows(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        # |x - y|^2 = |x|^2 + |y|^2 - 2 xy; |x|^2 is the same for a whole row and is added to what is taken from it.
        if len(self._buffer) < end - begin:
            self._buffer = torch.empty(end - begin, self.size, device=self.device)
        block = self._buffer[: end - begin]
        torch.addmm(self.norms, self.features[begin:end], self.features.T, alpha=-2, out=block)
        own = torch.arange(end - begin, device=self.device)
        block[own, begin + own] = -torch.inf  # whatever the rounding, an image is its own nearest neighbour
        return block, self.norms[begin:end]

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

    def rows(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        q = self.num_queries
        queries, gallery = slice(min(begin, q), min(end, q)), slice(max(begin, q) - q, max(end, q) - q)
        block = torch.empty(end - begin, self.size, device=self.device)
        torch.cat([self.qq[:, queries].T, self.qg[:, gallery].T], out=block[:, :q])
        torch.cat([self.qg[queries], self.gg[:, gallery].T], out=block[:, q:])
        return block.square_(), torch.zeros(end - begin, device=self.device)

    def pairs(self, one: Tensor, other: Tensor) -> Tensor:
        q = self.num_queries
        query_one, query_other = one.clamp(max=q - 1), other.clamp(max=q - 1)
        gallery_one, gallery_other = (one - q).clamp_(min=0), (other - q).clamp_(min=0)
        of_query = torch.where(other < q, self.qq[query_other, query_one], self.qg[query_one, gallery_other])
        of_gallery = torch.where(other < q, self.qg[query_other, gallery_one], self.gg[gallery_other, gallery_one])
        return torch.where(one < q, of_query, of_gallery).square_()

"""Squared distances of N pictures, as much of them at a time as is asked for: never [N, N].

What re-ranking reads from, be it features or three matrices; the queries come first. Derived in
notebooks/09_reranking.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

_PAIR_BYTES = 64 << 20  # of the features of a block of single pairs


class Distances(Protocol):
    """Squared distances of N pictures, as much of them at a time as is asked for."""

    size: int  # N
    num_queries: int  # Q
    device: torch.device

    def rows(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        """Of n pictures to all, float32 [n, N], less a number for each row, [n]; valid until the next call."""

    def pairs(self, one: Tensor, other: Tensor) -> Tensor:
        """Of picture one[i] to picture other[i], float32 [M]."""


class FeatureDistances:
    """Squared euclidean distances of the features of N pictures, [N, C], the queries first."""

    def __init__(self, features: Tensor, num_queries: int):
        self.features = features  # [N, C]
        self.norms = self.features.square().sum(dim=1)  # [N]
        self.size, self.num_queries, self.device = len(features), num_queries, features.device
        self._buffer = torch.empty(0, self.size, device=self.device)

    def rows(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        # |x - y|^2 = |x|^2 + |y|^2 - 2 xy; the first is the same for a whole row and added to what is taken from it.
        if len(self._buffer) < end - begin:
            self._buffer = torch.empty(end - begin, self.size, device=self.device)
        block = self._buffer[: end - begin]
        torch.addmm(self.norms, self.features[begin:end], self.features.T, alpha=-2, out=block)
        own = torch.arange(end - begin, device=self.device)
        block[own, begin + own] = -torch.inf  # whatever the rounding, a picture is its own nearest neighbour
        return block, self.norms[begin:end]

    def pairs(self, one: Tensor, other: Tensor) -> Tensor:
        step = max(1, _PAIR_BYTES // (4 * self.features.shape[1]))
        parts = []
        for x, y in zip(one.split(step), other.split(step), strict=True):
            products = torch.linalg.vecdot(self.features[x], self.features[y])
            parts.append((self.norms[x] + self.norms[y] - 2 * products).clamp_(min=0).masked_fill_(x == y, 0))
        return torch.cat(parts) if parts else self.norms[:0]


class MatrixDistances:
    """Squared distances of N pictures from three matrices of distances."""

    # A row here is a column of the published code's joined matrix, which it transposes; that matters only where
    # query_query or gallery_gallery are not symmetric.
    def __init__(self, query_gallery: Tensor, query_query: Tensor, gallery_gallery: Tensor):
        self.qg, self.qq, self.gg = query_gallery, query_query, gallery_gallery
        self.num_queries, self.device = len(query_gallery), query_gallery.device
        self.size = sum(query_gallery.shape)

    def rows(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        q = self.num_queries
        block = torch.empty(end - begin, self.size, device=self.device)
        cut = min(max(begin, q), end) - begin  # rows of queries come first
        block[:cut, :q] = self.qq[:, begin : begin + cut].T
        block[:cut, q:] = self.qg[begin : begin + cut]
        rest = slice(begin + cut - q, end - q)
        block[cut:, :q] = self.qg[:, rest].T if cut < len(block) else 0
        block[cut:, q:] = self.gg[:, rest].T if cut < len(block) else 0
        return block.square_(), torch.zeros(end - begin, device=self.device)

    def pairs(self, one: Tensor, other: Tensor) -> Tensor:
        q = self.num_queries
        found = torch.empty(len(one), device=self.device)
        for in_one in (True, False):
            for in_other in (True, False):
                at = ((one < q) == in_one) & ((other < q) == in_other)
                x, y = one[at] - (0 if in_one else q), other[at] - (0 if in_other else q)
                if in_one != in_other:
                    found[at] = self.qg[x, y] if in_one else self.qg[y, x]
                else:
                    found[at] = (self.qq if in_one else self.gg)[y, x]
        return found.square_()

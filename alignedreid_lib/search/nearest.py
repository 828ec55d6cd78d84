"""The nearest images of a gallery of any size, in blocks of rows. Explained in notebooks/12.

The distance matrix of a million images and a hundred queries has 400 MB and is never needed as a whole: of each block
only the nearest are kept. The gallery may be mapped from a file.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignedreid_lib.evaluation import distance_matrix
from alignedreid_lib.evaluation.features import Features

ROWS = 16384  # gallery images at a time
_BLOCK_BYTES = 64 << 20  # limit for the distances of a block
_PLACE = (1 << 32) - 1  # the lower half of a key


def nearest(
    queries: Features, gallery: Features, distance: str, top: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows of the nearest gallery images of each query, and their distances, nearest first.

    Args:
        queries: [Q].
        gallery: [G], at least one and fewer than 2^32.
        distance: see `evaluation.distance_matrix`.
        top: how many, K; all G if there are fewer.

    Returns:
        int64 [Q, K] and float32 [Q, K]; equal distances in the gallery's order.
    """
    best = torch.empty(len(queries), 0, dtype=torch.int64)
    step = max(1, min(ROWS, _BLOCK_BYTES // (4 * max(1, len(queries)))))
    for begin in range(0, len(gallery), step):
        matrix = distance_matrix(distance, queries, gallery[begin : begin + step])
        best = torch.cat([best, keys(matrix, begin)], dim=1)
        best = best.topk(min(top, best.shape[1]), dim=1, largest=False, sorted=True).values
    distances = (best >> 32).to(torch.int32).view(torch.float32)
    return (best & _PLACE).numpy(), distances.numpy()


def keys(distances: Tensor, begin: int = 0) -> Tensor:
    """One integer for each distance and its column, int64 [Q, n]; sorted, they are sorted by distance, then by column.

    The bits of a float32 that is not negative, read as an integer, have the order of the numbers.

    Args:
        distances: float32 [Q, n], 0 or larger.
        begin: number of the first column.
    """
    bits = distances.contiguous().view(torch.int32).to(torch.int64) << 32
    return bits + torch.arange(begin, begin + distances.shape[1])

"""Counting how many gallery images come before some: on the CPU by sorted values, on an accelerator by sorted indices.

Q queries, G gallery images. Images at equal distance keep the gallery's order. Derived in notebooks/08_evaluation.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from alignedreid_lib import devices
from alignedreid_lib.errors import InputError

T = TypeVar("T")

_BLOCK = 64  # queries per thread at a time: 4 MB of working memory for a gallery of Market-1501's size
_DEVICE_BYTES = 64 << 20  # limit for the order of a block of queries, of which sorting needs several


def over_blocks(function: Callable[[int, NDArray[Any]], T], distances: Any) -> list[T]:
    """The results of a function of (first query, [n, G] on the CPU), one per block of rows; sorting needs no GIL.

    Raises:
        InputError: nan.
    """

    def of_block(start: int) -> T:
        block = as_array(distances[start : start + _BLOCK])
        if block.dtype == np.float16:
            block = block.astype(np.float32)  # numpy has no fast sort for half precision
        if np.isnan(block.max()):  # the maximum of values with a nan is nan
            _refuse_nan(np.isnan(block).any(axis=1), start)
        return function(start, block)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return list(pool.map(of_block, range(0, len(distances), _BLOCK)))


def count_before(
    rows: NDArray[Any], first: int, value: NDArray[Any], image: NDArray[np.int64], bounds: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For M images, [M]: how many entries of their row are smaller, or equal and earlier in the gallery.

    Args:
        rows: [n, g] distances to gallery images first ... first + g.
        value, image: [M] distances and gallery indices, row by row, ascending in each.
        bounds: [n + 1] where each row's images begin.
    """
    value = value.astype(rows.dtype, copy=False)  # comparing 64 bits with 32 is slow
    counts, through = np.empty((2, len(value)), np.int64)
    # Sorting values is several times faster than sorting indices, and sorting whole rows faster than partitioning.
    for row, begin, end in zip(np.sort(rows, axis=1), bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        counts[begin:end] = row.searchsorted(value[begin:end], "left")
        through[begin:end] = row.searchsorted(value[begin:end], "right")
    inside = (image >= first) & (image < first + rows.shape[1])
    for i in np.flatnonzero(through - counts > inside):  # other images are at the same distance
        row = rows[np.searchsorted(bounds, i, "right") - 1]
        counts[i] += np.count_nonzero(row[: max(image[i] - first, 0)] == value[i])
    return counts


def count_on_device(
    matrix: torch.Tensor, query: NDArray[np.int64], image: NDArray[np.int64], begins: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For M images, [M]: how many entries of their row are smaller, or equal and earlier in the gallery.

    Nothing but the counts is copied to the host, once.

    Args:
        matrix: [Q, G] distances.
        query, image: [M] row and column of each image, row by row.
        begins: [Q + 1] where each row's images begin.

    Raises:
        InputError: nan.
    """
    size, step = len(matrix), max(1, _DEVICE_BYTES // (8 * matrix.shape[1]))
    rows, columns = (torch.from_numpy(side).to(matrix.device) for side in (query, image))
    ranks = torch.arange(matrix.shape[1], device=matrix.device)
    counts = torch.empty(len(image), dtype=torch.int64, device=matrix.device)
    broken = torch.empty(size, dtype=torch.bool, device=matrix.device)
    for start in range(0, size, step):
        end = min(start + step, size)
        order = matrix[start:end].argsort(dim=1, stable=True)
        before = torch.empty_like(order).scatter_(1, order, ranks.expand_as(order))  # [n, G], the order's inverse
        own = slice(int(begins[start]), int(begins[end]))
        counts[own] = before[rows[own] - start, columns[own]]
        broken[start:end] = matrix[start:end].isnan().any(dim=1)
    _refuse_nan(devices.fetch(broken), 0)
    return devices.fetch(counts)


def _refuse_nan(broken: NDArray[np.bool_], start: int) -> None:
    """Raises InputError where the distances of a query, counted from `start`, contain nan."""
    if broken.any():
        query = start + int(np.flatnonzero(broken)[0])
        raise InputError(f"distances of query {query} contain nan: look for broken features first")


def as_array(values: Any) -> NDArray[Any]:
    """Values on the host: an array of what is a list, an array or a tensor."""
    return devices.fetch(values) if isinstance(values, torch.Tensor) else np.asarray(values)

"""What is to be ranked: a matrix of distances and whose they are, checked; and the way through it in blocks.

Derived in notebooks/08_evaluation.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from alignedreid_lib.errors import InputError

Values = ArrayLike | torch.Tensor

T = TypeVar("T")

BLOCK = 64  # queries at a time and thread: 4 MB of working memory for a gallery of Market-1501's size


class Problem(NamedTuple):
    """Distances and whose they are."""

    distances: Any  # [Q, G] numpy or torch
    query_ids: NDArray[np.int64]  # [Q] numbered from 0 on, together with the gallery's
    gallery_ids: NDArray[np.int64]  # [G]
    query_cameras: NDArray[np.int64]  # [Q]
    gallery_cameras: NDArray[np.int64]  # [G]


def checked_block(block: Any, first_query: int = 0) -> NDArray[Any]:
    """Rows of distances on the CPU, in a type that numpy sorts fast.

    Raises:
        InputError: nan.
    """
    block = _array(block)
    if block.dtype == np.float16:
        block = block.astype(np.float32)  # numpy has no fast sort for half precision
    if block.size and np.isnan(block.max()):  # the maximum of what holds a nan is nan
        query = first_query + int(np.flatnonzero(np.isnan(block).any(axis=1))[0])
        raise InputError(f"distances of query {query} contain nan: look for broken features first")
    return block


def checked(
    distances: Values,
    query_ids: Values,
    gallery_ids: Values,
    query_cameras: Values,
    gallery_cameras: Values,
    keep_same_camera: bool,
) -> Problem:
    """What `ranking.score_ranking` was given, ready to be ranked.

    Raises:
        InputError: no matrix of numbers, or see `checked_labels`.
    """
    matrix = distances if isinstance(distances, torch.Tensor) else np.asarray(distances)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(f"distances have shape {tuple(matrix.shape)}: give a matrix [Q, G], neither of them 0")
    if _array(matrix[:1]).dtype.kind not in "fiu":
        raise InputError(f"distances are {matrix.dtype}: give real numbers")
    people = (query_ids, gallery_ids, query_cameras, gallery_cameras)
    return Problem(matrix, *checked_labels(*people, matrix.shape, keep_same_camera))


def checked_labels(
    query_ids: Values,
    gallery_ids: Values,
    query_cameras: Values,
    gallery_cameras: Values,
    shape: tuple[int, ...],
    keep_same_camera: bool = False,
) -> tuple[NDArray[np.int64], ...]:
    """(query ids, gallery ids, query cameras, gallery cameras) as numbers from 0 on, for distances of a shape [Q, G].

    Raises:
        InputError: another length, or labels that are neither integers nor strings.
    """
    ids = _numbered("ids", query_ids, gallery_ids, shape)
    cameras = _numbered("cameras", query_cameras, gallery_cameras, shape)
    if keep_same_camera:
        cameras[0] = np.full(shape[0], -1)  # a camera that no gallery image has
    return ids[0], ids[1], cameras[0], cameras[1]


def _numbered(what: str, query: Values, gallery: Values, shape: tuple[int, ...]) -> list[NDArray[np.int64]]:
    """Labels of both sides as numbers from 0 on: [Q], [G]."""
    both = []
    for name, values, length in (("query", query, shape[0]), ("gallery", gallery, shape[1])):
        labels = _array(values)
        if labels.shape != (length,):
            raise InputError(f"{name}_{what} have shape {labels.shape}: the distances ask for ({length},)")
        if labels.dtype.kind not in "iuUS":
            raise InputError(f"{name}_{what} are {labels.dtype}: give integers or strings")
        both.append(labels.astype(np.int64) if labels.dtype.kind in "iu" else labels)
    if both[0].dtype.kind != both[1].dtype.kind:
        raise InputError(f"query_{what} are {both[0].dtype}, gallery_{what} {both[1].dtype}: give one type")
    codes = np.unique(np.concatenate(both), return_inverse=True)[1].reshape(-1)
    return np.split(codes, [shape[0]])


def _array(values: Any) -> NDArray[Any]:
    if not isinstance(values, torch.Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return values.float().numpy() if values.dtype == torch.bfloat16 else values.numpy()


def over_blocks(function: Callable[[int, NDArray[Any]], T], distances: Any) -> list[T]:
    """What a function of (first query, [n, G] on the CPU) gives for each block of rows; sorting needs no GIL."""

    def of_block(start: int) -> T:
        return function(start, checked_block(distances[start : start + BLOCK], start))

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return list(pool.map(of_block, range(0, len(distances), BLOCK)))

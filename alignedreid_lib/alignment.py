"""Distances between people made of stripes: a shortest path matches the stripes of one to those of the other.

Shapes: H and W stripes of the two, c channels. Everything is computed in float32 (float64 stays), also inside autocast.
Derived in notebooks/04_alignment.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alignedreid_lib.errors import InputError

_TILE_CELLS = {"cpu": 1 << 21, "cuda": 1 << 27}  # pairs of stripes held at a time, about four times


def stripe_distances(x: Tensor, y: Tensor) -> Tensor:
    """What it costs to match each stripe of one person with each stripe of another.

    Args:
        x: [..., H, c].
        y: [..., W, c]; leading dimensions broadcast.

    Returns:
        [..., H, W], tanh(d / 2) of the euclidean distances d, between 0 and 1.

    Raises:
        InputError: channels that differ.

    Source: AlignedReID eq. 1, (e^d - 1) / (e^d + 1), which is tanh(d / 2) and as such does not overflow.
    """
    if x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-1]:
        raise InputError(f"stripes of shapes {tuple(x.shape)} and {tuple(y.shape)}; give [..., H, c] and [..., W, c]")
    with torch.autocast(x.device.type, enabled=False):
        halves = torch.cdist(full_precision(x) / 2, full_precision(y) / 2, compute_mode="use_mm_for_euclid_dist")
        return halves.tanh() if halves.requires_grad else halves.tanh_()


def shortest_path(costs: Tensor) -> Tensor:
    """The least sum of costs on a way from the first cell to the last, in steps right and down.

    Args:
        costs: [..., H, W].

    Returns:
        [...]; gradients flow to the cells of the path (where two ways are equally short, half to each).

    Raises:
        InputError: no cells.

    Source: AlignedReID eq. 2. All cells of an anti-diagonal are computed at once: H + W - 1 steps, not H * W.
    """
    if costs.ndim < 2 or 0 in costs.shape[-2:]:
        raise InputError(f"costs have shape {tuple(costs.shape)}; give [..., H, W] with one cell or more")
    height, width = costs.shape[-2:]
    cells = [row.unbind(0) for row in costs.movedim((-2, -1), (0, 1)).unbind(0)]  # H x W times [...]
    lengths = cells[0][0][None]  # [cells of the diagonal, ...], from its upper right end to its lower left one
    for diagonal in range(1, height + width - 1):
        first, last = max(0, diagonal - width + 1), min(diagonal, height - 1)  # its rows
        best = torch.minimum(lengths[:-1], lengths[1:])  # from above, from the left
        if diagonal < width:  # the uppermost cell has nothing above it
            best = torch.cat([lengths[:1], best])
        if diagonal < height:  # the leftmost has nothing to its left
            best = torch.cat([best, lengths[-1:]])
        lengths = best + torch.stack([cells[row][diagonal - row] for row in range(first, last + 1)])
    return lengths[0]


def trace_path(costs: Tensor) -> list[tuple[int, int]]:
    """The cells of the shortest path, from (0, 0) to (H - 1, W - 1).

    Args:
        costs: [H, W].

    Raises:
        InputError: not one matrix, no cells, or costs that are not numbers.
    """
    if costs.ndim != 2 or 0 in costs.shape:
        raise InputError(f"costs have shape {tuple(costs.shape)}; give [H, W] with one cell or more")
    if not costs.isfinite().all():
        raise InputError("costs hold a value that is not a finite number; look at the features they come from")
    table: list[list[float]] = costs.tolist()
    height, width = costs.shape
    for i in range(height):
        for j in range(width):
            before = [table[i - 1][j]] * (i > 0) + [table[i][j - 1]] * (j > 0)
            table[i][j] += min(before, default=0.0)
    i, j = height - 1, width - 1
    path = [(i, j)]
    while (i, j) != (0, 0):
        up = j == 0 or (i > 0 and table[i - 1][j] <= table[i][j - 1])
        i, j = (i - 1, j) if up else (i, j - 1)
        path.append((i, j))
    return path[::-1]


def local_distances(x: Tensor, y: Tensor, aligned: bool = True) -> Tensor:
    """All distances between two sets of people made of stripes.

    Args:
        x: [M, H, c].
        y: [N, W, c].
        aligned: along the shortest path; False sums the distances of corresponding stripes (rigid parts), H = W.

    Returns:
        [M, N]. Differentiable; where no gradient is asked for, computed in tiles of bounded memory.

    Raises:
        InputError: shapes that do not fit each other.

    Source: AlignedReID eq. 2; rigid parts are the baseline of AlignedReID++ (Luo et al. 2019).
    """
    if x.ndim != 3 or y.ndim != 3 or x.shape[2] != y.shape[2] or 0 in (x.shape[1], y.shape[1]):
        raise InputError(
            f"local features of shapes {tuple(x.shape)} and {tuple(y.shape)}; give [M, H, c] and [N, W, c]"
        )
    if not aligned and x.shape[1] != y.shape[1]:
        raise InputError(
            f"rigid distances need equal stripe counts, not {x.shape[1]} and {y.shape[1]}; use aligned=True"
        )
    distances = _aligned if aligned else _rigid
    if torch.is_grad_enabled() and (x.requires_grad or y.requires_grad):
        return distances(x, y)
    side = max(1, math.isqrt(_TILE_CELLS[x.device.type] // (x.shape[1] * y.shape[1])))
    result = torch.empty(len(x), len(y), dtype=full_precision(x[:0]).dtype, device=x.device)
    for i in range(0, len(x), side):
        for j in range(0, len(y), side):
            result[i : i + side, j : j + side] = distances(x[i : i + side], y[j : j + side])
    return result


def full_precision(x: Tensor) -> Tensor:
    """`x` as float32, or float64 if it is that already."""
    return x if x.dtype == torch.float64 else x.float()


def _aligned(x: Tensor, y: Tensor) -> Tensor:
    """[M, N] from one product: all stripes of one place lie together, so that a cell's [M, N] are read in runs."""
    (m, height, _), (n, width, _) = x.shape, y.shape
    costs = stripe_distances(x.transpose(0, 1).flatten(0, 1), y.transpose(0, 1).flatten(0, 1))  # [H M, W N]
    return shortest_path(costs.view(height, m, width, n).permute(1, 3, 0, 2))


def _rigid(x: Tensor, y: Tensor) -> Tensor:
    """[M, N], the sum over corresponding stripes."""
    return stripe_distances(x.transpose(0, 1), y.transpose(0, 1)).sum(0)

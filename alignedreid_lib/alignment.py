"""Distances between images made of stripes: a shortest path matches the stripes of one to those of the other.

Shapes: H and W stripes of the two images, c channels. All of it computes in float32 (float64 stays), also inside
autocast. Derived in notebooks/04_alignment.
"""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor

from alignedreid_lib import devices
from alignedreid_lib.errors import InputError

_CPU_CELLS, _GPU_CELLS = 1 << 22, 1 << 27  # pairs of stripes in memory at a time


def stripe_distances(x: Tensor, y: Tensor) -> Tensor:
    """The cost of matching each stripe of one image with each stripe of a second.

    Args:
        x: [..., H, c].
        y: [..., W, c]; leading dimensions broadcast.

    Returns:
        [..., H, W], tanh(d / 2) of the euclidean distances d, between 0 and 1.

    Raises:
        InputError: different numbers of channels.

    Source: AlignedReID eq. 1, (e^d - 1) / (e^d + 1), which equals tanh(d / 2); the latter does not overflow.
    """
    if x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-1]:
        raise InputError(f"stripes of shapes {tuple(x.shape)} and {tuple(y.shape)}; give [..., H, c] and [..., W, c]")
    with torch.autocast(x.device.type, enabled=False):
        squares = _left_factor(x) @ _right_factor(y).transpose(-1, -2)
        return squares.clamp(min=1e-12).sqrt().tanh()


def shortest_path(costs: Tensor) -> Tensor:
    """The least sum of costs on a path from the first cell to the last, in steps right and down.

    Args:
        costs: [..., H, W].

    Returns:
        [...]; gradients flow to the cells of the path, half to each of two equally short paths.

    Raises:
        InputError: no cells.

    Source: AlignedReID eq. 2. The cells of an anti-diagonal are computed at once: H + W - 1 steps instead of H * W.
    """
    if costs.ndim < 2 or 0 in costs.shape[-2:]:
        raise InputError(f"costs have shape {tuple(costs.shape)}; give [..., H, W] with one cell or more")
    cells = full_precision(costs).movedim((-2, -1), (0, 1))
    if costs.requires_grad and torch.is_grad_enabled():
        return _path_with_gradient(cells)
    return _path_in_place(cells)


def trace_path(costs: Tensor) -> list[tuple[int, int]]:
    """The cells of the shortest path, from (0, 0) to (H - 1, W - 1).

    Args:
        costs: [H, W].

    Raises:
        InputError: not one matrix, no cells, or costs that are not finite.
    """
    if costs.ndim != 2 or 0 in costs.shape:
        raise InputError(f"costs have shape {tuple(costs.shape)}; give [H, W] with one cell or more")
    if not costs.isfinite().all():
        raise InputError("costs contain a value that is not a finite number; look at the features they come from")
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
    """All distances between two sets of images made of stripes.

    Args:
        x: [M, H, c].
        y: [N, W, c].
        aligned: along the shortest path; False sums the distances of corresponding stripes (rigid parts), H = W.

    Returns:
        [M, N]. Differentiable; without a gradient it is computed in tiles of bounded memory.

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
    if torch.is_grad_enabled() and (x.requires_grad or y.requires_grad):
        return _aligned(x, y) if aligned else _rigid(x, y)
    result = torch.empty(len(x), len(y), dtype=full_precision(x[:0]).dtype, device=x.device)
    pairs = max(1, (_CPU_CELLS if x.device.type == "cpu" else _GPU_CELLS) // (x.shape[1] * y.shape[1]))
    m = min(len(x), max(1, math.isqrt(pairs // 8)))
    n = min(len(y), max(1, pairs // max(1, m)))  # wide rather than square: long runs in memory
    rows = [slice(i, i + m) for i in range(0, len(x), m or 1)]
    columns = [slice(j, j + n) for j in range(0, len(y), n or 1)]
    if not aligned:
        for a, b in product(rows, columns):
            result[a, b] = _rigid(x[a], y[b])
        return result
    # Memory for all tiles: a new allocation for each would take as long as its product.
    height, width = x.shape[1], y.shape[1]
    memory = result.new_empty(m * n * (height * width + 2 * (max(height, width) + 1)))
    with torch.autocast(x.device.type, enabled=False):
        lefts = [_left_factor(x[a].transpose(0, 1)) for a in rows]
        for b in columns:
            right = _right_factor(y[b].transpose(0, 1))
            for a, left in zip(rows, lefts, strict=True):
                result[a, b] = _aligned_tile(left, right, memory)
    return result


def full_precision(x: Tensor) -> Tensor:
    """`x` as float32, or float64 if it is that already."""
    return x if x.dtype == torch.float64 else x.float()


def _left_factor(x: Tensor) -> Tensor:
    """[..., H, c + 2]; times the transposed `_right_factor` of y it gives the squares of all halved distances."""
    squares = full_precision(x).square().sum(-1, keepdim=True) / 4
    return torch.cat([-full_precision(x), squares, torch.ones_like(squares)], -1)


def _right_factor(y: Tensor) -> Tensor:
    """[..., W, c + 2], see `_left_factor`."""
    squares = full_precision(y).square().sum(-1, keepdim=True) / 4
    return torch.cat([full_precision(y) / 2, torch.ones_like(squares), squares], -1)


def _aligned(x: Tensor, y: Tensor) -> Tensor:
    """[M, N] from one product, arranged so that the M N costs of a cell are contiguous runs in memory."""
    (m, height, _), (n, width, _) = x.shape, y.shape
    costs = stripe_distances(x.transpose(0, 1).flatten(0, 1), y.transpose(0, 1).flatten(0, 1))  # [H M, W N]
    return shortest_path(costs.view(height, m, width, n).permute(1, 3, 0, 2))


def _aligned_tile(left: Tensor, right: Tensor, memory: Tensor) -> Tensor:
    """The same [M, N] from factors [H, M, c + 2] and [W, N, c + 2], in given memory; valid until the next tile.

    Rounding rarely brings a square below 0, so squares are not clamped at first. The root of a negative one is nan and
    so is every sum that contains it; then the tile is computed again with clamping. On an accelerator, where looking
    for nan would make the host wait, all squares are clamped.
    """
    (height, m, _), (width, n, _) = left.shape, right.shape
    costs, rest = memory[: height * m * width * n].view(height * m, width * n), memory[height * m * width * n :]
    cells = costs.view(height, m, width, n).permute(0, 2, 1, 3)
    left, right = left.flatten(0, 1), right.flatten(0, 1).T
    clamped = devices.is_accelerator(costs.device)
    squares = torch.mm(left, right, out=costs)
    (squares.clamp_(min=1e-12) if clamped else squares).sqrt_().tanh_()
    lengths = _path_in_place(cells, rest)
    if not clamped and lengths.isnan().any():
        torch.mm(left, right, out=costs).clamp_(min=1e-12).sqrt_().tanh_()
        lengths = _path_in_place(cells, rest)
    return lengths


def _rigid(x: Tensor, y: Tensor) -> Tensor:
    """[M, N], the sum over corresponding stripes."""
    return stripe_distances(x.transpose(0, 1), y.transpose(0, 1)).sum(0)


def _path_with_gradient(cells: Tensor) -> Tensor:
    """The recurrence over anti-diagonals of cells [H, W, ...], each copied by one operation that autograd records."""
    height, width = cells.shape[:2]
    table = [row.unbind(0) for row in cells.unbind(0)]
    lengths = table[0][0][None]  # [cells of the diagonal, ...], from its upper right end to its lower left one
    for diagonal in range(1, height + width - 1):
        first, last = _rows(diagonal, height, width)
        best = torch.minimum(lengths[:-1], lengths[1:])  # from above, from the left
        if diagonal < width:  # the upper right cell has no cell above it
            best = torch.cat([lengths[:1], best])
        if diagonal < height:  # the lower left cell has no cell to its left
            best = torch.cat([best, lengths[-1:]])
        lengths = best + torch.stack([table[row][diagonal - row] for row in range(first, last + 1)])
    return lengths[0]


def _path_in_place(cells: Tensor, memory: Tensor | None = None) -> Tensor:
    """The same without a gradient: two buffers of one diagonal, and views of the cells instead of copies."""
    if cells.stride(0) < cells.stride(1):  # views cannot have a negative stride; transposed, the path length is equal
        cells = cells.transpose(0, 1)
    height, width, *rest = cells.shape
    down, right, *strides = cells.stride()
    size = (2, height + 1, *rest)
    before, after = cells.new_empty(size) if memory is None else memory[: math.prod(size)].view(size)
    # Row i of the table is row i + 1 of a buffer; cells outside of the table cost infinity.
    before[0] = after[0] = torch.inf
    before[1] = cells[0, 0]
    for diagonal in range(1, height + width - 1):
        first, last = _rows(diagonal, height, width)
        if diagonal < height:
            before[diagonal + 1] = torch.inf
        start = cells.storage_offset() + first * down + (diagonal - first) * right
        costs = cells.as_strided((last - first + 1, *rest), (down - right, *strides), start)
        lengths = after[first + 1 : last + 2]
        torch.minimum(before[first : last + 1], before[first + 1 : last + 2], out=lengths)
        lengths += costs
        before, after = after, before
    return before[height]


def _rows(diagonal: int, height: int, width: int) -> tuple[int, int]:
    """The first and the last row that an anti-diagonal passes through."""
    return max(0, diagonal - width + 1), min(diagonal, height - 1)

"""Padded crops and random erasing, on images that have the batch's size. Derived in notebooks/14_strong_baseline.

A padded crop moves an image: the border that comes into view is black. Erasing covers a rectangle of what is left of
the image with the mean colour, never the border.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

AREA = (0.02, 0.4)  # of a rectangle, as shares of the image
RATIO = (0.3, 1 / 0.3)  # height over width
ATTEMPTS = 10  # to draw a rectangle that fits
MEAN_COLOUR = (124, 117, 104)  # `images.MEAN` in grey levels: close to 0 once it is normalised


def random_rectangle(height: int, width: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    """(top, left, h, w) of a random rectangle inside an image; (0, 0, 0, 0) if none fits in `ATTEMPTS` attempts.

    Its area is a uniform share from `AREA`, the logarithm of its ratio is uniform in that of `RATIO`, and so is its
    place.

    Args:
        height, width: pixels of the image.

    Source: Zhong et al. 2020 (random erasing), algorithm 1; the ratio's logarithm, and so tall rectangles as often as
        wide ones, is torchvision's.
    """
    low, high = torch.log(torch.tensor(RATIO)).tolist()
    for _ in range(ATTEMPTS):
        area = height * width * torch.empty(1).uniform_(*AREA, generator=generator).item()
        ratio = torch.exp(torch.empty(1).uniform_(low, high, generator=generator)).item()
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < h < height and 0 < w < width:
            top, left = (
                int(torch.randint(left_over + 1, (), generator=generator)) for left_over in (height - h, width - w)
            )
            return top, left, h, w
    return 0, 0, 0, 0


def draw_shifts(count: int, pad: int, generator: torch.Generator) -> Tensor:
    """How far the crop of each padded image is from its middle, rows and columns: int64 [count, 2] in [-pad, pad].

    Nothing is drawn if pad is 0.
    """
    if not pad:
        return torch.zeros(count, 2, dtype=torch.int64)
    return torch.randint(-pad, pad + 1, (count, 2), generator=generator)


def draw_rectangles(shifts: Tensor, size: tuple[int, int], prob: float, generator: torch.Generator) -> Tensor:
    """What to erase of each image: top, left, height and width, int64 [N, 4]; zeros for an image that is left alone.

    Each rectangle is inside the part of the batch's image that is not border. Nothing is drawn if prob is 0.

    Args:
        shifts: of `draw_shifts`, [N, 2].
        size: (h, w) of the batch.
        prob: probability that an image loses a rectangle.
    """
    rectangles = torch.zeros(len(shifts), 4, dtype=torch.int64)
    if not prob:
        return rectangles
    chosen = torch.rand(len(shifts), generator=generator) < prob
    for k in chosen.nonzero().flatten().tolist():
        down, right = shifts[k].tolist()
        top, left, h, w = random_rectangle(size[0] - abs(down), size[1] - abs(right), generator)
        rectangles[k] = torch.tensor([top + max(0, -down), left + max(0, -right), h, w])
    return rectangles


def shift(image: NDArray[np.uint8], down: int, right: int) -> NDArray[np.uint8]:
    """The crop, of the image's own size, that begins `down` rows and `right` columns after it; black outside of it.

    Args:
        image: [3, h, w].
    """
    moved = np.zeros_like(image)
    h, w = image.shape[1:]
    seen = (slice(max(0, down), h + min(0, down)), slice(max(0, right), w + min(0, right)))
    there = (slice(max(0, -down), h - max(0, down)), slice(max(0, -right), w - max(0, right)))
    moved[:, there[0], there[1]] = image[:, seen[0], seen[1]]
    return moved


def erase(image: NDArray[np.uint8], top: int, left: int, h: int, w: int) -> None:
    """Cover a rectangle of an image [3, height, width] with the mean colour, in place."""
    image[:, top : top + h, left : left + w] = np.array(MEAN_COLOUR, np.uint8)[:, None, None]


def covers(rows: Tensor, columns: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Which pixels of a batch are border, and which are erased, for all images at once: bool [N, h, w] each.

    Args:
        rows, columns: [1, h] and [1, w], pixels of the batch.
        table: int64 [N, 6, 1]: shift and erased rectangle, see `augmentation.Views`.
    """
    down, right, top, left, height, width = table.unbind(1)  # [N, 1] each

    def outside(at: Tensor, moved: Tensor) -> Tensor:  # [1, n], [N, 1] -> [N, n]
        return (at + moved < 0) | (at + moved >= at.shape[1])

    border = outside(rows, down)[:, :, None] | outside(columns, right)[:, None, :]
    covered = ((rows >= top) & (rows < top + height), (columns >= left) & (columns < left + width))
    return border, covered[0][:, :, None] & covered[1][:, None, :]

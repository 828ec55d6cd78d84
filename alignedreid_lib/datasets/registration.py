"""Image registration: the place of a second image of the same shot in the first one. Derived in notebooks/13.

Two boxes around one person in one frame, a detector's and one drawn by hand, are cut out and scaled to one size. Their
pixels are the same up to this scaling, so the box error can be measured: it is the scale and the shift of each side at
which the images correlate best.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from alignedreid_lib.errors import InputError

SCALES = (0.71, 0.84, 1.0, 1.19, 1.41)  # tried for each side at first
MOST_STRETCH = 1.45  # largest ratio of the two sides' scales that is tried
LEAST_OVERLAP = 0.4  # share of the smaller box that has to be inside the other one
SEARCHED, REFINED = (32, 16), (64, 32)  # pixels [height, width] of the two stages
STEPS, RATE = 40, 0.01  # second stage


class Registration(NamedTuple):
    """The places of N boxes relative to N reference boxes; down and right are positive."""

    shift: Tensor  # [N, 2] of the centre, down and right, in heights and widths of the reference box
    scale: Tensor  # [N, 2] height and width over those of the reference box
    correlation: Tensor  # [N] of the grey values that both show, -1 to 1; the measurement fails if it is low

    @property
    def edge_errors(self) -> Tensor:
        """[N] how far the top or the bottom of each box is off, whichever is more, in heights of the reference box."""
        stretch = (self.scale[:, 0] - 1) / 2
        return torch.stack([self.shift[:, 0] - stretch, self.shift[:, 0] + stretch]).abs().amax(0)


def register(images: Tensor, references: Tensor, batch_size: int = 500) -> Registration:
    """Find the box of each image in its reference image.

    First every scale of a small grid with every shift, by the normalised cross-correlation of the pixels that both
    boxes show; then the best of them is refined by gradient steps on the same correlation.

    Args:
        images, references: uint8 or float [N, 3, height, width] each, N pairs; each pair is cut from one frame.

    Raises:
        InputError: shapes that do not fit.

    Source: Padfield 2012 (masked cross-correlation by Fourier transforms).
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[:2] != references.shape[:2] or references.ndim != 4:
        raise InputError(
            f"images {tuple(images.shape)} and references {tuple(references.shape)}: give [N, 3, h, w] of each"
        )
    found = []
    for ours, theirs in zip(images.split(batch_size), references.split(batch_size), strict=True):
        ours, theirs = (side.float().mean(1, keepdim=True) for side in (ours, theirs))
        found.append(_refine(ours, theirs, _search(ours, theirs)))
    boxes, correlation = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Registration(shift=boxes[:, 2:], scale=boxes[:, :2], correlation=correlation)


def _search(images: Tensor, references: Tensor) -> Tensor:
    """The best scale and shift of a grid, [N, 4]: two scales, two shifts."""
    height, width = SEARCHED
    references = F.interpolate(references, SEARCHED, mode="area")[:, 0]
    best = torch.full((len(images),), -2.0)
    boxes = torch.zeros(len(images), 4)
    for tall, wide in itertools.product(SCALES, SCALES):
        if max(tall / wide, wide / tall) > MOST_STRETCH:
            continue
        h, w = round(tall * height), round(wide * width)
        correlations = _cross_correlation(F.interpolate(images, (h, w), mode="area")[:, 0], references)
        highest, place = correlations.flatten(1).max(1)
        down, right = place // correlations.shape[2] - h + 1, place % correlations.shape[2] - w + 1  # the corner
        scale = torch.tensor([h / height, w / width])
        shift = torch.stack([down / height, right / width], 1) + (scale - 1) / 2
        better = highest > best
        best = torch.where(better, highest, best)
        boxes[better] = torch.cat([scale.expand_as(shift), shift], 1)[better]
    return boxes


def _cross_correlation(images: Tensor, references: Tensor) -> Tensor:
    """Correlations of the pixels in common for every shift: [N, h, w], [N, H, W] -> [N, H + h - 1, W + w - 1]."""
    (h, w), (height, width) = images.shape[1:], references.shape[1:]
    size = (height + h - 1, width + w - 1)
    images, references = (side - side.mean((1, 2), keepdim=True) for side in (images, references))

    def sums(one: Tensor, other: Tensor) -> Tensor:  # for every shift the sum of the products
        return torch.fft.irfft2(torch.fft.rfft2(one.flip(1, 2), size) * torch.fft.rfft2(other, size), size)

    ones, reference_ones = torch.ones(1, h, w), torch.ones(1, height, width)
    count = sums(ones, reference_ones).round()
    ours, theirs = sums(images, reference_ones), sums(ones, references)
    covariance = sums(images, references) - ours * theirs / count
    variances = [  # of flat parts at least 1 a pixel, so that rounding does not look like a correlation
        (squares - total.square() / count).clamp(min=count)
        for squares, total in (
            (sums(images.square(), reference_ones), ours),
            (sums(ones, references.square()), theirs),
        )
    ]
    correlations = covariance / (variances[0] * variances[1]).sqrt()
    return correlations.masked_fill(count < LEAST_OVERLAP * min(h * w, height * width), -1.0)


def _refine(images: Tensor, references: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes [N, 4] of a higher correlation, and that correlation [N]."""
    images, references = (F.interpolate(side, REFINED, mode="area") for side in (images, references))
    boxes = boxes.clone().requires_grad_()
    best, best_boxes = torch.full((len(boxes),), -2.0), boxes.detach().clone()
    optimizer = torch.optim.Adam([boxes], RATE)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        correlation = _overlap_correlation(images, references, boxes)
        with torch.no_grad():
            better = correlation > best
            best = torch.where(better, correlation, best)
            best_boxes[better] = boxes[better]
        optimizer.zero_grad()
        (-correlation.sum()).backward()
        optimizer.step()
    return best_boxes, best.detach()


def _overlap_correlation(images: Tensor, references: Tensor, boxes: Tensor) -> Tensor:
    """The correlation [N] of images [N, 1, h, w] with what the references show in the given boxes."""
    tall, wide, down, right = boxes.unbind(1)
    zero = torch.zeros_like(tall)
    maps = torch.stack([wide, zero, 2 * right, zero, tall, 2 * down], 1).view(-1, 2, 3)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    inside = (grid.abs() <= 1).all(-1).float()  # [N, h, w]
    share = inside / inside.sum((1, 2), keepdim=True).clamp(min=1)
    seen = F.grid_sample(references, grid, padding_mode="border", align_corners=False)[:, 0]
    ours, theirs = (side - (side * share).sum((1, 2), keepdim=True) for side in (images[:, 0], seen))
    spread = ((ours.square() * share).sum((1, 2)) * (theirs.square() * share).sum((1, 2))).clamp(min=1e-6).sqrt()
    return (ours * theirs * share).sum((1, 2)) / spread

"""Random views of images: crop, resize, mirror, the original's augmentation, then pad and erase.

Derived in notebooks/02_batches; padded crops and erasing in notebooks/14_strong_baseline.

What is random is drawn first, on the host, as a few numbers per image (`draw_views`). `apply_views` computes the views
on a CPU, image by image, in several threads. `PackedBatch` computes them on an accelerator, all in a few operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from alignedreid_lib.batches import erasing

IMAGES_PER_TASK = 16  # of a thread: enough that its start costs nothing


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly, without antialias, as the original reproduction does.

    Args:
        images: uint8 [..., 3, height, width].
        size: (h, w) in pixels.

    Returns:
        uint8 [..., 3, h, w].
    """
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    flat = images.reshape(-1, *images.shape[-3:])
    # In float: the integer kernel of older releases rounds differently, and GPUs have none.
    resized = F.interpolate(flat.float(), size=tuple(size), mode="bilinear", align_corners=False, antialias=False)
    return resized.round_().to(torch.uint8).reshape(*images.shape[:-2], *size)


def random_box(height: int, width: int, ratio: float, generator: torch.Generator) -> tuple[int, int, int, int]:
    """(top, left, h, w) of a random crop: each side a share drawn uniformly from `ratio` to 1, at a random place.

    Args:
        height, width: pixels of the image.
        ratio: smallest share kept of each side, in (0, 1].
    """
    shares = ratio + (1 - ratio) * torch.rand(2, generator=generator)
    h, w = max(1, int(height * shares[0])), max(1, int(width * shares[1]))
    top = int(torch.randint(height - h + 1, (), generator=generator))
    left = int(torch.randint(width - w + 1, (), generator=generator))
    return top, left, h, w


def random_crop(image: Tensor, ratio: float, generator: torch.Generator) -> Tensor:
    """The crop of `random_box` from an image [3, height, width]."""
    top, left, h, w = random_box(image.shape[-2], image.shape[-1], ratio, generator)
    return image[:, top : top + h, left : left + w]


class Views(NamedTuple):
    """The random decisions for a batch of N images, in the order in which they are applied; on the CPU."""

    boxes: Tensor  # int64 [N, 4]: top, left, height and width of the crop, pixels of the image
    mirrored: Tensor  # bool [N]: left to right
    shifts: Tensor  # int64 [N, 2]: rows and columns, see `erasing.draw_shifts`; from here on pixels of the batch
    erased: Tensor  # int64 [N, 4]: top, left, height and width, see `erasing.draw_rectangles`


def draw_views(
    sizes: Sequence[tuple[int, int]],
    size: tuple[int, int],
    generator: torch.Generator,
    mirror_prob: float,
    crop_prob: float,
    ratio: float,
    pad: int = 0,
    erase_prob: float = 0.0,
) -> Views:
    """Draw a view of each image.

    Args:
        sizes: height and width of the N images, pixels.
        size: those of the batch.
        generator: on the host; the only source of randomness.
        mirror_prob, crop_prob, ratio, pad, erase_prob: see `augment`.
    """
    cropped = torch.rand(len(sizes), generator=generator) < crop_prob
    boxes = [
        random_box(*size, ratio, generator) if crop else (0, 0, *size)
        for size, crop in zip(sizes, cropped.tolist(), strict=True)
    ]
    mirrored = torch.rand(len(sizes), generator=generator) < mirror_prob
    shifts = erasing.draw_shifts(len(sizes), pad, generator)
    erased = erasing.draw_rectangles(shifts, size, erase_prob, generator)
    return Views(torch.tensor(boxes, dtype=torch.int64).view(-1, 4), mirrored, shifts, erased)


def apply_views(images: Sequence[Tensor], views: Views, size: tuple[int, int], pool: Executor | None = None) -> Tensor:
    """Compute views on the CPU.

    Args:
        images: N images, uint8 [3, height, width] each; sizes may differ.
        size: (h, w) of the batch.
        pool: threads that share the work; their number does not change the result.

    Returns:
        uint8 [N, 3, h, w].
    """
    batch = np.empty((len(images), 3, *size), np.uint8)
    boxes, mirrored, shifts, erased = (part.tolist() for part in views)

    def fill(begin: int) -> None:
        for k in range(begin, min(begin + IMAGES_PER_TASK, len(images))):
            top, left, h, w = boxes[k]
            image = resize(images[k][:, top : top + h, left : left + w], size)
            batch[k] = (image.flip(-1) if mirrored[k] else image).numpy()
            if any(shifts[k]):
                batch[k] = erasing.shift(batch[k], *shifts[k])
            erasing.erase(batch[k], *erased[k])

    for _ in (map if pool is None else pool.map)(fill, range(0, len(images), IMAGES_PER_TASK)):
        pass  # an error of a thread is raised here
    return torch.from_numpy(batch)


def augment(
    images: Sequence[Tensor],
    size: tuple[int, int],
    generator: torch.Generator,
    mirror_prob: float = 0.5,
    crop_prob: float = 0.0,
    crop_ratio: float = 1.0,
    pad: int = 0,
    erase_prob: float = 0.0,
    pool: Executor | None = None,
) -> Tensor:
    """Random crop, resize and mirror, the original's augmentation, then padded crops and erasing, on the CPU.

    Args:
        images: N images, uint8 [3, height, width] each; sizes may differ.
        size: (h, w) of the batch.
        generator: the only source of randomness; the same state gives the same batch.
        mirror_prob: probability that an image is mirrored left to right.
        crop_prob, crop_ratio: probability of a random crop, and the smallest share of a side that it keeps.
        pad: black pixels added on each side, before a crop of the batch's size at a random place; 0 for none.
        erase_prob: probability that a random rectangle of an image becomes the mean colour.
        pool: see `apply_views`.

    Returns:
        uint8 [N, 3, h, w].
    """
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    views = draw_views(sizes, size, generator, mirror_prob, crop_prob, crop_ratio, pad, erase_prob)
    return apply_views(images, views, size, pool)


class PackedBatch(NamedTuple):
    """A batch whose views are still to be computed, by the device that it is sent to: `packed.to(device)`.

    Nothing here makes the host wait for the device, if the host's tensors are pinned.
    """

    pixels: Tensor  # uint8 [T, 3]: the pixels of many images, of any sizes, row after row, on the host or on the device
    # int64 [N, 13], on the host: first pixel and row length of the image, then box, mirrored, shift and what is erased
    table: Tensor
    size: tuple[int, int]  # (h, w) of the batch
    scaled: bool  # False: each box has this size, and no pixel is a mean of others
    covered: bool  # False: no image is shifted, and nothing is erased

    @classmethod
    def of(
        cls, pixels: Tensor, starts: Sequence[int], widths: Sequence[int], views: Views, size: tuple[int, int]
    ) -> PackedBatch:
        """Join views [N] with the positions of their images: the first pixel and the row length of each."""
        images = torch.tensor([starts, widths], dtype=torch.int64).T
        table = torch.cat([images, views.boxes, views.mirrored[:, None].long(), views.shifts, views.erased], dim=1)
        covered = bool(views.shifts.any() or views.erased.any())
        return cls(pixels, table, size, bool((views.boxes[:, 2:] != torch.tensor(size)).any()), covered)

    def pin_memory(self) -> PackedBatch:
        """The same in pinned memory, from which a GPU copies while the host goes on."""
        pixels = self.pixels if self.pixels.device.type != "cpu" else self.pixels.pin_memory()
        return self._replace(pixels=pixels, table=self.table.pin_memory())

    def to(self, device: torch.device, non_blocking: bool = False) -> Tensor:
        """The batch, uint8 [N, 3, h, w] in channels-last layout, computed where the pixels are or on `device`.

        Bilinear as `resize`, whose pixels it gives up to rounding: at most one grey level differs.
        """
        there = device if self.pixels.device.type == "cpu" else self.pixels.device
        pixels = self.pixels.to(there, non_blocking=non_blocking)
        table = self.table.to(there, non_blocking=non_blocking)
        start, row_length, top, left, height, width, mirrored = table[:, :7, None].unbind(1)  # [N, 1] each
        rows, columns = (torch.arange(count, device=there)[None] for count in self.size)  # [1, h] and [1, w]
        if self.covered:
            border, erased = erasing.covers(rows, columns, table[:, 7:, None])
            rows = (rows + table[:, 7, None]).clamp(0, self.size[0] - 1)  # [N, h]
            columns = (columns + table[:, 8, None]).clamp(0, self.size[1] - 1)
        columns = torch.where(mirrored.bool(), self.size[1] - 1 - columns, columns)  # [N, w]

        def look_up(y: Tensor, x: Tensor) -> Tensor:  # [N or 1, h], [N, w] -> uint8 [N, h, w, 3]
            return pixels[(start + (top + y) * row_length)[:, :, None] + (left + x)[:, None, :]]

        if not self.scaled:
            batch = look_up(rows, columns)
        else:
            upper, lower, down = _neighbours(rows, self.size[0], height)
            before, behind, right = _neighbours(columns, self.size[1], width)
            down, right = down[:, :, None, None], right[:, None, :, None]
            above = look_up(upper, before) * (1 - right) + look_up(upper, behind) * right
            below = look_up(lower, before) * (1 - right) + look_up(lower, behind) * right
            batch = (above * (1 - down) + below * down).round_().to(torch.uint8)
        if self.covered:
            colours = zip(batch.unbind(3), erasing.MEAN_COLOUR, strict=True)  # numbers: a tensor would be copied there
            colour = [one.masked_fill(border, 0).masked_fill(erased, level) for one, level in colours]
            batch = torch.stack(colour, dim=3)
        return batch.permute(0, 3, 1, 2).to(device, non_blocking=non_blocking)


def _neighbours(at: Tensor, count: int, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two pixels between which each new one is, and the weight of the second, as in `F.interpolate`.

    Args:
        at: int64 [N or 1, n], new pixels of a side, of `count`.
        length: int64 [N, 1], old pixels of that side.

    Returns:
        int64, int64 and float32, [N, n] each.
    """
    source = ((at + 0.5) * (length / count) - 0.5).clamp_min(0)
    first = source.long()
    return first, torch.minimum(first + 1, length - 1), source - first

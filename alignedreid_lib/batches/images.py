"""From image files to batches: decode once, keep as uint8, normalise; `augmentation` is what happens between.

An image is a uint8 tensor [3, height, width], RGB; a batch is uint8 [N, 3, h, w] until `normalize` makes it the
float32 that the network takes. Derived in notebooks/02_batches.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from alignedreid_lib import devices
from alignedreid_lib.batches.augmentation import PackedBatch, apply_views, augment, draw_views, random_crop, resize
from alignedreid_lib.datasets.jpegs import to_rgb, unfit
from alignedreid_lib.errors import InputError

__all__ = ["ImageStore", "augment", "decode", "helpers", "normalize", "pixels_of", "prefetch", "random_crop", "resize"]

# The original reproduction's values; weights trained with them need them.
MEAN = (0.486, 0.459, 0.408)
STD = (0.229, 0.224, 0.225)

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


def decode(path: str | Path) -> Tensor:
    """Read one image.

    Returns:
        uint8 [3, height, width], RGB, upright (an EXIF rotation is applied), transparent parts white: the pixels that a
        dataset made of the image has.

    Raises:
        InputError: the file is absent or does not decode, has more than 8 bits per channel, or contains several images.
    """
    try:
        with Image.open(path) as picture:
            if problem := unfit(picture):
                raise InputError(f"{path} {problem}; save it as an 8-bit JPEG or PNG")
            picture.load()
            return pixels_of(picture)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such image; restore it, or delete its dataset and prepare it again") from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged image can fail in any way
        raise InputError(f"{path}: not an image that decodes ({error}); put a whole copy there") from None


def pixels_of(picture: Image.Image) -> Tensor:
    """An opened image as `decode` gives it: uint8 [3, height, width], RGB, upright."""
    return torch.from_numpy(np.array(to_rgb(picture))).permute(2, 0, 1).contiguous()


class ImageStore:
    """All images of a dataset as uint8 in memory, decoded once for all epochs.

    Args:
        paths: the image files.
        size: (h, w) to resize to when decoding; None keeps each image's own size, which random crops need.
        limit_bytes: how much to keep; images beyond it are decoded again at each fetch.
        workers: threads that decode and augment; their number does not change the result.
        device: an accelerator that computes the batches. It also keeps the images, decoded now, if all of them fit into
            `limit_bytes` and into an eighth of its free memory. None or the CPU: the host does.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        size: tuple[int, int] | None = None,
        limit_bytes: int = 4 << 30,
        workers: int = 2,
        device: torch.device | None = None,
    ) -> None:
        if limit_bytes < 0:
            raise InputError(f"limit_bytes is {limit_bytes}; give the bytes to keep in memory, 0 or more")
        self.paths = list(paths)
        self.size = size
        self.limit_bytes = limit_bytes
        self.kept_bytes = 0
        self._kept: dict[int, Tensor] = {}
        self._pool = helpers(workers, "images")
        self._pixels: Tensor | None = None  # uint8 [T, 3], of all images, on the device
        self._packs = device is not None and devices.is_accelerator(device)
        if device is not None and self._packs:
            self._move_to(device)

    def __len__(self) -> int:
        return len(self.paths)

    def _load(self, index: int) -> Tensor:
        image = decode(self.paths[index])
        image = image if self.size is None else resize(image, self.size)
        # For a device, the three colours of a pixel are neighbours in memory.
        return image.permute(1, 2, 0).contiguous().permute(2, 0, 1) if self._packs else image

    def _move_to(self, device: torch.device) -> None:
        """Keep all images on a device, one after the other, if they fit; else go on with those decoded so far."""
        limit = min(self.limit_bytes, devices.free_memory(device) // 8)
        for begin in range(0, len(self), 256):
            self.fetch(range(begin, min(begin + 256, len(self))))
            if self.kept_bytes > limit or len(self._kept) < min(begin + 256, len(self)):
                log.info("more than %.0f MB of images: the host keeps them, not %s", limit / 1e6, device)
                return
        self._pixels = torch.empty(self.kept_bytes // 3, 3, dtype=torch.uint8, device=device)
        begin = 0
        for index, image in self._kept.items():
            rows = self._pixels[begin : begin + image.numel() // 3]
            rows.copy_(_pixels(image))
            self._kept[index] = rows.view(*image.shape[1:], 3).permute(2, 0, 1)
            begin += len(rows)
        log.info("%.0f MB of images are kept on %s", self.kept_bytes / 1e6, device)

    def fetch(self, indices: Iterable[int]) -> list[Tensor]:
        """The images at `indices`, uint8 [3, height, width] each; those not kept yet are decoded now."""
        indices = [int(index) for index in indices]
        absent = [index for index in dict.fromkeys(indices) if index not in self._kept]
        decoded = dict(zip(absent, self._pool.map(self._load, absent), strict=True))
        for index, image in decoded.items():
            if self.kept_bytes + image.numel() <= self.limit_bytes:
                self._kept[index] = image
                self.kept_bytes += image.numel()
        return [decoded[index] if index in decoded else self._kept[index] for index in indices]

    def augmented(
        self,
        indices: Iterable[int],
        size: tuple[int, int],
        generator: torch.Generator,
        *how: Any,
    ) -> Tensor | PackedBatch:
        """The images at `indices` as `augment` gives them, uint8 [N, 3, h, w]; `how` are its `mirror_prob` and so on.

        With an accelerator they are not yet computed: `.to(device)` does it there, with the same random views.
        """
        images = self.fetch(indices)
        views = draw_views([(image.shape[1], image.shape[2]) for image in images], size, generator, *how)
        if not self._packs:
            return apply_views(images, views, size, self._pool)
        widths = [image.shape[2] for image in images]
        if self._pixels is not None:
            starts = [int(image.storage_offset()) // 3 for image in images]
            return PackedBatch.of(self._pixels, starts, widths, views, size)
        ends = list(itertools.accumulate(image.numel() // 3 for image in images))
        pixels = torch.cat([_pixels(image) for image in images])
        return PackedBatch.of(pixels, [0, *ends[:-1]], widths, views, size)


def _pixels(image: Tensor) -> Tensor:
    """[3, height, width] as [height * width, 3], without a copy where the colours of a pixel are neighbours."""
    return image.permute(1, 2, 0).reshape(-1, 3)


def normalize(batch: Tensor) -> Tensor:
    """uint8 [N, 3, h, w] to float32 of the same shape: (value / 255 - mean) / std.

    Its memory layout is channels last, in which convolutions are fastest.
    """
    mean, std = _scale(batch.device)
    scaled = batch.contiguous(memory_format=torch.channels_last).float()
    return scaled.sub_(mean).div_(std)


@functools.cache
def _scale(device: torch.device) -> tuple[Tensor, Tensor]:
    """255 times mean and deviation, [1, 3, 1, 1] each; made once, because a copy to a GPU waits for all its work."""
    with torch.inference_mode(False):  # a training can use them even if a test asked first
        mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, STD))
        return 255 * mean, 255 * std


def prefetch(function: Callable[[Item], Result], items: Iterable[Item], depth: int = 2) -> Iterator[Result]:
    """`map(function, items)` in order, computed up to `depth` items ahead by one thread.

    The next batch is made while the network works on this one. With one thread, results do not depend on timing.
    """
    with helpers(1, "prefetch") as pool:
        waiting = []
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > depth:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


def helpers(count: int, name: str) -> ThreadPoolExecutor:
    """Threads that prepare images, in each of which torch computes with one thread.

    Otherwise each gets a team of OpenMP threads. With more teams than cores, OpenMP puts waiting threads to sleep at
    once, and a simultaneous step of the network is a fifth slower.
    """
    threads = torch.get_num_threads()

    def compute_alone() -> None:
        # `set_num_threads` sets the number of this thread, and the one that any thread takes over at its first
        # `get_num_threads`. So a second thread has to set the latter back.
        torch.set_num_threads(1)
        torch.get_num_threads()
        other = Thread(target=torch.set_num_threads, args=(threads,))
        other.start()
        other.join()

    return ThreadPoolExecutor(max(1, count), thread_name_prefix=name, initializer=compute_alone)

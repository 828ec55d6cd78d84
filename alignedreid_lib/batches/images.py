"""From image files to batches: decode once, keep as uint8, resize, crop, mirror, normalise.

An image is a uint8 tensor [3, height, width], RGB; a batch is uint8 [N, 3, h, w] until `normalize` makes it the
float32 that the network takes. Derived in notebooks/02_batches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from alignedreid_lib.datasets.pictures import turn_upright
from alignedreid_lib.errors import InputError

# The original reproduction's values; weights trained with them need them.
MEAN = (0.486, 0.459, 0.408)
STD = (0.229, 0.224, 0.225)

Item = TypeVar("Item")
Result = TypeVar("Result")


def decode(path: str | Path) -> Tensor:
    """Read one image.

    Returns:
        uint8 [3, height, width], RGB, upright (an EXIF rotation is applied).

    Raises:
        InputError: the file is absent or does not decode.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            upright = turn_upright(picture)
            pixels = np.array(upright if upright.mode == "RGB" else upright.convert("RGB"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such image; restore it, or delete its dataset and prepare it again") from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged image can fail in any way
        raise InputError(f"{path}: not an image that decodes ({error}); put a whole copy there") from None
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


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


class ImageStore:
    """All images of a dataset as uint8 in memory, decoded once for all epochs.

    Args:
        paths: the image files.
        size: (h, w) to resize to when decoding; None keeps each image's own size, which random crops need.
        limit_bytes: how much to keep; images beyond it are decoded again at each fetch.
        workers: threads that decode; their number does not change the result.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        size: tuple[int, int] | None = None,
        limit_bytes: int = 4 << 30,
        workers: int = 2,
    ) -> None:
        if limit_bytes < 0:
            raise InputError(f"limit_bytes is {limit_bytes}; give the bytes to keep in memory, 0 or more")
        self.paths = list(paths)
        self.size = size
        self.limit_bytes = limit_bytes
        self.kept_bytes = 0
        self._kept: dict[int, Tensor] = {}
        self._pool = helpers(workers, "decode")

    def __len__(self) -> int:
        return len(self.paths)

    def _load(self, index: int) -> Tensor:
        image = decode(self.paths[index])
        return image if self.size is None else resize(image, self.size)

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


def random_crop(image: Tensor, ratio: float, generator: torch.Generator) -> Tensor:
    """Crop height and width, each to a share drawn uniformly from `ratio` to 1, at a random place.

    Args:
        image: [3, height, width].
        ratio: smallest share kept of each side, in (0, 1].
    """
    height, width = image.shape[-2:]
    shares = ratio + (1 - ratio) * torch.rand(2, generator=generator)
    h, w = max(1, int(height * shares[0])), max(1, int(width * shares[1]))
    top = int(torch.randint(height - h + 1, (), generator=generator))
    left = int(torch.randint(width - w + 1, (), generator=generator))
    return image[:, top : top + h, left : left + w]


def augment(
    images: Sequence[Tensor],
    size: tuple[int, int],
    generator: torch.Generator,
    mirror_prob: float = 0.5,
    crop_prob: float = 0.0,
    crop_ratio: float = 1.0,
) -> Tensor:
    """Random crop, resize and mirror, the original's augmentation.

    Args:
        images: N images, uint8 [3, height, width] each; sizes may differ.
        size: (h, w) of the batch.
        generator: the only source of randomness; the same state gives the same batch.
        mirror_prob: probability that an image is mirrored left to right.
        crop_prob, crop_ratio: probability of a random crop, and the smallest share of a side that it keeps.

    Returns:
        uint8 [N, 3, h, w].
    """
    cropped = torch.rand(len(images), generator=generator) < crop_prob
    ready = [
        resize(random_crop(image, crop_ratio, generator) if crop else image, size)
        for image, crop in zip(images, cropped.tolist(), strict=True)
    ]
    batch = np.stack([image.numpy() for image in ready])  # numpy's stacking is twice as fast as torch's on one thread
    mirrored = (torch.rand(len(images), generator=generator) < mirror_prob).numpy()
    batch[mirrored] = batch[mirrored][..., ::-1]
    return torch.from_numpy(batch)


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

"""The features of every image of a dataset, in the dataset's order. Derived in notebooks/08_evaluation."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor

from alignedreid_lib import devices, runs
from alignedreid_lib.batches import images
from alignedreid_lib.datasets import Dataset
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.forward import run_network
from alignedreid_lib.model import AlignedReID
from alignedreid_lib.runs import tensorfiles

KEY_VERSION = 2  # of cached features; raise it when decoding, resizing, normalising or the network's forward changes
SETTING = (bool, int, float, str, tuple, type(None))  # types of what a module is built with


@dataclass(frozen=True, eq=False)
class Features:
    """Features of N images, and what is known of each image.

    Attributes:
        global_features: float32 [N, C] on the CPU.
        local_features: float32 [N, H, c] on the CPU.
        ids, cameras, marks: int64 [N]; a mark is 0 query, 1 gallery, 2 multi-query, and -1 in trainval and train.
        names: the N file names.
        cameras_known: if not, no image is left out because of its camera.
    """

    global_features: Tensor
    local_features: Tensor
    ids: np.ndarray
    cameras: np.ndarray
    marks: np.ndarray
    names: list[str]
    cameras_known: bool = True

    @classmethod
    def of(cls, dataset: Dataset, global_features: Tensor, local_features: Tensor) -> Features:
        """Join the features of a dataset's images, in its order, with the ids, cameras and marks of the dataset."""
        marks = np.full(len(dataset), -1) if dataset.marks is None else dataset.marks
        names = [path.name for path in dataset.paths]
        return cls(global_features, local_features, dataset.ids, dataset.cameras, marks, names, dataset.cameras_known)

    def map(self, function: Callable[[Tensor], Tensor]) -> Features:
        """The same images with a function of their global features, and of their local ones."""
        both = function(self.global_features), function(self.local_features)
        return dataclasses.replace(self, global_features=both[0], local_features=both[1])

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, chosen: np.ndarray | slice) -> Features:
        """The features of some images: indices [M], a mask [N], or a slice, which copies no features."""
        index = np.arange(len(self))[chosen]
        rows = chosen if isinstance(chosen, slice) else torch.from_numpy(index)
        names = [self.names[i] for i in index]
        parts = (self.ids[index], self.cameras[index], self.marks[index])
        return Features(self.global_features[rows], self.local_features[rows], *parts, names, self.cameras_known)


def extract(
    model: AlignedReID,
    dataset: Dataset,
    *,
    height: int = 256,
    width: int = 128,
    batch_size: int = 64,
    device: str | None = None,
    precision: str = "auto",
    workers: int = 2,
    store: images.ImageStore | None = None,
    flip: bool = False,
    cache: str | Path | None = None,
    progress: bool = False,
) -> Features:
    """The features of every image of a dataset, in its order, without augmentation.

    Args:
        model: used in evaluation mode; its device and the modes of its modules are restored on return or failure. Its
            weights stay in the memory layout "channels last", in which convolutions are fastest.
        height, width: pixels of the network's input.
        batch_size: images at a time; the features do not depend on it.
        device: "auto", "cpu", "cuda", ...; None is the model's device.
        precision: see `devices.choose_precision`; features are always float32.
        workers: threads that decode images, while the network works on earlier ones.
        store: decoded images of the same dataset; None decodes each image once and keeps none.
        flip: average the features of every image and its mirror image; twice the work.
        cache: a folder that keeps features for later calls with the same weights, settings and files; None keeps none.
        progress: show a progress bar.

    Raises:
        InputError: no images, a store of a different dataset, an unavailable device or precision, or an image
            that does not decode.
    """
    if len(dataset) == 0:
        raise InputError(f"{dataset.folder}: part {dataset.part} has no images to extract features of")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it has to be 1 or more")
    if store is None:
        store = images.ImageStore(dataset.paths, (height, width), limit_bytes=0, workers=workers)
    elif store.paths != list(dataset.paths):
        raise InputError(f"the store's images are not those of {dataset.folder}, part {dataset.part}")
    there = next(model.parameters()).device if device is None else devices.choose_device(device)
    precision = devices.choose_precision(precision, there, width)
    kept = None
    if cache is not None:
        runs.make_folder(Path(cache))  # fails before the work, not after it
        sizes = list(dict.fromkeys([store.size or (height, width), (height, width)]))
        kept = Path(cache) / f"features_{cache_key(model, dataset, sizes, flip, there.type, precision)}.pt"
        found = _load_cached(kept, len(dataset))
        if found is not None:
            return Features.of(dataset, *found)

    def batch(begin: int) -> Tensor:  # uint8 [n, 3, h, w]
        pictures = store.fetch(range(begin, min(begin + batch_size, len(dataset))))
        return torch.stack([images.resize(picture, (height, width)) for picture in pictures])

    work = f"{dataset.folder}, part {dataset.part}: features of {batch_size} images of {height} x {width} at a time"
    begins = range(0, len(dataset), batch_size)
    joined = run_network(model, batch, begins, there, precision, work, len(dataset), progress, flip)
    if kept is not None:
        runs.write_atomic(kept, lambda beside: torch.save(joined, beside))
    return Features.of(dataset, *joined)


def colour_histograms(dataset: Dataset, bins: int = 8) -> Features:
    """A baseline without learning: the colours of an image, wherever they are.

    Args:
        bins: of hue, of saturation and of value each.

    Returns:
        Features whose global features [N, bins ** 3] are the square roots of each colour's share of the image, so that
        their euclidean distance is the Hellinger distance of the histograms, times a constant. The local features are
        empty, [N, 0, 0].

    Raises:
        InputError: an image that does not decode, or bins outside 1 ... 256.
    """
    if not 1 <= bins <= 256:
        raise InputError(f"bins is {bins}; it has to be between 1 and 256")
    shares = np.zeros((len(dataset), bins**3), np.float32)
    for row, path in zip(shares, dataset.paths, strict=True):
        picture = Image.fromarray(images.decode(path).permute(1, 2, 0).numpy())
        hsv = np.asarray(picture.convert("HSV")).reshape(-1, 3).astype(np.int64) * bins // 256
        colours = np.bincount(hsv @ (bins**2, bins, 1), minlength=bins**3)
        row[:] = colours / len(hsv)
    return Features.of(dataset, torch.from_numpy(np.sqrt(shares)), torch.zeros(len(dataset), 0, 0))


def cache_key(
    model: AlignedReID, dataset: Dataset, sizes: Sequence[tuple[int, int]], flip: bool, device: str, precision: str
) -> str:
    """A hash of all that features depend on: the network, the files (names, sizes, times), how batches are made.

    Args:
        sizes: (height, width) that an image is resized to, one after the other; the last is the network's input.
        device: its type. Devices round differently.
    """
    versions = (KEY_VERSION, torch.__version__, torchvision.__version__)
    digest = hashlib.sha256(repr((versions, sizes, flip, device, precision, images.MEAN, images.STD)).encode())

    def counts(name: str) -> bool:
        return name.split(".")[0] not in ("fc", "centres")  # features do not depend on the classifier

    for name, module in filter(lambda named: counts(named[0]), model.named_modules()):
        # Strides, paddings, the eps of a batch norm, ...: weights of equal shapes do not tell them.
        settings = {
            key: value
            for key, value in vars(module).items()
            if isinstance(value, SETTING) and counts(key) and key != "training" and not key.startswith("_")
        }
        digest.update(repr((name, type(module).__qualname__, sorted(settings.items()))).encode())
    for name, value in filter(lambda named: counts(named[0]), chain(model.named_parameters(), model.named_buffers())):
        digest.update(repr((name, value.dtype, tuple(value.shape))).encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    for path in dataset.paths:
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _load_cached(path: Path, count: int) -> tuple[Tensor, Tensor] | None:
    """Kept features; None if there are none, or if they cannot be read: then they are computed again."""
    try:
        found = tensorfiles.load(path)
    except (FileNotFoundError, tensorfiles.UnreadableError):
        return None
    whole = isinstance(found, list) and [getattr(part, "ndim", 0) for part in found] == [2, 3]
    return (found[0], found[1]) if whole and len(found[0]) == len(found[1]) == count else None

"""What the network says of every picture of a dataset, in the dataset's order.

Derived in notebooks/08_evaluation.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from alignedreid_lib import devices, runs
from alignedreid_lib.batches import images
from alignedreid_lib.datasets import Dataset
from alignedreid_lib.errors import InputError
from alignedreid_lib.model import AlignedReID
from alignedreid_lib.runs import tensorfiles

UNMARKED = -1  # what a picture of a training part has instead of a mark


@dataclass(frozen=True, eq=False)
class Features:
    """Features of N pictures, and what is known of each.

    Attributes:
        global_features: float32 [N, C] on the CPU.
        local_features: float32 [N, H, c] on the CPU.
        ids, cameras: int64 [N].
        marks: int64 [N], 0 query, 1 gallery, 2 multi-query; -1 in trainval and train.
        names: the N file names.
        cameras_known: if not, no picture is left out for its camera.
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
        """Put the features of a dataset's pictures, in its order, beside what the dataset knows of them."""
        marks = np.full(len(dataset), UNMARKED) if dataset.marks is None else dataset.marks
        names = [path.name for path in dataset.paths]
        return cls(global_features, local_features, dataset.ids, dataset.cameras, marks, names, dataset.cameras_known)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, chosen: np.ndarray | slice) -> Features:
        """The features of some pictures: indices [M], a mask [N], or a slice, which copies nothing."""
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
    """Show the network every picture of a dataset, in its order, without augmentation.

    Args:
        model: used in evaluation mode; the modes of its modules are as before when this returns or fails.
        height, width: pixels of the network's input.
        batch_size: pictures at a time; the features do not depend on it.
        device: "auto", "cpu", "cuda", ...; None is where the model is. The model is back there afterwards.
        precision: "auto", "float32" or "bfloat16", see `devices.choose_precision`; features are float32 always.
        workers: threads that decode, while the network works on earlier pictures.
        store: pictures of the same dataset that are decoded already; None decodes each once and keeps none.
        flip: show every picture mirrored too and average the two features; twice the work.
        cache: a folder in which features are kept, and found again by the same weights and settings for the same
            files; None keeps nothing.
        progress: show a progress bar.

    Raises:
        InputError: no pictures, a store of another dataset, a device or precision that is not there, or a picture
            that does not decode.
    """
    if len(dataset) == 0:
        raise InputError(f"{dataset.folder}: part {dataset.part} has no pictures to extract features of")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it has to be 1 or more")
    if store is None:
        store = images.ImageStore(dataset.paths, (height, width), limit_bytes=0, workers=workers)
    elif store.paths != list(dataset.paths):
        raise InputError(f"the store's pictures are not those of {dataset.folder}, part {dataset.part}")
    home = next(model.parameters()).device
    there = home if device is None else devices.choose_device(device)
    dtype = devices.choose_precision(precision, there, width)

    kept = None
    if cache is not None:
        key = cache_key(model, dataset, height, width, flip, dtype)
        runs.make_folder(Path(cache))  # before the work, not after it
        kept = Path(cache) / f"features_{key}.pt"
        found = _load_cached(kept, len(dataset))
        if found is not None:
            return Features.of(dataset, *found)

    def batch(begin: int) -> Tensor:  # uint8 [n, 3, h, w]
        pictures = store.fetch(range(begin, min(begin + batch_size, len(dataset))))
        return torch.stack([images.resize(picture, (height, width)) for picture in pictures])

    begins = range(0, len(dataset), batch_size)
    # On a CPU decoding beside the network makes its threads wait for each other: in turn is faster.
    batches = map(batch, begins) if there.type == "cpu" else images.prefetch(batch, begins)
    bar = tqdm(total=len(dataset), unit="images", disable=not progress, desc="features")
    global_parts, local_parts = [], []
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.to(there).eval()
        with torch.inference_mode(), devices.autocast(there, dtype):
            for pictures in batches:
                batch_images = images.normalize(pictures.to(there, non_blocking=True))
                views = [model(view) for view in ((batch_images, batch_images.flip(3)) if flip else (batch_images,))]
                # Left on the device: a copy of each batch would make the GPU wait for the host.
                global_parts.append(sum(view.global_features.float() for view in views) / len(views))
                local_parts.append(sum(view.local_features.float() for view in views) / len(views))
                bar.update(len(pictures))
    finally:
        for module, training in modes:
            module.training = training
        model.to(home)
        bar.close()
    # Joined outside of inference mode, so that the features are tensors like any other.
    parts = torch.cat(global_parts).cpu(), torch.cat(local_parts).cpu()
    if kept is not None:
        runs.write_atomic(kept, lambda beside: torch.save(list(parts), beside))
    return Features.of(dataset, *parts)


def colour_histograms(dataset: Dataset, bins: int = 8) -> Features:
    """A baseline that has learned nothing: which colours a picture holds, wherever they are.

    Args:
        dataset: its pictures are decoded one after the other.
        bins: of hue, of saturation and of value each.

    Returns:
        Features whose global features [N, bins ** 3] are the roots of the colours' shares of the whole picture, so
        that their euclidean distance is Hellinger's between the histograms, times a constant. No local features
        ([N, 0, 0]).

    Raises:
        InputError: a picture that does not decode, or bins outside 1 ... 256.
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


def cache_key(model: AlignedReID, dataset: Dataset, height: int, width: int, flip: bool, precision: torch.dtype) -> str:
    """What features depend on, as 16 hexadecimal digits: the weights, the files (names, sizes, times), the settings."""
    digest = hashlib.sha256(f"{height} {width} {flip} {precision} {torch.__version__}".encode())
    for name, value in model.state_dict().items():
        if not name.startswith("fc."):  # the classifier has no say in features
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    for path in dataset.paths:
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _load_cached(path: Path, count: int) -> tuple[Tensor, Tensor] | None:
    """Kept features, None where there are none or they cannot be read: they are made anew then."""
    try:
        found = tensorfiles.load(path)
    except (FileNotFoundError, tensorfiles.UnreadableError):
        return None
    whole = isinstance(found, list) and [getattr(part, "ndim", 0) for part in found] == [2, 3]
    return (found[0], found[1]) if whole and len(found[0]) == len(found[1]) == count else None

"""What the network says of every picture of a dataset, in the dataset's order.

Derived in notebooks/08_evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from alignedreid_lib import devices, images
from alignedreid_lib.datasets import Dataset
from alignedreid_lib.errors import InputError
from alignedreid_lib.model import AlignedReID

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
                embedding = model(images.normalize(pictures.to(there, non_blocking=True)))
                # Left on the device: a copy of each batch would make the GPU wait for the host.
                global_parts.append(embedding.global_features.float())
                local_parts.append(embedding.local_features.float())
                bar.update(len(pictures))
    finally:
        for module, training in modes:
            module.training = training
        model.to(home)
        bar.close()
    # Joined outside of inference mode, so that the features are tensors like any other.
    return Features.of(dataset, torch.cat(global_parts).cpu(), torch.cat(local_parts).cpu())

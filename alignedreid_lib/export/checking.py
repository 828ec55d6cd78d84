"""Is an exported file the network? Largest difference, features of a test set, milliseconds. See notebooks/12."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alignedreid_lib.batches import images
from alignedreid_lib.datasets import Dataset
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.features import Features
from alignedreid_lib.export.writing import Run
from alignedreid_lib.model import AlignedReID


class Parity(NamedTuple):
    """The largest differences of features, as shares of the largest absolute value of the network's."""

    global_features: float
    local_features: float  # 0 without local features


def compare(network: AlignedReID, run: Run, pictures: Sequence[Tensor], size: tuple[int, int]) -> Parity:
    """Compare a file with its network, on images one by one, as `images.resize` and `images.normalize` prepare them.

    Args:
        network: on the CPU, in evaluation mode.
        run: see `open_file`.
        pictures: uint8 [3, height, width] each, of any sizes.
        size: (h, w) of the network's input, pixels.
    """
    differences, largest = np.zeros(2), np.zeros(2)
    for picture in pictures:
        with torch.no_grad():
            embedding = network(images.normalize(images.resize(picture, size)[None]))
        found = run(picture.permute(1, 2, 0)[None].contiguous().numpy())
        for k, (ours, theirs) in enumerate(zip(embedding[:2], found, strict=True)):
            if ours.numel():
                differences[k] = max(differences[k], np.abs(ours.numpy() - theirs).max())
                largest[k] = max(largest[k], ours.abs().max())
    return Parity(*(differences / np.where(largest > 0, largest, 1)).tolist())


def extract(run: Run, dataset: Dataset, batch_size: int = 32) -> Features:
    """The features of every image of a dataset, computed by an exported file from images as they are.

    Args:
        run: see `open_file`.
        batch_size: images of one size at a time.

    Raises:
        InputError: no images, or one that does not decode.
    """
    if not len(dataset):
        raise InputError(f"{dataset.folder}: part {dataset.part} has no images to extract features of")
    waiting: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = defaultdict(list)
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def work(same: list[tuple[int, np.ndarray]]) -> None:
        parts = run(np.stack([picture for _, picture in same]))
        found.update((k, (parts[0][i], parts[1][i])) for i, (k, _) in enumerate(same))
        same.clear()

    for k, path in enumerate(dataset.paths):
        picture = images.decode(path).permute(1, 2, 0).numpy()
        waiting[picture.shape].append((k, picture))
        if len(waiting[picture.shape]) == batch_size:
            work(waiting[picture.shape])
    for same in waiting.values():
        if same:
            work(same)
    joined = [torch.from_numpy(np.stack([found[k][part] for k in range(len(dataset))])) for part in (0, 1)]
    return Features.of(dataset, *joined)


def milliseconds(runs: Mapping[str, Run], pictures: np.ndarray, repeats: int = 25) -> dict[str, float]:
    """The median time of a call of each, by name; they take turns, so that other work slows all of them down alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            run(pictures)
            if repeat > 0:  # the first call prepares
                times[name].append(time.perf_counter() - begin)
    return {name: 1000 * float(np.median(taken)) for name, taken in times.items()}

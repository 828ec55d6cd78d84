"""The sizes of a check, and the images it works on: noise, as JPEG files in a temporary folder."""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from alignedreid_lib.datasets import Dataset, Partitions, open_dataset
from alignedreid_lib.datasets.partitions import GALLERY, QUERY, format_name, make_labels
from alignedreid_lib.training import TrainConfig

DIFFERENT = 256  # images that are drawn for the speed; the others are copies, which take as long to decode


@dataclass(frozen=True)
class Sizes:
    """How large everything is; the defaults are Market-1501's, with the settings of the preset market1501_gl."""

    name: str = "Market-1501's sizes"
    backbone: str = "resnet50"
    image: tuple[int, int] = (256, 128)
    few_backbone: str = "resnet18"  # for comparisons: a deeper network with random weights amplifies rounding more
    few_image: tuple[int, int] = (128, 64)
    few_people: int = 4  # few, so that rounding hardly ever decides which sample is the hardest
    few_each: int = 2
    file_image: tuple[int, int] = (128, 64)  # in the files, as in the release
    people: int = 751
    images_each: int = 17
    ids_per_batch: int = 32
    images_per_id: int = 4
    epochs: int = 3  # timed, after one that is not
    bare_steps: int = 20
    twin_steps: int = 20
    test_images: int = 4096  # whose features are extracted
    queries: int = 3368
    gallery: int = 15913
    channels: int = 2048
    stripes: int = 8
    local_channels: int = 128
    repeats: int = 3


MARKET = Sizes()
SMALL = Sizes(
    name="small sizes, for a CPU",
    backbone="resnet18",
    image=(128, 64),
    few_image=(64, 32),
    people=32,
    images_each=4,
    ids_per_batch=8,
    bare_steps=5,
    epochs=2,
    test_images=128,
    queries=300,
    gallery=1500,
    channels=512,
)


@dataclass(frozen=True)
class Setup:
    """What every check is given: the device, the sizes, and a folder that is removed at the end."""

    device: torch.device
    sizes: Sizes
    folder: Path

    def config(self, dataset: str, **settings: Any) -> TrainConfig:
        """The settings of a training on one of the two datasets: `few` for comparisons, `many` for speed."""
        sizes = self.sizes
        few = dataset == "few"
        height, width = sizes.few_image if few else sizes.image
        common: dict[str, Any] = {
            "data_root": str(self.folder),
            "dataset": dataset,
            "height": height,
            "width": width,
            "backbone": sizes.few_backbone if few else sizes.backbone,
            "weights": None,
            "device": str(self.device),
            "ids_per_batch": sizes.few_people if few else sizes.ids_per_batch,
            "images_per_id": sizes.few_each if few else sizes.images_per_id,
            "total_epochs": 1,
            "decay_at_epoch": 1,
            "workers": max(2, min(8, os.cpu_count() or 2)),
        }
        return TrainConfig(**(common | settings))


def make_data(setup: Setup) -> None:
    """Write both datasets, in the unified layout. Noise keeps every triplet active, so that its loss is never 0."""
    sizes = setup.sizes
    _write(setup.folder / "few", sizes.few_people, sizes.few_each, sizes.few_image, 0)
    _write(setup.folder / "many", sizes.people, sizes.images_each, sizes.file_image, sizes.test_images)


def tested_images(setup: Setup) -> Dataset:
    """The images whose features are extracted."""
    return open_dataset(setup.folder / "many", "test")


def _write(folder: Path, people: int, each: int, size: tuple[int, int], tested: int) -> None:
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    files: list[bytes] = []
    names = [format_name(person, k % 2, k // 2) for person in range(people) for k in range(each)]
    tests = [format_name(people + k // each, k % each % 2, k % each // 2) for k in range(tested)]
    for number, name in enumerate(names + tests):
        if len(files) < DIFFERENT:
            stream = io.BytesIO()
            coarse = Image.fromarray(rng.integers(0, 256, (16, 8, 3), dtype=np.uint8))
            coarse.resize(size[::-1], Image.Resampling.BILINEAR).save(stream, "JPEG", quality=90)
            files.append(stream.getvalue())
        (folder / "images" / name).write_bytes(files[number % DIFFERENT])
    Partitions(
        trainval_im_names=names,
        trainval_ids2labels=make_labels(names),
        test_im_names=tests,
        test_marks=[QUERY if k % each == 0 else GALLERY for k in range(tested)],
    ).save(folder / "partitions.pkl")

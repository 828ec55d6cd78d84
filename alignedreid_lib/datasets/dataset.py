"""A prepared dataset's part as arrays. Derived in notebooks/01_datasets."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignedreid_lib.datasets.partitions import Partitions, parse_name
from alignedreid_lib.datasets.prepared_folder import MANIFEST, as_path, disk_errors, prepare_again, read_manifest
from alignedreid_lib.errors import InputError

PARTS = ("trainval", "train", "val", "test")


@dataclass(frozen=True)
class Dataset:
    """N images of one part of a dataset, and what is known of each.

    Attributes:
        folder: the dataset's folder.
        part: trainval, train, val or test.
        paths: the N image files.
        ids: [N] int64 identities.
        cameras: [N] int64 cameras.
        labels: [N] int64 rows of the classifier, from 0; None in val and test.
        marks: [N] int64, 0 query, 1 gallery, 2 multi-query; None in trainval and train.
        cameras_known: if not, all cameras are 0 and mean nothing, so no image is left out because of its camera.
    """

    folder: Path
    part: str
    paths: list[Path]
    ids: np.ndarray
    cameras: np.ndarray
    labels: np.ndarray | None
    marks: np.ndarray | None
    cameras_known: bool = True

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, chosen: np.ndarray | slice) -> Dataset:
        """Some of the images, in the given order: indices [M], a mask [N], or a slice."""
        index = np.arange(len(self))[chosen]
        labels, marks = (None if values is None else values[index] for values in (self.labels, self.marks))
        return dataclasses.replace(
            self,
            paths=[self.paths[i] for i in index],
            ids=self.ids[index],
            cameras=self.cameras[index],
            labels=labels,
            marks=marks,
        )


@disk_errors("give a dataset's folder that you may read")
def open_dataset(folder: str | Path, part: str) -> Dataset:
    """Open a part of a dataset in the unified layout, this library's or the original reproduction's.

    Args:
        folder: contains `images/` and `partitions.pkl`.
        part: trainval, train, val or test.

    Raises:
        InputError: an unknown part, no such dataset, or a listed image that is absent.
    """
    folder = as_path(folder, "folder")
    if part not in PARTS:
        raise InputError(f"no part {part!r}; give one of {', '.join(PARTS)}")
    if not (folder / "partitions.pkl").is_file():
        raise InputError(f"{folder} has no partitions.pkl, {_missing(folder)}")
    partitions = Partitions.load(folder / "partitions.pkl")
    names = partitions.names(part)
    if names is None:
        there = ", ".join(part for part in PARTS if partitions.names(part) is not None)
        raise InputError(f"{folder} has no part {part}; it has {there}")
    try:
        present = set(os.listdir(folder / "images"))
    except OSError as error:
        raise InputError(f"{folder / 'images'} cannot be read ({error.strerror}); {prepare_again(folder)}") from error
    for name in names:
        if name not in present:
            raise InputError(f"{folder / 'images' / name} is listed and not there; {prepare_again(folder)}")
    ids, cameras = np.array([parse_name(name) for name in names], dtype=np.int64).reshape(-1, 2).T.copy()
    labels = marks = None
    if part in ("trainval", "train"):
        ids2labels = getattr(partitions, f"{part}_ids2labels")
        labels = np.array([ids2labels[person] for person in ids.tolist()], dtype=np.int64)
    else:
        marks = np.array(getattr(partitions, f"{part}_marks"), dtype=np.int64)
    paths = [folder / "images" / name for name in names]
    cameras_known = (read_manifest(folder) or {}).get("cameras_known", True) is not False
    return Dataset(folder, part, paths, ids, cameras, labels, marks, cameras_known)


def _missing(folder: Path) -> str:
    """What to do about a folder without partitions."""
    inside = [name for name in ("detected", "labeled") if (folder / name / "partitions.pkl").is_file()]
    if inside:
        return f"but contains datasets: open {folder / inside[0]}"
    if (folder / MANIFEST).is_file():
        return f"which was there once; {prepare_again(folder)}"
    if (folder / "images").is_dir():
        return "but only images: no protocol splits them; open a different folder"
    return "so it is not a prepared dataset; make one with prepare()"

"""A dataset's card: its content, the published counts, and its unusable files. Derived in notebooks/01_datasets."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tabulate import tabulate
from tqdm import tqdm

from alignedreid_lib.datasets.dataset import Dataset
from alignedreid_lib.datasets.partitions import GALLERY, MULTI_QUERY, QUERY
from alignedreid_lib.datasets.prepared_folder import disk_errors, read_manifest
from alignedreid_lib.errors import InputError

# The makers' counts, by dataset and part. Zheng et al. ICCV 2015 and 2017, Zhong et al. CVPR 2017. A test part's
# ids are those of its queries.
PUBLISHED = {
    ("market1501", "trainval"): {"ids": 751, "images": 12_936},
    ("market1501", "test"): {"ids": 750, "query": 3_368, "gallery": 15_913, "multi-query": 12_688},
    ("dukemtmc", "trainval"): {"ids": 702, "images": 16_522},
    ("dukemtmc", "test"): {"ids": 702, "query": 2_228, "gallery": 17_661},
    ("detected", "trainval"): {"ids": 767, "images": 7_365},
    ("detected", "test"): {"ids": 700, "query": 1_400, "gallery": 5_332},
    ("labeled", "trainval"): {"ids": 767, "images": 7_368},
    ("labeled", "test"): {"ids": 700, "query": 1_400, "gallery": 5_328},
}
MARKS = {QUERY: "query", GALLERY: "gallery", MULTI_QUERY: "multi-query"}


class Count(NamedTuple):
    """A count, and the one that the makers published (None: none)."""

    what: str
    found: int
    published: int | None


@dataclass(frozen=True, eq=False)
class DatasetCard:
    """What `describe` finds; shown as a table in a notebook, printed as Markdown.

    Attributes:
        name: the dataset and the part.
        counts: ids, images, and in val and test those of each mark, with the published ones.
        images_per_id: (smallest, median, largest).
        ids_per_camera: {camera: identities seen by it}; empty where cameras are not known.
        camera_pairs: [cameras, cameras] identities seen by both, in the order of `ids_per_camera`.
        heights, widths: (smallest, median, largest), pixels.
        duplicates: names of files of equal content, group by group, without the repeated queries.
        unreadable: (name, reason) of files that do not decode.
        repeated_queries: how many queries are also multi-query images of their person and camera. In Market-1501 they
            are 1 831, because `query` and `gt_bbox` contain the same boxes.
    """

    name: str
    counts: list[Count]
    images_per_id: tuple[int, float, int]
    ids_per_camera: dict[int, int]
    camera_pairs: np.ndarray
    heights: tuple[int, float, int]
    widths: tuple[int, float, int]
    duplicates: list[list[str]]
    unreadable: list[tuple[str, str]]
    repeated_queries: int = 0

    @property
    def as_published(self) -> bool | None:
        """True if every published count was found; `None` if nothing was published."""
        compared = [count.found == count.published for count in self.counts if count.published is not None]
        return all(compared) if compared else None

    def to_markdown(self) -> str:
        """The card as a Markdown table of three columns: what, found, published."""
        rows = [(c.what, f"{c.found}", "-" if c.published is None else f"{c.published}") for c in self.counts]
        rows.append(("images of an id: least, median, most", _three(self.images_per_id), "-"))
        cameras = ", ".join(f"{camera}: {ids}" for camera, ids in self.ids_per_camera.items()) or "not known"
        rows.append(("ids seen by each camera", cameras, "-"))
        rows.append(("height: least, median, most", _three(self.heights), "-"))
        rows.append(("width: least, median, most", _three(self.widths), "-"))
        if self.repeated_queries:
            rows.append(("queries that are multi-query images too", str(self.repeated_queries), "-"))
        rows.append(("files of equal content", _listed([" = ".join(group) for group in self.duplicates]), "-"))
        rows.append(("files that do not decode", _listed([name for name, _ in self.unreadable]), "-"))
        return tabulate(rows, (self.name, "found", "published"), tablefmt="pipe", disable_numparse=True)

    __str__ = _repr_markdown_ = to_markdown


@disk_errors("give a dataset that you may read")
def describe(dataset: Dataset, progress: bool = False) -> DatasetCard:
    """Read every image of a part, and compare its counts with the published ones.

    Market-1501's identity 0, the distractors, is not counted among the ids.

    Args:
        dataset: any part; every file is read and decoded once.
        progress: show a progress bar.

    Raises:
        InputError: the part has no images.
    """
    if not len(dataset):
        raise InputError(f"{dataset.folder}: part {dataset.part} has no images to describe")
    sizes, same, unreadable = _look(dataset.paths, progress)
    repeated = _repeated_queries(dataset, same)
    manifest = read_manifest(dataset.folder) or {}
    kind = str(manifest.get("name") or dataset.folder.name)
    published = PUBLISHED.get((dataset.folder.name if kind == "cuhk03" else kind, dataset.part), {})
    people = dataset.ids > 0 if kind == "market1501" else np.ones(len(dataset), bool)
    found = {"images": len(dataset)}
    if dataset.marks is not None:
        asked = dataset.marks == QUERY
        found |= {name: int((dataset.marks == mark).sum()) for mark, name in MARKS.items()}
        found["ids"] = len(np.unique(dataset.ids[asked])) if asked.any() else 0
    else:
        found["ids"] = len(np.unique(dataset.ids[people]))
    order = [what for what in ("ids", "images", *MARKS.values()) if what in found]
    per_id = np.unique(dataset.ids[people], return_counts=True)[1] if people.any() else np.zeros(1, int)
    cameras, pairs = _cameras(dataset.ids[people], dataset.cameras[people]) if dataset.cameras_known else ([], None)
    return DatasetCard(
        name=f"{dataset.folder.name}, {dataset.part}",
        counts=[Count(what, found[what], published.get(what)) for what in order],
        images_per_id=_spread(per_id),
        ids_per_camera={} if pairs is None else dict(zip(cameras, np.diag(pairs).tolist(), strict=True)),
        camera_pairs=np.zeros((0, 0), np.int64) if pairs is None else pairs,
        heights=_spread(sizes[:, 0]),
        widths=_spread(sizes[:, 1]),
        duplicates=[names for names in same if names not in repeated],
        unreadable=unreadable,
        repeated_queries=len(repeated),
    )


def _look(paths: list[Path], progress: bool) -> tuple[np.ndarray, list[list[str]], list[tuple[str, str]]]:
    """Sizes [n, 2] of the images that decode, files of equal content, and files that do not decode."""
    sizes: list[tuple[int, int]] = []
    same: dict[bytes, list[str]] = defaultdict(list)
    unreadable: list[tuple[str, str]] = []
    for path in tqdm(paths, desc="describe", unit="img", disable=not progress):
        try:
            same[hashlib.sha256(path.read_bytes()).digest()].append(path.name)
            with Image.open(path) as picture:
                size = picture.height, picture.width
                picture.draft("L", (-(-size[1] // 8), -(-size[0] // 8)))  # JPEG: read all, transform less
                picture.load()
        except Exception as error:  # a damaged image can fail in any way
            unreadable.append((path.name, str(error)))
        else:
            sizes.append(size)
    duplicates = sorted(sorted(names) for names in same.values() if len(names) > 1)
    return np.array(sizes or [(0, 0)]), duplicates, unreadable


def _repeated_queries(dataset: Dataset, same: list[list[str]]) -> list[list[str]]:
    """Pairs of equal files: a query and a multi-query image of its person and camera."""
    if dataset.marks is None:
        return []
    names = (path.name for path in dataset.paths)
    what = dict(zip(names, zip(dataset.marks, dataset.ids, dataset.cameras, strict=True), strict=True))
    return [
        pair
        for pair in same
        if sorted(what[name][0] for name in pair) == [QUERY, MULTI_QUERY] and what[pair[0]][1:] == what[pair[1]][1:]
    ]


def _cameras(ids: np.ndarray, cameras: np.ndarray) -> tuple[list[int], np.ndarray]:
    """The cameras, and how many identities each pair of them has seen."""
    people, person = np.unique(ids, return_inverse=True)
    numbers, camera = np.unique(cameras, return_inverse=True)
    seen = np.zeros((len(people), len(numbers)), np.int64)
    seen[person, camera] = 1
    return numbers.tolist(), seen.T @ seen


def _spread(values: np.ndarray) -> tuple[int, float, int]:
    return int(values.min()), float(np.median(values)), int(values.max())


def _three(values: tuple[int, float, int]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _listed(names: list[str]) -> str:
    shown = "; ".join(names[:3]) + ("; ..." if len(names) > 3 else "")
    return f"{len(names)}: {shown}" if names else "none"

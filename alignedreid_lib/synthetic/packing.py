"""How real datasets are packed: the shots, folders, names, stray files and gaps of each release.

A writer draws its shots with a `Draw` and puts the images where the release has them. Shown in notebooks/01_datasets.
"""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alignedreid_lib.synthetic.matlab import mat5, write_cuhk03_mat

STRANGERS = 100_000  # people with this number or a higher one are in no list
THUMBS = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504)  # Windows leaves this in folders that were opened
SPLIT_NAME = "re_ranking_train_test_split.pkl"
CUHK03_PAIRS = (843, 440, 77, 58, 49)  # persons of each camera pair of the real set


class Shot(NamedTuple):
    """One image: its person, camera, moment and box."""

    person: int
    camera: int
    moment: int
    box: int = 0  # 0 drawn by hand; from 1 on a detector's
    error: float | None = None  # the box's, instead of the archive's misalignment
    empty: bool = False  # a false alarm: nobody there


Draw = Callable[[Sequence[Shot], str], Iterator[Any]]  # images of shots as "jpeg" bytes or uint8 "pixels"


def write_market1501(
    path: Path, rng: np.random.Generator, num_train_ids: int, num_test_ids: int, draw: Draw, readme: str
) -> None:
    """Market-1501-v15.09.15.zip: queries and gt_bbox boxed by hand, the other images by a detector."""
    folders: dict[str, dict[str, Shot]] = {
        name: {} for name in ("bounding_box_test", "bounding_box_train", "gt_bbox", "query")
    }

    def put(folder: str, number: str, shot: Shot) -> None:
        sequence = 1 + (shot.person + shot.moment // 4) % 3
        frame = shot.person % STRANGERS * 90 + shot.moment * 4 + 1
        # As in the real archive, one test person's images and a distractor have the suffix twice.
        suffix = ".jpg.jpg" if shot.person in (ids[-1], STRANGERS) else ".jpg"
        folders[folder][f"{number}_c{shot.camera + 1}s{sequence}_{frame:06d}_{shot.box:02d}{suffix}"] = shot

    ids = 1 + rng.permutation(num_train_ids + num_test_ids)
    for position, person in enumerate(ids.tolist()):
        number, moment = f"{person:04d}", 0
        if position < num_train_ids:  # the release has hand-drawn boxes of the training set too
            put("gt_bbox", number, Shot(person, camera=position % 6, moment=30))
        for camera in _some_cameras(rng, 6, (3, 4, 5, 6), (0.35, 0.35, 0.2, 0.1)):
            if position < num_train_ids:
                for _ in range(1 + rng.binomial(3, 0.4)):
                    put("bounding_box_train", number, Shot(person, camera, moment, 1))
                    moment += 1
                continue
            put("query", number, Shot(person, camera, moment))
            put("gt_bbox", number, Shot(person, camera, moment))
            for _ in range(1 + rng.binomial(1, 0.25)):
                moment += 1
                put("bounding_box_test", number, Shot(person, camera, moment, 1))
                put("gt_bbox", number, Shot(person, camera, moment))
            moment += 1
            if rng.random() < 0.1 or person == ids[-1]:  # a box so bad that it counts neither as right nor wrong
                put("bounding_box_test", "-1", Shot(person, camera, moment, 2, error=1.8))
                moment += 1
    for stranger in range(STRANGERS, STRANGERS + max(round(0.6 * num_test_ids), 2)):
        nobody = bool(stranger % 5 < 2)
        put("bounding_box_test", "0000", Shot(stranger, int(rng.integers(6)), 0, 1, error=0.8, empty=nobody))

    root = "Market-1501-v15.09.15/"
    with zipfile.ZipFile(path, "w") as archive:
        _entry(archive, root + "readme.txt", readme)
        _write_pictures(archive, root, folders, draw, pest=THUMBS)
        gallery = sorted(folders["bounding_box_test"])
        for name in sorted(folders["query"]):
            same = [i for i, other in enumerate(gallery, 1) if other[:4] == name[:4]]
            junk = [i for i in same if gallery[i - 1][5:7] == name[5:7]]
            good = [i for i in same if i not in junk]
            for kind, indices in (("good", good), ("junk", junk)):
                _entry(archive, f"{root}gt_query/{name[:-4]}_{kind}.mat", mat5(f"{kind}_index", indices))
        _entry(archive, f"{root}gt_query/Thumbs.db", THUMBS)


def write_dukemtmc(
    path: Path, rng: np.random.Generator, num_train_ids: int, num_test_ids: int, draw: Draw, readme: str
) -> None:
    """DukeMTMC-reID.zip: eight cameras, boxes interpolated by hand; people of only one camera fill the gallery."""
    folders: dict[str, dict[str, Shot]] = {name: {} for name in ("bounding_box_test", "bounding_box_train", "query")}

    def put(folder: str, shot: Shot) -> None:
        frame = 4000 + shot.person * 1200 + shot.moment * 60
        folders[folder][f"{shot.person:04d}_c{shot.camera + 1}_f{frame:07d}.jpg"] = shot

    alone = max(round(0.5 * num_test_ids), 1)
    ids = 1 + rng.permutation(num_train_ids + num_test_ids + alone)
    for position, person in enumerate(ids.tolist()):
        cameras = _some_cameras(rng, 8, (2, 3, 4), (0.4, 0.4, 0.2))
        moment = 0
        if position >= num_train_ids + num_test_ids:
            put("bounding_box_test", Shot(person, cameras[0], 0, 1))
            continue
        for camera in cameras:
            if position < num_train_ids:
                folder, count = "bounding_box_train", 2 + rng.binomial(2, 0.5)
            else:
                folder, count = "bounding_box_test", 1 + rng.binomial(3, 0.4)
                put("query", Shot(person, camera, moment, 1))
                moment += 1
            for _ in range(count):
                put(folder, Shot(person, camera, moment, 1))
                moment += 1
    with zipfile.ZipFile(path, "w") as archive:
        _entry(archive, "DukeMTMC-reID/README.txt", readme)
        _write_pictures(archive, "DukeMTMC-reID/", folders, draw)


def write_cuhk03(
    path: Path, rng: np.random.Generator, num_train_ids: int, num_test_ids: int, draw: Draw, readme: str
) -> None:
    """cuhk03_release.zip with its cuhk-03.mat, and next to it the new protocol's split of these people.

    A camera pair's cell array is persons x 10: five cells of its first view, five of its second. A person has two to
    five images per view in `labeled`; the detector misses some of them, but never leaves fewer than two.
    """
    persons = num_train_ids + num_test_ids
    sizes = [max(persons * real // sum(CUHK03_PAIRS), 1) for real in CUHK03_PAIRS]
    sizes[0] += persons - sum(sizes)
    shots: dict[str, dict[tuple[int, int], Shot]] = {"detected": {}, "labeled": {}}
    for person in range(persons):
        pair = int(np.searchsorted(np.cumsum(sizes), person, side="right"))
        for view in range(2):
            cells = np.sort(rng.permutation(5)[: rng.choice([2, 3, 4, 5], p=(0.3, 0.3, 0.2, 0.2))]).tolist()
            missed = cells[2:] if rng.random() < 0.1 else []
            for cell in cells:
                shot = Shot(person, 2 * pair + view, 5 * view + cell)
                shots["labeled"][person, 5 * view + cell] = shot
                if cell not in missed:
                    shots["detected"][person, 5 * view + cell] = shot._replace(box=1)
    split = {
        kind: _split_cuhk03(sorted(of_kind), rng.permutation(persons)[:num_test_ids].tolist(), rng)
        for kind, of_kind in shots.items()
    }
    mat, side = path.with_name(path.name + ".mat"), path.with_name(path.name + ".pkl")
    try:
        write_cuhk03_mat(mat, sizes, shots, draw, rng, num_test_ids)
        with zipfile.ZipFile(path, "w") as archive:
            _entry(archive, "cuhk03_release/readme.txt", readme)
            with mat.open("rb") as source, archive.open(_info("cuhk03_release/cuhk-03.mat"), "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        side.write_bytes(pickle.dumps(split, protocol=2))
        side.replace(path.with_name(SPLIT_NAME))
    finally:
        mat.unlink(missing_ok=True)
        side.unlink(missing_ok=True)


def _split_cuhk03(cells: list[tuple[int, int]], test_ids: list[int], rng: np.random.Generator) -> dict[str, list[str]]:
    """The new protocol: one image per test person and view is a query, the others are the gallery."""
    split: dict[str, list[str]] = {"train_im_names": [], "query_im_names": [], "gallery_im_names": []}
    test = set(test_ids)
    views: dict[tuple[int, int], list[str]] = {}
    for person, cell in cells:
        name = f"{person:08d}_{cell // 5:04d}_{cell % 5:08d}.jpg"
        if person in test:
            views.setdefault((person, cell // 5), []).append(name)
        else:
            split["train_im_names"].append(name)
    for names in views.values():
        chosen = int(rng.integers(len(names)))
        split["query_im_names"].append(names.pop(chosen))
        split["gallery_im_names"] += names
    return split


def _some_cameras(rng: np.random.Generator, total: int, counts: Sequence[int], chances: Sequence[float]) -> list[int]:
    return np.sort(rng.permutation(total)[: rng.choice(counts, p=chances)]).tolist()


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=(2015, 9, 15, 12, 0, 0))  # no clock: same seed, same bytes
    info.external_attr = (0o40755 << 16 | 0x10) if name.endswith("/") else 0o100644 << 16
    if name.endswith(".mat"):
        info.compress_type = zipfile.ZIP_DEFLATED
    return info


def _entry(archive: zipfile.ZipFile, name: str, content: bytes | str = b"") -> None:
    archive.writestr(_info(name), content)


def _write_pictures(
    archive: zipfile.ZipFile, root: str, folders: dict[str, dict[str, Shot]], draw: Draw, pest: bytes = b""
) -> None:
    """Every folder's images in the order of their names, and a stray file in each folder."""
    pictures = draw([folders[folder][name] for folder in folders for name in sorted(folders[folder])], "jpeg")
    for folder, shots in folders.items():
        _entry(archive, f"{root}{folder}/")
        for name in sorted(shots):
            _entry(archive, f"{root}{folder}/{name}", next(pictures))
        if pest:
            _entry(archive, f"{root}{folder}/Thumbs.db", pest)

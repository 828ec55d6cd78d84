"""Drawn pedestrians, packed like the releases of real data sets.

The archives have the folders, names, pests and gaps of Market-1501, CUHK03 and DukeMTMC-reID, so that whatever reads
them reads the real ones. Shown in notebooks/01_datasets.
"""

from __future__ import annotations

import io
import math
import os
import struct
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from alignedreid_lib.errors import InputError
from alignedreid_lib.painting import Box
from alignedreid_lib.pedestrians import TRUE_BOX, Person, View, draw
from alignedreid_lib.scenery import SCENES, Camera

PEOPLE, VIEWS, BOXES, CAMERAS, PLANS = range(5)  # random streams, one for each kind of thing
STRANGERS = 100_000  # people from this number on are in nobody's list
THUMBS = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504)  # what Windows leaves in folders that somebody looked at


class Shot(NamedTuple):
    """One picture: who, by which camera, which of the person's moments, and how well boxed."""

    person: int
    camera: int
    moment: int
    box: int = 0  # 0 drawn by hand; from 1 on a detector's
    error: float | None = None  # of the box, instead of the archive's `misalignment`
    empty: bool = False  # a false alarm: nobody there


def detector_box(rng: np.random.Generator, misalignment: float) -> Box:
    """A detector's box around a person.

    Args:
        rng: what decides which way the detector errs; the same draws are made whatever the misalignment.
        misalignment: how much it errs, 0 (not at all) to 1 (up to a third of the height, mostly up and down).
    """
    shift, aside, scale = rng.uniform(-1, 1, 3)
    cut, depth = rng.random(), rng.uniform(0.4, 1)
    height = TRUE_BOX.height * math.exp(0.22 * misalignment * scale)
    top = TRUE_BOX.top + (height - TRUE_BOX.height) / 2 + 0.3 * misalignment * shift
    bottom = top - height
    if cut < 0.35:  # the legs are missing
        bottom += 0.35 * misalignment * depth
    elif cut < 0.5:  # the head is
        top -= 0.25 * misalignment * depth
    width = 0.5 * (height + top - bottom) / 2  # a cut box stays somewhat too wide
    return Box(-width / 2 + 0.08 * misalignment * aside, top, width, top - bottom)


def sample_cameras(count: int, seed: int) -> list[Camera]:
    """The cameras of an archive made with this seed."""
    return [Camera.sample(np.random.default_rng([seed, CAMERAS, i]), SCENES[i % len(SCENES)]) for i in range(count)]


def take(shot: Shot, cameras: Sequence[Camera], misalignment: float, seed: int) -> np.ndarray:
    """The picture of a shot, uint8 [128, 64, 3]; of the misalignment only its box depends."""
    person = None if shot.empty else Person.sample(np.random.default_rng([seed, PEOPLE, shot.person]))
    view = View.sample(np.random.default_rng([seed, VIEWS, shot.person, shot.moment]), cameras[shot.camera])
    error = misalignment if shot.error is None else shot.error
    rng = np.random.default_rng([seed, BOXES, shot.person, shot.moment, shot.box])
    return draw(person, view, detector_box(rng, error if shot.box else 0.0))


def make_archive(
    path: str | Path,
    layout: str = "market1501",
    num_train_ids: int = 170,
    num_test_ids: int = 100,
    misalignment: float = 0.25,
    seed: int = 0,
    workers: int | None = None,
) -> Path:
    """Draw people and pack them like a real release.

    Args:
        path: the archive to write; its folder is made if need be.
        layout: "market1501", "cuhk03" or "dukemtmc".
        num_train_ids: people to train with.
        num_test_ids: other people to test with.
        misalignment: how badly the detector boxes people, in [0, 1]; who is seen where does not depend on it.
        seed: same seed, same archive, byte for byte.
        workers: processes to draw with; None takes one a processor. The archive does not depend on it.

    Returns:
        the path of the finished archive.

    Raises:
        InputError: an argument is impossible, or the archive cannot be written there. Nothing is left behind.
    """
    path = Path(path)
    if layout not in LAYOUTS:
        raise InputError(f"layout {layout!r} is unknown; choose one of {', '.join(LAYOUTS)}")
    for name, value, least, most in (
        ("num_train_ids", num_train_ids, 1, 5000), ("num_test_ids", num_test_ids, 1, 4999), ("seed", seed, 0, 2**32),
        ("workers", workers, 1, 1024),
    ):
        if not (name == "workers" and value is None) and not (isinstance(value, int) and least <= value <= most):
            raise InputError(f"{name} is {value!r}; give a whole number from {least} to {most}")
    if not 0 <= misalignment <= 1:
        raise InputError(f"misalignment is {misalignment!r}; give a number from 0 (perfect boxes) to 1")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of an archive to write, such as {path / LAYOUTS[layout][1]}")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(part, "w") as archive:
            LAYOUTS[layout][0](archive, num_train_ids, num_test_ids, misalignment, seed, workers)
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); choose a folder with space and permission") from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _jpeg(shot: Shot, cameras: Sequence[Camera], misalignment: float, seed: int) -> bytes:
    file = io.BytesIO()
    quality = int(np.random.default_rng([seed, VIEWS, shot.person, shot.moment, 1]).integers(70, 93))
    Image.fromarray(take(shot, cameras, misalignment, seed)).save(file, "JPEG", quality=quality)
    return file.getvalue()


def _map(function, shots: Sequence[Shot], workers: int | None) -> Iterator:
    """The function of every shot, in order, computed by forked processes where the system has them."""
    workers = min(workers or os.cpu_count() or 1, 1 + len(shots) // 50)
    done = 0
    if workers > 1 and "fork" in get_all_start_methods():
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
                with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
                    for result in pool.map(function, shots, chunksize=16):
                        yield result
                        done += 1
        except BrokenProcessPool:  # no memory or no permission for processes: go on alone
            pass
    yield from map(function, shots[done:])


def _entry(archive: zipfile.ZipFile, name: str, content: bytes | str = b"") -> None:
    entry = zipfile.ZipInfo(name, date_time=(2015, 9, 15, 12, 0, 0))
    entry.external_attr = (0o40755 << 16 | 0x10) if name.endswith("/") else 0o100644 << 16
    archive.writestr(entry, content)


def _write_market1501(archive, num_train_ids, num_test_ids, misalignment, seed, workers) -> None:
    root, rng = "Market-1501-v15.09.15/", np.random.default_rng([seed, PLANS])
    ids = 1 + rng.permutation(num_train_ids + num_test_ids)
    folders: dict[str, dict[str, Shot]] = {
        name: {} for name in ("bounding_box_test", "bounding_box_train", "gt_bbox", "query")}

    def put(folder: str, label: str, shot: Shot) -> None:
        sequence = 1 + (shot.person * 7 + shot.moment // 4) % 3
        frame = (shot.person % STRANGERS) * 90 + shot.moment * 4 + shot.camera + 1
        folders[folder][f"{label}_c{shot.camera + 1}s{sequence}_{frame:06d}_{shot.box:02d}.jpg"] = shot

    for position, number in enumerate(ids.tolist()):
        training = position < num_train_ids
        seen_by = np.sort(rng.choice(6, rng.choice([3, 4, 5, 6], p=(0.35, 0.35, 0.2, 0.1)), replace=False))
        moment = 0
        for camera in seen_by.tolist():
            if training:
                for _ in range(1 + rng.binomial(3, 0.4)):
                    put("bounding_box_train", f"{number:04d}", Shot(number, camera, moment, 1))
                    if moment % 3 == 0:
                        put("gt_bbox", f"{number:04d}", Shot(number, camera, moment))
                    moment += 1
            else:
                put("query", f"{number:04d}", Shot(number, camera, moment))
                put("gt_bbox", f"{number:04d}", Shot(number, camera, moment))
                for _ in range(1 + (rng.random() < 0.25)):
                    moment += 1
                    put("bounding_box_test", f"{number:04d}", Shot(number, camera, moment, 1))
                    put("gt_bbox", f"{number:04d}", Shot(number, camera, moment))
                moment += 1
                if rng.random() < 0.1:  # a box so bad that it is neither right nor wrong
                    put("bounding_box_test", "-1", Shot(number, camera, moment, 2, error=1.8))
                    moment += 1
    for stranger in range(max(round(0.6 * num_test_ids), 1)):
        shot = Shot(STRANGERS + stranger, int(rng.integers(6)), 0, 1, error=0.8, empty=bool(rng.random() < 0.4))
        put("bounding_box_test", "0000", shot)
    if not any(name.startswith("-1") for name in folders["bounding_box_test"]):
        put("bounding_box_test", "-1", Shot(int(ids[-1]), 0, 20, 2, error=1.8))

    _entry(archive, root)
    _entry(archive, root + "readme.txt", "Drawn pedestrians in the layout of Market-1501 (Zheng et al., ICCV 2015).\n"
           f"Nobody in here exists. Seed {seed}, misalignment {misalignment}.\n")
    names = [(folder, name) for folder in folders for name in sorted(folders[folder])]
    work = partial(_jpeg, cameras=sample_cameras(6, seed), misalignment=misalignment, seed=seed)
    pictures = _map(work, [folders[folder][name] for folder, name in names], workers)
    for folder in folders:
        _entry(archive, f"{root}{folder}/")
        for name in sorted(folders[folder]):
            _entry(archive, f"{root}{folder}/{name}", next(pictures))
        _entry(archive, f"{root}{folder}/Thumbs.db", THUMBS)
    _entry(archive, f"{root}gt_query/")
    gallery = sorted(folders["bounding_box_test"])
    for name in sorted(folders["query"]):
        person, camera = name[:4], name[5:7]
        same = [i + 1 for i, other in enumerate(gallery) if other[:4] == person]
        junk = [i for i in same if gallery[i - 1][5:7] == camera]
        for kind, indices in (("good", sorted(set(same) - set(junk))), ("junk", junk)):
            _entry(archive, f"{root}gt_query/{name[:-4]}_{kind}.mat", _mat5(f"{kind}_index", indices))
    _entry(archive, f"{root}gt_query/Thumbs.db", THUMBS)


def _mat5(name: str, values: Sequence[float]) -> bytes:
    """A MATLAB 5 file of one row of numbers."""

    def element(kind: int, content: bytes) -> bytes:
        return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)

    matrix = (element(6, struct.pack("<II", 6, 0)) + element(5, struct.pack("<ii", 1, len(values)))
              + element(1, name.encode()) + element(9, struct.pack(f"<{len(values)}d", *values)))
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H2s", 0x100, b"IM") + element(14, matrix)


LAYOUTS = {"market1501": (_write_market1501, "Market-1501-v15.09.15.zip")}

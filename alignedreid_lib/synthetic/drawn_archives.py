"""The book's own data: drawn pedestrians, packed like the releases of real datasets.

Code that reads these archives reads the real ones. A drawing depends only on the seed, the person and the moment, so
archives that differ in `misalignment` show the same people at the same moments in different boxes.
Shown in notebooks/01_datasets.
"""

from __future__ import annotations

import io
import logging
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path

import numpy as np
from PIL import Image

from alignedreid_lib.errors import InputError
from alignedreid_lib.runs.files import replacing
from alignedreid_lib.synthetic.packing import Shot, write_cuhk03, write_dukemtmc, write_market1501
from alignedreid_lib.synthetic.pedestrians import TRUE_BOX, Box, Camera, Person, View, draw

log = logging.getLogger(__name__)

PEOPLE, VIEWS, BOXES, CAMERAS, PLANS = range(5)  # random streams, one for each kind of thing
LAYOUTS = {  # writer, number of cameras, the name of the real archive
    "market1501": (write_market1501, 6, "Market-1501-v15.09.15.zip"),
    "cuhk03": (write_cuhk03, 10, "cuhk03_release.zip"),
    "dukemtmc": (write_dukemtmc, 8, "DukeMTMC-reID.zip"),
}


def detector_box(rng: np.random.Generator, misalignment: float) -> Box:
    """A detector's box around a person.

    Args:
        rng: decides how the detector errs; the same draws are made whatever the misalignment.
        misalignment: how much it errs, 0 (not at all) to 1 (up to three tenths of the height, mostly up and down).
    """
    shift, aside, scale, depth = rng.uniform((-1, -1, -1, 0.4), (1, 1, 1, 1)).tolist()
    cut = rng.random()
    height = TRUE_BOX.height * math.exp(0.22 * misalignment * scale)
    top = TRUE_BOX.top + (height - TRUE_BOX.height) / 2 + 0.3 * misalignment * shift
    bottom = top - height
    if cut < 0.35:  # the legs are missing
        bottom += 0.35 * misalignment * depth
    elif cut < 0.5:  # the head is
        top -= 0.25 * misalignment * depth
    width = TRUE_BOX.width / TRUE_BOX.height * (height + top - bottom) / 2  # a cut box stays somewhat too wide
    return Box(-width / 2 + 0.08 * misalignment * aside, top, width, top - bottom)


def sample_cameras(count: int, seed: int) -> list[Camera]:
    """The cameras of an archive made with this seed."""
    return [Camera.sample(np.random.default_rng([seed, CAMERAS, i])) for i in range(count)]


def sample_person(number: int, seed: int) -> Person:
    """The person with this number in archives made with this seed."""
    return Person.sample(np.random.default_rng([seed, PEOPLE, number]))


def take(shot: Shot, cameras: Sequence[Camera], misalignment: float, seed: int) -> np.ndarray:
    """The image of a shot, uint8 [128, 64, 3]; only its box depends on the misalignment."""
    view = View.sample(np.random.default_rng([seed, VIEWS, shot.person, shot.moment]), cameras[shot.camera])
    error = misalignment if shot.error is None else shot.error
    rng = np.random.default_rng([seed, BOXES, shot.person, shot.moment, shot.box])
    box = detector_box(rng, error) if shot.box else TRUE_BOX
    return draw(None if shot.empty else sample_person(shot.person, seed), view, box)


def make_archive(
    path: str | Path,
    layout: str = "market1501",
    num_train_ids: int = 170,
    num_test_ids: int = 100,
    misalignment: float = 0.2,
    seed: int = 0,
    workers: int | None = None,
) -> Path:
    """Draw people and pack them like a real release.

    Args:
        path: the archive to write; its folder is made if absent. With layout "cuhk03" the new protocol's split of
            these people is written next to it, as re_ranking_train_test_split.pkl.
        layout: "market1501", "cuhk03" or "dukemtmc".
        num_train_ids: people to train with.
        num_test_ids: other people to test with.
        misalignment: how badly the detector boxes people, in [0, 1]; everything else does not depend on it.
        seed: same seed, same archive, byte for byte.
        workers: processes to draw with; None takes one per processor. The archive does not depend on it.

    Returns:
        the path of the finished archive.

    Raises:
        InputError: an argument is impossible, or the archive cannot be written there. Nothing is left behind.
    """
    path = Path(path)
    if layout not in LAYOUTS:
        raise InputError(f"layout {layout!r} is unknown; choose one of {', '.join(LAYOUTS)}")
    _check_whole("num_train_ids", num_train_ids, 5, 5000)
    _check_whole("num_test_ids", num_test_ids, 1, 3000)
    _check_whole("seed", seed, 0, 2**32)
    if workers is not None:
        _check_whole("workers", workers, 1, 1024)
    if not isinstance(misalignment, (int, float)) or not 0 <= misalignment <= 1:
        raise InputError(f"misalignment is {misalignment!r}; give a number from 0 (perfect boxes) to 1")
    write, num_cameras, real_name = LAYOUTS[layout]
    if path.is_dir():
        raise InputError(f"{path} is a folder; name the archive to write, such as {path / real_name}")
    cameras = sample_cameras(num_cameras, seed)
    readme = (
        f"Drawn pedestrians in the layout of {real_name}: nobody in here exists.\n"
        f"seed {seed}, misalignment {misalignment}, {num_train_ids} + {num_test_ids} persons\n"
    )

    def pictures(shots: Sequence[Shot], form: str) -> Iterator:
        log.info("drawing %d images of people for %s", len(shots), path.name)
        work = partial(_picture, cameras=cameras, misalignment=misalignment, seed=seed, form=form)
        return _map(work, shots, workers)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, f"{os.getpid()}.part") as part:  # two processes may draw the same archive
            write(part, np.random.default_rng([seed, PLANS]), num_train_ids, num_test_ids, pictures, readme)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot write {path} ({reason}); choose a folder with space and permission") from error
    return path


def _check_whole(name: str, value: int, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value <= most:
        raise InputError(f"{name} is {value!r}; give a whole number from {least} to {most}")


def _picture(shot: Shot, cameras: Sequence[Camera], misalignment: float, seed: int, form: str) -> np.ndarray | bytes:
    """A shot as "jpeg" bytes, or as "pixels" of a size of its own, as the boxes of CUHK03 have."""
    picture = Image.fromarray(take(shot, cameras, misalignment, seed))
    rng = np.random.default_rng([seed, VIEWS, shot.person, shot.moment, 1])
    if form == "pixels":
        height = int(rng.integers(100, 150))
        return np.asarray(picture.resize((height * 2 // 5, height), Image.Resampling.BICUBIC))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=int(rng.integers(70, 93)))
    return file.getvalue()


def _map(function, shots: Sequence[Shot], workers: int | None) -> Iterator:
    """The function of every shot, in order, computed by forked processes where the system has them."""
    workers = min(workers or os.cpu_count() or 1, 1 + len(shots) // 50)
    done = 0
    if workers > 1 and "fork" in get_all_start_methods():
        try:
            with warnings.catch_warnings():  # our children compute, and take no lock of other threads
                warnings.filterwarnings("ignore", ".*multi-threaded.*", DeprecationWarning)
                with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
                    for result in pool.map(function, shots, chunksize=16):
                        yield result
                        done += 1
        except BrokenProcessPool:  # no memory for processes: go on alone
            pass
    yield from map(function, shots[done:])

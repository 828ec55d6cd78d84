"""The datasets of a full run: made if absent, checked before a training starts. Derived in notebooks/06_training."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from alignedreid_lib.datasets.combine import COMBINED, combine
from alignedreid_lib.datasets.dataset import open_dataset
from alignedreid_lib.datasets.partitions import GALLERY, MULTI_QUERY, QUERY, Partitions, TooFewPeopleError
from alignedreid_lib.datasets.prepare import prepare
from alignedreid_lib.datasets.prepared_folder import read_manifest
from alignedreid_lib.datasets.sources import SOURCES
from alignedreid_lib.errors import InputError
from alignedreid_lib.runs import resolve, typed

log = logging.getLogger(__name__)


def provide(
    data_root: str | Path,
    dataset: str,
    train_part: str = "trainval",
    archive: str = "",
    combined_of: Sequence[str] | str = (),
    test_sets: Sequence[str] | str = (),
    num_val_ids: int | None = None,
    pattern: str = "",
    test_share: float | None = None,
    draw: Callable[[str], Any] | None = None,
    multi_query: bool = False,
) -> tuple[str, ...]:
    """Make the datasets that a full run trains and tests on, unless they exist.

    Args:
        data_root: the folder of the datasets.
        dataset: the dataset to train on.
        train_part: trainval or train; train needs people to validate with.
        archive: a release archive, or the folder with several under their published names; for the dataset
            `folder` the images' folder or a CSV; "" for none.
        combined_of: the datasets that `combined` is made of; () for the original's three.
        test_sets: the datasets to test on; () for the one trained on, or those that `combined` is made of.
        num_val_ids: people of each training set to validate with. None is 100 for a release, or 0 if it has too few
            people for that and the training does not need them; 0 for `folder`.
        pattern, test_share: for the dataset `folder`, see `prepare`; "" and None for its defaults.
        draw: makes the release dataset of that name if there is no archive.
        multi_query: each test set needs multi-query images.

    Returns:
        the names of the datasets to test on.

    Raises:
        InputError: a setting of a wrong type, no archive for an absent dataset, an archive that cannot be used, a
            dataset that was made from a different archive or with different settings, or a test set without test
            people or without the multi-query images asked for.
    """
    root, source = resolve(data_root), resolve(archive)
    dataset = typed("dataset", dataset, str)
    train_part = typed("train_part", train_part, Literal["trainval", "train"])
    trained_on: tuple[str, ...] = (dataset,)
    if dataset == "combined":
        trained_on = typed("combined_of", combined_of, tuple[str, ...]) or COMBINED
    tested = typed("test_sets", test_sets, tuple[str, ...]) or trained_on
    own = {key: value for key, value in (("pattern", pattern), ("test_share", test_share)) if value not in ("", None)}
    if own and "folder" not in trained_on + tested:
        raise InputError(f"{min(own)} is for the dataset folder; leave it out with {dataset}")
    for name in trained_on + tested:
        kinds = ("cuhk03/detected", "cuhk03/labeled")
        if name.split("/")[0] == "cuhk03" and name not in kinds and not os.path.isfile(root / name / "partitions.pkl"):
            raise InputError(f"{name} is not one dataset with a protocol; name {' or '.join(kinds)}")
    for name in dict.fromkeys(trained_on + tested):
        asked = dict(own) if name == "folder" else {}
        beside = os.path.isfile(source) and name.split("/")[0] != dataset.split("/")[0]
        given = source.parent if beside else source  # a single file is the training set's, others are in its folder
        if num_val_ids is not None and name in trained_on:
            asked["num_val_ids"] = num_val_ids
        try:
            if (root / name / "partitions.pkl").exists():
                if archive:
                    _check_archive(root, name, given)
            elif archive and name == "folder" != dataset:
                raise InputError(f"{root / name} is not there; train on it, or prepare it before you test on it")
            elif archive:
                needs_val = "num_val_ids" in asked or (name in trained_on and train_part == "train")
                _prepare(root, name, given, asked, needs_val)
            elif draw and name.split("/")[0] in SOURCES:
                draw(name.split("/")[0])
            else:
                raise InputError(f"{root / name} is not there; prepare it, or give in `archive` what to make it from")
        except OSError as error:  # a name that no file can have
            reason = f"{error.filename or archive}: {error.strerror or error}"
            raise InputError(f"{reason}; give a different archive or data_root") from error
        made = read_manifest(root / name) or {}
        for key, value in asked.items():
            if made.get(key) != value:
                raise InputError(
                    f"{root / name} has {key}={made.get(key)!r}, not {value!r}; "
                    "move it away to make it again, or give a different data_root"
                )
    if dataset == "combined":
        combine([root / name for name in trained_on], root)
    for name in tested:
        _check_test_part(root / name, multi_query)
    return tested


def _check_archive(root: Path, name: str, given: Path) -> None:
    """Compare a dataset that exists with its archive, where the archive is known and present.

    A dataset under a name of its own (renamed, or a path) is not compared: its name does not tell its archive.

    Raises:
        InputError: it was made from a different archive.
    """
    layout, made = name.split("/")[0], read_manifest(root / name)
    if layout not in (*SOURCES, "folder"):
        return
    file = given / SOURCES[layout][0] if layout in SOURCES and os.path.isdir(given) else given
    if made and os.path.exists(file) and not made.get("split_file"):
        known = ("num_val_ids", "pattern", "test_share", "seed")
        prepare(layout, given, root, **{key: made[key] for key in known if key in made})


def _prepare(root: Path, name: str, given: Path, asked: dict[str, Any], needs_val: bool) -> None:
    """Make a dataset from its archive; without validation people if it has too few and they are not needed."""
    layout = name.split("/")[0]
    try:
        prepare(layout, given, root, **asked)
    except TooFewPeopleError as error:
        if needs_val:
            raise InputError(f"{given}: {error}") from None
        log.warning("%s: too few people to set some aside for validation; all are trained on", layout)
        prepare(layout, given, root, **asked, num_val_ids=0)


def _check_test_part(folder: Path, multi_query: bool) -> None:
    """Refuse a dataset that a test at the end of a training could not use.

    Raises:
        InputError: it has no test people, no multi-query images if they are asked for, or no query has a match from
            a different camera.
    """
    file = folder / "partitions.pkl"
    if file.is_file() and not {QUERY, GALLERY} <= set(Partitions.load(file).test_marks or ()):
        raise InputError(
            f"{folder} has no people to test on; name others in test_sets, or delete this folder and prepare it with a "
            "larger test_share"
        )
    tested = open_dataset(folder, "test")
    if multi_query and (tested.marks is None or MULTI_QUERY not in tested.marks):
        raise InputError(f"{folder} has no multi-query images: only Market-1501 has them; leave test_multi_query empty")
    if tested.marks is None or not tested.cameras_known:
        return
    sightings = list(zip(tested.marks.tolist(), tested.ids.tolist(), tested.cameras.tolist(), strict=True))
    cameras: dict[int, set[int]] = {}  # of each person's gallery images
    for mark, person, camera in sightings:
        if mark == GALLERY:
            cameras.setdefault(person, set()).add(camera)
    if not any(mark == QUERY and cameras.get(person, set()) - {camera} for mark, person, camera in sightings):
        raise InputError(
            f"{folder}: no test person was seen by two cameras, so that no query has a match; give the images "
            "their cameras, or prepare a folder without them"
        )

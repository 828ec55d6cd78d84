"""Several datasets' training sets as one. Derived in notebooks/01_datasets."""

import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from alignedreid_lib.datasets.partitions import Partitions, format_name, make_labels, parse_name
from alignedreid_lib.datasets.prepared_folder import (
    all_or_nothing,
    as_path,
    disk_errors,
    is_done,
    read_manifest,
    write_manifest,
    write_map,
)
from alignedreid_lib.errors import InputError

COMBINED = ("market1501", "cuhk03/detected", "dukemtmc")  # the three sets that the original reproduction merges


@disk_errors("give a root you may write to and datasets you may read")
def combine(folders: Sequence[str | Path] | None = None, root: str | Path = "data") -> Path:
    """One training set out of several datasets' trainval sets, ids renumbered from 0.

    Args:
        folders: prepared datasets, in the order in which their ids are counted; None for the original's three, those
            of `root`: market1501, cuhk03/detected, dukemtmc.
        root: where the folder `combined` goes.

    Returns:
        root/combined, with `images/`, a `partitions.pkl` that has the trainval part only, and `original_to_new`.

    Raises:
        InputError: a folder is not a prepared dataset or is given twice, the disk is full, or root/combined was made
            from other folders or images. Nothing is left behind then.
    """
    root = as_path(root, "root")
    if isinstance(folders, str | Path) or not isinstance(folders, Iterable | None):
        raise InputError(f"folders={folders!r} is not a list of paths; give one, such as ['data/market1501']")
    sources = [root / name for name in COMBINED] if folders is None else [as_path(one, "folder") for one in folders]
    if not sources:
        raise InputError("nothing to combine; give the folders of prepared datasets")
    names_of = [os.path.relpath(source, root) for source in sources]  # so that a project may be moved
    for name in names_of:
        if names_of.count(name) > 1:
            raise InputError(f"{root / name} is given {names_of.count(name)} times; combine different datasets")
    target = root / "combined"
    settings = {"name": "combined", "of": names_of, "pictures": _pictures(sources)}
    if is_done(target, settings):
        return target
    renamed: dict[str, str] = {}
    next_id = 0
    for source, folder_name in zip(sources, names_of, strict=True):
        names = sorted(Partitions.load(source / "partitions.pkl").trainval_im_names or ())
        if not names:
            raise InputError(f"{source} has no trainval part; leave it out")
        count: dict[tuple[int, int], int] = defaultdict(int)
        new_ids = {person: next_id + label for person, label in make_labels(names).items()}
        next_id += len(new_ids)
        for name in names:
            person, camera = parse_name(name)
            renamed[f"{folder_name}/images/{name}"] = format_name(new_ids[person], camera, count[person, camera])
            count[person, camera] += 1
    with all_or_nothing(target, sources[0], settings) as partial:
        if partial is None:
            return target
        (partial / "images").mkdir()
        for name, new_name in tqdm(renamed.items(), desc="combined", unit="img", disable=None):
            shutil.copyfile(root / name, partial / "images" / new_name)
        new_names = list(renamed.values())
        Partitions(trainval_im_names=new_names, trainval_ids2labels=make_labels(new_names)).save(
            partial / "partitions.pkl"
        )
        write_map(partial, renamed)
        write_manifest(partial, settings)
    return target


def _pictures(sources: Sequence[Path]) -> str | None:
    """A fingerprint of the datasets' training images: names, sizes, and the archives; None if one is gone."""
    fingerprint = hashlib.sha256()
    for source in sources:
        if not (source / "partitions.pkl").exists():
            return None
        names = set(Partitions.load(source / "partitions.pkl").trainval_im_names or ())
        with os.scandir(source / "images") as entries:
            sizes = sorted((entry.name, entry.stat().st_size) for entry in entries if entry.name in names)
        archive = (read_manifest(source) or {}).get("archive_content")
        fingerprint.update(json.dumps([archive, sizes]).encode())
    return fingerprint.hexdigest()

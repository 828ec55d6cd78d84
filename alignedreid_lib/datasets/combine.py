"""Several datasets' training sets as one. Derived in notebooks/01_datasets."""

import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from alignedreid_lib.datasets.making import all_or_nothing, is_done, write_manifest, write_map
from alignedreid_lib.datasets.partitions import Partitions, format_name, make_labels, parse_name
from alignedreid_lib.errors import InputError

COMBINED = ("market1501", "cuhk03/detected", "dukemtmc")  # the three sets that the original reproduction merges


def combine(folders: Sequence[str | Path] | None = None, root: str | Path = "data") -> Path:
    """One training set out of several datasets' trainval sets, ids renumbered from 0 on through them.

    Args:
        folders: prepared datasets, in the order in which their ids are counted; None for the original's three, those
            of `root`: market1501, cuhk03/detected, dukemtmc.
        root: where the folder `combined` goes.

    Returns:
        root/combined, with `images/`, a `partitions.pkl` that has the trainval part only, and `original_to_new`.

    Raises:
        InputError: a folder is no prepared dataset or stands there twice, or the disk is full; nothing is left behind
            then.
    """
    root = Path(root)
    sources = [root / name for name in COMBINED] if folders is None else [Path(folder) for folder in folders]
    if not sources:
        raise InputError("nothing to combine; give the folders of prepared datasets")
    names_of = [os.path.relpath(source, root) for source in sources]  # so that a project may be moved
    for name in names_of:
        if names_of.count(name) > 1:
            raise InputError(f"{root / name} is given {names_of.count(name)} times; combine different datasets")
    target = root / "combined"
    settings = {"name": "combined", "of": names_of}
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
    with all_or_nothing(target, sources[0]) as partial:
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

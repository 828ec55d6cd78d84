"""From a release archive, or a folder of images, to the unified layout. Derived in notebooks/01_datasets."""

from pathlib import Path

from alignedreid_lib.datasets.cuhk03 import prepare_cuhk03
from alignedreid_lib.datasets.cuhk03_split import split_files
from alignedreid_lib.datasets.folder import digest, list_sightings, prepare_folder, sample_bytes
from alignedreid_lib.datasets.market_duke import prepare_folders
from alignedreid_lib.datasets.prepared_folder import (
    all_or_nothing,
    as_path,
    disk_errors,
    is_done,
    write_manifest,
    write_map,
)
from alignedreid_lib.datasets.sources import SOURCES, check_is_there, files_content, find_archive, zip_content
from alignedreid_lib.errors import InputError


@disk_errors("give a root you may write to and files you may read")
def prepare(
    name: str,
    archive: str | Path,
    root: str | Path,
    split_file: str | Path | None = None,
    num_val_ids: int | None = None,
    *,
    pattern: str | None = None,
    test_share: float = 0.5,
    seed: int = 1,
) -> Path:
    """Turn a release archive, or the user's own images, into the unified layout, unless this is done already.

    Args:
        name: market1501, cuhk03, dukemtmc, or folder for the user's own images.
        archive: the zip as its authors publish it (never unpacked as a whole), under any name, or the folder in
            which it has its published name. A prepared dataset identifies it by its content, and is found without it.
            For `folder`, the images' folder, or a CSV of path,person,camera.
        root: where the dataset's folder goes.
        split_file: CUHK03 only, see `cuhk03_split.load_split`; None takes the new protocol's, which comes with the
            library.
        num_val_ids: identities set aside for validation; 0 for none, then train equals trainval. None is 100 for a
            release, 0 for `folder`.
        pattern: for `folder`, a regular expression that finds the person, `(?P<person>...)`, and the camera,
            `(?P<camera>...)`, in an image's path. Without it each person has a folder, and cameras are not known.
        test_share, seed: for `folder`, the share of people to test on, and the seed that chooses them.

    Returns:
        root/name, with `images/` and `partitions.pkl`, and `original_to_new` (.json, .pkl), a map from the names in
        the archive to the new ones; for `folder` also `people.json`, its people's and cameras' names by number. For
        cuhk03 the folders detected/ and labeled/ with images and partitions, and all/ with only images.

    Raises:
        InputError: an error of the input or the disk. Nothing is left behind then.
    """
    if name not in (*SOURCES, "folder"):
        raise InputError(f"no dataset {name!r}; give one of {', '.join(SOURCES)}, folder")
    if split_file is not None and name != "cuhk03":
        raise InputError(f"{name} has no use for a split file; leave split_file out")
    if num_val_ids is None:
        num_val_ids = 0 if name == "folder" else 100
    if type(num_val_ids) is not int or num_val_ids < 0:
        raise InputError(f"num_val_ids={num_val_ids!r} is not a count; give 0 or more")
    archive, root = as_path(archive, "archive"), as_path(root, "root")
    split_path = as_path(split_file, "split_file") if split_file is not None else None
    target = root / name
    if name == "folder":
        return _prepare_own(target, archive, num_val_ids, pattern, test_share, seed)
    if (pattern, test_share, seed) != (None, 0.5, 1):
        raise InputError(f"{name} has its people and parts in its archive; leave pattern, test_share and seed out")
    given, archive = archive, find_archive(name, archive)
    split_paths = split_files(split_path) if split_path else []
    settings = {
        "name": name,
        "archive_content": zip_content(archive),
        "archive": archive.name,
        "split_file_content": files_content(split_paths),
        "split_file": split_paths[0].name if split_paths else None,  # the same name for either of two files
        "num_val_ids": num_val_ids,
    }
    if is_done(target, settings):
        return target
    check_is_there(name, given)
    with all_or_nothing(target, archive, settings) as partial:
        if partial is None:
            return target
        if name == "cuhk03":
            prepare_cuhk03(archive, partial, num_val_ids, split_path)
        else:
            write_map(partial, prepare_folders(name, archive, partial, num_val_ids))
        write_manifest(partial, settings)
    return target


def _prepare_own(
    target: Path, source: Path, num_val_ids: int, pattern: str | None, test_share: float, seed: int
) -> Path:
    if isinstance(test_share, bool) or not isinstance(test_share, int | float) or not 0 <= test_share <= 1:
        raise InputError(f"test_share={test_share!r} is not a share; give a number from 0 to 1")
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise InputError(f"seed={seed!r} is not a seed; give a whole number from 0 to 2**32 - 1")
    sightings = list_sightings(source, pattern)
    settings = {
        "name": "folder",
        "pictures": digest(sightings),
        "archive_content": sample_bytes(sightings),
        "archive": source.name,
        "num_val_ids": num_val_ids,
        "pattern": pattern,
        "test_share": test_share,
        "seed": seed,
        "cameras_known": sightings[0].camera is not None,
    }
    with all_or_nothing(target, source, settings) as partial:
        if partial is not None:
            write_map(partial, prepare_folder(source, sightings, partial, num_val_ids, test_share, seed))
            write_manifest(partial, settings)
    return target

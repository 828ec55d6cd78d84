"""Market-1501 and DukeMTMC-reID: one reader, for four folders or three. Derived in notebooks/01_datasets."""

import re
import warnings
import zipfile
from collections import defaultdict
from pathlib import Path

from alignedreid_lib.datasets.jpegs import OTHER_SUFFIXES, SUFFIXES, copy_images
from alignedreid_lib.datasets.partitions import MULTI_QUERY, Partitions, format_name, make_partitions
from alignedreid_lib.datasets.sighting import count
from alignedreid_lib.datasets.zip_reading import list_files, open_archive
from alignedreid_lib.errors import InputError

# In the order in which k counts through them.
FOLDERS = {
    "market1501": ("bounding_box_train", "bounding_box_test", "query", "gt_bbox"),
    "dukemtmc": ("bounding_box_train", "bounding_box_test", "query"),
}
_NAMES = {
    # 0002_c1s1_000451_03.jpg; -1 is junk. 38 names of the real archive end in .jpg.jpg.
    "market1501": re.compile(r"(-1|\d+)_c(\d+)s\d+_\d+_\d+(\.jpg)+"),
    "dukemtmc": re.compile(r"(\d+)_c(\d+)_f\d+(\.jpg)+"),  # 0001_c2_f0046182.jpg
}
_OPTIONAL = "gt_bbox"  # only multi-query needs it; archives of other makers often lack it
_JUNK = -1
MAX_ID, MAX_CAMERA = 10**8 - 1, 10**4 - 1  # the digits of a name, see `format_name`

Member = tuple[zipfile.ZipInfo, int, int]  # entry, id, camera


def looks_like(folders: dict[str, dict[str, zipfile.ZipInfo]]) -> str:
    """A guess, in words, at what an archive is; for messages."""
    if any("cuhk-03.mat" in files for files in folders.values()):
        return "cuhk03"
    for name, pattern in _NAMES.items():
        if any(pattern.fullmatch(file) for folder in FOLDERS[name] for file in folders.get(folder, {})):
            return name
    inside = [file for files in folders.values() for file in files if file.lower().endswith(".zip")]
    if inside:
        return f"a zip around {min(inside)}: unpack that one"
    return "none of market1501, cuhk03 and dukemtmc"


def prepare_folders(name: str, path: Path, out: Path, num_val_ids: int) -> dict[str, str]:
    """Write `out/images/` and `out/partitions.pkl`.

    Args:
        name: market1501 or dukemtmc.
        path: the release archive.
        out: an existing, empty folder.
        num_val_ids: identities of the validation split.

    Returns:
        {name in the archive, `folder/file`: new name} of every image, in the order of the parts.

    Raises:
        InputError: the archive cannot be used, or has too few identities.
    """
    with open_archive(path) as archive:
        members = _list_members(name, archive)
        partitions, new_names = _plan(members, num_val_ids)
        if _OPTIONAL in members and MULTI_QUERY not in (partitions.test_marks or ()):
            warnings.warn(
                f"{path} has no images for multi-query in {_OPTIONAL}/; the dataset is made without", stacklevel=4
            )
        both = {m[1] for m in members["bounding_box_train"]} & {m[1] for m in members["query"]}
        if both:
            warnings.warn(
                f"{path}: {len(both)} people are trained on and tested (first: {min(both)}); scores on them say little",
                stacklevel=4,
            )
        (out / "images").mkdir()
        copy_images(archive, new_names, out / "images", name)
    partitions.save(out / "partitions.pkl")
    return {"/".join(entry.filename.split("/")[-2:]): new_name for entry, new_name in new_names}


def _list_members(name: str, archive: zipfile.ZipFile) -> dict[str, list[Member]]:
    """The images of each folder, sorted by file name, without junk."""
    _refuse_deeper(name, archive)
    folders = list_files(archive)
    another = looks_like(folders) in FOLDERS.keys() - {name}
    missing = [folder for folder in FOLDERS[name] if folder not in folders and (another or folder != _OPTIONAL)]
    if missing:
        raise InputError(
            f"{archive.filename} has no folder {missing[0]}/, so it is not the whole of {name} "
            f"(it looks like {looks_like(folders)}); give the release archive of {name}"
        )
    members: dict[str, list[Member]] = {}
    left_out: list[str] = []
    for folder in FOLDERS[name]:
        members[folder] = []
        for file, entry in sorted(folders.get(folder, {}).items()):
            match = _NAMES[name].fullmatch(file)
            # by length first: Python makes no int of more than 4300 digits
            if match and any(len(match[k].lstrip("0")) > len(str(most)) for k, most in ((1, MAX_ID), (2, MAX_CAMERA))):
                raise InputError(
                    f"{archive.filename}: {entry.filename} has an id above {MAX_ID} or a camera above {MAX_CAMERA}, "
                    "more than the layout allows; number them again"
                )
            if match and int(match[1]) != _JUNK:
                members[folder].append((entry, int(match[1]), int(match[2])))
            elif match is None and (file.startswith(".") or not file.lower().endswith(SUFFIXES + OTHER_SUFFIXES)):
                left_out.append(entry.filename)
            elif match is None:
                raise InputError(
                    f"{archive.filename}: {entry.filename} is not named as {name}'s JPEGs are "
                    f"(it looks like {looks_like(folders)}); give the release archive of {name}"
                )
        if not members[folder] and folder != _OPTIONAL:
            raise InputError(f"{archive.filename}: no image in {folder}/; download the archive again")
    elsewhere = sorted(
        entry.filename
        for folder in folders.keys() - set(FOLDERS[name])
        for file, entry in folders[folder].items()
        if file.lower().endswith(SUFFIXES + OTHER_SUFFIXES)
    )
    if elsewhere:
        warnings.warn(
            f"{archive.filename}: {count(len(elsewhere), 'image')} in other folders than {', '.join(members)} passed "
            f"over (first: {elsewhere[0]})",
            stacklevel=5,
        )
    if left_out:
        warnings.warn(
            f"{archive.filename}: {count(len(left_out), 'file')} in {', '.join(members)} passed over, not named as "
            f"images are (first: {left_out[0]})",
            stacklevel=5,
        )
    return members


def _refuse_deeper(name: str, archive: zipfile.ZipFile) -> None:
    """Raise InputError if a folder contains no images itself, but folders of images."""
    names = sorted(entry.filename for entry in archive.infolist() if entry.filename.lower().endswith(SUFFIXES))
    paths = [file.split("/") for file in names]
    for folder in FOLDERS[name]:
        deeper = ["/".join(path) for path in paths if folder in path[:-2]]
        if deeper and not any(path[-2:-1] == [folder] for path in paths):
            raise InputError(
                f"{archive.filename}: the images of {folder}/ are in folders inside of it (first: {deeper[0]}); move "
                f"them into {folder}/ itself and pack it again"
            )


def _plan(members: dict[str, list[Member]], num_val_ids: int) -> tuple[Partitions, list[tuple[zipfile.ZipInfo, str]]]:
    """The partitions, and every entry to copy with its new name."""
    asked = {(person, camera) for _, person, camera in members["query"]}
    # Multi-query images show a query's person in the query's camera; the rest of gt_bbox is not used.
    members = {
        folder: [m for m in pictures if folder != _OPTIONAL or m[1:] in asked] for folder, pictures in members.items()
    }
    so_far: dict[tuple[int, int], int] = defaultdict(int)
    names: dict[str, list[str]] = defaultdict(list)
    copies = []
    for folder, pictures in members.items():
        for entry, person, camera in pictures:
            new_name = format_name(person, camera, so_far[person, camera])
            so_far[person, camera] += 1
            names[folder].append(new_name)
            copies.append((entry, new_name))
    partitions = make_partitions(
        names["bounding_box_train"], num_val_ids, names["query"], names["gt_bbox"], names["bounding_box_test"]
    )
    return partitions, copies

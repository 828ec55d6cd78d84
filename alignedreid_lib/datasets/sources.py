"""Find the archive in what was given, or describe what was given instead. Derived in notebooks/01_datasets."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from alignedreid_lib.datasets.zip_reading import open_archive
from alignedreid_lib.errors import InputError

SOURCES = {  # name -> (archive, where to get it)
    "market1501": (
        "Market-1501-v15.09.15.zip",
        "its official page, https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html, explains how to get it",
    ),
    "cuhk03": (
        "cuhk03_release.zip",
        "its official page, https://www.ee.cuhk.edu.hk/~xgwang/CUHK_identification.html, explains how to request it",
    ),
    "dukemtmc": ("DukeMTMC-reID.zip", "it was withdrawn by its makers in 2019, so only existing copies can be used"),
}
_UNPACKED = {"cuhk03": "cuhk-03.mat"}  # what a release's own folder contains; for the others this:
_TRAINING = "bounding_box_train"


def find_archive(name: str, given: Path) -> Path:
    """The archive of dataset `name`: the file given, or in a folder the file of its published name."""
    return given / SOURCES[name][0] if given.is_dir() else given


def check_is_there(name: str, given: Path) -> None:
    """Check that what was given leads to an archive.

    Raises:
        InputError: it does not; the message names what is there instead, and where to get the archive.
    """
    archive = find_archive(name, given)
    if archive.is_file():
        return
    file, source = SOURCES[name]
    if archive.is_symlink():
        raise InputError(f"{archive} is a link to {os.readlink(archive)}, which is not there; correct the link")
    for folder in (place for place in (archive, given) if place.is_dir()):
        inside = sorted(os.listdir(folder))
        for place in (folder, *(folder / entry for entry in inside)):
            if (place / _UNPACKED.get(name, _TRAINING)).exists():
                raise InputError(
                    f"{place} is an unpacked release; give the archive itself, {file}, or pack the folder as one: "
                    f"python -m zipfile -c {file} {str(place)!r}"
                )
        zips = [entry for entry in inside if entry.lower().endswith(".zip") and not entry.startswith(".")]
        if zips and folder == given:
            raise InputError(
                f"{archive} does not exist, but the folder has {', '.join(zips[:3])}; if one of these is the archive "
                f"of {name}, give its path"
            )
    if archive.exists():
        raise InputError(f"{archive} is not a file; put {file} there: {source}")
    raise InputError(f"{archive} does not exist; put {file} there: {source}")


def zip_content(path: Path) -> str | None:
    """A fingerprint of a zip: its size and its central directory, which has each entry's name, size and checksum.

    None if there is no such file.

    Raises:
        InputError: the file is not a whole zip.
    """
    if not path.is_file():
        return None
    with open_archive(path) as archive, open(path, "rb") as file:
        file.seek(archive.start_dir)
        return f"{path.stat().st_size} {hashlib.sha256(file.read()).hexdigest()}"


def files_content(paths: Sequence[Path]) -> str | None:
    """A fingerprint of small files; None if there are none, or one is absent."""
    if not paths or not all(path.is_file() for path in paths):
        return None
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()

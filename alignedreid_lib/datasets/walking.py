"""The images in a user's folder: links are followed, a warning counts the rest. Derived in notebooks/01_datasets."""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from alignedreid_lib.datasets.jpegs import LITTER, OTHER_SUFFIXES, SUFFIXES
from alignedreid_lib.datasets.prepared_folder import MANIFEST
from alignedreid_lib.datasets.sighting import Sighting, count, refuse_odd_names, tidy
from alignedreid_lib.errors import InputError


def walk_pictures(folder: Path, read: Callable[[str], tuple[str, str | None] | None]) -> list[Sighting]:
    """The images below a folder, in any order; a warning counts the other files.

    Args:
        folder: the folder; links inside it are followed.
        read: (person, camera) of an image's path from the folder, written with `/`; None if the path has no person.

    Raises:
        InputError: a link that leads nowhere or to what is there already, an image of a format that is not read, or
            one whose name has no person.
    """
    found: list[Sighting] = []
    names: list[str] = []
    unknown: list[str] = []
    unread: list[str] = []
    others: Counter[str] = Counter()
    for path in _files(folder, others):
        suffix = path.suffix.lower()
        if path.name.startswith(".") or suffix not in SUFFIXES + OTHER_SUFFIXES:
            if path.name.lower() not in LITTER and not path.name.startswith("._"):
                others["hidden file" if path.name.startswith(".") else suffix or "file without suffix"] += 1
            continue
        name = path.relative_to(folder).as_posix()
        names.append(name)
        who = read(name)
        if suffix in OTHER_SUFFIXES:
            unknown.append(str(path))
        elif who is None or not tidy(who[0]):
            unread.append(name)
        elif not path.is_file():  # opening a pipe would wait endlessly
            raise InputError(f"{path} has an image's name and is not a file; take it out")
        else:
            found.append(Sighting(path, name, who[0], tidy(who[1] or "") or None))
    refuse_odd_names(folder, names)
    if unknown:
        raise InputError(
            f"{min(unknown)} is of a format that is not read; save it as JPEG or PNG, or take it out ({len(unknown)} "
            "of this kind in all)"
        )
    if unread:
        raise InputError(
            f"{folder}: {len(unread)} of {len(unread) + len(found)} images have a name without a person (first: "
            f"{min(unread)}); put them into a folder for each person, or give a pattern that fits all names"
        )
    if others:
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(others.items()))
        warnings.warn(f"{folder}: {count(len(found), 'image')} found; passed over: {kinds}", stacklevel=2)
    return found


def _files(folder: Path, others: Counter[str]) -> Iterator[Path]:
    """Every file below a folder, each once. A folder that is passed over is counted in `others`."""

    def fail(error: OSError) -> None:
        raise error  # os.walk would pass over a folder that cannot be read

    seen: dict[str, str] = {}  # real path -> the path that led there
    gone: list[str] = []

    def enter(path: str, real: str) -> None:
        if real in seen:
            raise InputError(f"{path} is the same as {seen[real]}, by a link; take one of the two out")
        seen[real] = path

    root = os.path.realpath(folder)
    enter(str(folder), root)
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        real_parent = os.path.realpath(parent)
        kept = []
        for name in sorted(folders):
            path = os.path.join(parent, name)
            if name.startswith(".") or name.lower() in LITTER:
                others["hidden folder"] += name.lower() not in LITTER
            elif os.path.isfile(os.path.join(path, MANIFEST)):
                others["prepared dataset"] += 1
            else:
                real = os.path.realpath(path)
                if Path(root).is_relative_to(real):
                    raise InputError(f"{path} leads back to {real}, which contains it; take the link out")
                enter(path, real)
                kept.append(name)
        folders[:] = kept
        for name in sorted(files):
            path = os.path.join(parent, name)
            real = os.path.join(real_parent, name)
            if os.path.islink(path):
                real = os.path.realpath(path)
                if not os.path.exists(path) and not name.startswith("."):
                    gone.append(path)
                    continue
            if not name.startswith("."):
                enter(path, real)
            yield Path(path)
    if gone:
        raise InputError(
            f"{min(gone)} is a link to {os.readlink(min(gone))}, which is not there ({len(gone)} of this "
            "kind in all); correct the link or take it out"
        )

"""Make a dataset's folder, whole or not at all, with a note of its source.

Work is done in a hidden folder next to the target, by one process at a time, and renamed at the end; its
`prepared.json` records the source and the settings. Derived in notebooks/01_datasets.
"""

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from alignedreid_lib.datasets.pickles import save_pickle
from alignedreid_lib.errors import InputError
from alignedreid_lib.runs import lock

log = logging.getLogger(__name__)

MANIFEST = "prepared.json"
VERSION = 2  # of a prepared folder's content: 2 has original_to_new
_CONTENTS = {  # a fingerprint's key -> what differs if it differs; None where the content is not known
    "archive_content": "from a different archive than is there now",
    "split_file_content": "with a different split file than is there now",
    "pictures": "of other images than are there now",
}


def as_path(value: object, what: str) -> Path:
    """A path from a setting; `~` is the home folder.

    Raises:
        InputError: not text, or text that no file can be named.
    """
    try:
        path = Path(value).expanduser()  # type: ignore[arg-type]
        if b"\0" not in os.fsencode(path):
            return path
    except (TypeError, ValueError, RuntimeError):
        pass
    raise InputError(f"{what}={value!r} is not a path; give the path of a file or folder")


def prepare_again(folder: Path) -> str:
    """What to do about a damaged dataset; `prepare` alone would find it there and do nothing."""
    if not (folder / MANIFEST).is_file() and (folder.parent / MANIFEST).is_file():
        folder = folder.parent  # CUHK03's kinds are made together
    return f"restore it, or delete {folder} and prepare it again"


@contextmanager
def disk_errors(remedy: str) -> Iterator[None]:
    """Turn disk errors into one line that names the file; a `with` block or a decorator.

    Raises:
        InputError: instead of OSError; its message ends in `remedy`.
    """
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        raise InputError(f"{where}{error.strerror or error}; {remedy}") from error


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The note of a dataset's folder, `None` if there is none. CUHK03's kinds have it one folder up.

    Raises:
        InputError: its note cannot be read.
    """
    for place in (folder, folder.parent):
        try:
            manifest = json.loads((place / MANIFEST).read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, RecursionError) as error:
            if place != folder:  # it belongs to a different dataset
                continue
            raise InputError(f"{place / MANIFEST} cannot be read; {prepare_again(folder)}") from error
        if place == folder and not isinstance(manifest, dict):
            raise InputError(f"{place / MANIFEST} cannot be read; {prepare_again(folder)}")
        if isinstance(manifest, dict) and (place == folder or manifest.get("name") == "cuhk03"):
            return manifest
    return None


def write_manifest(folder: Path, settings: dict[str, Any]) -> None:
    """Write the note of `folder`."""
    text = json.dumps(settings | {"version": VERSION}, indent=1, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, "utf-8")


def write_map(folder: Path, original_to_new: dict[str, str]) -> None:
    """original_to_new.json, and the same as a pickle of the original reproduction's form."""
    text = json.dumps(original_to_new, indent=0, ensure_ascii=False) + "\n"
    (folder / "original_to_new.json").write_text(text, "utf-8")
    save_pickle(original_to_new, folder / "original_to_new.pkl")


def is_done(target: Path, settings: dict[str, Any]) -> bool:
    """True if `target` was made with these settings.

    A file is identified by its content (`archive_content` for `archive`), whatever its path. If the content is not
    known (None: the file is gone; absent: an older folder), the name has to be the same.

    Raises:
        InputError: it exists, but was made with different settings or not by `prepare`.
    """
    if not target.exists():
        return False
    try:
        made = json.loads((target / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{target} exists and was not made by prepare; open it with open_dataset, or move it away"
        ) from error
    if not isinstance(made, dict) or made.get("version") != VERSION:
        raise InputError(f"{target} was made by a different version of this library; delete it to make it again")
    for key, value in settings.items():
        was = made.get(key)
        if was == value or (key in _CONTENTS and None in (was, value)):
            continue
        if key in _CONTENTS:
            raise InputError(f"{target} was made {_CONTENTS[key]}; delete it to make it again, or give a new root")
        same = settings.get(f"{key}_content")
        if same is None or same != made.get(f"{key}_content"):
            raise InputError(f"{target} was made with {key}={was!r}, not {value!r}; delete it, or give a new root")
    return True


@contextmanager
def _alone(partial: Path, target: Path, made: Callable[[], bool]) -> Iterator[bool]:
    """Inside, no other process works in `partial`, which is an empty folder and is deleted at the end.

    False if a different process, which this one waited for, has made the target.
    """
    waiting = f"{target}: a different process prepares it; waiting until it is done"
    while not made():
        partial.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                same = stack.enter_context(lock.in_turn(partial, waiting))
            except FileNotFoundError:  # renamed or deleted since
                continue
            if not same:
                continue
            try:
                if made():
                    break
                for path in partial.iterdir():  # of a call that was killed
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
                yield True
                return
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    yield False


@contextmanager
def all_or_nothing(target: Path, source: Path, settings: dict[str, Any]) -> Iterator[Path | None]:
    """A new, empty folder, renamed to `target` if all goes well, deleted if not.

    While a different process makes the target, this one waits; None if it has been made with these settings.
    """
    partial = target.with_name(f".{target.name}.partial")
    new_parents = [parent for parent in target.parents if not parent.exists()]
    try:
        try:
            with _alone(partial, target, lambda: is_done(target, settings)) as to_be_made:
                if to_be_made:
                    log.info("preparing %s from %s", target.name, source.name)
                    yield partial
                    partial.rename(target)
                else:
                    yield None
        except BaseException:
            with suppress(OSError):
                for parent in new_parents:
                    parent.rmdir()
            raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            size = source.stat().st_size if source.is_file() else 0
            room = next(parent for parent in target.parents if parent.exists())
            free = shutil.disk_usage(room).free
            raise InputError(
                f"no space left for {target} ({free / 1e9:.1f} GB free, {source} has {size / 1e9:.1f} GB); "
                "free space or give a new root"
            ) from error
        raise InputError(
            f"{target} cannot be made ({error.filename or target}: {error.strerror or error}); "
            "give a root you may write to and an archive you may read"
        ) from error

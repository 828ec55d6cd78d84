"""Paths of settings, and files that are either whole or absent."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from alignedreid_lib.errors import InputError


def project_root() -> Path:
    """The nearest folder upward that contains pyproject.toml and alignedreid_lib/; else the current folder."""
    here = Path.cwd()
    above = (here, *here.parents)
    return next((f for f in above if (f / "pyproject.toml").is_file() and (f / "alignedreid_lib").is_dir()), here)


def resolve(path: str | Path, root: Path | None = None) -> Path:
    """A setting's path: a relative one starts at `root` (None: the project's), a leading `~` is the home folder.

    Raises:
        InputError: not text (a date or a number of a YAML file, say), or a user without a home folder.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"{path} is of type {type(path).__name__}, and a path is needed; write it in quotes: '{path}'")
    if "\0" in os.fspath(path):
        raise InputError(f"{os.fspath(path)!r} cannot be a path: it has a zero byte; choose a different name")
    found = os.path.expanduser(path)
    if str(found).startswith("~"):  # unchanged, so there is no such user
        raise InputError(f"{path}: nobody of that name has a home folder here; give the path of a file or folder")
    return (root or project_root()) / found


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, unless they exist.

    Raises:
        InputError: it cannot be made, or a file has its name.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "a file has this name" if isinstance(error, FileExistsError) else error.strerror
        raise InputError(f"{folder}: cannot be made ({reason}); choose a different folder") from None


@contextmanager
def replacing(path: Path, suffix: str = "partial") -> Iterator[Path]:
    """A file with a suffix to write, renamed to `path` at the end, so that no reader sees half of it."""
    new = path.with_name(f".{path.name}.{suffix}")
    try:
        yield new
        with open(new, "rb+") as file:
            os.fsync(file.fileno())  # else a power cut may leave the new name and no content
        os.replace(new, path)
    finally:
        with suppress(OSError):
            new.unlink()


def write_atomic(path: Path, write: Callable[[Path], Any]) -> None:
    """`write` a new file, then rename it to `path`, see `replacing`.

    Raises:
        InputError: no space or no permission; the old file is still there.
    """
    try:
        with replacing(path) as beside:
            write(beside)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: cannot be written ({reason}); free space or choose a different folder") from error


def write_text(path: Path, text: str) -> None:
    """A text file in UTF-8, atomically."""
    write_atomic(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """A JSON file, indented, ending in a newline, atomically."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: it is absent, cannot be read, or is not JSON.
    """
    text = read_text(path)
    if text is None:
        raise InputError(f"{path}: no such file")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); restore it or remove it") from None


def read_text(path: Path) -> str | None:
    """A text file in UTF-8, with or without a byte order mark; None if it is absent.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions and its disk") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not text in UTF-8; restore it or remove it") from None

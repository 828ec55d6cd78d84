"""Paths of settings, and files that are whole or not there."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignedreid_lib.errors import InputError


def project_root() -> Path:
    """The folder that holds pyproject.toml and alignedreid_lib/, upward from here; else the current folder."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "alignedreid_lib").is_dir():
            return folder
    return here


def resolve(path: str | Path) -> Path:
    """A path of a setting: absolute as it is, relative from the project's root; a leading `~` is the home folder.

    Raises:
        InputError: not text, as a date or a number of a YAML file is not; or the home folder of nobody.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"{path} is of type {type(path).__name__}, and a path is needed; write it in quotes: '{path}'")
    if "\0" in os.fspath(path):
        raise InputError(f"{os.fspath(path)!r} cannot be a path: it has a zero byte; choose another name")
    found = os.path.expanduser(path)
    if str(found).startswith("~"):  # as it was: a folder of that name is not meant
        raise InputError(f"{path}: nobody of that name has a home folder here; give the path of a file or folder")
    return project_root() / found


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are not there yet.

    Raises:
        InputError: it cannot be made, or a file has its name.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "a file has this name" if isinstance(error, FileExistsError) else error.strerror
        raise InputError(f"{folder}: cannot be made ({reason}); choose another folder") from None


def write_atomic(path: Path, write: Callable[[Path], Any]) -> None:
    """`write` a file beside `path`, then rename it to `path`; readers see the old one or the new one, whole.

    Raises:
        InputError: no space or no permission; the old file is still there.
    """
    beside = path.with_name(f".{path.name}.partial")
    try:
        write(beside)
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())  # else a power cut may leave the new name and no content
        os.replace(beside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        if not isinstance(error, OSError | RuntimeError):  # torch.save reports a full disk as RuntimeError
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: cannot be written ({reason}); free space or choose another folder") from error


def write_json(path: Path, content: Any) -> None:
    """A JSON file, indented, ending in a newline, atomically."""
    text = json.dumps(content, indent=1) + "\n"
    write_atomic(path, lambda beside: beside.write_text(text, encoding="utf-8"))


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
    """A text file in UTF-8, with or without the mark that Windows programs put before it; None where it is absent.

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

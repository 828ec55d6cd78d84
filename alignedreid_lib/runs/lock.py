"""One process at a time in a folder: a run's, or that of a dataset in preparation. See notebooks/06_training."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignedreid_lib.errors import InputError

log = logging.getLogger(__name__)

NAME = ".lock"  # the file inside the folder; it stays, and the lock ends with its process


@contextmanager
def locked(folder: Path, shown: str = "") -> Iterator[None]:
    """Inside, no other process gets the lock of this folder, which has to exist.

    On a disk without locks, as some of clusters, a warning is logged and nothing is locked.

    Args:
        shown: what messages call the folder; "" for its path.

    Raises:
        InputError: a different process has the lock.
    """
    shown = shown or str(folder)
    with open(folder / NAME, "w") as file:
        if not _lock(file.fileno(), shown, "make train"):
            raise InputError(f"{shown}: a make train or torchrun is already at work in it; wait for it")
        yield


@contextmanager
def in_turn(folder: Path, waiting: str) -> Iterator[bool]:
    """Inside, no other process is in turn in this folder; False if it was renamed or deleted while this one waited.

    The folder itself is locked, so that no file has to stay in it. On a disk without such locks a warning is logged and
    nothing is locked.

    Args:
        waiting: the warning to log while a different process is in turn.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not _lock(handle, folder, "process"):
            log.warning("%s", waiting)
            fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            same = os.path.samestat(os.fstat(handle), os.stat(folder))
        except FileNotFoundError:
            same = False
        yield same
    finally:
        os.close(handle)


def _lock(handle: int, shown: object, what: str) -> bool:
    """Lock an open file or folder; False if a different process has the lock. A disk without locks is a warning."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        log.warning("%s: no lock on this disk (%s); start one %s at a time in it", shown, error.strerror, what)
    return True

"""One process at a time in a folder: a run's, or that of a dataset in preparation. See notebooks/06_training."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from alignedreid_lib.errors import InputError

log = logging.getLogger(__name__)

NAME = ".lock"  # the file inside the folder; it stays, and the lock ends with its process


@contextmanager
def locked(folder: Path, shown: str = "", wait: str = "") -> Iterator[IO[str]]:
    """Inside, no other process gets the lock of this folder, which has to exist; gives the lock's open file.

    On a disk without locks, as some of clusters, a warning is logged and nothing is locked.

    Args:
        shown: what messages call the folder; "" for its path.
        wait: the warning to log while a different process has the lock, which is waited for; "" for an error.

    Raises:
        InputError: a different process has the lock, and `wait` is "".
    """
    shown = shown or str(folder)
    with open(folder / NAME, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise InputError(f"{shown}: a make train or torchrun is already at work in it; wait for it") from None
            log.warning("%s", wait)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            log.warning("%s: no lock on this disk (%s); start one process at a time in it", shown, error.strerror)
        yield file


def is_of(file: IO[str], folder: Path) -> bool:
    """True if a lock's file is still the one in this folder: a waiting process may find the folder renamed or gone."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(folder / NAME))
    except FileNotFoundError:
        return False

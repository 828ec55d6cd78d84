"""One process at a time in a run's folder. Used by `make train` and torchrun, see notebooks/06_training."""

import fcntl
import logging
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
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{shown}: a make train or torchrun is already at work in it; wait for it") from None
        except OSError as error:
            log.warning("%s: no lock on this disk (%s); start one make train at a time in it", shown, error.strerror)
        yield

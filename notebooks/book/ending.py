"""How a command ends early: its trainings save their last epoch, and nothing outlives the make that started it."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import executor

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MAKE = "STARTED_BY_MAKE"  # the number of the make's process, from the Makefile
EVERY = 0.5  # seconds between two looks at the parent


def starter() -> int | None:
    """The process without which this one ends: make, or torchrun; None if a user's shell started it.

    The number of the make is taken out of the environment, since it is not the parent of what this process starts. It
    is needed since make may have ended before this process looks at its parent.
    """
    given = os.environ.pop(MAKE, "")
    if given.isdigit():
        return int(given)
    return os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None


@contextmanager
def stopped_softly() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP stop this process as Ctrl-C does: the kernel ends, a training saves its last epoch.

    So does the end of the process that started it, even by SIGKILL: a `make train` or `torchrun` that is gone leaves
    no training behind.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def stop(number: int, frame: object) -> None:
        for other in SIGNALS:  # a second one while the kernel saves changes nothing
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in SIGNALS:
        if before[number] is not signal.SIG_IGN:  # as `nohup` starts it
            signal.signal(number, stop)
    over = threading.Event()

    def watch(parent: int) -> None:
        while os.getppid() == parent:
            if over.wait(EVERY):
                return
        os.kill(os.getpid(), signal.SIGTERM)
        if not over.wait(2 * executor.SAVE_SECONDS):
            os._exit(1)

    parent = starter()
    if parent is not None:
        threading.Thread(target=watch, args=(parent,), daemon=True).start()
    try:
        yield
    finally:
        over.set()
        for number, handler in before.items():
            signal.signal(number, handler)

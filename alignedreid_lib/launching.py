"""Starting several processes that belong together: from a notebook by `launch`, or by `torchrun` with `joined`."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, record
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from alignedreid_lib.errors import InputError

PATIENCE = timedelta(hours=2)  # how long the others wait for one, which may be validating or writing

# What torch's launcher catches.
HANDLED = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]

Result = TypeVar("Result")


@contextmanager
def joined(device: str = "auto") -> Iterator[None]:
    """Inside, this process belongs to the group that `torchrun` or `launch` started it in.

    Takes the GPU of its number on this machine, and its part of the processor's cores.

    Args:
        device: as in TrainConfig; "cpu" leaves the GPUs alone.

    Raises:
        InputError: started by neither of the two, or more processes on this machine than it has GPUs.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        raise InputError("this process was not started by torchrun; start several by `processes`, or use torchrun")
    own, here = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, cores // here))
    torch.set_flush_denormal(True)  # numbers near 0 that a processor computes with a hundred times more slowly
    backend = "gloo"
    if torch.cuda.is_available() and device != "cpu":
        if here > torch.cuda.device_count():
            raise InputError(
                f"{here} processes on a machine of {torch.cuda.device_count()} GPUs; lower processes, or device 'cpu'"
            )
        torch.cuda.set_device(own)  # the plain name "cuda" means this one from now on
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def launch(
    processes: int,
    device: str,
    function: Callable[..., Result],
    *args: Any,
    meanwhile: Callable[[], None] | None = None,
) -> Result:
    """Call a function in several processes of this machine that belong together; works in a notebook, too.

    Args:
        processes: how many.
        device: see `joined`.
        function, args: of a module, for the processes are fresh and find it by its name.
        meanwhile: called here, every second and once at the end.

    Returns:
        what the first process returned.

    Raises:
        InputError: as one of the processes did.
        RuntimeError: a process failed otherwise; the others were ended, and the message is its traceback.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1.0) and meanwhile is not None:
            meanwhile()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    handlers = {number: signal.getsignal(number) for number in HANDLED}
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",  # a machine's own name may lead nowhere
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(folder, redirects=Std.ERR),
        )
        try:
            return elastic_launch(config, _member)(device, function, *args)[0]
        except ChildFailedError as error:
            raise _reason(error, Path(folder)) from None
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise
        finally:
            for number, handler in handlers.items():  # torch leaves its own, and a notebook could not be interrupted
                signal.signal(number, handler)
            done.set()
            watcher.join()
            if meanwhile is not None:
                meanwhile()


@record
def _member(device: str, function: Callable[..., Result], *args: Any) -> Result:
    """What each launched process does."""
    # Sent when the starter dies. Python's handler would wait for a collective to return, whose partner may be dead.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with joined(device):
        return function(*args)


def _reason(error: ChildFailedError, folder: Path) -> Exception:
    """The InputError of a failed group, whichever process had it; else the traceback of the first that failed."""
    for path in sorted(folder.rglob("error.json")):  # of all; `error` knows those that ended before the rest was ended
        text = str(json.loads(path.read_text())["message"]["message"])
        if text.startswith("InputError: "):
            return InputError(text.removeprefix("InputError: "))
    first, failure = error.get_first_failure()
    detail = failure.message["extraInfo"]["py_callstack"] if isinstance(failure.message, dict) else failure.message
    said = [path.read_text(errors="replace")[-2000:] for path in sorted(folder.rglob(f"{first}/stderr.log"))]
    return RuntimeError("\n".join([f"process {first} failed: {detail}", *said]))

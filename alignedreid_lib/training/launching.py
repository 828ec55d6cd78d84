"""Starting several processes that belong together: from a notebook by `launch`, or by `torchrun` with `joined`."""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from alignedreid_lib.errors import InputError

PATIENCE = timedelta(hours=2)  # how long the others wait for one, which may be validating or writing

# What torch's launcher catches.
HANDLED = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]

# What these log of a failure, with the launcher's own tracebacks, is in the reason that `launch` raises.
LOGGERS = [
    "torch.distributed.elastic.multiprocessing.api",
    "torch.distributed.elastic.multiprocessing.errors",
    "torch.multiprocessing.spawn",
]

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
        RuntimeError: a process failed otherwise, and the others were ended. The message is the best reason there is:
            the first traceback, or the signal or exit code that a process ended with, and what it wrote to stderr.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1.0) and meanwhile is not None:
            meanwhile()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    # Only the main thread may set handlers, and torch sets its own there.
    main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in HANDLED if main}
    with tempfile.TemporaryDirectory() as folder, _silenced():
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
        except (ValueError, EOFError, pickle.UnpicklingError) as error:
            # torch reads a failed process's report without care: it is damaged where its writer was ended, or the disk
            # was full.
            if not any(Path(folder).rglob("error.json")):
                raise
            raise _reason(None, Path(folder)) from error
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


@contextmanager
def _silenced() -> Iterator[None]:
    """Inside, `LOGGERS` are silent."""
    levels = {logger: logger.level for logger in map(logging.getLogger, LOGGERS)}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _member(device: str, function: Callable[..., Result], *args: Any) -> Result:
    """What each launched process does."""
    # Sent when the starter dies. Python's handler would wait for a collective to return, whose partner may be dead.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # The inner one reports before the group is left: the others fail as soon as they notice, and then torch's launcher
    # ends this process.
    with _reported(), joined(device), _reported():
        return function(*args)


@contextmanager
def _reported() -> Iterator[None]:
    """An error inside is reported and ends the process."""
    try:
        yield
    except Exception as error:
        _write_report(error)
        sys.exit(1)


def _write_report(error: Exception) -> None:
    """Write what torch's own `record` would write, but whole or not at all: this process may be ended meanwhile."""
    path = Path(os.environ["TORCHELASTIC_ERROR_FILE"])
    now = time.time()
    extra = {"py_callstack": traceback.format_exc(), "timestamp": str(int(now)), "time": now}
    content = {"message": {"message": f"{type(error).__name__}: {error}", "extraInfo": extra}}
    with suppress(OSError):  # a full disk; the exit code still tells that this process failed
        path.with_suffix(".partial").write_text(json.dumps(content))
        path.with_suffix(".partial").replace(path)


class Report(NamedTuple):
    """What a failed process said."""

    time: float
    process: str  # its number
    raised: str  # "InputError: ..."
    traceback: str


def _read_reports(folder: Path) -> list[Report]:
    """The reports of all processes, the oldest first; those that are empty, damaged or gone are passed over."""
    reports = []
    for path in folder.rglob("error.json"):
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            content = json.loads(path.read_text())
            message = content["message"]
            if isinstance(message, str):  # torch's short form
                message = {"message": message, "extraInfo": {"py_callstack": message, **content}}
            extra = message["extraInfo"]
            written = float(extra.get("time") or extra.get("timestamp", 0))
            reports.append(Report(written, path.parent.name, str(message["message"]), str(extra["py_callstack"])))
    return sorted(reports)


def _last_words(folder: Path, process: str) -> str:
    """The end of what a process wrote to stderr; "" where there is nothing."""
    for path in folder.rglob(f"{process}/stderr.log"):
        with suppress(OSError), open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 2000))
            return file.read().decode(errors="replace").strip()
    return ""


def _reason(error: ChildFailedError | None, folder: Path) -> Exception:
    """Why a group failed, see `launch`. torch knows only of the process that it saw end first; None: of no process."""
    reports = _read_reports(folder)
    for report in reports:
        if report.raised.startswith("InputError: "):
            return InputError(report.raised.removeprefix("InputError: "))
    failures: dict[int, ProcessFailure] = error.failures if error else {}
    silent = {path.parent.name for path in folder.rglob("stderr.log")} - {report.process for report in reports}
    lines = []
    for process, failure in failures.items():
        silent.discard(str(process))
        if failure.exitcode < 0:
            memory = "; the system does this when memory runs out" if failure.signal_name() == "SIGKILL" else ""
            lines.append(f"process {process} was ended by {failure.signal_name()}{memory}")
        elif str(process) not in {report.process for report in reports}:
            lines.append(f"process {process} ended with exit code {failure.exitcode} and left no report")
    lines += [f"process {report.process} failed: {report.traceback}" for report in reports[:1]]
    lines += [f"process {name} was ended and left no report" for name in sorted(silent)]
    concerned = {str(process) for process in failures} | {report.process for report in reports[:1]}
    for name in sorted(concerned or silent):
        lines += filter(None, [_last_words(folder, name)])
    return RuntimeError("\n".join(lines))

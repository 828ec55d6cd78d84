"""Starting several processes that belong together: from a notebook by `launch`, or by `torchrun` with `joined`."""

from __future__ import annotations

import multiprocessing.connection
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import torch.distributed as dist
from pydantic import Field

from alignedreid_lib import runs
from alignedreid_lib.errors import InputError
from alignedreid_lib.runs import typed

LIMIT = timedelta(minutes=10)  # of joining, and of each collective; `distributed.patient_group` has a longer one
GRACE = 60.0  # seconds in which the others may end by themselves and report, once one has failed without a reason
SAVING = 60.0  # seconds in which a process that is ended may save its last finished epoch
START_METHOD = "spawn"  # CUDA does not work in a forked process

Result = TypeVar("Result")


@contextmanager
def joined(device: str = "auto", store: dist.Store | None = None) -> Iterator[None]:
    """Inside, this process belongs to the group that `torchrun` or `launch` started it in.

    It takes the GPU of its number on this machine, and its part of the processor's cores. A process that fails inside
    stays in the group until it ends, so that the others do not fail before its error is written.

    Args:
        device: as in TrainConfig; "cpu" leaves the GPUs alone.
        store: where the processes find each other; None for torchrun's own.

    Raises:
        InputError: started by neither of the two, or more processes on this machine than it has GPUs.
    """
    if store is None and "TORCHELASTIC_RUN_ID" not in os.environ:
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
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group(backend, timeout=LIMIT, store=store, rank=rank, world_size=count)
    yield
    dist.destroy_process_group()


def launch(
    processes: int,
    device: str,
    function: Callable[..., Result],
    *args: Any,
    meanwhile: Callable[[], None] = lambda: None,
) -> Result:
    """Call a function in several processes of this machine that belong together; works in a notebook, too.

    Args:
        processes: how many.
        device: see `joined`.
        function, args: the function belongs to a module, because new processes import it by name.
        meanwhile: called here, every second and once at the end.

    Returns:
        what the first process returned.

    Raises:
        InputError: one of the processes raised it, `processes` is below 1, or the function or an argument cannot be
            sent to a new process, as a lambda cannot.
        RuntimeError: a process failed otherwise, and the others were ended; or the first one exited before the function
            returned. The message is the best reason there is:
            the first traceback, or the signal or exit code that a process ended with, and what it wrote to stderr.
    """
    typed("processes", processes, Annotated[int, Field(ge=1)])
    called = getattr(function, "__name__", repr(function))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = (processes, folder, device, function, args)
        try:  # torch's own start, unlike Python's, ends the processes when this one dies
            members = torch.multiprocessing.start_processes(
                _member, work, processes, join=False, start_method=START_METHOD
            ).processes
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise InputError(
                f"{called} cannot be sent to a new process ({error}): give a function of a module, and arguments that "
                "can be pickled"
            ) from None
        try:
            while (left := [m.sentinel for m in members if m.exitcode is None]) and not _failed(members):
                multiprocessing.connection.wait(left, timeout=1.0)
                meanwhile()
            deadline = time.monotonic() + GRACE
            # The first to end is not always the first that failed: a process may take long to end on a busy machine.
            # An InputError is the reason, whatever the others still have to tell.
            while (left := [m.sentinel for m in members if m.exitcode is None]) and time.monotonic() < deadline:
                if any(report["refusal"] is not None for report in _reports(folder)):
                    break
                multiprocessing.connection.wait(left, timeout=1.0)
            failed = _failed(members)
        finally:
            _end(members)
            meanwhile()
        if failed:
            raise _reason(failed, folder)
        if not (folder / "result").exists():
            raise RuntimeError(f"process 0 ended before {called} returned: it called sys.exit; return a value instead")
        return pickle.loads((folder / "result").read_bytes())


def _end(members: list[Any]) -> None:
    """End processes; one that trains saves its last finished epoch first, see `saving.before_the_end`."""
    for member in members:
        member.terminate()
    deadline = time.monotonic() + SAVING
    for member in members:
        member.join(max(0.0, deadline - time.monotonic()))
        member.kill()
        member.join()


def _failed(members: list[Any]) -> dict[int, int]:
    """The exit codes of the processes that have failed so far, by number; a signal is a negative code."""
    return {number: member.exitcode for number, member in enumerate(members) if member.exitcode}


def _member(
    number: int, processes: int, folder: Path, device: str, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    """The work of a launched process; its stderr, its error and the first one's result go into the folder."""
    # Sent when the starter dies. Python's handler would wait for a collective to return, whose partner may be dead.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with open(folder / f"stderr_{number}", "wb") as file:
        os.dup2(file.fileno(), 2)
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number)}
    os.environ |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    try:
        with joined(device, dist.FileStore(str(folder / "store"), processes)):
            result = function(*args)
            if number == 0:
                (folder / "result").write_bytes(pickle.dumps(result))
    except Exception as error:
        _report(error, number, folder)
        sys.exit(1)


def _report(error: Exception, number: int, folder: Path) -> None:
    """Write a process's error for `launch`, whole or not at all: this process may be ended meanwhile."""
    refusal = str(error) if isinstance(error, InputError) else None
    content = {"time": time.time(), "process": number, "refusal": refusal, "traceback": traceback.format_exc()}
    with suppress(InputError):  # a full disk; the exit code still tells that this process failed
        runs.write_json(folder / f"report_{number}.json", content)


def _reports(folder: Path) -> list[dict[str, Any]]:
    """What processes have told so far, see `_report`; the earliest first."""
    return sorted(map(runs.read_json, folder.glob("report_*.json")), key=lambda report: report["time"])


def _reason(failed: Mapping[int, int], folder: Path) -> Exception:
    """Why a group failed, see `launch`.

    Args:
        failed: the exit codes of the processes that failed by themselves.
        folder: what the processes left.
    """
    reports = _reports(folder)
    for report in reports:
        if report["refusal"] is not None:
            return InputError(report["refusal"])
    first = {report["process"] for report in reports[:1]}
    silent = failed.keys() - {report["process"] for report in reports}
    lines = []
    for process, code in failed.items():
        if code < 0:
            name = next((known.name for known in signal.Signals if known == -code), f"signal {-code}")
            memory = "; the system does this when memory runs out" if name == "SIGKILL" else ""
            lines.append(f"process {process} was ended by {name}{memory}")
        elif process in silent:
            lines.append(f"process {process} ended with exit code {code} and left no report")
    lines += [f"process {report['process']} failed: {report['traceback']}" for report in reports[:1]]
    for process in sorted(first | silent):
        with suppress(FileNotFoundError):
            words = (folder / f"stderr_{process}").read_text(encoding="utf-8", errors="replace")
            lines += filter(None, [words[-2000:].strip()])
    return RuntimeError("\n".join(lines))

"""Checkpoints are written by a thread, from a copy of the training's state, while the training goes on.

The copy is made at the end of every epoch, so that whatever ends the training (an error, Ctrl-C, SIGTERM) the last
finished epoch can be saved. Explained in notebooks/06_training.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # they end a process that has no handler for them


class Copy(NamedTuple):
    """A state whose tensors are on the CPU, complete once the GPUs have reached the events."""

    state: Any
    events: list[torch.cuda.Event]


def copy(state: Any) -> Copy:
    """Copy every tensor of dicts and lists to the CPU; the host does not wait for a GPU.

    A GPU copies into pinned memory, in the order of its stream: after the steps before, before those that follow.
    """
    devices: set[torch.device] = set()

    def copied(value: Any) -> Any:
        if isinstance(value, Tensor):
            value = value.detach()
            if value.device.type != "cuda":
                return value.cpu() if value.device.type != "cpu" else value.clone()
            devices.add(value.device)
            return torch.empty_like(value, device="cpu", pin_memory=True).copy_(value, non_blocking=True)
        if isinstance(value, dict):
            return {name: copied(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(copied, value))
        return value

    own, events = copied(state), []
    for device in devices:
        events.append(torch.cuda.Event())
        events[-1].record(torch.cuda.current_stream(device))
    return Copy(own, events)


class Saver:
    """Writes states in one thread, one after the other; `saver` makes one.

    An error of the thread is raised by the next call, and by every later one: nothing is written after it.
    """

    def __init__(self, thread: ThreadPoolExecutor, write: Callable[[Any], None], every: float):
        self._thread, self._write, self._every = thread, write, every
        self._newest: Copy | None = None  # if the thread does not have it yet
        self._jobs: list[Future[None]] = []
        self._lock = threading.Lock()  # a signal may come while a state is handed over
        self._began = time.monotonic()

    def keep(self, state: Any, now: bool = False) -> None:
        """Copy a state; it is written now, or if the last write began `every` seconds ago, or at the end."""
        self._newest = copy(state)
        if now or time.monotonic() - self._began >= self._every:
            with self._lock:
                self._hand_over()

    def run(self, function: Callable[..., None], *args: Any) -> None:
        """Call a function in the thread, after all that it has been given before."""
        with self._lock:
            for job in self._jobs:
                if job.done():
                    job.result()
            self._jobs.append(self._thread.submit(function, *args))

    def flush(self) -> None:
        """Write the newest state, unless it is written, and wait for it."""
        with self._lock:
            self._hand_over()
            self._wait()

    def _hand_over(self) -> None:
        self._wait()  # at most one copy is being written while the next one is made
        if self._newest is not None:
            self._began = time.monotonic()
            self._jobs.append(self._thread.submit(self._write_copy, self._newest))
            self._newest = None

    def _wait(self) -> None:
        for job in self._jobs:
            job.result()
        self._jobs = []

    def _write_copy(self, newest: Copy) -> None:
        for event in newest.events:
            event.synchronize()
        self._write(newest.state)


@contextmanager
def saver(write: Callable[[Any], None], every: float) -> Iterator[Saver]:
    """Inside, a training hands its states to a Saver; whatever ends it, the newest one is written.

    Args:
        write: writes a state; called in a thread.
        every: seconds from one write to the next.
    """
    with ThreadPoolExecutor(1, "checkpoint") as thread:
        own = Saver(thread, write, every)
        with before_the_end(own.flush):
            try:
                yield own
            finally:
                own.flush()


@contextmanager
def before_the_end(save: Callable[[], None]) -> Iterator[None]:
    """Inside, a signal that would end this process (one of `ENDING` without a handler) does so after `save`.

    A thread waits for the signal: the main thread may be inside an operation that never returns, such as a message to
    a process that has ended. The exit code is 128 + the signal's number. In other threads than the main one, signals
    cannot be handled, and nothing is changed.
    """
    taken = [number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread() or not taken:
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)  # `set_wakeup_fd` needs it

    def watch() -> None:
        while number := os.read(reading, 1):  # of a signal; nothing once the other end is closed
            if number[0] in taken:
                try:
                    save()
                finally:
                    os._exit(128 + number[0])

    thread = threading.Thread(target=watch, name="signals", daemon=True)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in taken:
        signal.signal(number, lambda *_: None)
    thread.start()
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(before)
        os.close(writing)
        thread.join()
        os.close(reading)

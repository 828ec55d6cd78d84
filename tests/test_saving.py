"""Checkpoints from a copy, by a thread: by time, at the end, and before a signal ends the process."""

import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from alignedreid_lib.errors import InputError
from alignedreid_lib.training import saving


def test_a_copy_has_the_values_of_its_moment_and_the_form_of_its_state():
    weight = torch.arange(24.0).reshape(2, 3, 2, 2).to(memory_format=torch.channels_last)
    state = {"models": [{"w": weight}], "groups": [{"betas": (0.9, 0.999), "lr": 0.1}], "best": {}}
    copied, events = saving.copy(state)
    weight.zero_()
    state["groups"][0]["lr"] = 0.2
    assert copied["models"][0]["w"].flatten().sum() == sum(range(24)) and events == []
    assert copied["models"][0]["w"].stride() == weight.stride()
    assert copied["groups"] == [{"betas": (0.9, 0.999), "lr": 0.1}] and copied["best"] == {}


class Calls(TorchDispatchMode):
    """Notes the copies between devices."""

    def __init__(self):
        super().__init__()
        self.copies = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "copy" in str(function) or "scalar" in str(function):
            self.copies.append((str(function), args[2] if len(args) > 2 else (kwargs or {}).get("non_blocking")))
        return function(*args, **(kwargs or {}))


def test_the_copy_of_a_gpu_is_pinned_and_the_host_does_not_wait(monkeypatch):
    """Fake tensors stand in for a GPU's; only the thread waits, for the event after the copies."""
    marks, pinned, empty_like = [], [], torch.empty_like

    class Event:
        def record(self, stream):
            marks.append(f"recorded on {stream}")

        def synchronize(self):
            marks.append("waited")

    def pinning(tensor, pin_memory=False, **how):  # fake tensors cannot be pinned without a GPU
        pinned.append(pin_memory)
        return empty_like(tensor, **how)

    monkeypatch.setattr(torch, "empty_like", pinning)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    with FakeTensorMode(), Calls() as calls:
        state = {"models": [{"w": torch.empty(3, device="cuda:0")}, {"w": torch.empty(2, device="cuda:0")}]}
        copied = saving.copy(state)
        assert [model["w"].device.type for model in copied.state["models"]] == ["cpu", "cpu"]
    assert calls.copies == [("aten.copy_.default", True)] * 2 and pinned == [True, True]
    assert marks == ["recorded on the stream of cuda:0"]
    with saving.saver(lambda state: marks.append("written"), 60.0) as keeper:
        keeper._newest = copied
    assert marks[1:] == ["waited", "written"]


def test_the_training_goes_on_while_a_thread_writes():
    written, may_write, weight = [], threading.Event(), torch.ones(2)

    def write(state):
        may_write.wait()
        written.append(state["w"].tolist())

    with saving.saver(write, 60.0) as keeper:
        keeper.keep({"w": weight}, now=True)
        weight.mul_(2)  # the next step
        assert written == []
        may_write.set()
    assert written == [[1.0, 1.0]], "the state of the epoch's end, once"


def test_states_are_written_by_time_now_and_at_the_end(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(saving, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    written = []
    with saving.saver(written.append, 60.0) as keeper:
        for epoch in range(1, 10):
            clock[0] += 25.0
            keeper.keep(epoch, now=epoch == 4)
    assert written == [3, 4, 7, 9]


def test_what_the_thread_is_given_runs_in_order():
    written = []
    with saving.saver(written.append, 0.0) as keeper:
        for epoch in (1, 2):
            keeper.keep(epoch)
            keeper.run(written.append, f"rows of {epoch}")
    assert written == [1, "rows of 1", 2, "rows of 2"]


def test_a_failed_write_ends_the_training_and_nothing_is_written_after_it():
    written = []

    def write(state):
        if state == 2:
            raise InputError("no space")
        written.append(state)

    with pytest.raises(InputError, match="no space"), saving.saver(write, 0.0) as keeper:
        for epoch in (1, 2, 3, 4):
            keeper.keep(epoch)
    assert written == [1]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_whatever_ends_the_training_its_last_state_is_written(kind):
    written = []
    with pytest.raises(kind), saving.saver(written.append, 60.0) as keeper:
        keeper.keep(1)
        raise kind
    assert written == [1]


def wait_with_a_state(path):
    """Keep a state and wait for a signal in the main thread, which goes on waiting after it."""

    def write(state):
        time.sleep(0.1)
        path.write_text(state)

    for number in saving.ENDING:
        signal.signal(number, signal.SIG_DFL)
    with saving.saver(write, 60.0) as keeper:
        keeper.keep("the last finished epoch")
        path.with_suffix(".ready").touch()
        while True:
            time.sleep(60)


@pytest.mark.parametrize("number", saving.ENDING)
def test_a_signal_that_ends_the_process_ends_it_after_the_write(number, tmp_path, warm):
    process = warm.Process(target=wait_with_a_state, args=(tmp_path / "state",))
    process.start()
    while not (tmp_path / "state.ready").exists():
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 128 + number
    assert Path(tmp_path / "state").read_text() == "the last finished epoch"


def test_handlers_and_signals_are_as_before_afterwards():
    def own(*_):
        pass

    before = [signal.signal(signal.SIGTERM, own), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGHUP)]
    try:
        with saving.before_the_end(lambda: None):
            assert signal.getsignal(signal.SIGTERM) is own, "somebody else's signal"
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)] == before[1:]
        assert signal.set_wakeup_fd(-1) == -1
        assert not [thread for thread in threading.enumerate() if thread.name == "signals"]
    finally:
        signal.signal(signal.SIGTERM, before[0])

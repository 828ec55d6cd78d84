"""What the checks ask of the device: to finish its work, its time, its memory. On a CPU most of it is nothing."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from alignedreid_lib import devices

ROOM = 64 << 20  # bytes above what is allocated already, in which no step of a network fits


def finish(device: torch.device) -> None:
    """Wait until the device has done everything it was given; a CPU has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def seconds(call: Callable[[], object], device: torch.device, repeats: int, warm_up: int = 1) -> float:
    """The median time of a call, the device's work included, after some calls that are not counted."""
    for _ in range(warm_up):
        call()
    taken = []
    for _ in range(repeats):
        finish(device)
        began = time.perf_counter()
        call()
        finish(device)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def reset_peak(device: torch.device) -> None:
    """Forget the peak memory so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_mb(device: torch.device) -> float | None:
    """Peak memory of a GPU since `reset_peak`, MB; None on a CPU, whose processes have only one peak in all."""
    return torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None


def tidy(device: torch.device) -> None:
    """Give back what the last check used, so that the next one starts with the same memory."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def too_small(device: torch.device) -> Iterator[None]:
    """Inside, a GPU can allocate little more than what it has allocated, so that a step runs out of memory."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + ROOM) / total, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


@contextmanager
def as_in_training(precision: str) -> Iterator[None]:
    """Inside, the device computes as in `training.train`: the same choice of algorithms and of rounding."""
    with devices.deterministic(False), devices.arithmetic(precision):
        yield


def gpus() -> int:
    """How many CUDA devices there are."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0

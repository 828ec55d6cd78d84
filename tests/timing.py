"""How the benchmarks time, and how they see memory."""

import threading
import time
from pathlib import Path

import torch


def timed(call, device: torch.device) -> float:
    """Seconds of one call, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def resident() -> int:
    """Bytes this process holds in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def measured(function, rounds=3):
    """(answer, best of the rounds in seconds, highest memory beyond the start in bytes)."""
    start, peak, stop = resident(), [0], threading.Event()

    def watch():
        while not stop.wait(0.005):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        answer = function()
        seconds.append(time.perf_counter() - begin)
    stop.set()
    watcher.join()
    return answer, min(seconds), max(peak[0] - start, 0)

"""How the benchmarks time, see memory, and write down what they found.

With BENCH naming a file each finding is added to its JSON, beside the machine it was found on: `make bench` does so,
and chapter 11 reads it.
"""

import os
import re
import threading
import time
from pathlib import Path

import torch

from alignedreid_lib import devices, runs


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


def owned() -> int:
    """Bytes this process holds now, without the pages of files that it maps: those are dropped without loss."""
    return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def peak() -> float:
    """MB: the most memory this process ever held, whatever its parent held before it began."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024 / 1e6


def measured(function, rounds=3, memory=resident):
    """(answer, best of the rounds in seconds, highest memory beyond the start in bytes)."""
    start, peak, stop = memory(), [0], threading.Event()

    def watch():
        while not stop.wait(0.005):
            peak[0] = max(peak[0], memory())

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


def record(step: str, what: str, seconds: float, floor: float | None = None, floor_is: str = "", **more) -> None:
    """Add a finding to the file that BENCH names, if it names one.

    The commit, the versions and the device of the file's first finding are the file's; a row that was measured with
    other ones names them.

    Args:
        step: of the pipeline, for example "scoring".
        what: was measured, with its size.
        seconds: of ours.
        floor: seconds of what cannot be done without, measured in the same process.
        floor_is: that, in words.
        more: limit (of the ratio), megabytes, images_per_second, ...
    """
    if "BENCH" not in os.environ:
        return
    path = runs.resolve(os.environ["BENCH"])
    facts = runs.provenance(devices.choose_device())
    content = runs.read_json(path) if path.exists() else {**facts, "rows": []}
    path.parent.mkdir(parents=True, exist_ok=True)
    own = {name: value for name, value in facts.items() if content[name] != value}
    row = {"step": step, "what": what, "seconds": seconds, "floor": floor, "floor_is": floor_is, **more, **own}
    rows = [old for old in content["rows"] if (old["step"], old["what"]) != (step, what)]
    runs.write_json(path, {**content, "rows": [*rows, row]})

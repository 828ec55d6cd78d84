"""All checks one after another: the table on the terminal and the file of results."""

import dataclasses
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from alignedreid_lib import devices, runs
from gpu_check import card, correct, search, speed
from gpu_check.made import MARKET, SMALL, Setup, Sizes, make_data
from gpu_check.rows import FAILED, HEADING, attempt

Check = Callable[[Setup], list[Any]]

CHECKS: dict[str, Check] = {
    "step": correct.step_against_cpu,
    "compiled": correct.compiled_against_eager,
    "twins": correct.twins,
    "resume": correct.resume,
    "processes": correct.processes,
    "out of memory": correct.out_of_memory,
    "speed": speed.steps,
    "training": speed.checkpoint,
    "extraction": speed.extraction,
    "distances": search.local_distances,
    "scoring": search.scoring,
    "re-ranking": search.re_ranking,
    "test": search.whole_test,
}


def file_name(device: str) -> str:
    """gpu_check_<device>.json with only letters, digits and underscores: "NVIDIA H100 80GB HBM3" has spaces."""
    return f"gpu_check_{re.sub(r'[^a-z0-9]+', '_', device.lower()).strip('_')}.json"


def check(setup: Setup, checks: Mapping[str, Check] = CHECKS) -> dict[str, Any]:
    """Make all checks, print their rows as they come, and return the content of the file of results."""
    began = time.perf_counter()
    make_data(setup)
    rows = []
    print(HEADING, flush=True)
    for name, function in checks.items():
        found = attempt(name, "the whole check", partial(function, setup))
        print("\n".join(row.line() for row in found), flush=True)
        rows += found
        card.tidy(setup.device)
    precision = devices.choose_precision("auto", setup.device, setup.sizes.image[1])
    return {
        **runs.provenance(setup.device),
        "kind": setup.device.type,
        "cuda": torch.version.cuda,
        "precision": precision,
        "sizes": dataclasses.asdict(setup.sizes),
        "seconds": time.perf_counter() - began,
        "rows": [row.to_dict() for row in rows],
    }


def run(root: Path, sizes: Sizes | None = None) -> None:
    """The command: on a GPU at Market-1501's sizes into `notebooks/results/`, on a CPU at small ones into `runs/`.

    Exits with 1 if a comparison failed.
    """
    devices.reserve_workspace()  # read once, at the first product on a GPU
    device = devices.choose_device()
    on_cpu = device.type == "cpu"
    sizes = sizes or (SMALL if on_cpu else MARKET)
    if on_cpu:
        print("There is no GPU here: the part that a CPU can do, at small sizes. It shows nothing about a GPU.\n")
    with tempfile.TemporaryDirectory(prefix="gpu_check_") as folder:
        content = check(Setup(device, sizes, Path(folder)))
    path = root / ("runs" if on_cpu else "notebooks/results") / file_name(content["device"])
    runs.make_folder(path.parent)
    runs.write_json(path, content)
    failed = sum(row["verdict"] == FAILED for row in content["rows"])
    print(f"\n{len(content['rows'])} rows, {failed} failed, {content['seconds']:.0f} s; {path.relative_to(root)}")
    if failed:
        sys.exit(1)

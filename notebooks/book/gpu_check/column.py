"""The measurements of `make bench`, with a column for each GPU that `make gpu-check` has measured."""

from pathlib import Path
from typing import Any

from alignedreid_lib import book, runs
from gpu_check.speed import EPOCHS, GOAL_MINUTES

BENCH = "runs/bench.json"
NOT_YET = "not yet measured"


def seconds(gpu: dict[str, Any], step: str, what: str) -> float | None:
    """What a GPU needed for a row of the benchmarks; None where it was not measured at this size."""
    rows = (row for row in gpu["rows"] if (row["check"], row["what"], row["unit"]) == (step, what, "s"))
    return next((row["value"] for row in rows), None)


def table(root: Path) -> str:
    """The table as text, and the goal below it."""
    gpus = book.gpu_checks()
    lines = [f"{'seconds':<62} {'here':>9}  {', '.join(gpu['device'] for gpu in gpus) or 'GPU'}"]
    path = root / BENCH
    for row in runs.read_json(path)["rows"] if path.exists() else []:
        found = [seconds(gpu, row["step"], row["what"]) for gpu in gpus]
        shown = [NOT_YET if value is None else f"{value:.3g}" for value in found] or [NOT_YET]
        label = f"{row['step']}: {row['what']}"
        lines.append(f"{label:<62} {row['seconds']:>9.3g}  {', '.join(shown)}")
    lines.append(f"Goal: {EPOCHS} epochs of market1501_gl on an H100 in {GOAL_MINUTES} minutes (4 500 images/s)")
    for gpu in gpus:
        lines += [
            f"  {gpu['device']}: {row['what']}: {row['value']:.4g} {row['unit']}"
            for row in gpu["rows"]
            if row["check"] in ("step", "training") and row["unit"] in ("images/s", "minutes")
        ]
    if not gpus:
        lines.append(f"  {NOT_YET}: `make gpu-check` on a machine with a GPU measures it")
    return "\n".join(lines)

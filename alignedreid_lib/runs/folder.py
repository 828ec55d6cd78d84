"""A run's folder: what a training writes. A kill at any moment leaves the last good state.

    config.json  metrics.jsonl  checkpoint.pt  weights.pth  best.pth  results.json  tensorboard/

Every file is written under a temporary name, then renamed. Derived in notebooks/06_training.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignedreid_lib.errors import InputError
from alignedreid_lib.runs import files, tensorfiles

# Functions import PyTorch themselves, because `datasets` uses this package and works without its 700 MB.
if TYPE_CHECKING:
    import torch

CHECKPOINT_FORMAT = 3
# What a number depends on: the library, the chapters' sources with the book's tools, and the presets.
SOURCES = ("alignedreid_lib", ":(glob)notebooks/**/*.py", "notebooks/presets")
GIT_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")


def open_run(
    run_dir: str | Path,
    config: Mapping[str, Any],
    free: Iterable[str] = (),
    defaults: Mapping[str, Any] | None = None,
    undecided: Iterable[str] = (),
) -> Path:
    """Make a run's folder, or find the one of the same config.

    Args:
        run_dir: relative paths are taken from the project's root.
        config: JSON-able settings.
        free: settings that may change when a run is resumed (the device, say).
        defaults: values of settings that are newer than the folder's config.
        undecided: settings whose "auto" in the folder is replaced by the first other value.

    Raises:
        InputError: the folder contains a run of a different config or a damaged one, or it cannot be made.
    """
    if not str(run_dir).strip():
        raise InputError("run_dir is empty; name a folder, such as runs/mine")
    folder = files.resolve(run_dir)
    config = json.loads(json.dumps(config))  # as it will be read back: tuples become lists
    files.make_folder(folder)
    path = folder / "config.json"
    if os.path.lexists(path):
        before = files.read_json(path)
        if not isinstance(before, dict):
            raise InputError(f"{path}: contains no settings; restore it, or remove {folder} to start again")
        before = json.loads(json.dumps(dict(defaults or {}))) | before
        decided = {name: config[name] for name in undecided if before.get(name) == "auto" != config.get(name)}
        before |= decided
        for name in sorted((before.keys() | config.keys()) - set(free)):
            if (was := before.get(name)) != (value := config.get(name)):
                advice = "choose a different run_dir, or remove the folder to start again"
                raise InputError(f"{folder}: contains a run with {name}={was!r}, not {value!r}; {advice}")
        if decided:
            files.write_json(path, before)
    elif os.path.lexists(folder / "checkpoint.pt"):
        raise InputError(f"{folder}: contains a checkpoint and no config.json; restore it, or remove the folder")
    else:
        files.write_json(path, config)
    return folder


def write_metrics(folder: Path, rows: list[dict[str, Any]]) -> None:
    """metrics.jsonl: one JSON object per line, one line per epoch."""
    files.write_text(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def read_metrics(run_dir: str | Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; none if there is no such file.

    Raises:
        InputError: it cannot be read, or a line is not a JSON object.
    """
    path = files.resolve(run_dir) / "metrics.jsonl"
    try:
        rows = [json.loads(line) for line in (files.read_text(path) or "").splitlines()]
    except (json.JSONDecodeError, RecursionError):
        rows = [None]
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: not lines of JSON; remove it, and the run writes it again from its checkpoint")
    return rows


def save_weights(path: Path, network: torch.nn.Module) -> None:
    """A plain state dict on the CPU."""
    import torch

    weights = {name: value.cpu() for name, value in network.state_dict().items()}
    files.write_atomic(path, lambda beside: torch.save(weights, beside))


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """checkpoint.pt: everything needed to resume, with the format's version."""
    import torch

    content = {"format": CHECKPOINT_FORMAT, **state}
    files.write_atomic(folder / "checkpoint.pt", lambda beside: torch.save(content, beside))


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The last checkpoint of a run, None if there is none. Only tensors and plain values are read.

    Raises:
        InputError: it cannot be read, or a different version of this library wrote it.
    """
    path = folder / "checkpoint.pt"
    try:
        state = tensorfiles.load(path)
    except FileNotFoundError:
        return None
    except tensorfiles.UnreadableError as error:
        raise InputError(f"{path}: cannot be read ({error.what}); remove it to start this run again") from None
    if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
        raise InputError(f"{path}: not a checkpoint of format {CHECKPOINT_FORMAT}; remove it to start this run again")
    return state


def provenance(*devices: torch.device) -> dict[str, Any]:
    """What is needed to repeat a number: the commit, the versions and the devices (none: the CPU).

    The commit and `changed_since_commit` are `None` where the project's folder is not the top of a git repository: a
    repository around it does not track this code.
    """
    import torch
    import torchvision

    commit, changed = _git_state(files.project_root())
    threads = torch.get_num_threads()
    cpu = f"{platform.machine()} CPU, {threads} thread{'s' * (threads > 1)}"
    places = devices or (torch.device("cpu"),)
    names = [torch.cuda.get_device_name(place) if place.type == "cuda" else cpu for place in places]
    return {
        "commit": commit,
        "changed_since_commit": changed,
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # torch.load would not read its own class
        "torchvision": torchvision.__version__,
        "device": ", ".join(dict.fromkeys(names)),
    }


def _git_state(root: Path) -> tuple[str | None, bool | None]:
    """The commit of the repository whose top is `root`, and whether `SOURCES` have changed since; else None, None."""
    # Inside a git hook these variables name the hook's own repository.
    environment = {name: value for name, value in os.environ.items() if name not in GIT_PLACES}
    git = partial(subprocess.run, cwd=root, env=environment, check=True, capture_output=True, text=True)
    try:
        top, commit = git(["git", "rev-parse", "--show-toplevel", "HEAD"]).stdout.splitlines()
        if not (os.path.samefile(top, root) and (root / "alignedreid_lib").is_dir()):
            return None, None
        changed = git(["git", "status", "--porcelain", "--untracked-files=no", "--", *SOURCES])
    except (OSError, ValueError, subprocess.CalledProcessError):  # no git, no commit, or somebody else's repository
        return None, None
    return commit, bool(changed.stdout)


def write_results(
    run_dir: str | Path,
    config: Mapping[str, Any],
    scores: list[dict[str, Any]],
    minutes: float,
    device: torch.device,
    training: Mapping[str, Any] | None = None,
) -> Path:
    """results.json, the record of a finished run: scores, settings, minutes, versions, commit.

    Args:
        scores: rows of `evaluation.ScoreTable.to_dict`.
        minutes: of training.
        device: where the test ran; the record has this, its commit and its versions.
        training: more facts of the training: the run's `parts`, its `wall_minutes`, the metrics of its `last_epoch`.
    """
    folder = files.resolve(run_dir)
    files.make_folder(folder)
    content = {"scores": scores, "config": dict(config), "minutes": round(minutes, 2), **(training or {})}
    files.write_json(folder / "results.json", content | provenance(device))
    return folder / "results.json"

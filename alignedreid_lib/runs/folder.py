"""A run's folder: what a training writes, so that a kill at any moment leaves the last good state.

    config.json  metrics.jsonl  checkpoint.pt  weights.pth  best.pth  results.json  tensorboard/

Every file is written beside and renamed. Derived in notebooks/06_training.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision

from alignedreid_lib.errors import InputError
from alignedreid_lib.runs import tensorfiles
from alignedreid_lib.runs.files import (
    make_folder,
    project_root,
    read_json,
    read_text,
    resolve,
    write_atomic,
    write_json,
)

CHECKPOINT_FORMAT = 3
GIT_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")


def open_run(
    run_dir: str | Path, config: Mapping[str, Any], free: Iterable[str] = (), defaults: Mapping[str, Any] | None = None
) -> Path:
    """Make a run's folder, or find the one of the same config.

    Args:
        run_dir: relative paths are taken from the project's root.
        config: JSON-able settings.
        free: settings that may change between a start and its continuation (the device, say).
        defaults: of settings that the folder's config may not name, because they are newer than it.

    Raises:
        InputError: the folder holds a run of another config, or a damaged one, or cannot be made.
    """
    if not str(run_dir).strip():
        raise InputError("run_dir is empty; name a folder, such as runs/mine")
    folder = resolve(run_dir)
    config = json.loads(json.dumps(config))  # as it will be read back: tuples become lists
    make_folder(folder)
    path = folder / "config.json"
    if os.path.lexists(path):
        before = read_json(path)
        if not isinstance(before, dict):
            raise InputError(f"{path}: holds no settings; restore it, or remove {folder} to start anew")
        before = json.loads(json.dumps(dict(defaults or {}))) | before
        free = set(free)
        for name in sorted((before.keys() | config.keys()) - free):
            if before.get(name) != config.get(name):
                raise InputError(
                    f"{folder}: holds a run with {name}={before.get(name)!r}, not {config.get(name)!r}; "
                    "choose another run_dir, or remove the folder to start anew"
                )
    elif os.path.lexists(folder / "checkpoint.pt"):
        raise InputError(
            f"{folder}: holds a checkpoint and no config.json; restore it, or remove the folder to start anew"
        )
    else:
        write_json(path, config)
    return folder


def write_metrics(folder: Path, rows: list[dict[str, Any]]) -> None:
    """metrics.jsonl: one JSON object a line, one line an epoch."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomic(folder / "metrics.jsonl", lambda beside: beside.write_text(text, encoding="utf-8"))


def read_metrics(run_dir: str | Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, none where there is no such file.

    Raises:
        InputError: it cannot be read, or a line is not a JSON object.
    """
    path = resolve(run_dir) / "metrics.jsonl"
    try:
        rows = [json.loads(line) for line in (read_text(path) or "").splitlines()]
    except (json.JSONDecodeError, RecursionError):
        rows = [None]
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: not lines of JSON; remove it, and the run writes it again from its checkpoint")
    return rows


def save_weights(path: Path, network: torch.nn.Module) -> None:
    """A plain state dict on the CPU."""
    weights = {name: value.cpu() for name, value in network.state_dict().items()}
    write_atomic(path, lambda beside: torch.save(weights, beside))


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """checkpoint.pt: everything needed to go on, with the format's version."""
    write_atomic(folder / "checkpoint.pt", lambda beside: torch.save({"format": CHECKPOINT_FORMAT, **state}, beside))


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The last checkpoint of a run, None where there is none. Read as tensors and plain values only.

    Raises:
        InputError: it cannot be read, or another version of this library wrote it.
    """
    path = folder / "checkpoint.pt"
    try:
        state = tensorfiles.load(path)
    except FileNotFoundError:
        return None
    except tensorfiles.UnreadableError as error:
        raise InputError(f"{path}: cannot be read ({error.what}); remove it to start this run anew") from None
    if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
        raise InputError(f"{path}: not a checkpoint of format {CHECKPOINT_FORMAT}; remove it to start this run anew")
    return state


def provenance(device: torch.device | None = None) -> dict[str, Any]:
    """What a number needs to be believed: the commit, the versions and the machine it came from.

    The commit and whether the library has changed since are None where the project's folder is not a git repository
    of its own: a repository around it says nothing of this code.
    """
    commit, changed = _git_state(project_root())
    if device is not None and device.type == "cuda":
        machine = torch.cuda.get_device_name(device)
    else:
        machine = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    return {
        "commit": commit,
        "changed_since_commit": changed,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "device": machine,
    }


def _git_state(root: Path) -> tuple[str | None, bool | None]:
    """The commit of the repository whose top is `root`, and whether its library was changed since; else None, None."""
    # A git hook sets variables that lead to its own repository.
    environment = {name: value for name, value in os.environ.items() if name not in GIT_PLACES}

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=root, env=environment, capture_output=True, check=True)
        return os.fsdecode(done.stdout).strip()

    try:
        if not ((root / "alignedreid_lib").is_dir() and os.path.samefile(git("rev-parse", "--show-toplevel"), root)):
            return None, None
        commit = git("rev-parse", "HEAD")
        return commit, bool(git("status", "--porcelain", "--untracked-files=no", "--", "alignedreid_lib"))
    except (OSError, subprocess.CalledProcessError):  # no git, no repository, no commit yet, or another user's
        return None, None


def write_results(
    run_dir: str | Path, config: Mapping[str, Any], scores: list[dict[str, Any]], minutes: float, device: torch.device
) -> Path:
    """results.json: what a finished run is remembered by: scores, settings, minutes, versions, commit.

    Args:
        scores: rows of `evaluation.ScoreTable.to_dict`.
        minutes: of training.
    """
    path = resolve(run_dir) / "results.json"
    make_folder(path.parent)
    content = {"scores": scores, "config": dict(config), "minutes": round(minutes, 2), **provenance(device)}
    write_json(path, content)
    return path

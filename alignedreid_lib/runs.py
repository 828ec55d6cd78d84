"""A run's folder: what a training writes, so that a kill at any moment leaves the last good state.

    config.json  metrics.jsonl  checkpoint.pt  weights.pth  best.pth  results.json  tensorboard/

Every file is written beside and renamed. Derived in notebooks/06_training.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import torchvision

from alignedreid_lib.errors import InputError

CHECKPOINT_FORMAT = 3
Config = TypeVar("Config")


def project_root() -> Path:
    """The folder that holds pyproject.toml and alignedreid_lib/, upward from here; else the current folder."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "alignedreid_lib").is_dir():
            return folder
    return here


def resolve(path: str | Path) -> Path:
    """A path of a setting: absolute as it is, relative from the project's root."""
    return project_root() / path


def write_atomic(path: Path, write: Callable[[Path], Any]) -> None:
    """`write` a file beside `path`, then rename it to `path`; readers see the old one or the new one, whole.

    Raises:
        InputError: no space or no permission; the old file is still there.
    """
    beside = path.with_name(f".{path.name}.partial")
    try:
        write(beside)
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())  # else a power cut may leave the new name and no content
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        beside.unlink(missing_ok=True)
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: cannot be written ({reason}); free space or choose another run_dir") from error


def write_json(path: Path, content: Any) -> None:
    """A JSON file, indented, ending in a newline, atomically."""
    text = json.dumps(content, indent=1) + "\n"
    write_atomic(path, lambda beside: beside.write_text(text))


def read_json(path: Path) -> Any:
    """Raises InputError where the file is absent or not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); remove it and run again") from None


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
        InputError: the folder holds a run of another config, or cannot be made.
    """
    folder = resolve(run_dir)
    config = json.loads(json.dumps(config))  # as it will be read back: tuples become lists
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}); choose another run_dir") from None
    path = folder / "config.json"
    if path.exists():
        before = json.loads(json.dumps(dict(defaults or {}))) | read_json(path)
        free = set(free)
        for name in sorted((before.keys() | config.keys()) - free):
            if before.get(name) != config.get(name):
                raise InputError(
                    f"{folder}: holds a run with {name}={before.get(name)!r}, not {config.get(name)!r}; "
                    "choose another run_dir, or remove the folder to start anew"
                )
    else:
        write_json(path, config)
    return folder


def write_metrics(folder: Path, rows: list[dict[str, Any]]) -> None:
    """metrics.jsonl: one JSON object a line, one line an epoch."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomic(folder / "metrics.jsonl", lambda beside: beside.write_text(text))


def read_metrics(run_dir: str | Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, none where there is no such file."""
    path = resolve(run_dir) / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


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
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged file can fail in any way
        # torch's own words would advise to load it unguarded.
        raise InputError(
            f"{path}: cannot be read (cut short, or not a checkpoint); remove it to start this run anew"
        ) from None
    if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
        raise InputError(f"{path}: not a checkpoint of format {CHECKPOINT_FORMAT}; remove it to start this run anew")
    return state


def provenance(device: torch.device | None = None) -> dict[str, Any]:
    """What a number needs to be believed: the commit, the versions and the machine it came from."""

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(["git", *arguments], cwd=project_root(), capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return ""
        return done.stdout.strip()

    if device is not None and device.type == "cuda":
        machine = torch.cuda.get_device_name(device)
    else:
        machine = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    return {
        "commit": git("rev-parse", "HEAD") or None,
        "changed_since_commit": bool(git("status", "--porcelain", "--untracked-files=no", "--", "alignedreid_lib")),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "device": machine,
    }


def write_results(
    run_dir: str | Path, config: Mapping[str, Any], scores: list[dict[str, Any]], minutes: float, device: torch.device
) -> Path:
    """results.json: what a finished run is remembered by: scores, settings, minutes, versions, commit.

    Args:
        scores: rows of `evaluation.ScoreTable.to_dict`.
        minutes: of training.
    """
    path = resolve(run_dir) / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"scores": scores, "config": dict(config), "minutes": round(minutes, 2), **provenance(device)}
    write_json(path, content)
    return path


def read_parameters(kind: Callable[..., Config], namespace: Mapping[str, Any], extra: Iterable[str] = ()) -> Config:
    """Build a config from a notebook's parameters cell and what papermill injected after it.

    Cells whose first line begins with "# Parameters" are parameter cells; papermill's injected cell does.

    Args:
        kind: a dataclass that checks its own fields.
        namespace: the notebook's globals().
        extra: parameters that are the notebook's own, not the config's.

    Raises:
        InputError: a parameter that neither the config nor `extra` knows; or what `kind` refuses.
    """
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    own = set(extra)
    cells = [source for source in namespace.get("In", ()) if source.lstrip().startswith("# Parameters")]
    given = [name for source in cells for name in assigned_names(source)]
    for name in given:
        if name not in known | own:
            raise InputError(f"unknown parameter {name!r}; known are {', '.join(sorted(known | own))}")
    if not cells:  # run as a script: there is no history to read
        given = [name for name in known if name in namespace]
    return kind(**{name: namespace[name] for name in given if name in known})


def assigned_names(source: str) -> list[str]:
    """The names that a cell of plain assignments gives values to, in order."""
    targets: list[ast.expr] = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign):
            targets += node.targets
        elif isinstance(node, ast.AnnAssign):
            targets.append(node.target)
    return [target.id for target in targets if isinstance(target, ast.Name)]

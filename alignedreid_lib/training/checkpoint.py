"""What a training writes to go on from, and how it goes on: exactly, from the end of any epoch.

Derived in notebooks/06_training.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from alignedreid_lib import runs
from alignedreid_lib.errors import InputError
from alignedreid_lib.training.config import FREE_SETTINGS, TrainConfig
from alignedreid_lib.training.step import Learner

WEIGHTS, BEST = "weights.pth", "best.pth"  # of the last epoch, and of the best one by validation


@dataclasses.dataclass
class Progress:
    """How far a run is; the rest of a checkpoint is models, optimisers and random states."""

    epoch: int = 0  # the last finished one
    metrics: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    best: dict[str, Any] = dataclasses.field(default_factory=dict)  # epoch and mean_ap, once validated


def random_states() -> dict[str, Any]:
    """The states of torch's generators; sampler and augmentation have none, see `make_batch`."""
    return {"torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_random_states(states: dict[str, Any]) -> None:
    """Go on from `random_states`."""
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


def _open_folder(folder: Path, config: TrainConfig) -> Path:
    """`runs.open_run`; a setting that an older version did not know had its default."""
    return runs.open_run(folder, dataclasses.asdict(config), FREE_SETTINGS, dataclasses.asdict(TrainConfig()))


def is_finished(config: TrainConfig, run_dir: str | Path) -> bool:
    """Whether the run folder holds this run, trained to its end."""
    folder = runs.resolve(run_dir)
    if not os.path.exists(folder / "checkpoint.pt"):
        return False
    state = runs.load_checkpoint(_open_folder(folder, config))
    return state is not None and state.get("epoch") == config.total_epochs


def open_or_resume(config: TrainConfig, folder: Path, data: dict[str, int]) -> dict[str, Any] | None:
    """Open the run's folder; its last checkpoint, None in a new one.

    Raises:
        InputError: the folder holds another run, or one that was trained on other data.
    """
    _open_folder(folder, config)
    state = runs.load_checkpoint(folder)
    if state is not None and state.get("data") != data:
        raise InputError(
            f"{folder}: was trained on {state.get('data')}, {config.folder} has {data}; choose another run_dir"
        )
    runs.write_metrics(folder, state["metrics"] if state else [])  # the checkpoint leads: a kill may have come between
    return state


def restore(state: dict[str, Any] | None, learners: Sequence[Learner]) -> Progress:
    """Fill models, optimisers and random states from a checkpoint.

    Raises:
        InputError: it is not of these models.
    """
    if state is None:
        return Progress()
    try:
        for learner, model, optimizer in zip(learners, state["models"], state["optimizers"], strict=True):
            learner.network.load_state_dict(model)
            learner.optimizer.load_state_dict(optimizer)
        set_random_states(state["random"])
        return Progress(**{field.name: state[field.name] for field in dataclasses.fields(Progress)})
    except (LookupError, RuntimeError, TypeError, ValueError):
        raise InputError(
            "checkpoint.pt in the run's folder is not of the models that its config.json describes; remove it to start "
            "this run anew"
        ) from None


def save(folder: Path, progress: Progress, learners: Sequence[Learner], data: dict[str, int]) -> None:
    """The checkpoint, then the metrics that it leads."""
    state = {
        **dataclasses.asdict(progress),
        "models": [learner.network.state_dict() for learner in learners],
        "optimizers": [learner.optimizer.state_dict() for learner in learners],
        "random": random_states(),
        "data": data,
    }
    runs.save_checkpoint(folder, state)
    runs.write_metrics(folder, progress.metrics)


def weight_files(folder: Path, name: str, count: int) -> tuple[Path, ...]:
    """weights.pth of one model; weights_1.pth, weights_2.pth, ... of several."""
    if count == 1:
        return (folder / name,)
    stem, suffix = name.split(".")
    return tuple(folder / f"{stem}_{k}.{suffix}" for k in range(1, count + 1))

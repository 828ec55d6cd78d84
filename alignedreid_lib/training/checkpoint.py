"""What a training saves after every epoch, so that it resumes exactly. Derived in notebooks/06_training."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from alignedreid_lib import runs
from alignedreid_lib.errors import InputError
from alignedreid_lib.training import distributed
from alignedreid_lib.training.config import FREE_SETTINGS, TrainConfig
from alignedreid_lib.training.step import Learner

WEIGHTS, BEST = "weights.pth", "best.pth"  # those of the last epoch, and of the best one by validation


def _open_folder(folder: Path, config: TrainConfig) -> dict[str, Any] | None:
    """Open the folder of this run, see `runs.open_run`; its checkpoint, None in a new one."""
    # A setting that an older version lacked had its default.
    runs.open_run(folder, dataclasses.asdict(config), FREE_SETTINGS, dataclasses.asdict(TrainConfig()))
    return runs.load_checkpoint(folder)


def is_finished(config: TrainConfig, run_dir: str | Path) -> bool:
    """True if the run folder contains this run, trained to its end."""
    folder = runs.resolve(run_dir)
    if not os.path.exists(folder / "checkpoint.pt"):
        return False
    state = _open_folder(folder, config)
    return state is not None and state.get("epoch") == config.total_epochs


@dataclasses.dataclass
class Progress:
    """How far a run is; the rest of a checkpoint is models, optimisers and random states."""

    epoch: int = 0  # the last finished one
    metrics: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    best: dict[str, Any] = dataclasses.field(default_factory=dict)  # epoch and mean_ap, once validated


def random_states() -> dict[str, Any]:
    """The states of torch's generators, of all devices that this process sees.

    Sampler and augmentation have none, see `make_batch`; networks that leave out layers at random draw from these.
    """
    return {"torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}


@dataclasses.dataclass
class Run:
    """A training in its folder: the models and how far they are."""

    config: TrainConfig
    folder: Path
    learners: Sequence[Learner]
    data: dict[str, int]  # how many images and ids it trains on
    progress: Progress = dataclasses.field(default_factory=Progress)
    random: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # `random_states` of every process

    def open(self) -> dict[str, Any] | None:
        """Open the folder; its last checkpoint, None in a new one.

        Raises:
            InputError: the folder contains a different run, or one that was trained on different data.
        """
        state = _open_folder(self.folder, self.config)
        if state is not None and state.get("data") != self.data:
            raise InputError(
                f"{self.folder}: was trained on {state.get('data')}, {self.config.folder} has {self.data}; "
                "choose a different run_dir"
            )
        # The checkpoint decides: a kill may have come between the two writes.
        runs.write_metrics(self.folder, state["metrics"] if state else [])
        return state

    def restore(self, state: dict[str, Any] | None) -> None:
        """Fill models, optimisers, random states and progress from a checkpoint.

        Raises:
            InputError: it was written by different models.
        """
        if state is None:
            return
        try:
            for learner, model, optimizer in zip(self.learners, state["models"], state["optimizers"], strict=True):
                learner.network.load_state_dict(model)
                learner.optimizer.load_state_dict(optimizer)
            random = state["random"]
            if isinstance(random, list):  # an older version kept those of the first process alone
                random = random[distributed.rank()]
            torch.set_rng_state(random["torch"])
            if len(random["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(random["cuda"])
            self.progress = Progress(**{field.name: state[field.name] for field in dataclasses.fields(Progress)})
        except (LookupError, RuntimeError, TypeError, ValueError):
            raise InputError(
                "checkpoint.pt in the run's folder is not of the models that its config.json describes; remove it to "
                "start this run again"
            ) from None

    def save(self) -> None:
        """Write the checkpoint, then its metrics."""
        state = {
            **dataclasses.asdict(self.progress),
            "models": [learner.network.state_dict() for learner in self.learners],
            "optimizers": [learner.optimizer.state_dict() for learner in self.learners],
            "random": self.random or [random_states()],
            "data": self.data,
        }
        runs.save_checkpoint(self.folder, state)
        runs.write_metrics(self.folder, self.progress.metrics)

    def weight_files(self, name: str) -> tuple[Path, ...]:
        """weights.pth of one model; weights_1.pth, weights_2.pth, ... of several."""
        if len(self.learners) == 1:
            return (self.folder / name,)
        stem, suffix = name.split(".")
        return tuple(self.folder / f"{stem}_{k}.{suffix}" for k in range(1, len(self.learners) + 1))

    def save_weights(self, name: str) -> None:
        """Write the weights of every model, see `weight_files`."""
        for path, learner in zip(self.weight_files(name), self.learners, strict=True):
            runs.save_weights(path, learner.network)

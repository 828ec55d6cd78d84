"""What a training saves, so that it resumes exactly. Derived in notebooks/06_training."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alignedreid_lib import devices, runs
from alignedreid_lib.datasets import Dataset
from alignedreid_lib.errors import InputError
from alignedreid_lib.training import distributed
from alignedreid_lib.training.config import FREE_SETTINGS, TrainConfig
from alignedreid_lib.training.learner import Learner

WEIGHTS, BEST = "weights.pth", "best.pth"  # those of the last epoch, and of the best one by validation
UNKNOWN = "unknown"  # a fact of epochs that a version trained which did not record it


def as_begun(config: TrainConfig, run_dir: str | Path) -> TrainConfig:
    """The config with the precision that the run in this folder was begun with, in place of "auto"."""
    path = runs.resolve(run_dir) / "config.json"
    if config.precision != "auto" or not os.path.lexists(path):
        return config
    before = runs.read_json(path)
    begun = before.get("precision") if isinstance(before, dict) else None
    return dataclasses.replace(config, precision=begun if begun in devices.PRECISIONS else "auto")


def settle_precision(config: TrainConfig, run_dir: str | Path) -> TrainConfig:
    """The config with a precision other than "auto": the one of the run, else what the devices of its models can do.

    Models on devices that do not agree compute in float32.

    Raises:
        InputError: this machine lacks the precision that the run was begun with.
    """
    settled = as_begun(config, run_dir)
    places = [devices.choose_device(name) for name in config.model_devices or (config.device,)]
    try:
        found = {devices.choose_precision(settled.precision, place, config.width) for place in places}
    except InputError as error:
        if settled == config:  # asked for by name
            raise
        reason = str(error).rpartition(";")[0]
        raise InputError(
            f"{run_dir}: was begun in {settled.precision}, and {reason}; resume it on a machine like its first, or "
            "choose a different run_dir"
        ) from None
    return dataclasses.replace(settled, precision=found.pop() if len(found) == 1 else "float32")


def fingerprint(dataset: Dataset, labels: np.ndarray) -> str:
    """A digest of the names of a dataset's images and their labels [N], in their order."""
    names = "\n".join(path.name for path in dataset.paths)
    return hashlib.sha256(names.encode() + labels.astype(np.int64).tobytes()).hexdigest()[:16]


def _open_folder(folder: Path, config: TrainConfig) -> dict[str, Any] | None:
    """Open the folder of this run, see `runs.open_run`; its checkpoint, None in a new one."""
    # A setting that an older version lacked had its default.
    runs.open_run(
        folder, dataclasses.asdict(config), FREE_SETTINGS, dataclasses.asdict(TrainConfig()), undecided=("precision",)
    )
    state = runs.load_checkpoint(folder)
    # The checkpoint decides: later epochs were lost in a kill.
    runs.write_metrics(folder, state["metrics"] if state else [])
    return state


def finished_epochs(config: TrainConfig, run_dir: str | Path) -> int:
    """How many epochs of this run the checkpoint in its folder contains; `metrics.jsonl` is cut to them."""
    folder = runs.resolve(run_dir)
    if not any(os.path.lexists(folder / name) for name in ("config.json", "checkpoint.pt")):
        return 0
    state = _open_folder(folder, as_begun(config, folder))
    return state["epoch"] if state else 0


@dataclasses.dataclass
class Progress:
    """How far a run is; the rest of a checkpoint is models, optimisers, loss scales and random states."""

    epoch: int = 0  # the last finished one
    metrics: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0  # the epochs' training
    wall_seconds: float = 0.0  # all, with starts, validations and checkpoints
    best: dict[str, Any] = dataclasses.field(default_factory=dict)  # epoch and mean_ap, once validated
    parts: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # see `add_epoch`

    def add_epoch(self, facts: dict[str, Any]) -> None:
        """Count an epoch as finished. Epochs in a row with the same facts (commit, machine, ...) are one part."""
        self.epoch += 1
        if not self.parts or self.parts[-1] != self.parts[-1] | facts:
            self.parts.append(facts | {"from_epoch": self.epoch})
        self.parts[-1]["to_epoch"] = self.epoch

    @classmethod
    def of(cls, state: dict[str, Any]) -> Progress:
        """The progress in a checkpoint; an older one lacks what its version did not record."""
        older = {"wall_seconds": state["seconds"], "parts": []}
        if state["epoch"]:
            facts = dict.fromkeys((*runs.provenance(), "processes"), UNKNOWN)
            older["parts"] = [facts | {"from_epoch": 1, "to_epoch": state["epoch"]}]
        return cls(**{field.name: (older | state)[field.name] for field in dataclasses.fields(cls)})


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
    data: dict[str, Any]  # how many images and ids it trains on, and their `fingerprint`
    progress: Progress = dataclasses.field(default_factory=Progress)
    random: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # `random_states` of every process

    def open(self) -> dict[str, Any] | None:
        """Open the folder; its last checkpoint, None in a new one.

        Raises:
            InputError: the folder contains a different run, or one that was trained on different data.
        """
        state = _open_folder(self.folder, self.config)
        before = self.data if state is None else state.get("data") or {}
        if any(before.get(name) != value for name, value in self.data.items() if name in before or name == "images"):
            raise InputError(
                f"{self.folder}: was trained on {before}, {self.config.folder} has {self.data} (the digest is of names "
                "and labels); restore its images, or choose a different run_dir"
            )
        return state

    def restore(self, state: dict[str, Any] | None) -> None:
        """Fill models, optimisers, random states and progress from a checkpoint.

        Raises:
            InputError: it was written by different models.
        """
        if state is None:
            return
        try:
            scales = state.get("loss_scales") or [{}] * len(self.learners)  # an older version had none
            parts = (state["models"], state["optimizers"], scales)
            for learner, model, optimizer, scale in zip(self.learners, *parts, strict=True):
                learner.network.load_state_dict(model)
                learner.optimizer.load_state_dict(optimizer)
                if scale:
                    learner.scaler.load_state_dict(scale)
            random = state["random"]
            if isinstance(random, list):  # an older version kept those of the first process alone
                random = random[distributed.rank()]
            torch.set_rng_state(random["torch"])
            if len(random["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(random["cuda"])
            self.progress = Progress.of(state)
        except (LookupError, RuntimeError, TypeError, ValueError):
            raise InputError(
                "checkpoint.pt in the run's folder is not of the models that its config.json describes; remove it to "
                "start this run again"
            ) from None

    def state(self) -> dict[str, Any]:
        """The content of the checkpoint: what is in training, not a copy, see `saving.copy`."""
        return {
            **vars(self.progress),
            "models": [learner.network.state_dict() for learner in self.learners],
            "optimizers": [learner.optimizer.state_dict() for learner in self.learners],
            "loss_scales": [learner.scaler.state_dict() for learner in self.learners],
            "random": self.random or [random_states()],
            "data": self.data,
        }

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

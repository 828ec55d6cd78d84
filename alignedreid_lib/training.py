"""The training loop, of one model or of several that teach each other. Resumable after every epoch.

Derived in notebooks/06_training and 07_mutual_learning.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from alignedreid_lib import devices, images, runs
from alignedreid_lib.config import FREE_SETTINGS, TrainConfig, learning_rate
from alignedreid_lib.datasets import Dataset, open_dataset
from alignedreid_lib.errors import InputError
from alignedreid_lib.model import AlignedReID
from alignedreid_lib.sampling import IdentitySampler
from alignedreid_lib.steps import Learner, make_learner, mutual_step, train_step

__all__ = [
    "TrainConfig",
    "TrainResult",
    "learning_rate",
    "make_batch",
    "make_learner",
    "mutual_step",
    "of_model",
    "train",
    "train_step",
]

WEIGHTS, BEST = "weights.pth", "best.pth"  # of the last epoch, and of the best one by validation


class TrainResult(NamedTuple):
    """What `train` leaves."""

    run_dir: Path
    weights: Path  # weights.pth, a plain state dict: the last epoch's; of several models the first one's
    all_weights: tuple[Path, ...]  # of every model: weights.pth, or weights_1.pth, weights_2.pth, ...
    best_weights: tuple[Path, ...]  # likewise, best.pth, of the epoch with the best validation; () without validation
    best_epoch: int | None
    metrics: list[dict[str, Any]]  # a row an epoch
    resumed_at: int  # epochs that were done before this call: 0 is a fresh run, total_epochs a finished one
    minutes: float  # of training, all calls together
    precision: str  # that "auto" came to: float32 or bfloat16


def random_states() -> dict[str, Any]:
    """The states of torch's generators; sampler and augmentation have none, see `make_batch`."""
    return {"torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_random_states(states: dict[str, Any]) -> None:
    """Go on from `random_states`."""
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


def make_batch(
    store: images.ImageStore, labels: np.ndarray, indices: np.ndarray, config: TrainConfig, seed: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """The augmented pictures uint8 [N, 3, h, w] and labels int64 [N] of a batch.

    `seed` (run, epoch, batch) decides all randomness: no state is carried from batch to batch, so a resumed run
    continues exactly.
    """
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1))
    batch = images.augment(
        store.fetch(indices),
        (config.height, config.width),
        generator,
        config.mirror_prob,
        config.crop_prob,
        config.crop_ratio,
    )
    return batch, torch.from_numpy(labels[indices])


def train(
    config: TrainConfig,
    run_dir: str | Path,
    report: Callable[[dict[str, Any]], None] | None = None,
    validate: Callable[[AlignedReID], dict[str, float]] | None = None,
) -> TrainResult:
    """Train a model, or go on from the run folder's last finished epoch, or find the run finished.

    Args:
        config: all settings; a run folder belongs to one config.
        run_dir: made if absent; relative paths are taken from the project's root.
        report: called with the metrics row of each epoch.
        validate: called every `config.validate_every` epochs with the network; its figures join the row as `val_*`,
            and its `mean_ap` decides which weights are the best (`evaluation.validation` makes one).

    Raises:
        InputError: data, settings or run folder do not fit; a loss that is no number (the last good checkpoint stays).
    """
    if (config.validate_every > 0) != (validate is not None):
        raise InputError(
            f"validate_every is {config.validate_every} and validate is {'' if validate else 'not '}given: "
            "give both or none"
        )
    dataset = open_dataset(config.folder, config.train_part)
    labels = train_labels(dataset)
    sampler = IdentitySampler(labels, config.ids_per_batch, config.images_per_id, config.seed)
    num_ids = int(labels.max()) + 1
    learners = [make_learner(config, k, num_ids) for k in range(config.num_models)]

    folder = runs.open_run(run_dir, dataclasses.asdict(config), FREE_SETTINGS)
    data = {"images": len(dataset), "ids": num_ids}
    state = runs.load_checkpoint(folder)
    if state is None:
        done, metrics, seconds, best = 0, [], 0.0, {}
    else:
        if state["data"] != data:
            raise InputError(
                f"{folder}: was trained on {state['data']}, {config.folder} has {data}; choose another run_dir"
            )
        for learner, model, optimizer in zip(learners, state["models"], state["optimizers"], strict=True):
            learner.network.load_state_dict(model)
            learner.optimizer.load_state_dict(optimizer)
        set_random_states(state["random"])
        done, metrics, seconds, best = state["epoch"], state["metrics"], state["seconds"], state["best"]
    runs.write_metrics(folder, metrics)  # the checkpoint leads: a kill may have come between the two

    if done < config.total_epochs:
        size = None if config.crop_prob > 0 else (config.height, config.width)
        store = images.ImageStore(dataset.paths, size, config.memory_limit, config.workers)
        with (
            SummaryWriter(folder / "tensorboard", purge_step=done + 1) as board,
            devices.deterministic(config.deterministic),
        ):
            # Quiet where nobody watches (papermill, nbval, CI).
            for epoch in tqdm(range(done + 1, config.total_epochs + 1), desc="epochs", disable=None):
                began = time.perf_counter()
                row = _train_epoch(epoch, learners, store, labels, sampler, config)
                row["seconds"] = time.perf_counter() - began
                row["images_per_second"] = len(sampler) * config.ids_per_batch * config.images_per_id / row["seconds"]
                row["peak_memory_mb"] = devices.peak_memory(learners[0].device)
                seconds += row["seconds"]
                if validate is not None and (epoch % config.validate_every == 0 or epoch == config.total_epochs):
                    best = _validate(validate, row, learners, best, folder)
                metrics.append(row)
                runs.save_checkpoint(
                    folder,
                    {
                        "epoch": epoch,
                        "models": [learner.network.state_dict() for learner in learners],
                        "optimizers": [learner.optimizer.state_dict() for learner in learners],
                        "random": random_states(),
                        "metrics": metrics,
                        "seconds": seconds,
                        "best": best,
                        "data": data,
                    },
                )
                runs.write_metrics(folder, metrics)
                for name, value in row.items():
                    board.add_scalar(name, value, epoch)
                if report is not None:
                    report(row)
    weights = _files(folder, WEIGHTS, len(learners))
    for path, learner in zip(weights, learners, strict=True):
        runs.save_weights(path, learner.network)
    name = str(learners[0].precision).removeprefix("torch.")
    best_weights = _files(folder, BEST, len(learners)) if best else ()
    best_epoch = best.get("epoch")
    return TrainResult(folder, weights[0], weights, best_weights, best_epoch, metrics, done, seconds / 60, name)


def _files(folder: Path, name: str, count: int) -> tuple[Path, ...]:
    """weights.pth of one model; weights_1.pth, weights_2.pth, ... of several."""
    if count == 1:
        return (folder / name,)
    stem, suffix = name.split(".")
    return tuple(folder / f"{stem}_{k}.{suffix}" for k in range(1, count + 1))


def of_model(metrics: Sequence[dict[str, Any]], k: int) -> list[dict[str, Any]]:
    """The rows of model k, counted from 1, of a training of several: as those of a training of one."""
    prefix = f"model{k}_"
    shared = ("epoch", "lr", "seconds", "images_per_second", "peak_memory_mb")
    return [
        {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix) or name in shared}
        for row in metrics
    ]


def _validate(
    validate: Callable[[AlignedReID], dict[str, float]],
    row: dict[str, Any],
    learners: Sequence[Learner],
    best: dict[str, Any],
    folder: Path,
) -> dict[str, Any]:
    """Validate every model, write the figures into the row, keep the weights if their mean is the best so far."""
    found = [validate(learner.network) for learner in learners]
    for prefix, figures in zip(_prefixes(len(learners)), found, strict=True):
        row |= {f"{prefix}val_{name}": value for name, value in figures.items()}
    mean = sum(figures["mean_ap"] for figures in found) / len(found)
    if mean <= best.get("mean_ap", -1.0):
        return best
    # Before the checkpoint that knows of it: a kill between the two trains this epoch again.
    for path, learner in zip(_files(folder, BEST, len(learners)), learners, strict=True):
        runs.save_weights(path, learner.network)
    return {"epoch": row["epoch"], "mean_ap": mean}


def _prefixes(count: int) -> list[str]:
    return [""] if count == 1 else [f"model{k}_" for k in range(1, count + 1)]


def train_labels(dataset: Dataset) -> np.ndarray:
    """The labels of a train part, int64 [N]."""
    if dataset.labels is None:
        raise InputError(f"{dataset.folder}: part {dataset.part} has no labels to train on; use trainval or train")
    return dataset.labels


def _train_epoch(
    epoch: int,
    learners: Sequence[Learner],
    store: images.ImageStore,
    labels: np.ndarray,
    sampler: IdentitySampler,
    config: TrainConfig,
) -> dict[str, Any]:
    """One pass over the identities; the means of its steps' figures."""
    lr = learning_rate(config, epoch)
    for learner in learners:
        for group in learner.optimizer.param_groups:
            group["lr"] = lr
        learner.network.train()
    sampler.set_epoch(epoch)
    pinned = any(learner.device.type == "cuda" for learner in learners)

    def prepare(numbered: tuple[int, np.ndarray]) -> tuple[Tensor, Tensor]:
        number, indices = numbered
        batch, batch_labels = make_batch(store, labels, indices, config, (config.seed, epoch, number))
        return (batch.pin_memory(), batch_labels.pin_memory()) if pinned else (batch, batch_labels)

    steps: list[list[dict[str, Tensor]]] = []
    for batch, batch_labels in images.prefetch(prepare, enumerate(sampler)):
        try:
            steps.append(mutual_step(learners, batch, batch_labels, config))
        except torch.OutOfMemoryError:
            raise InputError(
                f"epoch {epoch}, step {len(steps) + 1}: out of memory with a batch of {len(batch)} pictures of "
                f"{config.height} x {config.width}; lower ids_per_batch, or use precision bfloat16"
            ) from None
    names, tables = [], []
    for k, prefix in enumerate(_prefixes(len(learners))):  # read here, all at once: each reading waits for the device
        names += [prefix + name for name in steps[0][k]]
        tables.append(torch.stack([torch.stack(list(step[k].values())) for step in steps]).cpu())
    table = torch.cat(tables, dim=1)
    bad = (~table.isfinite()).any(dim=1).nonzero()
    if len(bad):
        name = names[int((~table[int(bad[0])].isfinite()).nonzero()[0])]
        raise InputError(
            f"epoch {epoch}, step {int(bad[0]) + 1}: {name} is not a number; the last good checkpoint is kept; "
            "lower base_lr or use precision float32"
        )
    return {"epoch": epoch, "lr": lr, **dict(zip(names, table.mean(dim=0).tolist(), strict=True))}

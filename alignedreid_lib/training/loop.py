"""The training loop, of one model or of several that teach each other. Resumable after every epoch.

Derived in notebooks/06_training and 07_mutual_learning.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from alignedreid_lib import devices, runs
from alignedreid_lib.batches import images
from alignedreid_lib.batches.sampling import IdentitySampler
from alignedreid_lib.datasets import Dataset, open_dataset
from alignedreid_lib.errors import InputError
from alignedreid_lib.model import AlignedReID
from alignedreid_lib.training import distributed, launching
from alignedreid_lib.training.checkpoint import (
    BEST,
    WEIGHTS,
    is_finished,
    open_or_resume,
    restore,
    save,
    weight_files,
)
from alignedreid_lib.training.config import TrainConfig
from alignedreid_lib.training.epoch import SHARED, prefixes, train_epoch
from alignedreid_lib.training.step import Learner, check_twins, make_learner

log = logging.getLogger(__name__)


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


def train(
    config: TrainConfig,
    run_dir: str | Path,
    report: Callable[[dict[str, Any]], None] | None = None,
    validate: Callable[[AlignedReID], dict[str, float]] | None = None,
) -> TrainResult:
    """Train a model, or go on from the run folder's last finished epoch, or find the run finished.

    With `config.processes` above 1 it starts that many on this machine and waits for them; in one that `torchrun`
    started (`launching.joined`) it trains that one's share. A line an epoch goes to Python's logging.

    Args:
        config: all settings; a run folder belongs to one config.
        run_dir: made if absent; relative paths are taken from the project's root. The first process alone uses it.
        report: called with the metrics row of each epoch.
        validate: called every `config.validate_every` epochs with the network; its figures join the row as `val_*`,
            and its `mean_ap` decides which weights are the best (`full_run.validation` makes one). With several
            processes it is sent to them, and has to be of a module.

    Raises:
        InputError: data, settings or run folder do not fit; a loss that is no number (the last good checkpoint stays).
    """
    if (config.validate_every > 0) != (validate is not None):
        raise InputError(
            f"validate_every is {config.validate_every} and validate is {'' if validate else 'not '}given: "
            "give both or none"
        )
    if distributed.started():
        if distributed.count() != config.processes:
            raise InputError(
                f"processes is {config.processes}, but {distributed.count()} were started; make them agree"
            )
    elif config.processes > 1 and not is_finished(config, run_dir):
        return _train_in_processes(config, run_dir, report, validate)
    dataset = open_dataset(config.folder, config.train_part)
    labels = train_labels(dataset)
    sampler = IdentitySampler(
        labels,
        config.ids_per_batch,
        config.images_per_id,
        config.seed,
        config.keep_last_batch,
        config.draw,
        config.processes,
    )
    num_ids = int(labels.max()) + 1
    learners = [make_learner(config, k, num_ids) for k in range(config.num_models)]
    precision = str(learners[0].precision).removeprefix("torch.")

    folder = runs.resolve(run_dir)
    if not os.path.exists(folder / "checkpoint.pt"):
        check_twins(learners, config)
    data = {"images": len(dataset), "ids": num_ids}
    progress = restore(distributed.from_first(lambda: open_or_resume(config, folder, data)), learners)
    resumed_at = progress.epoch
    if resumed_at < config.total_epochs:
        log.info("%s, %s on %s", folder.name, precision, learners[0].device)
        size = None if config.crop_prob > 0 else (config.height, config.width)
        store = images.ImageStore(dataset.paths, size, config.memory_limit, config.workers)
        first = distributed.rank() == 0
        with (
            SummaryWriter(folder / "tensorboard", purge_step=resumed_at + 1) if first else nullcontext() as board,
            devices.deterministic(config.deterministic),
        ):
            # Quiet where nobody watches (papermill, nbval, CI).
            epochs = range(resumed_at + 1, config.total_epochs + 1)
            for epoch in tqdm(epochs, desc="epochs", disable=None if first else True):
                began = time.perf_counter()
                row = train_epoch(epoch, learners, store, labels, sampler, config)
                row["seconds"] = time.perf_counter() - began
                row["images_per_second"] = sampler.images_per_epoch / row["seconds"]
                row["peak_memory_mb"] = devices.peak_memory(learners[0].device)
                if board is None:
                    continue
                if validate is not None and (epoch % config.validate_every == 0 or epoch == config.total_epochs):
                    progress.best = _validate(validate, row, learners, progress.best, folder)
                progress.epoch = epoch
                progress.seconds += row["seconds"]
                progress.metrics.append(row)
                save(folder, progress, learners, data)
                for name, value in row.items():
                    board.add_scalar(name, value, epoch)
                announce(row, report)
    weights = weight_files(folder, WEIGHTS, len(learners))
    if distributed.rank() == 0:
        for path, learner in zip(weights, learners, strict=True):
            runs.save_weights(path, learner.network)
    return TrainResult(
        run_dir=folder,
        weights=weights[0],
        all_weights=weights,
        best_weights=weight_files(folder, BEST, len(learners)) if progress.best else (),
        best_epoch=progress.best.get("epoch"),
        metrics=progress.metrics,
        resumed_at=resumed_at,
        minutes=progress.seconds / 60,
        precision=precision,
    )


def _train_in_processes(
    config: TrainConfig,
    run_dir: str | Path,
    report: Callable[[dict[str, Any]], None] | None,
    validate: Callable[[AlignedReID], dict[str, float]] | None,
) -> TrainResult:
    """`train` in processes started here; rows are announced here as they appear in the run's folder."""
    folder = runs.resolve(run_dir)  # opened by the first process, once data and models are there
    told = len(runs.read_metrics(folder))

    def tell() -> None:
        nonlocal told
        rows = runs.read_metrics(folder)
        told = min(told, len(rows))  # begun anew
        for row in rows[told:]:
            announce(row, report)
            told += 1

    given = config, folder, None, validate
    return launching.launch(config.processes, config.device, train, *given, meanwhile=tell)


def announce(row: dict[str, Any], report: Callable[[dict[str, Any]], None] | None) -> None:
    """An epoch's line to the log, its row to whoever asked."""
    figures = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in row.items() if name not in SHARED)
    log.info(
        "epoch %d: %s; lr %.2g, %.1f s, %.0f images/s, %.0f MB",
        *(row["epoch"], figures, *(row[name] for name in SHARED[1:])),
    )
    if report is not None:
        report(row)


def _validate(
    validate: Callable[[AlignedReID], dict[str, float]],
    row: dict[str, Any],
    learners: Sequence[Learner],
    best: dict[str, Any],
    folder: Path,
) -> dict[str, Any]:
    """Validate every model, write the figures into the row, keep the weights if their mean is the best so far."""
    found = [validate(learner.network) for learner in learners]
    for prefix, figures in zip(prefixes(len(learners)), found, strict=True):
        row |= {f"{prefix}val_{name}": value for name, value in figures.items()}
    mean = sum(figures["mean_ap"] for figures in found) / len(found)
    if mean <= best.get("mean_ap", -1.0):
        return best
    # Before the checkpoint that knows of it: a kill between the two trains this epoch again.
    for path, learner in zip(weight_files(folder, BEST, len(learners)), learners, strict=True):
        runs.save_weights(path, learner.network)
    return {"epoch": row["epoch"], "mean_ap": mean}


def train_labels(dataset: Dataset) -> np.ndarray:
    """The labels of a train part, int64 [N]."""
    if dataset.labels is None:
        raise InputError(f"{dataset.folder}: part {dataset.part} has no labels to train on; use trainval or train")
    if not len(dataset):
        raise InputError(f"{dataset.folder}: part {dataset.part} has no people to train on; add some, or test on fewer")
    return dataset.labels

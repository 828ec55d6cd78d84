"""The training loop, which resumes after a saved epoch. Derived in notebooks/06_training and 07_mutual_learning."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
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
from alignedreid_lib.training import agreement, distributed, launching
from alignedreid_lib.training.checkpoint import (
    BEST,
    WEIGHTS,
    Run,
    fingerprint,
    finished_epochs,
    random_states,
    settle_precision,
)
from alignedreid_lib.training.config import TrainConfig
from alignedreid_lib.training.epoch import SHARED, prefixes, train_epoch
from alignedreid_lib.training.learner import make_learner
from alignedreid_lib.training.saving import saver
from alignedreid_lib.training.twins import check_twins

Report = Callable[[dict[str, Any]], None]
Validate = Callable[[AlignedReID], dict[str, float]]

log = logging.getLogger(__name__)


class TrainResult(NamedTuple):
    """The result of `train`."""

    run_dir: Path
    weights: Path  # weights.pth, a plain state dict: the last epoch's; of several models the first one's
    all_weights: tuple[Path, ...]  # of every model: weights.pth, or weights_1.pth, weights_2.pth, ...
    best_weights: tuple[Path, ...]  # likewise, best.pth, of the epoch with the best validation; () without validation
    best_epoch: int | None
    metrics: list[dict[str, Any]]  # one row per epoch
    resumed_at: int  # epochs that were done before this call: 0 is a fresh run, total_epochs a finished one
    minutes: float  # of training, all calls together
    wall_minutes: float  # all calls up to the last epoch's end, with starts, validations and checkpoints
    precision: str  # that "auto" came to, see `devices.choose_precision`
    parts: list[dict[str, Any]]  # epochs with one commit, machine, ...: `runs.provenance`, processes, from, to epoch


def train(
    config: TrainConfig, run_dir: str | Path, report: Report | None = None, validate: Validate | None = None
) -> TrainResult:
    """Train a model, continue after the run folder's last saved epoch, or find the run finished.

    An epoch is saved every `config.checkpoint_every` seconds, when it is the best so far, and at the end; on an error,
    Ctrl-C or SIGTERM the last finished one.

    With `config.processes` above 1 it starts that many on this machine and waits for them; in one that `torchrun`
    started (`launching.joined`) it trains that one's share. Python's logging gets a line per epoch.

    Args:
        config: all settings; a run folder belongs to one config.
        run_dir: made if absent; relative paths are taken from the project's root. Only the first process uses it.
        report: called with the metrics row of each epoch.
        validate: called every `config.validate_every` epochs with the network; its figures join the row as `val_*`,
            and its `mean_ap` decides which weights are the best (`full_run.validation` makes one). With several
            processes it has to be picklable.

    Raises:
        InputError: data, settings or run folder do not fit; a loss is not a number (the last good checkpoint stays).
    """
    began = time.perf_counter()
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
    elif config.processes > 1 and (done := finished_epochs(config, run_dir)) < config.total_epochs:
        return _train_in_processes(config, run_dir, report, validate, done)
    # The first process decides the precision alone: `agreement` compares all settings.
    settled = distributed.from_first(lambda: settle_precision(config, run_dir).precision)
    config = dataclasses.replace(config, precision=settled)
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
    data = {"images": len(dataset), "ids": num_ids, "digest": fingerprint(dataset, labels)}
    run = Run(config, runs.resolve(run_dir), learners, data)
    if not os.path.exists(run.folder / "checkpoint.pt"):
        check_twins(config, [learner.device for learner in learners])
    agreement.check_start(config, data, learners[0])
    patient = distributed.patient_group()
    run.restore(distributed.from_first(run.open, patient))
    agreement.share_weights(learners)
    resumed_at = run.progress.epoch
    if resumed_at < config.total_epochs:
        log.info("%s, %s on %s", run.folder.name, config.precision, learners[0].device)
        size = None if config.crop_prob > 0 else (config.height, config.width)
        store = images.ImageStore(dataset.paths, size, config.memory_limit, config.workers, learners[0].device)
        first = distributed.rank() == 0
        save = partial(runs.save_checkpoint, run.folder)
        facts = runs.provenance(*(learner.device for learner in learners)) | {"processes": distributed.count()}
        facts["device"] = ", ".join(dict.fromkeys(distributed.gather_objects(facts["device"])))
        began -= run.progress.wall_seconds
        with (
            SummaryWriter(run.folder / "tensorboard", purge_step=resumed_at + 1) if first else nullcontext() as board,
            saver(save, config.checkpoint_every) if first else nullcontext() as keeper,
            devices.deterministic(config.deterministic),
            devices.arithmetic(config.precision),
        ):
            # Without a terminal (papermill, nbval, CI) there is no bar.
            epochs = range(resumed_at + 1, config.total_epochs + 1)
            for epoch in tqdm(epochs, desc="epochs", disable=None if first else True):
                distributed.wait_for_first(patient)  # it may still validate or write
                for learner in learners:
                    devices.reset_peak_memory(learner.device)
                epoch_began = time.perf_counter()
                row = train_epoch(epoch, learners, store, labels, sampler, config)
                row["seconds"] = time.perf_counter() - epoch_began
                row["images_per_second"] = sampler.images_per_epoch / row["seconds"]
                agreement.check_weights(epoch, config, learners)
                run.random = distributed.gather_objects(random_states())
                peak = max(devices.peak_memory(learner.device) for learner in learners)
                row["peak_memory_mb"] = max(distributed.gather_objects(peak))
                if board is None or keeper is None:
                    continue
                last = epoch == config.total_epochs
                best = (
                    validate is not None
                    and (epoch % config.validate_every == 0 or last)
                    and _validate(validate, row, run)
                )
                run.progress.add_epoch(facts)
                run.progress.seconds += row["seconds"]
                run.progress.wall_seconds = time.perf_counter() - began
                run.progress.metrics.append(row)
                keeper.keep(run.state(), now=best or last)
                keeper.run(runs.write_metrics, run.folder, list(run.progress.metrics))
                for name, value in row.items():
                    board.add_scalar(name, value, epoch)
                announce(row, report)
    if distributed.rank() == 0:
        run.save_weights(WEIGHTS)
    distributed.wait_for_first(patient)  # all leave the group together
    return TrainResult(
        run_dir=run.folder,
        weights=run.weight_files(WEIGHTS)[0],
        all_weights=run.weight_files(WEIGHTS),
        best_weights=run.weight_files(BEST) if run.progress.best else (),
        best_epoch=run.progress.best.get("epoch"),
        metrics=run.progress.metrics,
        resumed_at=resumed_at,
        minutes=run.progress.seconds / 60,
        wall_minutes=run.progress.wall_seconds / 60,
        precision=config.precision,
        parts=run.progress.parts,
    )


def _train_in_processes(
    config: TrainConfig, run_dir: str | Path, report: Report | None, validate: Validate | None, told: int
) -> TrainResult:
    """`train` in processes started here; rows after the first `told` are announced as they appear in the folder."""
    folder = runs.resolve(run_dir)  # opened by the first process, once data and models are there

    def tell() -> None:
        nonlocal told
        rows = runs.read_metrics(folder)
        new, told = rows[told:], len(rows)
        for row in new:
            announce(row, report)

    return launching.launch(config.processes, config.device, train, config, folder, None, validate, meanwhile=tell)


def announce(row: dict[str, Any], report: Report | None) -> None:
    """Log an epoch's line and report its row."""
    figures = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in row.items() if name not in SHARED)
    log.info(
        "epoch %d: %s; lr %.2g, %.1f s, %.0f images/s, %.0f MB",
        *(row["epoch"], figures, *(row[name] for name in SHARED[1:])),
    )
    if report is not None:
        report(row)


def _validate(validate: Validate, row: dict[str, Any], run: Run) -> bool:
    """Validate every model and write the figures into the row; if their mean is the best so far, keep the weights."""
    with devices.out_of_memory(f"epoch {row['epoch']}, validation"):
        found = [validate(learner.network) for learner in run.learners]
    for prefix, figures in zip(prefixes(len(found)), found, strict=True):
        row |= {f"{prefix}val_{name}": value for name, value in figures.items()}
    mean = sum(figures["mean_ap"] for figures in found) / len(found)
    best = mean > run.progress.best.get("mean_ap", -1.0)
    if best:
        # Before the checkpoint that records it: after a kill between the two, this epoch is trained again.
        run.save_weights(BEST)
        run.progress.best = {"epoch": row["epoch"], "mean_ap": mean}
    return best


def train_labels(dataset: Dataset) -> np.ndarray:
    """The labels of a train part, int64 [N]."""
    if dataset.labels is None:
        raise InputError(f"{dataset.folder}: part {dataset.part} has no labels to train on; use trainval or train")
    if not len(dataset):
        raise InputError(f"{dataset.folder}: part {dataset.part} has no people to train on; add some, or test on fewer")
    return dataset.labels

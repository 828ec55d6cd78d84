"""One training: its step, its epoch, its loop. Resumable after every epoch.

Derived in notebooks/06_training.
"""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from alignedreid_lib import devices, images, losses, runs
from alignedreid_lib.config import FREE_SETTINGS, TrainConfig, learning_rate
from alignedreid_lib.datasets import Dataset, open_dataset
from alignedreid_lib.errors import InputError
from alignedreid_lib.model import AlignedReID, Embedding
from alignedreid_lib.sampling import IdentitySampler

__all__ = ["TrainConfig", "TrainResult", "learning_rate", "make_batch", "train", "train_step"]

WEIGHTS, BEST = "weights.pth", "best.pth"  # of the last epoch, and of the best one by validation


class TrainResult(NamedTuple):
    """What `train` leaves."""

    run_dir: Path
    weights: Path  # weights.pth, a plain state dict: the last epoch's
    best_weights: Path | None  # best.pth, likewise, of the epoch with the best validation; None without validation
    best_epoch: int | None
    metrics: list[dict[str, Any]]  # a row an epoch
    resumed_at: int  # epochs that were done before this call: 0 is a fresh run, total_epochs a finished one
    minutes: float  # of training, all calls together
    precision: str  # that "auto" came to: float32 or bfloat16


def set_seeds(seed: int) -> None:
    """Seed Python, numpy and torch; sampler and augmentation have generators of their own."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


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


def train_step(
    network: Callable[[Tensor], Embedding],
    optimizer: torch.optim.Optimizer,
    batch: Tensor,
    labels: Tensor,
    config: TrainConfig,
    precision: torch.dtype,
) -> dict[str, Tensor]:
    """Forward, loss, backward, step.

    Args:
        batch: uint8 [N, 3, h, w] on the network's device.
        labels: int64 [N], likewise.

    Returns:
        figures of the step, [] each, still on the device: reading them would make the host wait.
    """
    with devices.autocast(batch.device, precision):
        embedding = network(images.normalize(batch))
    how = (config.margin, config.normalize)
    # No checks: the sampler guarantees triplets, and a NaN is found at the end of the epoch, when figures are read.
    terms = {"global": losses.global_triplet(embedding.global_features, labels, *how, check=False)}
    loss = config.global_weight * terms["global"].loss
    if config.local_weight > 0:
        mined = terms["global"].mined if config.local_mining == "global" else None
        terms["local"] = losses.local_triplet(embedding.local_features, labels, *how, mined, check=False)
        loss = loss + config.local_weight * terms["local"].loss
    figures = {}
    if embedding.logits is not None:
        identification = losses.identification(embedding.logits, labels)
        loss = loss + config.id_weight * identification
        figures["id_loss"] = identification.detach()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    for name, term in terms.items():
        figures |= {f"{name}_{figure}": value for figure, value in term_figures(term, config.margin).items()}
    return {"loss": loss.detach(), **figures}


def term_figures(term: losses.TripletTerm, margin: float | None) -> dict[str, Tensor]:
    """What is logged of a triplet loss, [] each: the original reproduction's figures."""
    with torch.no_grad():
        return {
            "loss": term.loss.detach(),
            "precision": losses.satisfied(term.mined),
            "satisfaction": losses.satisfied(term.mined, margin or 0.0),
            "positive_distance": term.mined.positive_distance.mean(),
            "negative_distance": term.mined.negative_distance.mean(),
        }


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
    device = devices.choose_device(config.device)
    dataset = open_dataset(config.folder, config.train_part)
    labels = train_labels(dataset)
    sampler = IdentitySampler(labels, config.ids_per_batch, config.images_per_id, config.seed)
    set_seeds(config.seed)
    weights = config.weights
    if weights not in (None, "imagenet"):
        weights = str(runs.resolve(weights))
    num_ids = int(labels.max()) + 1
    head = num_ids if config.id_weight > 0 else None
    network = AlignedReID(config.backbone, weights, head, config.local_channels, config.last_stride)
    check_size(network, config)
    network = network.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), config.base_lr, weight_decay=config.weight_decay, fused=True)
    precision = devices.choose_precision(config.precision, device, config.width)
    forward = compile_network(network, device) if config.compiled else network

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
        network.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["torch_rng"])
        done, metrics, seconds, best = state["epoch"], state["metrics"], state["seconds"], state["best"]
    runs.write_metrics(folder, metrics)  # the checkpoint leads: a kill may have come between the two

    if done < config.total_epochs:
        size = None if config.crop_prob > 0 else (config.height, config.width)
        store = images.ImageStore(dataset.paths, size, config.memory_limit, config.workers)
        with SummaryWriter(folder / "tensorboard", purge_step=done + 1) as board:
            # Quiet where nobody watches (papermill, nbval, CI).
            for epoch in tqdm(range(done + 1, config.total_epochs + 1), desc="epochs", disable=None):
                began = time.perf_counter()
                row = _train_epoch(epoch, network, forward, optimizer, store, labels, sampler, config, precision)
                row["seconds"] = time.perf_counter() - began
                row["images_per_second"] = len(sampler) * config.ids_per_batch * config.images_per_id / row["seconds"]
                seconds += row["seconds"]
                if validate is not None and (epoch % config.validate_every == 0 or epoch == config.total_epochs):
                    figures = validate(network)
                    row |= {f"val_{name}": value for name, value in figures.items()}
                    if figures["mean_ap"] > best.get("mean_ap", -1.0):
                        best = {"epoch": epoch, "mean_ap": figures["mean_ap"]}
                        # Before the checkpoint that knows of it: a kill between the two trains this epoch again.
                        runs.save_weights(folder / BEST, network)
                metrics.append(row)
                runs.save_checkpoint(
                    folder,
                    {
                        "epoch": epoch,
                        "model": network.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "torch_rng": torch.get_rng_state(),
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
    runs.save_weights(folder / WEIGHTS, network)
    name = str(precision).removeprefix("torch.")
    best_weights = folder / BEST if best else None
    return TrainResult(folder, folder / WEIGHTS, best_weights, best.get("epoch"), metrics, done, seconds / 60, name)


def train_labels(dataset: Dataset) -> np.ndarray:
    """The labels of a train part, int64 [N]."""
    if dataset.labels is None:
        raise InputError(f"{dataset.folder}: part {dataset.part} has no labels to train on; use trainval or train")
    return dataset.labels


def compile_network(network: AlignedReID, device: torch.device) -> Callable[[Tensor], Embedding]:
    """The network's forward, compiled at its first call; parameters and modes stay the network's own.

    Raises:
        InputError: no C++ compiler for a CPU.
    """
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise InputError(f"compiled is True and there is no C++ compiler {compiler!r}; install g++ or set it to False")
    return torch.compile(network)


def check_size(network: AlignedReID, config: TrainConfig) -> None:
    """Raises InputError where pictures of the config's size vanish in the network."""
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, config.height, config.width))
    except RuntimeError:
        raise InputError(
            f"height {config.height} x width {config.width} is too small for {config.backbone}; raise them"
        ) from None


def _train_epoch(
    epoch: int,
    network: AlignedReID,
    forward: Callable[[Tensor], Embedding],
    optimizer: torch.optim.Optimizer,
    store: images.ImageStore,
    labels: np.ndarray,
    sampler: IdentitySampler,
    config: TrainConfig,
    precision: torch.dtype,
) -> dict[str, Any]:
    """One pass over the identities; the means of its steps' figures."""
    device = next(network.parameters()).device
    lr = learning_rate(config, epoch)
    for group in optimizer.param_groups:
        group["lr"] = lr
    network.train()
    sampler.set_epoch(epoch)

    def prepare(numbered: tuple[int, np.ndarray]) -> tuple[Tensor, Tensor]:
        number, indices = numbered
        return make_batch(store, labels, indices, config, (config.seed, epoch, number))

    steps = []
    for batch, batch_labels in images.prefetch(prepare, enumerate(sampler)):
        batch, batch_labels = batch.to(device, non_blocking=True), batch_labels.to(device, non_blocking=True)
        steps.append(train_step(forward, optimizer, batch, batch_labels, config, precision))
    table = torch.stack([torch.stack(list(step.values())) for step in steps]).cpu()
    bad = (~table.isfinite()).any(dim=1).nonzero()
    if len(bad):
        name = list(steps[0])[int((~table[int(bad[0])].isfinite()).nonzero()[0])]
        raise InputError(
            f"epoch {epoch}, step {int(bad[0]) + 1}: {name} is not a number; the last good checkpoint is kept; "
            "lower base_lr or use precision float32"
        )
    return {"epoch": epoch, "lr": lr, **dict(zip(steps[0], table.mean(dim=0).tolist(), strict=True))}

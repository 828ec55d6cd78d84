"""One pass over the identities: batches made ahead, steps, and their mean figures. Derived in notebooks/06_training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignedreid_lib import devices
from alignedreid_lib.batches import images
from alignedreid_lib.batches.augmentation import PackedBatch
from alignedreid_lib.batches.sampling import IdentitySampler
from alignedreid_lib.errors import InputError
from alignedreid_lib.training import distributed
from alignedreid_lib.training.config import TrainConfig, learning_rate
from alignedreid_lib.training.learner import Learner
from alignedreid_lib.training.step import mutual_step
from alignedreid_lib.training.twins import check_taught

LEAST_SCALE = 2.0**-16  # of a loss in float16: each step whose gradients overflow is skipped and halves its scale
SHARED = ("epoch", "lr", "seconds", "images_per_second", "peak_memory_mb")  # columns that belong to no single model


def make_batch(
    store: images.ImageStore, indices: np.ndarray, config: TrainConfig, seed: tuple[int, ...]
) -> Tensor | PackedBatch:
    """The augmented images of a batch, uint8 [N, 3, h, w]; `.to(device)` computes them if the store has an accelerator.

    `seed` (run, epoch, batch, then the process if there are several, and the model if each has views of its own)
    decides all randomness. No state is carried from batch to batch, so a resumed run continues exactly.
    """
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1))
    size = (config.height, config.width)
    how = (config.mirror_prob, config.crop_prob, config.crop_ratio, config.pad, config.erase_prob)
    return store.augmented(indices, size, generator, *how)


def train_epoch(
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

    rank, processes = distributed.rank(), distributed.count()

    def prepare(numbered: tuple[int, np.ndarray]) -> tuple[list[Tensor | PackedBatch], Tensor]:
        number, indices = numbered
        own = np.split(indices, processes)[rank]  # images of this process's people; labels of all
        seed = (config.seed, epoch, number) + ((rank,) if processes > 1 else ())
        seeds = [(*seed, k) for k in range(len(learners))] if config.own_views else [seed]
        batches = [make_batch(store, own, config, seed) for seed in seeds]
        batch_labels = torch.from_numpy(labels[indices])
        if pinned:
            batches, batch_labels = [batch.pin_memory() for batch in batches], batch_labels.pin_memory()
        return batches, batch_labels

    steps: list[list[dict[str, Tensor]]] = []
    for batches, batch_labels in images.prefetch(prepare, enumerate(sampler)):
        share = len(batch_labels) // processes
        work = f"epoch {epoch}, step {len(steps) + 1}, {share} images of {config.height} x {config.width}"
        with devices.out_of_memory(work, "lower ids_per_batch"):
            # Sent here, not by the thread that works ahead: each thread has a current GPU of its own.
            where = zip(learners, batches, strict=False)  # one batch for all, or one each
            views = [devices.send(batch, learner.device) for learner, batch in where]
            steps.append(mutual_step(learners, views if config.own_views else views[0], batch_labels, config))
    names, tables = [], []
    for k, prefix in enumerate(prefixes(len(learners))):  # read here, all at once: each reading waits for the device
        names += [prefix + name for name in steps[0][k]]
        tables.append(torch.stack([torch.stack(list(step[k].values())) for step in steps]).cpu())
    table = torch.cat(tables, dim=1)
    for number, figure in (~table.isfinite()).nonzero().tolist():  # the earliest step first
        raise InputError(
            f"epoch {epoch}, step {number + 1}: {names[figure]} is not a number; the last good checkpoint is kept; "
            "lower base_lr or use precision float32"
        )
    check_taught(epoch, names, table)
    for learner in learners:
        if learner.scaler.is_enabled() and learner.scaler.get_scale() < LEAST_SCALE:
            raise InputError(
                f"epoch {epoch}: the gradients overflow in float16 at every scale; use precision float32 or bfloat16"
            )
    return {"epoch": epoch, "lr": lr, **dict(zip(names, table.mean(dim=0).tolist(), strict=True))}


def prefixes(count: int) -> list[str]:
    """The prefixes of the names of a row's figures, one per model."""
    return [""] if count == 1 else [f"model{k}_" for k in range(1, count + 1)]


def of_model(metrics: Sequence[dict[str, Any]], k: int) -> list[dict[str, Any]]:
    """The rows of model k (from 1) of a training of several, in the form of a training of one."""
    prefix = f"model{k}_"
    return [
        {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix) or name in SHARED}
        for row in metrics
    ]

"""The training loop, of one model or of several that teach each other. Resumable after every epoch.

Derived in notebooks/06_training and 07_mutual_learning.
"""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import time
from collections.abc import Callable, Sequence
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

__all__ = [
    "TrainConfig",
    "TrainResult",
    "learning_rate",
    "make_batch",
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


@dataclasses.dataclass
class Learner:
    """A model in training, with what belongs to it alone."""

    network: AlignedReID
    forward: Callable[[Tensor], Embedding]  # the network, or its compiled form
    optimizer: torch.optim.Optimizer
    device: torch.device
    precision: torch.dtype


def set_seeds(seed: int) -> None:
    """Seed Python, numpy and torch; sampler and augmentation have generators of their own."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


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


def train_step(
    network: Callable[[Tensor], Embedding],
    optimizer: torch.optim.Optimizer,
    batch: Tensor,
    labels: Tensor,
    config: TrainConfig,
    precision: torch.dtype,
) -> dict[str, Tensor]:
    """Forward, loss, backward, step of one model.

    Args:
        batch: uint8 [N, 3, h, w] on the network's device.
        labels: int64 [N], likewise.

    Returns:
        figures of the step, [] each, still on the device: reading them would make the host wait.
    """
    output = forward_terms(network, batch, labels, config, precision)
    return backward_step(output, optimizer, output.loss, config)


def mutual_step(
    learners: Sequence[Learner], batch: Tensor, labels: Tensor, config: TrainConfig
) -> list[dict[str, Tensor]]:
    """The same of several models on one batch: each also learns what the others made of it.

    All forwards come first; then each model's own losses and its mutual terms, whose partners are detached, so that
    every backward is the model's own. One model has no partners, and this is `train_step`.

    Returns:
        the figures of each model.

    Source: AlignedReID section 3.3; Zhang et al. 2018. Derived in notebooks/07_mutual_learning.
    """
    outputs = []
    for learner in learners:
        own = batch.to(learner.device, non_blocking=True), labels.to(learner.device, non_blocking=True)
        outputs.append(forward_terms(learner.forward, *own, config, learner.precision))
    figures = []
    for k, (learner, output) in enumerate(zip(learners, outputs, strict=True)):
        partners = [other for j, other in enumerate(outputs) if j != k]
        terms = mutual_terms(output, partners, config)
        loss = output.loss
        for weight, term in terms.values():
            loss = loss + weight * term
        found = backward_step(output, learner.optimizer, loss, config)
        figures.append({name: term.detach() for name, (_, term) in terms.items()} | found)
    return figures


class StepOutput(NamedTuple):
    """What a model's forward gives to its own loss and to its partners."""

    loss: Tensor  # the model's own, []
    terms: dict[str, losses.TripletTerm]  # global and local triplets
    identification: Tensor | None  # [], detached
    logits: Tensor | None  # [N, ids]


def forward_terms(
    network: Callable[[Tensor], Embedding], batch: Tensor, labels: Tensor, config: TrainConfig, precision: torch.dtype
) -> StepOutput:
    """Forward and the model's own losses; args are those of `train_step`."""
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
    identification = None
    if embedding.logits is not None:
        identification = losses.identification(embedding.logits, labels)
        loss = loss + config.id_weight * identification
        identification = identification.detach()
    return StepOutput(loss, terms, identification, embedding.logits)


def mutual_terms(
    output: StepOutput, partners: Sequence[StepOutput], config: TrainConfig
) -> dict[str, tuple[float, Tensor]]:
    """(weight, term []) of each mutual term that is switched on, by name; none without partners."""
    terms: dict[str, tuple[float, Tensor]] = {}
    if not partners:
        return terms
    if config.probability_weight > 0:
        assert output.logits is not None  # the config asks for the classifier
        logits = [partner.logits for partner in partners if partner.logits is not None]
        terms["probability_loss"] = config.probability_weight, losses.mutual_probability(output.logits, logits)
    for name, weight in (("global", config.global_mutual_weight), ("local", config.local_mutual_weight)):
        if weight > 0:
            matrices = [partner.terms[name].distances for partner in partners]
            terms[f"{name}_mutual_loss"] = weight, losses.mutual_distance(output.terms[name].distances, matrices)
    return terms


def backward_step(
    output: StepOutput, optimizer: torch.optim.Optimizer, loss: Tensor, config: TrainConfig
) -> dict[str, Tensor]:
    """Backward, step, and the figures of the step, the terms before their sum."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    figures = {} if output.identification is None else {"id_loss": output.identification}
    for name, term in output.terms.items():
        figures |= {f"{name}_{figure}": value for figure, value in term_figures(term, config.margin).items()}
    return {**figures, "loss": loss.detach()}


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


def make_learner(config: TrainConfig, k: int, num_ids: int) -> Learner:
    """Model k of a training, from a seed of its own."""
    device = devices.choose_device(config.model_devices[k] if config.model_devices else config.device)
    set_seeds(config.seed + 1000 * k)
    weights = config.weights
    if weights not in (None, "imagenet"):
        weights = str(runs.resolve(weights))
    head = num_ids if config.id_weight > 0 else None
    backbone = config.backbones[k] if config.backbones else config.backbone
    network = AlignedReID(backbone, weights, head, config.local_channels, config.last_stride)
    check_size(network, config)
    network = network.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), config.base_lr, weight_decay=config.weight_decay, fused=True)
    forward = compile_network(network, device) if config.compiled else network
    return Learner(
        network, forward, optimizer, device, devices.choose_precision(config.precision, device, config.width)
    )


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

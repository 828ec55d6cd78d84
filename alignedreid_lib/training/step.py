"""One training step of one model or several. Derived in notebooks/06_training and 07_mutual_learning."""

from __future__ import annotations

import os
import random
import shutil
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.amp import GradScaler

from alignedreid_lib import devices, losses, runs
from alignedreid_lib.batches import images
from alignedreid_lib.errors import InputError
from alignedreid_lib.model import AlignedReID, Embedding, load_weights
from alignedreid_lib.model.backbones import PROBES
from alignedreid_lib.training import distributed
from alignedreid_lib.training.config import GRAPH_MODES, SEED_STEP, TrainConfig
from alignedreid_lib.training.exchange import GradientExchange
from alignedreid_lib.training.twins import part_twins


@dataclass
class Learner:
    """A model in training: the network, its optimiser, and where and how it computes."""

    network: AlignedReID
    forward: Callable[[Tensor], Embedding]  # the network, or its compiled form
    optimizer: torch.optim.Optimizer
    device: torch.device
    precision: str  # see `devices.choose_precision`
    exchange: GradientExchange | None = None  # with several processes
    # Gradients of float16 are computed of a multiple of the loss, since small ones would be 0.
    scaler: GradScaler = field(default_factory=lambda: GradScaler(enabled=False))


def set_seeds(seed: int) -> None:
    """Seed Python, numpy and torch; sampler and augmentation have generators of their own."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def make_learner(config: TrainConfig, k: int, num_ids: int) -> Learner:
    """Model k of a training, from a seed of its own."""
    device = devices.choose_device(config.model_devices[k] if config.model_devices else config.device)
    set_seeds(config.seed + SEED_STEP * k)
    weights = config.weights if config.weights in (None, "imagenet") else str(runs.resolve(config.weights))
    head = num_ids if config.id_weight > 0 else None
    backbone = config.backbones[k] if config.backbones else config.backbone
    network = AlignedReID(backbone, weights, head, config.local_channels, config.last_stride)
    check_fit(network, config)
    part_twins(network, config, k)
    if config.sync_batch_norm:
        distributed.synchronize_batch_norm(network, device)
    if config.local_weight == 0:  # compiled, its gradients would be 0, not absent, and weight decay would shrink it
        for branch in filter(None, (network.local_conv, network.local_bn)):
            branch.requires_grad_(False)
    network = network.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), config.base_lr, weight_decay=config.weight_decay, fused=True)
    forward = compile_network(network, device, config.compiled) if config.compiled else network
    precision = devices.choose_precision(config.precision, device, config.width)
    exchange = GradientExchange(network.parameters()) if distributed.started() else None
    scaler = GradScaler(device.type, enabled=precision == "float16")
    return Learner(network, forward, optimizer, device, precision, exchange, scaler)


def load_network(config: TrainConfig, weights: Path, k: int = 0) -> AlignedReID:
    """The network of a finished run, model k (from 0) if there are several, in evaluation mode."""
    backbone = config.backbones[k] if config.backbones else config.backbone
    network = AlignedReID(backbone, None, None, config.local_channels, config.last_stride)
    load_weights(network, weights)  # an identity head in the file is left over: it has no class for the test people
    return network.eval()


def train_step(learner: Learner, batch: Tensor, labels: Tensor, config: TrainConfig) -> dict[str, Tensor]:
    """Forward, loss, backward, step of one model: `mutual_step` without partners."""
    return mutual_step([learner], batch, labels, config)[0]


def mutual_step(
    learners: Sequence[Learner], batch: Tensor | Sequence[Tensor], labels: Tensor, config: TrainConfig
) -> list[dict[str, Tensor]]:
    """One step of several models on one batch: each also learns from the others' outputs.

    All forwards come first; then each model's own losses and its mutual terms, whose partners are detached, so that
    every backward is the model's own.

    Args:
        batch: uint8 [N, 3, h, w], or one for each model, of the same images; with several processes, this one's share.
        labels: int64 [N]; with several processes, of the whole batch.

    Returns:
        the figures of each model, [] each, still on its device: reading them would make the host wait.

    Source: AlignedReID section 3.3; Zhang et al. 2018. Derived in notebooks/07_mutual_learning.
    """
    for learner in learners:  # before the forwards: memory of a CUDA graph must be free when the next step begins
        learner.optimizer.zero_grad(set_to_none=True)
    batches = [batch] * len(learners) if isinstance(batch, Tensor) else batch
    given = zip(learners, batches, strict=True)
    outputs = [forward_terms(learner, own, labels, config) for learner, own in given]
    figures = []
    for k, (learner, output) in enumerate(zip(learners, outputs, strict=True)):
        terms = mutual_terms(output, outputs[:k] + outputs[k + 1 :], config)
        loss = output.loss
        for weight, term in terms.values():
            loss = loss + weight * term
        found = backward_step(learner, output, loss, config)
        figures.append({name: term.detach() for name, (_, term) in terms.items()} | found)
    return figures


class StepOutput(NamedTuple):
    """The results of a model's forward pass, for its own loss and for its partners."""

    loss: Tensor  # the model's own, []
    terms: dict[str, losses.TripletTerm]  # global and local triplets
    identification: Tensor | None  # [], detached
    logits: Tensor | None  # [N, ids]


def forward_terms(learner: Learner, batch: Tensor, labels: Tensor, config: TrainConfig) -> StepOutput:
    """Forward and the model's own losses; args are those of `mutual_step`."""
    batch, labels = devices.send(batch, learner.device), devices.send(labels, learner.device)
    with devices.autocast(learner.device, learner.precision):
        own = learner.forward(images.normalize(batch))
    # From here everything is of the whole batch, also with several processes.
    logits = None if own.logits is None else distributed.gather(own.logits)
    local_features = distributed.gather(own.local_features) if config.local_weight > 0 else own.local_features
    embedding = Embedding(distributed.gather(own.global_features), local_features, logits)
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
    if partners and config.probability_weight > 0:
        assert output.logits is not None  # the config requires the classifier
        logits = [partner.logits for partner in partners if partner.logits is not None]
        terms["probability_loss"] = config.probability_weight, losses.mutual_probability(output.logits, logits)
    for name, weight in (("global", config.global_mutual_weight), ("local", config.local_mutual_weight)):
        if partners and weight > 0:
            matrices = [partner.terms[name].distances for partner in partners]
            terms[f"{name}_mutual_loss"] = weight, losses.mutual_distance(output.terms[name].distances, matrices)
    return terms


def backward_step(learner: Learner, output: StepOutput, loss: Tensor, config: TrainConfig) -> dict[str, Tensor]:
    """Backward, step, and the figures of the step, the terms before their sum; the gradients are empty before."""
    # The scaler skips a step whose gradients overflow, and lowers the scale. With a fused optimiser the device decides,
    # and the host does not wait. The loss is float32: it is finite, unless the forward pass itself overflows.
    learner.scaler.scale(loss).backward()
    if learner.exchange is not None:
        learner.exchange.finish()
    else:
        distributed.sum_gradients(learner.network.parameters())
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    figures = {} if output.identification is None else {"id_loss": output.identification}
    for name, term in output.terms.items():
        figures |= {f"{name}_{figure}": value for figure, value in term_figures(term, config.margin).items()}
    return {**figures, "loss": loss.detach()}


def term_figures(term: losses.TripletTerm, margin: float | None) -> dict[str, Tensor]:
    """The logged figures of a triplet loss, [] each, as in the original reproduction."""
    with torch.no_grad():
        return {
            "loss": term.loss.detach(),
            "precision": losses.satisfied(term.mined),
            "satisfaction": losses.satisfied(term.mined, margin or 0.0),
            "positive_distance": term.mined.positive_distance.mean(),
            "negative_distance": term.mined.negative_distance.mean(),
        }


def compile_network(network: AlignedReID, device: torch.device, mode: bool | str) -> Callable[[Tensor], Embedding]:
    """The network's forward, compiled at its first call; parameters and modes stay the network's own.

    Args:
        mode: True, or a mode of `torch.compile` that replays the forward, and the backward, as CUDA graphs.

    Raises:
        InputError: no C++ compiler for a CPU, no C compiler for a GPU of Nvidia, or CUDA graphs for a different device.
    """
    if mode in GRAPH_MODES and device.type != "cuda":
        raise InputError(f"compiled is {mode!r}, but {device.type} has no CUDA graphs; set it to True or False")
    compilers = {"cpu": [os.environ.get("CXX", "g++")], "cuda": [os.environ.get("CC", "gcc"), "clang", "cc"]}
    needed = compilers.get(device.type, [])
    if needed and not any(map(shutil.which, needed)):
        language = "C++" if device.type == "cpu" else "C"
        raise InputError(
            f"compiled is {mode} and there is no {language} compiler {needed[0]!r}; install g++ or set it to False"
        )
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.is_file():
        raise InputError(f"compiled is {mode} and {header} is absent; install python3-dev or set it to False")
    if mode not in GRAPH_MODES:
        return torch.compile(network)
    graphs = torch.compile(network, mode=mode, dynamic=False)  # a graph for each shape: the last batch may be smaller

    def forward(batch: Tensor) -> Embedding:
        # The next replay writes into the same memory, and the losses of all models need these until their backwards.
        found = graphs(batch)
        logits = None if found.logits is None else found.logits.clone()
        return Embedding(found.global_features.clone(), found.local_features.clone(), logits)

    return forward


def check_fit(network: AlignedReID, config: TrainConfig) -> None:
    """Raises InputError where the network cannot take images of the config's size or has no local features to train."""
    if config.local_weight > 0 and not network.has_map:
        advice = "set it to 0, or choose a backbone with a feature map"
        raise InputError(f"local_weight is {config.local_weight}, but {network.backbone} has no feature map; {advice}")
    network.eval()
    size = f"height {config.height} x width {config.width}"
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, config.height, config.width))
    except (RuntimeError, InputError) as error:  # the network's own message does not name the settings
        if network.probed != PROBES[0]:
            raise InputError(f"{size} does not fit: {error}") from None
        raise InputError(f"{size} is too small for {network.backbone}; raise them") from None

"""A model in training: network, optimiser, device and precision. Derived in notebooks/06_training."""

from __future__ import annotations

import os
import random
import shutil
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.amp import GradScaler

from alignedreid_lib import devices, runs
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
    head, centred = (num_ids if weight > 0 else None for weight in (config.id_weight, config.centre_weight))
    network = _make_network(config, k, weights, head, centred)
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
    network = _make_network(config, k)
    load_weights(network, weights)  # what belongs to the training people (classifier, centres) is left over
    return network.eval()


def _make_network(
    config: TrainConfig,
    k: int,
    weights: str | None = None,
    num_ids: int | None = None,
    num_centres: int | None = None,
) -> AlignedReID:
    """The network of model k, see `AlignedReID`."""
    backbone = config.backbones[k] if config.backbones else config.backbone
    how = (config.local_channels, config.last_stride, config.pooling, config.neck)
    return AlignedReID(backbone, weights, num_ids, *how, num_centres)


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

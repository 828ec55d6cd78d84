"""Processes that train together have to agree: on settings, versions and data, and after each epoch on the weights.

Every process makes the comparison and stops with the same line. With one process nothing is compared.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torchvision
from torch import Tensor, nn

import alignedreid_lib
from alignedreid_lib.errors import InputError
from alignedreid_lib.training import distributed
from alignedreid_lib.training.config import FREE_SETTINGS, TrainConfig
from alignedreid_lib.training.learner import Learner

OWN_STATISTICS = ("running_mean", "running_var")  # without synchronised batch norm those of a process's own images
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # of an element of that many bytes


def check_start(config: TrainConfig, data: Mapping[str, Any], learner: Learner) -> None:
    """Compare what decides the results; `device`, `workers` and the like, and where the data is, may differ.

    Args:
        data: of `checkpoint.Run`: images, ids, and the digest of names and labels.

    Raises:
        InputError: a process differs from process 0; the message names what differs. Or the device cannot exchange.
    """
    if not distributed.started():
        return
    if learner.device.type not in ("cpu", "cuda"):
        raise InputError(f"several processes cannot exchange tensors of device {learner.device}; set device to 'cpu'")
    code = sorted(Path(alignedreid_lib.__file__).parent.rglob("*.py"))
    settings = {
        name: value
        for name, value in dataclasses.asdict(config).items()
        if name not in (*FREE_SETTINGS, "data_root", "precision")
    }
    _compare(
        {
            "install the same versions for every process": {
                "torch": torch.__version__,
                "torchvision": torchvision.__version__,
                "numpy": np.__version__,
                "library files": _digest(path.read_bytes() for path in code),
            },
            "give every process the same settings": settings,
            "set precision to float32, or device to 'cpu', for every process": {
                "device type": learner.device.type,
                "precision": learner.precision,
            },
            "prepare the same dataset on every machine": {
                "images": data["images"],
                "identities": data["ids"],
                "digest of names and labels": data["digest"],
            },
        }
    )


def share_weights(learners: Sequence[Learner]) -> None:
    """Copy the parameters and buffers of process 0 to all processes."""
    if not distributed.started():
        return
    with torch.no_grad():
        for learner in learners:
            for tensor in (*learner.network.parameters(), *learner.network.buffers()):
                whole = tensor.contiguous()
                dist.broadcast(whole, src=0)
                tensor.copy_(whole)


def check_weights(epoch: int, config: TrainConfig, learners: Sequence[Learner]) -> None:
    """Compare the parameters and buffers of all processes, bit for bit.

    The running statistics of batch norm are compared only if it is synchronised: otherwise each process has those of
    its own images, and the run keeps those of process 0. This makes the host wait for the device.

    Raises:
        InputError: a tensor of some process differs from that of process 0; the message names both.
    """
    if not distributed.started():
        return
    sums = {
        f"model {k}: {name}": value
        for k, learner in enumerate(learners, start=1)
        for name, value in _bit_sums(learner.network).items()
        if config.sync_batch_norm or not name.endswith(OWN_STATISTICS)
    }
    own = torch.stack(list(sums.values())).tolist()
    everything = distributed.gather_objects(own)
    for number, theirs in enumerate(everything):
        for name, one, first in zip(sums, theirs, everything[0], strict=True):
            if one != first:
                raise InputError(
                    f"epoch {epoch}: process {number} and process 0 have different weights ({name}); the last good "
                    "checkpoint is kept; use processors or GPUs of one kind and start again"
                )


def _bit_sums(network: nn.Module) -> dict[str, Tensor]:
    """Of every parameter and buffer the sum of its elements' bits as integers, int64 [], which no order changes."""
    return {
        name: value.detach().view(BITS[value.element_size()]).sum(dtype=torch.int64)
        for name, value in network.state_dict().items()
    }


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:12]


def _compare(own: dict[str, dict[str, Any]]) -> None:
    """Raises InputError where a process has a different value; args: values by name, by the advice if they differ."""
    first, *others = distributed.gather_objects(own)
    for number, theirs in enumerate(others, start=1):
        for advice, values in first.items():
            for name, value in values.items():
                if (found := theirs.get(advice, {}).get(name)) != value:
                    raise InputError(f"process {number} has {name} {found!r}, process 0 has {value!r}; {advice}")

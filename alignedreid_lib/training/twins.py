"""Models that start equal teach each other nothing unless they are made to differ. See notebooks/07_mutual_learning."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from alignedreid_lib.errors import InputError
from alignedreid_lib.training.config import SEED_STEP, TrainConfig

NOISE = 1e-6  # relative: about ten times the rounding of float32
TERMS = ("probability_loss", "global_mutual_loss", "local_mutual_loss")  # named as by `step.mutual_terms`
ADVICE = (
    "set twins to 'noise', turn on own_views, local_weight or id_weight, or choose different backbones or weights None"
)


def check_twins(config: TrainConfig, devices: Sequence[torch.device]) -> None:
    """Raises InputError where several models start equal and certainly stay equal.

    Models of one backbone and one weights file differ only in their local branch and classifier. Without a loss on
    either they take the same steps and have nothing to teach each other, except on a GPU, where the rounding of sums
    in a random order usually makes them different in the end.
    """
    parted = config.twins == "noise" or config.own_views
    alike = config.weights is not None and len(set(config.backbones)) <= 1 and not parted
    exact = config.deterministic or all(device.type == "cpu" for device in devices)
    if config.num_models > 1 and alike and exact and config.local_weight == config.id_weight == 0:
        raise InputError(
            f"num_models is {config.num_models}, but all start from {config.weights} with only the global loss and "
            f"stay equal; {ADVICE}"
        )


def part_twins(network: nn.Module, config: TrainConfig, k: int) -> None:
    """If `config.twins` is "noise": multiply the parameters of model k > 0 by 1 + 1e-6 * normal noise of its own seed.

    It stands for the rounding in a random order that parts equal models on a GPU. The network has to be on the CPU, so
    that the noise is the same on every device. Nothing is drawn from torch's own generators.
    """
    if config.twins == "refuse" or k == 0:
        return
    generator = torch.Generator().manual_seed(config.seed + SEED_STEP * k)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1 + NOISE * torch.randn(parameter.shape, generator=generator))


def check_taught(epoch: int, names: Sequence[str], table: Tensor) -> None:
    """Raises InputError where a mutual loss is exactly 0 in each step of an epoch.

    Args:
        names: a name per figure, F of them.
        table: [steps, F], on the CPU.
    """
    for name, column in zip(names, table.unbind(dim=1), strict=True):
        if name.endswith(TERMS) and not column.any():
            raise InputError(
                f"epoch {epoch}: {name} is exactly 0 in each of its {len(column)} steps, so the models teach each "
                f"other nothing; start again in a different run_dir: {ADVICE}"
            )

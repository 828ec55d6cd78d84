"""A backbone without its last halving: a map of twice the height and width. See notebooks/03_model and 14."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from alignedreid_lib.errors import InputError
from alignedreid_lib.model.modes import evaluating

POOLINGS = (nn.MaxPool2d, nn.AvgPool2d)
SIZE = (256, 128)  # a blank image's, which shows which layers halve


def undo_last_halving(base: nn.Module, name: str) -> None:
    """Give the layers that make the last map smaller a stride of 1, in place; no parameter changes.

    The layers are found by passing a blank image through: those with a stride whose output has the last map's height.
    They are the two parallel convolutions of a ResNet's last stage, the depthwise convolution of a MobileNet's. A
    pooling whose windows do not overlap is left out.

    Args:
        name: the backbone's, for the message.

    Raises:
        InputError: without its last halving the map is not twice as high and wide, or there is no map.
    """
    strided: list[tuple[Any, int]] = []  # with the height of its output

    def note(layer: Any, given: tuple[Tensor, ...], output: Tensor) -> None:
        if layer.stride not in (1, (1, 1)):
            strided.append((layer, output.shape[2]))

    layers = [layer for layer in base.modules() if isinstance(layer, (nn.Conv2d, *POOLINGS))]
    handles = [layer.register_forward_hook(note) for layer in layers]
    before = _map_size(base)
    for handle in handles:
        handle.remove()
    for layer, height in strided:
        if before is not None and height == before[0]:
            if isinstance(layer, POOLINGS) and layer.kernel_size in (layer.stride, (layer.stride,) * 2):
                layer.kernel_size = 1
            layer.stride = (1, 1) if isinstance(layer, nn.Conv2d) else 1
    if before is None or _map_size(base) != (2 * before[0], 2 * before[1]):
        raise InputError(
            f"last_stride 1 is for a network whose last halving can be left out, and {name} is not one; leave "
            "last_stride at 2"
        )


def _map_size(base: nn.Module) -> tuple[int, int] | None:
    """Height and width of the last map of a blank image; None if there is no map."""
    try:
        with evaluating(base), torch.no_grad():  # or the blank image would change the statistics of batch norms
            found = base(torch.zeros(1, 3, *SIZE))
    except (RuntimeError, AssertionError, ValueError):  # transformers need tokens where the map was cut
        return None
    return (int(found.shape[2]), int(found.shape[3])) if isinstance(found, Tensor) and found.ndim == 4 else None

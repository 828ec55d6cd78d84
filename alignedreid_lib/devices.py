"""Where to compute, and how precisely."""

from __future__ import annotations

import torch
from torch import nn

from alignedreid_lib.errors import InputError

PRECISIONS = ("auto", "float32", "bfloat16")


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is the GPU if there is one, else the CPU.

    Raises:
        InputError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"device {name!r} cannot be used here ({reason}); use 'auto' or 'cpu'") from None
    return device


def choose_precision(name: str, device: torch.device, network: nn.Module) -> torch.dtype:
    """The data type of convolutions and matrix products under autocast; losses are float32 always.

    "auto" takes bfloat16 where the hardware multiplies it: a GPU that supports it, or a CPU with AVX512-BF16 or
    AMX. CPUs without emulate it, several times slower than float32, and depthwise convolutions gain nothing on any.

    Raises:
        InputError: unknown name.
    """
    if name not in PRECISIONS:
        raise InputError(f"precision is {name!r}; it is one of {', '.join(PRECISIONS)}")
    if name != "auto":
        return getattr(torch, name)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    depthwise = any(isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1 for m in network.modules())
    return torch.bfloat16 if device.type == "cpu" and native and not depthwise else torch.float32


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """The context in which the network's forward runs."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16)

"""Where to compute, and how precisely."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from alignedreid_lib.errors import InputError

# The data type of convolutions and matrix products under autocast, by the name of a precision.
TYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,  # whose convolutions round their inputs to 10 bits of mantissa
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,  # needs a loss scale, see `training.step`
}
PRECISIONS = ("auto", *TYPES)


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is the GPU if there is one (CUDA, else Apple's, "mps"), else the CPU.

    Raises:
        InputError: no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise NotImplementedError("it computes nothing")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"device {name!r} cannot be used here ({reason}); use 'auto' or 'cpu'") from None
    return device


def is_accelerator(device: torch.device) -> bool:
    """True if the host runs ahead of the device, so that reading a result makes it wait: all devices but the CPU."""
    return device.type != "cpu"


def send(values: Any, device: torch.device) -> Tensor:
    """The values of a tensor, or of a packed batch, on a device; from pinned memory to CUDA the host does not wait.

    Only CUDA keeps the source's memory until an asynchronous copy has read it.
    """
    return values.to(device, non_blocking=device.type == "cuda")


def fetch(values: Tensor) -> NDArray[Any]:
    """The values on the host, bfloat16 as float32; the host waits until an accelerator has computed them."""
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def choose_precision(name: str, device: torch.device, width: int) -> str:
    """The precision of a network on a device: "float32", "tf32", "bfloat16" or "float16"; losses are always float32.

    float32 is IEEE's, also where a GPU would round the inputs of convolutions to TF32. tf32 does round them, and keeps
    matrix products in float32. bfloat16 and float16 are the data types of both, under autocast.

    "auto" takes bfloat16 where the hardware supports it: on GPUs since Ampere, and on CPUs with AVX512-BF16 or AMX.
    Other CPUs emulate it, several times slower than float32. Volta and Turing (V100, T4, RTX 20) get float16.
    On Apple's GPUs "auto" is float32: only some chips and versions of macOS have bfloat16, and PyTorch does not tell.

    Args:
        name: one of `PRECISIONS`.
        device: it is asked, not the current one.
        width: pixels of the network's input. Below 64 the last map is one column, and AMX convolutions with a stride
            of 2 then read beyond their input (PyTorch 2.15, oneDNN): "auto" takes float32 there.

    Raises:
        InputError: unknown name, tf32 where there is none, or 16 bits for images below 64 pixels on a CPU with AMX.
    """
    if name not in PRECISIONS:
        raise InputError(f"precision is {name!r}; it is one of {', '.join(PRECISIONS)}")
    unsafe = device.type == "cpu" and width < 64 and torch.cpu._is_amx_tile_supported()
    if name in ("bfloat16", "float16") and unsafe:
        raise InputError(f"precision {name} is not safe on this CPU for images {width} pixels wide; use float32")
    if name == "tf32" and not (device.type == "cuda" and _of(device, torch.cuda.is_tf32_supported)):
        raise InputError(f"precision tf32 needs an NVIDIA GPU since Ampere, not {device}; use float32")
    bfloat16 = device.type == "cuda" and _of(device, torch.cuda.is_bf16_supported, including_emulation=False)
    if name == "bfloat16" and device.type == "cuda" and not bfloat16:
        raise InputError(f"precision bfloat16 needs an NVIDIA GPU since Ampere, not {device}; use float16 or float32")
    if name != "auto":
        return name
    if device.type == "cuda":
        if bfloat16:
            return "bfloat16"
        return "float16" if torch.cuda.get_device_capability(device) >= (7, 0) else "float32"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    native &= torch.backends.cpu.get_cpu_capability().startswith("AVX512")  # ATEN_CPU_CAPABILITY may forbid it
    return "bfloat16" if device.type == "cpu" and native and not unsafe else "float32"


def _of(device: torch.device, question: Callable[..., bool], **how: bool) -> bool:
    """What torch answers of its current GPU, asked of this one."""
    with torch.cuda.device(device):
        return question(**how)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context for the network's forward pass."""
    kind = TYPES[precision]
    return torch.autocast(device.type, dtype=kind, enabled=kind != torch.float32)


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Inside, GPUs compute float32 as the precision's name promises; by default convolutions are TF32 since Ampere.

    It has to surround the backward pass, too. Distances and losses are products of matrices and stay exact.
    """
    cudnn: Any = torch.backends.cudnn  # with attributes that mypy does not see
    products = torch.backends.cuda.matmul
    convolutions, level = cudnn.conv.fp32_precision, "high" if products.fp32_precision == "tf32" else "highest"
    with suppress(RuntimeError):  # of a session that has used torch's newer interface to these
        level = torch.get_float32_matmul_precision()

    def choose(of_convolutions: str, of_products: str) -> None:
        cudnn.allow_tf32 = of_convolutions == "tf32"  # of old and new interface, so that they agree
        cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = of_convolutions
        torch.set_float32_matmul_precision(of_products)

    try:
        choose("tf32" if precision == "tf32" else "ieee", "highest")
        yield
    finally:
        choose(convolutions, level)


def reserve_workspace() -> None:
    """Give cuBLAS a workspace of fixed size, unless the environment has one; cuBLAS reads this at its first product.

    Without it, `deterministic` fails on a GPU: older versions of torch refuse products there.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Inside, if wanted, an operation whose result depends on timing is an error.

    Else cuDNN times its convolutions at the first batch of each shape and takes the fastest. A training has one shape,
    or two if its last batch is smaller.
    """
    algorithms, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if wanted:
        reserve_workspace()
    try:
        torch.use_deterministic_algorithms(wanted or algorithms)
        torch.backends.cudnn.benchmark = not (wanted or algorithms)
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms)
        torch.backends.cudnn.benchmark = benchmark


@contextmanager
def out_of_memory(work: str, advice: str = "lower batch_size, height or width") -> Iterator[None]:
    """Inside, an InputError that names the work takes the place of a device's error that its memory is full."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise InputError(
            f"{work}: out of memory; end other programs that use the device, {advice}, or use precision bfloat16 or "
            "float16, or device 'cpu'"
        ) from None


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` of a GPU start from now; that of a process cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def free_memory(device: torch.device) -> int:
    """Bytes of an accelerator that are free now; where it does not tell, as many as you like."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else sys.maxsize


def peak_memory(device: torch.device) -> float:
    """The peak memory of the GPU since `reset_peak_memory` or, on a CPU, of this process, MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3

"""A guard on the CPU that stands in for a GPU: inside it, an operation that would make the host wait is an error.

On a GPU the host queues work and runs ahead. Where a result decides what the host does next, the host waits until the
device has finished all that was queued. On a CPU nothing waits, so what would wait is refused by its name.

Refused: reading (`item`, `tolist`, `numpy`, `cpu`, `bool`, `int`, `float`, numpy's own conversion, printing);
operations whose output has a size that the values decide (`nonzero`, `unique`, `masked_select`, indexing with a mask,
`repeat_interleave` without a size, `bincount`); comparisons that answer a bool (`equal`, `allclose`, `is_nonzero`).

It shows that code on tensors contains none of these, on the lines that the test runs in this thread. It cannot show:
copies between a device and the host by `to` or `copy_` (here both are the CPU), copies from memory that is not pinned,
an allocation that synchronises, waits inside a kernel's own code, other threads, and lines that only a GPU runs. So the
library chooses such lines with `devices.is_accelerator`, which a test patches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

READINGS = {
    *(torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.item, torch.Tensor.__array__),
    *(torch.Tensor.__bool__, torch.Tensor.__int__, torch.Tensor.__float__, torch.Tensor.__index__),
    *(torch.Tensor.__repr__, torch.Tensor.__format__, torch.Tensor.__contains__),
}
WAITING = {
    *(aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.allclose, aten.nonzero, aten.nonzero_numpy),
    *(aten.masked_select, aten._unique, aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.bincount),
    *(aten.unique_dim_consecutive, aten.repeat_interleave, aten.histc, aten.argwhere),
}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}


class HostWait(AssertionError):
    """The name of what would have made the host wait for the device."""


class HostWaits:
    """What `forbid_host_waits` gives: `fetched` counts the readings that were allowed, by what allowed them."""

    def __init__(self) -> None:
        self.fetched: Counter[str] = Counter()
        self.depth = 0  # of allowed blocks

    @contextmanager
    def allowed(self, name: str = "") -> Iterator[None]:
        """Inside, results may be read."""
        self.fetched[name] += 1
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def allowing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, inside which results may be read; for `monkeypatch.setattr`."""

        def allowed(*args: Any, **kwargs: Any) -> Any:
            with self.allowed(function.__name__):
                return function(*args, **kwargs)

        return allowed

    def refuse(self, name: str) -> None:
        if self.depth == 0:
            raise HostWait(f"{name} makes the host wait for the device")


@contextmanager
def forbid_host_waits() -> Iterator[HostWaits]:
    """Inside, what would make the host wait raises HostWait, except in blocks that are `allowed`."""
    waits = HostWaits()
    with _Calls(waits), _Operations(waits):
        yield waits


class _Calls(TorchFunctionMode):
    """Sees calls of Python's interface: also those that copy nothing on a CPU."""

    def __init__(self, waits: HostWaits):
        super().__init__()
        self.waits = waits

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in READINGS:
            self.waits.refuse(resolve_name(function) or str(function))
        return function(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    """Sees every operation, also those that autograd and C++ call."""

    def __init__(self, waits: HostWaits):
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        packet = operation.overloadpacket
        sized = operation is aten.repeat_interleave.Tensor and kwargs.get("output_size") is not None
        if packet in WAITING and not sized:
            self.waits.refuse(str(operation))
        if packet in INDEXING:
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            if masks:
                self.waits.refuse(f"{operation} with a mask")
        return operation(*args, **kwargs)

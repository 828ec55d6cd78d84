"""Several processes that train as one: each embeds its share of every batch, all of them see the whole batch's loss.

In the forward pass `gather` joins the features of all, and each process computes the same loss, with hard samples mined
over the whole batch. In the backward pass each computes the gradient of its own features; `sum_gradients` adds these up
to the gradient of the whole batch. With one process all of this does nothing. Derived in notebooks/06_training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from alignedreid_lib.errors import InputError

PATIENCE = timedelta(hours=2)  # how long the others wait for the first, which may be validating or writing

Result = TypeVar("Result")


def started() -> bool:
    """True if this process is one of several, see `launching.joined`."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number, from 0; 0 where there is only one."""
    return dist.get_rank() if started() else 0


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if started() else 1


def gather(own: Tensor) -> Tensor:
    """The rows of all processes, in the processes' order.

    Args:
        own: [n, ...], as many rows in every process.

    Returns:
        [count * n, ...], the same in every process; with one process `own` itself. The gradient reaches only `own`;
        `sum_gradients` adds the processes' parts.
    """
    if not started():
        return own
    parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(count())]
    dist.all_gather(parts, own.detach().contiguous())
    parts[rank()] = own
    return torch.cat(parts)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its sum over the processes: that of the whole batch's loss. One message for all."""
    if not started():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(together)
    spread(together, gradients)


def spread(together: Tensor, gradients: Sequence[Tensor]) -> None:
    """Copy numbers that were joined end to end into the gradients that they are for."""
    for gradient, own in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(own.view_as(gradient))


def mean_over_processes(own: Tensor) -> Tensor:
    """The mean of a tensor over the processes; its gradient is the sum of those that reach it in all processes."""

    def add_up(gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total

    total = own.clone()
    dist.all_reduce(total.detach())  # in place; no operation for autograd
    if total.requires_grad:
        total.register_hook(add_up)
    return total / count()


class SynchronizedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with the mean and the variance of the whole batch, on a CPU, where PyTorch's own does not work."""

    def forward(self, input: Tensor) -> Tensor:
        """[n, C, h, w], the same n in every process."""
        if not (self.training and started()):
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
            mean = mean_over_processes(x.mean((0, 2, 3)))
            centred = x - mean[:, None, None]
            variance = mean_over_processes(centred.square().mean((0, 2, 3)))
            if self.track_running_stats and self.momentum is not None:
                assert self.running_mean is not None and self.running_var is not None
                assert self.num_batches_tracked is not None
                n = count() * x.numel() // x.shape[1]
                with torch.no_grad():
                    self.num_batches_tracked += 1
                    self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
                    self.running_var.lerp_((variance * n / (n - 1)).to(self.running_var), self.momentum)
            scale = torch.rsqrt(variance + self.eps) * self.weight
            return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)


def synchronize_batch_norm(network: nn.Module, device: torch.device) -> None:
    """Replace every batch norm inside a network by one over all processes; the names of its parameters stay."""
    if device.type != "cpu":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return
    for name, module in list(network.named_modules()):
        if type(module) is nn.BatchNorm2d:
            ours = SynchronizedBatchNorm2d(module.num_features, module.eps, module.momentum)
            ours.load_state_dict(module.state_dict())
            ours.bias.requires_grad_(module.bias.requires_grad)  # a neck has no shift
            network.set_submodule(name, ours)


def gather_objects(own: Any) -> list[Any]:
    """A small picklable object of every process, in the processes' order; the same list in every process."""
    if not started():
        return [own]
    everything: list[Any] = [None] * count()
    dist.all_gather_object(everything, own)
    return everything


def patient_group() -> dist.ProcessGroup | None:
    """The processes as a second group, whose messages may take as long as `PATIENCE`; None with one process.

    It is for waiting while the first process works alone. All processes have to call it.
    """
    if not started():
        return None
    group = dist.new_group(timeout=PATIENCE, backend="gloo")
    assert isinstance(group, dist.ProcessGroup)  # all processes are members
    return group


def wait_for_first(patient: dist.ProcessGroup | None) -> None:
    """Wait until every process calls this; the first may come hours after the others."""
    if started():
        dist.barrier(patient)


def from_first(make: Callable[[], Result], patient: dist.ProcessGroup | None = None) -> Result:
    """The result of `make`, called in the first process; its result or its InputError reaches all processes.

    Args:
        patient: see `patient_group`; None for work that ends within the time limit of a collective.
    """
    if not started():
        return make()
    box: list[Any] = [None, None]
    if rank() == 0:
        try:
            box[0] = make()
        except InputError as error:
            box[1] = str(error)
    dist.broadcast_object_list(box, src=0, group=patient)
    if box[1] is not None:
        raise InputError(box[1])
    return box[0]

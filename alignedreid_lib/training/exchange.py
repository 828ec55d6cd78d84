"""Gradients summed over processes while the backward pass still computes. Derived in notebooks/06_training."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from alignedreid_lib.training import distributed

BUCKET = 8 << 20  # bytes of a message: enough to use the connection well, and the first one leaves early


class GradientExchange:
    """Sums the gradients of a network over the processes; the messages travel while the backward pass goes on.

    The result is that of `distributed.sum_gradients`, the gradient of the whole batch's loss. The first step finds out
    which parameters have a gradient. From the second step on the gradients of the last layers, which come first, leave
    as soon as their bucket is full. Buckets leave in the same order in every process. Autograd's hook tells when a
    gradient is there; nothing else does.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], bucket_bytes: int = BUCKET) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.bucket_bytes = bucket_bytes
        self.buckets: list[list[nn.Parameter]] = []  # none before the end of the first step
        self.missing: list[set[nn.Parameter]] = []  # what each bucket still waits for in this step
        self.sent: list[tuple[dist.Work, Tensor]] = []  # the messages of this step, one per bucket
        for parameter in self.parameters:
            parameter.register_post_accumulate_grad_hook(self._arrived)

    def finish(self) -> None:
        """To be called after the backward pass: every gradient becomes its sum over the processes.

        Raises:
            RuntimeError: a parameter that had a gradient in the first step has none now, or the other way round.
        """
        if not self.buckets:
            distributed.sum_gradients(self.parameters)
            self._fill_buckets()
        elif len(self.sent) < len(self.buckets):
            raise RuntimeError("a parameter has no gradient, but it had one in the first step")
        for bucket, (work, together) in zip(self.buckets, self.sent, strict=False):
            work.wait()  # a GPU's stream waits, the host does not
            distributed.spread(together, [p.grad for p in bucket if p.grad is not None])
        self.missing, self.sent = [set(bucket) for bucket in self.buckets], []

    def _fill_buckets(self) -> None:
        size = self.bucket_bytes
        for parameter in reversed(self.parameters):
            if parameter.grad is not None:
                size += parameter.grad.nbytes
                if size > self.bucket_bytes:
                    self.buckets.append([])
                    size = parameter.grad.nbytes
                self.buckets[-1].append(parameter)

    def _arrived(self, parameter: nn.Parameter) -> None:
        """Note a gradient; send the buckets that are full, in their order."""
        if not self.buckets:
            return
        waiting = next((missing for missing in self.missing if parameter in missing), None)
        if waiting is None:
            raise RuntimeError("a parameter has a gradient, but it had none in the first step")
        waiting.remove(parameter)
        while len(self.sent) < len(self.buckets) and not self.missing[len(self.sent)]:
            gradients = [p.grad.flatten() for p in self.buckets[len(self.sent)] if p.grad is not None]
            together = torch.cat(gradients)
            work = dist.all_reduce(together, async_op=True)
            assert work is not None
            self.sent.append((work, together))

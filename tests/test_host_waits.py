"""The guard that stands in for a GPU refuses what it says, and nothing else."""

import numpy as np
import pytest
import torch
from host_waits import HostWait, forbid_host_waits

X = torch.tensor([0.0, 2.0, 1.0])
WAITS = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool(x.isnan().any()),
    "if": lambda x: 1 if (x > 0).all() else 0,
    "int": lambda x: int(x[0]),
    "float": lambda x: float(x[0]),
    "range": lambda x: range(x.long()[1]),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "asarray": lambda x: np.asarray(x),
    "cpu": lambda x: x.cpu(),
    "print": lambda x: f"{x} {x[0]}",
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 0),
    "argwhere": lambda x: torch.argwhere(x),
    "unique": lambda x: x.unique(),
    "unique of rows": lambda x: x[None].unique(dim=0),
    "unique_consecutive": lambda x: x.unique_consecutive(),
    "masked_select": lambda x: x.masked_select(x > 0),
    "a mask": lambda x: x[x > 0],
    "a mask assigned": lambda x: x.clone().__setitem__(x > 0, torch.ones(2)),
    "repeat_interleave": lambda x: x.repeat_interleave(torch.tensor([1, 2, 1])),
    "bincount": lambda x: x.long().bincount(),
    "equal": lambda x: torch.equal(x, x.clone()),
    "allclose": lambda x: torch.allclose(x, x.clone()),
    "in": lambda x: 2.0 in x,
    "iterated": lambda x: [float(value) for value in x],
}
QUEUED = {
    "arithmetic": lambda x: (x + 1).sum(),
    "an index": lambda x: x[torch.tensor([2, 0])],
    "an index assigned": lambda x: x.clone().index_put_((torch.tensor([0]),), torch.ones(1)),
    "a slice": lambda x: x[1:],
    "masked_fill": lambda x: x.masked_fill(x > 1, 0),
    "where of three": lambda x: torch.where(x > 1, x, 0),
    "sort": lambda x: x.sort(stable=True),
    "topk": lambda x: x.topk(2),
    "sized": lambda x: x.repeat_interleave(torch.tensor([1, 2, 1]), output_size=4),
    "shape": lambda x: (len(x), x.shape, x.dtype, x.device),
    "gradient": lambda x: x.clone().requires_grad_().square().sum().backward(),
    "network": lambda x: torch.nn.Conv2d(1, 2, 3)(x.expand(1, 1, 3, 3)),
}


@pytest.mark.parametrize("name", WAITS)
def test_what_would_wait_is_refused(name):
    with forbid_host_waits() as waits:
        with pytest.raises(HostWait, match="makes the host wait"):
            WAITS[name](X)
        with waits.allowed("a fetch"):
            WAITS[name](X)
        assert waits.fetched == {"a fetch": 1}
    WAITS[name](X)


@pytest.mark.parametrize("name", QUEUED)
def test_what_is_only_queued_is_not(name):
    with forbid_host_waits() as waits:
        QUEUED[name](X)
    assert not waits.fetched


def test_a_function_that_may_read():
    with forbid_host_waits() as waits:
        assert waits.allowing(torch.Tensor.tolist)(X) == [0, 2, 1]
        with pytest.raises(HostWait):
            X.tolist()
    assert waits.fetched == {"tolist": 1}

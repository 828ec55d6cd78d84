"""Convolutions onto maps of one or two cells: a matrix product that gives what PyTorch's convolution gives."""

import pytest
import torch
from torch import nn

from alignedreid_lib.model import AlignedReID, SmallMapConv2d

pytestmark = pytest.mark.arithmetic


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "bias"),
    [
        ((2, 1), 3, 1, 1, False),
        ((4, 2), 3, 2, 1, False),
        ((1, 1), 3, 1, 1, True),
        ((3, 3), 3, 1, 0, True),
        ((2, 1), (3, 1), 1, (1, 0), False),
        ((1, 2), (1, 7), 1, (0, 3), False),
        ((7, 5), 5, 4, 1, True),
        ((8, 4), 3, 2, 1, False),  # a larger map: computed as always
    ],
)
def test_a_convolution_onto_a_small_map_is_the_plain_one(size, kernel, stride, padding, bias):
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 5, kernel, stride, padding, bias=bias).double().to(memory_format=torch.channels_last)
    ours = SmallMapConv2d(3, 5, kernel, stride, padding, bias=bias).double()
    ours.load_state_dict(plain.state_dict())
    x = torch.randn(4, 3, *size, dtype=torch.float64)
    found = []
    for conv in (plain, ours):
        given = x.clone().requires_grad_()
        output = conv(given)
        output.square().sum().backward()
        found.append([output, given.grad, *(p.grad for p in conv.parameters())])
    for expected, value in zip(*found, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


def test_a_network_on_small_pictures_takes_no_slow_convolution(monkeypatch):
    """ResNet-18 on 64 x 32 pictures ends in maps of 2 x 1: four of its convolutions are products."""
    network = AlignedReID("resnet18").train()
    calls = []
    linear = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda *given: calls.append(1) or linear(*given))
    network(torch.zeros(2, 3, 64, 32))
    assert len(calls) == 4

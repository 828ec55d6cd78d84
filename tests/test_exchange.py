"""Gradients are summed while the backward pass goes on: the sums are those of one message after it."""

import copy
import dataclasses
from unittest import mock

import pytest
import torch
import torch.distributed as dist

from alignedreid_lib.training import TrainConfig, distributed, launching, step
from alignedreid_lib.training import learner as making
from alignedreid_lib.training.exchange import GradientExchange

# What the processes do; they find it here by name.


def learner_of(config):
    learner = making.make_learner(dataclasses.replace(config, backbone="resnet18"), 0, num_ids=4)
    learner.network.train()
    learner.optimizer.step = lambda: None
    return learner


def batch_of(number):
    """Images of this process, and the labels of all."""
    generator = torch.Generator().manual_seed(number)
    batch = torch.randint(0, 256, (12, 3, 32, 16), dtype=torch.uint8, generator=generator)
    return batch.chunk(distributed.count())[distributed.rank()], torch.arange(12) // 3


def exchanged(config, bucket_bytes):
    """Three steps beside the same steps with one message after the backward pass.

    Returns:
        of each step whether all gradients are equal, and how many are absent; of each message of the third step, how
        many gradients were there when it left; the number of gradients.
    """
    learner = learner_of(config)
    plain = dataclasses.replace(learner, network=copy.deepcopy(learner.network), exchange=None)
    plain.forward = plain.network
    parameters = list(learner.network.parameters())
    learner.exchange.bucket_bytes = bucket_bytes
    equal, absent, there = [], [], []

    def watched(tensor, async_op=False, **how):
        if async_op:
            there.append(sum(parameter.grad is not None for parameter in parameters))
        return send(tensor, async_op=async_op, **how)

    send = dist.all_reduce
    for number in range(3):
        there.clear()
        with mock.patch.object(dist, "all_reduce", watched):
            step.train_step(learner, *batch_of(number), config)
        plain.optimizer = mock.Mock(zero_grad=plain.network.zero_grad)
        step.train_step(plain, *batch_of(number), config)
        gradients = [(one.grad, two.grad) for one, two in zip(parameters, plain.network.parameters(), strict=True)]
        equal.append(all(torch.equal(one, two) for one, two in gradients if two is not None))
        absent.append([one is None for one, _ in gradients] == [two is None for _, two in gradients])
    return equal, absent, there, sum(parameter.grad is not None for parameter in parameters)


def changing(config, first, then):
    """What is said to a parameter that has a gradient in the first step only, or in the second only."""
    learner = learner_of(config)
    step.train_step(learner, *batch_of(0), dataclasses.replace(config, local_weight=first))
    try:
        step.train_step(learner, *batch_of(1), dataclasses.replace(config, local_weight=then))
    except RuntimeError as error:
        return str(error)


def all_of(calls):
    return [function(*args) for function, *args in calls]


# The tests


@pytest.fixture(scope="module")
def found(warm):
    """What two processes make of everything, by name."""
    config = TrainConfig(
        dataset="tiny", height=32, width=16, weights=None, ids_per_batch=4, images_per_id=3, device="cpu",
        precision="float32", local_weight=1.0, id_weight=1.0, processes=2,
    )  # fmt: skip
    calls = {
        "small": (exchanged, config, 1 << 20),
        "whole": (exchanged, config, 1 << 30),
        "synchronised": (exchanged, dataclasses.replace(config, sync_batch_norm=True), 1 << 20),
        "without local": (exchanged, dataclasses.replace(config, local_weight=0.0), 1 << 20),
        "appears": (changing, config, 0.0, 1.0),
        "goes": (changing, config, 1.0, 0.0),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launching, "START_METHOD", warm.get_start_method())
        return dict(zip(calls, launching.launch(2, "cpu", all_of, list(calls.values())), strict=True))


@pytest.mark.parametrize("name", ["small", "whole", "synchronised", "without local"])
def test_the_sums_are_those_of_one_message_bit_for_bit(name, found):
    """The sum of two numbers has no order, so it is exact on any processor."""
    equal, absent, _, _ = found[name]
    assert equal == [True] * 3 and absent == [True] * 3


@pytest.mark.parametrize("name", ["small", "synchronised", "without local"])
def test_messages_leave_while_gradients_are_still_computed(name, found):
    _, _, there, total = found[name]
    assert len(there) > 3 and there == sorted(there)
    assert there[0] < total / 2 and there[-1] == total, "the first leaves early, the last takes the rest"


def test_gradients_that_fit_a_bucket_are_one_message(found):
    _, _, there, total = found["whole"]
    assert there == [total]


def test_gradients_that_come_and_go_are_an_error(found):
    assert found["appears"] == "a parameter has a gradient, but it had none in the first step"
    assert found["goes"] == "a parameter has no gradient, but it had one in the first step"


def test_buckets_are_filled_from_the_last_parameter_on():
    parameters = [torch.nn.Parameter(torch.zeros(n)) for n in (4, 4, 100, 4, 1)]
    exchange = GradientExchange(parameters, bucket_bytes=32)
    for parameter in (*parameters[:3], parameters[4]):  # the fourth has no gradient
        parameter.grad = torch.zeros_like(parameter)
    exchange.finish()
    assert [[len(p) for p in bucket] for bucket in exchange.buckets] == [[1], [100], [4, 4]]

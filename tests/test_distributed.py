"""Several processes train as one: the same loss, the same gradients, the same weights; and they fail as one."""

import dataclasses
import os
import signal
import threading
import time

import pytest
import torch
from torch import nn

from alignedreid_lib import distributed, launching, runs, steps
from alignedreid_lib.errors import InputError
from alignedreid_lib.training import TrainConfig, of_model, train

# What the processes do; they find it here by name.


def gathered():
    """Rows that name their process, gathered; and the gradient of a sum of squares over all rows."""
    own = torch.full((2, 3), float(distributed.rank() + 1), requires_grad=True)
    everything = distributed.gather(own)
    everything.square().sum().backward()
    return everything.detach(), own.grad


def one_step(config, double=True):
    """Loss and gradients of a step on a fixed batch, of which each process embeds its share."""
    torch.manual_seed(0)
    learner = steps.make_learner(config, 0, num_ids=4)
    if double:
        learner.network.double()
    learner.network.train()
    learner.optimizer.step = lambda: None
    batch = torch.randint(0, 256, (12, 3, 32, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(12) // 3
    own = batch.chunk(distributed.count())[distributed.rank()]
    forward = lambda x: learner.network(x.double() if double else x)  # noqa: E731
    figures = steps.train_step(forward, learner.optimizer, own, labels, config, torch.float32)
    gradients = {name: p.grad for name, p in learner.network.named_parameters()}
    statistics = {name: value for name, value in learner.network.named_buffers()}
    return figures["loss"], gradients, statistics


def refuse(where):
    if distributed.rank() == where:
        raise InputError("this one alone cannot go on")
    torch.distributed.barrier()


def crash():
    raise ZeroDivisionError("a fault of the program")


def from_first_of_two():
    def make():
        return {"made by": distributed.rank()}

    def fail():
        raise InputError("the first says no")

    try:
        distributed.from_first(fail)
    except InputError as error:
        return distributed.from_first(make), str(error), torch.get_num_threads()


def all_of(calls):
    """Several of them in one start of the processes."""
    return [function(*args) for function, *args in calls]


# The tests


def test_alone_nothing_happens():
    x = torch.ones(2, 3)
    assert distributed.gather(x) is x
    assert (distributed.rank(), distributed.count(), distributed.started()) == (0, 1, False)
    assert distributed.from_first(lambda: 7) == 7
    norm = nn.Sequential(nn.BatchNorm2d(3))
    distributed.synchronize_batch_norm(norm)
    x = torch.randn(4, 3, 2, 2)
    assert torch.equal(norm(x), nn.BatchNorm2d(3)(x))


@pytest.fixture(scope="module")
def config(tiny_data):
    return TrainConfig(
        data_root=str(tiny_data), dataset="tiny", height=32, width=16, backbone="resnet18", weights=None,
        ids_per_batch=4, images_per_id=3, base_lr=1e-3, total_epochs=2, decay_at_epoch=2, device="cpu",
        local_weight=1.0, id_weight=1.0, mirror_prob=0.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(config):
    """What two processes make of everything, by name."""
    two = dataclasses.replace(config, processes=2)
    steps = {
        "global": dataclasses.replace(two, sync_batch_norm=True),
        "local": dataclasses.replace(two, sync_batch_norm=True, local_mining="local"),
        "apart": two,
        "without local": dataclasses.replace(two, local_weight=0.0),
    }
    calls = [(gathered,), (from_first_of_two,), *((one_step, settings) for settings in steps.values())]
    return dict(zip(("gathered", "from first", *steps), launching.launch(2, "cpu", all_of, calls), strict=True))


def test_gather_brings_all_rows_and_takes_back_the_own_gradient(found):
    rows, gradient = found["gathered"]
    assert rows.tolist() == [[1.0] * 3] * 2 + [[2.0] * 3] * 2
    assert gradient.tolist() == [[2.0] * 3] * 2, "the first process's own rows, counted once"


@pytest.mark.parametrize("mining", ["global", "local"])
def test_two_processes_have_the_loss_and_gradients_of_one(config, found, mining):
    """All losses, and batch norm over the whole batch: in float64 nothing but rounding is between them."""
    loss, gradients, statistics = one_step(dataclasses.replace(config, local_mining=mining))
    found_loss, found_gradients, found_statistics = found[mining]
    torch.testing.assert_close(found_loss, loss, rtol=1e-5, atol=0)
    assert found_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():  # a bias before a batch norm has none but rounding
        torch.testing.assert_close(found_gradients[name], gradient, rtol=1e-5, atol=1e-12, msg=name)
    for name, value in statistics.items():
        torch.testing.assert_close(found_statistics[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_without_synchronised_batch_norm_each_share_is_normalised_by_itself(config, found):
    loss, _, _ = one_step(config)
    assert abs(float(found["apart"][0] - loss)) > 1e-3 * float(loss)


def test_a_parameter_without_gradient_stays_without(found):
    _, gradients, _ = found["without local"]
    assert gradients["local_conv.weight"] is None and gradients["fc.weight"] is not None


def test_two_processes_train_what_one_trains(config, tmp_path):
    one = train(config, tmp_path / "one")
    rows = []
    two = train(dataclasses.replace(config, processes=2, sync_batch_norm=True), tmp_path / "two", report=rows.append)
    assert rows == two.metrics == runs.read_metrics(tmp_path / "two") and len(rows) == 2
    assert rows[0]["loss"] == pytest.approx(one.metrics[0]["loss"], rel=1e-3)
    assert two.resumed_at == 0 and two.weights.exists()
    assert {p.name for p in (tmp_path / "two").iterdir()} == {p.name for p in (tmp_path / "one").iterdir()}
    again = train(dataclasses.replace(config, processes=2, sync_batch_norm=True), tmp_path / "two")
    assert again.resumed_at == 2, "a finished run is found without starting anything"


def killed_after(epoch, config, run_dir):
    """Train, and die as soon as the checkpoint of an epoch is there."""
    save = runs.save_checkpoint

    def save_and_die(folder, state):
        save(folder, state)
        if state["epoch"] == epoch:
            os.kill(os.getpid(), signal.SIGKILL)

    runs.save_checkpoint = save_and_die
    return train(config, run_dir)


def test_mutual_learning_in_two_processes_is_killed_and_resumed(config, tmp_path):
    config = dataclasses.replace(config, processes=2, num_models=2, global_mutual_weight=1.0, total_epochs=3)
    whole = train(config, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="SIGKILL"):
        launching.launch(2, "cpu", killed_after, 1, config, tmp_path / "cut")
    assert not (tmp_path / "cut" / "weights_1.pth").exists()
    resumed = train(config, tmp_path / "cut")
    assert resumed.resumed_at == 1 and len(of_model(resumed.metrics, 2)) == 3
    for paths in zip(whole.all_weights, resumed.all_weights, strict=True):
        a, b = map(torch.load, paths)
        buffers = ("running_mean", "running_var")  # of the first process only; they do not enter training
        assert all(torch.equal(a[name], b[name]) for name in a if not name.endswith(buffers))


def test_the_first_process_decides_for_all(found):
    made, message, threads = found["from first"]
    assert made == {"made by": 0} and message == "the first says no"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert threads == max(1, cores // 2)


@pytest.mark.parametrize("where", [0, 1])
def test_an_error_of_one_ends_all(where):
    with pytest.raises(InputError, match=r"^this one alone cannot go on$"):
        launching.launch(2, "cpu", refuse, where)


def test_interrupted_all_end_and_the_interrupt_works_afterwards():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    threading.Timer(6.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        launching.launch(2, "cpu", time.sleep, 60)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_crash_shows_its_traceback():
    with pytest.raises(RuntimeError, match=r"(?s)process \d.*in crash.*ZeroDivisionError: a fault of the program"):
        launching.launch(2, "cpu", crash)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"processes": 3}, "processes is 3; it has to be 1 or more, a divisor of ids_per_batch"),
        ({"processes": 0}, "processes is 0"),
        ({"sync_batch_norm": True}, "sync_batch_norm is True; it has to be False, unless"),
        ({"sync_batch_norm": True, "processes": 2, "compiled": True}, "sync_batch_norm"),
        ({"processes": 2, "num_models": 2, "model_devices": ("cpu", "cpu")}, "processes is 2"),
    ],
)
def test_settings_that_cannot_work_are_refused(config, change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(config, **change)


def test_joining_nothing_is_an_error():
    with pytest.raises(InputError, match="not started by torchrun"), launching.joined():
        pass

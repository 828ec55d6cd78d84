"""Processes that train together agree before the first step and after every epoch, or are refused by name."""

import contextlib
import dataclasses
import time
from unittest import mock

import pytest
import torch
import torch.distributed as dist

import alignedreid_lib
from alignedreid_lib import devices, runs
from alignedreid_lib.errors import InputError
from alignedreid_lib.training import TrainConfig, agreement, checkpoint, distributed, launching, loop, train
from alignedreid_lib.training import epoch as epochs
from alignedreid_lib.training import learner as making

# What the processes do; they find it here by name.


def in_second(patch):
    """The patch in the second process, nothing in the first."""
    return patch if distributed.rank() == 1 else contextlib.nullcontext()


def with_data(change):
    """A patch: the training finds a dataset that has been changed."""
    opened = loop.open_dataset
    return mock.patch.object(loop, "open_dataset", lambda *args: change(opened(*args)))


def renamed(dataset):
    return dataclasses.replace(dataset, paths=[path.with_name("x" + path.name) for path in dataset.paths])


def relabelled(dataset):
    return dataclasses.replace(dataset, labels=dataset.labels[::-1].copy())


def faster(config, epoch):
    return 10 * config.base_lr


DIFFERENT = {  # the second process's settings, what is patched there
    "learning rate": ({"base_lr": 2e-3}, contextlib.nullcontext),
    "seed": ({"seed": 2}, contextlib.nullcontext),
    "version": ({}, lambda: mock.patch.object(torch, "__version__", "0.4.0")),
    "library": ({}, lambda: mock.patch.object(alignedreid_lib, "__file__", "/nowhere/alignedreid_lib/__init__.py")),
    "names": ({}, lambda: with_data(renamed)),
    "labels": ({}, lambda: with_data(relabelled)),
    "precision": ({}, lambda: mock.patch.object(devices, "choose_precision", lambda *_: "bfloat16")),
    "rate of an epoch": ({}, lambda: mock.patch.object(epochs, "learning_rate", faster)),
    "weights at the start": (
        {},
        lambda: mock.patch.object(making, "set_seeds", lambda seed: torch.manual_seed(seed + 1)),
    ),
    "where to compute": ({"workers": 1, "memory_limit": 0}, contextlib.nullcontext),
}


def trained(config, run_dir):
    """The weights [parameters] that a training ends with, or what it says."""
    learners, make = [], making.make_learner

    def keep(*args):
        learners.append(make(*args))
        return learners[-1]

    try:
        with mock.patch.object(loop, "make_learner", keep):
            train(config, run_dir)
    except InputError as error:
        return str(error)
    return torch.cat([parameter.detach().flatten() for parameter in learners[0].network.parameters()])


def all_different(config, folder):
    """Of each difference, what every process is left with."""
    found = {}
    for name, (settings, patch) in DIFFERENT.items():
        own = dataclasses.replace(config, **(settings if distributed.rank() == 1 else {}))
        with in_second(patch()):
            found[name] = distributed.gather_objects(trained(own, folder / name))
    return found


def weights_compared(config):
    """What `check_weights` says in both processes to changed tensors of the second, by name."""
    found = {}
    for sync in (False, True):
        config = dataclasses.replace(config, sync_batch_norm=sync)
        for changed in ("base.bn1.running_mean", "base.bn1.num_batches_tracked", "base.conv1.weight"):
            learner = making.make_learner(dataclasses.replace(config, backbone="resnet18"), 0, 4)
            if distributed.rank() == 1:
                tensor = learner.network.state_dict()[changed]
                tensor[(0,) * tensor.ndim] += 1 if tensor.dtype == torch.int64 else 1e-6
            try:
                agreement.check_weights(7, config, [learner])
                said = ""
            except InputError as error:
                said = str(error)
            found[changed, sync] = distributed.gather_objects(said)
    return found


def waiting(config, run_dir):
    """Whether each process found the work of the first finished before every epoch; a report takes long there."""
    finished, train_epoch = [], loop.train_epoch

    def begin(epoch, *args):
        finished.append(epoch == 1 or (run_dir / f"reported_{epoch - 1}").exists())
        return train_epoch(epoch, *args)

    def report(row):
        time.sleep(1)
        (run_dir / f"reported_{row['epoch']}").touch()

    with mock.patch.object(loop, "train_epoch", begin):
        result = train(config, run_dir, report)
    return distributed.gather_objects(finished), result.metrics


def limits():
    """The time limits of a collective and of the patient group."""
    cpu, groups = torch.device("cpu"), (dist.group.WORLD, distributed.patient_group())
    return [group._get_backend(cpu).options._timeout for group in groups]


def peaks(config, run_dir):
    with mock.patch.object(devices, "peak_memory", lambda device: 10.0 * (1 + distributed.rank())):
        return [row["peak_memory_mb"] for row in train(config, run_dir).metrics]


def random_states(config, run_dir):
    """Both processes draw differently often; the states that they had, and those that they get from the checkpoint."""
    train_epoch, restored = loop.train_epoch, []

    def draw(*args):
        torch.rand(1 + distributed.rank())
        return train_epoch(*args)

    cuda = {  # a stand-in for GPUs: each process has used its own only
        "get_rng_state_all": lambda: [torch.tensor([distributed.rank()], dtype=torch.uint8)],
        "set_rng_state_all": restored.append,
        "device_count": lambda: 1,
    }
    with mock.patch.object(loop, "train_epoch", draw), mock.patch.multiple(torch.cuda, **cuda):
        train(config, run_dir)
        own = torch.get_rng_state()
        torch.manual_seed(9)
        train(config, run_dir)
    return distributed.gather_objects((own, torch.get_rng_state(), [int(state[0]) for state in restored]))


def all_of(calls):
    return [function(*args) for function, *args in calls]


# The tests


@pytest.fixture(scope="module")
def config(tiny_data):
    return TrainConfig(
        data_root=str(tiny_data), dataset="tiny", height=32, width=16, backbone="shufflenet_v2_x0_5", weights=None,
        ids_per_batch=4, images_per_id=2, total_epochs=2, decay_at_epoch=2, device="cpu", precision="float32",
        processes=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(config, warm, tmp_path_factory):
    """What two processes make of everything, by name."""
    folder = tmp_path_factory.mktemp("agreement")
    calls = {
        "different": (all_different, dataclasses.replace(config, total_epochs=1, decay_at_epoch=1), folder),
        "weights": (weights_compared, config),
        "waiting": (waiting, config, folder / "waiting"),
        "limits": (limits,),
        "peaks": (peaks, config, folder / "peaks"),
        "random": (random_states, config, folder / "random"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launching, "START_METHOD", warm.get_start_method())
        return dict(zip(calls, launching.launch(2, "cpu", all_of, list(calls.values())), strict=True))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("learning rate", "process 1 has base_lr 0.002, process 0 has 0.0002; give every process the same settings"),
        ("seed", "process 1 has seed 2, process 0 has 1; give every process the same settings"),
        ("version", f"process 1 has torch '0.4.0', process 0 has {torch.__version__!r}; install the same versions"),
        ("library", "process 1 has library files '"),
        ("names", "process 1 has digest of names and labels '"),
        ("labels", "process 1 has digest of names and labels '"),
        ("precision", "process 1 has precision 'bfloat16', process 0 has 'float32'; set precision to float32"),
        ("rate of an epoch", "epoch 1: process 1 and process 0 have different weights (model 1: base."),
    ],
)
def test_a_difference_is_refused_by_name_in_every_process(name, message, found):
    first, second = found["different"][name]
    assert isinstance(first, str) and first == second and first.startswith(message) and "\n" not in first


def test_the_weights_of_the_first_are_those_of_all(found):
    first, second = found["different"]["weights at the start"]
    assert torch.equal(first, second)


def test_where_to_compute_may_differ(found):
    first, second = found["different"]["where to compute"]
    assert torch.equal(first, second)


def test_one_changed_bit_of_the_weights_is_found_and_statistics_of_a_share_may_differ(found):
    said = found["weights"]
    assert said["base.bn1.running_mean", False] == ["", ""], "each process has the statistics of its own images"
    for changed, sync in said.keys() - {("base.bn1.running_mean", False)}:
        message = f"epoch 7: process 1 and process 0 have different weights (model 1: {changed}); the last good"
        assert all(text.startswith(message) for text in said[changed, sync])


def test_an_epoch_begins_when_the_first_has_finished_its_own_work(found):
    finished, metrics = found["waiting"]
    assert finished == [[True, True], [True, True]] and len(metrics) == 2


def test_a_collective_has_ten_minutes_and_the_first_process_two_hours(found):
    assert [limit.total_seconds() / 60 for limit in found["limits"]] == [10, 120]


def test_the_peak_memory_is_the_largest_of_all_processes(found):
    assert found["peaks"] == [20.0, 20.0]


def test_every_process_gets_its_own_random_states_back(found):
    (first, first_again, first_gpus), (second, second_again, second_gpus) = found["random"]
    assert torch.equal(first, first_again) and torch.equal(second, second_again)
    assert not torch.equal(first, second) and (first_gpus, second_gpus) == ([0], [1])


def test_alone_nothing_is_compared():
    agreement.check_start(None, None, None)
    agreement.check_weights(1, None, None)
    agreement.share_weights(None)
    distributed.wait_for_first(distributed.patient_group())
    assert distributed.gather_objects("own") == ["own"]


def test_devices_that_cannot_exchange_are_refused(monkeypatch):
    monkeypatch.setattr(distributed, "started", lambda: True)
    learner = making.Learner(None, None, None, torch.device("mps"), "float32")
    with pytest.raises(
        InputError, match="several processes cannot exchange tensors of device mps; set device to 'cpu'"
    ):
        agreement.check_start(None, None, learner)


def test_a_checkpoint_with_the_random_states_of_the_first_process_goes_on(config, tmp_path):
    """As version 0.1 wrote it."""
    config = dataclasses.replace(config, processes=1)

    def stop(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", stop)
    state = runs.load_checkpoint(tmp_path / "run")
    state["random"] = expected = state["random"][0]
    expected["torch"] = torch.Generator().manual_seed(77).get_state()
    learner = making.make_learner(config, 0, 6)
    checkpoint.Run(config, tmp_path / "run", [learner], {}).restore(state)
    assert torch.equal(torch.get_rng_state(), expected["torch"])

"""One loop: it learns, it repeats itself exactly, it survives kills."""

import dataclasses
import functools
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from alignedreid_lib import devices, losses, runs, training
from alignedreid_lib.alignment import local_distances
from alignedreid_lib.batches import images
from alignedreid_lib.batches.sampling import IdentitySampler
from alignedreid_lib.datasets import Partitions
from alignedreid_lib.datasets.partitions import make_partitions
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import ScoreTable, full_run
from alignedreid_lib.model import AlignedReID, Embedding
from alignedreid_lib.training import TrainConfig, checkpoint, train, train_step
from alignedreid_lib.training import epoch as epochs
from alignedreid_lib.training import learner as making


@pytest.fixture
def config(tiny_data):
    return TrainConfig(
        data_root=str(tiny_data), dataset="tiny", height=32, width=16, backbone="shufflenet_v2_x0_5", weights=None,
        ids_per_batch=3, images_per_id=2, base_lr=1e-3, total_epochs=4, decay_at_epoch=3, device="cpu",
        precision="float32", checkpoint_every=0.0,
    )  # fmt: skip


def same(one, two):
    one, two = (torch.load(path, weights_only=True) for path in (one, two))
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def close(one, two):
    """Equal but for the rounding of losses in float32, which is of the size of their largest gradient."""
    assert (one - two).abs().max() <= 1e-5 * two.abs().max() + 1e-10


def test_a_run_leaves_what_it_should(config, tmp_path):
    rows = []
    result = train(config, tmp_path / "run", report=rows.append)
    assert result.resumed_at == 0 and result.metrics == rows and len(rows) == 4
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "config.json", "metrics.jsonl", "checkpoint.pt", "weights.pth", "tensorboard",
    }  # fmt: skip
    assert json.loads((tmp_path / "run" / "config.json").read_text())["backbone"] == config.backbone
    assert runs.read_metrics(tmp_path / "run") == rows
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[0]["lr"] == 1e-3 > rows[3]["lr"]
    found = train(config, tmp_path / "run")
    assert found.resumed_at == 4 and found.metrics == rows


@pytest.mark.arithmetic
def test_it_learns(config, tmp_path):
    config = dataclasses.replace(config, total_epochs=30, decay_at_epoch=30, backbone="resnet18", id_weight=1.0)
    metrics = train(config, tmp_path / "run").metrics
    first, last = (sum(row["loss"] for row in part) / 5 for part in (metrics[:5], metrics[-5:]))
    assert last < 0.5 * first, "six colours are easy to tell apart"
    assert {"global_loss", "id_loss"} <= metrics[0].keys()


@pytest.mark.arithmetic
def test_one_seed_one_result_whatever_the_workers(config, tmp_path):
    one = train(config, tmp_path / "one")
    two = train(dataclasses.replace(config, workers=4, memory_limit=0), tmp_path / "two")
    other = train(dataclasses.replace(config, seed=2), tmp_path / "other")
    assert same(one.weights, two.weights)
    assert not same(one.weights, other.weights)


def stop_after(epoch):
    def report(row):
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    return report


@pytest.mark.arithmetic
def test_cut_and_resumed_equals_undisturbed(config, tmp_path):
    config = dataclasses.replace(config, crop_prob=0.5, crop_ratio=0.8)
    whole = train(config, tmp_path / "whole")
    for epoch in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "cut", report=stop_after(epoch))
    resumed = train(config, tmp_path / "cut")
    assert resumed.resumed_at == 3
    assert same(whole.weights, resumed.weights)
    strip = lambda rows: [{k: v for k, v in row.items() if "second" not in k and "memory" not in k} for row in rows]  # noqa: E731
    assert strip(resumed.metrics) == strip(whole.metrics)


NEVER = 1e9  # seconds


@pytest.mark.arithmetic
@pytest.mark.parametrize("num_models", [1, 2])
def test_interrupted_within_an_epoch_the_last_finished_one_is_saved(config, tmp_path, monkeypatch, num_models):
    """Not the weights and moments of the steps since; the end is the undisturbed, bit for bit."""
    config = dataclasses.replace(config, num_models=num_models, checkpoint_every=NEVER)
    whole, steps, take = train(config, tmp_path / "whole"), [], epochs.mutual_step

    def interrupted(*given):
        figures = take(*given)
        steps.append(figures)
        if len(steps) == 8:  # of 2 an epoch: the last step of the fourth, before its end
            raise KeyboardInterrupt
        return figures

    with monkeypatch.context() as patch:
        patch.setattr(epochs, "mutual_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "cut")
    resumed = train(config, tmp_path / "cut")
    assert resumed.resumed_at == 3
    assert all(same(*paths) for paths in zip(whole.all_weights, resumed.all_weights, strict=True))


def test_checkpoints_are_by_time_and_at_the_end(config, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(runs, "save_checkpoint", lambda folder, state: saved.append(state["epoch"]))
    for every, wanted in ((0.0, [1, 2, 3, 4]), (NEVER, [4])):
        train(dataclasses.replace(config, checkpoint_every=every), tmp_path / str(every))
        assert saved == wanted
        saved.clear()
        assert len(runs.read_metrics(tmp_path / str(every))) == 4, "a row per epoch"


def test_rows_ahead_of_the_checkpoint_are_cut(config, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", report=stop_after(2))
    rows = runs.read_metrics(tmp_path / "run")
    runs.write_metrics(tmp_path / "run", [*rows, rows[1] | {"epoch": 3}])  # as a kill leaves it
    assert checkpoint.finished_epochs(config, tmp_path / "run") == 2
    assert runs.read_metrics(tmp_path / "run") == rows
    (tmp_path / "run" / "checkpoint.pt").unlink()
    assert checkpoint.finished_epochs(config, tmp_path / "run") == 0 and runs.read_metrics(tmp_path / "run") == []


def test_the_wall_s_minutes_count_what_the_training_s_leave_out(split_config, tmp_path):
    config = dataclasses.replace(split_config, checkpoint_every=0.0)

    def validate(network):
        time.sleep(0.3)
        return {"mean_ap": 0.5}

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", stop_after(2), validate)
    result = train(config, tmp_path / "run", None, validate)
    assert result.wall_minutes >= result.minutes + 4 * 0.3 / 60
    assert train(config, tmp_path / "run", None, validate).wall_minutes == result.wall_minutes, "once it is finished"


# What a process does that is killed; it finds it here by name.


def on_one_thread(function, *args):
    torch.set_num_threads(1)
    function(*args)


def train_on_a_leash(config, run_dir, epochs, link):
    """Tell each finished epoch; after `epochs` of them wait for the end, which so never comes too late."""
    state = runs.load_checkpoint(run_dir)
    first = state["epoch"] if state else 0

    def report(row):
        link.send(row["epoch"])
        if row["epoch"] == first + epochs:
            link.recv()

    train(config, run_dir, report)


def train_until_a_write(config, run_dir, share):
    """Die in the write of the second checkpoint: with a share of its bytes written, or just after it has its name."""
    checkpoints, save, replace = [], torch.save, os.replace

    def save_in_part(content, path, **how):
        save(content, path, **how)
        if not isinstance(path, Path):  # a message to a different process
            return
        checkpoints.append(path)
        if len(checkpoints) == 2 and share is not None:
            os.truncate(path, int(share * path.stat().st_size))
            os.kill(os.getpid(), signal.SIGKILL)

    def replace_and_die(source, path):
        replace(source, path)
        if len(checkpoints) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save, os.replace = save_in_part, replace_and_die
    train(config, run_dir)


SHARES = [0.0, 0.3, 0.9, 1.0, None]


@pytest.mark.parametrize(("num_models", "kills"), [(1, 20), (2, 4)])
def test_killed_at_any_moment_it_goes_on(config, tmp_path, warm, num_models, kills):
    """SIGKILL at random moments, every other one in a checkpoint's write; the end is the undisturbed, bit for bit."""
    epochs = 2  # that a process may get on by
    config = dataclasses.replace(config, total_epochs=epochs * kills + 1, num_models=num_models)
    if num_models == 2:
        config = dataclasses.replace(config, global_mutual_weight=1.0)
    whole, cut, rng = tmp_path / "whole", tmp_path / "cut", random.Random(0)

    def start(function, *args):
        process = warm.Process(target=on_one_thread, args=(function, *args))
        process.start()
        return process

    undisturbed = start(train, config, whole)
    for number in range(kills):
        if number % 2:
            here, there = warm.Pipe()
            process = start(train_on_a_leash, config, cut, epochs, there)
            there.close()
            here.recv()  # it trains: an epoch is done
            time.sleep(rng.uniform(0, 0.2))
            process.kill()
        else:
            share = SHARES[number // 2 % len(SHARES)]
            process = start(train_until_a_write, config, cut, share)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert number % 2 or (cut / ".checkpoint.pt.partial").exists() == (share is not None)
    process = start(train, config, cut)
    process.join()
    undisturbed.join()
    assert process.exitcode == undisturbed.exitcode == 0
    names = ["weights.pth"] if num_models == 1 else ["weights_1.pth", "weights_2.pth"]
    assert all(same(whole / name, cut / name) for name in names)
    assert [row["epoch"] for row in runs.read_metrics(cut)] == list(range(1, config.total_epochs + 1))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_ended_by_a_signal_the_last_finished_epoch_is_saved(config, tmp_path, warm, number):
    config = dataclasses.replace(config, checkpoint_every=NEVER)
    here, there = warm.Pipe()
    process = warm.Process(target=on_one_thread, args=(train_on_a_leash, config, tmp_path / "cut", 2, there))
    process.start()
    there.close()
    assert [here.recv(), here.recv()] == [1, 2]
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 128 + number
    resumed = train(config, tmp_path / "cut")
    assert resumed.resumed_at == 2
    assert same(train(config, tmp_path / "whole").weights, resumed.weights)


def test_a_folder_of_another_config_is_refused_and_stays(config, tmp_path):
    train(config, tmp_path / "run")
    before = (tmp_path / "run" / "weights.pth").read_bytes()
    with pytest.raises(InputError, match=r"contains a run with margin=0.3, not 0.5"):
        train(dataclasses.replace(config, margin=0.5), tmp_path / "run")
    assert (tmp_path / "run" / "weights.pth").read_bytes() == before


CONFIG_OF_0_1 = """{
 "data_root": "DATA", "dataset": "tiny", "train_part": "trainval", "height": 32, "width": 16, "mirror_prob": 0.5,
 "crop_prob": 0.0, "crop_ratio": 1.0, "ids_per_batch": 3, "images_per_id": 2, "backbone": "shufflenet_v2_x0_5",
 "weights": null, "local_channels": 128, "last_stride": 2, "global_weight": 1.0, "local_weight": 0.0,
 "local_mining": "global", "id_weight": 0.0, "margin": 0.3, "normalize": false, "num_models": 1, "backbones": [],
 "model_devices": [], "probability_weight": 0.0, "global_mutual_weight": 0.0, "local_mutual_weight": 0.0,
 "base_lr": 0.001, "weight_decay": 0.0005, "total_epochs": 4, "schedule": "exponential", "decay_at_epoch": 3,
 "staircase_at_epochs": [101, 201], "staircase_factor": 0.1, "warmup_epochs": 0, "processes": 1,
 "sync_batch_norm": false, "validate_every": 0, "seed": 1, "device": "auto", "precision": "float32",
 "deterministic": false, "compiled": false, "workers": 2, "memory_limit": 4294967296
}"""


def test_a_run_of_version_0_1_goes_on_or_is_refused_in_one_line(config, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", report=stop_after(2))
    old = CONFIG_OF_0_1.replace("DATA", config.data_root)
    (tmp_path / "run" / "config.json").write_text(old)
    assert TrainConfig(**json.loads(old)) == dataclasses.replace(config, device="auto", checkpoint_every=60.0)
    with pytest.raises(
        InputError, match=r"contains a run with draw='cover', not 'replace'; choose a different run_dir"
    ):
        train(dataclasses.replace(config, draw="replace"), tmp_path / "run")
    assert train(config, tmp_path / "run").resumed_at == 2
    (tmp_path / "run" / "config.json").write_text(old.replace('"seed": 1', '"seed": 1, "gone": 2'))
    with pytest.raises(InputError, match=r"contains a run with gone=2, not None; choose a different run_dir"):
        train(config, tmp_path / "run")


# The run's own facts


def claim(monkeypatch, native):
    """A processor that multiplies bfloat16, or one that does not."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


def test_a_run_keeps_the_precision_that_auto_came_to(config, tmp_path, monkeypatch):
    auto, folder = dataclasses.replace(config, precision="auto"), tmp_path / "run"
    claim(monkeypatch, True)
    with pytest.raises(KeyboardInterrupt):
        train(auto, folder, report=stop_after(2))
    assert runs.read_json(folder / "config.json")["precision"] == "bfloat16"
    claim(monkeypatch, False)  # another machine
    assert train(auto, tmp_path / "other").precision == "float32"
    with pytest.raises(InputError, match="contains a run with precision='bfloat16', not 'float32'"):
        train(config, folder)
    result = train(auto, folder)
    assert (result.resumed_at, result.precision) == (2, "bfloat16")
    assert full_run.read_settings({"run_dir": str(folder), "precision": "auto"})[0].precision == "bfloat16", "its test"


def test_a_run_of_a_version_that_did_not_keep_it_keeps_it_from_now_on(config, tmp_path, monkeypatch):
    auto, path = dataclasses.replace(config, precision="auto"), tmp_path / "run" / "config.json"
    claim(monkeypatch, False)
    with pytest.raises(KeyboardInterrupt):
        train(auto, tmp_path / "run", report=stop_after(2))
    runs.write_json(path, runs.read_json(path) | {"precision": "auto"})
    assert train(auto, tmp_path / "run").resumed_at == 2
    assert runs.read_json(path)["precision"] == "float32"


def test_a_precision_that_this_machine_lacks_is_refused_in_one_line(config, tmp_path):
    with pytest.raises(InputError, match=r"^precision tf32 needs an NVIDIA GPU since Ampere, not cpu; use float32$"):
        train(dataclasses.replace(config, precision="tf32"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(config, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    runs.write_json(path, runs.read_json(path) | {"precision": "tf32"})  # as one on a GPU is begun
    with pytest.raises(InputError, match=r"run: was begun in tf32, and .* not cpu; resume it on a machine like"):
        train(dataclasses.replace(config, precision="auto"), tmp_path / "run")


def test_a_run_tells_its_parts(config, tmp_path, monkeypatch):
    facts = runs.provenance()
    for commit, epoch in (("a", 1), ("a", 2), ("b", 3)):
        monkeypatch.setattr(runs, "provenance", lambda *_, commit=commit: facts | {"commit": commit})
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run", report=stop_after(epoch))
    result = train(config, tmp_path / "run")
    shown = [[part[name] for name in ("commit", "from_epoch", "to_epoch", "processes")] for part in result.parts]
    assert shown == [["a", 1, 2, 1], ["b", 3, 4, 1]]
    assert result.parts[0].keys() >= {"device", "torch", "changed_since_commit"}
    assert train(config, tmp_path / "run").parts == result.parts, "a test later is not a part of the training"
    plan = full_run.Plan(str(tmp_path / "run"), test_sets="tiny", test_rerank=True)
    record = runs.read_json(full_run.write_results(config, plan, result, ScoreTable([])))
    assert record["parts"] == result.parts and record["wall_minutes"] >= record["minutes"]
    assert record["last_epoch"] == result.metrics[-1] and record["last_epoch"]["epoch"] == 4
    assert record["commit"] == facts["commit"], "the test's"
    wanted = {"test_sets": ["tiny"], "combined_of": [], "test_distances": ["global"], "test_rerank": True}
    assert wanted.items() <= record["config"].items() and record["config"]["processes"] == 1


def test_a_checkpoint_of_an_older_version_goes_on(config, tmp_path):
    """Format 3 had no parts, no wall time, no loss scales and no digest of the names."""
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", report=stop_after(2))
    state = runs.load_checkpoint(tmp_path / "run")
    for name in ("parts", "wall_seconds", "loss_scales"):
        del state[name]
    del state["data"]["digest"]
    runs.save_checkpoint(tmp_path / "run", state)
    result = train(config, tmp_path / "run")
    assert result.resumed_at == 2 and same(result.weights, train(config, tmp_path / "whole").weights)
    assert [(part["commit"] == "unknown", part["from_epoch"], part["to_epoch"]) for part in result.parts] == [
        (True, 1, 2),
        (False, 3, 4),
    ]
    assert len(runs.load_checkpoint(tmp_path / "run")["data"]["digest"]) == 16


def test_the_data_may_move_and_has_to_be_the_same(config, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", report=stop_after(2))
    shutil.copytree(config.folder, tmp_path / "moved" / "tiny")
    moved = dataclasses.replace(config, data_root=str(tmp_path / "moved"))
    path = moved.folder / "partitions.pkl"
    before = Partitions.load(path)
    names = before.trainval_im_names
    swapped = dataclasses.replace(before, trainval_im_names=[names[1], names[0], *names[2:]])
    relabelled = dataclasses.replace(before, trainval_ids2labels={k: (k + 1) % 6 for k in range(6)})
    for changed in (swapped, relabelled):
        changed.save(path)
        with pytest.raises(InputError, match=r"run: was trained on .*'digest': '\w{16}'.* has .*restore its images"):
            train(moved, tmp_path / "run")
    before.save(path)
    assert train(moved, tmp_path / "run").resumed_at == 2


# float16


@pytest.mark.arithmetic
@pytest.mark.parametrize("num_models", [1, 2])
def test_float16_resumes_with_its_loss_scale_bit_for_bit(config, tmp_path, num_models, monkeypatch):
    moving = {"init_scale": 2.0**-6, "growth_interval": 2, "growth_factor": 1.5}  # never back to where it began
    monkeypatch.setattr(making, "GradScaler", functools.partial(making.GradScaler, **moving))
    config = dataclasses.replace(config, precision="float16", num_models=num_models)
    whole = train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "cut", report=stop_after(2))
    resumed = train(config, tmp_path / "cut")
    assert resumed.resumed_at == 2
    assert all(same(*paths) for paths in zip(whole.all_weights, resumed.all_weights, strict=True))
    states = [runs.load_checkpoint(result.run_dir) for result in (whole, resumed)]
    assert states[0]["loss_scales"] == states[1]["loss_scales"] and len(states[0]["loss_scales"]) == num_models
    assert states[0]["loss_scales"][0]["scale"] != 2.0**-6 and states[0]["optimizers"][0]["state"][0]["step"] > 0


def test_a_step_whose_gradients_overflow_is_skipped(config):
    batch = torch.randint(0, 256, (12, 3, 32, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    learner = making.make_learner(dataclasses.replace(config, precision="float16"), 0, num_ids=4)
    learner.network.train()
    before = [parameter.clone() for parameter in learner.network.parameters()]
    learner.scaler.load_state_dict(learner.scaler.state_dict() | {"scale": 2.0**120})
    figures = train_step(learner, batch, torch.arange(12) // 3, config)
    assert all(map(torch.equal, before, learner.network.parameters())) and learner.scaler.get_scale() == 2.0**119
    assert torch.stack(list(figures.values())).isfinite().all(), "the loss is not scaled, so the run goes on"
    learner.scaler.load_state_dict(learner.scaler.state_dict() | {"scale": 2.0**-10})
    train_step(learner, batch, torch.arange(12) // 3, config)
    assert not torch.equal(before[0], next(learner.network.parameters())), "with a smaller scale it is taken"
    assert learner.scaler.get_scale() == 2.0**-10


def test_the_host_reads_nothing_from_the_device_in_a_float16_step(config):
    """A mode stands in for a GPU, where each such reading would be a wait."""
    batch = torch.randint(0, 256, (12, 3, 32, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    learner = making.make_learner(dataclasses.replace(config, precision="float16"), 0, num_ids=4)
    learner.network.train()
    train_step(learner, batch, torch.arange(12) // 3, config)  # the scaler makes its tensors

    class NoReading(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            assert "_local_scalar_dense" not in str(function), "a number read by the host"
            return function(*args, **(kwargs or {}))

    with NoReading():
        train_step(learner, batch, torch.arange(12) // 3, config)


def test_gradients_that_overflow_at_every_scale_end_the_run(config, tmp_path, monkeypatch):
    monkeypatch.setattr(making, "GradScaler", functools.partial(making.GradScaler, init_scale=2.0**-17))
    with pytest.raises(InputError, match="epoch 1: the gradients overflow in float16 at every scale; use precision"):
        train(dataclasses.replace(config, precision="float16"), tmp_path / "run")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"dataset": "absent"}, "absent has no partitions.pkl"),
        ({"ids_per_batch": 7}, "ids_per_batch is 7, but the data has 6 identities"),
        ({"images_per_id": 5}, "images_per_id is 5, but no identity has more than 4 images"),
        ({"backbone": "resnet19"}, "resnet19"),
        ({"backbone": "squeezenet1_1"}, "height 32 x width 16 is too small for squeezenet1_1"),
        ({"weights": "absent.pth"}, r"absent\.pth: no such weights file"),
        ({"device": "cuda:9"}, "device 'cuda:9' cannot be used here"),
        ({"train_part": "train"}, "train"),
    ],
)
def test_what_does_not_fit_leaves_no_folder(config, tmp_path, setting, message):
    with pytest.raises(InputError, match=message):
        train(dataclasses.replace(config, **setting), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_keeps_the_last_checkpoint(config, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", report=stop_after(2))
    state = runs.load_checkpoint(tmp_path / "run")
    state["models"][0]["base.conv1.0.weight"][:] = float("nan")
    runs.save_checkpoint(tmp_path / "run", state)
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    with pytest.raises(
        InputError, match="epoch 3, step 1: global_loss is not a number; the last good checkpoint is kept"
    ):
        train(config, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


def test_a_checkpoint_cut_short_is_named(config, tmp_path):
    train(config, tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"checkpoint\.pt: cannot be read"):
        train(config, tmp_path / "run")


def test_compiled_is_the_same_run(config, tmp_path, monkeypatch):
    """Also what has no loss stays: a compiled backward gives it gradients of 0, which weight decay would use."""
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network: compiler(network, backend="aot_eager"))  # no C++, same graphs
    config = dataclasses.replace(config, weight_decay=0.1, base_lr=1e-3)
    plain = train(config, tmp_path / "plain")
    compiled = train(dataclasses.replace(config, compiled=True), tmp_path / "compiled")
    one, other = map(torch.load, (plain.weights, compiled.weights))
    assert one.keys() == other.keys(), "its weights bear the network's names"
    for name in one:
        if name.startswith("local_") and "running" not in name:
            assert torch.equal(one[name], other[name]), f"{name} has no loss and stays"


def test_compiled_without_a_compiler_is_refused_before_anything_is_made(config, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match="no C\\+\\+ compiler 'no-such-compiler'; install"):
        train(dataclasses.replace(config, compiled=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_cuda_graphs_are_refused_elsewhere_before_anything_is_made(config, tmp_path):
    with pytest.raises(
        InputError, match=r"compiled is 'fast'; it has to be True, False or one of reduce-overhead, max-"
    ):
        dataclasses.replace(config, compiled="fast")
    with pytest.raises(
        InputError, match=r"compiled is 'reduce-overhead', but cpu has no CUDA graphs; set it to True or"
    ):
        train(dataclasses.replace(config, compiled="reduce-overhead"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_gpu_needs_a_c_compiler_for_compiled(config, monkeypatch):
    network = AlignedReID(config.backbone)
    monkeypatch.setattr(making.shutil, "which", lambda name: None)
    monkeypatch.setenv("CC", "my-cc")
    with pytest.raises(InputError, match="compiled is True and there is no C compiler 'my-cc'; install"):
        making.compile_network(network, torch.device("cuda"), True)
    monkeypatch.setattr(making.shutil, "which", lambda name: name if name == "clang" else None)
    assert making.compile_network(network, torch.device("cuda"), True) is not None


class Replayed(torch.autograd.Function):
    """An output that a CUDA graph writes into its fixed memory, where the next replay overwrites it."""

    @staticmethod
    def forward(ctx, output, memory):
        memory.copy_(output)
        return memory.detach()

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


@pytest.mark.arithmetic
def test_models_whose_graphs_share_memory_learn_as_without_graphs(config, batch, monkeypatch):
    """The worst case, and a stand-in for a GPU: every replay of either model writes its outputs into one memory."""
    config = dataclasses.replace(config, **MUTUAL)
    plain, graphs, memory, asked = learners_of(config, 2), learners_of(config, 2), {}, []

    def compile_into_one_memory(network, **how):
        asked.append(how)

        def replay(images):
            outputs = network(images)
            fixed = [memory.setdefault(k, torch.empty_like(output)) for k, output in enumerate(outputs)]
            return Embedding(*(Replayed.apply(output, place) for output, place in zip(outputs, fixed, strict=True)))

        return replay

    monkeypatch.setattr(torch, "compile", compile_into_one_memory)
    monkeypatch.setattr(making.shutil, "which", lambda name: name)
    for learner in plain + graphs:
        learner.network.train()
    for learner in graphs:
        learner.forward = making.compile_network(learner.network, torch.device("cuda"), "reduce-overhead")
    assert asked == [{"mode": "reduce-overhead", "dynamic": False}] * 2
    for _ in range(2):
        expected, got = (training.mutual_step(pair, batch, PEOPLE, config) for pair in (plain, graphs))
        assert expected == got
    for one, other in zip(plain, graphs, strict=True):
        assert all(map(torch.equal, one.network.parameters(), other.network.parameters()))


def test_no_gradient_is_left_from_the_step_before_when_the_first_forward_begins(config, batch):
    """They are in a graph's memory, which the forward reuses."""
    learners = learners_of(dataclasses.replace(config, num_models=2), 2)
    for learner in learners:
        network = learner.network.train()

        def forward(images, network=network):
            assert all(parameter.grad is None for other in learners for parameter in other.network.parameters())
            return network(images)

        learner.forward = forward
    for _ in range(2):
        training.mutual_step(learners, batch, PEOPLE, config)


@pytest.mark.parametrize("mining", ["global", "local"])
def test_the_local_loss_is_logged(config, tmp_path, mining):
    rows = []
    train(dataclasses.replace(config, local_weight=1.0, local_mining=mining), tmp_path / "local", report=rows.append)
    figures = ("loss", "precision", "satisfaction", "positive_distance", "negative_distance")
    assert {f"{term}_{figure}" for term in ("global", "local") for figure in figures} <= rows[0].keys()


@pytest.mark.arithmetic
def test_weights_of_the_terms_scale_their_gradients(config):
    """In float64, but for the losses; so nothing is between two sums but the rounding of the losses."""
    batch = torch.randint(0, 256, (12, 3, 64, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def gradients(**weights):
        torch.manual_seed(0)
        network = AlignedReID("resnet18", num_ids=4).double()
        settings = dataclasses.replace(
            config, **{"global_weight": 0.0, "local_weight": 0.0, "id_weight": 0.0} | weights
        )
        optimizer = torch.optim.SGD(network.parameters(), 0.0)
        learner = making.Learner(network, lambda x: network(x.double()), optimizer, batch.device, "float32")
        train_step(learner, batch, torch.arange(12) // 3, settings)
        return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}

    local, twice, identification = gradients(local_weight=1.0), gradients(local_weight=2.0), gradients(id_weight=1.0)
    assert local["local_conv.weight"].abs().max() > 0, "the local loss reaches the local branch"
    close(twice["local_conv.weight"], 2 * local["local_conv.weight"])
    assert identification["fc.weight"].abs().max() > 0 and "local_conv.weight" not in identification
    both = gradients(local_weight=2.0, id_weight=3.0)
    close(both["fc.weight"], 3 * identification["fc.weight"])
    for name in (name for name in both if name.startswith("base.")):
        close(both[name], twice[name] + 3 * identification[name])


@pytest.mark.arithmetic
def test_what_mines_changes_the_local_loss(config):
    """On one batch, from equal weights: its own hardest samples are at least as hard as another's."""
    batch = torch.randint(0, 256, (12, 3, 64, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    figures = {}
    for mining in ("global", "local"):
        settings = dataclasses.replace(config, local_weight=1.0, local_mining=mining, precision="float32")
        learner = making.make_learner(settings, 0, num_ids=4)
        learner.network.train()
        figures[mining] = train_step(learner, batch, torch.arange(12) // 3, settings)
    assert figures["local"]["global_loss"] == figures["global"]["global_loss"], "the same batch, the same weights"
    assert figures["local"]["local_loss"] > figures["global"]["local_loss"]
    assert figures["local"]["local_positive_distance"] >= figures["global"]["local_positive_distance"]
    assert figures["local"]["local_negative_distance"] <= figures["global"]["local_negative_distance"]


def test_every_batch_of_every_epoch_is_augmented_anew(config, tmp_path, monkeypatch):
    seeds, make_batch = [], epochs.make_batch
    monkeypatch.setattr(epochs, "make_batch", lambda *given: seeds.append(given[-1]) or make_batch(*given))
    train(config, tmp_path / "run")
    assert len(set(seeds)) == len(seeds) == 4 * len(set(number for _, _, number in seeds))
    assert {(seed, epoch) for seed, epoch, _ in seeds} == {(config.seed, epoch) for epoch in range(1, 5)}


def test_batch_norm_sees_the_batches(config, tmp_path):
    weights = torch.load(train(config, tmp_path / "run").weights)
    seen = {name: int(count) for name, count in weights.items() if name.endswith("num_batches_tracked")}
    assert set(seen.values()) == {4 * len(IdentitySampler([0, 0] * 3 + [1, 2, 3, 4, 5] * 2, 3, 2, 1))}


def test_the_schedule_is_the_optimiser_s(config, tmp_path, monkeypatch):
    monkeypatch.setattr(epochs, "learning_rate", lambda config, epoch: 0.0)
    weights = torch.load(train(config, tmp_path / "run").weights)
    making.set_seeds(config.seed)
    fresh = AlignedReID(config.backbone, None, None, config.local_channels, config.last_stride)
    assert all(torch.equal(parameter, weights[name]) for name, parameter in fresh.named_parameters()), (
        "no rate, no step"
    )


# Validation


def ranks_by(*scores):
    """A validation that gives these mean APs, one after the other."""
    left = list(scores)
    return lambda network: {"mean_ap": left.pop(0), "rank1": 0.5}


@pytest.fixture
def split_config(config, tmp_path):
    """`config` on a part `train`, with validation every epoch."""
    root = tmp_path / "data"
    shutil.copytree(config.folder, root / "tiny")
    names = Partitions.load(root / "tiny" / "partitions.pkl").trainval_im_names
    make_partitions(names, 2, names[:1], [], names[1:2]).save(root / "tiny" / "partitions.pkl")
    return dataclasses.replace(config, data_root=str(root), train_part="train", validate_every=1, ids_per_batch=2)


def test_the_best_weights_by_validation_are_kept(split_config, tmp_path):
    kept = {}

    def report(row):
        kept[row["epoch"]] = (tmp_path / "run" / "best.pth").read_bytes()

    result = train(split_config, tmp_path / "run", report, ranks_by(0.2, 0.6, 0.6, 0.4))
    assert result.best_epoch == 2 and result.best_weights == (tmp_path / "run" / "best.pth",)
    assert kept[1] != kept[2] == kept[3] == kept[4]
    assert [row["val_mean_ap"] for row in result.metrics] == [0.2, 0.6, 0.6, 0.4] and "val_rank1" in result.metrics[0]
    assert not same(result.best_weights[0], result.weights)
    again = train(split_config, tmp_path / "run", validate=ranks_by())
    assert again.best_epoch == 2 and again.resumed_at == 4


def test_validation_goes_on_where_it_was_cut(split_config, tmp_path):
    whole = train(split_config, tmp_path / "whole", None, ranks_by(0.2, 0.6, 0.7, 0.4))
    with pytest.raises(KeyboardInterrupt):
        train(split_config, tmp_path / "cut", stop_after(2), ranks_by(0.2, 0.6))
    resumed = train(split_config, tmp_path / "cut", None, ranks_by(0.7, 0.4))
    assert resumed.best_epoch == whole.best_epoch == 3
    assert same(resumed.best_weights[0], whole.best_weights[0]) and same(resumed.weights, whole.weights)


def test_validation_ranks_people_who_are_not_trained_on(split_config, tmp_path):
    result = train(split_config, tmp_path / "run", validate=full_run.validation(split_config))
    assert 0 <= result.metrics[-1]["val_mean_ap"] <= 1
    plain = train(dataclasses.replace(split_config, validate_every=0), tmp_path / "plain")
    assert same(result.weights, plain.weights), "to look changes nothing"


def test_what_validation_needs(config, split_config, tmp_path):
    with pytest.raises(InputError, match="validate_every is 1; it has to be 0, or 1 or more with train_part 'train'"):
        dataclasses.replace(config, validate_every=1)
    with pytest.raises(InputError, match="give both or none"):
        train(split_config, tmp_path / "run")
    with pytest.raises(InputError, match="give both or none"):
        train(config, tmp_path / "run", validate=ranks_by())
    nobody = dataclasses.replace(split_config, data_root=config.data_root)
    with pytest.raises(InputError, match=r"no part val|no validation people"):
        full_run.validation(nobody)


# Several models

MUTUAL = {"num_models": 2, "id_weight": 1.0, "probability_weight": 1.0, "global_mutual_weight": 1.0,
          "local_weight": 1.0, "local_mutual_weight": 1.0}  # fmt: skip


def learners_of(config, count):
    return [training.make_learner(config, k, 4) for k in range(count)]


@pytest.fixture
def batch():
    return torch.randint(0, 256, (12, 3, 32, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


PEOPLE = torch.arange(12) // 3


@pytest.mark.arithmetic
def test_the_step_of_one_model_is_forward_loss_backward_and_step(config, batch):
    config = dataclasses.replace(config, precision="float32")
    by_hand, learner = learners_of(config, 1) + learners_of(config, 1)
    features = by_hand.network.train()(images.normalize(batch)).global_features
    loss = losses.global_triplet(features, PEOPLE, config.margin, config.normalize).loss
    loss.backward()
    by_hand.optimizer.step()
    learner.network.train()
    figures = train_step(learner, batch, PEOPLE, config)
    assert figures["loss"] == figures["global_loss"] == loss
    for one, other in zip(by_hand.network.parameters(), learner.network.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.arithmetic
def test_gradients_of_two_models_are_those_of_each_alone_with_the_other_as_a_constant(config, batch):
    """By hand: forward of both, and for each model its losses and its terms against fixed numbers of the other."""
    config = dataclasses.replace(config, **MUTUAL, backbone="resnet18")
    pair, copies = learners_of(config, 2), learners_of(config, 2)
    for learner in pair + copies:
        learner.network.double().train()
        learner.forward = lambda x, network=learner.network: network(x.double())
        learner.optimizer = torch.optim.SGD(learner.network.parameters(), 0.0)
    figures = training.mutual_step(pair, batch, PEOPLE, config)
    assert {"probability_loss", "global_mutual_loss", "local_mutual_loss", "loss"} <= figures[0].keys()
    seen = []
    for learner in copies:
        embedding = learner.forward(images.normalize(batch))
        x, y = embedding.global_features, embedding.local_features
        matrices = losses.euclidean_distances(x, x), local_distances(y, y)
        term = losses.global_triplet(x, PEOPLE, config.margin, False)
        own = term.loss + losses.local_triplet(y, PEOPLE, config.margin, False, term.mined).loss
        own = own + torch.nn.functional.cross_entropy(embedding.logits, PEOPLE)
        seen.append((own, embedding.logits, *matrices))
    for k in (0, 1):
        own, logits, distances, local = seen[k]
        fixed = [value.detach() for value in seen[1 - k]]
        divergence = (fixed[1].softmax(1) * (fixed[1].log_softmax(1) - logits.log_softmax(1))).sum(1).mean()
        squares = (distances - fixed[2]).square().mean() + (local - fixed[3]).square().mean()
        loss = own + divergence + squares
        assert figures[k]["loss"].item() == pytest.approx(loss.item(), rel=1e-6)
        loss.backward(retain_graph=True)
        for one, other in zip(pair[k].network.parameters(), copies[k].network.parameters(), strict=True):
            close(one.grad, other.grad)


def test_two_models_leave_two_of_everything(config, tmp_path):
    config = dataclasses.replace(config, **MUTUAL, backbones=("shufflenet_v2_x0_5", "mobilenet_v3_small"))
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", stop_after(2))
    result = train(dataclasses.replace(config, model_devices=("cpu", "cpu")), tmp_path / "run")
    assert result.resumed_at == 2
    assert [path.name for path in result.all_weights] == ["weights_1.pth", "weights_2.pth"]
    one, two = (torch.load(path) for path in result.all_weights)
    assert one.keys() != two.keys(), "each has its own backbone"
    for k in (1, 2):
        rows = training.of_model(result.metrics, k)
        assert len(rows) == 4 and {"epoch", "loss", "probability_loss", "global_precision"} <= rows[0].keys()
    assert not [name for name in training.of_model(result.metrics, 1)[0] if name.startswith("model")]


@pytest.mark.arithmetic
def test_models_start_from_seeds_of_their_own_and_the_first_is_the_single_run_s(config, tmp_path):
    pair = dataclasses.replace(config, num_models=2)  # no mutual terms: two trainings side by side
    both, alone = train(pair, tmp_path / "pair"), train(config, tmp_path / "alone")
    assert same(both.all_weights[0], alone.weights)
    assert not same(*both.all_weights)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"global_mutual_weight": 1.0}, "two models or more"),
        ({"num_models": 2, "probability_weight": 1.0}, "id_weight above 0"),
        ({"num_models": 2, "local_mutual_weight": 1.0}, "local_weight above 0"),
        ({"num_models": 0}, "num_models is 0"),
        ({"num_models": 2, "backbones": ("resnet18",)}, r"\(\) or 2 names"),
        ({"num_models": 2, "model_devices": ("cpu", "cpu", "cpu")}, r"\(\) or 2 names"),
        ({"warmup_epochs": 4}, "from 0 to 3"),
    ],
)
def test_settings_of_several_models_that_make_no_sense(config, settings, says):
    with pytest.raises(InputError, match=says):
        dataclasses.replace(config, **settings)


def test_warm_up_climbs_in_equal_steps(config):
    config = dataclasses.replace(config, base_lr=1.0, total_epochs=6, decay_at_epoch=6, warmup_epochs=3)
    assert [training.learning_rate(config, epoch) for epoch in range(1, 6)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_deterministic_is_for_the_training_alone(config, tmp_path):
    seen = []

    def report(row):
        seen.append((torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark))

    train(dataclasses.replace(config, deterministic=True, total_epochs=3), tmp_path / "run", report)
    assert seen == [(True, False)] * 3
    assert not torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark


def test_cudnn_times_its_convolutions_in_a_training(config, tmp_path):
    seen = []
    train(config, tmp_path / "run", lambda row: seen.append(torch.backends.cudnn.benchmark))
    assert seen == [True] * 4
    assert not torch.backends.cudnn.benchmark


def test_out_of_memory_names_the_batch(config, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(epochs, "mutual_step", full)
    with pytest.raises(InputError, match=r"epoch 1, step 1, 6 images of 32 x 16: out of memory; .*lower ids_per_batch"):
        train(config, tmp_path / "run")


def test_out_of_memory_in_a_validation_names_it(split_config, tmp_path):
    def full(network):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(InputError, match=r"^epoch 1, validation: out of memory; .*lower batch_size"):
        train(split_config, tmp_path / "run", validate=full)


def test_the_peak_memory_is_of_the_epoch_and_of_all_models(config, tmp_path, monkeypatch):
    """A stand-in for two GPUs: what each had at most since it was reset."""
    peaks, reset = iter([5.0, 7.0, 4.0, 3.0]), []
    monkeypatch.setattr(devices, "reset_peak_memory", reset.append)
    monkeypatch.setattr(devices, "peak_memory", lambda device: next(peaks))
    config = dataclasses.replace(config, num_models=2, total_epochs=2, decay_at_epoch=2)
    metrics = train(config, tmp_path / "run").metrics
    assert [row["peak_memory_mb"] for row in metrics] == [7.0, 4.0] and len(reset) == 4


def test_a_disk_that_fills_up_leaves_the_run_usable(config, tmp_path, monkeypatch):
    whole = train(config, tmp_path / "whole")
    save = torch.save

    def full(content, path):
        if content.get("epoch") == 3:
            path.write_bytes(b"half a check")
            raise OSError(28, "No space left on device")
        save(content, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(InputError, match=r"checkpoint.pt: cannot be written .*No space left.*free space"):
            train(config, tmp_path / "cut")
    assert not list((tmp_path / "cut").glob(".*")), "nothing half-written is left"
    resumed = train(config, tmp_path / "cut")
    assert resumed.resumed_at == 2 and same(whole.weights, resumed.weights)


def test_models_that_nothing_parts_are_refused(config, tmp_path):
    start = tmp_path / "start.pth"
    torch.save(AlignedReID(config.backbone).state_dict(), start)
    pair = dataclasses.replace(config, num_models=2, weights=str(start), global_mutual_weight=1.0)
    with pytest.raises(InputError, match=r"num_models is 2, but all start from .*start.pth .* stay equal"):
        train(pair, tmp_path / "run")
    for parted in (
        dataclasses.replace(pair, id_weight=1.0),
        dataclasses.replace(pair, weights=None),
        dataclasses.replace(pair, backbones=("shufflenet_v2_x0_5", "mobilenet_v3_small"), weights=None),
    ):
        last = train(parted, tmp_path / f"run{parted.id_weight}{len(parted.backbones)}").metrics[-1]
        assert last["model1_global_mutual_loss"] > 0


def test_an_epoch_is_a_line_of_the_log(config, tmp_path, caplog):
    with caplog.at_level("INFO", "alignedreid_lib"):
        train(dataclasses.replace(config, precision="float32"), tmp_path / "run")
    start, *epochs_logged = caplog.messages
    assert start == "run, float32 on cpu"
    assert len(epochs_logged) == 4
    words = ("epoch 1: ", "global loss ", "global precision ", "global satisfaction ", "lr 0.001", "images/s", "MB")
    assert all(word in epochs_logged[0] for word in words)

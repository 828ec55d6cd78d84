"""Several processes train as one: the same loss, the same gradients, the same weights; and they fail as one."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from test_training import SHARES, train_until_a_write
from torch import nn

from alignedreid_lib import runs
from alignedreid_lib.errors import InputError
from alignedreid_lib.model import AlignedReID
from alignedreid_lib.training import TrainConfig, distributed, launching, of_model, step, train
from alignedreid_lib.training import learner as making

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
    learner = making.make_learner(dataclasses.replace(config, backbone="resnet18"), 0, num_ids=4)
    if double:
        learner.network.double()
    learner.network.train()
    learner.optimizer.step = lambda: None
    batch = torch.randint(0, 256, (12, 3, 32, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(12) // 3
    own = batch.chunk(distributed.count())[distributed.rank()]
    learner.forward = lambda x: learner.network(x.double() if double else x)
    figures = step.train_step(learner, own, labels, config)
    gradients = {name: p.grad for name, p in learner.network.named_parameters()}
    statistics = {name: value for name, value in learner.network.named_buffers()}
    return figures["loss"], gradients, statistics


def refuse(where):
    if distributed.rank() == where:
        raise InputError("this one alone cannot go on")
    torch.distributed.barrier()


def leave_early(code, where=0):
    """One ends without an error."""
    if distributed.rank() == where:
        sys.exit(code)


def refuse_late():
    """One fails; the other meets its error five seconds after the starter has seen the first one end."""
    pids = distributed.gather_objects(os.getpid())
    if distributed.rank() == 1:
        with suppress(ProcessLookupError):
            while True:
                os.kill(pids[0], 0)
                time.sleep(0.1)
        time.sleep(5)
        raise InputError("the reason, told late")
    raise RuntimeError("connection closed by peer")


def refuse_beside_one_at_work(folder, where):
    """One is refused while the other is at work and hears nothing of it."""
    if distributed.rank() != where:
        wait_in(folder)
    raise InputError("the reason, told alone")


def crash():
    raise ZeroDivisionError("a fault of the program")


def wait_in(folder):
    """Say that this process is at work, and wait for the end."""
    (folder / str(os.getpid())).touch()
    while True:
        time.sleep(60)


def die(reporting, where=1):
    """One is ended, at work or while it writes its report; the other notices."""
    if distributed.rank() == where:
        print("its last words", file=sys.stderr, flush=True)
        if reporting:
            os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("never told")
        os.kill(os.getpid(), signal.SIGKILL)
    torch.distributed.barrier()


def leave_and_refuse(folder):
    """One meets an error; the other, whose partner is gone, has reported before."""
    if distributed.rank() == 1:
        while not (folder / "gone").exists():
            time.sleep(0.1)
        raise InputError("the reason, told last")
    (folder / "gone").touch()
    raise RuntimeError("connection closed by peer")


def all_die(after, config, run_dir):
    """Train, and end all processes as soon as the checkpoint of an epoch is there."""
    pids: list[int] = [0] * distributed.count()
    torch.distributed.all_gather_object(pids, os.getpid())
    save = runs.save_checkpoint

    def save_and_die(folder, state):
        save(folder, state)
        if state["epoch"] == after:
            for pid in sorted(pids, key=os.getpid().__eq__):  # itself last
                os.kill(pid, signal.SIGKILL)

    runs.save_checkpoint = save_and_die
    return train(config, run_dir)


def train_on_a_leash(config, run_dir, epochs, after=lambda: None):
    """Call `after` when an epoch is finished, and wait for the end after `epochs` of them."""
    state = runs.load_checkpoint(run_dir)
    first = state["epoch"] if state else 0

    def report(row):  # of the first process
        if row["epoch"] == first + 1:
            after()
        while row["epoch"] == first + epochs:
            time.sleep(60)

    return train(config, run_dir, report)


def die_at_a_moment(config, run_dir, epochs, delay, victims):
    """Train, and end some of the processes so many seconds after an epoch, at most `epochs` after the start."""
    pids: list[int] = [0] * distributed.count()
    torch.distributed.all_gather_object(pids, os.getpid())

    def end():
        for victim in sorted(victims, reverse=True):  # the first process, which does this, last
            os.kill(pids[victim], signal.SIGKILL)

    return train_on_a_leash(config, run_dir, epochs, threading.Timer(delay, end).start)


def refused(config, run_dir):
    """What `train` says to settings that do not fit the processes."""
    try:
        train(config, run_dir)
    except InputError as error:
        return str(error)


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
    distributed.synchronize_batch_norm(norm, torch.device("cpu"))
    x = torch.randn(4, 3, 2, 2)
    assert torch.equal(norm(x), nn.BatchNorm2d(3)(x))


@pytest.mark.parametrize(("device", "kind"), [("cpu", distributed.SynchronizedBatchNorm2d), ("cuda", nn.SyncBatchNorm)])
def test_batch_norms_are_replaced_and_the_names_of_parameters_stay(device, kind):
    network = AlignedReID("shufflenet_v2_x0_5", num_ids=3)
    for buffer in network.buffers():
        buffer.fill_(2)
    before = network.state_dict()
    parameters = [name for name, _ in network.named_parameters()]
    distributed.synchronize_batch_norm(network, torch.device(device))
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms and {type(norm) for norm in norms} == {kind}
    assert [name for name, _ in network.named_parameters()] == parameters
    after = network.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)


@pytest.fixture(scope="module")
def config(tiny_data):
    return TrainConfig(
        data_root=str(tiny_data), dataset="tiny", height=32, width=16, backbone="shufflenet_v2_x0_5", weights=None,
        ids_per_batch=4, images_per_id=3, base_lr=1e-3, total_epochs=3, decay_at_epoch=3, device="cpu",
        local_weight=1.0, id_weight=1.0, mirror_prob=0.0, precision="float32", checkpoint_every=0.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pair(config):
    """Of two models and two processes."""
    return dataclasses.replace(config, processes=2, num_models=2, global_mutual_weight=1.0)


@pytest.fixture(scope="module")
def found(config, pair, tmp_path_factory):
    """What two processes make of everything, by name; started as users start them."""
    two, folder = dataclasses.replace(config, processes=2), tmp_path_factory.mktemp("two")
    synchronised = dataclasses.replace(two, sync_batch_norm=True)
    calls = {
        "gathered": (gathered,),
        "from first": (from_first_of_two,),
        "global": (one_step, synchronised),
        "local": (one_step, dataclasses.replace(synchronised, local_mining="local")),
        "apart": (one_step, two),
        "without local": (one_step, dataclasses.replace(two, local_weight=0.0)),
        "refused": (refused, config, folder / "refused"),
        "trained": (train, synchronised, folder / "trained"),
        "pair": (train, pair, folder / "pair"),
    }
    return dict(zip(calls, launching.launch(2, "cpu", all_of, list(calls.values())), strict=True))


@pytest.fixture
def quick(warm, monkeypatch):
    """Processes that are launched are forked from one that is warm."""
    monkeypatch.setattr(launching, "START_METHOD", "forkserver")


def test_gather_brings_all_rows_and_takes_back_the_own_gradient(found):
    rows, gradient = found["gathered"]
    assert rows.tolist() == [[1.0] * 3] * 2 + [[2.0] * 3] * 2
    assert gradient.tolist() == [[2.0] * 3] * 2, "the first process's own rows, counted once"


@pytest.mark.arithmetic
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


@pytest.mark.arithmetic
def test_without_synchronised_batch_norm_each_share_is_normalised_by_itself(config, found):
    loss, _, _ = one_step(config)
    assert abs(float(found["apart"][0] - loss)) > 1e-3 * float(loss)


def test_a_parameter_without_gradient_stays_without(found):
    _, gradients, _ = found["without local"]
    assert gradients["local_conv.weight"] is None and gradients["fc.weight"] is not None


@pytest.mark.arithmetic
def test_two_processes_train_what_one_trains(config, found, tmp_path):
    """The same files and figures; and the loss of the first epoch, which is one step. Rounding parts the later ones."""
    one, two = train(config, tmp_path / "one"), found["trained"]
    assert {p.name for p in two.run_dir.iterdir()} == {p.name for p in one.run_dir.iterdir()}
    assert runs.read_metrics(two.run_dir) == two.metrics and two.resumed_at == 0
    assert [row.keys() for row in two.metrics] == [row.keys() for row in one.metrics]
    for name in ("epoch", "lr"):
        assert [row[name] for row in two.metrics] == [row[name] for row in one.metrics]
    assert two.metrics[0]["loss"] == pytest.approx(one.metrics[0]["loss"], rel=1e-3)


def test_mutual_learning_in_two_processes_is_killed_and_resumed(pair, found, quick, tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match=r"process [01] was ended by SIGKILL"):
        launching.launch(2, "cpu", all_die, 1, pair, tmp_path / "cut")
    assert not (tmp_path / "cut" / "weights_1.pth").exists()
    rows = []
    resumed, whole = train(pair, tmp_path / "cut", report=rows.append), found["pair"]
    assert resumed.resumed_at == 1 and len(of_model(resumed.metrics, 2)) == 3
    assert resumed.metrics == runs.read_metrics(tmp_path / "cut")
    assert rows == resumed.metrics[1:], "the rows of this call, as with one process"
    for paths in zip(whole.all_weights, resumed.all_weights, strict=True):
        a, b = map(torch.load, paths)
        buffers = ("running_mean", "running_var")  # of the first process only; they do not enter training
        assert all(torch.equal(a[name], b[name]) for name in a if not name.endswith(buffers))
    monkeypatch.setattr(launching, "launch", None)
    assert train(pair, tmp_path / "cut").resumed_at == 3, "a finished run is found without starting anything"


def same(one, two):
    one, two = map(torch.load, (one, two))
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_two_processes_killed_at_any_moment_go_on(config, quick, tmp_path):
    """SIGKILL of one or both at random moments or in a checkpoint's write; the end is the undisturbed, bit for bit."""
    epochs, kills, rng = 2, 20, random.Random(0)
    config = dataclasses.replace(config, processes=2, total_epochs=epochs * kills + 1)
    whole, cut = launching.launch(2, "cpu", train, config, tmp_path / "whole"), tmp_path / "cut"
    for number in range(kills):
        if number % 2:
            victims = [(0, 1), (0,), (1,)][number // 2 % 3]
            work = (die_at_a_moment, config, cut, epochs, rng.uniform(0, 0.2), victims)
        else:
            work = (train_until_a_write, config, cut, SHARES[number // 2 % len(SHARES)])
        with pytest.raises(RuntimeError, match=r"process [01] was ended by SIGKILL"):
            launching.launch(2, "cpu", *work)
    resumed = launching.launch(2, "cpu", train, config, cut)
    assert 0 < resumed.resumed_at < config.total_epochs and same(whole.weights, resumed.weights)
    assert [row["epoch"] for row in runs.read_metrics(cut)] == list(range(1, config.total_epochs + 1))


def test_two_processes_interrupted_save_the_last_finished_epoch(config, quick, tmp_path):
    config = dataclasses.replace(config, processes=2, checkpoint_every=1e9)
    sent = []

    def interrupt():
        if len(runs.read_metrics(tmp_path / "cut")) == 2 and not sent:
            sent.append(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        launching.launch(2, "cpu", train_on_a_leash, config, tmp_path / "cut", 2, meanwhile=interrupt)
    resumed = launching.launch(2, "cpu", train, config, tmp_path / "cut")
    whole = launching.launch(2, "cpu", train, config, tmp_path / "whole")
    assert resumed.resumed_at == 2 and same(whole.weights, resumed.weights)


def test_processes_that_do_not_fit_the_settings_are_refused(found):
    assert found["refused"] == "processes is 1, but 2 were started; make them agree"


def test_the_first_process_decides_for_all(found):
    made, message, threads = found["from first"]
    assert made == {"made by": 0} and message == "the first says no"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert threads == max(1, cores // 2)


@pytest.mark.parametrize("where", [0, 1])
def test_an_error_of_one_ends_all(where, quick, capfd):
    with pytest.raises(InputError, match=r"^this one alone cannot go on$"):
        launching.launch(2, "cpu", refuse, where)
    assert "Traceback" not in capfd.readouterr().err


def test_interrupted_all_end_and_the_interrupt_works_afterwards(quick, tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    sent = []

    def interrupt():
        if len(list(tmp_path.iterdir())) == 2 and not sent:
            sent.append(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        launching.launch(2, "cpu", wait_in, tmp_path, meanwhile=interrupt)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    for pid in (int(path.name) for path in tmp_path.iterdir()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_crash_shows_its_traceback(quick):
    with pytest.raises(RuntimeError, match=r"(?s)process \d.*in crash.*ZeroDivisionError: a fault of the program"):
        launching.launch(2, "cpu", crash)


@pytest.mark.parametrize("code", [0, None])
def test_a_function_that_exits_has_no_result(code, quick):
    with pytest.raises(RuntimeError, match=r"^process 0 ended before leave_early returned: .*sys\.exit") as caught:
        launching.launch(1, "cpu", leave_early, code)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("processes", [0, -1, 1.0, None, True])
def test_a_number_of_processes_that_cannot_be_is_refused(processes):
    with pytest.raises(InputError, match=rf"^processes is {processes}; it has to be"):
        launching.launch(processes, "cpu", crash)


def test_what_cannot_be_sent_to_a_process_is_refused(quick):
    with pytest.raises(
        InputError, match=r"^<lambda> cannot be sent to a new process \(.*\): give a function of a module"
    ):
        launching.launch(1, "cpu", lambda: 1)
    with pytest.raises(InputError, match=r"^refuse cannot be sent to a new process \(.*\): give"):
        launching.launch(1, "cpu", refuse, threading.Lock())


def test_launching_works_in_any_thread(quick, tmp_path):
    with ThreadPoolExecutor() as pool, pytest.raises(InputError, match="this one alone"):
        pool.submit(launching.launch, 1, "cpu", refuse, 0).result()


def test_an_input_error_is_the_reason_wherever_it_comes_in_time(quick, tmp_path):
    with pytest.raises(InputError, match=r"^the reason, told last$"):
        launching.launch(2, "cpu", leave_and_refuse, tmp_path)


def test_a_reason_that_comes_late_is_waited_for(quick):
    with pytest.raises(InputError, match=r"^the reason, told late$"):
        launching.launch(2, "cpu", refuse_late)


@pytest.mark.parametrize("where", [0, 1])
def test_a_reason_that_is_there_is_not_waited_for(where, quick, tmp_path, monkeypatch):
    monkeypatch.setattr(launching, "GRACE", 600.0)
    began = time.monotonic()
    with pytest.raises(InputError, match=r"^the reason, told alone$"):
        launching.launch(2, "cpu", refuse_beside_one_at_work, tmp_path, where)
    assert time.monotonic() - began < 600


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends the processes of a dead parent")
def test_orphans_end_with_their_parent(tmp_path):
    here = Path(__file__).parent
    program = [
        "import pathlib, sys, test_distributed",
        "if __name__ == '__main__':",
        "    test_distributed.launching.launch(2, 'cpu', test_distributed.wait_in, pathlib.Path(sys.argv[1]))",
    ]
    (tmp_path / "pids").mkdir()
    (tmp_path / "starter.py").write_text("\n".join(program))
    path = os.pathsep.join([str(here.parent), str(here)])
    command = [sys.executable, str(tmp_path / "starter.py"), str(tmp_path / "pids")]
    starter = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path})
    while len(pids := [int(path.name) for path in (tmp_path / "pids").iterdir()]) < 2:
        assert starter.poll() is None
        time.sleep(0.1)
    starter.kill()
    starter.wait()
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            break
        time.sleep(0.1)
    assert not [pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists()]


# Whatever a process leaves that is ended while it writes


@pytest.mark.parametrize("reporting", [False, True])
def test_a_process_that_is_ended_is_named_with_its_last_words(reporting, quick):
    """Whichever of the two ends first for the starter."""
    with pytest.raises(RuntimeError, match=r"(?s)process 1 was ended by SIGKILL.*its last words") as error:
        launching.launch(2, "cpu", die, reporting)
    assert "JSON" not in str(error.value)


def leave(folder, process, error=None, when=1.0, words=b""):
    """The files of a process."""
    (folder / f"stderr_{process}").write_bytes(words)
    if error is not None:
        report = {"time": when, "process": process, "refusal": None, "traceback": f"in f of {process}", **error}
        runs.write_json(folder / f"report_{process}.json", report)


def test_processes_without_a_report_are_named(tmp_path):
    leave(tmp_path, 0, words=b"\xff half a letter\n")
    (tmp_path / ".report_0.json.partial").write_text('{"time": 1, "proc')
    found = launching._reason({0: -signal.SIGKILL}, tmp_path)
    memory = "the system does this when memory runs out"
    assert str(found) == f"process 0 was ended by SIGKILL; {memory}\n\ufffd half a letter"
    found = launching._reason({0: 3}, tmp_path)
    assert str(found) == "process 0 ended with exit code 3 and left no report\n\ufffd half a letter"
    assert str(launching._reason({5: -60}, tmp_path)) == "process 5 was ended by signal 60", "before it wrote anything"
    leave(tmp_path, 1, {"refusal": "no such file"}, when=2.0)
    leave(tmp_path, 2, {}, when=1.0)
    found = launching._reason({0: -signal.SIGKILL, 1: 1, 2: 1}, tmp_path)
    assert isinstance(found, InputError) and str(found) == "no such file", "of whichever process"


def test_the_first_failure_is_the_reason(tmp_path):
    leave(tmp_path, 0, {}, when=2.5, words=b"zero")
    leave(tmp_path, 1, {}, when=2.25, words=b"one")
    assert str(launching._reason({0: 1, 1: 1}, tmp_path)) == "process 1 failed: in f of 1\none"
    (tmp_path / "report_1.json").unlink()
    found = str(launching._reason({0: 1, 1: -signal.SIGTERM}, tmp_path))
    assert found.splitlines() == ["process 1 was ended by SIGTERM", "process 0 failed: in f of 0", "zero", "one"]


def test_a_full_disk_takes_no_reason_s_place(tmp_path, monkeypatch):
    """A report is whole or absent."""
    write = Path.write_text

    def full(path, text, **how):
        write(path, text[:9], **how)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        launching._report(ValueError("x"), 0, tmp_path)
    assert not list(tmp_path.iterdir())
    launching._report(InputError("x"), 0, tmp_path)
    assert str(launching._reason({0: 1}, tmp_path)) == "x"


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

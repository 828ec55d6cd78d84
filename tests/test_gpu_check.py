"""`make gpu-check` at its smallest, on the CPU; what only a GPU does is tested with substitutes for `torch.cuda`."""

import dataclasses
import json
import os
import re
import shlex
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import jupytext
import presets
import pytest
import timing
import tool
import torch
from gpu_check import card, column, correct, made, rows, running, speed

from alignedreid_lib import book, devices, runs
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import full_run
from alignedreid_lib.training import TrainConfig, launching

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "notebooks" / "book" / "on_your_gpu.md"
CPU, GPU = torch.device("cpu"), torch.device("cuda")
TINY = made.Sizes(
    name="tiny",
    backbone="resnet18.layer1",
    image=(32, 16),
    few_backbone="resnet18.layer1",
    few_image=(32, 16),
    few_people=4,
    file_image=(32, 16),
    people=4,
    images_each=2,
    ids_per_batch=2,
    images_per_id=2,
    epochs=1,
    bare_steps=1,
    twin_steps=2,
    test_images=8,
    queries=6,
    gallery=20,
    channels=8,
    stripes=2,
    local_channels=4,
    repeats=1,
)


@pytest.fixture(scope="module")
def content(warm, tmp_path_factory) -> dict[str, Any]:
    """Everything that `make gpu-check` writes, at tiny sizes."""
    compiler = torch.compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launching, "START_METHOD", "forkserver")
        patch.setattr(torch, "compile", lambda network, **mode: compiler(network, backend="eager"))  # no C++
        return running.check(made.Setup(CPU, TINY, tmp_path_factory.mktemp("check")))


def test_every_check_makes_rows_and_none_fails(content):
    failed = [row for row in content["rows"] if row["verdict"] == rows.FAILED]
    assert failed == []
    assert {row["check"] for row in content["rows"]} == (set(running.CHECKS) - {"speed"})
    assert json.loads(json.dumps(content, allow_nan=False))["rows"] == content["rows"]


def test_a_step_is_compared_term_by_term_in_each_precision(content):
    """Processors with AMX refuse bfloat16 for images as narrow as these; then the row gives the reason."""
    found = {row["what"]: row["value"] for row in content["rows"] if row["check"] == "step"}
    terms = "global", "local", "id", "probability", "global mutual", "local mutual"
    for precision in devices.PRECISIONS[1:]:
        every = {f"{precision}: {term} loss" for term in terms} | {f"{precision}: gradient"}
        assert found.keys() >= every or f"{precision} against the CPU" in found
    exact = [value for what, value in found.items() if what.startswith("float32: ")]
    assert exact and not any(exact), "the CPU against itself"
    assert found.get("bfloat16: gradient", 1) > 0, "the precision is that of the row"


def test_twins_do_not_part_on_a_cpu(content):
    assert [row["value"] for row in content["rows"] if row["check"] == "twins"] == [0, 0]


def test_what_a_cpu_cannot_do_is_named_with_its_reason(content):
    absent = {row["what"]: row["reason"] for row in content["rows"] if row["verdict"] == rows.ABSENT}
    assert "CUDA graph" in " ".join(absent)
    assert absent["eager, images on the device"] == "the device is the CPU"
    assert all(reason and "\n" not in reason for reason in absent.values())


@pytest.mark.parametrize(("on", "reason"), [("meta", None), ("cpu", "the images do not fit")])
def test_the_device_s_store_is_asked_where_its_images_are(monkeypatch, on, reason):
    """`meta` is the accelerator here: a tensor can be there without any hardware."""

    class Store:
        def __init__(self, paths, size, limit, workers, device=None):
            self.device = device

        def fetch(self, indices):
            return [torch.zeros(3, 1, 1, dtype=torch.uint8, device=on if self.device else "cpu") for _ in indices]

    monkeypatch.setattr(speed.images, "ImageStore", Store)
    config = TrainConfig(weights=None)
    found = speed.places([], config, torch.device("meta"))
    assert isinstance(found["host"], Store) and found["host"].device is None
    assert found["device"].startswith(reason) if reason else found["device"].device.type == "meta"


def test_speeds_have_a_floor(content):
    found = {row["what"]: row for row in content["rows"] if row["unit"] == "images/s"}
    assert found["eager, images on the host"]["reference"] > 0 < found["eager, images on the host"]["value"]
    with_them, without = found["epochs with a checkpoint after each"], found["epochs without the checkpoint"]
    assert with_them["reference"] == without["value"] >= with_them["value"]


@pytest.fixture
def as_started(monkeypatch) -> None:
    """The environment as `make` gives it; what the command sets is removed after the test."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "of somebody else")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")


def test_an_error_is_a_row_and_the_other_checks_are_made(tmp_path, capsys, monkeypatch, as_started):
    def broken(setup):
        raise RuntimeError("a first line\nand a second")

    def working(setup):
        return [rows.Row("second", "works", 1.0, "s")]

    monkeypatch.setattr(running, "check", lambda setup: check(setup, {"first": broken, "second": working}))
    monkeypatch.setattr(devices, "choose_device", lambda name="auto": CPU)
    with pytest.raises(SystemExit) as error:
        running.run(tmp_path, TINY)
    assert error.value.code == 1
    (path,) = (tmp_path / "runs").glob("gpu_check_*.json")
    first, second = json.loads(path.read_text())["rows"]
    assert (first["verdict"], first["reason"]) == (rows.FAILED, "RuntimeError: a first line and a second")
    assert second["verdict"] == rows.MEASURED
    assert "There is no GPU here" in capsys.readouterr().out


check = running.check  # before it is replaced


def test_on_a_gpu_it_writes_into_the_results(tmp_path, monkeypatch, as_started):
    monkeypatch.setattr(running, "check", lambda setup: check(setup, {"none": lambda setup: []}))
    monkeypatch.setattr(running, "make_data", lambda setup: None)
    monkeypatch.setattr(devices, "choose_device", lambda name="auto": GPU)
    monkeypatch.setattr(devices, "choose_precision", lambda *_: "bfloat16")
    monkeypatch.setattr(runs, "provenance", lambda device: {"device": "NVIDIA H100 80GB HBM3"})
    running.run(tmp_path)
    found = json.loads((tmp_path / "notebooks/results/gpu_check_nvidia_h100_80gb_hbm3.json").read_text())
    assert (found["kind"], found["precision"], found["sizes"]["queries"]) == ("cuda", "bfloat16", 3368)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"], "without it a GPU refuses products with `deterministic`"


def test_a_device_name_becomes_a_file_name():
    assert running.file_name("A/../B (c)") == "gpu_check_a_b_c.json"


@pytest.mark.parametrize(
    ("value", "verdict"), [(0.9, rows.OK), (1.0, rows.OK), (1.1, rows.FAILED), (float("nan"), rows.FAILED)]
)
def test_a_comparison_fails_above_its_bound_and_without_a_number(value, verdict):
    row = rows.compared("step", "loss", value, "relative", 1.0, "")
    assert row.verdict == verdict
    assert "NaN" not in json.dumps(row.to_dict())


def test_a_wrong_gradient_and_a_wrong_term_are_found():
    wanted = {"model1_loss": 2.0, "model2_loss": 4.0}, torch.ones(4)
    found = {"model1_loss": 2.0, "model2_loss": 5.0}, torch.tensor([1.0, 1.0, 1.0, -1.0])
    assert correct.differences(found, wanted) == {"loss": 0.25, "gradient": 1.0}


def test_time_on_a_gpu_contains_its_work_and_no_warm_up(monkeypatch):
    """The clock stands still except while the GPU works, which ends in `synchronize`."""
    events, clock, queue = [], [0.0], []
    durations = iter([100.0, 1.0, 9.0, 2.0])  # the first one warms up

    def synchronize(device):
        events.append("wait")
        clock[0] += sum(queue)
        queue.clear()

    def call():
        events.append("call")
        queue.append(next(durations))

    monkeypatch.setattr(torch.accelerator, "synchronize", synchronize)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    assert card.seconds(call, GPU, repeats=3) == 2.0, "the median of 1, 9 and 2"
    assert events == ["call", *["wait", "call", "wait"] * 3]


def test_a_gpu_is_short_of_memory_only_inside(monkeypatch):
    fractions = []
    properties = type("Properties", (), {"total_memory": 80 << 30})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 8 << 30)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, device: fractions.append(share))
    with pytest.raises(KeyError), card.too_small(GPU):
        raise KeyError
    assert fractions == [((8 << 30) + card.ROOM) / (80 << 30), 1.0]


def test_on_a_gpu_the_memory_is_really_short(monkeypatch):
    """The forward pass stays the network's own; on a CPU it is replaced by one that fails."""
    learner = correct.training.Learner(None, "its own", None, GPU, "float32")
    monkeypatch.setattr(card, "too_small", lambda device: pytest.MonkeyPatch.context())
    with correct.no_memory(learner):
        assert learner.forward == "its own"
    learner.device = CPU
    with correct.no_memory(learner), pytest.raises(torch.OutOfMemoryError):
        learner.forward(torch.zeros(1))
    assert learner.forward == "its own"


def test_the_peak_is_that_of_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5_000_000)
    assert card.peak_mb(GPU) == 5.0
    assert card.peak_mb(CPU) is None


# What is shown of a GPU: the chapter and `make bench`.


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    """A folder of results in place of the committed one: a GPU's file, and a CPU's, which nobody shows."""
    monkeypatch.setattr(book, "RESULTS", str(tmp_path))
    measured = [
        rows.Row("distances", "aligned distances, 3368 x 15913, 8 stripes of 128", 0.031, "s"),
        rows.Row("step", "eager, images on the host", 4321.0, "images/s", 5000.0, "bare"),
    ]
    for kind in ("cuda", "cpu"):
        content = {"kind": kind, "device": f"the {kind}", "rows": [row.to_dict() for row in measured]}
        (tmp_path / f"gpu_check_{kind}.json").write_text(json.dumps(content))
    return tmp_path


def test_only_gpus_are_shown_and_a_damaged_file_is_named(results):
    assert [content["device"] for content in book.gpu_checks()] == ["the cuda"]
    (results / "gpu_check_old.json").write_text("[]")
    with pytest.raises(InputError, match=r"gpu_check_old\.json: not written by `make gpu-check`"):
        book.gpu_checks()


def test_bench_shows_the_seconds_of_the_gpu_or_that_there_are_none(results):
    (results / "runs").mkdir()
    shown = (ROOT / "notebooks/results/time_and_space_cpu.json").read_text()
    (results / "runs/bench.json").write_text(shown)
    table = column.table(results)
    assert re.search(r"aligned distances, 3368 x 15913, 8 stripes of 128 +4\.77  0\.031\n", table)
    assert re.search(r"re-ranking: .* not yet measured\n", table)
    assert "the cuda: eager, images on the host: 4321 images/s" in table
    (results / "gpu_check_cuda.json").unlink()
    assert "0.031" not in column.table(results) and "`make gpu-check`" in column.table(results)


def test_a_row_that_was_measured_later_names_its_commit_and_its_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH", str(tmp_path / "bench.json"))
    facts = {"commit": "1" * 40, "torch": "2.15", "device": "2 threads"}
    monkeypatch.setattr(timing.runs, "provenance", lambda *devices: facts)
    timing.record("search", "old", 1.0)
    timing.record("scoring", "old", 2.0, megabytes=7)
    facts = facts | {"commit": "2" * 40, "device": "1 thread"}
    timing.record("search", "old", 3.0)
    content = json.loads((tmp_path / "bench.json").read_text())
    assert content["commit"] == "1" * 40 and content["device"] == "2 threads", "the other rows are still of that day"
    later = {"floor": None, "floor_is": "", "commit": "2" * 40, "device": "1 thread"}
    assert content["rows"] == [
        {"step": "scoring", "what": "old", "seconds": 2.0, "floor": None, "floor_is": "", "megabytes": 7},
        {"step": "search", "what": "old", "seconds": 3.0, **later},
    ]


@pytest.mark.parametrize("measured", [True, False])
def test_chapter_11_shows_the_gpu_column(results, measured):
    if not measured:
        (results / "gpu_check_cuda.json").unlink()
    shown = []
    cells = jupytext.read(ROOT / "notebooks" / "11_time_and_space.py").cells
    names: dict[str, Any] = {"__name__": "chapter"}
    for cell in (cell for cell in cells if cell.cell_type == "code"):
        source = re.sub(r"^Markdown\(", "shown = Markdown(", cell.source, flags=re.MULTILINE)
        exec(source, names)
        shown += [names.pop("shown").data] if "shown" in names else []
    every, memory, goal = shown
    assert re.search(
        r"\| 100 x 1000000, index mapped from its file \([^|]*CPU, 1 thread, commit [0-9a-f]{7}\) \|", every
    )
    assert re.search(r"\| search \| 100 x 1000000, index mapped from its file \| \d+ \| - \|", memory)
    if measured:
        assert re.search(r"aligned distances, 3368 x 15913, 8 stripes of 128 .*\| 0\.031 \|", every)
        assert "the cuda |" in every and "| the cuda | eager, images on the host | 4321 | - |" in goal
    assert "not yet measured" in every and ("not yet measured" in goal) != measured
    assert "| 4500 | 3.5 |" in goal


# The page: its commands are true.


def commands() -> list[str]:
    """Every command of the page that has settings, in blocks and in sentences, each on one line."""
    text = PAGE.read_text().replace("\\\n", " ")
    return [line for line in re.findall(r"[^`\n]*-p \w+ [^`\n]*", text)]


def test_the_settings_of_the_page_are_the_code_s():
    found = 0
    for command in commands():
        words = shlex.split(command.replace('ARGS="', " ").replace('"', " "))
        given = [(words[k + 1], words[k + 2]) for k, word in enumerate(words[:-2]) if word == "-p"]
        name = re.search(r"(?:PRESET=|tool\.py train )(\w+)", command)
        preset = name[1] if name else "market1501_gl"
        overrides = presets.read_overrides(ROOT, preset, [pair for pair in given if pair[1] != "NAME"])
        _, settings = presets.plan(ROOT, preset, overrides)
        settings = presets.read_preset(ROOT, preset).defaults | settings
        assert settings.keys() >= dict(given).keys()
        TrainConfig(**{f.name: settings[f.name] for f in dataclasses.fields(TrainConfig) if f.name in settings})
        full_run.Plan(**{f.name: settings[f.name] for f in dataclasses.fields(full_run.Plan) if f.name in settings})
        found += len(given)
    assert found >= 10, "the page has its commands"


def test_the_targets_and_the_precisions_of_the_page_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|\n)make ([a-z-]+)", PAGE.read_text())):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    table = PAGE.read_text().partition("## Precision")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(devices.PRECISIONS)


def test_the_options_of_torchrun_exist():
    from torch.distributed.run import get_args_parser

    known = get_args_parser()
    for command in (command for command in commands() if "torchrun" in command):
        words = shlex.split(
            command.partition("torchrun ")[2].replace("\\$SLURM_NODEID", "0").replace('"', "").rstrip("& ")
        )
        asked = known.parse_args(words)
        assert asked.training_script == "notebooks/book/tool.py"
        processes = int(re.search(r"processes (\d)", command)[1])
        machines = int(asked.nnodes.rpartition(":")[2])  # "1:1" unless it is given
        assert int(asked.nproc_per_node) * machines == processes


def test_the_slurm_script_stops_the_training_and_requeues(tmp_path):
    """bash runs the page's script; `make` and `scontrol` are substitutes that write down what they are told."""
    script = re.search(r"```bash\n(#!/bin/bash\n.*?)```", PAGE.read_text(), re.DOTALL)[1]
    (tmp_path / "job.sh").write_text(script)
    stand_ins = {
        "make": 'echo "$@" > begun; trap "echo stopped > stopped; exit 1" TERM; while :; do sleep 0.1; done',
        "scontrol": 'cat stopped; echo "$@" > requeued',
    }
    for name, body in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(stat.S_IRWXU)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    with subprocess.Popen(["bash", "job.sh"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as job:
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
        job.terminate()
        assert job.communicate()[0] == "stopped\n", "the training had ended before the job was requeued"
    assert (tmp_path / "begun").read_text() == "train PRESET=market1501_gl\n"
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    options = re.findall(r"^#SBATCH (\S+)", script, re.MULTILINE)
    assert {"--requeue", "--signal=B:TERM@60"} <= set(options)


def test_the_command_is_in_the_help_and_in_the_tool(monkeypatch):
    assert re.search(r"^gpu-check: env  ## .*\n\t@\$\(TOOL\) gpu-check$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    called = []
    monkeypatch.setattr(running, "run", called.append)
    tool.main(["gpu-check"])
    assert called == [tool.ROOT]


def test_the_goal_is_that_of_the_published_preset():
    settings = presets.read_preset(ROOT, "market1501_gl").given
    sizes = made.MARKET
    assert (sizes.image, sizes.backbone) == ((settings["height"], settings["width"]), settings["backbone"])
    assert (sizes.ids_per_batch, sizes.images_per_id) == (settings["ids_per_batch"], settings["images_per_id"])
    assert settings["total_epochs"] == speed.EPOCHS and settings["compiled"] is True
    assert {name: settings[name] for name in speed.AS_PUBLISHED} == speed.AS_PUBLISHED


def test_a_compiled_step_is_compared_with_the_eager_one(tmp_path, monkeypatch):
    """With the graphs of a compiled backward, by a backend that needs no compiler; CUDA graphs are refused here."""
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network: compiler(network, backend="aot_eager"))
    setup = made.Setup(CPU, TINY, tmp_path)
    made.make_data(setup)
    how = {"precision": "float32", **correct.GLOBAL_ALONE}
    wanted = correct.one_step(setup.config("few", **how), tmp_path / "eager")
    found = correct._compiled(setup, "one", True, how, wanted)
    assert {row.verdict for row in found} == {rows.OK}
    assert [row.what for row in found] == ["one: global loss", "one: loss", "one: gradient"]
    (refused,) = correct._compiled(setup, "other", "reduce-overhead", how, wanted)
    assert refused.verdict == rows.ABSENT and "no CUDA graphs" in refused.reason
    (differs,) = correct._compiled(setup, "third", True, how, (wanted[0], torch.cat([wanted[1], wanted[1]])))
    assert differs.verdict == rows.FAILED and "other parameters" in differs.reason

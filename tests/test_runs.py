"""A run's folder: atomic files, one config a folder, parameters of a notebook."""

import json
import os

import pytest
import torch

from alignedreid_lib import runs
from alignedreid_lib.errors import InputError
from alignedreid_lib.training import TrainConfig


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "file"
    runs.write_atomic(path, lambda beside: beside.write_text("old"))
    assert list(tmp_path.iterdir()) == [path], "renamed, not copied"

    def full_disk(beside):
        beside.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"file: cannot be written \(.*No space left on device\); free space"):
        runs.write_atomic(path, full_disk)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_belongs_to_one_config(tmp_path):
    config = {"margin": 0.3, "steps": (1, 2), "device": "cpu"}
    folder = runs.open_run(tmp_path / "run", config, free=["device"])
    assert json.loads((folder / "config.json").read_text())["margin"] == 0.3
    assert runs.open_run(tmp_path / "run", config | {"device": "cuda"}, free=["device"]) == folder
    with pytest.raises(InputError, match=r"run: holds a run with margin=0.3, not 0.5; choose another run_dir"):
        runs.open_run(tmp_path / "run", config | {"margin": 0.5})


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        runs.open_run(tmp_path / "file" / "run", {})


def test_checkpoints_come_back_or_are_refused(tmp_path):
    assert runs.load_checkpoint(tmp_path) is None
    runs.save_checkpoint(tmp_path, {"epoch": 3, "model": {"w": torch.arange(3)}})
    state = runs.load_checkpoint(tmp_path)
    assert state["epoch"] == 3 and state["model"]["w"].tolist() == [0, 1, 2]
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"checkpoint\.pt: cannot be read .* remove it to start this run anew"):
        runs.load_checkpoint(tmp_path)
    torch.save({"format": 99}, path)
    with pytest.raises(InputError, match="not a checkpoint of format"):
        runs.load_checkpoint(tmp_path)


def test_metrics_are_lines(tmp_path):
    runs.write_metrics(tmp_path, [{"epoch": 1}, {"epoch": 2}])
    assert (tmp_path / "metrics.jsonl").read_text() == '{"epoch": 1}\n{"epoch": 2}\n'
    assert runs.read_metrics(tmp_path) == [{"epoch": 1}, {"epoch": 2}]
    assert runs.read_metrics(tmp_path / "absent") == []


def cells(*sources):
    """A notebook's globals() after those cells ran."""
    namespace = {}
    for source in sources:
        exec(source, namespace)
    return namespace | {"In": ["", *sources]}


def test_parameters_become_a_config():
    namespace = cells(
        "# Parameters: all of them\nseed = 3\nrun_dir = 'r'", "# Parameters\nmargin = 1.0\n", "height = 5"
    )
    config = runs.read_parameters(TrainConfig, namespace, extra=["run_dir"])
    assert (config.seed, config.margin) == (3, 1.0)
    assert config.height == 256, "a later cell's variable is no parameter"


@pytest.mark.parametrize(
    ("injected", "message"),
    [
        ("lerning_rate = 1", "unknown parameter 'lerning_rate'; known are backbone, "),
        ("margin = 'big'", "margin is 'big', of type str"),
        ("total_epochs = -3", "total_epochs is -3"),
    ],
)
def test_injected_nonsense_is_refused(injected, message):
    with pytest.raises(InputError, match=message):
        runs.read_parameters(TrainConfig, cells("# Parameters: few\nseed = 3", f"# Parameters\n{injected}\n"))


def test_provenance_names_commit_and_versions():
    facts = runs.provenance()
    assert facts["torch"] == torch.__version__
    assert facts["commit"] is None or len(facts["commit"]) == 40


def test_relative_paths_start_at_the_project(tmp_path, monkeypatch):
    (tmp_path / "alignedreid_lib").mkdir()
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert runs.resolve("data/x") == tmp_path / "data" / "x"
    assert runs.resolve("/elsewhere") == runs.Path("/elsewhere")


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    calls = []
    real = {name: getattr(os, name) for name in ("fsync", "replace")}
    for name, function in real.items():
        monkeypatch.setattr(os, name, lambda *a, n=name, f=function: (calls.append(n), f(*a))[1])
    runs.write_atomic(tmp_path / "file", lambda beside: beside.write_text("new"))
    assert calls == ["fsync", "replace"]

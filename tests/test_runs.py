"""A run's folder: atomic files, one config a folder, parameters of a notebook."""

import datetime
import json
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from alignedreid_lib import runs
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.full_run import Plan
from alignedreid_lib.runs import lock
from alignedreid_lib.runs.parameters import assignments
from alignedreid_lib.training import TrainConfig, checkpoint

CHAPTERS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.py"))


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
    with pytest.raises(InputError, match=r"run: contains a run with margin=0.3, not 0.5; choose a different run_dir"):
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
    with pytest.raises(InputError, match=r"checkpoint\.pt: cannot be read .* remove it to start this run again"):
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
    config, plan = runs.read_several(namespace, TrainConfig, Plan)
    assert (config.seed, config.margin, plan.run_dir) == (3, 1.0, "r")
    assert config.height == 256, "a later cell's variable is no parameter"


@pytest.mark.parametrize(
    ("injected", "message"),
    [
        ("lerning_rate = 1", "unknown parameter 'lerning_rate'; known are backbone, "),
        ("margin = 'big'", "margin is 'big'; it has to be a valid number, or None"),
        ("total_epochs = -3", "total_epochs is -3"),
    ],
)
def test_injected_nonsense_is_refused(injected, message):
    with pytest.raises(InputError, match=message):
        runs.read_parameters(TrainConfig, cells("# Parameters: few\nseed = 3", f"# Parameters\n{injected}\n"))


OWN = "# Parameters: the data\nseed = 1\nmargin = 0.1\nheight = 64"
MENDED = "# Parameters: the data\nseed = 2\nmargin = 0.2"
TYPO = "# Parameters: the data\nseed = 1\nbase_Ir = 0.5"
INJECTED = "# Parameters\nseed = 7\n"
BEFORE, AFTER = "import numpy", "height = 5\nwidth = 5"


@pytest.mark.parametrize(
    ("history", "found"),
    [
        ([OWN, AFTER], {"seed": 1, "margin": 0.1, "height": 64}),
        ([OWN, INJECTED, AFTER], {"seed": 7, "margin": 0.1, "height": 64}),
        ([TYPO, OWN], {"seed": 1, "margin": 0.1, "height": 64}),
        ([OWN, AFTER, MENDED], {"seed": 2, "margin": 0.2}),  # height was taken out
        ([OWN, INJECTED, AFTER, OWN, INJECTED], {"seed": 7, "margin": 0.1, "height": 64}),  # run again from the top
        ([OWN, INJECTED, MENDED], {"seed": 2, "margin": 0.2}),  # as Python has it: it ran last
        ([OWN, INJECTED, "# Parameters\nmargin = 0.7\n"], {"seed": 1, "margin": 0.7, "height": 64}),
        (["# Parameters\nbase_Ir = 1", INJECTED], {"seed": 7}),
        ([BEFORE, "# %% tags=['parameters']\n" + OWN], {"seed": 1, "margin": 0.1, "height": 64}),
        (
            ["# parameters: mine\nseed, margin = 4, 0.4\nfor weight_decay in (1e-3,):\n    pass"],
            {"seed": 4, "margin": 0.4},
        ),
        (["# Parameters: few\nseed = 3\nseed += 1\nstaircase_at_epochs = tuple(k for k in (5, 9))"], {"seed": 4}),
    ],
)
def test_the_last_run_of_each_parameters_cell_counts(history, found):
    config, defaults = runs.read_parameters(TrainConfig, cells(*history)), TrainConfig()
    for name in ("seed", "margin", "height", "width"):
        assert getattr(config, name) == found.get(name, getattr(defaults, name)), name


def test_a_misspelt_name_is_refused_until_it_is_mended():
    with pytest.raises(InputError, match="unknown parameter 'base_Ir'"):
        runs.read_parameters(TrainConfig, cells(OWN, TYPO))
    with pytest.raises(InputError, match="unknown parameter 'heigth'"):
        runs.read_parameters(TrainConfig, cells("# Parameters: the data\nwidth, heigth = 64, 128"))
    assert runs.read_parameters(TrainConfig, cells(TYPO, OWN)).margin == 0.1


def test_a_parameters_cell_that_did_not_run_is_named():
    with pytest.raises(InputError, match=r"the parameters cell is not Python \(.*, line 2\)"):
        runs.read_parameters(TrainConfig, {"seed": 1, "In": ["", OWN, "# Parameters: the data\nseed = = 1"]})
    with pytest.raises(InputError, match="parameter 'margin' has no value; correct the parameters cell"):
        runs.read_parameters(TrainConfig, {"seed": 1, "In": ["", "# Parameters: few\nseed = 1\nmargin = 1 / 0"]})


def test_a_cell_counts_as_it_is_written():
    """Not as later cells have changed its names, and what it computes is taken from where it ran."""
    config = runs.read_parameters(TrainConfig, cells(OWN, "seed = 9\nmargin = None"))
    assert (config.seed, config.margin) == (1, 0.1)
    computed = cells("# Parameters: few\ntotal_epochs = 3 * 4\nmargin = float('0.5')\ndecay_at_epoch: int = 2")
    config = runs.read_parameters(TrainConfig, computed)
    assert (config.total_epochs, config.margin, config.decay_at_epoch) == (12, 0.5, 2)


def test_settings_of_a_chapter_are_checked_by_name():
    kinds = {"queries": runs.between(1, 20), "seed": runs.SEED, "share": runs.between(0.0, 1.0), "folder": str}
    own = "# Parameters: few\nqueries = 4\nseed = 3\nshare = 1\nfolder = 'a'"
    found = runs.read_settings(cells(own, "# Parameters\nseed = 5"), **kinds)
    assert (found.queries, found.seed, found.share, found.folder) == (4, 5, 1.0, "a")
    for given, message in {
        "queries = 21": "queries is 21; it has to be less than or equal to 20",
        "queries = 1.5": "queries is 1.5; it has to be a valid integer",
        "seed = -1": "seed is -1; it has to be greater than or equal to 0",
        "share = float('nan')": "share is nan",
        "sead = 1": "unknown parameter 'sead'; known are folder, queries, seed, share",
    }.items():
        with pytest.raises(InputError, match=re.escape(message)):
            runs.read_settings(cells(own, f"# Parameters\n{given}"), **kinds)
    with pytest.raises(InputError, match="seed is None; it has to be a valid integer"):
        runs.read_settings(cells("# Parameters: few\nqueries = 4"), queries=int, seed=runs.SEED)


def test_a_script_has_no_history():
    namespace = {"seed": 4, "run_dir": "r", "other": 1}
    config, plan = runs.read_several(namespace, TrainConfig, Plan)
    assert (config.seed, plan.run_dir) == (4, "r")


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapters_parameters_stay_what_their_cell_says(path):
    """Its cell begins so that it is not taken for papermill's, and no other cell gives its names other values."""
    blocks = [block for block in path.read_text().split("# %%") if not block.startswith(" [markdown]")][1:]
    place = next(k for k, block in enumerate(blocks) if '"parameters"' in block.partition("\n")[0])
    cell, others = blocks[place].partition("\n")[2], blocks[place + 1 :]
    assert cell.startswith("# Parameters: ")
    later = {name for other in others for name in assignments(other.partition("\n")[2])}
    assert not later & set(assignments(cell)), "a parameter's name has another meaning later"


def git(folder, *words):
    names = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *names, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def repository(folder, *files):
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q")
    git(folder, "add", *files or ["."])
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder that holds a project, in no repository yet; the current one."""
    folder = tmp_path / "outer" / "project"
    (folder / "alignedreid_lib").mkdir(parents=True)
    (folder / "alignedreid_lib" / "model.py").write_text("one = 1\n")
    (folder / "pyproject.toml").write_text("")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))  # wherever the tests run
    monkeypatch.chdir(folder)
    return folder


def state_of_git():
    facts = runs.provenance()
    return facts["commit"], facts["changed_since_commit"]


def test_provenance_is_of_the_project_s_own_repository(project, tmp_path, monkeypatch):
    assert state_of_git() == (None, None), "no repository"
    git(project, "init", "-q")
    assert state_of_git() == (None, None), "no commit yet"
    commit = repository(project)
    (project / "notebooks").mkdir()
    for folder in (project, project / "notebooks"):
        monkeypatch.chdir(folder)
        assert state_of_git() == (commit, False)
    (tmp_path / "link").symlink_to(project)
    monkeypatch.chdir(tmp_path / "link")
    assert state_of_git() == (commit, False), "through a link"
    git(project, "worktree", "add", "-q", str(tmp_path / "second"))
    monkeypatch.chdir(tmp_path / "second")
    assert state_of_git() == (commit, False), "its .git is a file"
    (project / "alignedreid_lib" / "model.py").write_text("two = 2\n")
    assert state_of_git() == (commit, False)
    monkeypatch.chdir(project)
    assert state_of_git() == (commit, True)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("notebooks/06_training.py", True),
        ("notebooks/book/presets.py", True),
        ("notebooks/presets/mine.yaml", True),
        ("notebooks/06_training.ipynb", False),  # made of the .py, with other outputs
        ("notebooks/results/mine.json", False),
        ("README.md", False),
    ],
)
def test_a_change_counts_where_a_number_may_depend_on_it(project, name, changed):
    path = project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("before")
    commit = repository(project)
    path.write_text("after")
    assert state_of_git() == (commit, changed)


@pytest.mark.parametrize("committed", [False, True])
def test_a_repository_around_the_project_is_not_its_own(project, monkeypatch, committed):
    repository(project.parent, *([] if committed else ["--", ":!project"]))
    assert state_of_git() == (None, None)
    monkeypatch.chdir(project.parent)
    assert state_of_git() == (None, None), "the folder above is no project"


def test_a_git_hook_s_variables_lead_nowhere(project, tmp_path, monkeypatch):
    repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert state_of_git() == (None, None)


@pytest.mark.parametrize("fault", ["no git", "refuses"])
def test_without_git_s_word_there_is_no_commit(project, tmp_path, monkeypatch, fault):
    repository(project)
    (tmp_path / "bin").mkdir()
    if fault == "refuses":  # as git does in a folder of another user
        (tmp_path / "bin" / "git").write_text("#!/bin/sh\necho fatal: detected dubious ownership >&2\nexit 128\n")
        (tmp_path / "bin" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert state_of_git() == (None, None)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe{\0}\0", b"\x80", b"[" * 100_000, None])
@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
def test_a_damaged_text_file_is_named_in_one_line(tmp_path, name, content):
    path = tmp_path / name
    path.mkdir() if content is None else path.write_bytes(content)
    if name == "metrics.jsonl" and content == b"":
        assert runs.read_metrics(tmp_path) == [], "no epoch yet"
        return
    with pytest.raises(InputError, match=rf"{name}: (not|cannot be read|contains no)") as raised:
        runs.read_metrics(tmp_path) if name == "metrics.jsonl" else runs.open_run(tmp_path, {})
    assert "\n" not in str(raised.value)


def test_json_of_a_windows_editor_is_read(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"name": "\xc3\xa4"}\r\n')
    assert runs.read_json(tmp_path / "a.json") == {"name": "ä"}


@pytest.mark.parametrize(
    ("run_dir", "says"),
    [
        ("file", "file: cannot be made .a file has this name"),
        ("file/run", "run: cannot be made .Not a directory"),
        ("/proc/nowhere/run", "run: cannot be made"),
        ("r" * 300, "cannot be made .File name too long"),
        ("", "run_dir is empty"),
        (
            datetime.date(2026, 10, 11),
            "2026-10-11 is of type date, and a path is needed; write it in quotes: '2026-10-11'",
        ),
        (1, "1 is of type int, and a path is needed"),
        (None, "None is of type NoneType"),
        ("a\0b", "zero byte"),
    ],
)
def test_a_run_dir_that_cannot_be_is_refused_in_one_line(tmp_path, monkeypatch, run_dir, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=says) as raised:
        runs.open_run(run_dir, {})
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_checkpoint_without_its_config_is_not_adopted(tmp_path):
    runs.save_checkpoint(tmp_path, {"epoch": 3})
    with pytest.raises(InputError, match=r"contains a checkpoint and no config\.json"):
        runs.open_run(tmp_path, {"seed": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_of_other_models_is_refused():
    """It was copied here from another run, say."""
    network, other = torch.nn.Linear(2, 1), torch.nn.Linear(3, 1)
    learner = SimpleNamespace(network=network, optimizer=torch.optim.Adam(network.parameters()))
    state = {"models": [other.state_dict()], "optimizers": [learner.optimizer.state_dict()]}
    for bad in (state, {}, {"models": [], "optimizers": []}, {"models": [None], "optimizers": [None]}):
        with pytest.raises(InputError, match=r"checkpoint\.pt .* is not of the models .*; remove it"):
            checkpoint.Run(TrainConfig(), Path(), [learner], {}).restore(bad)


def test_nothing_half_written_is_left_by_a_stop(tmp_path):
    def stop(beside):
        beside.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.write_atomic(tmp_path / "file", stop)
    with pytest.raises(InputError, match="cannot be written"):
        runs.write_atomic(tmp_path / "absent" / "file", lambda beside: beside.write_text(""))
    (tmp_path / "plain").write_text("")
    with pytest.raises(InputError, match=r"results\.json: cannot be written|plain: cannot be made"):
        runs.write_results(tmp_path / "plain", {}, [], 0.0, torch.device("cpu"))
    assert [path.name for path in tmp_path.iterdir()] == ["plain"]


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
    assert runs.resolve("/elsewhere") == Path("/elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert runs.resolve("~/x") == tmp_path / "home" / "x"


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    calls = []
    real = {name: getattr(os, name) for name in ("fsync", "replace")}
    for name, function in real.items():
        monkeypatch.setattr(os, name, lambda *a, n=name, f=function: (calls.append(n), f(*a))[1])
    runs.write_atomic(tmp_path / "file", lambda beside: beside.write_text("new"))
    assert calls == ["fsync", "replace"]


def test_one_process_at_a_time_in_a_folder(tmp_path):
    with lock.locked(tmp_path):
        for given, message in (
            (("runs/x",), r"^runs/x: a make train or torchrun is already at work in it; wait for it$"),
            ((), "already at work in it"),
        ):
            with pytest.raises(InputError, match=message), lock.locked(tmp_path, *given):
                pass
    with lock.locked(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [lock.NAME]


def test_a_disk_without_locks_is_told_and_used(tmp_path, monkeypatch, caplog):
    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    with lock.locked(tmp_path, "runs/x"):
        assert caplog.messages == [
            "runs/x: no lock on this disk (No locks available); start one make train at a time in it"
        ]

"""The book's machinery: the committed pairs, and the commands that run chapters and presets."""

import csv
import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checks
import nbformat
import pairs
import papermill
import pytest
import tool
import yaml

from alignedreid_lib.training import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
CHAPTERS = pairs.chapters(NOTEBOOKS)
PRESETS = sorted((NOTEBOOKS / "presets").glob("*.yaml"))

SOURCE = """# %% [markdown]
# # 0 An example
#
# One equation, $x^2$.

# %% tags=["parameters"]
seed = 1
base_lr = 2e-4
run_dir = "runs/example"

# %%
assert seed > 0

# %% tags=["nbval-check-output"]
assert 1 + 1 == 2
2 * 21

# %%
# A line that rises from 0 to 1.
import matplotlib.pyplot as plt

line, = plt.plot([0, 1])
assert line is not None
plt.show()
"""


SOLVED = """# Exercises

**1.** What is 1 + 1?

:::{dropdown} Solution
```python
assert 1 + 1 == 3
```
:::

```python
this is no solution
```
"""

# The committed pairs


def test_there_are_chapters() -> None:
    assert CHAPTERS, "no chapters in notebooks/"


@pytest.mark.parametrize("name", CHAPTERS)
def test_pair(name: str) -> None:
    assert pairs.problems(NOTEBOOKS, name) == []


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_preset_takes_nothing_from_the_book_s_small_run(path: Path) -> None:
    """What a preset leaves out is the library's default: the published setting, not the chapter's."""
    preset = yaml.safe_load(path.read_text())
    known = {field.name for field in dataclasses.fields(TrainConfig)}
    given = {key: value for key, value in preset["parameters"].items() if key in known}
    chapter = pairs.parameters(nbformat.read(NOTEBOOKS / f"{preset['notebook']}.ipynb", as_version=4))
    run = {key: value for key, value in (chapter | given).items() if key in known}
    assert TrainConfig(**run) == TrainConfig(**given)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_preset_fits_its_notebook(path: Path) -> None:
    _, settings = tool.plan(ROOT, path.stem, {})
    assert settings["run_dir"] == f"runs/{path.stem}"
    texts = [value for value in settings.values() if isinstance(value, str)]
    assert not [t for t in texts if re.fullmatch(r"[-+.\deE]*\d", t)], "a number that YAML reads as text"


@pytest.mark.parametrize("name", sorted({yaml.safe_load(path.read_text())["notebook"] for path in PRESETS}))
def test_a_full_run_needs_nothing_that_only_a_demonstration_defines(name: str) -> None:
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    code = [c.source for c in cells if c.cell_type == "code" and "demonstration" not in pairs.tags(c)]
    command = [sys.executable, "-m", "ruff", "check", "--quiet", "--select", "F821", "-"]
    checked = subprocess.run(command, input="\n".join(code), capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_reference_lists_every_module_after_those_it_imports() -> None:
    text = (NOTEBOOKS / "book" / "reference.md").read_text()
    named = re.findall(r"automodule:: alignedreid_lib\.(\S+)", text)
    library = ROOT / "alignedreid_lib"
    modules = {p.stem: [p] for p in library.glob("*.py") if p.stem != "__init__"}
    modules["datasets"] = sorted((library / "datasets").glob("*.py"))
    assert sorted(named) == sorted(modules)
    for place, name in enumerate(named):
        code = "\n".join(path.read_text() for path in modules[name])
        used = set(re.findall(r"^\s*from alignedreid_lib\.(\w+)", code, re.M))
        for names in re.findall(r"^\s*from alignedreid_lib import (.*)$", code, re.M):
            used |= {word.strip() for word in names.split(",")}
        assert used <= {*named[:place], name}, f"{name} imports from below"


# Pairs: writing and checking


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("book")
    (folder / "00_example.py").write_text(SOURCE)
    assert pairs.update(folder, "00_example")
    return folder


@pytest.fixture
def copy(example: Path, tmp_path: Path) -> Path:
    for path in example.glob("00_example.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def change(folder: Path, edit: Callable[[Any], object]) -> None:
    path = folder / "00_example.ipynb"
    notebook = nbformat.read(path, as_version=4)
    edit(notebook)
    nbformat.write(notebook, path)


def test_solutions_become_cells_that_are_run(copy: Path) -> None:
    (copy / "matplotlibrc").touch()
    change(copy, lambda notebook: notebook.cells.append(nbformat.v4.new_markdown_cell(SOLVED)))
    pairs.unfold_solutions(copy, copy / "unfolded")
    notebook = nbformat.read(copy / "unfolded" / "00_example.ipynb", as_version=4)
    assert [cell.source for cell in notebook.cells[-1:]] == ["assert 1 + 1 == 3\n"]
    assert notebook.cells[-2].cell_type == "markdown"


def test_example_is_a_pair(copy: Path) -> None:
    assert pairs.problems(copy, "00_example") == []
    before = (copy / "00_example.ipynb").read_bytes()
    assert not pairs.update(copy, "00_example"), "an unchanged chapter is not executed again"
    assert (copy / "00_example.ipynb").read_bytes() == before
    notebook = nbformat.read(copy / "00_example.ipynb", as_version=4)
    assert notebook.metadata == pairs.NOTEBOOK_METADATA


def output(kind: str, **more: Any) -> Any:
    return nbformat.v4.new_output(kind, **more)


FAULTS: dict[str, Callable[[Any], object]] = {
    "cell 3: source not as in the .py": lambda n: n.cells[2].update(source="assert seed > 1"),
    "cell 4: tags not as in the .py": lambda n: n.cells[3].metadata.update(tags=[]),
    "cell 1: type and source and tags": lambda n: n.cells.pop(0),
    "4 cells, the .py has 5": lambda n: n.cells.pop(),
    "cell 3: not executed": lambda n: n.cells[2].update(execution_count=None),
    "not executed once each": lambda n: n.cells[2].update(execution_count=9),
    "cell 3: holds an error (KeyError)": lambda n: n.cells[2].outputs.append(output("error", ename="KeyError")),
    "cell 3: holds stderr output": lambda n: n.cells[2].outputs.append(output("stream", name="stderr", text="warning")),
    "names a path of a machine (/home/": lambda n: n.cells[2].outputs.append(
        output("stream", text="in /home/ann/data")
    ),
    "holds image/svg+xml": lambda n: n.cells[2].outputs.append(output("display_data", data={"image/svg+xml": ""})),
    "cell 5: its picture has no words": lambda n: n.cells[4].update(source="plt.plot([0, 1])"),
    "not tagged `parameters`": lambda n: n.cells[1].metadata.update(tags=[]),
    "base_lr is no literal": lambda n: n.cells[1].update(source="seed = 1\nbase_lr = 2 * seed"),
    "is not `name = literal`": lambda n: n.cells[1].update(source="import os"),
    "2 cells hold an assert": lambda n: n.cells[2].update(source="seed > 0"),
    "kB at most": lambda n: n.cells[2].outputs.append(output("stream", text="x" * 400_000)),
}


@pytest.mark.parametrize("problem", FAULTS)
def test_fault_in_a_pair_is_seen(copy: Path, problem: str) -> None:
    change(copy, FAULTS[problem])
    found = pairs.problems(copy, "00_example")
    assert any(problem in line for line in found), found
    assert all(line.startswith("00_example.ipynb: ") for line in found)


@pytest.mark.parametrize("suffix", ["py", "ipynb"])
def test_half_a_pair_is_seen(copy: Path, suffix: str) -> None:
    (copy / f"00_example.{suffix}").unlink()
    assert pairs.problems(copy, "00_example")[0].startswith(f"00_example.{suffix}: missing")


def test_a_chapter_that_writes_to_stderr_is_refused(copy: Path) -> None:
    before = (copy / "00_example.ipynb").read_bytes()
    (copy / "00_example.py").write_text(SOURCE + "\n# %%\nimport sys\n\nprint('a warning', file=sys.stderr)\n")
    with pytest.raises(ValueError, match="cell 6 writes to stderr: a warning"):
        pairs.update(copy, "00_example")
    assert (copy / "00_example.ipynb").read_bytes() == before
    assert len(list(copy.iterdir())) == 2


# Running chapters and presets


@pytest.fixture
def project(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    (root / "notebooks" / "presets").mkdir(parents=True)
    for path in copy.iterdir():
        path.rename(root / "notebooks" / path.name)
    preset = {"notebook": "00_example", "parameters": {"seed": 3}}
    (root / "notebooks" / "presets" / "small.yaml").write_text(yaml.safe_dump(preset))
    return root


@pytest.mark.parametrize(
    ("overrides", "run_dir"),
    [
        ({}, "runs/small"),
        ({"seed": 3}, "runs/small"),
        ({"seed": 2}, "runs/small_seed2"),
        ({"seed": 2, "base_lr": 0.01}, "runs/small_base_lr0.01_seed2"),
        ({"seed": 2, "run_dir": "runs/mine"}, "runs/mine"),
    ],
)
def test_two_settings_never_share_a_folder(project: Path, overrides: dict[str, Any], run_dir: str) -> None:
    name, settings = tool.plan(project, "small", overrides)
    assert name == "00_example"
    assert settings == {"seed": 3} | overrides | {"run_dir": run_dir}


@pytest.mark.parametrize(
    ("preset", "overrides", "message"),
    [
        ("smal", {}, "no preset 'smal'; there are: small"),
        ("", {}, "no preset ''; there are: small"),
        ("small", {"sede": 2}, "unknown parameter 'sede'; 00_example knows: base_lr, run_dir, seed"),
    ],
)
def test_a_wrong_request_is_refused(project: Path, preset: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        tool.train(project, preset, overrides)
    assert not (project / "runs").exists()


def test_values_are_read_as_literals() -> None:
    texts = ["2", "2e-4", "True", "true", "null", "None", "[1, 2]", "cuhk03", "data/raw/a.zip", "a: b: c"]
    assert [tool.value(t) for t in texts] == [2, 2e-4, True, True, None, None, [1, 2], *texts[7:]]


def test_train_shows_what_cells_print(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change_source(project, "print('seed', seed, base_lr)\nassert True")
    tool.train(project, "small", {"seed": 2, "base_lr": 0.5})
    assert "seed 2 0.5" in capfd.readouterr().out
    assert (project / "runs" / "small_base_lr0.5_seed2" / "00_example.ipynb").exists()


def change_source(project: Path, source: str) -> None:
    change(project / "notebooks", lambda notebook: notebook.cells[2].update(source=source))


def test_an_input_error_is_its_message_alone(project: Path) -> None:
    text = "from alignedreid_lib.errors import InputError\nraise InputError('a.zip: absent; put it into data/raw')"
    change_source(project, text)
    with pytest.raises(ValueError, match=r"^a\.zip: absent; put it into data/raw$"):
        tool.train(project, "small", {})


def test_run_stops_at_the_first_chapter_that_fails(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = (project / "notebooks" / "00_example.ipynb").read_bytes()
    change_source(project, "assert seed == 0, 'the seed\\nis one'")
    for name in ("01_second", "02_third"):
        (project / "notebooks" / f"{name}.ipynb").write_bytes(source)
    (project / "notebooks" / "00_example.ipynb").rename(project / "notebooks" / "01_second.ipynb")
    (project / "notebooks" / "00_example.ipynb").write_bytes(source)
    message = r"^01_second: AssertionError: the seed is one \(cell \[2\] of runs/book/01_second.ipynb\)$"
    with pytest.raises(ValueError, match=message):
        tool.run(project)
    assert re.search(r"^00_example +\d+ s\n01_second +failed\n$", capsys.readouterr().out)
    assert (project / "runs" / "book" / "01_second.ipynb").exists()
    assert not (project / "runs" / "book" / "02_third.ipynb").exists()


def test_run_prints_its_own_table(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "runs" / "book").mkdir(parents=True)
    (project / "runs" / "book" / "scores.json").write_text("an old table")
    with pytest.raises(ValueError, match=r"no score table"):
        tool.run(project)
    change_source(
        project,
        "import json, pathlib\n"
        "row = {'rank1': 0.8125, 'mean_ap_step': 0.5, 'mean_ap_trapezoid': 0.25}\n"
        "text = json.dumps({'rows': [{'name': 'trained', **row}, {'name': 'colours', **row, 'rank1': None}]})\n"
        "pathlib.Path('../runs/book/scores.json').write_text(text)",
    )
    tool.run(project)
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert lines[0].split() == ["rank-1", "mAP", "(step)", "mAP", "(trapezoid)"]
    assert [line.split() for line in lines[1:]] == [
        ["trained", "81.2", "50.0", "25.0"],
        ["colours", "-", "50.0", "25.0"],
    ]
    assert len({len(line) for line in lines}) == 1


def test_the_last_line_counts_all_checks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # starts faster
    (tmp_path / "test_three.py").write_text(
        "import pytest\n\ndef test_a(): pass\n\ndef test_b(): assert 0\n\ndef test_c(): pytest.skip('no')\n"
    )
    stages = [("a", ["-c pass", "-m pytest test_three.py -q"]), ("b", ["-c 1/0", "-m pytest absent.py -q"])]
    with pytest.raises(SystemExit) as end:
        checks.run_all(tmp_path, stages)
    assert end.value.code == 1
    assert capfd.readouterr().out.splitlines()[-1] == "2 passed, 3 failed, 1 skipped"


def test_a_full_run_counts_the_smallest_numbers_as_nought_in_every_thread() -> None:
    notebook = nbformat.v4.new_notebook(metadata=pairs.NOTEBOOK_METADATA)
    code = "import torch\nprint((torch.full((10_000_000,), 1e-38) * 1e-3).count_nonzero().item())"
    notebook.cells = [nbformat.v4.new_code_cell(code)]
    left = []
    for extra in ([], [tool.FLUSH]):
        arguments = [*pairs.QUIET_KERNEL, *extra]
        done = papermill.execute_notebook(
            notebook, None, kernel_name="python3", progress_bar=False, extra_arguments=arguments
        )
        left.append(int(done.cells[-1].outputs[0]["text"]))
    assert left[0] > 0 == left[1]


def test_every_published_row_has_its_preset() -> None:
    """Each of the 64 rows of the original reproduction is answered by one preset, whose settings are the row's."""
    with open(NOTEBOOKS / "results" / "published_scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    answers: dict[int, list[str]] = {number: [] for number in range(2, len(rows) + 2)}
    for path in PRESETS:
        match = re.search(r"Answers lines ((?:\d+[,\s#]*)+)", path.read_text())
        for number in map(int, re.findall(r"\d+", match[1])) if match else ():
            answers[number].append(path.stem)
            row, given = rows[number - 2], yaml.safe_load(path.read_text())["parameters"]
            config = TrainConfig(**{key: value for key, value in given.items() if hasattr(TrainConfig, key)})
            assert config.dataset == row["train_set"] and config.base_lr == float(row["base_lr"])
            assert config.total_epochs == int(row["total_epochs"])
            assert config.decay_at_epoch == int(row["decay_at_epoch"])
            weights = (config.global_weight, config.local_weight, config.id_weight)
            assert weights == tuple(float(row[f"{term}_loss"]) for term in ("global", "local", "id"))
            assert config.normalize == (row["normalize_feature"] == "1")
            assert (config.num_models == 2) == (row["mutual"] == "1") == (config.global_mutual_weight > 0)
            assert config.local_weight == 0 or config.local_mining == row["local_hard_samples"]
            assert row["test_distance"] in given["test_distances"] and given["test_rerank"]
            tested = given.get("combined_of", [given["dataset"]])
            assert {"duke": "dukemtmc", "cuhk03": "cuhk03/detected"}.get(row["test_set"], row["test_set"]) in tested
    assert all(len(names) == 1 for names in answers.values()), answers


def test_long_overrides_make_a_name_that_a_folder_may_have() -> None:
    files = [f"runs/a/very/long/way/to/weights_{k}.pth" for k in range(20)]
    _, settings = tool.plan(ROOT, "market1501_gl", {"only_test": files})
    _, others = tool.plan(ROOT, "market1501_gl", {"only_test": files[::-1]})
    assert len(settings["run_dir"]) < 120 and settings["run_dir"] != others["run_dir"]


def test_torchrun_trains_a_preset_in_two_processes(tiny_data, tmp_path):
    """The command of the README; `make train` then finds the run finished."""
    given = {
        "data_root": tiny_data, "dataset": "tiny", "run_dir": tmp_path / "run", "processes": 2, "device": "cpu",
        "height": 32, "width": 16, "backbone": "shufflenet_v2_x0_5", "weights": None, "ids_per_batch": 4,
        "images_per_id": 2, "total_epochs": 2, "decay_at_epoch": 2,
    }  # fmt: skip
    words = [word for name, value in given.items() for word in ("-p", name, str(value))]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "notebooks/book/tool.py", "train", "market1501_gl", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "epoch 2: " in done.stdout and done.stdout.count("epoch 1: ") == 1
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "run" / "weights.pth").exists()
    # Settings that do not agree with what was started; one process, with what torchrun would tell it.
    told = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "localhost"}
    env = os.environ | told | {"MASTER_PORT": "0", "TORCHELASTIC_RUN_ID": "one"}
    done = subprocess.run(
        [sys.executable, *command[len(torchrun) :]], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode != 0 and "processes is 2, but 1 were started; make them agree" in done.stderr


def test_hosted_checks_call_what_a_laptop_calls():
    """One command checks everything, wherever it runs: `.ci/run` and the workflow add nothing of their own."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert commands == ["make test"]
    assert (ROOT / ".ci" / "run").read_text().strip().splitlines()[-1] == "exec make test"

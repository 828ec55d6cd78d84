"""The book's machinery: the committed pairs, and the commands that run chapters and presets."""

import asyncio
import csv
import dataclasses
import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cells
import executor
import links
import nbformat
import numpy as np
import pairs
import papermill
import presets
import pytest
import running
import tool
import yaml
from nbclient.exceptions import DeadKernelError
from PIL import Image

from alignedreid_lib import book, runs
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import full_run
from alignedreid_lib.runs import lock
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

# %% caption="It rises."
# A line that rises from 0 to 1.
svg = "<svg xmlns='http://www.w3.org/2000/svg'/>"
line = type("Line", (), {"_repr_svg_": lambda self: svg})()
assert line is not None
line
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


def test_a_full_run_takes_settings_that_its_cell_leaves_out() -> None:
    assert "mirror_prob" not in pairs.parameters(pairs.read(NOTEBOOKS / "07_mutual_learning.py"))
    _, settings = tool.plan(ROOT, "market1501_gl_mutual", {"mirror_prob": 0.25})
    assert settings["mirror_prob"] == 0.25 and settings["run_dir"].endswith("_mirror_prob0.25")
    with pytest.raises(ValueError, match="unknown parameter 'miror_prob'"):
        tool.plan(ROOT, "market1501_gl_mutual", {"miror_prob": 0.25})


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_preset_fits_its_notebook(path: Path) -> None:
    _, settings = tool.plan(ROOT, path.stem, {})
    assert settings["run_dir"] == f"runs/{path.stem}"
    texts = [value for value in settings.values() if isinstance(value, str)]
    assert not [t for t in texts if re.fullmatch(r"[-+.\deE]*\d", t)], "a number that YAML reads as text"


@pytest.mark.parametrize("name", sorted({yaml.safe_load(path.read_text())["notebook"] for path in PRESETS}))
def test_a_full_run_needs_nothing_that_only_a_demonstration_defines(name: str) -> None:
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    code = [c.source for c in notebook.cells if c.cell_type == "code" and cells.DEMONSTRATION not in pairs.tags(c)]
    command = [sys.executable, "-m", "ruff", "check", "--quiet", "--select", "F821", "-"]
    checked = subprocess.run(command, input="\n".join(code), capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "")


@pytest.mark.parametrize("name", CHAPTERS)
def test_code_fits_the_column_of_the_site(name: str) -> None:
    """80 characters; what Python's formatter leaves longer scrolls sideways there."""
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    lines = [line for cell in cells if cell.cell_type == "code" for line in cell.source.splitlines()]
    assert [line for line in lines if len(line) > 80] == []


def test_reference_lists_every_module() -> None:
    text = (NOTEBOOKS / "book" / "reference.md").read_text()
    named = re.findall(r"automodule:: alignedreid_lib\.(\S+)", text)
    library = ROOT / "alignedreid_lib"
    modules = {".".join(path.relative_to(library).with_suffix("").parts) for path in library.rglob("*.py")}
    packages = {name.removesuffix(".__init__") for name in modules if name.endswith(".__init__")}
    assert sorted(named) == sorted((modules | packages) - {name for name in modules if "__init__" in name})
    for name in CHAPTERS:  # a link leads to where the reference describes its end
        for target in links.used(nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)).values():
            assert target.rpartition(".")[0].removeprefix("alignedreid_lib.") in named, target


def test_a_room_imports_from_the_rooms_below_it(tmp_path: Path) -> None:
    """The contract in pyproject.toml; and it is red where a room looks up."""
    shutil.copytree(ROOT / "alignedreid_lib", tmp_path / "alignedreid_lib")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main(['--no-cache'])"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    for code in (0, 1):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        (tmp_path / "alignedreid_lib" / "losses.py").write_text("from alignedreid_lib import training\n")
    assert "alignedreid_lib.losses -> alignedreid_lib.training" in done.stdout


def test_modules_are_found_by_their_old_names_with_a_warning() -> None:
    import alignedreid_lib
    from alignedreid_lib.batches import images

    with pytest.warns(DeprecationWarning, match="from alignedreid_lib.batches import images"):
        assert alignedreid_lib.images is images
    for place in alignedreid_lib.MOVED.values():
        assert (ROOT / "alignedreid_lib" / f"{place.replace('.', '/')}.py").is_file()
    with pytest.warns(DeprecationWarning, match="from alignedreid_lib.evaluation import full_run"):
        assert alignedreid_lib.testing.Plan is full_run.Plan
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        alignedreid_lib.nothing  # noqa: B018


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
    records = {cells.ORDER: cells.arrangement(notebook), cells.MADE_FROM: {}}
    assert notebook.metadata == executor.NOTEBOOK_METADATA | records


def output(kind: str, **more: Any) -> Any:
    return nbformat.v4.new_output(kind, **more)


FAULTS: dict[str, Callable[[Any], object]] = {
    "cell 3: source not as in the .py": lambda n: n.cells[2].update(source="assert seed > 1"),
    "cell 4: tags not as in the .py": lambda n: n.cells[3].metadata.update(tags=[]),
    "cell 1: type and source and tags": lambda n: n.cells.pop(0),
    "4 cells, the .py has 5": lambda n: n.cells.pop(),
    "cell 3: not executed": lambda n: n.cells[2].update(execution_count=None),
    "not executed once each": lambda n: n.cells[2].update(execution_count=9),
    "cell 3: contains an error (KeyError)": lambda n: n.cells[2].outputs.append(output("error", ename="KeyError")),
    "cell 3: contains output on stderr": lambda n: n.cells[2].outputs.append(
        output("stream", name="stderr", text="warning")
    ),
    "names a path of a machine (/home/": lambda n: n.cells[2].outputs.append(
        output("stream", text="in /home/ann/data")
    ),
    "contains image/png": lambda n: n.cells[2].outputs.append(output("display_data", data={"image/png": ""})),
    "cell 5: its figure has no words": lambda n: n.cells[4].update(source="plt.plot([0, 1])"),
    "cell 5: its figure has no caption": lambda n: n.cells[4].metadata.update(caption=""),
    "cell 5: its caption is its alt": lambda n: n.cells[4].metadata.update(caption="a line that rises from 0 to 1."),
    "cell 5: its words end in '..'": lambda n: n.cells[4].metadata.update(caption="It rises.."),
    "cell 5: its caption does not end in": lambda n: n.cells[4].metadata.update(caption="It rises"),
    "cell 5: caption not as in the .py": lambda n: n.cells[4].metadata.update(caption="It falls."),
    "no code cell is tagged `parameters`": lambda n: n.cells[1].metadata.update(tags=[]),
    "base_lr is not a literal": lambda n: n.cells[1].update(source="seed = 1\nbase_lr = 2 * seed"),
    "is not `name = literal`": lambda n: n.cells[1].update(source="import os"),
    "2 cells contain an assert": lambda n: n.cells[2].update(source="seed > 0"),
    "kB at most": lambda n: n.cells[2].outputs.append(output("stream", text="x" * pairs.MAX_BYTES)),
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


EDITS: dict[str, Callable[[Any], object]] = {
    "cell 3": lambda n: n.cells[2].update(source=n.cells[2].source + "\n# my work"),
    "cell 1": lambda n: n.cells[0].update(source=n.cells[0].source.replace("equation", "Equation")),
    "cell 6": lambda n: n.cells.append(nbformat.v4.new_code_cell("my = 1")),
    "cell 2": lambda n: n.cells[1].update(source="rate = 2\n" + n.cells[1].source, id="another"),
    "the cells' order, number or tags": lambda n: n.cells.pop(),
    "the cells' order, number": lambda n: n.cells.reverse(),
    "the cells' order": lambda n: n.cells[3].metadata.update(tags=["nbval-skip"]),
}


def both(folder: Path) -> list[bytes]:
    return [(folder / f"00_example.{suffix}").read_bytes() for suffix in ("ipynb", "py")]


def not_executed(client: Any) -> None:
    """Instead of an execution."""
    code = [cell for cell in client.nb.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, 1):
        cell.update(execution_count=count, outputs=[])


@pytest.mark.parametrize("force", [False, True], ids=["", "force"])
@pytest.mark.parametrize("edited", EDITS)
def test_an_edit_made_in_the_notebook_alone_comes_into_the_source(
    copy: Path, edited: str, force: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pairs.NotebookClient, "execute", not_executed)
    change(copy, EDITS[edited])
    there = [cells.content(cell) for cell in pairs.read(copy / "00_example.ipynb").cells]
    assert "edited in the .ipynb; `make pairs` brings it" in pairs.problems(copy, "00_example")[0]
    assert pairs.update(copy, "00_example", force)
    assert f"00_example: {edited}" in capsys.readouterr().out
    for suffix in ("py", "ipynb"):
        assert [cells.content(cell) for cell in pairs.read(copy / f"00_example.{suffix}").cells] == there
    assert not pairs.update(copy, "00_example")


def test_the_source_keeps_its_header_and_its_other_lines(copy: Path) -> None:
    text = "# ---\n# jupyter:\n#   jupytext:\n#     formats: ipynb,py:percent\n# ---\n\n" + SOURCE
    (copy / "00_example.py").write_text(text)
    change(copy, lambda n: n.cells[0].update(source=n.cells[0].source.replace("One", "An")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs.NotebookClient, "execute", lambda client: pytest.fail("only prose was edited"))
        assert pairs.update(copy, "00_example")
    assert (copy / "00_example.py").read_text() == text.replace("One", "An")


@pytest.mark.parametrize("keep", ["", "py", "ipynb"])
def test_where_both_sides_were_edited_the_user_chooses(copy: Path, keep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs.NotebookClient, "execute", not_executed)
    change(copy, EDITS["cell 3"])
    (copy / "00_example.py").write_text(SOURCE.replace("2 * 21", "2 * 22"))
    before = both(copy)
    if not keep:
        with pytest.raises(
            ValueError, match=r"^00_example: cell 3 was edited in the .ipynb, and .* KEEP=ipynb"
        ) as error:
            pairs.update(copy, "00_example")
        assert "\n" not in str(error.value) and both(copy) == before
        with pytest.raises(ValueError, match="ONLY=name KEEP=py"):
            pairs.update_all(copy, keep="py")
        return
    assert pairs.update(copy, "00_example", keep=keep)
    for text in map(bytes.decode, both(copy)):
        assert ("2 * 22" in text, "# my work" in text) == (keep == "py", keep == "ipynb")


def test_new_prose_keeps_the_outputs_and_new_code_is_executed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = [cell.get("outputs") for cell in nbformat.read(copy / "00_example.ipynb", as_version=4).cells]
    (copy / "00_example.py").write_text(SOURCE.replace("One equation", "An equation"))
    with monkeypatch.context() as patch:
        patch.setattr(pairs.NotebookClient, "execute", lambda client: pytest.fail("executed"))
        assert pairs.update(copy, "00_example")
        (copy / "00_example.py").write_text(SOURCE.replace("One equation", "An equation").replace("2 * 21", "2 * 22"))
        with pytest.raises(pytest.fail.Exception):
            pairs.update(copy, "00_example")
    notebook = nbformat.read(copy / "00_example.ipynb", as_version=4)
    assert "An equation" in notebook.cells[0].source
    assert [cell.get("outputs") for cell in notebook.cells] == outputs
    (copy / "00_example.py").write_text(SOURCE.replace("One equation", "An equation"))
    assert not pairs.update(copy, "00_example") and pairs.problems(copy, "00_example") == []


def test_an_edit_that_was_copied_into_the_source_is_executed(copy: Path) -> None:
    change(copy, lambda n: n.cells[2].update(source="assert seed > 0\n# my work"))
    (copy / "00_example.py").write_text(SOURCE.replace("assert seed > 0\n", "assert seed > 0\n# my work\n"))
    assert pairs.update(copy, "00_example"), "both agree, but the edit was never executed"
    assert "# my work" in (copy / "00_example.ipynb").read_text() and not pairs.update(copy, "00_example")


@pytest.mark.parametrize("key", [cells.ORDER, cells.MADE_FROM])
def test_an_older_notebook_without_a_record_is_written_again(copy: Path, key: str) -> None:
    change(copy, lambda n: n.metadata.pop(key))
    assert key == cells.ORDER or "stale: it does not record what" in pairs.problems(copy, "00_example")[0]
    assert pairs.update(copy, "00_example") and key in pairs.read(copy / "00_example.ipynb").metadata
    change(copy, lambda n: (n.metadata.pop(cells.ORDER), EDITS["cell 3"](n)))
    with pytest.raises(ValueError, match="KEEP"):  # whether the .py has changed as well cannot be known
        pairs.update(copy, "00_example")


def test_a_notebook_without_outputs_is_executed(copy: Path) -> None:
    (copy / "00_example.py").write_text(SOURCE.replace("seed = 1", "seed = 2"))
    for cell in (notebook := nbformat.read(copy / "00_example.ipynb", as_version=4)).cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    nbformat.write(notebook, copy / "00_example.ipynb")
    assert pairs.update(copy, "00_example") and pairs.problems(copy, "00_example") == []


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        ("ipynb", b"<<<<<<< HEAD", "00_example.ipynb: not a notebook"),
        ("ipynb", b"[]", "00_example.ipynb: not a notebook"),
        ("ipynb", b"{}", "00_example.ipynb: not a notebook"),
        ("ipynb", b"", "00_example.ipynb: not a notebook"),
        ("ipynb", b"\xff\xfe", "00_example.ipynb: not a notebook"),
        (
            "ipynb",
            b'{"cells": [{"cell_type": "code"}], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
            "not a no",
        ),
        ("py", b"# %%\n\xff", "00_example.py: not a notebook"),
        ("py", b"# %%\nx = 1\n\n# %%\nx = (\ny\n", r"00_example.py: cell 2, line 1: '\(' was never closed \(x = \(\)"),
        ("py", b"# %%\n  x = 1\n   y = 2\n", "00_example.py: cell 1, line"),
    ],
)
def test_a_damaged_file_of_a_pair_is_one_line(copy: Path, suffix: str, content: bytes, message: str) -> None:
    (copy / f"00_example.{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        pairs.update(copy, "00_example")
    assert "\n" not in str(error.value)
    assert pairs.problems(copy, "00_example")
    assert (copy / f"00_example.{suffix}").read_bytes() == content


def test_a_full_disk_leaves_the_notebook_as_it_was(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (copy / "00_example.ipynb").read_bytes()
    (copy / "00_example.py").write_text(SOURCE.replace("seed = 1", "seed = 2"))

    def full(notebook: Any, path: Path) -> None:
        path.write_text("half of")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pairs.nbformat, "write", full)
    with pytest.raises(ValueError, match=r"00_example.ipynb: cannot be written \(No space left on device\); free"):
        pairs.update(copy, "00_example")
    assert (copy / "00_example.ipynb").read_bytes() == before and len(list(copy.iterdir())) == 2


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
        ("small", {"run_dir": 5}, "run_dir is 5; it has to be the name of a folder"),
        ("small", {"sede": 2}, "unknown parameter 'sede'; 00_example has: base_lr, run_dir, seed"),
    ],
)
def test_a_wrong_request_is_refused(project: Path, preset: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        tool.train(project, preset, overrides)
    assert not (project / "runs").exists()


def test_values_are_read_as_literals() -> None:
    texts = ["2", "2e-4", "True", "true", "null", "None", "[1, 2]", "cuhk03", "data/raw/a.zip", "a: b: c"]
    assert [presets.value(t) for t in texts] == [2, 2e-4, True, True, None, None, [1, 2], *texts[7:]]


@pytest.mark.parametrize(
    "text",
    [
        "2026-10-11",
        "2026-10-11 12:30:00",
        "2026-13-45",
        "12:30",
        "010",
        "1-2",
        "1j",
        "...",
        "#1",
        "=",
        "*x",
        "@",
    ],
)
def test_what_only_looks_like_a_number_or_a_date_is_text(text: str) -> None:
    assert presets.value(text) == text
    assert presets.value(f"['{text}']") == [text]
    if text[0] in "2":
        assert presets.value(f"[{text}, a]") == [text, "a"]


SOME = ["1", "-1", "1.5", "1e999", "-1e999", "nan", ".nan", "true", "no", "null", "", " ", "a", "a b", "a,b", "[]"]
SOME += ["[a]", "[1]", "[[a]]", "[null]", "{}", "{a: 1}", "{1, 2}", "2026-10-11", "12:30", "1j", "b'x'", "...", "é李"]
SOME += ['"', "\\", "{x}", "9" * 30, "x" * 5000, "a\nb", "${HOME}", "/", "..", "C:\\raw\\a.zip"]


@pytest.mark.parametrize("preset", ["embedded_validated", "mutual_study"])
def test_any_value_of_any_parameter_is_taken_or_refused_in_one_line(
    preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `make train` reads it, papermill writes it into the notebook, and the notebook's first cells check it."""
    read, kinds = presets.read_preset(ROOT, preset), (TrainConfig, full_run.Plan)
    monkeypatch.setattr(presets, "read_preset", lambda root, name: read)
    translate = papermill.translators.PythonTranslator.codify
    refused = 0
    for parameter in read.defaults:
        for text in SOME:
            try:
                overrides = presets.read_overrides(ROOT, preset, [(parameter, text)])
                _, settings = presets.plan(ROOT, preset, overrides)
                namespace: dict[str, Any] = {}
                exec(translate(settings), namespace)
                settings = read.defaults | settings | {key: namespace[key] for key in settings}
                for kind in kinds:
                    kind(**{f.name: settings[f.name] for f in dataclasses.fields(kind) if f.name in settings})
            except ValueError as error:
                assert "\n" not in str(error), (parameter, text, error)
                assert any(name in str(error) for name in read.defaults), (parameter, text, error)
                refused += 1
    assert refused > len(read.defaults) * 10


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_chapter_refuses_a_value_of_another_type_in_its_first_cells(name: str) -> None:
    chapter = pairs.read(NOTEBOOKS / f"{name}.py")
    code = [cell for cell in chapter.cells if cell.cell_type == "code"]
    last = max(
        number for number, cell in enumerate(code) if re.search(r"read_(parameters|settings|several)\(", cell.source)
    )
    after = 1 + next(number for number, cell in enumerate(code) if cells.PARAMETERS in cells.tags(cell))
    before: dict[str, Any] = {"__name__": "__main__"}
    for cell in code[:after]:
        exec(cell.source, before)
    for parameter in pairs.parameters(chapter):
        for value in (object(), {}, float("nan"), [None]):
            namespace = before | {"wrong": value}
            with pytest.raises(InputError, match=parameter):
                for source in (f"{parameter} = wrong", *(cell.source for cell in code[after : last + 1])):
                    exec(source, namespace)


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["-p", "run_dir", "2026-10-11"], {"run_dir": "2026-10-11"}),
        (["-p", "run_dir", "1"], {"run_dir": "1"}),
        (["-p", "run_dir", "'with space'"], {"run_dir": "with space"}),
        (["-p", "archive", "null"], {"archive": "null"}),
        (["-p", "test_sets", "market1501"], {"test_sets": ["market1501"]}),
        (["-p", "test_distances", "(global,local)"], {"test_distances": ["(global,local)"]}),
        (["-p", "staircase_at_epochs", "5"], {"staircase_at_epochs": [5]}),
        (["-p", "staircase_at_epochs", "(5, 9)"], {"staircase_at_epochs": [5, 9]}),
        (["-p", "seed", "1", "-p", "seed", "2"], {"seed": 2}),
    ],
)
def test_a_parameter_is_read_by_the_kind_that_the_notebook_has(words: list[str], settings: dict[str, Any]) -> None:
    overrides = presets.read_overrides(ROOT, "market1501_gl", list(zip(words[1::3], words[2::3], strict=True)))
    _, found = presets.plan(ROOT, "market1501_gl", overrides)
    assert {key: found[key] for key in settings} == settings


def test_a_list_of_one_changes_nothing_where_it_is_the_default() -> None:
    for text in ("global", "[global]", "('global',)"):
        overrides = presets.read_overrides(ROOT, "market1501_gl", [("test_distances", text)])
        assert tool.plan(ROOT, "market1501_gl", overrides)[1]["run_dir"] == "runs/market1501_gl"


def test_another_test_or_another_place_of_the_data_is_the_same_run() -> None:
    """A finished run asked for them is tested, not trained again in a folder of its own."""
    for name, text in {
        "test_sets": "[market1501,dukemtmc]", "test_distances": "[global,local]", "test_rerank": "false",
        "test_multi_query": "max",
        "data_root": "/elsewhere", "checkpoint_every": "5",
    }.items():  # fmt: skip
        overrides = presets.read_overrides(ROOT, "market1501_gl", [(name, text), ("seed", "2")])
        _, settings = tool.plan(ROOT, "market1501_gl", overrides)
        assert settings["run_dir"] == "runs/market1501_gl_seed2" and settings[name] == overrides[name]


@pytest.mark.parametrize("preset", ["../presets/small", "small.yaml", "a/b", "/etc/passwd", "x" * 5000, "\udcff", "*"])
def test_a_preset_is_a_name_of_the_list(project: Path, preset: str) -> None:
    with pytest.raises(ValueError, match=r"no preset .*; there are: small"):
        tool.plan(project, preset, {})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"notebook: [",
        b"\xff\xfe\x00",
        b"notebook: 00_example",
        b"notebook: 00_example\nparameters: [seed]",
        b"notebook: 00_example\nparameters:",
        b"notebook: [00_example]\nparameters: {}",
        b"notebook: ../00_example\nparameters: {}",
        b"notebook: 00_example\nparameters: {seed: 1}\nmore: 2",
        b"notebook: !!python/name:os.system\nparameters: {}",
    ],
)
def test_a_damaged_preset_is_one_line_that_names_it(project: Path, content: bytes) -> None:
    (project / "notebooks" / "presets" / "small.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=r"^notebooks/presets/small.yaml: ") as error:
        tool.plan(project, "small", {})
    assert "\n" not in str(error.value)


def test_a_day_in_a_preset_is_text(project: Path) -> None:
    (project / "notebooks" / "presets" / "small.yaml").write_text(
        "notebook: 00_example\nparameters:\n  run_dir: 2026-10-11\n"
    )
    assert tool.plan(project, "small", {})[1]["run_dir"] == "2026-10-11"


@pytest.mark.parametrize(
    "run_dir",
    [
        "pyproject.toml",
        "pyproject.toml/run",
        "",
        " ",
        ".",
        "..",
        "notebooks/mine",
        "loop/run",
        "new/" + 300 * "x",
        1,
        None,
    ],
)
def test_a_place_where_no_run_can_be_kept_is_one_line(project: Path, run_dir: Any) -> None:
    (project / "pyproject.toml").touch()
    (project / "loop").symlink_to("loop")
    before = sorted(project.rglob("*"))
    with pytest.raises(ValueError, match=r"run_dir|no run can be kept there") as error:
        tool.train(project, "small", {"run_dir": run_dir})
    assert "\n" not in str(error.value) and sorted(project.rglob("*")) == before


def test_a_place_without_permission_is_one_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(ValueError, match=r"runs/small: no run can be kept there \(Permission denied\); choose"):
        tool.train(project, "small", {})


def test_what_a_disk_or_a_person_ends_is_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tool, "ROOT", project)

    def said(error: BaseException) -> str:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise error

        with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
            patch.setattr(papermill, "execute_notebook", fail)
            tool.main(["train", "small"])
        return str(end.value.code)

    full = r"runs/small/00_example.ipynb: cannot be written \(No space left on device\); free space, or choose"
    assert re.fullmatch(f"{full} a different run_dir", said(OSError(28, "No space left on device")))
    assert said(PermissionError(13, "Permission denied", "/x/kernel.json")).startswith("/x/kernel.json: cannot be")
    assert said(RuntimeError("Kernel didn't\nrespond")) == (
        "00_example: its Python process did not start (Kernel didn't respond)"
    )
    assert said(KeyboardInterrupt()) == "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(tool, "train", lambda *_: Path("absent.txt").read_text())
        with pytest.raises(SystemExit, match=r"^absent.txt: No such file or directory$"):
            tool.main(["train", "small"])


@pytest.mark.parametrize("words", ["-p seed", "-p test_sets [a, b]", "-p", "more", "--seed 2"])
def test_words_that_are_no_parameters_are_one_line(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tool.main(["train", "small", *words.split()])
    assert re.fullmatch(r"tool.py.*: error: .*\n", capsys.readouterr().err)


def test_a_reader_that_goes_away_leaves_no_traceback(project: Path) -> None:
    """`make train | head -1`."""
    code = f"import pathlib, tool; tool.ROOT = pathlib.Path({str(project)!r}); tool.main(['train', 'small'])"
    change_source(project, "for k in range(1000): print('x' * 1000)")
    command = f'{sys.executable} -c "{code}" | head -c 1'
    done = subprocess.run(command, shell=True, cwd=NOTEBOOKS / "book", capture_output=True, text=True)
    assert done.stderr == ""


def test_a_process_that_dies_is_said_once(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    change_source(project, "import os; os._exit(1)")
    with pytest.raises(ValueError, match=r"^00_example: its Python process died \(out of memory\?\); see runs/small/"):
        tool.train(project, "small", {})
    assert not caplog.records, "without a handler, records go to standard error"


def test_a_process_that_is_ended_is_no_news(project: Path, caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    """A task of nbclient that waits for a kernel ends with an error that nobody collects, now and then."""

    async def fail() -> None:
        raise DeadKernelError("Kernel died")

    async def stop() -> None:
        task = asyncio.ensure_future(fail())
        await asyncio.sleep(0)
        del task
        gc.collect()
        raise KeyboardInterrupt

    monkeypatch.setattr(running.papermill, "execute_notebook", lambda *_, **__: asyncio.run(stop()))
    with pytest.raises(KeyboardInterrupt):
        tool.train(project, "small", {})
    assert not caplog.records


def test_a_run_that_is_refused_at_once_leaves_nothing(project: Path) -> None:
    raising = "from alignedreid_lib.errors import InputError\nraise InputError('no')"
    change_source(project, raising)
    with pytest.raises(ValueError, match=r"^no$"):
        tool.train(project, "small", {"run_dir": "a{b}/run"})  # papermill fills braces in
    assert not (project / "a{b}").exists()
    (project / "disk").mkdir()
    (project / "link").symlink_to("disk")
    with pytest.raises(ValueError, match=r"^no$"):
        tool.train(project, "small", {"run_dir": "link"})
    assert not list((project / "link").iterdir()), "a folder that was there stays, with what was in it"
    (project / "runs" / "small").mkdir(parents=True)
    (project / "runs" / "small" / "config.json").touch()
    with pytest.raises(ValueError, match=r"^no$"):
        tool.train(project, "small", {})
    assert (project / "runs" / "small" / "config.json").exists()


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


def test_a_full_run_counts_the_smallest_numbers_as_nought_in_every_thread() -> None:
    notebook = nbformat.v4.new_notebook(metadata=executor.NOTEBOOK_METADATA)
    code = "import torch\nprint((torch.full((10_000_000,), 1e-38) * 1e-3).count_nonzero().item())"
    notebook.cells = [nbformat.v4.new_code_cell(code)]
    left = []
    for extra in ([], [executor.FLUSH]):
        arguments = [*executor.QUIET, *extra]
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


SMALL = {
    "dataset": "folder", "weights": None, "backbone": "shufflenet_v2_x0_5", "height": 32, "width": 16,
    "ids_per_batch": 2, "images_per_id": 2, "total_epochs": 1, "decay_at_epoch": 1, "precision": "float32",
    "compiled": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("preset", "more", "times"),
    [("market1501_gl", {}, 2), ("market1501_gl_mutual", {"local_weight": 1.0, "num_models": 2}, 1)],
    ids=["one model", "two models"],
)
def test_a_small_folder_of_one_s_own_trains_and_is_found_again(preset, more, times, tmp_path, capfd):
    """Fewer people and pictures than the chapters draw, and cameras that nobody knows."""
    rng = np.random.default_rng(0)
    for person in range(6):
        (tmp_path / "mine" / f"p{person}").mkdir(parents=True)
        for k in range(3):
            pixels = rng.integers(0, 256, (32, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "mine" / f"p{person}" / f"{k}.png")
    places = {"archive": str(tmp_path / "mine"), "data_root": str(tmp_path / "data"), "run_dir": str(tmp_path / "run")}
    for done in range(times):
        tool.train(ROOT, preset, SMALL | places | more)
        assert f"1 epochs, {done} of them done before" in capfd.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text())["scores"]
    assert {row["num_queries"] for row in results} == {3} and len(results) == 2 * more.get("num_models", 1)


def test_torchrun_trains_a_preset_in_two_processes(tiny_data, tmp_path):
    """The command of the README; `make train` then finds the run finished."""
    given = {
        "data_root": tiny_data, "dataset": "tiny", "run_dir": tmp_path / "run", "processes": 2, "device": "cpu",
        "height": 32, "width": 16, "backbone": "shufflenet_v2_x0_5", "weights": None, "ids_per_batch": 4,
        "images_per_id": 2, "total_epochs": 2, "decay_at_epoch": 2, "compiled": False,
    }  # fmt: skip
    words = [word for name, value in given.items() for word in ("-p", name, str(value))]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "notebooks/book/tool.py", "train", "market1501_gl", *words]
    (tmp_path / "run").mkdir()
    with lock.locked(tmp_path / "run"):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and "run: a make train or torchrun is already at work in it; wait for it" in done.stderr
    assert {path.name for path in (tmp_path / "run").iterdir()} == {lock.NAME}
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_training_that_is_ended_saves_its_last_epoch(tiny_data, tmp_path, number) -> None:
    """Through all processes: tool, papermill, the notebook's kernel."""
    given = SMALL | {
        "data_root": tiny_data, "dataset": "tiny", "run_dir": tmp_path / "run", "total_epochs": 1000,
        "checkpoint_every": 1e6,
    }  # fmt: skip
    words = [word for name, value in given.items() for word in ("-p", name, str(value))]
    command = [sys.executable, "notebooks/book/tool.py", "train", "market1501_gl", *words]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    rows = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and not (rows.exists() and len(rows.read_text().splitlines()) >= 2):
        time.sleep(0.1)
    process.send_signal(number)
    _, said = process.communicate()
    assert (process.returncode, said.splitlines()[-1]) == (1, "stopped"), said
    state = runs.load_checkpoint(tmp_path / "run")
    assert state is not None and state["epoch"] >= 2


def test_results_of_a_preset_are_its_own_then_its_other_seeds(tmp_path):
    for name in ("a_seed3", "a", "a_seed2", "ab", "a_local", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"name": name}))
    assert [run["name"] for run in book.results_of("a", tmp_path)] == ["a", "a_seed2", "a_seed3"]
    assert book.results_of("c", tmp_path) == []
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(InputError, match=r"b\.json: not JSON"):
        book.results_of("b", tmp_path)


def test_score_rows_are_those_of_one_test_for_every_seed_and_model():
    single, pair = (book.score_rows(name) for name in ("cuhk03_mobilenet", "cuhk03_mobilenet_mutual"))
    assert [row.name for row in single] == ["", ""], "two seeds"
    assert [row.name for row in pair] == ["model 1", "model 2"]
    (pooled,) = book.score_rows("market1501_mobilenet_local", "global+local", reranked=True, query="multi-query")
    assert (pooled.name, pooled.distance, pooled.reranked) == ("multi-query", "global+local", True)
    assert book.score_rows("market1501_gl") == []

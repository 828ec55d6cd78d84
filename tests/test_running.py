"""What a user sees while chapters are run: progress, failures by name, the table all the same."""

import io
import json
import re
import threading
from pathlib import Path

import checks
import executor
import nbformat
import progress
import pytest
import running


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Asked:
    """Answers with a count, and lets a test wait until it was asked often enough."""

    def __init__(self, times: int):
        self.count, self.times, self.enough = 0, times, threading.Event()

    def __call__(self) -> str:
        self.count += 1
        if self.count >= self.times:
            self.enough.set()
        return f"cell {self.count} of 9"


def test_in_a_log_a_line_comes_again_and_again() -> None:
    stream, asked = io.StringIO(), Asked(3)
    with progress.Line("06_training", asked, stream, every=0.01) as line:
        assert asked.enough.wait(60)
        line.ending = "done"
    lines = stream.getvalue().splitlines()
    assert len(lines) >= 4 and all(re.match(r"06_training +\d+ s  ", text) for text in lines)
    assert lines[0].endswith("cell 1 of 9") and lines[-1].endswith("done")
    assert progress.EVERY <= 20, "nobody waits longer for news"


def test_on_a_terminal_one_line_moves() -> None:
    stream, asked = Terminal(), Asked(2)
    with progress.Line("a long title" * 30, asked, stream):
        assert asked.enough.wait(60)
    text = stream.getvalue()
    assert text.count("\n") == 1 and text.endswith("\n") and text.count("\r") >= 3
    assert max(map(len, re.split(r"[\r\n]", text))) < 300, "no longer than the terminal is wide"


def test_a_line_ends_with_what_went_wrong() -> None:
    for error, word in ((ValueError, "failed"), (KeyboardInterrupt, "stopped")):
        stream = io.StringIO()
        with pytest.raises(error), progress.Line("x", str, stream):
            raise error
        assert stream.getvalue().rstrip().endswith(word)


def executing(path: Path, states: list[str]) -> None:
    cells = [{"cell_type": "code", "metadata": {"papermill": {"status": state}}} for state in states]
    path.write_text(json.dumps({"cells": [{"cell_type": "markdown", "metadata": {}}, *cells]}))


def test_what_a_chapter_is_at(tmp_path: Path) -> None:
    notebook, log = tmp_path / "x.ipynb", tmp_path / "x.log"
    assert running.doing(notebook, log) == "starting"
    notebook.write_text('{"cells": [')  # being written
    assert running.doing(notebook, log) == "at work"
    executing(notebook, ["completed", "running", "pending"])
    assert running.doing(notebook, log) == "cell 2 of 3"
    log.write_text("model, float32 on cpu\nepoch 3: loss 2\n")
    assert running.doing(notebook, log) == "cell 2 of 3: epoch 3: loss 2"
    executing(notebook, ["completed"] * 3)
    assert running.doing(notebook, log).startswith("cell 3 of 3")


# Running several chapters


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "notebooks").mkdir()
    return tmp_path


def chapter(project: Path, name: str, *sources: str) -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=executor.NOTEBOOK_METADATA)
    nbformat.write(notebook, project / "notebooks" / f"{name}.ipynb")


TABLE = """
import json, pathlib
row = {"name": "trained", "rank1": 0.8125, "mean_ap_step": 0.5, "mean_ap_trapezoid": 0.25}
pathlib.Path("../runs/book/scores.json").write_text(json.dumps({"rows": [row]}))
"""


def test_a_chapter_that_fails_is_named_and_the_others_are_run(project: Path, capsys: pytest.CaptureFixture) -> None:
    chapter(project, "00_first", "assert 1 == 0, 'one\\nis not 0'")
    chapter(project, "08_table", TABLE)
    chapter(project, "09_last", "import logging; logging.getLogger('alignedreid_lib').info('epoch 1')")
    with pytest.raises(ValueError) as caught:
        running.run(project)
    reason = "00_first: AssertionError: one is not 0 (cell [1] of runs/book/00_first.ipynb)"
    assert str(caught.value) == f"\n1 of 3 chapters failed:\n  {reason}"
    out = capsys.readouterr().out
    assert "runs/book/00_first.ipynb" in out.split("\n\n")[0], "where to look, before anything is run"
    lines = out.splitlines()
    assert [line.split()[0] for line in lines if re.search(r"\d s", line)][:3] == ["00_first", "08_table", "09_last"]
    assert any(line.endswith(f"failed: {reason}") for line in lines)
    assert lines[-1].split() == ["trained", "81.2", "50.0", "25.0"], "the table is printed all the same"
    left = {path.name for path in (project / "runs" / "book").iterdir()}
    assert left == {"00_first.ipynb", "08_table.ipynb", "09_last.ipynb", "scores.json"}


def test_a_quiet_check_is_a_line_and_a_failure_shows_its_output(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    commands = {"a": "-c print(123)", "b": "-c print(456);1/0", "c": "-c pass", "d": "-c pass"}
    made = [checks.Check(command, title) for title, command in commands.items()]
    with pytest.raises(SystemExit):
        checks.run_all(tmp_path, [("Stage", lambda root: made)])
    lines = capfd.readouterr().out.splitlines()
    assert "== 1 of 1: Stage" in lines and lines[-1] == "3 passed, 1 failed, 0 skipped"
    assert any(re.match(r"a +\d+ s  1 passed$", line) for line in lines)
    assert any(re.match(r"b +\d+ s  1 failed$", line) for line in lines)
    assert "456" in lines and "123" not in lines
    assert any("ZeroDivisionError" in line for line in lines)


def test_without_a_table_the_run_has_failed(project: Path) -> None:
    (project / "runs" / "book").mkdir(parents=True)
    (project / "runs" / "book" / "scores.json").write_text("an old table")
    chapter(project, "00_first", "pass")
    with pytest.raises(ValueError, match=r"no score table"):
        running.run(project)


def test_the_last_line_counts_all_checks(
    tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # starts faster
    (tmp_path / "test_three.py").write_text(
        "import pytest\n\ndef test_a(): pass\n\ndef test_b(): assert 0\n\ndef test_c(): pytest.skip('no')\n"
    )
    stages = [
        ("a", checks.fixed("-c pass", "-m pytest test_three.py -q")),
        ("b", checks.fixed("-c 1/0", "-m pytest absent.py -q")),
    ]
    with pytest.raises(SystemExit) as end:
        checks.run_all(tmp_path, stages)
    assert end.value.code == 1
    assert capfd.readouterr().out.splitlines()[-1] == "2 passed, 3 failed, 1 skipped"

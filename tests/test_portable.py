"""`make portable`: bounds are written down as they are checked, and lie some spreads from what was found."""

import json
import math
from pathlib import Path

import executor
import jupytext
import nbformat
import pairs
import portable
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def bounds_of(source: str, tmp_path: Path) -> list:
    """What a cell writes down."""
    path = tmp_path / "bounds.jsonl"
    namespace: dict = {}
    exec(portable.RECORD.format(path=str(path)) + portable.recorded(source), namespace)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_comparisons_are_written_down_and_still_checked(tmp_path: Path) -> None:
    source = "for x in (3, 4):\n    assert x >= 2, f'{x}'\nassert x > 2.5 > 1.5 * 1"
    with pytest.raises(ValueError, match=r"the bound has to be on the right: x > 2\.5"):
        portable.recorded(source)
    found = bounds_of("for x in (3, 4):\n    assert x >= 2, f'{x}'\ny = 5\nassert y > x > 0", tmp_path)
    assert found == [
        ["x >= 2", 3, ">=", 2, True],
        ["x >= 2", 4, ">=", 2, True],
        ["y > x", 5, ">", 4, False],
        ["x > 0", 4, ">", 0, True],
    ]
    with pytest.raises(AssertionError, match="too small"):
        bounds_of("assert 1 + 0 > 2, 'too small'", tmp_path)


@pytest.mark.parametrize("source", ["assert f(x)", "assert x == 1", "assert not x"])
def test_an_assert_that_compares_nothing_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="compares numbers"):
        portable.recorded(source)


def test_every_bound_of_the_book_can_be_written_down() -> None:
    tagged = 0
    for name in pairs.chapters(NOTEBOOKS):
        for cell in nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells:
            if "bound" in pairs.tags(cell):
                assert "compared(" in portable.recorded(cell.source)
                tagged += 1
    assert tagged >= 8


def test_distances_in_spreads() -> None:
    found = [("p", seed, "08_x", "a > 1", 2 + 0.1 * seed, ">", 1, True) for seed in (1, 2, 3)]
    found += [("p", seed, "08_x", "b < c", 0.5, "<", 0.5 + 0.1 * seed, False) for seed in (1, 2, 3)]
    found += [("p", seed, "09_x", "d < 1", 0.5, "<", 1, True) for seed in (1, 2, 3)]
    found += [("p", seed, "09_x", "e > 1", value, ">", 1, True) for seed, value in ((1, 1.1), (2, 1.2), (3, 1.0))]
    a, b, d, e = portable.table(found)
    assert a["spreads"] == pytest.approx((2.2 - 1) / 0.1) and not a["near"]
    assert b["bound"] == 0 and b["spreads"] == pytest.approx(0.2 / 0.1) and b["near"], "computed bounds: differences"
    assert d["spreads"] is None and not d["near"], "what never varies is exact"
    assert e["near"] and e["spreads"] == pytest.approx(1.0)
    assert "| 09 | `d < 1` | 1 | 0.5 to 0.5 | 3 | exact |" in portable.markdown([a, b, d, e])


def test_a_bound_that_fails_exactly_is_near() -> None:
    (row,) = portable.table([("p", s, "c", "a > 1", 0.5, ">", 1, True) for s in (1, 2)])
    assert row["near"] and row["spreads"] is None
    assert "not true" in portable.markdown([row])


def test_every_loop_round_has_a_row_of_its_own() -> None:
    rows = portable.table([("p", s, "c", "a > 1", v + s, ">", 1, True) for s in (1, 2) for v in (10, 20)])
    assert [row["values"] for row in rows] == [[11, 12], [21, 22]]
    assert [row["claim"] for row in rows] == ["a > 1 (1)", "a > 1 (2)"]


# The whole command, in a small project

CHAPTER = """# %% tags=["parameters"]
x = 1

# %%
import os

value = 2.0 if os.environ.get("A_PROFILE") else 2.1

# %% tags=["bound"]
assert value > 1, "it is"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("notebooks/results", "alignedreid_lib", "tests"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    notebook = jupytext.reads(CHAPTER, fmt="py:percent")
    notebook.metadata = executor.NOTEBOOK_METADATA
    nbformat.write(notebook, tmp_path / "notebooks" / "00_x.ipynb")
    profiles = {"default": {}, "one_thread": {"A_PROFILE": "1"}}
    monkeypatch.setattr(portable, "PROFILES", profiles)
    monkeypatch.setattr(portable, "run_tests", lambda root: None)
    monkeypatch.setattr(portable, "passes", lambda root: [(p, 1, ["tests", "00_x"]) for p in profiles])
    # Passes after the first are processes of the real command; here they are run in this one.
    passed = lambda command, **_: portable.run_pass(tmp_path, command[3], int(command[4]))  # noqa: E731
    monkeypatch.setattr(portable.subprocess, "run", passed)
    return tmp_path


def test_all_profiles_are_run_once_and_remembered(
    project: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    portable.run(project)
    said = capsys.readouterr().out
    assert "| 00 | `value > 1` | 1 | 2 to 2.1 | 2 |" in said and "all are true" in said
    content = json.loads((project / portable.RESULTS).read_text())
    assert content["bounds"][0]["values"] == [2.1, 2.0] and content["machine"]["cores"]
    with monkeypatch.context() as patch:
        patch.setattr(portable, "work", lambda *_: pytest.fail("run again"))
        portable.run(project)
    monkeypatch.setattr(portable, "SPREADS", math.inf)
    with pytest.raises(ValueError, match=r"0 failed, 1 bounds are too near:\n00_x: value > 1, spreads away: \d+\.\d"):
        portable.run(project)


def test_new_code_is_run_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(portable, "work", lambda *given: calls.append(given[3]))
    portable.run_pass(project, "default", 1)
    folder = portable.folder_of(project, "default", 1)
    for name in calls:
        (folder / f"{name}.json").write_text('{"error": null, "bounds": []}')
    portable.run_pass(project, "default", 1)
    assert calls == ["tests", "00_x"]
    (project / "alignedreid_lib" / "new.py").touch()
    portable.run_pass(project, "default", 1)
    assert calls == ["tests", "00_x"] * 2


def test_what_failed_is_said_and_run_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = project / "notebooks" / "00_x.ipynb"
    path.write_text(path.read_text().replace("value > 1", "value > 2.05"))
    with pytest.raises(ValueError, match=r"1 failed, .*\none_thread, seed 1: 00_x: AssertionError: it is"):
        portable.run(project)
    calls = []
    monkeypatch.setattr(portable, "work", lambda *given: calls.append(given[1:4]))
    with pytest.raises(ValueError, match="1 failed"):
        portable.run(project)
    assert calls == [("one_thread", 1, "00_x")]

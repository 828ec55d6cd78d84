"""Scores that are typed in the README and the book's pages are those of the results files."""

import re
from pathlib import Path

import nbformat
import pytest

from alignedreid_lib import runs

ROOT = Path(__file__).parents[1]
NAMES = {"global": "global", "rigid stripes": "rigid", "aligned stripes": "local", "global + aligned": "global+local"}


def scores(preset: str, distance: str) -> list[str]:
    """Rank-1 / mAP (step) of the single and of both mutual models, as the README writes them."""
    rows = runs.read_json(ROOT / f"notebooks/results/{preset}.json")["scores"]
    single = [r for r in rows if r["distance"] == distance and not r["reranked"] and r["name"] != "multi-query"]
    return [f"{100 * r['rank1']:.1f} / {100 * r['mean_ap_step']:.1f}" for r in single]


@pytest.mark.parametrize(
    "preset",
    [
        "cuhk03_mobilenet_local",
        "cuhk03_mobilenet_mutual",
        "market1501_mobilenet",
        "market1501_mobilenet_id",
        "market1501_mobilenet_local",
    ],
)
def test_a_row_of_the_readme(preset: str) -> None:
    row = next(line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(f"| `{preset}`"))
    for name, distance in NAMES.items():
        if found := re.search(rf"{re.escape(name)} ((?:[\d.]+ / [\d.]+(?: and )?)+)", row):
            assert found[1].split(" and ") == scores(preset, distance), f"{preset}, {name}"
    assert re.search(r"[\d.]+ / [\d.]+", row)


def test_the_two_seeds_of_the_readme_and_the_page_on_fine_tuning() -> None:
    both = [
        runs.read_json(ROOT / f"notebooks/results/cuhk03_mobilenet{seed}.json")["scores"][0] for seed in ("", "_seed2")
    ]
    columns = {
        name: [f"{100 * row[name]:.1f}" for row in both] for name in both[0] if name.startswith(("rank1", "mean_ap"))
    }
    rank1, step, trapezoid = (" and ".join(columns[n]) for n in ("rank1", "mean_ap_step", "mean_ap_trapezoid"))
    typed = f"rank-1 {rank1}, mAP {step} (step), {trapezoid} (trapezoid)"
    assert typed in (ROOT / "README.md").read_text()
    page = (ROOT / "notebooks/book/fine_tune.md").read_text()
    assert f"| {columns['rank1'][0]} | {columns['mean_ap_step'][0]} |" in page
    assert f"give {columns['rank1'][0]} / {columns['mean_ap_step'][0]}," in page
    assert f"differ by {100 * abs(both[0]['rank1'] - both[1]['rank1']):.1f}" in page


def test_the_readme_shows_the_table_of_the_committed_chapter() -> None:
    chapter = nbformat.read(ROOT / "notebooks/08_evaluation.ipynb", as_version=4)
    shown = [
        out.data.get("text/markdown", "") for cell in chapter.cells for out in cell.get("outputs", []) if "data" in out
    ]
    (table,) = [text for text in shown if "trained model" in text and "colour histogram" in text]
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines() if "-:" not in line]
    head, *rows = lines
    wanted = {row[0]: [row[head.index(name)] for name in ("Rank-1", "mAP (step)", "mAP (trapezoid)")] for row in rows}
    text = (ROOT / "README.md").read_text()
    for name, scores_of_row in wanted.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} ")]
        assert [cell.strip() for cell in line.strip("| ").split("|")] == [name, *scores_of_row]
    assert len(wanted) == 3


def test_the_study_of_the_strong_recipe_in_the_readme() -> None:
    rows = [
        r for r in runs.read_json(ROOT / "notebooks/results/strong_study.json")["scores"] if r["distance"] == "global"
    ]

    def mean_ap(rung: str, epochs: int) -> float:
        found = [row["mean_ap_step"] for row in rows if (row["rung"], row["epochs"]) == (rung, epochs)]
        assert len(found) == 3
        return 100 * sum(found) / 3

    below, above = (mean_ap("+ local branch", epochs) - mean_ap("foot", epochs) for epochs in (8, 24))
    typed = f"score {-below:.1f} points of mAP below none after 8 epochs, and {above:.1f} above after 24"
    assert typed in (ROOT / "README.md").read_text()

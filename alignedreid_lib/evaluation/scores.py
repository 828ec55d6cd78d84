"""Score tables: what papers print, as Markdown, as JSON, and averaged over runs.

Derived in notebooks/08_evaluation.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignedreid_lib.errors import InputError

SCORES = ("rank1", "rank5", "rank10", "mean_ap_step", "mean_ap_trapezoid")


@dataclass(frozen=True)
class ScoreRow:
    """The scores of one distance: fractions in [0, 1], means over the valid queries; nan where there is none.

    A query is valid if the gallery holds its identity, seen by another camera.
    """

    name: str  # of the features
    distance: str
    reranked: bool
    rank1: float
    rank5: float
    rank10: float
    mean_ap_step: float  # as later toolboxes
    mean_ap_trapezoid: float  # as Market-1501's own evaluation, and the original reproduction
    num_queries: int
    num_valid: int
    cameras_known: bool = True  # if not, images of the query's own camera were not left out
    runs: int = 1  # over how many the scores are means
    spread: dict[str, float] | None = None  # standard deviation of each score over them


@dataclass(frozen=True)
class ScoreTable:
    """Rows of scores; shown as a table in a notebook, printed as Markdown, `+` puts tables below each other."""

    rows: list[ScoreRow]

    def __add__(self, other: ScoreTable) -> ScoreTable:
        return ScoreTable(self.rows + other.rows)

    def __str__(self) -> str:
        return self.to_markdown()

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    def to_markdown(self) -> str:
        """A Markdown table, columns aligned, scores in percent."""
        head = ["Features", "Distance", "Rank-1", "Rank-5", "Rank-10", "mAP (step)", "mAP (trapezoid)", "Queries"]
        lines = [head] + [_cells(row) for row in self.rows]
        if not any(row.name for row in self.rows):
            lines = [line[1:] for line in lines]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        pads = [str.ljust] * (len(widths) - 6) + [str.rjust] * 6  # six columns of numbers stand to the right
        rule = ["-" * (w - 1) + ("-" if pad is str.ljust else ":") for w, pad in zip(widths, pads, strict=True)]
        lines.insert(1, rule)
        padded = ([pad(c, w) for pad, c, w in zip(pads, line, widths, strict=True)] for line in lines)
        table = "\n".join(f"| {' | '.join(line)} |" for line in padded)
        if all(row.cameras_known for row in self.rows):
            return table
        return f"{table}\n\nCameras are not known: no image was left out for being of the query's own camera."

    def named(self, name: str) -> ScoreTable:
        """The same rows with a name added to theirs."""
        names = [", ".join(filter(None, (row.name, name))) for row in self.rows]
        return ScoreTable([dataclasses.replace(row, name=own) for row, own in zip(self.rows, names, strict=True)])

    def to_dict(self) -> dict[str, Any]:
        """What `json.dump` takes: {"rows": [{...}, ...]}; fractions, and None instead of nan."""
        rows = [dataclasses.asdict(row) for row in self.rows]
        return {"rows": [{k: None if v != v else v for k, v in row.items()} for row in rows]}  # nan != nan


def average(tables: Sequence[ScoreTable]) -> ScoreTable:
    """Several runs' tables as one: the mean of every score, and its spread.

    Args:
        tables: of the same rows (names, distances, re-ranking), one table a run.

    Returns:
        ScoreTable whose rows have `runs` and `spread`, the standard deviation over the runs (of a sample: n - 1).

    Raises:
        InputError: no tables, or rows that differ in more than their scores.
    """
    if not tables:
        raise InputError("no tables to average; give one a run")
    kinds = [[(row.name, row.distance, row.reranked, row.cameras_known) for row in table.rows] for table in tables]
    if any(kind != kinds[0] for kind in kinds):
        raise InputError("the tables have different rows; average runs that were tested alike")
    rows = []
    for same in zip(*(table.rows for table in tables), strict=True):
        means = {name: statistics.fmean(getattr(row, name) for row in same) for name in SCORES}
        spread = {name: _spread([getattr(row, name) for row in same]) for name in SCORES}
        rows.append(dataclasses.replace(same[0], **means, runs=len(same), spread=spread))
    return ScoreTable(rows)


def _spread(values: list[float]) -> float:
    """Of a sample; 0 where it says nothing: a single value, or scores of nobody."""
    found = statistics.stdev(values) if len(values) > 1 else 0.0
    return 0.0 if math.isnan(found) else found


def _cells(row: ScoreRow) -> list[str]:
    scores = [getattr(row, name) for name in SCORES]
    percents = ["-" if score != score else f"{100 * score:.1f}" for score in scores]
    if row.spread is not None and row.runs > 1:
        percents = [f"{p} ± {100 * row.spread[name]:.1f}" for p, name in zip(percents, SCORES, strict=True)]
    all_valid = row.num_valid == row.num_queries
    queries = f"{row.num_queries}" if all_valid else f"{row.num_valid} of {row.num_queries}"
    return [row.name, row.distance + (", re-ranked" if row.reranked else ""), *percents, queries]

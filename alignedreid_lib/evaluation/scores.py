"""Score tables: what papers print, as Markdown, as JSON, and averaged over runs. Derived in notebooks/08_evaluation."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_type_hints

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from alignedreid_lib.errors import InputError
from alignedreid_lib.runs import typed

SCORES = ("rank1", "rank5", "rank10", "mean_ap_step", "mean_ap_trapezoid")
MORE_SCORES = ("mean_inp", "tpr_1e2", "tpr_1e3")  # nan in rows of older files
HEADS = {
    "rank1": "Rank-1",
    "rank5": "Rank-5",
    "rank10": "Rank-10",
    "mean_ap_step": "mAP (step)",
    "mean_ap_trapezoid": "mAP (trapezoid)",
    "mean_inp": "mINP",
    "tpr_1e2": "TPR at FPR 1 %",
    "tpr_1e3": "TPR at FPR 0.1 %",
}
_LETTERS = {"0": 0.0, "1": 1.0, "-": math.nan}


class QueryScores(NamedTuple):
    """The scores of each query, for `comparison.compare`."""

    rank1: NDArray[np.float64]  # [Q] 1 if the nearest image is a match, else 0; nan where the query is not valid
    ap: NDArray[np.float64]  # [Q] average precision (step); nan likewise

    ids: NDArray[np.int64] | None = None  # [Q] the query's identity; None in files written before it was recorded

    def to_dict(self) -> dict[str, Any]:
        """A short form for JSON, a line of text each.

        AP in units of 1/10 000, "-" for a query that is not valid; identities as "8*3" where 3 in a row are 8.
        """
        rank1 = "".join("-" if value != value else f"{value:.0f}" for value in self.rank1)
        data = {"rank1": rank1, "ap": " ".join("-" if v != v else f"{10_000 * v:.0f}" for v in self.ap)}
        if self.ids is None:
            return data
        lengths = ((identity, sum(1 for _ in same)) for identity, same in itertools.groupby(self.ids.tolist()))
        return data | {"ids": " ".join(f"{identity}*{n}" if n > 1 else str(identity) for identity, n in lengths)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> QueryScores:
        """The scores that `to_dict` gave, AP rounded.

        Raises:
            ValueError, LookupError, TypeError, AttributeError, OverflowError: it is not such a dict.
        """
        rank1 = np.array([_LETTERS[letter] for letter in typed("rank1", data["rank1"], str)])
        ap = np.array([math.nan if v == "-" else int(v) / 10_000 for v in data["ap"].split()])
        ids = None if data.get("ids") is None else _ids_from(data["ids"], len(ap))
        found = cls(rank1, ap, ids)
        if len({len(part) for part in found if part is not None}) != 1 or (np.isnan(rank1) != np.isnan(ap)).any():
            raise InputError("the scores per query are not of the same queries")
        if np.nanmin(ap, initial=0) < 0 or np.nanmax(ap, initial=0) > 1:
            raise InputError("an AP per query is not from 0 to 10000")
        return found


def _ids_from(text: str, size: int) -> NDArray[np.int64]:
    """The identities that `QueryScores.to_dict` wrote; "5 5" of older files is "5*2"."""
    pairs = [(int(identity), int(n or 1)) for identity, _, n in (entry.partition("*") for entry in text.split())]
    if any(not 0 < n <= size for _, n in pairs):
        raise InputError("the identities per query are not of the same queries")
    return np.repeat(np.array([i for i, _ in pairs], np.int64), [n for _, n in pairs])


@dataclass(frozen=True)
class ScoreRow:
    """The scores of one distance: fractions in [0, 1], means over the valid queries; nan if no query is valid.

    A query is valid if the gallery has an image of its identity from a different camera.
    """

    name: str  # names the features
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
    per_query: QueryScores | None = field(default=None, compare=False, repr=False)  # of one run, protocol market1501
    mean_inp: float = math.nan  # see `ranking.inverse_penalties`
    tpr_1e2: float = math.nan  # share of pairs of one person below a threshold that 1 % of the pairs of two people pass
    tpr_1e3: float = math.nan  # likewise 0.1 %


@dataclass(frozen=True)
class ScoreTable:
    """Rows of scores; shown as a table in a notebook, printed as Markdown; `+` joins the rows of two tables."""

    rows: list[ScoreRow]

    def __add__(self, other: ScoreTable) -> ScoreTable:
        return ScoreTable(self.rows + other.rows)

    def to_markdown(self, more: bool = False) -> str:
        """A Markdown table, columns aligned, scores in percent.

        Args:
            more: also show mINP and the true-positive rates at false-positive rates of 1 % and 0.1 %.
        """
        scores = SCORES + MORE_SCORES * more
        head = ["Features", "Distance", *(HEADS[name] for name in scores), "Queries"]
        lines = [head] + [_cells(row, scores) for row in self.rows]
        if not any(row.name for row in self.rows):
            lines = [line[1:] for line in lines]
        aligned = ["left"] * (len(lines[0]) - len(scores) - 1) + ["right"] * (len(scores) + 1)
        table = tabulate(lines[1:], lines[0], tablefmt="pipe", colalign=aligned, disable_numparse=True)
        if all(row.cameras_known for row in self.rows):
            return table
        return f"{table}\n\nCameras are not known: no image was left out for being of the query's own camera."

    __str__ = _repr_markdown_ = to_markdown

    def named(self, name: str) -> ScoreTable:
        """The same rows with a name added to theirs."""
        names = [", ".join(filter(None, (row.name, name))) for row in self.rows]
        return ScoreTable([dataclasses.replace(row, name=own) for row, own in zip(self.rows, names, strict=True)])

    def to_dict(self) -> dict[str, Any]:
        """What `json.dump` takes: {"rows": [{...}, ...]}; fractions, and None instead of nan."""
        rows = []
        for row in self.rows:
            values = vars(row) | {"per_query": row.per_query and row.per_query.to_dict()}
            rows.append({name: None if value != value else value for name, value in values.items()})  # nan != nan
        return {"rows": rows}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ScoreTable:
        """The table that `to_dict` gave; entries of a row that are not a ScoreRow's are ignored.

        Raises:
            InputError: it is not such a table.
        """
        try:
            return cls([_read_row(row) for row in typed("rows", data["rows"], list[dict[str, Any]])])
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            what = error if isinstance(error, InputError) else repr(error)
            raise InputError(f"not a score table ({what}): give what ScoreTable.to_dict returned") from None


def _read_row(data: Mapping[str, Any]) -> ScoreRow:
    """The row whose entries these are, see `ScoreTable.from_dict`."""
    hints = get_type_hints(ScoreRow)
    found = {name: data[name] for name in hints.keys() & data.keys() - {"per_query"}}
    scores = (*SCORES, *(name for name in MORE_SCORES if name in found))
    empty = {name: math.nan for name in scores if found[name] is None}
    found = {name: typed(name, value, hints[name]) for name, value in found.items() if name not in empty} | empty
    if found.get("spread") is not None and not found["spread"].keys() >= set(SCORES):
        raise InputError(f"spread has not all of {', '.join(SCORES)}")
    per_query = data.get("per_query")
    row = ScoreRow(**found, per_query=None if per_query is None else QueryScores.from_dict(per_query))
    if row.per_query:
        counts = len(row.per_query.ap), int((~np.isnan(row.per_query.ap)).sum())
        if counts != (row.num_queries, row.num_valid):
            raise InputError(f"{counts[1]} of {counts[0]} queries have scores, and num_valid is {row.num_valid}")
    return row


def average(tables: Sequence[ScoreTable]) -> ScoreTable:
    """Several runs' tables as one: the mean of every score, and its spread.

    Args:
        tables: one table per run, with the same rows (names, distances, re-ranking).

    Returns:
        ScoreTable whose rows have `runs` and `spread`, the standard deviation over the runs (of a sample: n - 1).

    Raises:
        InputError: no tables, or rows that differ in more than their scores.
    """
    if not tables:
        raise InputError("no tables to average; give one per run")
    kinds = [[(row.name, row.distance, row.reranked, row.cameras_known) for row in table.rows] for table in tables]
    if any(kind != kinds[0] for kind in kinds):
        raise InputError("the tables have different rows; average runs that were tested alike")
    rows = []
    for same in zip(*(table.rows for table in tables), strict=True):
        means = {name: statistics.fmean(getattr(row, name) for row in same) for name in SCORES + MORE_SCORES}
        spread = {name: _spread([getattr(row, name) for row in same]) for name in means}
        rows.append(dataclasses.replace(same[0], **means, runs=len(same), spread=spread, per_query=None))
    return ScoreTable(rows)


def _spread(values: list[float]) -> float:
    """Standard deviation of a sample; 0 for a single value and for nan."""
    return 0.0 if len(values) < 2 or any(map(math.isnan, values)) else statistics.stdev(values)


def _cells(row: ScoreRow, names: Sequence[str]) -> list[str]:
    scores = [getattr(row, name) for name in names]
    percents = ["-" if score != score else f"{100 * score:.1f}" for score in scores]
    if row.spread is not None and row.runs > 1:  # an older spread lacks the newer scores
        percents = [
            f"{p} ± {100 * row.spread[name]:.1f}" if name in row.spread else p
            for p, name in zip(percents, names, strict=True)
        ]
    all_valid = row.num_valid == row.num_queries
    queries = f"{row.num_queries}" if all_valid else f"{row.num_valid} of {row.num_queries}"
    return [row.name, row.distance + (", re-ranked" if row.reranked else ""), *percents, queries]

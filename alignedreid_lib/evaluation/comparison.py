"""Compare two tests: the difference, its interval, its probability by chance. Derived in notebooks/08_evaluation."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from tabulate import tabulate

from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.scores import ScoreRow, ScoreTable

_NAMES = {"rank1": "Rank-1", "mean_ap_step": "mAP (step)"}  # in the order of QueryScores
_RESAMPLES = 999  # so probabilities are multiples of 1/500
_BATCH = 500  # resamples at a time


class Difference(NamedTuple):
    """How much higher one score of `b` is than that of `a`, as a fraction."""

    score: str
    over: str  # what varies: "409 queries of 78 people" or "3 + 3 seeds"
    difference: float  # b - a
    low: float  # the 95 % interval of the difference
    high: float
    probability: float  # of a difference at least as large by chance (two-sided)


@dataclass(frozen=True)
class Comparison:
    """What `compare` finds; shown as a table in a notebook, printed as Markdown."""

    rows: list[Difference]

    def to_markdown(self) -> str:
        """A Markdown table, columns aligned, differences in points."""
        head = ("Score", "Over", "Difference (b - a)", "95 % interval", "Probability by chance")
        lines = []
        for row in self.rows:
            interval, chance = f"{100 * row.low:+.1f} to {100 * row.high:+.1f}", f"{row.probability:.3f}"
            if np.isnan(row.probability):
                interval = chance = "-"
            lines.append((row.score, row.over, f"{100 * row.difference:+.1f}", interval, chance))
        aligned = ("left", "left", "right", "right", "right")
        return tabulate(lines, head, tablefmt="pipe", colalign=aligned, disable_numparse=True)

    __str__ = _repr_markdown_ = to_markdown


Row = ScoreRow | ScoreTable  # a table of one row is its row


def compare(a: Row | Sequence[Row], b: Row | Sequence[Row], paired: bool = False) -> Comparison:
    """Compare two tests of the same queries: rank-1 and mAP (step), query by query and seed by seed.

    Over queries: the values of each query are averaged over the rows of a side, and paired. The interval comes from a
    percentile bootstrap, the probability from a permutation test that swaps the sides, both with 999 resamples (a
    second at most for 3 368 queries) and a fixed seed. Queries of one person are not independent, so whole people are
    drawn and swapped; single queries only if no row has their identities. New trainings may differ by more than this
    interval.
    Over seeds, if both sides have two or more rows: Welch's t test, or Student's paired one; nan if no score varies.

    Args:
        a, b: a row of `evaluation.evaluate`, or the rows of the same test after trainings with several seeds; a table
            of one row counts as the row. Rows without per-query scores, as of old results files, are compared over
            seeds alone.
        paired: row k of `a` and row k of `b` come from one training, which was tested in two ways.

    Raises:
        InputError: a side that is not made of rows, single rows without per-query scores, different queries on the two
            sides, fewer than two valid queries or people, or paired sides of unequal length.

    Source: Efron and Tibshirani 1993 (bootstrap, also of groups; permutation test); Welch 1947.
    """
    sides = [_rows(side) for side in (a, b)]
    if paired and len(sides[0]) != len(sides[1]):
        raise InputError(f"paired sides have {len(sides[0])} and {len(sides[1])} rows: give two rows for each training")
    without = next((row for row in sides[0] + sides[1] if row.per_query is None), None)
    over_seeds = min(map(len, sides)) >= 2
    if without and not over_seeds:
        what = " ".join(filter(None, (without.name, without.distance)))
        raise InputError(f"the row {what!r} has no per-query scores: evaluate again, under protocol market1501")
    rows = [] if without else _over_queries(*sides)
    if over_seeds:
        rows += [_over_seeds(name, sides[0], sides[1], paired) for name in _NAMES]
    return Comparison(rows)


def _rows(side: Row | Sequence[Row]) -> list[ScoreRow]:
    """The rows of one side of a comparison."""
    given = list(side) if isinstance(side, Iterable) else [side]
    if not given:
        raise InputError("a side has no rows: give a ScoreRow or a list of them")
    rows = []
    for one in given:
        if isinstance(one, ScoreTable):
            if len(one.rows) != 1:
                raise InputError(f"a table has {len(one.rows)} rows: choose one of its rows, as in a.rows[0]")
            (one,) = one.rows
        if not isinstance(one, ScoreRow):
            raise InputError(f"a side has {one!r:.60}: give a ScoreRow, a ScoreTable of one row, or a list of them")
        rows.append(one)
    return rows


def _over_queries(a: list[ScoreRow], b: list[ScoreRow]) -> list[Difference]:
    scores = [row.per_query for row in a + b if row.per_query]
    valid, *others = (~np.isnan(test.ap) for test in scores)
    if any(not np.array_equal(other, valid) for other in others):
        counts = ", ".join(f"{one.sum()} of {len(one)}" for one in (valid, *others))
        raise InputError(f"the tests are of different queries (valid: {counts}): compare tests of one dataset")
    ids = _same_ids([test.ids for test in scores if test.ids is not None])
    tests = [np.stack([test.rank1, test.ap]) for test in scores]
    means = (np.mean(side, axis=0)[:, valid] for side in (tests[len(a) :], tests[: len(a)]))
    gained = np.subtract(*means)  # [2, Q], b - a
    _, own = np.unique(np.arange(len(valid))[valid] if ids is None else ids[valid], return_inverse=True)
    sizes = np.bincount(own)  # [P] queries of each person
    over = f"{len(own)} queries" + (f" of {len(sizes)} people" if ids is not None else "")
    if len(sizes) < 2:
        raise InputError(f"{over} are valid: a comparison needs two or more")
    sums = np.stack([np.bincount(own, weights=gains) for gains in gained])  # [2, P]
    how: dict[str, Any] = {"axis": 1, "vectorized": True, "n_resamples": _RESAMPLES, "batch": _BATCH, "rng": 0}
    drawn = stats.bootstrap((sums, np.stack([sizes] * 2)), _ratio, paired=True, method="percentile", **how)
    low, high = drawn.confidence_interval
    # With one sample, permuting is changing signs: swapping the two sides of a person's queries.
    chance = stats.permutation_test((sums,), np.mean, permutation_type="samples", **how).pvalue
    found = zip(_NAMES.values(), gained.mean(axis=1), low, high, chance, strict=True)
    return [Difference(name, over, *map(float, values)) for name, *values in found]


def _same_ids(known: list[NDArray[np.int64]]) -> NDArray[np.int64] | None:
    """The identity of each query, which all tests have to agree on; None if none of them has it."""
    for other in known[1:]:
        if not np.array_equal(other, known[0]):
            raise InputError("the tests are of different queries (of different people): compare tests of one dataset")
    return known[0] if known else None


def _ratio(sums: NDArray[np.float64], counts: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
    """The mean over all queries of the people that were drawn."""
    return sums.sum(axis) / counts.sum(axis)


def _over_seeds(name: str, one: list[ScoreRow], other: list[ScoreRow], paired: bool) -> Difference:
    a, b = ([getattr(row, name) for row in side] for side in (one, other))
    low = high = probability = float("nan")
    if np.ptp(np.subtract(b, a)) > 0 if paired else np.ptp(a) > 0 or np.ptp(b) > 0:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # one side may still be constant
            found = stats.ttest_rel(b, a) if paired else stats.ttest_ind(b, a, equal_var=False)
        (low, high), probability = map(float, found.confidence_interval(0.95)), float(found.pvalue)
    difference = float(np.mean(b) - np.mean(a))
    over = f"{len(a)} seeds, paired" if paired else f"{len(a)} + {len(b)} seeds"
    return Difference(_NAMES[name], over, difference, low, high, probability)

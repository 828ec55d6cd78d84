"""Compare two tests: the difference, its interval, its probability by chance. Derived in notebooks/08_evaluation."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats
from tabulate import tabulate

from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.scores import ScoreRow

_NAMES = {"rank1": "Rank-1", "mean_ap_step": "mAP (step)"}  # in the order of QueryScores
_RESAMPLES = 999  # so probabilities are multiples of 1/500
_BATCH = 500  # resamples at a time


class Difference(NamedTuple):
    """How much higher one score of `b` is than that of `a`, as a fraction."""

    score: str
    over: str  # what varies: "409 queries" or "3 + 3 seeds"
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


def compare(a: ScoreRow | Sequence[ScoreRow], b: ScoreRow | Sequence[ScoreRow], paired: bool = False) -> Comparison:
    """Compare two tests of the same queries: rank-1 and mAP (step), query by query and seed by seed.

    Over queries: the values of each query are averaged over the rows of a side, and paired. The interval comes from a
    percentile bootstrap, the probability from a permutation test that swaps the sides of queries, both with 999
    resamples (half a second for 3 368 queries) and a fixed seed. New trainings may differ by more than this interval.
    Over seeds, if both sides have two or more rows: Welch's t test, or Student's paired one; nan if no score varies.

    Args:
        a, b: a row of `evaluation.evaluate`, or the rows of the same test after trainings with several seeds. Rows
            without per-query scores, as of old results files, are compared over seeds alone.
        paired: row k of `a` and row k of `b` come from one training, which was tested in two ways.

    Raises:
        InputError: a side without rows, single rows without per-query scores, different queries on the two sides,
            fewer than two valid queries, or paired sides of unequal length.

    Source: Efron and Tibshirani 1993 (bootstrap, permutation test); Welch 1947.
    """
    sides = [[side] if isinstance(side, ScoreRow) else list(side) for side in (a, b)]
    if not all(sides):
        raise InputError("a side has no rows: give a ScoreRow or a list of them")
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


def _over_queries(a: list[ScoreRow], b: list[ScoreRow]) -> list[Difference]:
    tests = [np.stack(row.per_query) for row in a + b if row.per_query]
    valid, *others = (~np.isnan(test[1]) for test in tests)
    if any(not np.array_equal(other, valid) for other in others):
        counts = ", ".join(f"{one.sum()} of {len(one)}" for one in (valid, *others))
        raise InputError(f"the tests are of different queries (valid: {counts}): compare tests of one dataset")
    if valid.sum() < 2:
        raise InputError(f"{valid.sum()} queries are valid: a comparison needs two or more")
    means = (np.mean(side, axis=0)[:, valid] for side in (tests[len(a) :], tests[: len(a)]))
    gained = np.subtract(*means)  # [2, Q], b - a
    how = {"axis": 1, "vectorized": True, "n_resamples": _RESAMPLES, "batch": _BATCH, "rng": 0}
    low, high = stats.bootstrap((gained,), np.mean, method="percentile", **how).confidence_interval
    # With one sample, permuting is changing signs: swapping the two sides of a query.
    chance = stats.permutation_test((gained,), np.mean, permutation_type="samples", **how).pvalue
    over = f"{gained.shape[1]} queries"
    found = zip(_NAMES.values(), gained.mean(axis=1), low, high, chance, strict=True)
    return [Difference(name, over, *map(float, values)) for name, *values in found]


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

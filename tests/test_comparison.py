"""Two tests of the same queries: by eye, against loops, and how often an interval covers the truth."""

import dataclasses
from statistics import mean, variance

import numpy as np
import pytest
from scipy import stats

from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import compare
from alignedreid_lib.evaluation.scores import QueryScores, ScoreRow, ScoreTable

pytestmark = pytest.mark.arithmetic


def row(rank1, ap, name="x", ids=None):
    """A row with the scores of each query, and their means."""
    rank1, ap = np.asarray(rank1, float), np.asarray(ap, float)
    first, mean_ap, valid = np.nanmean(rank1), np.nanmean(ap), int((~np.isnan(ap)).sum())
    scores = (first, first, first, mean_ap, mean_ap)
    return ScoreRow(name, "global", False, *scores, len(ap), valid, per_query=QueryScores(rank1, ap, ids))


def some(rng, queries, shift=0.0):
    """Two tests; the second has a higher AP by `shift` in the mean, and queries vary in how hard they are."""
    hard = rng.uniform(0.2, 0.7, queries)
    aps = [np.clip(hard + rng.normal(0, 0.1, queries) + plus, 0, 1) for plus in (0, shift)]
    return [row(ap > 0.5, ap) for ap in aps]


def test_equals_loops():
    rng = np.random.default_rng(0)
    a, b = some(rng, 80, 0.02)
    found = compare(a, b)
    assert [(line.score, line.over) for line in found.rows] == [("Rank-1", "80 queries"), ("mAP (step)", "80 queries")]
    for line, name in zip(found.rows, ("rank1", "ap"), strict=True):
        sides = (getattr(test.per_query, name).tolist() for test in (a, b))
        gained = [y - x for x, y in zip(*sides, strict=True)]
        assert line.difference == pytest.approx(mean(gained))
        means = sorted(np.mean(rng.choice(gained, 80)) for _ in range(4000))
        assert (line.low, line.high) == pytest.approx((means[100], means[3900]), abs=0.01)
        flips = [abs(np.mean(rng.choice([-1, 1], 80) * gained)) >= abs(mean(gained)) - 1e-12 for _ in range(4000)]
        assert line.probability == pytest.approx(np.mean(flips), abs=0.06)


def test_few_queries_are_permuted_exactly():
    """Of the 8 ways to sign three equal gains, 2 have a mean as large."""
    rank_1, map_ = compare(row([0, 0, 0], [0.1, 0.2, 0.3]), row([1, 1, 1], [0.2, 0.3, 0.4])).rows
    assert rank_1.probability == map_.probability == 0.25
    assert rank_1.difference == rank_1.low == rank_1.high == 1 and map_.difference == pytest.approx(0.1)


def test_equal_tests_do_not_differ():
    a, _ = some(np.random.default_rng(1), 50)
    for line in compare(a, a).rows:
        assert (line.difference, line.low, line.high, line.probability) == (0, 0, 0, 1)


def test_a_shift_is_found_and_its_sign_is_b_less_a():
    a, b = some(np.random.default_rng(2), 400, 0.05)
    line = compare(a, b).rows[1]
    assert line.low < 0.05 < line.high and line.low > 0.02 and line.probability < 0.01
    turned = compare(b, a).rows[1]
    assert turned.difference == pytest.approx(-line.difference) and turned.probability == line.probability
    assert compare(a, b) == compare(a, b), "the resamples have a fixed seed"


def test_an_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(3)
    trials, covered, false_alarms = 150, 0, 0
    for _ in range(trials):
        gains = rng.normal(0.03, 0.2, 60)
        start = np.full(60, 0.5)
        line = compare(row(start > 1, start), row(start > 1, start + gains)).rows[1]
        covered += line.low <= 0.03 <= line.high
        false_alarms += compare(row(start > 1, start), row(start > 1, start + gains - 0.03)).rows[1].probability < 0.05
    assert 0.87 <= covered / trials <= 0.99, covered  # 0.95, three deviations of 150 draws away
    assert false_alarms / trials <= 0.11, false_alarms


@pytest.mark.parametrize("each", [[5], [1, 3, 5, 9]], ids=["five each", "different numbers"])
def test_queries_of_one_person_are_not_counted_as_independent(each):
    """A gain that the queries of a person share: as independent queries, p < 0.05 in 38 % of such trials."""
    rng = np.random.default_rng(7)
    trials, covered, false_alarms = 200, 0, 0
    ids = np.repeat(np.arange(80) + 1000, np.resize(each, 80))
    start = np.full(len(ids), 0.5)
    for _ in range(trials):
        gains = rng.normal(0, 0.1, 80)[ids - 1000] + rng.normal(0, 0.05, len(ids))
        line = compare(*(row(start > 1, aps, ids=ids) for aps in (start, start + gains))).rows[1]
        covered += line.low <= 0 <= line.high
        false_alarms += line.probability < 0.05
    assert line.over == f"{len(ids)} queries of 80 people"
    assert 0.90 <= covered / trials <= 0.99, covered
    assert false_alarms / trials <= 0.10, false_alarms


def test_whole_people_are_drawn_and_swapped():
    """Three people with gains of 0.2, 0.3 and 0.4 in sum, 1 or 2 queries each: the ratio of the sums is resampled."""
    ids, gains = np.array([7, 9, 7, 8, 9]), np.array([0.1, 0.3, 0.1, 0.3, 0.1])
    a, b = row(gains > 1, gains * 0, ids=ids), row(gains > 1, gains, ids=ids)
    line = compare(a, b).rows[1]
    assert line.difference == pytest.approx(0.9 / 5) and line.probability == 0.25
    assert (line.low, line.high) == pytest.approx((0.1, 0.3))  # person 7 three times, and person 8 three times
    assert line.over == "5 queries of 3 people"
    alone = [dataclasses.replace(one, per_query=one.per_query._replace(ids=None)) for one in (a, b)]
    assert compare(*alone).rows[1].over == compare(a, alone[1]).rows[1].over.removesuffix(" of 3 people") == "5 queries"
    assert compare(a, alone[1]) == compare(a, b), "one side tells whose the queries are"


def test_every_query_of_a_different_person_is_a_query_alone():
    a, b = some(np.random.default_rng(8), 40, 0.02)
    named = [dataclasses.replace(one, per_query=one.per_query._replace(ids=np.arange(40))) for one in (a, b)]
    found = [line._replace(over="") for line in compare(*named).rows]
    assert found == [line._replace(over="") for line in compare(a, b).rows]


def test_a_table_of_one_row_is_its_row():
    a, b = some(np.random.default_rng(9), 30, 0.02)
    wanted = compare(a, b)
    assert compare(ScoreTable([a]), ScoreTable([b])) == compare([ScoreTable([a])], b) == wanted
    assert str(compare([a, a], [ScoreTable([b]), b])) == str(compare([a, a], [b, b]))


@pytest.mark.parametrize("other", [None, 3, "a", ["a"], [None], {}, {"rows": []}, {"rank1": 1.0}])
def test_what_is_not_a_row_is_refused(other):
    a, _ = some(np.random.default_rng(9), 30)
    for sides in ((a, other), (other, a), (other, other)):
        with pytest.raises(InputError, match=r"give a ScoreRow|no rows"):
            compare(*sides)


def test_a_table_of_several_rows_is_refused():
    a, b = some(np.random.default_rng(9), 30)
    for table, count in ((ScoreTable([a, b]), 2), (ScoreTable([]), 0)):
        with pytest.raises(InputError, match=f"has {count} rows: choose one of its rows"):
            compare(table, b)


def test_seeds_are_averaged_for_queries_and_compared_with_welchs_test():
    rng = np.random.default_rng(4)
    hard = rng.uniform(0.3, 0.6, 90)
    a, b = ([row(hard > 0.4, hard + rng.normal(plus, 0.05) + rng.normal(0, 0.05, 90)) for _ in range(3)]
            for plus in (0.0, 0.1))  # fmt: skip
    found = compare(a, b).rows
    assert [line.over for line in found] == ["90 queries"] * 2 + ["3 + 3 seeds"] * 2
    one, other = ([test.mean_ap_step for test in side] for side in (a, b))
    error = (variance(one) / 3 + variance(other) / 3) ** 0.5
    freedom = error**4 / ((variance(one) / 3) ** 2 / 2 + (variance(other) / 3) ** 2 / 2)
    gained = mean(other) - mean(one)
    assert found[1].difference == pytest.approx(gained) and found[3].difference == pytest.approx(gained)
    assert found[3].probability == pytest.approx(2 * stats.t.sf(gained / error, freedom))
    half = stats.t.ppf(0.975, freedom) * error
    assert (found[3].low, found[3].high) == pytest.approx((gained - half, gained + half))
    assert np.isnan(found[2].probability), "rank-1 is the same after every seed: nothing to say"
    assert len(compare(a[:1], b).rows) == 2, "one seed has no spread"


def test_queries_that_are_not_valid_take_no_part():
    a = row([0, np.nan, 1, 0], [0.1, np.nan, 1, 0.3])
    b = row([1, np.nan, 1, 0], [0.4, np.nan, 1, 0.3])
    line = compare(a, b).rows[1]
    assert line.over == "3 queries" and line.difference == pytest.approx(0.1)


def test_in_text():
    a, b = row([0, 0, 0], [0.1, 0.2, 0.3]), row([1, 1, 1], [0.2, 0.3, 0.4])
    found = compare([a, a], [b, b])
    assert str(found) == found._repr_markdown_()
    assert str(found).splitlines()[2:] == [
        "| Rank-1     | 3 queries   |               +100.0 | +100.0 to +100.0 |                   0.250 |",
        "| mAP (step) | 3 queries   |                +10.0 |   +10.0 to +10.0 |                   0.250 |",
        "| Rank-1     | 2 + 2 seeds |               +100.0 |                - |                       - |",
        "| mAP (step) | 2 + 2 seeds |                +10.0 |                - |                       - |",
    ]


def test_what_is_refused():
    a = row([0, 1, 1], [0.1, 1, 1])
    for b, says in (
        (row([0, 1], [0.1, 1]), "3 of 3, 2 of 2"),
        (row([0, np.nan, 1], [0.1, np.nan, 1]), "3 of 3, 2 of 3"),
        (ScoreRow("old", "local", False, 1, 1, 1, 1, 1, 3, 3), "'old local' has no per-query scores"),
        ([], "no rows"),
    ):
        with pytest.raises(InputError, match=says):
            compare(a, b)
    with pytest.raises(InputError, match="1 queries are valid"):
        compare(row([0], [0.1]), row([0], [0.1]))
    with pytest.raises(InputError, match="2 queries of 1 people are valid"):
        compare(*[row([0, 1, np.nan], [0.1, 1, np.nan], ids=np.array([4, 4, 5]))] * 2)
    with pytest.raises(InputError, match="the tests are of different queries"):
        compare(*(row([0, 1, 1], [0.1, 1, 1], ids=np.array(ids)) for ids in ([4, 4, 5], [4, 5, 5])))


def test_paired_seeds_are_compared_by_their_differences():
    rng = np.random.default_rng(5)
    level = rng.normal(0.6, 0.05, 4)  # of a training, whichever way it is tested
    a, b = ([row([1, 0], np.full(2, seed + plus)) for seed in level] for plus in (0.0, 0.01))
    b[0] = row([1, 0], np.full(2, level[0] + 0.012))
    apart, together = (compare(a, b, paired=paired).rows[-1] for paired in (False, True))
    assert apart.difference == pytest.approx(together.difference) == pytest.approx(0.0105)
    assert apart.probability > 0.5 and together.probability < 0.001 and together.over == "4 seeds, paired"
    wanted = stats.ttest_1samp([y.mean_ap_step - x.mean_ap_step for x, y in zip(a, b, strict=True)], 0)
    assert together.probability == pytest.approx(wanted.pvalue)
    with pytest.raises(InputError, match="paired sides have 4 and 3 rows"):
        compare(a, b[:3], paired=True)


def test_old_results_are_compared_over_seeds_alone():
    rng = np.random.default_rng(6)
    tests = [some(rng, 50, 0.1) for _ in range(3)]
    a, b = ([dataclasses.replace(test, per_query=None) for test in side] for side in zip(*tests, strict=True))
    found = compare(a, b)
    assert [line.over for line in found.rows] == ["3 + 3 seeds"] * 2
    assert found.rows == compare(*zip(*tests, strict=True)).rows[2:]

"""The exercises answer back: stubs and typical wrong answers are refused by name, committed solutions are accepted."""

import importlib
import math
import re
from collections import Counter
from pathlib import Path

import jupytext
import numpy as np
import pairs
import pytest
import torch

from alignedreid_lib import alignment, losses, training
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import ranking, reranking, verification
from alignedreid_lib.exercises import check, judge

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
CHAPTERS = pairs.chapters(NOTEBOOKS)
WITHOUT_SETTINGS = ("00", "10", "11")  # they have nothing to choose but what they show


def exercise_of(chapter):
    return importlib.import_module(f"alignedreid_lib.exercises.c{chapter}").EXERCISE


# The chapters


def programs(chapter):
    """The cell with the stub, and the solution that follows it."""
    cells = jupytext.read(NOTEBOOKS / f"{chapter}.py", fmt="py:percent").cells
    (place,) = [k for k, c in enumerate(cells) if c.cell_type == "code" and f'check("{chapter}"' in c.source]
    solution = pairs.SOLUTION.search(cells[place + 1].source)
    return cells[place].source, pairs.PROGRAM.search(solution[1])[1]


def run(program):
    """The answer of the check in the last line of a program, run by itself."""
    *body, last = program.rstrip().splitlines()
    names = {"np": np, "torch": torch, "check": check}
    exec("\n".join(body), names)
    return eval(last.removeprefix("assert "), names)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_stub_is_refused_by_the_name_of_its_mistake(chapter):
    answer = run(programs(chapter)[0])
    assert not answer
    assert answer.words.removeprefix("Not yet. ") in exercise_of(chapter).mistakes


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_committed_solution_is_correct(chapter):
    answer = run(programs(chapter)[1])
    assert answer and answer.words == f"Correct. {exercise_of(chapter).notice}"


BOX = re.compile(r"^:::\{admonition\} Predict first\n:class: tip\n(.*?)\n:::$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_two_or_three_boxes_ask_to_predict_the_next_cell(chapter):
    cells = jupytext.read(NOTEBOOKS / f"{chapter}.py", fmt="py:percent").cells
    asked = [k for k, cell in enumerate(cells) if BOX.search(cell.source)]
    assert 2 <= len(asked) <= 3
    for k in asked:
        assert cells[k].source.endswith("?\n:::") and cells[k + 1].cell_type == "code"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_settings_are_advised_before_the_summary(chapter):
    text = (NOTEBOOKS / f"{chapter}.py").read_text("utf-8")
    advice = re.search(r"^# ## Which setting should I take\?\n(.*?)^# ## (\w+)", text, re.DOTALL | re.MULTILINE)
    assert bool(advice) == (chapter[:2] not in WITHOUT_SETTINGS)
    if advice:
        assert 3 <= advice[1].count("\n# * ") <= 6 and advice[2] == "Summary"


# Typical wrong answers, as readers write them, and a part of the answer that names the mistake


def own_camera_last(distances, ids, cameras, query_id, query_camera):
    hits = [i == query_id and c != query_camera for _, i, c in sorted(zip(distances, ids, cameras, strict=True))]
    return hits.index(True) + 1 if any(hits) else None


def no_image_of_the_camera(distances, ids, cameras, query_id, query_camera):
    rows = [(d, i) for d, i, c in zip(distances, ids, cameras, strict=True) if c != query_camera]
    hits = [i == query_id for _, i in sorted(rows)]
    return hits.index(True) + 1 if any(hits) else None


def counted_from_zero(distances, ids, cameras, query_id, query_camera):
    rows = zip(distances, ids, cameras, strict=True)
    hits = [i == query_id for _, i, c in sorted(rows) if (i, c) != (query_id, query_camera)]
    return hits.index(True)  # and an error where there is none


def in_gallery_order(distances, ids, cameras, query_id, query_camera):
    kept = [i == query_id for i, c in zip(ids, cameras, strict=True) if (i, c) != (query_id, query_camera)]
    return kept.index(True) + 1 if any(kept) else None


def whole_batches(labels, P, K, last=False):
    counts = Counter(labels)
    people = [p for p in counts if counts[p] >= K]
    groups = [people[k : k + P] for k in range(0, len(people), P)]
    return [[i for p in g for i in np.flatnonzero(np.array(labels) == p)[:K]] for g in groups if len(g) == P or last]


def incomplete_batches(labels, P, K):
    people = list(dict.fromkeys(labels))
    batches = []
    for start in range(0, len(people), P):
        batch = []
        for person in people[start : start + P]:
            own = [i for i, label in enumerate(labels) if label == person]
            batch += (own * K)[:K]
        batches.append(batch)
    return batches


def neighbouring_costs(costs):
    S = np.array(costs)
    for i, j in np.ndindex(S.shape):
        before = [costs[i - 1][j]] * (i > 0) + [costs[i][j - 1]] * (j > 0)
        S[i, j] = costs[i][j] + min(before, default=0)
    return S


def start_anywhere(costs):
    S = np.array(costs)
    for i in range(1, len(S)):
        for j in range(1, len(S[0])):
            S[i, j] += min(S[i - 1, j], S[i, j - 1])
    return S.tolist()


def only_the_last_sum(costs):
    return float(alignment.shortest_path(torch.tensor(costs, dtype=torch.float64)))


def mined_by_masks(distances, labels, fill, farthest=np.max):
    D, y = np.array(distances, float), np.array(labels)
    same = y[:, None] == y[None]
    positive = np.where(same & ~np.eye(len(y), dtype=bool), D, -np.inf).max(1)
    negative = farthest(np.where(same, fill, D), axis=1)
    return [
        (None if math.isinf(p) else p, None if math.isinf(n) else n) for p, n in zip(positive, negative, strict=True)
    ]


def mined_with_itself(distances, labels):
    """It raises where there is no negative, and takes the anchor where there is no positive."""
    D, y = np.array(distances, float), np.array(labels)
    return [(D[a][y == y[a]].max(), D[a][y != y[a]].min()) for a in range(len(y))]


def index_before_the_first(costs):
    S = np.array(costs)
    for i, j in np.ndindex(*S.shape):
        S[i, j] += min(S[i - 1, j], S[i, j - 1])
    return S


def by_number(labels, P, K):
    groups = [np.resize(np.flatnonzero(np.array(labels) == person), K) for person in np.unique(labels)]
    return [np.concatenate(groups[start : start + P]) for start in range(0, len(groups) - P + 1, P)]


def added(roles):
    kept = [role == "match" for role in roles if role != "ignored"]
    return sum((np.cumsum(kept) / np.arange(1, len(kept) + 1))[kept]) if any(kept) else math.nan


def trapezoid(roles):
    area, matches, before = 0.0, 0, 1.0
    kept = [role for role in roles if role != "ignored"]
    for rank, role in enumerate(kept, 1):
        matches += role == "match"
        area += (before + matches / rank) / 2 * (role == "match")
        before = matches / rank
    return area / matches if matches else math.nan


def nought_without_a_match(roles):
    kept = [role == "match" for role in roles if role != "ignored"]
    ranks = np.flatnonzero(kept) + 1
    return np.mean(np.arange(1, len(ranks) + 1) / ranks) if len(ranks) else 0


def ignored_as_matches(roles):
    hits = np.array([role in ("match", "ignored") for role in roles], bool)
    return (np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean()


def found_rate(same, different, rate):
    allowed = [t for t in sorted(same + different) if np.mean(np.array(same) <= t) <= rate]
    return allowed[-1] if allowed else None


def strictly_below(same, different, rate):
    allowed = [t for t in sorted(same + different) if np.mean(np.array(different) < t) <= rate]
    return allowed[-1] if allowed else None


def quantile_of_strangers(same, different, rate):
    allowed = [t for t in sorted(different) if np.mean(np.array(different) <= t) <= rate]
    return allowed[-1] if allowed else None


WRONG = {
    "00_quickstart": [
        (own_camera_last, "as wrong images"),
        (no_image_of_the_camera, "strangers stay"),
        (counted_from_zero, "begin with 0"),
        (in_gallery_order, "order of the gallery"),
    ],
    "01_datasets": [
        (lambda ids: [sorted(ids).index(y) for y in ids], "count people"),
        (lambda ids: np.unique(ids, return_inverse=True)[1] + 1, "begin with 1"),
        (lambda ids: np.array(ids, int) - np.min(ids), "keep the gaps"),
        (lambda ids: np.arange(len(ids)), "number the people"),
        (lambda ids: [sorted(set(ids), reverse=True).index(y) for y in ids], "fall as the identities rise"),
    ],
    "02_batches": [
        (incomplete_batches, "fewer than P people"),
        (whole_batches, "skip people"),
        (lambda labels, P, K: np.arange(len(labels) // (P * K) * P * K).reshape(-1, P * K), "slices of the list"),
        (by_number, "sorted by their numbers"),
    ],
    "03_model": [
        (lambda F: F.mean(-1), "turn it"),
        (lambda F: F.mean((1, 2)), "global feature"),
        (lambda F: F.numpy().sum(2).T, "sum over the width"),
        (lambda F: F.mean(0), "over the channels"),
        (lambda F: F.mean(1), "columns remain"),
        (lambda F: F.mean(2, keepdim=True), "has shape [4, 2], but yours [2, 4, 1]"),
    ],
    "04_alignment": [
        (neighbouring_costs, "smaller neighbouring sum"),
        (start_anywhere, "only one neighbour"),
        (only_the_last_sum, "whole table"),
        (index_before_the_first, "other end of the table"),
        (lambda costs: float(np.trace(np.array(costs))), "rigid distance"),
    ],
    "05_losses": [
        (lambda D, y: mined_by_masks(D, y, -np.inf, np.max), "farthest negative"),
        (lambda D, y: mined_by_masks(D, y, 0.0, np.min), "leaves zeros"),
        (lambda D, y: [(n, p) for p, n in mined_by_masks(D, y, np.inf, np.min)], "negative first"),
        (mined_with_itself, "own positive"),
    ],
    "06_training": [
        (lambda e, base, s, T: base if e < s else base * 0.001 ** ((e - s) / (T - s)), "above and below the line"),
        (lambda e, base, s, T: base * 0.001 ** (e / T), "from the first epoch"),
        (lambda e, base, s, T: base if e < s else base * (1 - 0.999 * (e + 1 - s) / (T + 1 - s)), "straight line"),
        (lambda e, base, s, T: base if e <= s else base * 0.001 ** ((e + 1 - s) / (T + 1 - s)), "instead of <="),
    ],
    "07_mutual_learning": [
        (lambda p, q: np.sum(np.log(np.array(q) / np.array(p))), "without weights"),
        (lambda p, q: -sum(b * np.log(a) for a, b in zip(p, q, strict=True)), "cross-entropy"),
        (lambda p, q: sum(b * math.log2(b / a) for a, b in zip(p, q, strict=True) if b), "base 2"),
        (lambda p, q: sum(a * math.log(b / a) for a, b in zip(p, q, strict=True)), "with our probabilities"),
        (lambda p, q: float(np.square(np.subtract(p, q)).sum()), "squared differences"),
    ],
    "08_evaluation": [
        (trapezoid, "trapezoid"),
        (nought_without_a_match, "0/0"),
        (ignored_as_matches, "neither right nor wrong"),
        (added, "divide by the number of matches"),
    ],
    "09_reranking": [
        (lambda N, i, k: {j for j in range(len(N)) if i in N[j][:k]} | {i}, "other direction"),
        (lambda N, i, k: [j for j in N[i][:k] if i in N[j][:k]], "its own set"),
        (lambda N, i, k: {i, *(j for j in N[i][: k + 1] if i in N[j][: k + 1])}, "k + 1"),
    ],
    "10_reproduction": [
        (lambda a, b, over: "nothing" if a <= 0 <= b else "these networks differ", "the luck of the training"),
        (
            lambda a, b, over: (
                "nothing" if a <= 0 else "the methods differ" if over == "seeds" else "these networks differ"
            ),
            "entirely below 0",
        ),
        (
            lambda a, b, over: (
                "nothing" if a < 0 < b else "the methods differ" if over == "seeds" else "these networks differ"
            ),
            "whose end is 0",
        ),
        (
            lambda a, b, over: (
                "nothing" if a <= 0 <= b else "these networks differ" if over == "seeds" else "the methods differ"
            ),
            "exchanged the two",
        ),
    ],
    "11_time_and_space": [
        (lambda Q, G, C, rerank: (Q + G) ** 2 * C if rerank else Q * G * C, "also added"),
        (lambda Q, G, C, rerank: 2 * Q * G * C, "as much as ranking"),
        (lambda Q, G, C, rerank: 2 * C * ((Q * G) ** 2 if rerank else Q * G), "square their sum"),
        (lambda Q, G, C, rerank: 2 * C * (Q + G if rerank else Q * G), "square Q + G"),
        (lambda Q, G, C, rerank: 2 * C * Q * (Q * rerank + G), "look for neighbours too"),
    ],
    "12_your_own_people": [
        (found_rate, "share of right pairs that pass"),
        (strictly_below, "d <= t"),
        (quantile_of_strangers, "try all distances"),
        (
            lambda same, different, rate: max(
                [t for t in same + different if np.mean(np.array(different) <= t) < rate], default=None
            ),
            "instead of <",
        ),
    ],
    "13_alignment_study": [
        (lambda g, r, a: (np.mean(a) - np.mean(g), np.mean(a) - np.mean(r)), "compare rigid stripes with the global"),
        (lambda g, r, a: (np.mean(g) - np.mean(r), np.mean(r) - np.mean(a)), "signs are reversed"),
        (lambda g, r, a: (max(r) - max(g), max(a) - max(r)), "best seeds"),
        (lambda g, r, a: (r[0] - g[0], a[0] - r[0]), "mean over all seeds"),
        (lambda g, r, a: np.mean(a) - np.mean(g), "one number"),
    ],
    "14_strong_baseline": [
        (lambda y, n, e: [1 - e if k == y else e / n for k in range(n)], "the right one included"),
        (lambda y, n, e: [1 - e if k == y else e / (n - 1) for k in range(n)], "to the other classes alone"),
        (lambda y, n, e: [1.0 if k == y else e / n for k in range(n)], "add up to more than 1"),
        (lambda y, n, e: [float(k == y) for k in range(n)], "not smoothed"),
        (lambda y, n, e: [(1 - e) * (k + 1 == y) + e / n for k in range(n)], "count from 1"),
    ],
}


@pytest.mark.parametrize(
    ("chapter", "wrong", "words"),
    [(chapter, *answer) for chapter, answers in WRONG.items() for answer in answers],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_typical_wrong_answer_is_refused_by_name(chapter, wrong, words):
    answer = check(chapter, wrong)
    assert not answer and words in answer.words, answer.words


def test_three_wrong_answers_per_chapter():
    assert sorted(WRONG) == CHAPTERS
    assert all(len({words for _, words in answers}) >= 3 for answers in WRONG.values())


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_mistake_has_its_own_sentence(chapter):
    exercise = exercise_of(chapter)
    for words, mistake in exercise.mistakes.items():
        assert judge(exercise, mistake).words == f"Not yet. {words}"


# What a reader's function may do


def ends_the_program(costs):
    raise SystemExit


def spoils(costs):
    costs.clear()
    return [[1]]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ([[1]], "without parentheses"),
        (lambda costs: None, "end it with `return`"),
        (lambda: 1, "raises TypeError"),
        (lambda costs: 1 / 0, "ZeroDivisionError: division by zero."),
        (ends_the_program, "raises SystemExit"),
        (spoils, "the chapter's table"),
        (lambda costs: "a table", "yours is 'a table'"),
        (lambda costs: (row for row in costs), "yours is <generator"),
        (lambda costs: {"S": costs}, "yours is {'S'"),
        (lambda costs: torch.zeros(3, 4, requires_grad=True), "yours is [[0.0, 0.0"),
        (lambda costs: np.array([[float("nan")]]), "yours is [[nan]]"),
        (lambda costs: costs.nothing, "has no attribute 'nothing'"),
    ],
)
def test_whatever_a_function_does_the_answer_is_a_sentence(function, words):
    answer = check("04_alignment", function)
    assert not answer and words in answer.words
    assert "\n" not in answer.words and max(map(len, repr(answer).splitlines())) <= 100


def test_right_results_of_other_kinds_are_correct():
    def of_tensors(costs):
        S = torch.tensor(costs, dtype=torch.float32)
        for i, j in np.ndindex(*S.shape):
            before = [S[i - 1, j]] * (i > 0) + [S[i, j - 1]] * (j > 0)
            S[i, j] += min(before, default=0)
        return S

    assert check("04_alignment", of_tensors)
    assert check("09_reranking", lambda N, i, k: [*(j for j in N[i][:k] if i in N[j][:k]), i])
    for wrong in (
        lambda N, i, k: [*(j for j in N[i][:k] if i in N[j][:k]), i, i],
        lambda N, i, k: [[i]],
        lambda N, i, k: (i for _ in range(1)),
        lambda N, i, k: 10**5000,
    ):
        assert not check("09_reranking", wrong)
    assert not check("11_time_and_space", lambda Q, G, C, rerank: 10**400)


def test_an_error_in_an_edge_case_does_not_hide_the_mistake():
    def first_positive_and_farthest_negative(distances, labels):
        mined = []
        for a, row in enumerate(distances):
            positives = [row[i] for i in range(len(labels)) if labels[i] == labels[a] and i != a]
            mined.append((max(positives), max(row[i] for i in range(len(labels)) if labels[i] != labels[a])))
        return mined

    assert "You take the farthest negative" in check("05_losses", first_positive_and_farthest_negative).words


def test_an_unknown_chapter_is_one_line():
    with pytest.raises(InputError, match=r"'4' is not a chapter .*04_alignment"):
        check("4", len)


# The right functions are the library's


def cases(chapter):
    exercise = exercise_of(chapter)
    return [(arguments, exercise.right(*arguments)) for arguments in exercise.cases.values()]


def test_the_right_functions_agree_with_the_library():
    for (costs,), S in cases("04_alignment"):
        assert alignment.shortest_path(torch.tensor(costs, dtype=torch.float64)) == S[-1][-1]
    for (distances, labels), expected in cases("05_losses"):
        if not any(None in row for row in expected):
            mined = losses.mine_batch_hard(torch.tensor(distances, dtype=torch.float64), torch.tensor(labels))
            assert list(zip(mined.positive_distance, mined.negative_distance, strict=True)) == expected
    for (epoch, base, start, last), rate in cases("06_training"):
        config = training.TrainConfig(base_lr=base, decay_at_epoch=start, total_epochs=last)
        assert training.learning_rate(config, epoch) == pytest.approx(rate)
    for (ours, partner), divergence in cases("07_mutual_learning"):
        logits = [torch.tensor([row]).clamp(min=1e-30).log() for row in (ours, partner)]
        assert losses.mutual_probability(logits[0], [logits[1]]).item() == pytest.approx(divergence, abs=1e-6)
    for (roles,), precision in cases("08_evaluation"):
        if roles:
            ids = [8 if role == "wrong" else 7 for role in roles]
            cameras = [1 if role == "ignored" else 2 for role in roles]
            problem = [list(range(len(roles)))], [7], ids, [1], cameras
            found = ranking.score_ranking(*problem, average_precision="step").ap_per_query[0]
            assert found == pytest.approx(precision, nan_ok=True)
    for (neighbours, i, k), members in cases("09_reranking"):
        lists = np.array([[j, *row] for j, row in enumerate(neighbours)])
        assert set(np.flatnonzero(reranking.reciprocal(lists, k).toarray()[i])) == members
    for (same, different, rate), threshold in cases("12_your_own_people"):
        found = verification.choose_threshold(verification.roc(same, different), rate)
        assert found == (-math.inf if threshold is None else threshold)


def test_sentences_are_whole():
    for chapter in CHAPTERS:
        exercise = exercise_of(chapter)
        for words in (*exercise.mistakes, exercise.notice):
            assert re.fullmatch(r"[A-Z].*\.", words) and "  " not in words, words

"""CMC and mAP: answers known by eye, brute force, recorded values, and what is refused."""

import warnings
from pathlib import Path

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignedreid_lib import devices
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import rank_counts
from alignedreid_lib.evaluation.matches_and_junk import RankingProblem
from alignedreid_lib.evaluation.ranking import average_precisions, score_ranking

pytestmark = pytest.mark.arithmetic

PROTOCOLS = ("market1501", "allshots", "cuhk03")
DEFINITIONS = ("trapezoid", "step")


def test_known_by_eye():
    """Nearest first: junk, wrong, match, wrong, match. Without the junk the matches are at places 2 and 4."""
    problem = ([[1.0, 2.0, 3.0, 4.0, 5.0]], [7], [7, 8, 7, 9, 7], [0], [0, 0, 1, 1, 2])
    scores = score_ranking(*problem, average_precision="step", top=5)
    np.testing.assert_array_equal(scores.cmc, [0, 1, 1, 1, 1])
    assert scores.mean_ap == pytest.approx((1 / 2 + 2 / 4) / 2)
    trapezoid = score_ranking(*problem, top=5).mean_ap
    assert trapezoid == pytest.approx(((0 / 1 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2)
    # One match has one wrong image before it, the other has two.
    np.testing.assert_array_equal(score_ranking(*problem, protocol="allshots", top=3).cmc, [0, 0.5, 1])
    # Id 8 was seen by the query's camera alone and takes no part; id 9 lies before one of the two matches.
    np.testing.assert_array_equal(score_ranking(*problem, protocol="cuhk03", top=2).cmc, [0.5, 1])


def test_both_definitions_call_a_perfect_list_perfect():
    found = RankingProblem([1], [1, 1, 2], [0], [1, 2, 1]).find_matches([[0.1, 0.2, 0.3]])
    assert [average_precisions(found, name)[0] for name in DEFINITIONS] == [1.0, 1.0]


@st.composite
def problems(draw, queries=4, gallery=10):
    """Small problems full of ties, junk and queries without a match."""
    num_queries, num_gallery = draw(st.integers(1, queries)), draw(st.integers(1, gallery))

    def row(length, highest):
        return draw(st.lists(st.integers(0, highest), min_size=length, max_size=length))

    distances = np.array([row(num_gallery, 5) for _ in range(num_queries)], draw(st.sampled_from([float, "f4", int])))
    return distances, row(num_queries, 3), row(num_gallery, 3), row(num_queries, 2), row(num_gallery, 2)


@settings(max_examples=150, deadline=None)
@given(problems(), st.sampled_from(PROTOCOLS), st.sampled_from(DEFINITIONS), st.integers(1, 12))
def test_equals_brute_force(problem, protocol, definition, top):
    scores = score_ranking(*problem, protocol, definition, top)
    curves, aps = oracles.score_ranking(*problem, protocol, definition, top)
    np.testing.assert_allclose(scores.cmc_per_query, curves, atol=1e-12)
    np.testing.assert_allclose(scores.ap_per_query, aps, atol=1e-12)
    np.testing.assert_array_equal(scores.valid, ~np.isnan(aps))
    if scores.valid.any():
        np.testing.assert_allclose(scores.cmc, curves[scores.valid].mean(axis=0), atol=1e-12)
        assert scores.mean_ap == pytest.approx(np.nanmean(aps))


@pytest.mark.parametrize("pull", [0, 60], ids=["chance", "good model"])
@pytest.mark.parametrize("protocol", ["market1501", "allshots"])
def test_equals_brute_force_over_many_blocks(protocol, pull):
    """More queries than a block; with `pull` the matches come first, and only the near part of a row is sorted."""
    rng = np.random.default_rng(3)
    query_ids, gallery_ids = rng.integers(0, 40, 150), rng.integers(5, 45, 300)
    query_cameras, gallery_cameras = rng.integers(0, 4, 150), rng.integers(0, 4, 300)
    distances = rng.integers(0, 100, (150, 300)) - pull * (query_ids[:, None] == gallery_ids)
    problem = (distances.astype(np.float32), query_ids, gallery_ids, query_cameras, gallery_cameras)
    scores = score_ranking(*problem, protocol=protocol, top=20)
    curves, aps = oracles.score_ranking(*problem, protocol, "trapezoid", 20)
    np.testing.assert_allclose(scores.cmc_per_query, curves, atol=1e-12)
    np.testing.assert_allclose(scores.ap_per_query, aps, atol=1e-12)


def recorded_small():
    with np.load(Path(__file__).parent / "data" / "ranking_parity.npz") as file:
        values = dict(file)
    return values, values["rank_order"]  # places instead of distances: smaller, and the same ranking


def check_recorded(values, distances):
    problem = (distances, *(values[f"rank_{name}"] for name in ("qid", "gid", "qcam", "gcam")))
    for protocol in ("market1501", "allshots"):
        curves = score_ranking(*problem, protocol=protocol).cmc_per_query
        np.testing.assert_allclose(curves, values[f"cmc_{protocol}"], rtol=1e-5, atol=1e-12)
    for definition in DEFINITIONS:
        aps = score_ranking(*problem, average_precision=definition).ap_per_query
        np.testing.assert_allclose(aps, values[f"ap_{definition}"], rtol=1e-5)
    cmc = score_ranking(*problem, protocol="cuhk03").cmc
    np.testing.assert_allclose(cmc, values["cmc_cuhk03_mean"], atol=0.01)  # recorded: the mean of 2000 draws


def test_equals_the_original_reproduction():
    check_recorded(*recorded_small())


def test_equals_the_original_reproduction_in_full(shared):
    with np.load(shared / "fixtures" / "parity.npz") as file:
        check_recorded(file, file["rank_dist"])


def test_average_precision_is_the_same_under_every_protocol():
    values, distances = recorded_small()
    problem = (distances, *(values[f"rank_{name}"] for name in ("qid", "gid", "qcam", "gcam")))
    assert len({score_ranking(*problem, protocol=protocol).mean_ap for protocol in PROTOCOLS}) == 1


def test_all_gallery_images_of_one_identity():
    distances = np.random.default_rng(0).random((3, 50))
    scores = score_ranking(distances, [1, 1, 1], [1] * 50, [0, 0, 0], [1] * 50)
    assert scores.mean_ap == 1.0 and (scores.cmc == 1).all()
    assert (score_ranking(distances, [1] * 3, [1] * 50, [0] * 3, [1] * 50, "allshots").cmc == 1).all()
    assert (score_ranking(distances, [1] * 3, [1] * 50, [0] * 3, [1] * 50, "cuhk03").cmc == 1).all()


def test_equal_distances_keep_the_order_of_the_gallery():
    ids = np.array([2, 1, 2, 1])
    curves = score_ranking(np.zeros((1, 4)), [1], ids, [0], [1] * 4, top=4).cmc
    np.testing.assert_array_equal(curves, [0, 1, 1, 1])
    curves = score_ranking(np.zeros((1, 4)), [2], ids, [0], [1] * 4, top=4).cmc
    np.testing.assert_array_equal(curves, [1, 1, 1, 1])


def test_queries_without_a_match_are_counted_and_left_out_of_the_means():
    scores = score_ranking([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]], [1, 1, 9], [2, 1], [0, 1, 0], [1, 1], top=2)
    np.testing.assert_array_equal(scores.valid, [True, False, False])  # a match; junk alone; nobody
    np.testing.assert_array_equal(scores.cmc_per_query[1:], np.zeros((2, 2)))
    assert np.isnan(scores.ap_per_query[1:]).all()
    np.testing.assert_array_equal(scores.cmc, [0, 1])
    assert scores.mean_ap == pytest.approx(0.25)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_query_with_a_match_gives_nan_and_no_warning(protocol):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = score_ranking([[1.0]], [1], [2], [0], [0], protocol=protocol, top=3)
    assert np.isnan(scores.mean_ap) and np.isnan(scores.cmc).all() and not scores.valid.any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int32])
def test_tensors_are_welcome(dtype):
    rng = np.random.default_rng(1)
    distances = rng.integers(0, 50, (6, 30))
    labels = [rng.integers(0, 5, n) for n in (6, 30, 6, 30)]
    wanted = score_ranking(distances, *labels)
    got = score_ranking(torch.from_numpy(distances).to(dtype).requires_grad_(dtype.is_floating_point),
                        *map(torch.from_numpy, labels))  # fmt: skip
    assert isinstance(got.cmc, np.ndarray) and got.mean_ap == wanted.mean_ap
    np.testing.assert_array_equal(got.cmc_per_query, wanted.cmc_per_query)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_labels_may_be_any_integers_or_strings(protocol):
    rng = np.random.default_rng(2)
    distances = rng.random((6, 30)).T.copy().T  # columns lie together in memory
    labels = [rng.integers(0, 5, n) for n in (6, 30, 6, 30)]
    wanted = score_ranking(distances, *labels, protocol=protocol).cmc_per_query
    far = [values * 2**40 - 7 for values in labels]
    np.testing.assert_array_equal(score_ranking(distances, *far, protocol=protocol).cmc_per_query, wanted)
    names = [[f"person {value}" for value in values] for values in labels]
    np.testing.assert_array_equal(score_ranking(distances, *names, protocol=protocol).cmc_per_query, wanted)


def test_infinite_distances_come_last():
    scores = score_ranking([[np.inf, 3.0, -np.inf]], [1], [2, 1, 3], [0], [1, 1, 1], top=3)
    np.testing.assert_array_equal(scores.cmc, [0, 1, 1])


GOOD = {
    "distances": np.ones((2, 3)),
    "query_ids": [1, 2],
    "gallery_ids": [1, 2, 3],
    "query_cameras": [0, 0],
    "gallery_cameras": [1, 1, 1],
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"distances": np.ones(3)}, r"shape \(3,\)"),
        ({"distances": np.ones((2, 0)), "gallery_ids": [], "gallery_cameras": []}, r"gallery_ids have shape \(0,\)"),
        ({"distances": np.ones((0, 3)), "query_ids": [], "query_cameras": []}, r"query_ids have shape \(0,\)"),
        ({"distances": np.array([[0, 1, 2], [3, np.nan, 5]])}, "query 1 contain nan"),
        ({"distances": np.ones((2, 3), complex)}, "complex128"),
        ({"query_ids": [1, 2, 3]}, "query_ids"),
        ({"gallery_ids": [[1, 2, 3]]}, "gallery_ids"),
        ({"query_cameras": [1]}, "query_cameras"),
        ({"gallery_cameras": [1, 1]}, "gallery_cameras"),
        ({"gallery_ids": [1.0, 2.0, 3.0]}, "gallery_ids are float64"),
        ({"query_ids": ["1", "2"]}, "query_ids are"),
        ({"protocol": "market"}, "market1501, allshots, cuhk03"),
        ({"average_precision": "area"}, "trapezoid, step"),
        ({"top": 0}, "top is 0"),
        ({"top": 2.5}, "top is 2.5"),
    ],
)
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
def test_bad_input_is_refused(change, words, kind):
    settings_ = GOOD | change
    settings_["distances"] = kind(settings_["distances"])
    with pytest.raises(InputError, match=words) as error:
        score_ranking(**settings_)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64])
def test_an_accelerator_ranks_as_the_cpu_does(dtype, step, monkeypatch):
    """The accelerator's path, run on the CPU: few distances, so most are equal to many; some are infinite."""
    rng = np.random.default_rng(1)
    people = [rng.integers(0, 5, count) for count in (20, 90)] + [rng.integers(0, 3, count) for count in (20, 90)]
    matrix = torch.from_numpy(rng.integers(0, 7, (20, 90))).to(dtype)
    if dtype.is_floating_point:
        matrix[matrix == 6] = torch.inf
    problem = RankingProblem(*people)
    wanted = problem.find_matches(matrix)
    monkeypatch.setattr(devices, "is_accelerator", lambda device: True)
    monkeypatch.setattr(rank_counts, "_DEVICE_BYTES", 8 * 90 * step)
    for one, other in zip(wanted, problem.find_matches(matrix), strict=True):
        np.testing.assert_array_equal(one, other)
    for protocol in PROTOCOLS:
        scores = score_ranking(matrix, *people, protocol=protocol)
        np.testing.assert_array_equal(scores.cmc, score_ranking(matrix.tolist(), *people, protocol=protocol).cmc)
    if dtype.is_floating_point:
        matrix[11, 3] = torch.nan
        with pytest.raises(InputError, match="distances of query 11 contain nan"):
            problem.find_matches(matrix)


def test_an_accelerator_s_numbers_have_to_be_real(monkeypatch):
    monkeypatch.setattr(devices, "is_accelerator", lambda device: True)
    with pytest.raises(InputError, match="complex64: give real numbers"):
        score_ranking(torch.zeros(1, 2, dtype=torch.complex64), [1], [1, 2], [0], [1, 1])

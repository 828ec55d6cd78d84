"""Re-ranking: recorded values of the published code, loops and sets, and what is refused."""

from pathlib import Path

import numpy as np
import oracles
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.reranking import FeatureDistances, nearest, rerank, rerank_distances
from alignedreid_lib.losses import euclidean_distances

pytestmark = pytest.mark.arithmetic

RECORDED = np.load(Path(__file__).parent / "data" / "reranking.npz")
SETTINGS = [name for name in RECORDED.files if name.count("_") == 3]


def parts(name):
    _, k1, k2, lambda_value = name.split("_")
    return int(k1), int(k2), float(lambda_value)


def test_the_copy_is_the_recording(shared):
    with np.load(shared / "fixtures" / "parity.npz") as whole:
        names = [name for name in whole.files if name.startswith("rr_")]
        assert set(RECORDED.files) == set(names) and SETTINGS
        for name in names:
            np.testing.assert_array_equal(RECORDED[name], whole[name])


@pytest.mark.parametrize("name", SETTINGS)
def test_recorded_values(name):
    from_features = rerank(RECORDED["rr_qf"], RECORDED["rr_gf"], *parts(name))
    np.testing.assert_allclose(from_features, RECORDED[name], atol=2e-5)
    matrices = [RECORDED[f"rr_{which}"] for which in ("qg", "qq", "gg")]
    np.testing.assert_allclose(rerank_distances(*matrices, *parts(name)), RECORDED[name], atol=1e-6)
    assert from_features.dtype == np.float32 and isinstance(from_features, np.ndarray)


@st.composite
def pictures(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    q, g = draw(st.integers(1, 6)), draw(st.integers(1, 24))
    points = rng.normal(size=(q + g, draw(st.integers(1, 4)))).astype(np.float32)
    return points[:q], points[q:]


@settings(max_examples=60, deadline=None)
@given(pictures(), st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.0, 0.3, 1.0]))
def test_equals_loops_and_sets(both, k1, k2, lambda_value):
    """Also where k1 and k2 are larger than the set."""
    whole = np.concatenate(both).astype(float)
    distances = np.linalg.norm(whole[:, None] - whole[None], axis=2)
    gaps = np.diff(np.sort(distances, axis=1), axis=1)
    assume((gaps > 1e-5 * distances.max()).all())  # who is nearer is not for rounding to decide
    expected = oracles.rerank(distances, len(both[0]), k1, k2, lambda_value)
    q = len(both[0])
    matrices = [m.astype(np.float32) for m in (distances[:q, q:], distances[:q, :q], distances[q:, q:])]
    np.testing.assert_allclose(rerank_distances(*matrices, k1, k2, lambda_value), expected, atol=2e-5)
    np.testing.assert_allclose(rerank(*both, k1, k2, lambda_value), expected, atol=2e-4)


def test_blocks_do_not_matter(monkeypatch):
    from alignedreid_lib.evaluation import distance_blocks, reranking

    expected = rerank(RECORDED["rr_qf"], RECORDED["rr_gf"])
    monkeypatch.setattr(distance_blocks, "_PAIR_BYTES", 1000)
    monkeypatch.setattr(reranking, "_BLOCK_BYTES", 300 * 4 * 7)
    np.testing.assert_allclose(rerank(RECORDED["rr_qf"], RECORDED["rr_gf"]), expected, atol=1e-6)
    matrices = [RECORDED[f"rr_{which}"] for which in ("qg", "qq", "gg")]
    np.testing.assert_allclose(rerank_distances(*matrices), RECORDED["rr_20_6_0.3"], atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_matrices_that_are_not_symmetric_are_read_as_the_published_code_does(seed):
    rng = np.random.default_rng(seed)
    points = rng.random((46, 2))
    whole = np.linalg.norm(points[:, None] - points[None], axis=2) * rng.uniform(0.7, 1.3, (46, 46))
    np.fill_diagonal(whole, 0)
    whole = whole.astype(np.float32)
    qg, qq, gg = whole[:6, 6:], whole[:6, :6], whole[6:, 6:]
    whole[6:, :6] = qg.T
    np.testing.assert_allclose(rerank_distances(qg, qq, gg, 8, 3), oracles.rerank(whole, 6, 8, 3, 0.3), atol=1e-5)


def test_a_picture_is_its_own_nearest_neighbour_whatever_the_rounding():
    """Far from the origin |x|^2 + |y|^2 - 2xy has lost all its digits."""
    generator = torch.Generator().manual_seed(0)
    features = 1e4 + torch.rand(60, 8, generator=generator)
    near, _, _ = nearest(FeatureDistances(features, 10), 3)
    assert near.indices[:, 0].tolist() == list(range(60)) and (near.squared[:, 0] == 0).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 20), st.integers(1, 300))
def test_neighbours_from_both_sides_of_the_diagonal(seed, q, g, cells):
    """Small integers: distances are exact and many are equal, in blocks of every size."""
    from alignedreid_lib.evaluation import reranking

    rng = np.random.default_rng(seed)
    points = rng.integers(-2, 3, (q + g, 2))
    squared = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    depth = int(rng.integers(1, q + g + 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reranking, "_BLOCK_BYTES", 4 * cells)
        near, largest, original = nearest(FeatureDistances(torch.from_numpy(points).float(), q), depth)
    rows = near.indices.numpy()
    np.testing.assert_array_equal(near.squared, np.sort(squared, axis=1)[:, :depth])
    np.testing.assert_array_equal(np.take_along_axis(squared, rows, axis=1), near.squared)
    assert (rows[:, 0] == np.arange(q + g)).all() and all(len(set(row)) == depth for row in rows)
    np.testing.assert_allclose(largest, squared.max(axis=1).clip(1e-12), rtol=1e-6)
    np.testing.assert_array_equal(original, squared[:q, q:])


def test_lambda_one_is_the_distance_itself():
    queries, gallery = torch.from_numpy(RECORDED["rr_qf"]), torch.from_numpy(RECORDED["rr_gf"])
    plain = euclidean_distances(queries, gallery).square()
    whole = torch.cat([euclidean_distances(queries, queries).square(), plain], dim=1)
    expected = plain / whole.amax(dim=1, keepdim=True)
    np.testing.assert_allclose(rerank(queries, gallery, lambda_value=1), expected, atol=1e-5)


def test_pictures_that_are_all_alike():
    assert np.isfinite(rerank(np.ones((2, 3)), np.ones((5, 3)))).all()


@pytest.mark.parametrize(
    ("features", "how", "says"),
    [
        ((np.ones((2, 3)), np.ones((2, 4))), {}, "3 channels, gallery features 4"),
        ((np.ones(3), np.ones((2, 3))), {}, r"query_features has shape \(3,\)"),
        ((np.ones((2, 3)), np.ones((0, 3))), {}, r"gallery_features has shape \(0, 3\)"),
        ((np.full((2, 3), np.nan), np.ones((2, 3))), {}, "nan or infinity"),
        ((np.array([["a"]]), np.ones((2, 1))), {}, "not a matrix of numbers"),
        ((np.ones((2, 3)), np.ones((2, 3))), {"k1": 0}, "k1 is 0"),
        ((np.ones((2, 3)), np.ones((2, 3))), {"k2": 1.5}, "k2 is 1.5"),
        ((np.ones((2, 3)), np.ones((2, 3))), {"lambda_value": 1.1}, "lambda_value is 1.1"),
    ],
)
def test_what_is_refused(features, how, says):
    with pytest.raises(InputError, match=says):
        rerank(*features, **how)


def test_matrices_that_do_not_fit():
    with pytest.raises(InputError, match="query_query has to be 2 x 2 and gallery_gallery 3 x 3"):
        rerank_distances(np.ones((2, 3)), np.ones((3, 3)), np.ones((3, 3)))

"""Distances, mining and losses: known by eye, against a dumb loop, and equal to the original's recorded values."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignedreid_lib import losses
from alignedreid_lib.errors import InputError

RECORDED = np.load(Path(__file__).parent / "data" / "losses_parity.npz")


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("margin", [0.3, None])
def test_global_triplet_equals_the_recorded_values(normalize, margin):
    tag = f"{'nf' if normalize else 'nnf'}_{'soft' if margin is None else margin}"
    features = torch.from_numpy(RECORDED["loss_global"]).requires_grad_()
    term = losses.global_triplet(features, torch.from_numpy(RECORDED["loss_labels"]), margin, normalize)
    term.loss.backward()
    close = dict(rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(term.loss.detach(), RECORDED[f"gl_{tag}"], **close)
    np.testing.assert_allclose(features.grad, RECORDED[f"gl_grad_{tag}"], **close)
    np.testing.assert_array_equal(term.mined.positive, RECORDED[f"gl_p_{tag}"])
    np.testing.assert_array_equal(term.mined.negative, RECORDED[f"gl_n_{tag}"])
    np.testing.assert_allclose(term.mined.positive_distance.detach(), RECORDED[f"gl_ap_{tag}"], **close)
    np.testing.assert_allclose(term.mined.negative_distance.detach(), RECORDED[f"gl_an_{tag}"], **close)
    # The diagonal is the rounding of a - 2a + a: both sides clamp it, neither means it.
    off_diagonal = ~np.eye(len(features), dtype=bool)
    np.testing.assert_allclose(
        term.distances.detach().numpy()[off_diagonal], RECORDED[f"gl_dm_{tag}"][off_diagonal], **close
    )


def test_the_shipped_copy_is_the_recorded_one(shared):
    whole = np.load(shared / "fixtures" / "parity.npz")
    for name in RECORDED.files:
        np.testing.assert_array_equal(RECORDED[name], whole[name])


def test_hard_triplets_of_points_on_a_line():
    points = torch.tensor([[0.0], [1.0], [5.0], [6.0], [2.0]])  # a a b b a
    labels = torch.tensor([0, 0, 1, 1, 0])
    mined = losses.mine_batch_hard(losses.euclidean_distances(points, points), labels)
    assert mined.positive.tolist() == [4, 0, 3, 2, 0]
    assert mined.negative.tolist() == [2, 2, 4, 4, 2]
    torch.testing.assert_close(mined.positive_distance, torch.tensor([2.0, 1, 1, 1, 2]))
    torch.testing.assert_close(mined.negative_distance, torch.tensor([5.0, 4, 3, 4, 3]))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=4, max_size=12), st.integers(0, 10**6))
def test_mining_equals_a_loop(labels, seed):
    labels = labels + labels[:1] + [max(labels) + 1, max(labels) + 1]
    labels = [label for label in labels if labels.count(label) > 1]
    x = torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(seed))
    distances = losses.euclidean_distances(x, x)
    mined = losses.mine_batch_hard(distances, torch.tensor(labels))
    for a, label in enumerate(labels):
        same = [i for i, other in enumerate(labels) if other == label and i != a]
        other = [i for i, other in enumerate(labels) if other != label]
        assert mined.positive_distance[a] == max(distances[a, i] for i in same)
        assert mined.negative_distance[a] == min(distances[a, i] for i in other)
        assert int(mined.positive[a]) in same
        assert int(mined.negative[a]) in other


def test_a_label_with_one_image_is_named():
    with pytest.raises(InputError, match="label 7 has no positive"):
        losses.mine_batch_hard(torch.rand(5, 5), torch.tensor([3, 3, 7, 4, 4]))


def test_a_batch_of_one_identity_is_named():
    with pytest.raises(InputError, match="no negative for label 3"):
        losses.mine_batch_hard(torch.rand(3, 3), torch.tensor([3, 3, 3]))


def test_shapes_that_do_not_fit():
    with pytest.raises(InputError, match=r"\(3, 4\)"):
        losses.mine_batch_hard(torch.rand(3, 4), torch.tensor([0, 0, 1]))
    with pytest.raises(InputError, match=r"\(3, 4\) and \(3, 5\)"):
        losses.euclidean_distances(torch.rand(3, 4), torch.rand(3, 5))


def test_gradient_in_double_precision():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    assert torch.autograd.gradcheck(lambda f: losses.global_triplet(f, labels, None, True).loss, (x,))


def test_float32_inside_autocast_and_large_features_stay_finite():
    x = (1e3 * torch.randn(8, 64, generator=torch.Generator().manual_seed(0))).to(torch.bfloat16)
    labels = torch.arange(8) // 2
    with torch.autocast("cpu", torch.bfloat16):
        term = losses.global_triplet(x, labels, 0.3, False)
    assert term.distances.dtype == torch.float32
    assert term.loss.isfinite()


def test_equal_features_have_finite_gradients():
    x = torch.ones(4, 3, requires_grad=True)
    losses.global_triplet(x, torch.tensor([0, 0, 1, 1]), 0.3, False).loss.backward()
    assert x.grad.isfinite().all()


def test_satisfied_counts_strictly_farther_negatives():
    mined = losses.HardTriplets(*[torch.zeros(4)] * 2, torch.tensor([1.0, 1, 1, 1]), torch.tensor([0.5, 1, 1.2, 2]))
    assert losses.satisfied(mined) == 0.5
    assert losses.satisfied(mined, 0.3) == 0.25

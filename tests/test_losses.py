"""Distances, mining and losses: known by eye, against a dumb loop, and equal to the original's recorded values."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignedreid_lib import losses
from alignedreid_lib.errors import InputError

pytestmark = pytest.mark.arithmetic

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


@pytest.mark.parametrize("own", [True, False], ids=["mined by local", "mined by global"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("margin", [0.3, None])
def test_local_triplet_equals_the_recorded_values(own, normalize, margin):
    tag = f"{'nf' if normalize else 'nnf'}_{'soft' if margin is None else margin}"
    kind = "oh" if own else "gh"
    features, labels = (
        torch.from_numpy(RECORDED["loss_local"]).requires_grad_(),
        torch.from_numpy(RECORDED["loss_labels"]),
    )
    mined = (
        None
        if own
        else losses.global_triplet(torch.from_numpy(RECORDED["loss_global"]), labels, margin, normalize).mined
    )
    term = losses.local_triplet(features, labels, margin, normalize, mined)
    term.loss.backward()
    close = dict(rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(term.loss.detach(), RECORDED[f"ll_{kind}_{tag}"], **close)
    np.testing.assert_allclose(features.grad, RECORDED[f"ll_{kind}_grad_{tag}"], rtol=1e-5, atol=1e-6)
    if own:
        off_diagonal = ~np.eye(len(features), dtype=bool)
        recorded = RECORDED[f"ll_oh_dm_{tag}"][off_diagonal]
        np.testing.assert_allclose(term.distances.detach().numpy()[off_diagonal], recorded, **close)
    else:
        assert torch.equal(term.mined.positive, mined.positive), "the samples of the global distance"
        anchors = torch.arange(len(labels))
        assert torch.equal(term.mined.negative_distance, term.distances[anchors, mined.negative])


@pytest.mark.parametrize("model", [0, 1, 2])
def test_mutual_terms_equal_the_recorded_values(model):
    def recorded(name):
        return torch.from_numpy(RECORDED[f"{name}_{model}"]), [
            torch.from_numpy(RECORDED[f"{name}_{k}"]) for k in range(3) if k != model
        ]

    probability = losses.mutual_probability(*recorded("mutual_logits"))
    distance = losses.mutual_distance(*recorded("mutual_dist"))
    np.testing.assert_allclose(probability, RECORDED[f"mutual_prob_{model}"], rtol=1e-5)
    np.testing.assert_allclose(distance, RECORDED[f"mutual_distance_{model}"], rtol=1e-5)


def test_mutual_terms_are_nought_between_twins_and_leave_the_partner_alone():
    mine, partner = torch.randn(4, 6, requires_grad=True), torch.randn(4, 6, requires_grad=True)
    for term in (losses.mutual_probability, losses.mutual_distance):
        assert term(mine, [mine]).abs() < 1e-6
        loss = term(mine, [partner, partner])
        torch.testing.assert_close(loss, term(mine, [partner]))
        assert loss > 0
        loss.backward()
        assert partner.grad is None and mine.grad is not None
    # One coin that is even and one that falls three times of four, by hand: 3/4 ln(3/2) + 1/4 ln(1/2).
    even, biased = torch.zeros(1, 2), torch.tensor([[0.75, 0.25]]).log()
    by_hand = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    torch.testing.assert_close(losses.mutual_probability(even, [biased]).item(), by_hand, rtol=1e-6, atol=0)


def test_mutual_terms_name_partners_that_do_not_fit():
    for term in (losses.mutual_probability, losses.mutual_distance):
        for partners in ([], [torch.zeros(3, 4)]):
            with pytest.raises(InputError, match=r"shape \(4, 4\) and of partners"):
                term(torch.zeros(4, 4), partners)


def test_gradients_of_all_terms_in_double_precision():
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    local = torch.randn(6, 3, 4, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    other = torch.randn(6, 5, dtype=torch.float64)
    for normalize in (True, False):
        assert torch.autograd.gradcheck(lambda x, n=normalize: losses.local_triplet(x, labels, None, n).loss, local)
    assert torch.autograd.gradcheck(lambda x: losses.mutual_probability(x, [other]), logits)
    assert torch.autograd.gradcheck(lambda x: losses.mutual_distance(x, [other]), logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_long_features_and_half_precision_give_finite_losses(dtype):
    labels = torch.tensor([0, 0, 1, 1])
    x = (torch.randn(4, 16) * 250).to(dtype).requires_grad_()  # of length 1e3
    y = (torch.randn(4, 8, 16) * 250).to(dtype).requires_grad_()
    for term in (losses.global_triplet(x, labels, 0.3, False), losses.local_triplet(y, labels, 0.3, False)):
        term.loss.backward()
        assert term.loss.dtype == torch.float32 and term.loss.isfinite()
    assert x.grad.isfinite().all() and y.grad.isfinite().all()


@pytest.mark.parametrize(
    ("spoil", "labels", "message"),
    [
        (lambda x: x, [7, 7, 7, 7], "no negative for label 7"),
        (lambda x: x, [7, 7, 8, 9], "label 8 has no positive"),
        (lambda x: x.index_fill(0, torch.tensor([1]), torch.nan), [7, 7, 8, 8], "not finite numbers"),
        (lambda x: x[:3], [7, 7, 8, 8], "do not fit labels"),
    ],
)
def test_batches_that_cannot_be_mined_are_named_by_both_losses(spoil, labels, message):
    labels = torch.tensor(labels)
    for features, loss in ((torch.randn(4, 6), losses.global_triplet), (torch.randn(4, 3, 6), losses.local_triplet)):
        with pytest.raises(InputError, match=message):
            loss(spoil(features), labels, 0.3, False)


def test_samples_mined_on_another_batch_are_refused():
    labels = torch.tensor([0, 0, 1, 1])
    mined = losses.global_triplet(torch.randn(6, 3), torch.tensor([0, 0, 1, 1, 2, 2]), 0.3, False).mined
    with pytest.raises(InputError, match="6 mined samples do not fit 4 labels"):
        losses.local_triplet(torch.randn(4, 3, 6), labels, 0.3, False, mined)


def test_local_features_that_are_no_numbers_are_named_whoever_mined():
    labels = torch.tensor([0, 0, 1, 1])
    mined = losses.global_triplet(torch.randn(4, 3), labels, 0.3, False).mined
    spoilt = torch.randn(4, 3, 6).index_fill(0, torch.tensor([2]), torch.nan)
    with pytest.raises(InputError, match="not finite numbers"):
        losses.local_triplet(spoilt, labels, 0.3, False, mined)

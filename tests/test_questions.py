"""The numbers in the answers of the site's questions are computed."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from alignedreid_lib import alignment, losses
from alignedreid_lib.evaluation import ranking, reranking

PAGE = Path(__file__).parents[1] / "notebooks" / "book" / "questions.md"


def scores(roles: str) -> tuple[float, float, float]:
    """Rank-1 and both average precisions of one list: m a match, w a wrong image."""
    ids = np.array([9 if role == "m" else 10 for role in roles])
    labels = np.array([9]), ids, np.array([1]), np.full(len(ids), 2)
    distances = np.arange(len(ids), dtype=float)[None]
    step, trapezoid = (
        ranking.score_ranking(distances, *labels, average_precision=kind) for kind in ("step", "trapezoid")
    )
    return float(step.cmc[0]), step.mean_ap, trapezoid.mean_ap


def test_every_question_has_an_answer():
    sections = PAGE.read_text("utf-8").split("\n## ")[1:]
    assert [section[:2] for section in sections] == ["04", "05", "08", "09"]
    for section in sections:
        assert re.findall(r"^\*\*(\d)\.\*\*|^(:::\{dropdown\} Answer)$", section, re.MULTILINE) == [
            pair for k in "123" for pair in ((k, ""), ("", ":::{dropdown} Answer"))
        ]


def test_04_the_largest_distances():
    x, y = torch.zeros(1, 8, 3), torch.full((1, 8, 3), 5.0)
    assert 14.9 < float(alignment.local_distances(x, y)) < 15
    assert 7.9 < float(alignment.local_distances(x, y, aligned=False)) < 8


@pytest.mark.parametrize(("shift", "same"), [(0, True), (1, True), (2, True), (3, False)])
def test_04_a_band_around_the_diagonal(shift: int, same: bool):
    """Boxes that differ by more stripes than the band is wide give a larger distance, never a smaller one."""
    stripes = 6.0 * torch.eye(12)
    costs = alignment.stripe_distances(stripes[:8], stripes[shift : shift + 8])
    rows, columns = np.indices((8, 8))
    band = torch.where(torch.from_numpy(np.abs(rows - columns) <= 2), costs, torch.inf)
    whole, narrow = (float(alignment.shortest_path(table)) for table in (costs, band))
    assert (narrow == pytest.approx(whole)) if same else narrow > whole + 0.1


def test_04_half_a_person_is_matched():
    person = 6.0 * torch.eye(9)
    half = person[:4].repeat_interleave(2, dim=0)
    stranger = person[8:].repeat(8, 1)
    found = {name: float(alignment.local_distances(half[None], other[None])) for name, other in
             (("self", person[None, :8][0]), ("stranger", stranger))}  # fmt: skip
    costs = alignment.stripe_distances(half, person[:8])
    path = alignment.trace_path(costs)
    assert {(2 * k, k) for k in range(4)} | {(2 * k + 1, k) for k in range(4)} <= set(path)
    assert found["self"] < found["stranger"] - 5


def test_05_triplets_of_a_batch():
    labels = torch.arange(32).repeat_interleave(4)
    same = labels[:, None] == labels
    positives, negatives = same.sum(1) - 1, (~same).sum(1)
    assert int((positives * negatives).sum()) == 47_616
    mined = losses.mine_batch_hard(torch.rand(128, 128, generator=torch.Generator().manual_seed(0)), labels)
    assert mined.positive.shape == (128,)


def test_05_larger_features():
    labels = torch.arange(8).repeat_interleave(4)
    noise = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
    features = torch.eye(8, 16)[labels] + 0.15 * noise
    once, twice = (losses.global_triplet(scale * features, labels, 0.3, normalize=False) for scale in (1.0, 2.0))
    gaps = once.mined.negative_distance - once.mined.positive_distance
    again = twice.mined.negative_distance - twice.mined.positive_distance
    assert torch.allclose(again, 2 * gaps, atol=1e-5) and 0.5 < float((gaps > 0).float().mean()) < 1
    assert ((gaps > 0) == (again > 0)).all() and (again > 0.3).sum() > (gaps > 0.3).sum()
    assert twice.loss < once.loss


def test_05_a_wrong_label_is_in_the_triplets_of_both_people():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    noise = torch.rand(8, 2, generator=torch.Generator().manual_seed(0))
    features = torch.tensor([[0.0, 0], [10, 0]])[labels] + noise
    labels[3], wrong = 1, 3
    mined = losses.mine_batch_hard(losses.euclidean_distances(features, features), labels)
    assert (mined.negative[:3] == wrong).all() and (mined.positive[4:] == wrong).all()


def test_08_two_average_precisions():
    _, step, trapezoid = scores("mwwmm")
    assert step == pytest.approx(0.7) and trapezoid == pytest.approx(59 / 90)


def test_08_every_image_twice():
    for roles in ("wmwm", "mwwmm", "mmw"):
        (rank1, step, _), (again, twice, _) = scores(roles), scores("".join(2 * role for role in roles))
        assert rank1 == again
        assert twice == pytest.approx(1) if roles == "mmw" else twice < step
    assert scores("wwmmwwmm")[1] == pytest.approx(0.44, abs=0.005)


def test_08_a_rate_over_pairs():
    assert 0.001 * 5000 == 5 and 0.999**5000 < 0.01


def test_09_new_images_change_old_distances():
    points = np.random.default_rng(0).normal(size=(130, 2)).astype(np.float32)
    query, gallery = torch.from_numpy(points[:1]), torch.from_numpy(points[1:])
    few, many = (reranking.rerank(query, gallery[:count])[0, :30] for count in (30, 129))
    assert np.abs(few - many).max() > 0.05


def test_09_a_large_set_for_people_with_two_images():
    """Sixty people with one query and one gallery image each: the published k1 loses against k1 = 2."""
    rng = np.random.default_rng(0)
    people = rng.normal(size=(60, 2))
    query, gallery = (torch.from_numpy(people + 0.1 * rng.normal(size=people.shape)).float() for _ in range(2))
    labels = np.arange(60), np.arange(60), np.zeros(60, int), np.ones(60, int)
    small, large = (
        ranking.score_ranking(reranking.rerank(query, gallery, k, 1 if k == 2 else 6), *labels).mean_ap for k in (2, 20)
    )
    assert small > large + 0.05


def test_09_strong_cameras_get_stronger():
    rng = np.random.default_rng(0)
    people = rng.normal(size=(40, 8))
    one, other = (
        torch.from_numpy(np.hstack([people + 0.2 * rng.normal(size=people.shape), np.full((40, 1), c)]))
        for c in (0, 20)
    )
    query, gallery = one[:5].float(), torch.cat([one[5:], other]).float()
    matrix = reranking.rerank(query, gallery, lambda_value=0)
    assert matrix[:, 35:].min() > 0.99, "images of the other camera"
    assert matrix[:, :35].min() < 0.7

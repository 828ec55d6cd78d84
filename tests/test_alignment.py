"""The shortest path: known by eye, against every monotone path, and equal to the original's recorded values."""

from pathlib import Path

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignedreid_lib import alignment
from alignedreid_lib.errors import InputError

pytestmark = pytest.mark.arithmetic

RECORDED = np.load(Path(__file__).parent / "data" / "losses_parity.npz")

sides = st.integers(1, 6)
seeds = st.integers(0, 10**6)


def normal(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_a_path_known_by_eye():
    costs = torch.tensor([[1.0, 9, 9, 9], [1, 1, 9, 9], [9, 1, 1, 2]])
    assert alignment.shortest_path(costs) == 7
    assert alignment.trace_path(costs) == [(0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (2, 3)]


def test_one_row_one_column_one_cell():
    assert alignment.shortest_path(torch.ones(1, 5)) == 5
    assert alignment.shortest_path(torch.ones(4, 1)) == 4
    assert alignment.shortest_path(torch.full((1, 1), 3.0)) == 3
    assert alignment.trace_path(torch.ones(1, 3)) == [(0, 0), (0, 1), (0, 2)]
    assert alignment.shortest_path(torch.ones(0, 2, 3)).shape == (0,)
    assert alignment.shortest_path(torch.ones(2, 3, dtype=torch.int64)) == 4, "whole numbers are welcome"


@settings(max_examples=100, deadline=None)
@given(sides, sides, seeds)
def test_equals_the_best_of_all_monotone_paths(height, width, seed):
    costs = normal(seed, height, width).abs()
    paths = oracles.monotone_paths(height, width)
    sums = [sum(costs[cell].item() for cell in path) for path in paths]
    assert alignment.shortest_path(costs).item() == pytest.approx(min(sums), rel=1e-12)
    traced = alignment.trace_path(costs)
    assert traced in paths
    assert sum(costs[cell].item() for cell in traced) == pytest.approx(min(sums), rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(sides, sides, seeds)
def test_batches_are_their_members_and_the_matrix_may_be_turned(height, width, seed):
    costs = normal(seed, 2, 3, height, width).abs()
    lengths = alignment.shortest_path(costs)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(lengths[i, j], alignment.shortest_path(costs[i, j]))
    torch.testing.assert_close(lengths, alignment.shortest_path(costs.transpose(-1, -2)))
    torch.testing.assert_close(lengths, alignment.shortest_path(costs.flip(-1, -2)))


@settings(max_examples=20, deadline=None)
@given(sides, sides, seeds)
def test_the_gradient_is_one_on_the_path_and_nought_beside_it(height, width, seed):
    costs = normal(seed, height, width).abs().requires_grad_()
    alignment.shortest_path(costs).backward()
    on_path = torch.zeros(height, width, dtype=torch.float64)
    for cell in alignment.trace_path(costs.detach()):
        on_path[cell] = 1
    torch.testing.assert_close(costs.grad, on_path)


def test_gradients_in_double_precision():
    x, y = normal(1, 3, 4, 5).requires_grad_(), normal(2, 2, 3, 5).requires_grad_()
    assert torch.autograd.gradcheck(alignment.stripe_distances, (x[0], y[0]))
    assert torch.autograd.gradcheck(alignment.local_distances, (x, y))
    same = normal(3, 2, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: alignment.local_distances(a, b, aligned=False), (x, same))


def test_equals_the_recorded_values():
    def recorded(name):
        return torch.from_numpy(RECORDED[name])

    close = dict(rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(alignment.shortest_path(recorded("cost")), recorded("shortest").squeeze(), **close)
    distances = alignment.local_distances(recorded("local_x"), recorded("local_y"))
    torch.testing.assert_close(distances, recorded("local_dist"), **close)
    uneven = alignment.local_distances(recorded("local_x7"), recorded("local_y4"))
    torch.testing.assert_close(uneven, recorded("local_dist_7x4"), **close)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 5), st.booleans(), seeds)
def test_local_distances_equal_a_loop_in_tiles_or_with_a_gradient(m, n, height, width, aligned, seed):
    width = width if aligned else height
    x, y = normal(seed, m, height, 6), normal(seed + 1, n, width, 6)
    wanted = torch.tensor([[oracles.local_distance(a, b, aligned) for b in y.tolist()] for a in x.tolist()])
    whole = alignment.local_distances(x, y, aligned)
    torch.testing.assert_close(whole, wanted.double(), rtol=1e-6, atol=1e-6)
    before = alignment._CPU_CELLS
    try:
        alignment._CPU_CELLS = 2 * 2 * height * width
        torch.testing.assert_close(alignment.local_distances(x, y, aligned), whole)
    finally:
        alignment._CPU_CELLS = before
    torch.testing.assert_close(alignment.local_distances(x.requires_grad_(), y, aligned).detach(), whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_people_are_as_near_in_tiles_as_with_a_gradient(dtype):
    x = normal(0, 40, 4, 16, dtype=dtype) * 10
    tiled = alignment.local_distances(x, x)
    assert tiled.isfinite().all(), "squares that rounding has brought below nought"
    torch.testing.assert_close(
        alignment.local_distances(x.clone().requires_grad_(), x).detach(), tiled, rtol=1e-3, atol=5e-2
    )


def test_features_that_are_no_numbers_give_distances_that_are_none():
    x = normal(0, 3, 4, 5).index_fill(0, torch.tensor([1]), torch.nan)
    assert alignment.local_distances(x, x).isnan().tolist() == [[False, True, False], [True] * 3, [False, True, False]]


def test_nobody_is_no_distance_from_anybody():
    assert alignment.local_distances(torch.zeros(0, 4, 5), torch.zeros(3, 4, 5)).shape == (0, 3)
    assert alignment.local_distances(torch.zeros(3, 4, 5), torch.zeros(0, 4, 5)).shape == (3, 0)


def test_a_shifted_person_stays_nearer_than_a_stranger_only_when_aligned():
    strips, stranger = normal(0, 9, 16) * 3, normal(1, 1, 8, 16) * 3
    person, shifted = strips[None, :8], strips[None, 1:]

    def distance(other, aligned):
        return round(alignment.local_distances(person, other, aligned).item(), 2)

    # Between two matches the path steps over a cell that matches nothing: it pays 7 for the same picture already. A
    # shift by one leaves 7 matches among its 15 cells, a stranger none. Rigid parts have 8 cells, no match in either.
    assert [distance(other, True) for other in (person, shifted, stranger)] == [7, 8, 15]
    assert [distance(other, False) for other in (person, shifted, stranger)] == [0, 8, 8]
    path = alignment.trace_path(alignment.stripe_distances(person[0], shifted[0]))
    assert {(i + 1, i) for i in range(7)} <= set(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_long_features_and_half_precision_stay_finite(dtype):
    x = (normal(0, 4, 8, 16) * 1e3 / 4).to(dtype).requires_grad_()
    distances = alignment.local_distances(x, x)
    distances.sum().backward()
    assert distances.dtype == torch.float32 and distances.isfinite().all() and x.grad.isfinite().all()


def test_float32_inside_autocast():
    x = normal(0, 2, 4, 8, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = alignment.stripe_distances(x[0], x[1])
    assert torch.equal(inside, alignment.stripe_distances(x[0], x[1])) and inside.dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: alignment.local_distances(x, x[:, :, :3]), r"\(2, 4, 5\) and \(2, 4, 3\)"),
        (lambda x: alignment.local_distances(x, x[0]), r"\[M, H, c\]"),
        (lambda x: alignment.local_distances(x, x[:, :3], aligned=False), "not 4 and 3"),
        (lambda x: alignment.local_distances(x[:, :0], x), r"\(2, 0, 5\)"),
        (lambda x: alignment.stripe_distances(x, x[:, :, :3]), r"\[..., H, c\]"),
        (lambda x: alignment.shortest_path(x[:, :0]), r"\[..., H, W\]"),
        (lambda x: alignment.trace_path(x), r"\[H, W\]"),
        (lambda x: alignment.trace_path(x[0] * torch.nan), "not a finite number"),
    ],
)
def test_shapes_that_do_not_fit_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call(normal(0, 2, 4, 5))

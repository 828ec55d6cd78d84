"""Thresholds: by eye, against counting, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_evaluation import make_features

from alignedreid_lib import figures
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.verification import choose_threshold, pair_distances, roc

pytestmark = pytest.mark.arithmetic


def test_by_eye():
    curve = roc([1, 2, 4], [3, 5, 6, 7])
    assert curve.thresholds.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert curve.false_accept_rate.tolist() == [0, 0, 0.25, 0.25, 0.5, 0.75, 1]
    assert np.allclose(curve.true_accept_rate, [1 / 3, 2 / 3, 2 / 3, 1, 1, 1, 1])
    assert choose_threshold(curve, 0) == 2 and choose_threshold(curve, 0.3) == 4 and choose_threshold(curve, 1) == 7
    assert choose_threshold(roc([5], [1, 2]), 0.4) == -np.inf


distances = st.lists(st.integers(0, 9), min_size=1, max_size=12)


@given(distances, distances, st.sampled_from([0, 0.1, 0.25, 0.5, 1]))
def test_equals_counting(same, different, rate):
    curve = roc(same, different)
    for threshold, false, true in zip(*curve, strict=True):
        assert false == pytest.approx(np.mean([d <= threshold for d in different]))
        assert true == pytest.approx(np.mean([d <= threshold for d in same]))
    chosen = choose_threshold(curve, rate)
    assert np.mean([d <= chosen for d in different]) <= rate
    larger = curve.thresholds[curve.thresholds > chosen]
    assert not len(larger) or np.mean([d <= larger[0] for d in different]) > rate


def test_junk_is_no_pair():
    #                         query   same camera: junk   match   another
    features = make_features([[0.0], [1.0], [2.0], [5.0]], [1, 1, 1, 2], [0, 0, 1, 1], [0, 1, 1, 1])
    pairs = pair_distances(features)
    assert pairs.same.tolist() == [2] and pairs.different.tolist() == [5]
    with pytest.raises(InputError, match="0 pairs of one person"):
        pair_distances(features[[0, 1, 3]])


def test_what_is_refused():
    for same, different in (([], [1]), ([1], [])):
        with pytest.raises(InputError, match="both are needed"):
            roc(same, different)
    with pytest.raises(InputError, match="nan"):
        roc([1], [np.nan])
    with pytest.raises(InputError, match="false_accept_rate is 2"):
        choose_threshold(roc([1], [2]), 2)


def test_the_figure():
    assert len(figures.open_set([1, 2, 4], [3, 5, 6, 7], 0.25).axes) == 2

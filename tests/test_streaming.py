"""Scores in chunks are the scores, exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ranking import problems

from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.ranking import score_ranking
from alignedreid_lib.evaluation.streaming import score_stream

pytestmark = pytest.mark.arithmetic


def in_chunks(matrix):
    return lambda begin, end: matrix[:, begin:end]


@settings(max_examples=150, deadline=None)
@given(
    problems(gallery=20),
    st.sampled_from(["market1501", "allshots"]),
    st.sampled_from(["step", "trapezoid"]),
    st.integers(1, 25),
    st.booleans(),
)
def test_equals_the_whole(problem, protocol, definition, chunk, keep):
    """Ties across the borders of chunks included."""
    how = {"protocol": protocol, "average_precision": definition, "top": 7, "keep_same_camera": keep}
    whole = score_ranking(*problem, **how)
    streamed = score_stream(in_chunks(problem[0]), *problem[1:], **how, chunk=chunk)
    for one, other in zip(whole, streamed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_keep_same_camera_by_eye():
    """The nearest image is of the query's camera: junk, or the first match."""
    problem = ([[1.0, 2.0, 3.0]], [7], [7, 8, 7], [0], [0, 1, 1])
    assert score_ranking(*problem, top=2).cmc.tolist() == [0, 1]
    assert score_ranking(*problem, top=2, keep_same_camera=True).cmc.tolist() == [1, 1]
    assert score_ranking(*problem, top=2, keep_same_camera=True, protocol="cuhk03").cmc.tolist() == [0.5, 1]


def test_a_gallery_is_asked_for_twice_only_where_matches_are():
    calls = []

    def distances(begin, end):
        calls.append(begin)
        return np.ones((1, end - begin))

    score_stream(distances, [1], [0] * 10 + [1] + [0] * 9, [0], [1] * 20, chunk=5)
    assert calls == [10, 0, 5, 10, 15]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"protocol": "cuhk03"}, "cannot be scored in chunks"),
        ({"top": 0}, "top is 0"),
        ({"chunk": 0}, "chunk is 0"),
        ({"query_ids": []}, r"query_ids have shape \(0,\)"),
        ({"query_cameras": [1, 2]}, "1 query_ids and 2 query_cameras"),
        ({"distances": lambda begin, end: np.ones((2, end - begin))}, r"distances\(0, 3\) has shape \(2, 3\)"),
        ({"distances": lambda begin, end: np.full((1, end - begin), np.nan)}, "contain nan"),
    ],
)
def test_what_is_refused(change, says):
    good = {
        "distances": lambda begin, end: np.ones((1, end - begin)),
        "query_ids": [1], "gallery_ids": [1, 1, 2], "query_cameras": [0], "gallery_cameras": [1, 2, 1],
    }  # fmt: skip
    with pytest.raises(InputError, match=says):
        score_stream(**(good | change))

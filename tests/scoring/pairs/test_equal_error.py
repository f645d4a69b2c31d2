"""The EER of two sets of scores: worked by hand, and against a search over all thresholds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from makermark.scoring.pairs import equal_error_rate
from makermark.scoring.pairs.error_rates import interpolate_crossing


@pytest.mark.parametrize(
    ("targets", "nontargets", "expected"),
    [
        ([2.0, 3.0], [0.0, 1.0], 0.0),
        ([0.0, 1.0], [2.0, 3.0], 1.0),
        ([1.0, 3.0], [0.0, 2.0], 0.5),
        ([1.0], [1.0], 0.5),
        ([0.0, 2.0, 3.0, 4.0], [-1.0, 1.0, -2.0, -3.0], 0.25),
    ],
)
def test_equal_error_rate_worked_by_hand(targets, nontargets, expected):
    assert equal_error_rate(np.array(targets), np.array(nontargets)) == pytest.approx(expected)


scores = st.lists(st.integers(-5, 5), min_size=1, max_size=30).map(lambda values: np.array(values, float))


@given(targets=scores, nontargets=scores)
def test_equal_error_rate_is_where_the_piecewise_linear_roc_crosses_the_diagonal(targets, nontargets):
    thresholds = [np.inf, *sorted({*targets, *nontargets}, reverse=True)]
    false_accept = np.array([(nontargets >= t).mean() for t in thresholds])
    miss = np.array([(targets < t).mean() for t in thresholds])
    after = int(np.argmax(false_accept >= miss))  # first threshold where miss <= false accept
    gap = miss[after - 1] - false_accept[after - 1]
    part = gap / (gap + false_accept[after] - miss[after])
    expected = false_accept[after - 1] + part * (false_accept[after] - false_accept[after - 1])
    assert equal_error_rate(targets, nontargets) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("miss", "false_accept", "expected"),
    [
        ([1.0, 0.5, 0.0], [0.0, 0.25, 1.0], 0.4),  # a fifth of the way from (0.5, 0.25) to (0, 1)
        ([1.0, 0.5, 0.2], [0.0, 0.5, 1.0], 0.5),  # at a point
        ([1.0, 0.75, 0.0], [0.0, 0.25, 0.25], 0.25),
        ([0.2, 0.1], [0.3, 0.9], 0.3),  # before the first point
    ],
)
def test_interpolated_crossing_worked_by_hand(miss, false_accept, expected):
    assert interpolate_crossing(np.array(miss), np.array(false_accept)) == pytest.approx(expected)

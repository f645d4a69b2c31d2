"""The EER of two sets of scores, by hand and by a search over all thresholds; crossings and curves by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from makermark.scoring.pairs import equal_error_rate
from makermark.scoring.pairs.error_rates import det_curve, interpolate_crossing, score_histogram


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


def test_det_curve_of_three_bins_has_the_two_points_between_them():
    det = det_curve(np.array([1, 1, 2]), np.array([3, 0, 1]), np.array([0.0, 1.0, 2.0, 3.0]))
    assert det.threshold == pytest.approx([1, 2])
    assert det.miss_rate == pytest.approx([0.25, 0.5])
    assert det.false_accept_rate == pytest.approx([0.25, 0.25])


def test_histogram_of_three_bins_keeps_them():
    edges = np.array([0.0, 1.0, 2.0, 3.0])
    histogram = score_histogram(np.array([1, 2, 3]), np.array([3, 0, 1]), edges)
    assert histogram.edges.tolist() == edges.tolist()
    assert histogram.targets.tolist() == [1, 2, 3]
    assert histogram.nontargets.tolist() == [3, 0, 1]

"""The EER of two sets of scores, by hand and by a search over all thresholds; crossings and curves by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from makermark.scoring.pairs import equal_error_rate
from makermark.scoring.pairs.error_rates import (
    area_under_roc,
    det_curve,
    interpolate_crossing,
    score_histogram,
)


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


def test_det_curve_of_many_bins_has_400_points_at_equal_steps_of_the_logit():
    """Targets and non-targets have logistic distributions, so that both logits rise by the same step in every bin."""
    inner = np.linspace(-4, 4, 2000)  # the outermost bins hold all lower and all higher scores
    share = np.diff(1 / (1 + np.exp(-inner)), prepend=0, append=1)
    counts = np.round(1e9 * share).astype(np.int64)
    det = det_curve(counts, counts, np.array([-9, *inner, 9]))
    assert len(det.threshold) == 400
    np.testing.assert_allclose(det.threshold, np.linspace(-4, 4, 400), atol=8 / 1999)  # one bin


def test_histogram_of_a_thousand_bins_has_a_hundred_of_ten_each():
    histogram = score_histogram(np.ones(1000, int), np.full(1000, 3), np.arange(1001.0))
    assert histogram.edges.tolist() == list(range(0, 1001, 10))
    assert histogram.targets.tolist() == [10] * 100
    assert histogram.nontargets.tolist() == [30] * 100


def test_area_under_roc_and_its_error_worked_by_hand():
    """Bin 0 has one target and three non-targets of one score: half of three pairs. Bin 1 has two targets, each above
    these three and above all, none or half of the one non-target beside it."""
    targets, nontargets = np.array([1, 2]), np.array([3, 1])
    area, error = area_under_roc(targets, nontargets, has_one_score=np.array([True, False]))
    assert area == pytest.approx((1.5 + 2 * 3.5) / 12)
    assert error == pytest.approx(2 * 0.5 / 12)

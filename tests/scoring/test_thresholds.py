"""The guarantees of thresholds and prediction sets, by hand and by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from makermark.scoring.calibration import accept_threshold, conformal_margin


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50), st.floats(0, 0.99))
def test_accept_threshold_is_the_lowest_that_keeps_the_rate(scores, rate):
    scores = np.array(scores, dtype=float)
    threshold = accept_threshold(scores, rate=rate)
    assert (scores > threshold).mean() <= rate + 1e-9
    lower = scores[scores < threshold]
    if len(lower):
        assert (scores > lower.max()).mean() > rate


def test_conformal_margin_worked_by_hand():
    """Of nine margins at 80 % coverage, the eighth is returned, because ceil(10 * 0.8) = 8."""
    assert conformal_margin(np.arange(9.0), coverage=0.8) == 7.0


def test_conformal_margin_is_infinite_for_too_few_clips():
    assert conformal_margin(np.zeros(5), coverage=0.95) == np.inf


def test_conformal_sets_have_the_promised_coverage():
    rng = np.random.default_rng(0)
    coverages = [
        np.mean(rng.exponential(size=200) <= conformal_margin(rng.exponential(size=40), coverage=0.9))
        for _ in range(400)
    ]
    assert 0.89 < np.mean(coverages) < 0.93


def test_accept_threshold_without_scores_raises():
    with pytest.raises(ValueError, match="pass at least one score"):
        accept_threshold(np.empty(0), rate=0.05)


@pytest.mark.parametrize(
    ("rate", "allowed"), [(0.0, 0), (0.009, 0), (0.01, 1), (0.05, 5), (0.29, 29), (0.57, 57), (0.999, 99)]
)
def test_accept_threshold_allows_the_whole_share(rate, allowed):
    """In floating point 0.29 * 100 and 0.57 * 100 are just below 29 and 57: rounding must not cost a clip."""
    scores = np.random.default_rng(0).permutation(100).astype(float)
    assert (scores > accept_threshold(scores, rate=rate)).sum() == allowed


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
def test_accept_threshold_of_a_rate_out_of_range_raises(rate):
    with pytest.raises(ValueError, match=f"3 scores and rate {rate}"):
        accept_threshold(np.zeros(3), rate=rate)


@pytest.mark.parametrize(
    ("count", "coverage", "rank"),
    [(99, 0.55, 55), (49, 0.14, 7), (99, 0.29, 29), (99, 0.95, 95), (19, 0.95, 19), (3, 0.25, 1)],
)
def test_conformal_margin_rank_is_not_raised_by_rounding(count, coverage, rank):
    """100 * 0.55 is 55 in decimal and more in binary; the last rank is still within the clips."""
    assert conformal_margin(np.arange(float(count)) + 1, coverage=coverage) == rank


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.5])
def test_conformal_margin_of_a_coverage_out_of_range_raises(coverage):
    with pytest.raises(ValueError, match=f"coverage is {coverage}"):
        conformal_margin(np.zeros(3), coverage=coverage)

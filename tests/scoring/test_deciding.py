"""The promises of thresholds and sets, on numbers and by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from makermark.scoring.deciding import accept_threshold, conformal_margin


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50), st.floats(0, 0.99))
def test_no_more_unknown_scores_lie_above_than_promised_and_no_lower_threshold_keeps_it(scores, rate):
    scores = np.array(scores, dtype=float)
    threshold = accept_threshold(scores, rate=rate)
    assert (scores > threshold).mean() <= rate + 1e-9
    lower = scores[scores < threshold]
    if len(lower):
        assert (scores > lower.max()).mean() > rate


def test_the_margin_by_hand():
    """Nine margins at 80 %: the eighth of them, since ceil(10 x 0.8) = 8."""
    assert conformal_margin(np.arange(9.0), coverage=0.8) == 7.0


def test_too_few_clips_for_the_promise_let_every_system_in():
    assert conformal_margin(np.zeros(5), coverage=0.95) == np.inf


def test_sets_hold_the_truth_as_often_as_promised():
    rng = np.random.default_rng(0)
    held = [
        np.mean(rng.exponential(size=200) <= conformal_margin(rng.exponential(size=40), coverage=0.9))
        for _ in range(400)
    ]
    assert 0.89 < np.mean(held) < 0.93


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(ValueError, match="there must be some"):
        accept_threshold(np.empty(0), rate=0.05)

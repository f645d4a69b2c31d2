"""The EER of two sets of scores: worked by hand, and against a search over all thresholds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from makermark.scoring.pairs import equal_error_rate


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

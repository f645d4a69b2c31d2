"""The EER of two sets of scores: by hand, and against a search over all thresholds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from makermark.scoring import equal_error


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
def test_worked_by_hand(targets, nontargets, expected):
    assert equal_error(np.array(targets), np.array(nontargets)) == pytest.approx(expected)


scores = st.lists(st.integers(-5, 5), min_size=1, max_size=30).map(lambda values: np.array(values, float))


@given(targets=scores, nontargets=scores)
def test_it_lies_where_the_straight_roc_crosses_the_diagonal(targets, nontargets):
    thresholds = [np.inf, *sorted({*targets, *nontargets}, reverse=True)]
    false = np.array([(nontargets >= t).mean() for t in thresholds])
    miss = np.array([(targets < t).mean() for t in thresholds])
    after = int(np.argmax(false >= miss))  # the first threshold with no more misses than false accepts
    gap = miss[after - 1] - false[after - 1]
    part = gap / (gap + false[after] - miss[after])
    expected = false[after - 1] + part * (false[after] - false[after - 1])
    assert equal_error(targets, nontargets) == pytest.approx(expected)

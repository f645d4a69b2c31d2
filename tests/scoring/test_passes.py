import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from makermark.scoring.bins import bin_count, bins_for, keys_of, scores_of
from makermark.scoring.layout import all_pairs, lay_out
from makermark.scoring.passes import FEWEST_FINE, FINE_PER_TRIAL, fine_steps

finite = st.floats(-1, 1, width=32)


@given(finite, finite)
def test_keys_are_ordered_as_scores_are(a, b):
    (key_a, key_b), scores = keys_of(np.array([a, b])), np.array([a, b], np.float32)
    assert (key_a < key_b) == (scores[0] < scores[1])
    assert (key_a == key_b) == (scores[0] == scores[1])


@given(st.lists(finite, min_size=1))
def test_a_key_leads_back_to_its_score(scores):
    scores = np.array(scores, np.float32)
    np.testing.assert_array_equal(scores_of(keys_of(scores)), scores)


@pytest.fixture
def layout():
    rng = np.random.default_rng(0)
    systems = rng.integers(0, 5, 300)
    return lay_out(rng.normal(size=(5, 7))[systems] + rng.normal(size=(300, 7)), systems, None)


def test_a_pair_has_one_score_wherever_its_utterances_stand(layout):
    """Alone in a tile, or among others; the two swapped, or not: the same bits."""
    scores, first, second = all_pairs(layout)
    unit, names = layout.rows[:300], np.array(layout.systems)[layout.system]
    for k in range(0, len(scores), 997):
        pair = [first[k], second[k]]
        alone, _, _ = all_pairs(lay_out(unit[pair], np.array(["p", "q"]), None))
        swapped, _, _ = all_pairs(lay_out(unit[pair[::-1]], np.array(["p", "q"]), None))
        assert alone == swapped
        assert alone == pytest.approx(scores[k], abs=1e-6)  # lay_out divides by the norm once more
    again, _, _ = all_pairs(lay_out(unit, names[::-1], None))
    assert len(again) == len(scores) == 300 * 299 // 2


def test_every_pair_is_gathered_once_with_its_cosine(layout):
    scores, first, second = all_pairs(layout)
    assert len(set(zip(first.tolist(), second.tolist(), strict=True))) == 300 * 299 // 2
    assert np.all(first < second)
    exact = np.sum(layout.rows[first].astype(np.float64) * layout.rows[second], axis=1)
    np.testing.assert_allclose(scores, exact, atol=3e-7)


def test_floors_are_the_lowest_scores_of_their_bins(layout):
    bins = bins_for(layout, sample_utterances=60)
    floors = bins.floors
    assert np.all(np.diff(floors) >= 0)
    inner = floors[1:-1]
    number = np.arange(1, bins.count)
    assert np.all(bins.of(scores_of(inner)) >= number)
    assert np.all(bins.of(scores_of(inner - 1)) < number)


def test_bins_become_fewer_as_systems_become_more():
    assert bin_count(300) == 4096
    assert bin_count(50_000) == 512
    assert bin_count(10**9) == 64


@given(
    st.lists(st.tuples(st.integers(-1, 2**31), st.integers(2, 2**40)), min_size=1, max_size=8),
    st.sampled_from([2**12, 2**20, 2**30]),
)
def test_fine_counters_cover_every_open_interval_within_their_memory(curves, most_bytes):
    spans, trials = np.array(curves).T
    shift, size = fine_steps(spans, trials, most_bytes=most_bytes)
    assert np.all(size <= np.maximum(FEWEST_FINE, FINE_PER_TRIAL * trials))
    assert np.all(size[spans < 0] == 0)
    wanted = spans >= 0
    assert np.all((size << shift)[wanted] > spans[wanted])
    assert size.sum() * 8 <= most_bytes or size.max() <= FEWEST_FINE

"""Score keys, bins and fine counters of the passes over all pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from makermark.foundation.errors import ScoringError
from makermark.scoring.pairs.eer_refinement import (
    FINE_COUNTERS_PER_TRIAL,
    MIN_FINE_COUNTERS,
    CurveIndex,
    blocks_to_refine,
    choose_fine_counters,
    index_curves,
    refine,
)
from makermark.scoring.pairs.error_rates import Bracket
from makermark.scoring.pairs.tiling import (
    all_pairs,
    choose_bin_count,
    fit_bins,
    keys_to_scores,
    scores_to_keys,
    tile_embeddings,
)

finite = st.floats(-1, 1, width=32)


@given(finite, finite)
def test_keys_have_the_order_of_the_scores(a, b):
    (key_a, key_b), scores = scores_to_keys(np.array([a, b])), np.array([a, b], np.float32)
    assert (key_a < key_b) == (scores[0] < scores[1])
    assert (key_a == key_b) == (scores[0] == scores[1])


@given(st.lists(finite, min_size=1))
def test_keys_to_scores_inverts_scores_to_keys(scores):
    scores = np.array(scores, np.float32)
    np.testing.assert_array_equal(keys_to_scores(scores_to_keys(scores)), scores)


@pytest.fixture
def tiling():
    rng = np.random.default_rng(0)
    systems = rng.integers(0, 5, 300)
    return tile_embeddings(rng.normal(size=(5, 7))[systems] + rng.normal(size=(300, 7)), systems, None)


def test_pair_score_does_not_depend_on_position(tiling):
    """A pair has the same bits alone in a tile, among others, and with its two utterances swapped."""
    scores, first, second = all_pairs(tiling)
    rows, names = tiling.rows[:300], np.array(tiling.systems)[tiling.system]
    for k in range(0, len(scores), 997):
        pair = [first[k], second[k]]
        alone, _, _ = all_pairs(tile_embeddings(rows[pair], np.array(["p", "q"]), None))
        swapped, _, _ = all_pairs(tile_embeddings(rows[pair[::-1]], np.array(["p", "q"]), None))
        assert alone == swapped
        assert alone == pytest.approx(scores[k], abs=1e-6)  # tile_embeddings divides by the norm again
    again, _, _ = all_pairs(tile_embeddings(rows, names[::-1], None))
    assert len(again) == len(scores) == 300 * 299 // 2


def test_all_pairs_returns_every_pair_once_with_its_cosine(tiling):
    scores, first, second = all_pairs(tiling)
    assert len(set(zip(first.tolist(), second.tolist(), strict=True))) == 300 * 299 // 2
    assert np.all(first < second)
    exact = np.sum(tiling.rows[first].astype(np.float64) * tiling.rows[second], axis=1)
    np.testing.assert_allclose(scores, exact, atol=3e-7)


@pytest.mark.parametrize("strata", [None, ["x", "y"], ["x", "y", "z"]])
def test_block_belongs_to_the_curves_of_its_systems_and_of_its_stratum(strata):
    """Set 0 is everything, set 1 + t stratum t. The curve of a set has its number, those of its systems follow."""
    rng = np.random.default_rng(1)
    systems, row_strata = rng.choice(list("abcd"), 60), rng.choice(strata or ["x"], 60)
    tiling = tile_embeddings(rng.normal(size=(60, 3)), systems, row_strata if strata else None)
    curves = index_curves(tiling)
    sets, count = 1 + len(strata or []), len(tiling.systems)
    assert (curves.sets, curves.systems, curves.count) == (sets, count, sets * (1 + count))
    blocks = zip(*tiling.block_systems(), *tiling.block_strata(), strict=True)
    kinds = set()
    for number, (first, second, stratum, other) in enumerate(blocks):
        expected = [0, sets + first] + [sets + second] * int(first != second)
        if strata and stratum == other:
            own = 1 + stratum
            expected += [own, sets + own * count + first] + [sets + own * count + second] * int(
                first != second
            )
            assert curves.system_curve(own, first) in expected
        assert sorted(curves.of_block[number][curves.of_block[number] >= 0]) == sorted(expected)
        assert set(curves.of_block[number]) <= {-1, *expected}
        assert curves.kinds[number] == (first == second)
        assert curves.set_of_block[number] == (1 + stratum if strata and stratum == other else 0)
        kinds.add((first == second, stratum == other))
    assert len(kinds) == (4 if strata else 2)


def test_bin_floors_are_the_lowest_scores_of_their_bins(tiling):
    bins = fit_bins(tiling, sample_utterances=60)
    floors = bins.floors
    assert np.all(np.diff(floors) >= 0)
    inner = floors[1:-1]
    number = np.arange(1, bins.count)
    assert np.all(bins.assign(keys_to_scores(inner)) >= number)
    assert np.all(bins.assign(keys_to_scores(inner - 1)) < number)


def test_bin_count_falls_as_the_number_of_blocks_grows():
    assert choose_bin_count(300) == 4096
    assert choose_bin_count(50_000) == 512
    assert choose_bin_count(10**9) == 64


@given(
    st.lists(st.tuples(st.integers(-1, 2**31), st.integers(2, 2**40)), min_size=1, max_size=8),
    st.sampled_from([2**12, 2**20, 2**30]),
)
def test_fine_counters_cover_every_span_within_the_memory_limit(curves, max_bytes):
    spans, trials = np.array(curves).T
    shift, size = choose_fine_counters(spans, trials, max_bytes=max_bytes)
    assert np.all(size <= np.maximum(MIN_FINE_COUNTERS, FINE_COUNTERS_PER_TRIAL * trials))
    assert np.all(size[spans < 0] == 0)
    is_refined = spans >= 0
    assert np.all((size << shift)[is_refined] > spans[is_refined])
    assert size.sum() * 8 <= max_bytes or size.max() <= MIN_FINE_COUNTERS


def two_systems():
    """The curves of the blocks (a, a), (a, b) and (b, b): 0 of the set, 1 of a, 2 of b."""
    of_block = np.full((3, 6), -1)
    of_block[0, :2], of_block[1, :3], of_block[2, :2] = (0, 1), (0, 1, 2), (0, 2)
    return CurveIndex(1, 2, of_block, kinds=np.array([1, 0, 1]), set_of_block=np.zeros(3, int))


@pytest.mark.parametrize(
    ("inexact", "blocks"), [([1], [0]), ([0], [1]), ([2], []), ([0, 1], [0, 1]), ([], [])]
)
def test_only_blocks_with_trials_in_the_crossing_bin_are_counted_again(inexact, blocks):
    """Curve 0 crosses in bin 1, where (a, b) has trials; 1 in bin 0, where (a, a) has some; 2 in bin 2 without any."""
    counts = np.array([[5, 0, 1], [0, 2, 0], [1, 0, 0]])
    bracket = Bracket(0, 9, 0, 0, 1, 1)
    got = blocks_to_refine(two_systems(), counts, np.array([1, 0, 2]), dict.fromkeys(inexact, bracket))
    assert got.tolist() == blocks


class ListedTrials:
    """A counter of trials of curve 1 that are given by their keys."""

    counter_copies = 1

    def __init__(self, targets, nontargets):
        self.keys, self.todo, self.ranges = (nontargets, targets), None, None

    def refine(self, todo, curves, ranges):
        self.todo, self.ranges = todo, ranges
        counts = np.zeros((2, ranges.size.sum()), np.int64)
        for kind, keys in enumerate(self.keys):
            for key in keys:
                counts[kind, ranges.offset[1] + ((key - ranges.low_key[1]) >> ranges.shift[1])] += 1
        return counts


@pytest.mark.parametrize(
    ("ends", "targets", "nontargets", "expected"),
    [
        # falling: 130 target, 125 non-target; then 2 of 5 targets are missed and 2 of 5 non-targets accepted
        ((100, 163), [130, 120, 110], [125, 115], Bracket(125, 125, 3, 1, 0, 1)),
        # 2^14 keys in a counter: counter 4 holds the crossing, which another pass has to find
        ((0, 2**20), [70_000, 70_001, 5], [70_002, 6], Bracket(4 * 2**14, 5 * 2**14 - 1, 2, 1, 2, 1)),
        # the last counter is cut off at the end of the bracket
        ((0, 2**20), [2**20, 10, 20], [2**20, 30], Bracket(2**20, 2**20, 2, 1, 1, 1)),
    ],
)
def test_refinement_worked_by_hand(ends, targets, nontargets, expected):
    """Of 5 targets and 5 non-targets, 2 and 1 are above the bracket, 3 and 2 inside. Other curves get no counter."""
    counter, totals = ListedTrials(targets, nontargets), np.array([[0, 0], [5, 5], [5, 5]])
    inexact = {1: Bracket(*ends, 2, 1, 3, 2)}
    assert refine(counter, two_systems(), np.array([0, 1]), inexact, totals) == {1: expected}
    assert counter.todo.tolist() == [0, 1]
    assert (counter.ranges.size > 0).tolist() == [False, True, False]
    assert (counter.ranges.low_key > counter.ranges.high_key).tolist() == [True, False, True]


@pytest.mark.parametrize(("targets", "nontargets"), [([130, 120], [125, 115]), ([130, 120, 110], [125])])
def test_passes_that_count_other_trials_raise(targets, nontargets):
    inexact = {1: Bracket(100, 163, 2, 1, 3, 2)}
    totals = np.array([[0, 0], [5, 5], [5, 5]])
    with pytest.raises(
        ScoringError, match=r"two passes disagree in a score interval: 3 and . target trials, 2 and"
    ):
        refine(ListedTrials(targets, nontargets), two_systems(), np.array([0]), inexact, totals)

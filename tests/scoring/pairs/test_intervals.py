"""Bootstrap intervals over systems, against lists of weighted trials."""

import numpy as np
import pytest
from brute_force import Trials, eer_percent
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t

from makermark.scoring.pairs import score_all_pairs
from makermark.scoring.pairs.intervals import (
    accepted_trials,
    accumulate_accepted,
    bootstrap_intervals,
    percentile_interval,
    quantile_levels,
    resampled_eers,
)

SAMPLES = 25


def hesterberg_levels(systems):
    """Return alpha' = Phi(-sqrt(n / (n - 1)) t_{alpha/2, n - 1}) and 1 - alpha' (Hesterberg 2015)."""
    alpha = norm.cdf(-np.sqrt(systems / (systems - 1)) * t.ppf(0.975, systems - 1))
    return alpha, 1 - alpha


@pytest.mark.parametrize("systems", [3, 5, 6, 9, 27, 64, 1000])
def test_quantile_levels_are_those_of_hesterberg(systems):
    assert quantile_levels(systems) == pytest.approx(hesterberg_levels(systems), rel=1e-9)


def test_quantile_levels_of_nine_systems_by_hand():
    """t of 8 degrees of freedom is 2.3060; times sqrt(9 / 8), 1.06066, it is 2.4459; Phi(-2.4459) is 0.00722."""
    assert quantile_levels(9) == pytest.approx((0.00722, 0.99278), abs=5e-6)


def test_quantile_levels_of_many_systems_approach_the_plain_percentiles():
    assert quantile_levels(10**7) == pytest.approx((0.025, 0.975), abs=1e-6)
    lows = [quantile_levels(systems)[0] for systems in (2, 3, 5, 9, 27, 64, 1000)]
    assert lows == sorted(lows)
    assert lows[-1] < 0.025


def test_quantile_levels_of_two_systems_span_all_resamples():
    low, high = quantile_levels(2)  # t of one degree of freedom is 12.706
    assert low == pytest.approx(norm.cdf(-np.sqrt(2) * 12.706204736), rel=1e-6)
    assert 0 < low < 1e-70
    values = np.random.default_rng(0).normal(size=1000)
    assert np.quantile(values, (low, high)) == pytest.approx((values.min(), values.max()))


@pytest.mark.parametrize("systems", [0, 1])
def test_one_system_has_no_quantile_levels(systems):
    with pytest.raises(ValueError, match="needs at least 2"):
        quantile_levels(systems)


def test_interval_of_few_systems_is_wider_than_plain_percentiles_and_of_many_is_not():
    """The same resampled EERs, 0 to 100 %, once as those of 5 and once as those of 1,000 systems."""
    eers = np.append(np.linspace(0, 1, 1001), np.nan)
    few, many = percentile_interval(eers, 5), percentile_interval(eers, 1000)
    assert many == pytest.approx((2.5, 97.5), abs=0.02)
    assert few == pytest.approx((0.095, 99.905), abs=0.01)  # Phi(-sqrt(5 / 4) 2.7764) is 0.00095


def listed_eers(trials, scores, *, seed, samples):
    """Return the micro and macro EERs of every resample, in percent, from a list of weighted trials."""
    count = len(trials.systems)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=samples)
    micro, macro = [], []
    for times in drawn:
        weights = np.where(
            trials.is_target, times[trials.first], times[trials.first] * times[trials.second]
        ).astype(float)
        micro.append(eer_percent(trials.is_target, scores, weights))
        eers = []
        for system in range(count):
            mine = (trials.first == system) | (trials.second == system)
            eer = eer_percent(trials.is_target[mine], scores[mine], weights[mine])
            eers += [] if eer is None else [eer] * times[system]
        macro.append(np.mean(eers) if eers else None)
    return [value for value in micro if value is not None], [value for value in macro if value is not None]


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 6), st.integers(8, 30), st.integers(0, 99))
def test_intervals_equal_those_of_listed_weighted_trials(systems, utterances, seed):
    """The scores are whole numbers, one per bin, so that binning loses nothing."""
    rng = np.random.default_rng(seed)
    names = np.concatenate([np.arange(systems), [0], rng.integers(0, systems, utterances)])
    trials = Trials(rng.normal(size=(len(names), 3)), names)
    scores = np.clip(8 + 6 * trials.scores + 4 * trials.is_target, 0, 15).astype(int)
    first, second = np.triu_indices(systems)
    counts = np.zeros((len(first), 16), np.uint32)
    for row, (a, b) in enumerate(zip(first, second, strict=True)):
        counts[row] = np.bincount(scores[(trials.first == a) & (trials.second == b)], minlength=16)
    intervals = bootstrap_intervals(
        counts, np.arange(len(first)), first, second, samples=SAMPLES, seed=[seed]
    )
    for interval, eers in zip(
        intervals, listed_eers(trials, scores, seed=[seed], samples=SAMPLES), strict=True
    ):
        assert interval == pytest.approx(np.quantile(eers, hesterberg_levels(systems)), abs=1e-6)


def test_accepted_pairs_worked_by_hand():
    """Systems 0 and 1 have blocks of four bins, which become two: a bin holds its own pairs and those above."""
    counts = np.array([[1, 2, 3, 4], [9, 9, 9, 9], [5, 0, 1, 0], [0, 7, 0, 2]], np.uint32)
    first, second = np.array([0, 5, 0, 1]), np.array([0, 5, 1, 1])
    accepted = np.zeros((2, 2, 2), np.float32)
    accumulate_accepted(counts, np.array([0, 2, 3]), first, second, accepted)  # not the second block
    assert accepted.tolist() == [[[10, 6], [7, 1]], [[6, 9], [1, 2]]]
    weights = np.array(
        [2.0, 1.0]
    )  # system 0 is drawn twice, so that the six pairs of both systems count twice
    assert accepted_trials(accepted, weights, -1, 0) == (2 * 10 + 9, 2 * 6)
    assert accepted_trials(accepted, weights, -1, 1) == (2 * 7 + 2, 2 * 1)
    assert accepted_trials(accepted, weights, 0, 1) == (7, 1)
    assert accepted_trials(accepted, weights, 1, 1) == (2, 2 * 1)
    assert accepted_trials(accepted, weights, -1, 2) == (0, 0)


def test_eer_of_resamples_in_the_lowest_bin_worked_by_hand():
    """Bin 1 is accepted with a miss rate of 6/8 and a false-accept rate of 1/4, bin 0 with 0 and 1: they meet at 1/2.

    A resample with one of the two systems has no non-target trial.
    """
    counts, first, second = (
        np.array([[3, 1], [3, 1], [3, 1]], np.uint32),
        np.array([0, 0, 1]),
        np.array([0, 1, 1]),
    )
    micro, macro = resampled_eers(counts, np.arange(3), first, second, samples=40, seed=[0])
    has_both = (np.random.default_rng([0]).multinomial(2, [0.5, 0.5], size=40) == 1).all(axis=1)
    assert 0 < has_both.sum() < 40
    for eers in (micro, macro):
        np.testing.assert_allclose(eers, np.where(has_both, 0.5, np.nan))


def test_interval_of_one_resample_is_its_eer_and_without_resamples_there_is_none():
    """The EER of the test above is 1/2 if both systems are drawn, as with seed 0."""
    counts, blocks = np.full((3, 2), (3, 1), np.uint32), np.arange(3)
    first, second = np.array([0, 0, 1]), np.array([0, 1, 1])
    one, none = (
        bootstrap_intervals(counts, blocks, first, second, samples=samples, seed=[0]) for samples in (1, 0)
    )
    assert one == ((pytest.approx(50), pytest.approx(50)),) * 2
    assert none == (None, None)


@pytest.mark.parametrize(("systems", "bins", "merged"), [(8, 256, 256), (257, 64, 64), (257, 128, 64)])
def test_bins_are_merged_if_the_table_is_too_large_and_to_64_at_least(systems, bins, merged):
    """Eight systems need a table of 64 KiB; 257 need 16.1 MiB for 64 bins, more than the limit of 16 MiB."""
    rng = np.random.default_rng(2)
    first, second = np.triu_indices(systems)
    is_target = first == second
    shape = np.exp(-0.5 * ((np.arange(bins) / bins - np.where(is_target, 0.6, 0.4)[:, None]) / 0.15) ** 2)
    counts = rng.poisson(20 * shape).astype(np.uint32)
    micro, _ = resampled_eers(counts, np.arange(len(first)), first, second, samples=2, seed=[1])
    wide = counts.reshape(len(first), merged, -1).sum(axis=2)
    drawn = np.random.default_rng([1]).multinomial(systems, np.full(systems, 1 / systems), size=2)
    for eer, times in zip(micro, drawn, strict=True):
        weights = np.where(is_target, times[first], times[first] * times[second])
        trials = np.concatenate([weights[kind] @ wide[kind] for kind in (is_target, ~is_target)])
        expected = eer_percent(np.arange(2 * merged) < merged, np.tile(np.arange(merged), 2), trials)
        assert 100 * eer == pytest.approx(expected, abs=1e-6)


def test_intervals_of_a_set_equal_those_of_its_pairs_up_to_binning():
    rng = np.random.default_rng(5)
    names = np.repeat(np.arange(8), 20)
    embeddings = rng.normal(size=(8, 6))[names] + 0.8 * rng.normal(size=(160, 6))
    scores = score_all_pairs(embeddings, names, bootstrap_samples=SAMPLES, seed=3)
    trials = Trials(embeddings, names)
    micro, macro = listed_eers(trials, trials.scores, seed=[3, 0], samples=SAMPLES)
    assert scores.eer_micro_ci95_percent == pytest.approx(np.quantile(micro, hesterberg_levels(8)), abs=0.05)
    assert scores.eer_macro_ci95_percent == pytest.approx(np.quantile(macro, hesterberg_levels(8)), abs=0.05)
    assert scores.eer_micro_ci95_percent[0] < scores.eer_micro_percent < scores.eer_micro_ci95_percent[1]


def test_intervals_depend_on_the_seed_only():
    rng = np.random.default_rng(5)
    names = np.repeat(np.arange(6), 10)
    embeddings = rng.normal(size=(6, 4))[names] + rng.normal(size=(60, 4))
    first, same, other = (
        score_all_pairs(embeddings, names, bootstrap_samples=40, seed=seed) for seed in (1, 1, 2)
    )
    assert first.eer_micro_ci95_percent == same.eer_micro_ci95_percent
    assert first.eer_micro_ci95_percent != other.eer_micro_ci95_percent


def test_stratum_of_one_system_has_no_interval():
    rng = np.random.default_rng(5)
    names, strata = np.array(list("AAABBBCCC")), np.array(list("xxxyyyyyy"))
    scores = score_all_pairs(rng.normal(size=(9, 4)), names, strata, bootstrap_samples=20, seed=0)
    assert scores.strata["x"].eer_micro_percent is None
    assert scores.strata["x"].eer_micro_ci95_percent is None
    assert scores.strata["y"].eer_micro_ci95_percent is not None


def test_interval_without_usable_resample_is_none():
    """With one resample of two systems, seed 3 draws one of them twice: there is no non-target trial."""
    names = np.array(["A", "A", "B", "B"])
    embeddings = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]])
    assert 2 in np.random.default_rng([3, 0]).multinomial(2, [0.5, 0.5], size=1)
    scores = score_all_pairs(embeddings, names, bootstrap_samples=1, seed=3)
    assert scores.eer_micro_percent == 0
    assert scores.eer_micro_ci95_percent is None

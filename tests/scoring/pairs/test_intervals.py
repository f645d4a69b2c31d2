"""Bootstrap intervals over systems, against lists of weighted trials."""

import numpy as np
import pytest
from brute_force import Trials, eer_percent
from hypothesis import given, settings
from hypothesis import strategies as st

from makermark.scoring.pairs import score_all_pairs
from makermark.scoring.pairs.intervals import bootstrap_intervals

SAMPLES = 25


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
        assert interval == pytest.approx(np.quantile(eers, [0.025, 0.975]), abs=1e-6)


def test_intervals_of_a_set_equal_those_of_its_pairs_up_to_binning():
    rng = np.random.default_rng(5)
    names = np.repeat(np.arange(8), 20)
    embeddings = rng.normal(size=(8, 6))[names] + 0.8 * rng.normal(size=(160, 6))
    scores = score_all_pairs(embeddings, names, bootstrap_samples=SAMPLES, seed=3)
    trials = Trials(embeddings, names)
    micro, macro = listed_eers(trials, trials.scores, seed=[3, 0], samples=SAMPLES)
    assert scores.eer_micro_ci95_percent == pytest.approx(np.quantile(micro, [0.025, 0.975]), abs=0.05)
    assert scores.eer_macro_ci95_percent == pytest.approx(np.quantile(macro, [0.025, 0.975]), abs=0.05)
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

"""Calibration and its metrics, against their definitions: costs, affine calibration, pool adjacent violators."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit

from makermark.scoring.calibration import (
    SLOPE_PENALTY,
    cllr,
    empirical_cross_entropy,
    expected_calibration_error,
    fit_calibration,
    min_cllr,
    pav_llrs,
    posterior,
    reliability_bins,
    tippett_curve,
)

RNG = np.random.default_rng(0)
TARGET = np.arange(600) < 150
SCORES = np.where(TARGET, RNG.normal(1.0, 1.0, 600), RNG.normal(-1.0, 1.0, 600))


def cllr_by_definition(llrs, target):
    """Return Cllr trial by trial (Brummer & du Preez 2006)."""
    hits = [math.log2(1 + math.exp(-llr)) for llr, own in zip(llrs, target, strict=True) if own]
    others = [math.log2(1 + math.exp(llr)) for llr, own in zip(llrs, target, strict=True) if not own]
    return (sum(hits) / len(hits) + sum(others) / len(others)) / 2


def test_cllr_worked_by_hand():
    """Targets have LRs of 3 and 1, the non-target 1/3: the mean of (log2(4/3) + log2 2) / 2 and log2(4/3)."""
    llrs, target = np.log([3.0, 1.0, 1 / 3]), np.array([True, True, False])
    expected = ((math.log2(4 / 3) + 1) / 2 + math.log2(4 / 3)) / 2
    assert cllr(llrs, target) == pytest.approx(expected)


def test_cllr_is_one_for_zero_llrs_and_zero_for_perfect_llrs():
    assert cllr(np.zeros(600), TARGET) == pytest.approx(1.0)
    assert cllr(np.where(TARGET, np.inf, -np.inf), TARGET) == 0.0


@given(st.lists(st.tuples(st.floats(-20, 20), st.booleans()), min_size=2, max_size=40))
def test_cllr_equals_its_definition(trials):
    llrs, target = np.array([t[0] for t in trials]), np.array([t[1] for t in trials])
    if target.all() or not target.any():
        with pytest.raises(ValueError, match="needs both"):
            cllr(llrs, target)
        return
    assert cllr(llrs, target) == pytest.approx(cllr_by_definition(llrs, target))
    assert min_cllr(llrs, target) <= cllr(llrs, target) + 1e-9


@pytest.mark.parametrize("prior", [0.5, 0.05])
def test_calibration_minimises_the_cross_entropy_at_its_prior(prior):
    calibration = fit_calibration(SCORES, TARGET, prior=prior)

    def cost(offset, slope):
        return empirical_cross_entropy(offset + slope * SCORES, TARGET, prior=prior)

    best = cost(*calibration)
    assert all(cost(calibration.offset + d, calibration.slope) > best for d in (-0.1, 0.1))
    assert all(cost(calibration.offset, calibration.slope + d) > best for d in (-0.1, 0.1))


def test_calibration_of_two_normals_is_their_log_density_ratio():
    """For N(1, 1) against N(-1, 1), the log of the density ratio is 2 * score."""
    rng = np.random.default_rng(1)
    target = np.arange(40000) < 10000
    calibration = fit_calibration(np.where(target, 1.0, -1.0) + rng.standard_normal(40000), target, prior=0.5)
    assert calibration.slope == pytest.approx(2.0, abs=0.08)
    assert calibration.offset == pytest.approx(0.0, abs=0.08)


def test_calibration_does_not_depend_on_the_share_of_targets():
    """Ten copies of every non-target change the share of targets, but not the meaning of a score."""
    scores = np.concatenate([SCORES, np.tile(SCORES[~TARGET], 9)])
    target = np.concatenate([TARGET, np.zeros(9 * (~TARGET).sum(), dtype=bool)])
    assert fit_calibration(scores, target, prior=0.5) == pytest.approx(
        fit_calibration(SCORES, TARGET, prior=0.5), rel=1e-3
    )


def test_weight_repeats_a_trial():
    counts = RNG.integers(0, 4, 600)
    for metric in (cllr, min_cllr):
        assert metric(SCORES, TARGET, weights=counts) == pytest.approx(
            metric(np.repeat(SCORES, counts), np.repeat(TARGET, counts))
        )


def test_calibration_of_separable_scores_is_finite():
    calibration = fit_calibration(
        np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True]), prior=0.5
    )
    assert np.isfinite(calibration).all()
    assert calibration.slope > 0


@pytest.mark.parametrize("copies", [1, 40])
def test_slope_of_separable_scores_depends_on_the_penalty_and_not_on_the_number_of_trials(copies):
    """Scores -3 and 3 have the spread 3: the slope w of score / 3 minimises log(1 + e^-w) + penalty / 2 * w^2."""
    scores = np.tile([-3.0, 3.0], copies)
    expected = brentq(lambda w: SLOPE_PENALTY * w - expit(-w), 0, 100)
    calibration = fit_calibration(scores, scores > 0, prior=0.5)
    assert 3 * calibration.slope == pytest.approx(expected, rel=1e-3)
    assert calibration.offset == pytest.approx(0, abs=1e-3)


def test_pav_worked_by_hand():
    """Scores 1 2 3 4 are non-target, target, non-target, target: 2 and 3 are pooled and have an LR of 1."""
    target = np.array([False, True, False, True])
    assert pav_llrs(np.array([1.0, 2.0, 3.0, 4.0]), target) == pytest.approx([-np.inf, 0, 0, np.inf])
    assert min_cllr(np.array([1.0, 2.0, 3.0, 4.0]), target) == pytest.approx(0.5)


def test_correct_probabilities_have_no_calibration_error():
    predicted = np.repeat([0.25, 0.75], 4)
    observed = np.array([1, 0, 0, 0, 1, 1, 1, 0], dtype=bool)
    assert expected_calibration_error(predicted, observed) == pytest.approx(0)
    assert expected_calibration_error(predicted, ~observed) == pytest.approx(0.5)
    curve = reliability_bins(predicted, observed)
    assert curve.predicted == pytest.approx([0.25, 0.75])
    assert curve.weight == pytest.approx([4, 4])


def test_tippett_curve_worked_by_hand():
    values, at_least = tippett_curve(np.array([2.0, 1.0, 1.0, -1.0]))
    assert values == pytest.approx([-1, 1, 2])
    assert at_least == pytest.approx([1, 0.75, 0.25])


def test_posterior_odds_are_prior_odds_times_likelihood_ratio():
    assert posterior(np.log([9.0]), prior=0.1) == pytest.approx([0.5])


def test_prior_outside_0_to_1_raises():
    for prior in (0.0, 1.0, 2.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            fit_calibration(SCORES, TARGET, prior=prior)


def pav_by_definition(scores, target, prior):
    """Return isotonic regression by its min-max formula (Barlow et al. 1972, theorem 1.9) over weighted ties."""
    weight = {True: prior / target.sum(), False: (1 - prior) / (~target).sum()}
    values = sorted(set(scores))
    hits = [
        sum(weight[True] for s, own in zip(scores, target, strict=True) if s == v and own) for v in values
    ]
    total = [sum(weight[bool(own)] for s, own in zip(scores, target, strict=True) if s == v) for v in values]
    return [
        max(
            min(sum(hits[low : high + 1]) / sum(total[low : high + 1]) for high in range(at, len(values)))
            for low in range(at + 1)
        )
        for at in map(values.index, scores)
    ]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=12))
def test_pav_equals_its_definition(trials):
    scores, target = np.array([t[0] for t in trials], dtype=float), np.array([t[1] for t in trials])
    if target.all() or not target.any():
        return
    shares = posterior(pav_llrs(scores, target), prior=0.5)
    assert shares == pytest.approx(pav_by_definition(scores.tolist(), target, 0.5), abs=1e-9)


@given(
    st.lists(st.tuples(st.floats(-20, 20), st.booleans()), min_size=2, max_size=40), st.floats(0.001, 0.999)
)
def test_empirical_cross_entropy_equals_its_definition(trials, prior):
    """The reference is equation 5 of Ramos & Gonzalez-Rodriguez 2013, trial by trial, with odds."""
    llrs, target = np.array([t[0] for t in trials]), np.array([t[1] for t in trials])
    if target.all() or not target.any():
        return
    odds = prior / (1 - prior)
    hits = [math.log2(1 + 1 / (math.exp(llr) * odds)) for llr in llrs[target]]
    others = [math.log2(1 + math.exp(llr) * odds) for llr in llrs[~target]]
    expected = prior * sum(hits) / len(hits) + (1 - prior) * sum(others) / len(others)
    assert empirical_cross_entropy(llrs, target, prior=prior) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_reliability_bins_hold_their_lower_edge_and_the_last_one_both():
    """A probability of 1 belongs to the last of the bins, which is closed."""
    curve = reliability_bins(np.array([0.0, 0.1, 0.95, 1.0]), np.array([False, True, True, False]))
    assert curve.predicted == pytest.approx([0.0, 0.1, 0.975])
    assert curve.observed == pytest.approx([0, 1, 0.5])
    assert curve.weight == pytest.approx([1, 1, 2])
    assert reliability_bins(np.array([1.0]), np.array([True]), bins=1).predicted == pytest.approx([1.0])


def test_reliability_counts_of_bins_equal_those_of_a_loop():
    rng = np.random.default_rng(1)
    probabilities = np.r_[rng.uniform(size=500), 0.0, 0.3, 0.7, 1.0]
    observed = rng.uniform(size=504) < 0.5
    curve = reliability_bins(probabilities, observed)
    for number, (low, high) in enumerate(zip(curve.lower, curve.upper, strict=True)):
        inside = [low <= p < high or p == high == 1 for p in probabilities]
        assert curve.trials[number] == sum(inside)
        assert curve.hits[number] == sum(hit for hit, own in zip(observed, inside, strict=True) if own)
    assert curve.trials.sum() == 504


def test_reliability_and_its_error_count_weights():
    """Bins at 0.2 and 0.6 with weights 3 and 1: |0.2 - 1/3| and |0.6 - 1|, averaged 3 to 1."""
    predicted, observed = np.array([0.2, 0.2, 0.6, 0.9]), np.array([True, False, True, True])
    weights = np.array([1.0, 2.0, 1.0, 0.0])
    curve = reliability_bins(predicted, observed, weights=weights)
    assert curve.predicted == pytest.approx([0.2, 0.6])
    assert curve.observed == pytest.approx([1 / 3, 1])
    assert curve.weight == pytest.approx([3, 1])
    expected = (3 * (1 / 3 - 0.2) + 0.4) / 4
    assert expected_calibration_error(predicted, observed, weights=weights) == pytest.approx(expected)

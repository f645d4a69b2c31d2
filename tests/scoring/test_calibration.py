"""Likelihood ratios against the definitions written out: costs, the fitted line, pool adjacent violators."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from makermark.scoring.calibration import (
    cllr,
    empirical_cross_entropy,
    expected_calibration_error,
    fit_line,
    min_cllr,
    pav_llrs,
    posterior,
    reliability,
    tippett,
)

RNG = np.random.default_rng(0)
TARGET = np.arange(600) < 150
SCORES = np.where(TARGET, RNG.normal(1.0, 1.0, 600), RNG.normal(-1.0, 1.0, 600))


def cllr_by_definition(llrs, target):
    hits = [math.log2(1 + math.exp(-llr)) for llr, own in zip(llrs, target, strict=True) if own]
    others = [math.log2(1 + math.exp(llr)) for llr, own in zip(llrs, target, strict=True) if not own]
    return (sum(hits) / len(hits) + sum(others) / len(others)) / 2


def test_cllr_by_hand():
    """LRs of 3 and 1 for targets, 1/3 for the non-target: (log2(4/3) + log2 2) / 2 and log2(4/3), averaged."""
    llrs, target = np.log([3.0, 1.0, 1 / 3]), np.array([True, True, False])
    wanted = ((math.log2(4 / 3) + 1) / 2 + math.log2(4 / 3)) / 2
    assert cllr(llrs, target) == pytest.approx(wanted)


def test_saying_nothing_costs_one_bit_and_certainty_that_is_right_nothing():
    assert cllr(np.zeros(600), TARGET) == pytest.approx(1.0)
    assert cllr(np.where(TARGET, np.inf, -np.inf), TARGET) == 0.0


@given(st.lists(st.tuples(st.floats(-20, 20), st.booleans()), min_size=2, max_size=40))
def test_cllr_is_its_definition(trials):
    llrs, target = np.array([t[0] for t in trials]), np.array([t[1] for t in trials])
    if target.all() or not target.any():
        with pytest.raises(ValueError, match="needs both"):
            cllr(llrs, target)
        return
    assert cllr(llrs, target) == pytest.approx(cllr_by_definition(llrs, target))
    assert min_cllr(llrs, target) <= cllr(llrs, target) + 1e-9


@pytest.mark.parametrize("prior", [0.5, 0.05])
def test_the_line_has_the_least_cross_entropy_at_its_prior(prior):
    line = fit_line(SCORES, TARGET, prior=prior)

    def cost(offset, slope):
        return empirical_cross_entropy(offset + slope * SCORES, TARGET, prior=prior)

    best = cost(*line)
    assert all(cost(line.offset + d, line.slope) > best for d in (-0.1, 0.1))
    assert all(cost(line.offset, line.slope + d) > best for d in (-0.1, 0.1))


def test_two_normals_give_the_line_of_their_densities():
    """For N(1, 1) against N(-1, 1) the log of the ratio of densities is 2 score."""
    rng = np.random.default_rng(1)
    target = np.arange(40000) < 10000
    line = fit_line(np.where(target, 1.0, -1.0) + rng.standard_normal(40000), target, prior=0.5)
    assert line.slope == pytest.approx(2.0, abs=0.08)
    assert line.offset == pytest.approx(0.0, abs=0.08)


def test_the_share_of_targets_does_not_move_the_line():
    """Repeating each non-target ten times changes how many there are, not what a score means."""
    many = np.concatenate([SCORES, np.tile(SCORES[~TARGET], 9)])
    target = np.concatenate([TARGET, np.zeros(9 * (~TARGET).sum(), dtype=bool)])
    assert fit_line(many, target, prior=0.5) == pytest.approx(fit_line(SCORES, TARGET, prior=0.5), rel=1e-3)


def test_a_weight_counts_a_trial_so_many_times():
    times = RNG.integers(0, 4, 600)
    for figure in (cllr, min_cllr):
        assert figure(SCORES, TARGET, weights=times) == pytest.approx(
            figure(np.repeat(SCORES, times), np.repeat(TARGET, times))
        )


def test_scores_that_do_not_overlap_give_finite_ratios():
    line = fit_line(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True]), prior=0.5)
    assert np.isfinite(line).all()
    assert line.slope > 0


def test_pav_by_hand():
    """Scores 1 2 3 4 of non, target, non, target: 2 and 3 pool to one of each, whose ratio is 1."""
    target = np.array([False, True, False, True])
    assert pav_llrs(np.array([1.0, 2.0, 3.0, 4.0]), target) == pytest.approx([-np.inf, 0, 0, np.inf])
    assert min_cllr(np.array([1.0, 2.0, 3.0, 4.0]), target) == pytest.approx(0.5)


def test_probabilities_that_come_true_have_no_error():
    said = np.repeat([0.25, 0.75], 4)
    happened = np.array([1, 0, 0, 0, 1, 1, 1, 0], dtype=bool)
    assert expected_calibration_error(said, happened) == pytest.approx(0)
    assert expected_calibration_error(said, ~happened) == pytest.approx(0.5)
    curve = reliability(said, happened)
    assert curve.said == pytest.approx([0.25, 0.75])
    assert curve.weight == pytest.approx([4, 4])


def test_tippett_by_hand():
    values, at_least = tippett(np.array([2.0, 1.0, 1.0, -1.0]))
    assert values == pytest.approx([-1, 1, 2])
    assert at_least == pytest.approx([1, 0.75, 0.25])


def test_a_posterior_is_the_prior_odds_times_the_ratio():
    assert posterior(np.log([9.0]), prior=0.1) == pytest.approx([0.5])


def test_impossible_priors_are_refused():
    for prior in (0.0, 1.0, 2.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            fit_line(SCORES, TARGET, prior=prior)


def pav_by_definition(scores, target, prior):
    """Isotonic regression by its min-max formula (Barlow et al. 1972, theorem 1.9) over weighted pools of ties."""
    weight = {True: prior / target.sum(), False: (1 - prior) / (~target).sum()}
    values = sorted(set(scores))
    hits = [
        sum(weight[True] for s, own in zip(scores, target, strict=True) if s == v and own) for v in values
    ]
    each = [sum(weight[bool(own)] for s, own in zip(scores, target, strict=True) if s == v) for v in values]
    return [
        max(
            min(sum(hits[low : high + 1]) / sum(each[low : high + 1]) for high in range(at, len(values)))
            for low in range(at + 1)
        )
        for at in map(values.index, scores)
    ]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=12))
def test_pav_is_its_definition(trials):
    scores, target = np.array([t[0] for t in trials], dtype=float), np.array([t[1] for t in trials])
    if target.all() or not target.any():
        return
    shares = posterior(pav_llrs(scores, target), prior=0.5)
    assert shares == pytest.approx(pav_by_definition(scores.tolist(), target, 0.5), abs=1e-9)


@given(
    st.lists(st.tuples(st.floats(-20, 20), st.booleans()), min_size=2, max_size=40), st.floats(0.001, 0.999)
)
def test_empirical_cross_entropy_is_its_definition(trials, prior):
    """Ramos & Gonzalez-Rodriguez 2013, equation 5, trial by trial with odds instead of logits."""
    llrs, target = np.array([t[0] for t in trials]), np.array([t[1] for t in trials])
    if target.all() or not target.any():
        return
    odds = prior / (1 - prior)
    hits = [math.log2(1 + 1 / (math.exp(llr) * odds)) for llr in llrs[target]]
    others = [math.log2(1 + math.exp(llr) * odds) for llr in llrs[~target]]
    wanted = prior * sum(hits) / len(hits) + (1 - prior) * sum(others) / len(others)
    assert empirical_cross_entropy(llrs, target, prior=prior) == pytest.approx(wanted, rel=1e-6, abs=1e-9)

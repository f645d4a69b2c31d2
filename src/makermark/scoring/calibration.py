"""Calibration of scores to log-likelihood ratios, their evaluation, and thresholds with a guarantee.

A log-likelihood ratio (LLR, natural logarithm) states how much more probable a score is under the target hypothesis
(this system made the clip) than under the non-target hypothesis (another system made it).

Axes: N trials, P points of a curve. Optional weights (N,) count a trial several times or not at all, as in a bootstrap;
by default every trial counts once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit
from sklearn.isotonic import isotonic_regression
from sklearn.linear_model import LogisticRegression

from makermark.foundation.arrays import BoolArray, IntArray, RealArray

SLOPE_PENALTY = (
    1e-5  # on the squared slope of standardised scores: the slope stays finite for separable scores
)
LOG2 = float(np.log(2.0))
RELIABILITY_BINS = 10


class AffineCalibration(NamedTuple):
    """Affine map from scores to LLRs: LLR = offset + slope * score."""

    offset: float
    slope: float


class ReliabilityBins(NamedTuple):
    """Predicted probability and observed frequency in the bins of equal width that hold trials, (P,) each."""

    predicted: RealArray  # mean probability
    observed: RealArray  # share of targets
    weight: RealArray  # sum of weights
    trials: IntArray  # number of trials, without weights
    hits: IntArray  # number of them that are targets
    lower: RealArray  # lower edge of the bin
    upper: RealArray  # upper edge of the bin


def fit_calibration(
    scores: RealArray, target: BoolArray, *, prior: float, weights: RealArray | None = None
) -> AffineCalibration:
    """Fit the affine calibration of scores (N,) by prior-weighted logistic regression (Brummer & du Preez 2006).

    The result minimises the cross-entropy of the LLRs at this prior, independent of the share of targets among the
    trials.

    Raises ValueError without trials of both kinds, and for a prior outside (0, 1).
    """
    trial_weights = _balance_weights(target, weights, prior=prior)
    spread = float(np.std(scores)) or 1.0
    model = LogisticRegression(C=1 / (SLOPE_PENALTY * len(scores)), tol=1e-8, max_iter=1000)
    model.fit((scores / spread)[:, None], target, sample_weight=trial_weights * len(scores))
    return AffineCalibration(
        offset=float(model.intercept_[0] - logit(prior)), slope=float(model.coef_[0, 0]) / spread
    )


def pav_llrs(scores: RealArray, target: BoolArray, *, weights: RealArray | None = None) -> RealArray:
    """Return the LLRs (N,) that fit these trials best among all that rise with the scores.

    They are computed by the pool-adjacent-violators algorithm (PAV; Ayer et al. 1955, applied to LLRs by Brummer &
    du Preez 2006). They use the truth of the very trials they score, and are therefore a reference and no calibration.
    They are infinite where only one kind of trial is present.
    """
    trial_weights = _balance_weights(target, weights, prior=0.5)
    values, index = np.unique(scores, return_inverse=True)
    total = np.bincount(index, trial_weights, len(values))
    share = np.bincount(index, trial_weights * target, len(values)) / np.where(total > 0, total, 1)
    has_weight = total > 0
    fitted = np.zeros(len(values))
    fitted[has_weight] = isotonic_regression(
        share[has_weight], sample_weight=total[has_weight], y_min=0, y_max=1
    )
    llrs: RealArray = logit(fitted)[index]
    return llrs


def cllr(llrs: RealArray, target: BoolArray, *, weights: RealArray | None = None) -> float:
    """Return the log-likelihood-ratio cost in bits (Brummer & du Preez 2006).

    Cllr = (mean over targets of log2(1 + 1/LR) + mean over non-targets of log2(1 + LR)) / 2. It is 0 for perfect LLRs
    and 1 for LLRs that are all 0.
    """
    return empirical_cross_entropy(llrs, target, prior=0.5, weights=weights)


def min_cllr(scores: RealArray, target: BoolArray, *, weights: RealArray | None = None) -> float:
    """Return the Cllr after the best monotonic calibration (`pav_llrs`): the loss by discrimination alone."""
    return cllr(pav_llrs(scores, target, weights=weights), target, weights=weights)


def empirical_cross_entropy(
    llrs: RealArray, target: BoolArray, *, prior: float, weights: RealArray | None = None
) -> float:
    """Return the empirical cross-entropy in bits (Ramos & Gonzalez-Rodriguez 2013).

    This is the mean of -log2 of the posterior probability of the true hypothesis, for targets of this prior.
    """
    trial_weights = _balance_weights(target, weights, prior=prior)
    posterior_logit = llrs + logit(prior)
    cost = np.logaddexp(0, np.where(target, -posterior_logit, posterior_logit))
    counted = trial_weights > 0
    return float(np.sum(trial_weights[counted] * cost[counted]) / LOG2)


def posterior(llrs: RealArray, *, prior: float) -> RealArray:
    """Return the posterior probability of the target hypothesis: sigmoid(LLR + logit(prior))."""
    probability: RealArray = expit(llrs + logit(prior))
    return probability


def reliability_bins(
    probabilities: RealArray,
    observed: BoolArray,
    *,
    bins: int = RELIABILITY_BINS,
    weights: RealArray | None = None,
) -> ReliabilityBins:
    """Return predicted probability and observed frequency in `bins` of equal width; empty bins are left out.

    probabilities (N,): predicted. observed (N,): whether the predicted event is true.
    """
    trial_weights = np.ones(len(probabilities)) if weights is None else np.asarray(weights, dtype=np.float64)
    index = bin_index(probabilities, bins=bins)
    total, predicted_sum, observed_sum = (
        np.bincount(index, trial_weights * values, bins).astype(np.float64)
        for values in (np.ones(len(trial_weights)), probabilities, observed)
    )
    filled = np.flatnonzero(total > 0)
    return ReliabilityBins(
        predicted=predicted_sum[filled] / total[filled],
        observed=observed_sum[filled] / total[filled],
        weight=total[filled],
        trials=np.bincount(index, minlength=bins)[filled],
        hits=np.bincount(index[observed], minlength=bins)[filled],
        lower=filled / bins,
        upper=(filled + 1) / bins,
    )


def bin_index(probabilities: RealArray, *, bins: int = RELIABILITY_BINS) -> IntArray:
    """Return the bin (N,) of each probability; a probability of 1 belongs to the last bin."""
    index: IntArray = np.minimum((probabilities * bins).astype(int), bins - 1)
    return index


def expected_calibration_error(
    probabilities: RealArray,
    observed: BoolArray,
    *,
    bins: int = RELIABILITY_BINS,
    weights: RealArray | None = None,
) -> float:
    """Return the mean of |predicted - observed| over the bins of `reliability_bins`, weighted by their trials.

    This is the ECE of Naeini, Cooper & Hauskrecht (2015).
    """
    curve = reliability_bins(probabilities, observed, bins=bins, weights=weights)
    return float(np.average(np.abs(curve.predicted - curve.observed), weights=curve.weight))


def tippett_curve(llrs: RealArray) -> tuple[RealArray, RealArray]:
    """Return (LLRs, share of trials with at least this LLR), (P,) each, for the trials of one kind."""
    values, counts = np.unique(llrs, return_counts=True)
    at_least = np.cumsum(counts[::-1])[::-1] / counts.sum()
    return values, at_least


def accept_threshold(unknown_scores: RealArray, *, rate: float) -> float:
    """Return the lowest threshold such that at most a share `rate` of the scores (N,) of unknown systems exceed it.

    Raises ValueError without scores, and for a rate outside [0, 1).
    """
    if not len(unknown_scores) or not 0 <= rate < 1:
        raise ValueError(
            f"{len(unknown_scores)} scores and rate {rate}; pass at least one score and a rate of 0 or more and below 1"
        )
    allowed = int(np.floor(rate * len(unknown_scores) + 1e-9))
    return float(np.sort(unknown_scores)[::-1][allowed])


def conformal_margin(margins: RealArray, *, coverage: float) -> float:
    """Return the margin of a prediction set, by split conformal prediction (Vovk et al. 2005; Lei et al. 2018, alg. 2).

    margins (N,): best score minus score of the true system, for utterances on which nothing was fitted. The set of all
    systems whose score is within the returned margin of the best contains the true system with a probability of at
    least `coverage`, if new clips are exchangeable with these. The margin is the ceil((N + 1) * coverage)-th smallest
    of `margins`, and infinite if N is too small.

    Raises ValueError for a coverage outside (0, 1).
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage is {coverage}; it must be between 0 and 1, both excluded")
    rank = int(np.ceil((len(margins) + 1) * coverage - 1e-9))
    return float(np.sort(margins)[rank - 1]) if rank <= len(margins) else float("inf")


def _balance_weights(target: BoolArray, weights: RealArray | None, *, prior: float) -> RealArray:
    """Return weights (N,) that sum to `prior` over the targets and to 1 - `prior` over the non-targets."""
    if not 0 < prior < 1:
        raise ValueError(f"prior is {prior}; it must be between 0 and 1, both excluded")
    trial_weights = np.ones(len(target)) if weights is None else np.asarray(weights, dtype=np.float64)
    targets, nontargets = trial_weights[target].sum(), trial_weights[~target].sum()
    if not targets > 0 or not nontargets > 0:
        raise ValueError("no target or no non-target trial; a likelihood ratio needs both kinds")
    balanced: RealArray = np.where(
        target, prior * trial_weights / targets, (1 - prior) * trial_weights / nontargets
    )
    return balanced

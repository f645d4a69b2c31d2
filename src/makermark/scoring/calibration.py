"""From scores to likelihood ratios, and how good such ratios are.

A log-likelihood ratio (LLR, natural logarithm) says how much more probable a score is under one hypothesis (the
target: this system made the clip) than under the other (another did). Legend of axes: N trials, P points of a curve.
Weights (N,) count a trial several times or not at all, as in a bootstrap; none given: each counts once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.isotonic import isotonic_regression
from sklearn.linear_model import LogisticRegression

Numbers = NDArray[np.floating[Any]]
Flags = NDArray[np.bool_]

PENALTY = 1e-5  # on the squared slope of standard scores: keeps it finite where dev's scores do not overlap
LOG2 = float(np.log(2.0))


class Line(NamedTuple):
    """LLR = offset + slope * score."""

    offset: float
    slope: float


class Reliability(NamedTuple):
    """Said against happened, in bins of equal width that hold trials: (P,) each."""

    said: Numbers  # mean probability
    happened: Numbers  # share of targets
    weight: Numbers  # sum of weights


def fit_line(scores: Numbers, target: Flags, *, prior: float, weights: Numbers | None = None) -> Line:
    """Prior-weighted logistic regression (Bruemmer & du Preez 2006): the line whose LLRs have the least cross-entropy
    at this prior, whatever the share of targets among the trials.

    Raises ValueError without trials of both kinds, or for a prior that is not between 0 and 1.
    """
    each = _balanced(target, weights, prior=prior)
    spread = float(np.std(scores)) or 1.0
    model = LogisticRegression(C=1 / (PENALTY * len(scores)), tol=1e-8, max_iter=1000)
    model.fit((scores / spread)[:, None], target, sample_weight=each * len(scores))
    return Line(float(model.intercept_[0] - logit(prior)), float(model.coef_[0, 0]) / spread)


def pav_llrs(scores: Numbers, target: Flags, *, weights: Numbers | None = None) -> Numbers:
    """(N,): the LLRs that rise with the scores and fit these very trials best (pool adjacent violators).

    A reference, not a calibration: it knows the answers. Infinite where only one kind of trial is.
    """
    each = _balanced(target, weights, prior=0.5)
    values, place = np.unique(scores, return_inverse=True)
    total = np.bincount(place, each, len(values))
    share = np.bincount(place, each * target, len(values)) / np.where(total > 0, total, 1)
    heavy = total > 0
    fitted = np.zeros(len(values))
    fitted[heavy] = isotonic_regression(share[heavy], sample_weight=total[heavy], y_min=0, y_max=1)
    llrs: Numbers = logit(fitted)[place]
    return llrs


def cllr(llrs: Numbers, target: Flags, *, weights: Numbers | None = None) -> float:
    """Cost of LLRs in bits (Bruemmer & du Preez 2006): 0 is perfect, 1 is what saying nothing (LLR 0) costs.

    (mean over targets of log2(1 + 1/LR) + mean over non-targets of log2(1 + LR)) / 2.
    """
    return empirical_cross_entropy(llrs, target, prior=0.5, weights=weights)


def min_cllr(scores: Numbers, target: Flags, *, weights: Numbers | None = None) -> float:
    """What Cllr would be were the scores calibrated as well as any rising function can: what telling apart costs."""
    return cllr(pav_llrs(scores, target, weights=weights), target, weights=weights)


def empirical_cross_entropy(
    llrs: Numbers, target: Flags, *, prior: float, weights: Numbers | None = None
) -> float:
    """Bits that are missing about the truth of a trial once its LLR is known, for targets of this prior (Ramos &
    Gonzalez-Rodriguez 2013)."""
    each = _balanced(target, weights, prior=prior)
    posterior_logit = llrs + logit(prior)
    surprise = np.logaddexp(0, np.where(target, -posterior_logit, posterior_logit))
    counted = each > 0
    return float(np.sum(each[counted] * surprise[counted]) / LOG2)


def posterior(llrs: Numbers, *, prior: float) -> Numbers:
    """The probability of the target hypothesis, from the LLR and what was held before."""
    probability: Numbers = expit(llrs + logit(prior))
    return probability


def reliability(
    probabilities: Numbers, happened: Flags, *, bins: int = 10, weights: Numbers | None = None
) -> Reliability:
    """How often what was given a probability came true, in `bins` of equal width; those without trials are left out."""
    each = np.ones(len(probabilities)) if weights is None else np.asarray(weights, dtype=np.float64)
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    total, said, came = (
        np.bincount(place, each * of, bins).astype(np.float64)
        for of in (np.ones(len(each)), probabilities, happened)
    )
    full = total > 0
    return Reliability(said[full] / total[full], came[full] / total[full], total[full])


def expected_calibration_error(
    probabilities: Numbers, happened: Flags, *, bins: int = 10, weights: Numbers | None = None
) -> float:
    """The mean distance between said and happened over the bins of `reliability`, weighted by their trials."""
    curve = reliability(probabilities, happened, bins=bins, weights=weights)
    return float(np.average(np.abs(curve.said - curve.happened), weights=curve.weight))


def tippett(llrs: Numbers) -> tuple[Numbers, Numbers]:
    """(LLRs, share of trials with at least this LLR), (P,) each, for the trials of one kind."""
    values, counts = np.unique(llrs, return_counts=True)
    at_least = np.cumsum(counts[::-1])[::-1] / counts.sum()
    return values, at_least


def _balanced(target: Flags, weights: Numbers | None, *, prior: float) -> Numbers:
    """Weights (N,) that sum to `prior` over targets and to its complement over the others."""
    if not 0 < prior < 1:
        raise ValueError(f"prior is {prior}; it lies between 0 and 1, both excluded")
    each = np.ones(len(target)) if weights is None else np.asarray(weights, dtype=np.float64)
    targets, others = each[target].sum(), each[~target].sum()
    if not targets > 0 or not others > 0:
        raise ValueError("no target or no non-target trial; a likelihood ratio needs both")
    balanced: Numbers = np.where(target, prior * each / targets, (1 - prior) * each / others)
    return balanced

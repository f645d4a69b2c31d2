"""Error rates from counted trials: EER, AUC, minDCF, DET curve and score histogram.

A tally is a pair of arrays: the target and the non-target trials in every score bin, bins ascending. Accepting at bin b
means accepting every trial in bin b or above.

Every EER of makermark is the point where the ROC, drawn with straight lines between neighbouring operating points
(Fawcett 2006), has a miss rate equal to the false-accept rate. Three functions compute this point: `Bracket.eer` from
whole counts of trials, `interpolate_crossing` from arrays of rates, and the compiled `intervals.weighted_eer` from the
weighted counts of a bootstrap. They round differently, so that one function for all would change the last digits of
published figures.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from makermark.foundation.arrays import AnyArray, FloatArray, IntArray, RealArray

DET_POINTS = 400
HISTOGRAM_BINS = 100


@dataclass(frozen=True)
class Bracket:
    """A score interval in which miss rate and false-accept rate cross, with the trials above and inside it.

    Both ends are included. Keys are those of `tiling.scores_to_keys`.
    """

    low_key: int
    high_key: int
    targets_above: int
    nontargets_above: int
    targets_inside: int
    nontargets_inside: int

    def is_exact(self) -> bool:
        """Return whether the ROC is one straight line inside: only one kind of trial, or only one score."""
        return 0 in (self.targets_inside, self.nontargets_inside) or self.low_key == self.high_key

    def eer(self, targets: int, nontargets: int) -> float:
        """Return the EER in [0, 1], where that line meets miss = false accept.

        `targets` and `nontargets` are the trials of the whole curve. With P_fa and P_miss above the bracket, and with
        the shares t of targets and n of non-targets inside it: EER = P_fa + (P_miss - P_fa) / (t + n) * n.
        """
        false_accept = self.nontargets_above / nontargets
        gap = 1 - self.targets_above / targets - false_accept
        slope = self.targets_inside / targets + self.nontargets_inside / nontargets
        return false_accept + gap / slope * (self.nontargets_inside / nontargets)


def crossing_bin(
    targets: AnyArray, nontargets: AnyArray, *, above: tuple[int, int], totals: tuple[int, int]
) -> tuple[int, tuple[int, int]]:
    """Return the bin where miss and false-accept rate cross, and the (target, non-target) trials above it.

    This is the highest bin at which accepting gives a miss rate no higher than the false-accept rate. `above` holds the
    trials above all bins, `totals` those of the whole curve. The comparison uses whole numbers and is therefore exact.
    """
    accepted_targets = above[0] + np.cumsum(targets[::-1])
    accepted_nontargets = above[1] + np.cumsum(nontargets[::-1])

    def is_crossed(k: int) -> bool:
        return (totals[0] - int(accepted_targets[k])) * totals[1] <= int(accepted_nontargets[k]) * totals[0]

    k = bisect_left(range(len(accepted_targets)), True, key=is_crossed)
    before = above if k == 0 else (int(accepted_targets[k - 1]), int(accepted_nontargets[k - 1]))
    return len(accepted_targets) - 1 - k, before


def equal_error_rate(target_scores: RealArray, nontarget_scores: RealArray) -> float:
    """Return the EER, in [0, 1], of target scores (T,) and non-target scores (N,)."""
    totals = (len(target_scores), len(nontarget_scores))
    values, bins = np.unique(np.concatenate([target_scores, nontarget_scores]), return_inverse=True)
    targets, nontargets = (
        np.bincount(bins_of_kind, minlength=len(values)) for bins_of_kind in np.split(bins, [totals[0]])
    )
    k, above = crossing_bin(targets, nontargets, above=(0, 0), totals=totals)
    return Bracket(0, 0, *above, int(targets[k]), int(nontargets[k])).eer(*totals)


def interpolate_crossing(miss: RealArray, false_accept: RealArray) -> float:
    """Return the rate at which a falling miss rate (P,) and a rising false-accept rate (P,) are equal.

    Both rates are interpolated linearly between the operating points before and after the crossing.
    """
    after = int(np.argmax(false_accept >= miss))
    if after == 0:
        return float(false_accept[0])
    (m0, m1), (f0, f1) = miss[after - 1 : after + 1], false_accept[after - 1 : after + 1]
    share = (m0 - f0) / ((m0 - f0) + (f1 - m1))
    return float(m0 + share * (m1 - m0))


def area_under_roc(
    targets: AnyArray, nontargets: AnyArray, *, has_one_score: AnyArray
) -> tuple[float, float]:
    """Return the area under the ROC, and the largest error caused by the bins.

    The area is the probability that a target scores above a non-target, with ties counted half: U / (T N), where U is
    the Mann-Whitney statistic (Hanley & McNeil 1982). It is computed from counts, because scikit-learn needs every
    single trial. Trials in one bin count as ties. They are ties where has_one_score (bins,) is true.
    """
    pairs = float(targets.sum()) * float(nontargets.sum())
    below = np.cumsum(nontargets) - nontargets / 2
    uncertain = np.where(has_one_score, 0, nontargets) / 2
    return float(targets @ below) / pairs, float(targets @ uncertain) / pairs


def min_dcf(
    targets: AnyArray, nontargets: AnyArray, *, has_one_score: AnyArray, p_target: float
) -> tuple[float, float]:
    """Return the minimum detection cost over bin edges, and how much lower the cost may be inside a bin.

    min over t of (p P_miss(t) + (1 - p) P_fa(t)) / min(p, 1 - p), where p is `p_target` and both errors cost 1: the
    normalised detection cost of the NIST speaker recognition evaluations (SRE16 evaluation plan). A
    detector that always gives the cheaper answer has a cost of 1.
    """
    miss, false_accept = miss_and_false_accept(targets, nontargets)
    scale = min(p_target, 1 - p_target)
    least = float(np.min(p_target * miss + (1 - p_target) * false_accept)) / scale
    inside = p_target * miss[:-1] + (1 - p_target) * false_accept[1:]
    bound = float(np.min(inside, initial=np.inf, where=~has_one_score)) / scale
    return least, max(0.0, least - bound)


def miss_and_false_accept(targets: AnyArray, nontargets: AnyArray) -> tuple[FloatArray, FloatArray]:
    """Return miss and false-accept rates (bins + 1,) for accepting from bin 0, 1, ...; the last accepts nothing."""
    miss = np.concatenate([[0], np.cumsum(targets)]) / targets.sum()
    false_accept = np.concatenate([np.cumsum(nontargets[::-1])[::-1], [0]]) / nontargets.sum()
    return miss, false_accept


@dataclass(frozen=True)
class DetCurve:
    """Points (K,) of a detection error trade-off curve (Martin et al. 1997), thresholds ascending.

    A trial is accepted if its score is at or above the threshold.
    """

    threshold: FloatArray
    miss_rate: FloatArray
    false_accept_rate: FloatArray


def det_curve(targets: AnyArray, nontargets: AnyArray, edges: FloatArray) -> DetCurve:
    """Return at most DET_POINTS points, evenly spaced along the curve on logit axes, so that both tails are drawn.

    edges (bins + 1,): the lowest score of every bin, and the upper end of the last. The points that accept everything
    and nothing are left out, because a probit axis cannot show them.
    """
    miss, false_accept = (rate[1:-1] for rate in miss_and_false_accept(targets, nontargets))
    length = np.zeros(len(miss))
    for rate, trials in ((miss, targets.sum()), (false_accept, nontargets.sum())):
        floor = 0.5 / trials
        logit = np.log((rate + floor) / (1 - rate + floor))
        length[1:] += np.cumsum(np.abs(np.diff(logit)))
    positions = np.linspace(0, length[-1], DET_POINTS)
    points = np.unique(np.minimum(np.searchsorted(length, positions), len(length) - 1))
    return DetCurve(edges[1:-1][points], miss[points], false_accept[points])


@dataclass(frozen=True)
class ScoreHistogram:
    """Trials between neighbouring edges (K + 1,); scores beyond the ends are counted in the outermost bins.

    The edges are only about evenly spaced. Plot densities: counts divided by widths.
    """

    edges: FloatArray
    targets: IntArray
    nontargets: IntArray


def score_histogram(targets: AnyArray, nontargets: AnyArray, edges: FloatArray) -> ScoreHistogram:
    """Return a histogram of at most HISTOGRAM_BINS bins, merged from the bins between `edges` (bins + 1,)."""
    positions = np.linspace(edges[0], edges[-1], HISTOGRAM_BINS + 1)[:-1]
    starts = np.unique(np.minimum(np.searchsorted(edges, positions), len(targets) - 1))
    return ScoreHistogram(
        edges=np.append(edges[starts], edges[-1]),
        targets=np.add.reduceat(targets, starts),
        nontargets=np.add.reduceat(nontargets, starts),
    )

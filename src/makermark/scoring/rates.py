"""Error rates from counted trials. A tally is two arrays, the target and the non-target trials in
each score bin, bins ascending; accepting at bin b means accepting every trial in bin b or above.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from makermark.scoring.kernels import Array

DET_POINTS = 400
HISTOGRAM_STEPS = 100


@dataclass(frozen=True)
class Bracket:
    """A score interval in which misses and false accepts cross, and the trials above and inside it.

    Keys are those of `bins.keys_of`, both ends included.
    """

    low_key: int
    high_key: int
    targets_above: int
    nontargets_above: int
    targets_inside: int
    nontargets_inside: int

    def settled(self) -> bool:
        """Whether the ROC is one straight line through the interval: one kind of trial, or one score."""
        return 0 in (self.targets_inside, self.nontargets_inside) or self.low_key == self.high_key

    def eer(self, targets: int, nontargets: int) -> float:
        """The crossing of that line with miss = false accept, for these totals: in [0, 1]."""
        false_accept = self.nontargets_above / nontargets
        gap = 1 - self.targets_above / targets - false_accept
        steeper = self.targets_inside / targets + self.nontargets_inside / nontargets
        return false_accept + gap / steeper * (self.nontargets_inside / nontargets)


def crossing_bin(
    targets: Array, nontargets: Array, *, above: tuple[int, int], totals: tuple[int, int]
) -> tuple[int, tuple[int, int]]:
    """The bin where misses and false accepts cross, and the (target, non-target) trials above that bin.

    That is the highest bin that, accepted, leaves no more misses than false accepts as rates; `above`
    are the trials above all these bins. In whole numbers, so that equality is equality.
    """
    hit = above[0] + np.cumsum(targets[::-1])
    false = above[1] + np.cumsum(nontargets[::-1])

    def crossed(k: int) -> bool:
        return (totals[0] - int(hit[k])) * totals[1] <= int(false[k]) * totals[0]

    k = bisect_left(range(len(hit)), True, key=crossed)
    before = above if k == 0 else (int(hit[k - 1]), int(false[k - 1]))
    return len(hit) - 1 - k, before


def equal_error(target_scores: Array, nontarget_scores: Array) -> float:
    """The EER of two sets of scores, in [0, 1]: where the ROC, straight between neighbouring scores, has as many
    misses as false accepts, as rates."""
    kinds = (len(target_scores), len(nontarget_scores))
    values, bins = np.unique(np.concatenate([target_scores, nontarget_scores]), return_inverse=True)
    targets, nontargets = (
        np.bincount(of_kind, minlength=len(values)) for of_kind in np.split(bins, [kinds[0]])
    )
    place, above = crossing_bin(targets, nontargets, above=(0, 0), totals=kinds)
    return Bracket(0, 0, *above, int(targets[place]), int(nontargets[place])).eer(*kinds)


def area(targets: Array, nontargets: Array, *, one_score: Array) -> tuple[float, float]:
    """Area under the ROC, and the largest error that the bins allow.

    The chance that a target scores above a non-target, a tie counting half (Mann-Whitney U / (T N),
    Hanley & McNeil 1982). Trials that share a bin count as ties, and are if the bin holds but one score:
    one_score (bins,).
    """
    pairs = float(targets.sum()) * float(nontargets.sum())
    below = np.cumsum(nontargets) - nontargets / 2
    doubtful = np.where(one_score, 0, nontargets) / 2
    return float(targets @ below) / pairs, float(targets @ doubtful) / pairs


def min_dcf(targets: Array, nontargets: Array, *, one_score: Array, p_target: float) -> tuple[float, float]:
    """Least detection cost with a bin (or nothing) as threshold, and how much less a score inside one may cost.

    min over t of (p P_miss(t) + (1 - p) P_fa(t)) / min(p, 1 - p), both errors costing 1: the normalised
    detection cost of the NIST speaker recognition evaluations (2016 plan); 1 is what a detector costs
    that always gives the cheaper answer.
    """
    miss, false_accept = miss_and_false_accept(targets, nontargets)
    scale = min(p_target, 1 - p_target)
    least = float(np.min(p_target * miss + (1 - p_target) * false_accept)) / scale
    inside = p_target * miss[:-1] + (1 - p_target) * false_accept[1:]
    bound = float(np.min(inside, initial=np.inf, where=~one_score)) / scale
    return least, max(0.0, least - bound)


def miss_and_false_accept(targets: Array, nontargets: Array) -> tuple[Array, Array]:
    """Rates (bins + 1,) when accepting from bin 0, 1, ... on; the last accepts nothing."""
    miss = np.concatenate([[0], np.cumsum(targets)]) / targets.sum()
    false_accept = np.concatenate([np.cumsum(nontargets[::-1])[::-1], [0]]) / nontargets.sum()
    return miss, false_accept


@dataclass(frozen=True)
class Det:
    """Points of a detection error trade-off curve (Martin et al. 1997), thresholds ascending: (K,) each.

    A trial is accepted if its score is at or above the threshold.
    """

    threshold: Array
    miss_rate: Array
    false_accept_rate: Array


def det(targets: Array, nontargets: Array, edges: Array) -> Det:
    """At most DET_POINTS points, evenly spaced along the curve on logit axes, so that both tails are kept.

    edges (bins + 1,): the scores that the bins start from, and the end of the last. Accepting everything
    and accepting nothing, which no probit axis can show, are left out.
    """
    miss, false_accept = (rate[1:-1] for rate in miss_and_false_accept(targets, nontargets))
    length = np.zeros(len(miss))
    for rate, trials in ((miss, targets.sum()), (false_accept, nontargets.sum())):
        floor = 0.5 / trials
        logit = np.log((rate + floor) / (1 - rate + floor))
        length[1:] += np.cumsum(np.abs(np.diff(logit)))
    places = np.linspace(0, length[-1], DET_POINTS)
    picked = np.unique(np.minimum(np.searchsorted(length, places), len(length) - 1))
    return Det(edges[1:-1][picked], miss[picked], false_accept[picked])


@dataclass(frozen=True)
class Histogram:
    """Trials between neighbouring edges (K + 1,); scores beyond the ends are counted in the end bins.

    Edges are about, not exactly, evenly spaced: plot densities, counts / widths.
    """

    edges: Array
    targets: Array
    nontargets: Array


def histogram(targets: Array, nontargets: Array, edges: Array) -> Histogram:
    """At most HISTOGRAM_STEPS bins, made of whole bins between `edges` (bins + 1,)."""
    wanted = np.linspace(edges[0], edges[-1], HISTOGRAM_STEPS + 1)[:-1]
    picked = np.unique(np.minimum(np.searchsorted(edges[:-1], wanted), len(targets) - 1))
    return Histogram(
        edges=np.append(edges[picked], edges[-1]),
        targets=np.add.reduceat(targets, picked),
        nontargets=np.add.reduceat(nontargets, picked),
    )

"""Open-set metrics: identification of known systems, and how well detector scores separate known from unknown systems.

Known utterances are those of training systems. Identification is the accuracy of naming their system (closed set). A
higher detector score means "known". An utterance is accepted if its score is
at or above the threshold. To add a metric, write its function and add its line to METRICS. The intervals of EERs are in
`scoring.pairs.intervals`, those of a tracer's metrics in `tracing.evaluation`.

Axes: M evaluated utterances (N without detectors), D dimensions, P thresholds, C systems.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from makermark.foundation.arrays import BoolArray, FloatArray, RealArray, StrArray
from makermark.foundation.embeddings import l2_normalise
from makermark.scoring.detectors import DETECTORS, Detector, DetectorInput
from makermark.scoring.pairs.error_rates import interpolate_crossing
from makermark.scoring.pairs.intervals import Interval, quantile_levels

TRUE_ACCEPT_RATE = 0.95  # of FPR95
ROUNDING = 1e-12  # tolerance for a rate that equals TRUE_ACCEPT_RATE

COSINE_SCALE = 10.0  # factor for cosines to centroids that a softmax or an energy takes as logits


@dataclass(frozen=True)
class IdentificationMetrics:
    """Accuracy over the utterances of known systems, and the means over systems of recall and of F1."""

    accuracy_percent: float
    balanced_accuracy_percent: float
    macro_f1_percent: float
    utterances: int
    systems: int


def system_centroids(embeddings: RealArray, systems: StrArray) -> tuple[StrArray, RealArray]:
    """Return the system names (C,) and their L2-normalised centroids (C, D) of L2-normalised embeddings (N, D)."""
    names, column = np.unique(systems, return_inverse=True)
    sums = np.zeros((len(names), embeddings.shape[1]))
    np.add.at(sums, column, l2_normalise(embeddings))
    return names, l2_normalise(sums)


def centroid_logits(embeddings: RealArray, centroids: RealArray) -> RealArray:
    """Return COSINE_SCALE times the cosine to every centroid, (N, C), for models without a classifier."""
    return np.asarray(COSINE_SCALE * (l2_normalise(embeddings) @ centroids.T))


def compute_identification_metrics(
    logits: RealArray, systems: Sequence[str] | StrArray, true_systems: StrArray
) -> IdentificationMetrics | None:
    """Compare the system with the largest logit (N, C), over `systems` (C,), with the true systems (N,).

    Utterances of systems outside `systems` are left out. Returns None if no utterance is left.
    """
    from sklearn.metrics import f1_score, recall_score

    known = np.isin(true_systems, systems)
    if not known.any():
        return None
    predicted = np.asarray(systems, dtype=str)[logits[known].argmax(axis=1)]
    true = true_systems[known]
    present = np.unique(true)
    macro = {"labels": present, "average": "macro", "zero_division": 0.0}
    return IdentificationMetrics(
        accuracy_percent=100 * float(np.mean(predicted == true)),
        balanced_accuracy_percent=100 * float(recall_score(true, predicted, **macro)),
        macro_f1_percent=100 * float(f1_score(true, predicted, **macro)),
        utterances=int(known.sum()),
        systems=len(present),
    )


@dataclass(frozen=True)
class AcceptanceRates:
    """Rates (P + 1,) from the threshold that accepts nothing down to the threshold that accepts everything."""

    known: RealArray  # share of the known utterances that are accepted
    correct: RealArray  # share of the known utterances that are accepted and correctly identified
    unknown: RealArray  # share of the unknown utterances that are accepted


@dataclass(frozen=True)
class OpenSetTrials:
    """Scores (M,) of one detector, whether every utterance is known, and whether it is correctly identified."""

    scores: RealArray
    is_known: BoolArray
    is_correct: BoolArray

    @cached_property
    def rates(self) -> AcceptanceRates:
        """The rates at every distinct score, in falling order.

        One pass gives the three rates; scikit-learn's roc_curve gives only `known` and `unknown`.
        """
        order = np.argsort(-self.scores, kind="stable")
        last = np.append(
            np.flatnonzero(np.diff(self.scores[order])), len(self.scores) - 1
        )  # of every run of ties

        def share(accepted: BoolArray, among: BoolArray) -> RealArray:
            return np.append(0, np.cumsum(accepted[order])[last]) / np.count_nonzero(among)

        known, correct = self.is_known, self.is_known & self.is_correct
        return AcceptanceRates(share(known, known), share(correct, known), share(~known, ~known))


def auroc(trials: OpenSetTrials) -> float:
    """Return the probability that a known utterance scores above an unknown one, with ties counted half."""
    from sklearn.metrics import auc

    return float(auc(trials.rates.unknown, trials.rates.known))


def aupr_known(trials: OpenSetTrials) -> float:
    """Return the average precision with the known utterances as the positive class."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(trials.is_known, trials.scores))


def aupr_unknown(trials: OpenSetTrials) -> float:
    """Return the average precision with the unknown utterances as the positive class."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(~trials.is_known, -trials.scores))


def fpr95(trials: OpenSetTrials) -> float:
    """Return the share of unknown utterances accepted at the highest threshold that accepts 95 % of the known ones."""
    first = np.argmax(trials.rates.known >= TRUE_ACCEPT_RATE - ROUNDING)
    return float(trials.rates.unknown[first])


def eer(trials: OpenSetTrials) -> float:
    """Return the rate at which rejected known and accepted unknown utterances are equal shares, interpolated."""
    return interpolate_crossing(1 - trials.rates.known, trials.rates.unknown)


def oscr(trials: OpenSetTrials) -> float:
    """Return the area under the open-set classification rate curve (Dhamija et al. 2018).

    The curve shows the share of known utterances that are accepted and correctly identified against the share of
    unknown utterances that are accepted.
    """
    from sklearn.metrics import auc

    return float(auc(trials.rates.unknown, trials.rates.correct))


def eerc(trials: OpenSetTrials) -> float:
    """Return the EER in which a known utterance is a miss unless it is accepted *and* correctly identified.

    This is makermark's definition: the crossing of 1 - (correct classification rate) and false-positive rate, the axes
    of OSCR.
    """
    return interpolate_crossing(1 - trials.rates.correct, trials.rates.unknown)


Metric = Callable[[OpenSetTrials], float]

METRICS: dict[str, Metric] = {  # in [0, 1]; metrics/score.json holds `<name>_percent`
    "auroc": auroc,
    "aupr_known": aupr_known,
    "aupr_unknown": aupr_unknown,
    "fpr95": fpr95,
    "eer": eer,
    "oscr": oscr,
    "eerc": eerc,
}
METRICS_WITH_INTERVAL = ("auroc", "fpr95")


def evaluate_detectors(
    train: DetectorInput,
    evaluated: DetectorInput,
    *,
    bootstrap_samples: int,
    seed: int,
    detectors: Mapping[str, Detector] = DETECTORS,
) -> tuple[dict[str, Any], dict[str, AcceptanceRates]]:
    """Return the metrics of every detector as JSON values, with the counts of utterances, and the acceptance rates.

    The rates are empty unless there are known and unknown utterances.
    """
    systems = np.unique(train.systems)
    is_known = np.isin(evaluated.systems, systems)
    is_correct = systems[evaluated.logits.argmax(axis=1)] == evaluated.systems
    metrics: dict[str, Any] = {
        "known_utterances": int(is_known.sum()),
        "unknown_utterances": int((~is_known).sum()),
    }
    rates = {}
    for name, detector in detectors.items():
        trials = OpenSetTrials(detector(train, evaluated), is_known, is_correct)
        metrics[name] = compute_open_set_metrics(
            trials, evaluated.systems, bootstrap_samples=bootstrap_samples, seed=seed
        )
        if is_known.any() and not is_known.all():
            rates[name] = trials.rates
    return metrics, rates


def compute_open_set_metrics(
    trials: OpenSetTrials, systems: StrArray, *, bootstrap_samples: int, seed: int
) -> dict[str, Any]:
    """Return METRICS in percent as JSON values, with 95 % intervals for METRICS_WITH_INTERVAL.

    All values are None if known or unknown utterances are missing. The intervals come from a bootstrap over the systems
    (M,), because utterances of one system are not independent.
    """
    has_both = trials.is_known.any() and not trials.is_known.all()
    intervals: dict[str, Interval | None] = dict.fromkeys(METRICS_WITH_INTERVAL)
    if has_both:
        bounds = _bootstrap_intervals(
            trials.scores, trials.is_known, systems, samples=bootstrap_samples, seed=seed
        )
        intervals = dict(zip(METRICS_WITH_INTERVAL, bounds, strict=True))
    values: dict[str, Any] = {}
    for name, metric in METRICS.items():
        values[f"{name}_percent"] = 100 * metric(trials) if has_both else None
        if name in intervals:
            interval = intervals[name]
            values[f"{name}_ci95_percent"] = list(interval) if interval else None
    return values


def _bootstrap_intervals(
    scores: RealArray, is_known: BoolArray, systems: StrArray, *, samples: int, seed: int
) -> tuple[Interval | None, Interval | None]:
    """Return the 95 % intervals of AUROC and FPR95, in percent, from resampled systems.

    A resample only weights counts per system that are made once. scikit-learn would sort all utterances again for every
    resample. The quantile levels are those of the smaller group, the known or the unknown systems, because both metrics
    compare two groups and the smaller one determines most of their variance. The intervals are None if that group has
    one system.
    """
    names, column = np.unique(systems, return_inverse=True)
    smaller_group = min(len(np.unique(column[group])) for group in (is_known, ~is_known))
    if smaller_group < 2:
        return None, None
    rng = np.random.default_rng([seed, 1])
    weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=samples).astype(
        np.float64
    )
    _, rank = np.unique(-scores, return_inverse=True)  # (M,) among the P distinct scores, falling
    counts = np.zeros((2, rank.max() + 1, len(names)))
    np.add.at(counts, ((~is_known).astype(np.intp), rank, column), 1)
    accepted_known, accepted_unknown = counts.cumsum(axis=1)  # (P, C) each: at or above every score
    weights = weights[(weights @ accepted_known[-1] > 0) & (weights @ accepted_unknown[-1] > 0)]
    if not len(weights):
        return None, None
    below = accepted_unknown[-1] - accepted_unknown + counts[1] / 2  # a tie counts half
    known_total, unknown_total = weights @ accepted_known[-1], weights @ accepted_unknown[-1]
    aurocs = np.einsum("dk,ku,du->d", weights, counts[0].T @ below, weights, optimize=True) / (
        known_total * unknown_total
    )
    first = _first_row_reaching(accepted_known, weights, (TRUE_ACCEPT_RATE - ROUNDING) * known_total)
    fprs = np.einsum("dc,dc->d", accepted_unknown[first], weights) / unknown_total
    levels = quantile_levels(smaller_group)
    (auroc_low, fpr_low), (auroc_high, fpr_high) = 100 * np.quantile([aurocs, fprs], levels, axis=1)
    return (float(auroc_low), float(auroc_high)), (float(fpr_low), float(fpr_high))


def _first_row_reaching(rising: FloatArray, weights: FloatArray, minimum: FloatArray) -> NDArray[np.intp]:
    """Return (R,): the first row of `rising` (P, C) whose sum weighted by `weights` (R, C) reaches `minimum` (R,)."""
    low, high = np.zeros(len(weights), np.intp), np.full(len(weights), len(rising) - 1)
    while (low < high).any():
        middle = (low + high) // 2
        reached = np.einsum("dc,dc->d", rising[middle], weights) >= minimum
        low, high = np.where(reached, low, middle + 1), np.where(reached, middle, high)
    return low

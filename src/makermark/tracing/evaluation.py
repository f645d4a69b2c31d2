"""Evaluation of a calibrated tracer on test: conclusions, open-set detection, calibration, comparison of clips.

Confidence intervals are of 95 %, by a bootstrap over systems: systems are resampled, not clips, because the clips of
one system are not independent. The intervals of EERs are in `scoring.pairs`, those of AUROC and FPR95 in
`scoring.open_set_metrics`. Legend of axes: N clips, S systems of the gallery.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from makermark.foundation.arrays import BoolArray, FloatArray, StrArray
from makermark.scoring.calibration import (
    ReliabilityBins,
    bin_index,
    cllr,
    expected_calibration_error,
    min_cllr,
    reliability_bins,
)
from makermark.scoring.open_set_metrics import OpenSetTrials, compute_open_set_metrics
from makermark.scoring.pairs.intervals import MIN_INTERVAL_SYSTEMS, quantile_levels
from makermark.tracing.bundle import WHOLE_UTTERANCE, ClipSet
from makermark.tracing.decision import FAMILY, LOG10, ONE_SYSTEM, TOO_LITTLE_SPEECH, UNKNOWN, Decisions
from makermark.tracing.tracer import Tracer

OUTCOMES = ("correct", "family", "wrong", "unknown", "too_little")
WeightedMetric = Callable[[FloatArray], float | None]  # takes weights (N,); may raise ValueError


def evaluate_tracer(tracer: Tracer, test: ClipSet, *, bootstrap_samples: int, seed: int) -> dict[str, Any]:
    """Return the metrics of `evaluate_clips` for each length, under names such as `4s`, and under `whole`."""
    lengths = {f"{seconds:g}s": seconds for seconds in test.lengths} | {"whole": WHOLE_UTTERANCE}
    return {
        name: evaluate_clips(tracer, test.of_length(seconds), bootstrap_samples=bootstrap_samples, seed=seed)
        for name, seconds in lengths.items()
    }


def evaluate_clips(tracer: Tracer, clips: ClipSet, *, bootstrap_samples: int, seed: int) -> dict[str, Any]:
    """Return metrics on clips of one length, with 95 % intervals under NAME_ci95.

    `seen` clips are of systems in the gallery. A metric is None if the clips do not allow it.
    """
    names = np.array(tracer.gallery.systems, dtype=str)
    decisions = tracer.decide(clips.embeddings, clips.speech_seconds)
    target = clips.systems[:, None] == names
    seen = target.any(axis=1)
    correct = names[decisions.llrs.argmax(axis=1)] == clips.systems
    metrics = _clip_metrics(tracer, clips, decisions, target, correct)
    with_intervals = bootstrap_over_systems(metrics, clips.systems, samples=bootstrap_samples, seed=seed)
    detection = compute_open_set_metrics(
        OpenSetTrials(decisions.llrs.max(axis=1), seen, correct),
        clips.systems,
        bootstrap_samples=bootstrap_samples,
        seed=seed,
    )
    return {
        "seen_clips": int(seen.sum()),
        "unseen_clips": int((~seen).sum()),
        "seen_systems": len(set(clips.systems[seen])),
        "unseen_systems": len(set(clips.systems[~seen])),
        "median_speech_s": float(np.median(clips.rows["speech_seconds"])),
        "candidates_mean": float(decisions.in_set[seen].sum(axis=1).mean()) if seen.any() else None,
        **with_intervals,
        "auroc_percent": detection["auroc_percent"],
        "auroc_percent_ci95": detection["auroc_ci95_percent"],
        "fpr95_percent": detection["fpr95_percent"],
        "fpr95_percent_ci95": detection["fpr95_ci95_percent"],
    }


def evaluate_bonafide(tracer: Tracer, clips: ClipSet | None) -> dict[str, Any] | None:
    """Return what the tracer says of human speech, by clip length as in `evaluate_tracer`; None without such clips.

    - clips: number of clips
    - named_percent: share of clips of which a system or a family is named; each is wrong
    - too_little_percent: share of clips with too little speech
    - ratio_above_1_percent: share of clips whose largest likelihood ratio is above 1, which is misleading evidence
    - largest_log10_lr: the largest of all
    """
    if clips is None:
        return None
    lengths = {f"{seconds:g}s": seconds for seconds in clips.lengths} | {"whole": WHOLE_UTTERANCE}
    results: dict[str, Any] = {}
    for name, seconds in lengths.items():
        part = clips.of_length(seconds)
        decisions = tracer.decide(part.embeddings, part.speech_seconds)
        top = tracer.calibration.limit(decisions.llrs.max(axis=1)) / LOG10
        outcomes = np.array(decisions.conclusions)
        results[name] = {
            "clips": len(top),
            "named_percent": 100 * float(np.isin(outcomes, (ONE_SYSTEM, FAMILY)).mean()),
            "too_little_percent": 100 * float((outcomes == TOO_LITTLE_SPEECH).mean()),
            "ratio_above_1_percent": 100 * float((top > 0).mean()),
            "largest_log10_lr": float(top.max()),
        }
    return results


def _clip_metrics(
    tracer: Tracer, clips: ClipSet, decisions: Decisions, target: BoolArray, correct: BoolArray
) -> dict[str, WeightedMetric]:
    seen: BoolArray = np.logical_or.reduce(target, axis=1)
    covered: BoolArray = np.logical_or.reduce(decisions.in_set & target, axis=1)
    outcomes = classify_outcomes(decisions, clips)
    llrs = tracer.calibration.limit(decisions.llrs)

    def error_percent(weights: FloatArray) -> float | None:
        probability, correct, clip_weights = _top_posteriors(
            decisions, target, tracer.settings.prior_known, weights
        )
        return 100 * expected_calibration_error(probability, correct, weights=clip_weights)

    metrics: dict[str, WeightedMetric] = {
        "identification_percent": WeightedPercent(correct, seen),
        "coverage_percent": WeightedPercent(covered, seen),
        "cllr": trial_metric(cllr, llrs, target),
        "min_cllr": trial_metric(min_cllr, llrs, target),
        "posterior_error_percent": error_percent,
    }
    for group, among in {"seen": seen, "unseen": ~seen}.items():
        for outcome in OUTCOMES:
            metrics[f"{group}_{outcome}_percent"] = WeightedPercent(outcomes == outcome, among)
    return metrics


def trial_metric(metric: Callable[..., float], llrs: FloatArray, target: BoolArray) -> WeightedMetric:
    """Return `metric` (such as Cllr) of all trials of clips against systems (N, S) as a function of clip weights.

    Its value is None if no target trial has a weight.
    """

    def weighted(weights: FloatArray) -> float | None:
        trial_weights = np.broadcast_to(weights[:, None], target.shape).ravel()
        if not trial_weights[target.ravel()].any():
            return None
        return metric(llrs.ravel(), target.ravel(), weights=trial_weights)

    return weighted


def classify_outcomes(decisions: Decisions, clips: ClipSet) -> StrArray:
    """Return one of OUTCOMES for each clip, (N,).

    correct: the true system is named; family: its family is named; wrong: another system or family is named.
    """
    true_families = clips.rows["family"].fillna("").to_numpy(dtype=str)
    outcomes = []
    for conclusion, name, system, family in zip(
        decisions.conclusions, decisions.names, clips.systems, true_families, strict=True
    ):
        if conclusion == TOO_LITTLE_SPEECH:
            outcomes.append("too_little")
        elif conclusion == UNKNOWN:
            outcomes.append("unknown")
        elif conclusion == ONE_SYSTEM:
            outcomes.append("correct" if name == system else "wrong")
        else:
            is_family = conclusion == FAMILY and name == (family or system)
            outcomes.append("family" if is_family else "wrong")
    return np.array(outcomes, dtype=str)


def _top_posteriors(
    decisions: Decisions, target: BoolArray, prior_known: float, weights: FloatArray
) -> tuple[FloatArray, BoolArray, FloatArray]:
    """Return for each clip (N,): the top posterior (unknown system included), whether it is correct, and its weight.

    The weights are scaled so that clips of known systems have a share of `prior_known`. Raises ValueError without
    clips of known and of unknown systems.
    """
    posteriors = np.concatenate([decisions.posteriors, decisions.posterior_unknown[:, None]], axis=1)
    seen: BoolArray = np.asarray(target.any(axis=1))
    truth: BoolArray = np.concatenate([target, ~seen[:, None]], axis=1)
    known, unknown = weights[seen].sum(), weights[~seen].sum()
    if not known or not unknown:
        raise ValueError("top posteriors need clips of known and of unknown systems")
    clip_weights = weights * np.where(seen, prior_known / known, (1 - prior_known) / unknown)
    clips, top = np.arange(len(target)), posteriors.argmax(axis=1)
    return posteriors[clips, top], np.asarray(truth[clips, top]), clip_weights


def system_trials(tracer: Tracer, test: ClipSet) -> tuple[FloatArray, BoolArray]:
    """Return the LLRs (N S,) of all whole utterances against all systems, and whether a trial is a target trial."""
    whole = test.of_length(WHOLE_UTTERANCE)
    decisions = tracer.decide(whole.embeddings, whole.speech_seconds)
    target = whole.systems[:, None] == np.array(tracer.gallery.systems, dtype=str)
    return tracer.calibration.limit(decisions.llrs).ravel(), target.ravel()


class ReliabilityCurve(NamedTuple):
    """Reliability of the top posterior of clips of one length.

    - interval_percent (P, 2): 95 % interval of the observed share in each bin, by a bootstrap over systems; NaN for a
      bin with clips of fewer than MIN_INTERVAL_SYSTEMS systems
    """

    bins: ReliabilityBins
    interval_percent: FloatArray


def reliability_curves(
    tracer: Tracer, test: ClipSet, *, bootstrap_samples: int, seed: int
) -> dict[str, ReliabilityCurve]:
    """Return the reliability of the top posterior for each length, under names such as `4 s`."""
    curves = {}
    for seconds in test.lengths:
        clips = test.of_length(seconds)
        decisions = tracer.decide(clips.embeddings, clips.speech_seconds)
        target = clips.systems[:, None] == np.array(tracer.gallery.systems, dtype=str)
        probability, correct, weights = _top_posteriors(
            decisions, target, tracer.settings.prior_known, np.ones(len(target))
        )
        bins = reliability_bins(probability, correct, weights=weights)
        intervals = _bin_intervals(
            probability, correct, weights, clips.systems, samples=bootstrap_samples, seed=seed
        )
        curves[f"{seconds:g} s"] = ReliabilityCurve(bins, intervals)
    return curves


def _bin_intervals(
    probability: FloatArray,
    correct: BoolArray,
    weights: FloatArray,
    systems: StrArray,
    *,
    samples: int,
    seed: int,
) -> FloatArray:
    """Return the interval (P, 2) of the observed share in every bin with clips, in percent.

    A bootstrap sample multiplies `weights` (N,) by the number of times that the system was drawn.
    """
    index = bin_index(probability)
    numbers = np.unique(index[weights > 0]).tolist()

    shares = {str(number): WeightedPercent(correct, index == number, weights) for number in numbers}
    results = bootstrap_over_systems(shares, systems, samples=samples, seed=seed)
    intervals = np.full((len(numbers), 2), np.nan)
    for row, number in enumerate(numbers):
        interval = results[f"{number}_ci95"]
        if interval and len(set(systems[index == number])) >= MIN_INTERVAL_SYSTEMS:
            intervals[row] = interval
    return intervals


def evaluate_comparison(
    tracer: Tracer, test: ClipSet, *, bootstrap_samples: int, seed: int
) -> dict[str, Any]:
    """Return Cllr over all pairs of clips of a length without a common utterance, for each length of test."""
    return {
        f"{seconds:g}s": _evaluate_pairs(
            tracer, test.of_length(seconds), bootstrap_samples=bootstrap_samples, seed=seed
        )
        for seconds in test.lengths
    }


def _evaluate_pairs(tracer: Tracer, clips: ClipSet, *, bootstrap_samples: int, seed: int) -> dict[str, Any]:
    first, second = clips.disjoint_pairs()
    cosines, same_system = clips.pair_trials()
    speech = clips.speech_seconds
    llrs = tracer.pair_llrs(cosines, np.minimum(speech[first], speech[second]))

    def weighted_cllr(weights: FloatArray) -> float:
        # A pair of one system is drawn with that system, a pair of two systems with both.
        pair_weights = np.where(same_system, weights[first], weights[first] * weights[second])
        return cllr(llrs, same_system, weights=pair_weights)

    with_interval = bootstrap_over_systems(
        {"cllr": weighted_cllr}, clips.systems, samples=bootstrap_samples, seed=seed
    )
    return {
        "pairs": len(same_system),
        "same_system_pairs": int(same_system.sum()),
        **with_interval,
        "min_cllr": min_cllr(llrs, same_system),
    }


def bootstrap_over_systems(
    metrics: Mapping[str, WeightedMetric], systems: StrArray, *, samples: int, seed: int
) -> dict[str, Any]:
    """Return each metric under its name, and its 95 % interval under NAME_ci95.

    `systems` (N,) is the system of each clip. A metric that is None, or raises ValueError, cannot be computed: the
    value is then None, and such a bootstrap sample is omitted from the interval. The interval is the expanded
    percentile interval (`scoring.pairs.intervals.quantile_levels`) of the systems on which the metric depends: those of
    its clips for a WeightedPercent, all for other metrics. With one such system it is None.
    """
    names, column = np.unique(systems, return_inverse=True)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=samples)
    results: dict[str, Any] = {}
    for name, metric in metrics.items():
        results[name] = _evaluate(metric, np.ones(len(systems)))
        resampled = [_evaluate(metric, counts[column].astype(np.float64)) for counts in draws]
        values = [value for value in resampled if value is not None]
        among = metric.among if isinstance(metric, WeightedPercent) else np.full(len(systems), True)
        count = len(set(systems[among]))
        has_interval = values and count > 1
        results[f"{name}_ci95"] = (
            np.quantile(values, quantile_levels(count)).tolist() if has_interval else None
        )
    return results


def _evaluate(metric: WeightedMetric, weights: FloatArray) -> float | None:
    try:
        return metric(weights)
    except ValueError:  # a bootstrap sample without trials of both kinds
        return None


@dataclass(frozen=True, eq=False)
class WeightedPercent:
    """The metric that is the weighted percentage of `flags` (N,) among the clips of `among` (N,).

    Its value is None if no such clip has a weight. `prior_weights` (N,) are further weights of the clips.
    """

    flags: BoolArray
    among: BoolArray
    prior_weights: FloatArray | None = None

    def __call__(self, weights: FloatArray) -> float | None:
        if self.prior_weights is not None:
            weights = weights * self.prior_weights
        total = weights[self.among].sum()
        return 100 * float(weights[self.among & self.flags].sum() / total) if total else None


def weighted_mean(values: FloatArray) -> WeightedMetric:
    """Return the metric that is the weighted mean of `values` (N,)."""
    return lambda weights: float(np.average(values, weights=weights))

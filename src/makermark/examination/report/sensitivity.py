"""Sensitivity of a conclusion to the priors, the thresholds, the candidates and the amount of speech."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from makermark.foundation.embeddings import l2_normalise
from makermark.tracing import Tracer
from makermark.tracing.bundle import ClipSet
from makermark.tracing.calibration import MARGIN_WEIGHT, FalseAccepts
from makermark.tracing.decision import Conclusion, Decisions
from makermark.tracing.evaluation import OUTCOMES, classify_outcomes
from makermark.tracing.extractor import ClipEmbedding

PRIORS = (0.01, 0.1, 0.5, 0.9, 0.99)
FALSE_ACCEPT_RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
COVERAGES = (0.8, 0.9, 0.95, 0.99)
ODDS_STEP = 1e-4  # relative step below and above the odds at which the conclusion is expected to change


@dataclass(frozen=True)
class SettingResult:
    """Conclusion with one setting at `value`; `is_current` marks the value of this report."""

    value: float
    conclusion: Conclusion
    name: str
    is_current: bool


@dataclass(frozen=True)
class LengthResult:
    """Outcomes at one length of clips, in percent, for systems in the gallery and for systems outside it.

    correct: the true system is named; family: its family is named; unnamed: nothing is named; wrong: all else. The
    values of a kind of systems are None without clips of that kind.
    """

    speech_s: float
    known_clips: int
    correct_percent: float | None
    family_percent: float | None
    unnamed_percent: float | None
    wrong_percent: float | None
    outside_clips: int
    outside_family_percent: float | None
    outside_unnamed_percent: float | None
    outside_wrong_percent: float | None


@dataclass(frozen=True)
class Sensitivity:
    """Sensitivity of a conclusion.

    Thresholds are cosines: every conclusion compares cosines with them, while likelihood ratios are limited to the
    range that dev supports, which a threshold may exceed.

    - threshold: cosine above which the top-scoring system can be named at this amount of speech, if the cosine to its
      nearest rival is as it is
    - false_accepts, false_accepts_speech_s: how well dev determines that threshold, and the amount of speech of the
      length of dev's clips nearest to this clip, at which it is measured; None if dev has no unknown systems
    - runner_up_threshold: cosine from which the runner-up is a candidate too; -inf if it always is
    - critical_prior: the prior at which the conclusion changes; None if no prior changes it
    - lengths, lengths_from: outcomes on `test`, or on `dev` if the tracer has no metrics on test
    """

    best: str
    runner_up: str
    best_cosine: float
    threshold: float
    false_accepts: FalseAccepts | None
    false_accepts_speech_s: float
    runner_up_cosine: float | None
    runner_up_threshold: float | None
    critical_prior: float | None
    priors: list[SettingResult]
    false_accept_rates: list[SettingResult]
    coverages: list[SettingResult]
    lengths: list[LengthResult]
    lengths_from: str


def analyse_sensitivity(tracer: Tracer, clip: ClipEmbedding) -> Sensitivity:
    """Return the sensitivity of the conclusion on a clip; every conclusion is recomputed with `Tracer.decide`."""
    speech = np.array([clip.speech_s])
    decisions = _decide(tracer, clip)
    llrs = decisions.llrs[0]
    order = np.argsort(-llrs, kind="stable")
    systems, calibration, settings = tracer.gallery.systems, tracer.calibration, tracer.settings
    cosines = np.asarray(l2_normalise(clip.embedding[None]) @ calibration.centroids.T)[0]
    offset, slope, thresholds = (
        calibration.interpolate(values, speech)[0]
        for values in (calibration.offset, calibration.slope, calibration.system_threshold)
    )
    margin = float(calibration.interpolate(calibration.margin, speech)[0])

    def to_cosine(llr: float, index: int) -> float | None:
        """Return the cosine at which a system has an LLR; None if its LLR does not rise with the cosine."""
        return float((llr - offset[index]) / slope[index]) if slope[index] > 0 and not np.isnan(llr) else None

    # With the rival as it is, a step of the cosine changes the naming score by 1 + MARGIN_WEIGHT of it.
    missing = float(thresholds[order[0]] - decisions.naming_scores[0, order[0]])
    best, runner_up = int(order[0]), int(order[1]) if len(order) > 1 else None
    false_accepts, false_accepts_speech_s = tracer.measure_threshold(best, clip.speech_s)
    return Sensitivity(
        best=systems[best],
        runner_up=systems[runner_up] if runner_up is not None else "",
        best_cosine=float(cosines[best]),
        threshold=float(cosines[best]) + missing / (1 + MARGIN_WEIGHT),
        false_accepts=false_accepts,
        false_accepts_speech_s=false_accepts_speech_s,
        runner_up_cosine=float(cosines[runner_up]) if runner_up is not None else None,
        runner_up_threshold=to_cosine(float(llrs[best]) - margin, runner_up)
        if runner_up is not None
        else None,
        critical_prior=find_critical_prior(tracer, clip),
        priors=_vary(tracer, clip, "prior_known", PRIORS, settings.prior_known),
        false_accept_rates=_vary(
            tracer, clip, "false_accept_rate", FALSE_ACCEPT_RATES, settings.false_accept_rate
        ),
        coverages=_vary(tracer, clip, "conformal_coverage", COVERAGES, settings.conformal_coverage),
        lengths=outcomes_on_test(tracer)
        or [_evaluate_length(tracer, clips) for clips in tracer.dev_by_length],
        lengths_from="test" if tracer.test_metrics else "dev",
    )


def find_critical_prior(tracer: Tracer, clip: ClipEmbedding) -> float | None:
    """Return the prior at which the conclusion changes to or from `unknown system`; None if there is none.

    A system is named only if the candidates together are more probable than an unknown system. With posteriors p_s of
    the candidates and u of an unknown system at prior odds o, both sides are equal at the odds o u / sum p_s.
    """
    prior = tracer.settings.prior_known
    decisions = _decide(tracer, clip)
    candidates = np.where(decisions.in_set[0], decisions.posteriors[0], 0).sum()
    odds = prior / (1 - prior) * decisions.posterior_unknown[0] / max(candidates, np.finfo(float).tiny)
    below, above = (float(step / (1 + step)) for step in (odds * (1 - ODDS_STEP), odds * (1 + ODDS_STEP)))
    if not 0 < below <= above < 1:
        return None  # the prior cannot be represented as a number
    conclusions = {
        _decide(tracer.with_settings(prior_known=value), clip).conclusions[0] for value in (below, above)
    }
    return float(odds / (1 + odds)) if len(conclusions) == 2 else None


def _decide(tracer: Tracer, clip: ClipEmbedding) -> Decisions:
    return tracer.decide(clip.embedding[None], np.array([clip.speech_s]))


def _vary(
    tracer: Tracer, clip: ClipEmbedding, setting: str, values: Sequence[float], current: float
) -> list[SettingResult]:
    """Return the conclusions with one setting at each of `values` and at its current value, in ascending order."""
    results = []
    for value in sorted({*values, current}):
        decisions = _decide(tracer.with_settings(**{setting: value}), clip)
        results.append(SettingResult(value, decisions.conclusions[0], decisions.names[0], value == current))
    return results


def _evaluate_length(tracer: Tracer, clips: ClipSet) -> LengthResult:
    known = np.isin(clips.systems, tracer.gallery.systems)
    outcomes = classify_outcomes(tracer.decide(clips.embeddings, clips.speech_seconds), clips)
    metrics: dict[str, Any] = {
        f"{group}_{outcome}_percent": 100 * float(np.mean(outcomes[among] == outcome))
        if among.any()
        else None
        for group, among in {"seen": known, "unseen": ~known}.items()
        for outcome in OUTCOMES
    }
    metrics |= {
        "median_speech_s": float(np.median(clips.speech_seconds)),
        "seen_clips": int(known.sum()),
        "unseen_clips": int((~known).sum()),
    }
    return _length_result(metrics)


def outcomes_on_test(tracer: Tracer) -> list[LengthResult]:
    """Return the outcomes that were measured on test, by ascending length; empty if they are not recorded."""
    lengths = [metrics for name, metrics in tracer.test_metrics.items() if name != "whole"]
    return [_length_result(metrics) for metrics in lengths]


def _length_result(metrics: Mapping[str, Any]) -> LengthResult:
    """Return the outcomes from the metrics of `evaluate_clips` at one length."""

    def unnamed(group: str) -> float | None:
        parts = [metrics[f"{group}_{outcome}_percent"] for outcome in ("unknown", "too_little")]
        return None if None in parts else float(sum(parts))

    return LengthResult(
        speech_s=metrics["median_speech_s"],
        known_clips=metrics["seen_clips"],
        correct_percent=metrics["seen_correct_percent"],
        family_percent=metrics["seen_family_percent"],
        unnamed_percent=unnamed("seen"),
        wrong_percent=metrics["seen_wrong_percent"],
        outside_clips=metrics["unseen_clips"],
        outside_family_percent=metrics["unseen_family_percent"],
        outside_unnamed_percent=unnamed("unseen"),
        outside_wrong_percent=metrics["unseen_wrong_percent"],
    )

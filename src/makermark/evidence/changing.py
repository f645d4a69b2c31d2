"""What would change a verdict: other priors, other promises, another candidate, more speech."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from makermark.tracing import Tracer
from makermark.tracing.measuring import outcomes
from makermark.tracing.tracer import Heard
from makermark.tracing.verdict import LOG10, Kind

PRIORS = (0.01, 0.1, 0.5, 0.9, 0.99)
FALSE_ACCEPT_RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
COVERAGES = (0.8, 0.9, 0.95, 0.99)
BESIDE = 1e-4  # of the odds, on either side of where a verdict is thought to turn


@dataclass(frozen=True)
class Said:
    """The verdict with one setting at another value; `stated`: the value that the report is made with."""

    value: float
    verdict: Kind
    name: str
    stated: bool


@dataclass(frozen=True)
class AtLength:
    """What became of dev's clips by systems of the gallery, in percent: named right, their family named, not named,
    named wrong."""

    speech_s: float
    clips: int
    right_percent: float
    family_percent: float
    unnamed_percent: float
    wrong_percent: float


@dataclass(frozen=True)
class Changes:
    """What the verdict hangs on. Ratios are log10, not bounded by what dev can vouch for.

    - best_log10: of the nearest system; needed_log10: what it must exceed to be named at this length of speech
    - behind_log10: how far the runner-up lies behind; margin_log10: within which both stay candidates (may be infinite)
    - turns_at_prior: the prior at which the verdict changes; None where no prior changes it
    """

    best: str
    runner_up: str
    best_log10: float
    needed_log10: float
    behind_log10: float | None
    margin_log10: float
    turns_at_prior: float | None
    priors: list[Said]
    false_accept_rates: list[Said]
    coverages: list[Said]
    lengths: list[AtLength]


def changes(tracer: Tracer, heard: Heard) -> Changes:
    """Everything is decided anew, by the code that decides."""
    speech = np.array([heard.speech_s])
    told = tracer.decide(heard.vector[None], speech)
    order = np.argsort(-told.llrs[0], kind="stable")
    systems, calibrated, s = tracer.gallery.systems, tracer.calibrated, tracer.settings
    behind = float(told.llrs[0, order[0]] - told.llrs[0, order[1]]) / LOG10 if len(order) > 1 else None
    return Changes(
        best=systems[order[0]],
        runner_up=systems[order[1]] if len(order) > 1 else "",
        best_log10=float(told.llrs[0, order[0]]) / LOG10,
        needed_log10=float(calibrated.at(calibrated.system_above, speech)[0, order[0]]) / LOG10,
        behind_log10=behind,
        margin_log10=float(calibrated.at(calibrated.margin, speech)[0]) / LOG10,
        turns_at_prior=turning_prior(tracer, heard),
        priors=_said(tracer, heard, "prior_known", PRIORS, s.prior_known),
        false_accept_rates=_said(tracer, heard, "false_accept_rate", FALSE_ACCEPT_RATES, s.false_accept_rate),
        coverages=_said(tracer, heard, "conformal_coverage", COVERAGES, s.conformal_coverage),
        lengths=_lengths(tracer),
    )


def turning_prior(tracer: Tracer, heard: Heard) -> float | None:
    """The prior at which naming a maker turns into `unknown system`, or the reverse; None where none does.

    A maker is named only where the candidates together are more probable than none of the gallery: posteriors p_s of
    the candidates and u of none, at prior odds o, are as sum p_s = u at the odds o u / sum p_s.
    """
    speech, prior = np.array([heard.speech_s]), tracer.settings.prior_known
    told = tracer.decide(heard.vector[None], speech)
    named = np.where(told.in_set[0], told.posteriors[0], 0).sum()
    odds = prior / (1 - prior) * told.unknown[0] / max(named, np.finfo(float).tiny)
    beside = [float(each / (1 + each)) for each in (odds * (1 - BESIDE), odds * (1 + BESIDE))]
    if not 0 < beside[0] <= beside[1] < 1:
        return None  # so far out that no prior says it
    others = [tracer.with_settings(prior_known=each) for each in beside]
    kinds = {other.decide(heard.vector[None], speech).kinds[0] for other in others}
    return float(odds / (1 + odds)) if len(kinds) == 2 else None


def _said(tracer: Tracer, heard: Heard, name: str, values: Sequence[float], stated: float) -> list[Said]:
    found = []
    for value in sorted({*values, stated}):
        told = tracer.with_settings(**{name: value}).decide(heard.vector[None], np.array([heard.speech_s]))
        found.append(Said(value, told.kinds[0], told.names[0], value == stated))
    return found


def _lengths(tracer: Tracer) -> list[AtLength]:
    found = []
    for part in tracer.dev:
        known = np.isin(part.systems, tracer.gallery.systems)
        speech = part.rows["speech_seconds"].to_numpy(dtype=np.float64)
        outcome = outcomes(tracer, tracer.decide(part.vectors, speech), part)[known]
        share = {kind: 100 * float(np.mean(outcome == kind)) for kind in ("correct", "family", "wrong")}
        found.append(
            AtLength(
                speech_s=float(np.median(speech)),
                clips=len(outcome),
                right_percent=share["correct"],
                family_percent=share["family"],
                unnamed_percent=100 - sum(share.values()),
                wrong_percent=share["wrong"],
            )
        )
    return found

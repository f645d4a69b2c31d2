"""Sentences of the report, in the terms of the ENFSI guideline for evaluative reporting (2015)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from makermark.examination.attribution.clip_explanation import Explanation
from makermark.examination.report.collect import ReportData
from makermark.tracing.decision import (
    FAMILY,
    ONE_SYSTEM,
    TOO_LITTLE_SPEECH,
    UNKNOWN,
    Trace,
    format_ratio,
)
from makermark.tracing.gallery import TRAINED

LOW_AGREEMENT = 0.5
OTHERS = "another system of the development data"
DELETED_SHARE = 0.1  # of all cells
# Verbal scale of the ENFSI guideline: upper limits of log10 of the likelihood ratio
VERBAL_SCALE = ((0.301, "no"), (1, "weak"), (2, "moderate"), (3, "moderately strong"), (4, "strong"))
TOP_OF_SCALE = "very strong"


def describe_conclusion(trace: Trace) -> str:
    """Return the conclusion as a sentence."""
    return {
        ONE_SYSTEM: f"Among the systems of the gallery, the clip is attributed to {trace.name}.",
        FAMILY: f"The clip is attributed to the family “{trace.name}”, but not to one system of it.",
        UNKNOWN: "The clip is not attributed to any system of the gallery.",
        TOO_LITTLE_SPEECH: "The clip has too little speech for a conclusion.",
    }[trace.conclusion]


def explain_conclusion(trace: Trace) -> str:
    """Return what the conclusion means and what it does not mean."""
    return {
        ONE_SYSTEM: "The clip is more similar to this system than most clips of unknown systems of the development "
        "data are, and no other system is comparably similar. "
        "This is not proof: a system that is not in the gallery may sound the same.",
        FAMILY: "Either several systems of this family are equally similar, or the clip is of a system of this family "
        "that is not in the gallery.",
        UNKNOWN: "This does not mean that the system is new. Clips of known systems often get this conclusion, above "
        "all short clips.",
        TOO_LITTLE_SPEECH: "The figures below are shown for completeness. Do not draw conclusions from them.",
    }[trace.conclusion]


def describe_support(log10_lr: float) -> str:
    """Return the support for a system on the verbal scale of the ENFSI guideline."""
    size = abs(log10_lr)
    word = next((name for limit, name in VERBAL_SCALE if size < limit), TOP_OF_SCALE)
    if word == "no":
        return "no support for or against it"
    return f"{word} support {'for' if log10_lr > 0 else 'against'} it"


def describe_top_ratio(report: ReportData) -> str:
    """Return the meaning of the largest likelihood ratio as sentences."""
    best = report.trace.candidates[0]
    others = f"{OTHERS} or a person" if report.human_clips else OTHERS
    text = format_ratio(best.log10_lr, at_bound=best.at_bound)
    if best.log10_lr >= 0:
        factor, first, second = text.removesuffix(" to 1"), best.system, others
    else:
        factor, first, second = text.split()[-1], others, best.system
    absent = "Systems" if report.human_clips else "Human speech and systems"
    return (
        f"The likelihood ratio “{text}” for {best.system} means: the findings are {factor} times more probable if "
        f"{first} made the clip than if {second} made it. {absent} unlike those of the development data are "
        "not among the alternatives: a clip of them can get a ratio above 1."
    )


def describe_threshold(report: ReportData) -> str:
    """Return the threshold for naming the top-scoring system, and what it promises, as sentences."""
    sensitivity, rate = report.sensitivity, 100 * report.settings["false_accept_rate"]
    text = (
        f"to be named with this amount of speech, {sensitivity.best} needs a cosine above {sensitivity.threshold:.3f}, "
        f"if the other cosines are as they are; the clip has {sensitivity.best_cosine:.3f}."
    )
    rates = sensitivity.false_accepts
    if rates is None:
        return (
            f"{text} The threshold is a quantile on dev: at most {rate:g} % of dev’s clips exceed it when their own "
            "system is left out of the gallery. Dev has no unknown systems, so nothing is known about them."
        )
    people = f", nor more than {rate:g} % of the clips of human speech" if report.human_clips else ""
    clips = f"{rates.clips} clip{'s' if rates.clips != 1 else ''}"
    systems = f"{rates.systems} unknown system{'s' if rates.systems != 1 else ''}"
    text += (
        f" The threshold is a quantile on dev: at most {rate:g} % of the {clips} by {systems} exceed it there"
        f"{people}. It does not promise this rate for other systems. At {sensitivity.false_accepts_speech_s:.1f} s of "
        f"speech, the nearest length on dev, {rates.above} of the {clips} exceed it, so the rate may be "
        f"{rates.interval[0]:.1f} to {rates.interval[1]:.1f} % (95 % interval for independent clips; clips of one "
        f"system are not independent)."
    )
    if rates.left_out_mean is not None:
        text += (
            f" If one of these systems at a time is left out when the threshold is set, {rates.left_out_mean:.0f} % of "
            f"its clips exceed it on average, and {rates.left_out_max:.0f} % for the worst system."
        )
    return text


def describe_deletion(explanation: Explanation) -> str:
    """Return the result of the deletion test as a sentence."""
    deletion = explanation.deletion
    index = int(np.searchsorted(deletion.shares, DELETED_SHARE))
    return (
        f"Deletion test: without the {100 * deletion.shares[index]:.0f}\u00a0% of cells that support the system most, "
        f"the similarity (a cosine) changes from {explanation.cosine:.2f} to {deletion.attributed[index]:.2f}; with as "
        f"many cells deleted elsewhere, to {deletion.moved[:, index].mean():.2f} on average."
    )


def list_cautions(report: ReportData) -> Iterator[str]:
    """Yield warnings that apply to this clip."""
    trace, clip = report.trace, report.clip
    if clip.in_corpus:
        yield (
            f"This file is an utterance of the corpus that the model was made from ({clip.in_corpus}). The conclusion "
            "on it is not an independent result."
        )
    if len(trace.makers_along_time) > 1:
        yield (
            f"Windows of the file are attributed to different systems: {', '.join(trace.makers_along_time)}. The file "
            "may be put together from several sources; see “Results over time”."
        )
    elif trace.agreement is not None and trace.agreement < LOW_AGREEMENT:
        yield (
            f"Only {100 * trace.agreement:.0f} % of the windows have the top-scoring system of the whole file. Listen "
            "to the file; see “Results over time”."
        )
    enrolled = {neighbour.system for neighbour in report.neighbours if neighbour.origin != TRAINED}
    if trace.name in enrolled:
        yield (
            f"{trace.name} was enrolled from a few clips. Its likelihood ratios are less reliable than those of "
            "training systems."
        )

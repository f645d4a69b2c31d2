"""Verdicts in plain words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from makermark.evidence.gathering import Evidence
from makermark.tracing.explaining import Explanation
from makermark.tracing.verdict import FAMILY, ONE, TOO_LITTLE, UNKNOWN, Trace, ratio

LOW_AGREEMENT = 0.5
DELETED = 0.1  # of all moments and bands
# ENFSI guideline for evaluative reporting in forensic science (2015), from log10 of a ratio
STRENGTHS = ((0.301, "no"), (1, "weak"), (2, "moderate"), (3, "moderately strong"), (4, "strong"))
STRONGEST = "very strong"


def headline(told: Trace) -> str:
    """The verdict in one sentence."""
    return {
        ONE: f"Of the systems known here, {told.name} made it, as far as can be told.",
        FAMILY: f"A system of the kind “{told.name}” made it, as far as can be told; which one cannot be said.",
        UNKNOWN: "None of the systems known here can be named as the maker.",
        TOO_LITTLE: "There is too little speech to say anything.",
    }[told.verdict]


def meaning(told: Trace) -> str:
    """What the verdict says, and what it does not."""
    return {
        ONE: "It is closer to this system than clips by makers that are not known come, and no other system is near. "
        "That is no proof: a maker that nobody enrolled may sound the same.",
        FAMILY: "It is of this kind, but either several of its systems are equally near, or it is none of those known.",
        UNKNOWN: "This does not say that the maker is new: clips by systems that are known often end here, short ones "
        "above all.",
        TOO_LITTLE: "The figures below are printed for completeness. Nothing should be concluded from them.",
    }[told.verdict]


def strength(log10_lr: float) -> str:
    """The support that a ratio gives on the verbal scale of the ENFSI."""
    size = abs(log10_lr)
    word = next((name for limit, name in STRENGTHS if size < limit), STRONGEST)
    if word == "no":
        return "none either way"
    return f"{word}, {'for' if log10_lr > 0 else 'against'} it"


def times(log10_factor: float) -> str:
    """A factor that dev does not vouch for beyond some size: `14`, `over 10,000`."""
    if log10_factor > 4:
        return "over 10,000"
    return ratio(log10_factor, at_bound=False).removesuffix(" to 1")


def largest(told: Trace) -> str:
    """What the largest ratio says, in a sentence."""
    best = told.candidates[0]
    said = ratio(best.log10_lr, at_bound=best.at_bound)
    if best.log10_lr >= 0:
        size, first, second = said.removesuffix(" to 1"), best.system, "another system"
    else:
        size, first, second = said.split()[-1], "another system", best.system
    return (
        f"“{said}” for {best.system}: a clip that sounds like this is {size} times as probable if {first} made it as "
        f"if {second} did."
    )


def checked(told: Explanation) -> str:
    """Whether what speaks for a system matters, in a sentence."""
    deleted = told.deletion
    place = int(np.searchsorted(deleted.shares, DELETED))
    return (
        f"A check: with the {100 * deleted.shares[place]:.0f}\u00a0% deleted that speak most for it, the likeness "
        f"(a cosine) goes from {told.cosine:.2f} to {deleted.attributed[place]:.2f}; with as much deleted elsewhere, "
        f"to {deleted.moved[:, place].mean():.2f} on average."
    )


def cautions(evidence: Evidence) -> Iterator[str]:
    """What a reader of this very report must know first."""
    told, clip = evidence.trace, evidence.clip
    if clip.in_corpus:
        yield (
            f"This very file is an utterance of the corpus that the model was made from ({clip.in_corpus}). Its "
            "verdict shows nothing new."
        )
    if len(told.makers_along_time) > 1:
        yield (
            f"Stretches of the file are by different makers: {', '.join(told.makers_along_time)}. It may have been put "
            "together; see “Along time”."
        )
    elif told.agreement is not None and told.agreement < LOW_AGREEMENT:
        yield (
            f"Only {100 * told.agreement:.0f} % of the stretches of the file agree with the verdict on the whole: "
            "listen to it; see “Along time”."
        )
    enrolled = {near.system for near in evidence.neighbours if near.origin != "train"}
    if told.name in enrolled:
        yield (
            f"{told.name} was enrolled from a few clips: its ratios are less reliable than those of systems of the "
            "training set."
        )

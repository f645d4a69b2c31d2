"""What is said of a clip: candidates with ratios and probabilities, and one of four verdicts.

Legend of axes: N clips, S systems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from makermark.tracing.calibrating import Calibrated

Numbers = NDArray[np.floating[Any]]
Kind = Literal["one system", "a family", "unknown system", "too little speech to say"]

ONE, FAMILY, UNKNOWN, TOO_LITTLE = "one system", "a family", "unknown system", "too little speech to say"
LOG10 = float(np.log(10.0))


@dataclass(frozen=True)
class Candidate:
    """One system of the gallery, beside all others.

    - log10_lr: of this system against any other maker, no larger than dev can vouch for
    - at_bound: whether it would have been larger, or smaller
    - posterior: the probability of this system, given the clip and the stated prior
    - in_set: whether it is one of the candidates among which the maker is, with the stated coverage, if the gallery
      has it
    """

    system: str
    family: str
    cosine: float
    log10_lr: float
    at_bound: bool
    posterior: float
    in_set: bool


@dataclass(frozen=True)
class Window:
    """A stretch of a long file, in seconds, and what is said of it alone."""

    start_s: float
    end_s: float
    verdict: str
    name: str
    best: str
    log10_lr: float


@dataclass(frozen=True)
class Trace:
    """What `Tracer.trace` answers. `name` is the system or the family where one is named, else empty.

    - posterior_unknown: that none of the gallery made it
    - agreement: share of the windows with enough speech whose best system is that of the whole; None for a short file
    - makers_along_time: systems that windows name on their own; two or more suggest that the file was put together
    """

    file: str
    duration_s: float
    speech_s: float
    verdict: Kind
    name: str
    reason: str
    posterior_unknown: float
    prior_known: float
    coverage: float
    candidates: list[Candidate]
    agreement: float | None = None
    makers_along_time: list[str] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    model_sha256: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Decisions:
    """Of N clips: LLRs and posteriors (N, S), posterior of none of these (N,), candidate sets (N, S), verdicts and the
    names that they give (N,)."""

    llrs: Numbers
    posteriors: Numbers
    unknown: Numbers
    in_set: NDArray[np.bool_]
    kinds: list[Kind]
    names: list[str]
    reasons: list[str]


def decide(
    cosines: Numbers,
    speech_seconds: Numbers,
    *,
    calibrated: Calibrated,
    systems: Sequence[str],
    families: Sequence[str],
    prior_known: float,
    min_speech_seconds: float,
) -> Decisions:
    """Judge clips by their cosines (N, S) to the systems.

    A system is named where its LLR exceeds what keeps unknown systems out and no other system is within the margin; a
    family, where all within the margin are of one and the LLR exceeds what keeps other families out. Neither is named
    where none of the gallery is more probable than those within the margin, at the stated prior.
    """
    llrs = calibrated.llrs(cosines, speech_seconds)
    best = llrs.max(axis=1)
    posteriors, unknown = posteriors_of(llrs, calibrated=calibrated, prior_known=prior_known)
    in_set = llrs >= (best - calibrated.at(calibrated.margin, speech_seconds))[:, None]
    rows, whose = np.arange(len(llrs)), llrs.argmax(axis=1)
    system_above = calibrated.at(calibrated.system_above, speech_seconds)[rows, whose]
    family_above = calibrated.at(calibrated.family_above, speech_seconds)[rows, whose]
    likely = np.where(in_set, posteriors, 0).sum(axis=1) > unknown
    said = [
        _verdict(
            [systems[int(place)] for place in np.flatnonzero(in_set[clip])],
            sorted({families[int(place)] for place in np.flatnonzero(in_set[clip])}),
            system=bool(best[clip] > system_above[clip]),
            family=bool(best[clip] > family_above[clip]),
            likely=bool(likely[clip]),
            speech=bool(speech_seconds[clip] >= min_speech_seconds),
        )
        for clip in range(len(best))
    ]
    kinds, names, reasons = ([each[part] for each in said] for part in range(3))
    return Decisions(llrs, posteriors, unknown, in_set, kinds, names, reasons)  # type: ignore[arg-type]


def posteriors_of(llrs: Numbers, *, calibrated: Calibrated, prior_known: float) -> tuple[Numbers, Numbers]:
    """(N, S) and (N,): the probability of each system and of none, which share 1.

    Each LLR is read as one against the unknown; all are lowered together where the largest is beyond what dev can
    vouch for. The systems of the gallery share `prior_known` alike.
    """
    excess = np.maximum(llrs.max(axis=1, keepdims=True) - calibrated.highest, 0)
    known = llrs - excess + np.log(prior_known / llrs.shape[1])
    unknown = np.full((len(llrs), 1), np.log1p(-prior_known))
    logs = np.concatenate([known, unknown], axis=1)
    shares = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
    return shares[:, :-1], shares[:, -1]


def _verdict(
    candidates: list[str], families: list[str], *, system: bool, family: bool, likely: bool, speech: bool
) -> tuple[str, str, str]:
    if not speech:
        return TOO_LITTLE, "", "less speech than the smallest amount that anything was learned for"
    if (system or family) and not likely:
        return UNKNOWN, "", "that none of the gallery made it is more probable, at the stated prior"
    if system and len(candidates) == 1:
        return ONE, candidates[0], "closer to it than unknown systems come, and no other is near"
    if family and len(families) == 1:
        if system:
            return FAMILY, families[0], f"{', '.join(candidates)} cannot be told apart here"
        return FAMILY, families[0], "of this kind, but as far from its known systems as unknown ones are"
    if system or family:
        return UNKNOWN, "", f"candidates of several families cannot be told apart: {', '.join(candidates)}"
    return (
        UNKNOWN,
        "",
        f"no known system is closer than unknown ones come; the nearest is {candidates[0]}"
        if len(candidates) == 1
        else "no known system is closer than unknown ones come",
    )


def candidates_of(
    decisions: Decisions,
    clip: int,
    cosines: Numbers,
    *,
    calibrated: Calibrated,
    systems: Sequence[str],
    families: Sequence[str],
) -> list[Candidate]:
    """Every system of the gallery for one clip, the likeliest first."""
    llrs = decisions.llrs[clip]
    bounded = calibrated.bounded(llrs)
    return [
        Candidate(
            system=systems[place],
            family=families[place],
            cosine=float(cosines[clip, place]),
            log10_lr=float(bounded[place] / LOG10),
            at_bound=bool(bounded[place] != llrs[place]),
            posterior=float(decisions.posteriors[clip, place]),
            in_set=bool(decisions.in_set[clip, place]),
        )
        for place in np.argsort(-llrs, kind="stable")
    ]


def ratio(log10_lr: float, *, at_bound: bool) -> str:
    """A likelihood ratio as people read it: `240 to 1`, or `1 to 52`; `over`, `under` where dev vouches no further."""
    size = 10 ** abs(log10_lr)
    said = f"{size:.0f}" if size >= 9.5 else f"{size:.1f}"
    beyond = ("over " if log10_lr > 0 else "under ") if at_bound else ""
    return f"{beyond}{said} to 1" if log10_lr >= 0 else f"{beyond}1 to {said}"

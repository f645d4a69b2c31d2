"""Decision rule: from the cosines of a clip to one of four conclusions, and the results of tracing.

Legend of axes: N clips, S systems.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import numpy as np
from scipy.special import expit, logit, softmax

from makermark.foundation.arrays import BoolArray, FloatArray
from makermark.tracing.calibration import GalleryCalibration, naming_scores

Conclusion = Literal["one system", "a family", "unknown system", "too little speech to say"]

ONE_SYSTEM: Final = "one system"
FAMILY: Final = "a family"
UNKNOWN: Final = "unknown system"
TOO_LITTLE_SPEECH: Final = "too little speech to say"
LOG10 = float(np.log(10.0))  # log10(x) = ln(x) / LOG10


@dataclass(frozen=True)
class Candidate:
    """One system of the gallery and its score for a clip.

    - log10_lr: likelihood ratio of this system against the other systems of dev, limited to the range that dev supports
    - at_bound: whether the limit was applied
    - posterior: probability of this system, given the clip and the stated prior; None unless a system or family is
      named, because the threshold for naming, and not the posterior, then decided
    - in_set: whether the system is in the conformal candidate set; this set contains the true system with the stated
      coverage, if the true system is in the gallery
    """

    system: str
    family: str
    cosine: float
    log10_lr: float
    at_bound: bool
    posterior: float | None
    in_set: bool


@dataclass(frozen=True)
class Window:
    """A segment of a long file and the assessment of that segment alone.

    - best, log10_lr: top-scoring system and its likelihood ratio
    """

    start_s: float
    end_s: float
    conclusion: Conclusion
    name: str
    best: str
    log10_lr: float
    verdict: str = ""  # always equal to `conclusion`; kept for programs that read this JSON key

    def __post_init__(self) -> None:
        object.__setattr__(self, "verdict", self.conclusion)


@dataclass(frozen=True)
class Trace:
    """Result of `Tracer.trace`.

    - name: the system or family that the conclusion names, else empty
    - posterior_unknown: probability that no system of the gallery made the clip; None unless a system or family is
      named
    - candidates: all systems of the gallery, the most likely first
    - agreement: share of windows with enough speech whose top-scoring system is that of the whole file; None for a
      short file
    - makers_along_time: systems named by single windows; two or more suggest that the file was put together
    - sha256, decoder: of the file; empty for samples
    - notes: what is unusual about the file, such as a header that states another duration
    """

    file: str
    duration_s: float
    speech_s: float
    conclusion: Conclusion
    name: str
    reason: str
    posterior_unknown: float | None
    prior_known: float
    coverage: float
    candidates: list[Candidate]
    agreement: float | None = None
    makers_along_time: list[str] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    model_sha256: str = ""
    sha256: str = ""
    decoder: str = ""
    notes: list[str] = field(default_factory=list)
    verdict: str = ""  # always equal to `conclusion`; kept for programs that read this JSON key

    def __post_init__(self) -> None:
        object.__setattr__(self, "verdict", self.conclusion)

    def as_json(self) -> dict[str, Any]:
        """Return the fields as values that JSON can hold."""
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """Result of `Tracer.compare`: did one system or did two systems make the two clips?

    - log10_lr: likelihood ratio of one system against two, limited to the range that dev supports
    - at_bound: whether the limit was applied
    - posterior_same: probability of one system at the stated prior
    - enough_speech: whether both clips reach the minimum amount of speech
    - sha256: of both files; empty for samples
    - notes: what is unusual about the files
    """

    cosine: float
    log10_lr: float
    at_bound: bool
    posterior_same: float
    prior_same: float
    speech_s: tuple[float, float]
    enough_speech: bool
    sha256: tuple[str, str] = ("", "")
    notes: list[str] = field(default_factory=list)


def format_ratio(log10_lr: float, *, at_bound: bool) -> str:
    """Return a likelihood ratio as text: `240 to 1` or `1 to 52`; with `over` or `under` if it was limited."""
    size = 10 ** abs(log10_lr)
    number = f"{size:.0f}" if size >= 9.5 else f"{size:.1f}"
    prefix = ("over " if log10_lr > 0 else "under ") if at_bound else ""
    return f"{prefix}{number} to 1" if log10_lr >= 0 else f"{prefix}1 to {number}"


@dataclass(frozen=True)
class Decisions:
    """Decisions on N clips.

    - llrs, posteriors (N, S): natural logarithm; probabilities at the stated prior
    - naming_scores (N, S): what the thresholds for naming apply to
    - posterior_unknown (N,): probability of no system of the gallery
    - in_set (N, S): conformal candidate sets
    - conclusions, names, reasons (N,): a name is empty where no system or family is named
    """

    llrs: FloatArray
    naming_scores: FloatArray
    posteriors: FloatArray
    posterior_unknown: FloatArray
    in_set: BoolArray
    conclusions: list[Conclusion]
    names: list[str]
    reasons: list[str]


def decide(
    cosines: FloatArray,
    speech_seconds: FloatArray,
    *,
    human_cosines: FloatArray,
    calibration: GalleryCalibration,
    prior_known: float,
    min_speech_seconds: float,
) -> Decisions:
    """Decide on clips by their cosines (N, S) to the centroids of the systems and (N,) to that of human speech.

    The candidates are the systems whose LLR lies within the conformal margin of the top LLR. The naming score is that
    of the system with the top LLR (`calibration.naming_scores`); it is no LLR. Rules, in this order:

    1. Too little speech: no conclusion.
    2. Unknown system, if the candidates together are not more probable than an unknown system at the stated prior.
    3. One system, if the naming score exceeds the system threshold and there is one candidate.
    4. A family, if the naming score exceeds the family threshold and all candidates belong to one family.
    5. Unknown system otherwise.
    """
    llrs = calibration.llrs(cosines, speech_seconds)
    top_llr, top_system = llrs.max(axis=1), llrs.argmax(axis=1)
    in_set = llrs >= (top_llr - calibration.interpolate(calibration.margin, speech_seconds))[:, None]
    clips = np.arange(len(llrs))
    system_threshold, family_threshold = (
        calibration.interpolate(values, speech_seconds)[clips, top_system]
        for values in (calibration.system_threshold, calibration.family_threshold)
    )
    scores = naming_scores(cosines, human_cosines, calibration.trained)
    top_score = scores[clips, top_system]
    posteriors, posterior_unknown = compute_posteriors(
        llrs, calibration.known_llrs(top_score - system_threshold, speech_seconds), prior_known=prior_known
    )
    candidates_probable = np.where(in_set, posteriors, 0).sum(axis=1) > posterior_unknown
    conclusions, names, reasons = [], [], []
    for clip in clips:
        members = np.flatnonzero(in_set[clip]).tolist()
        conclusion, name, reason = _conclude(
            [calibration.systems[member] for member in members],
            sorted({calibration.families[member] for member in members}),
            above_system_threshold=bool(top_score[clip] > system_threshold[clip]),
            above_family_threshold=bool(top_score[clip] > family_threshold[clip]),
            candidates_probable=bool(candidates_probable[clip]),
            enough_speech=bool(speech_seconds[clip] >= min_speech_seconds),
        )
        conclusions.append(conclusion)
        names.append(name)
        reasons.append(reason)
    return Decisions(llrs, scores, posteriors, posterior_unknown, in_set, conclusions, names, reasons)


def compute_posteriors(
    llrs: FloatArray, known_llrs: FloatArray, *, prior_known: float
) -> tuple[FloatArray, FloatArray]:
    """Return the posteriors of the systems (N, S) and of an unknown system (N,); they sum to 1.

    The posterior odds of a known system, whichever it is, are the prior odds times exp(known_llrs) (N,). The LLRs
    (N, S) divide this probability among the systems, which have equal prior probabilities.
    """
    log_odds = known_llrs + logit(prior_known)
    known = expit(log_odds)[:, None] * softmax(llrs, axis=1)
    return np.asarray(known), np.asarray(expit(-log_odds))


def _conclude(
    candidates: list[str],
    families: list[str],
    *,
    above_system_threshold: bool,
    above_family_threshold: bool,
    candidates_probable: bool,
    enough_speech: bool,
) -> tuple[Conclusion, str, str]:
    """Return (conclusion, name, reason) for one clip."""
    above_threshold = above_system_threshold or above_family_threshold
    listed = ", ".join(candidates)
    if not enough_speech:
        return TOO_LITTLE_SPEECH, "", "less speech than the minimum for which the tracer is calibrated"
    if above_threshold and not candidates_probable:
        return UNKNOWN, "", "an unknown system is more probable than the candidates, at the stated prior"
    if above_system_threshold and len(candidates) == 1:
        return (
            ONE_SYSTEM,
            candidates[0],
            "naming score exceeds the system threshold; there is no other candidate",
        )
    if above_family_threshold and len(families) == 1:
        if above_system_threshold:
            return FAMILY, families[0], f"LLRs do not separate the candidates of this family: {listed}"
        return FAMILY, families[0], "naming score exceeds the family threshold but not the system threshold"
    if above_threshold:
        return UNKNOWN, "", f"LLRs do not separate candidates of several families: {listed}"
    below = "naming score is below the threshold: no system of the gallery can be named"
    return UNKNOWN, "", f"{below}; the only candidate is {listed}" if len(candidates) == 1 else below

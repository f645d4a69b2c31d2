"""What scoring a set of vectors gives, and its form as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from makermark.scoring.intervals import Interval
from makermark.scoring.rates import Det, Histogram


@dataclass(frozen=True)
class SystemScore:
    """One system: its target trials against its trials with other systems. EER None if a kind is missing."""

    system: str
    utterances: int
    eer_percent: float | None
    target_trials: int
    nontarget_trials: int


@dataclass(frozen=True)
class SetScores:
    """What the trials of a set say; None where trials of a kind are missing.

    A trial is an unordered pair of utterances, its score the cosine of their vectors (float32); a target
    trial has one system on both sides. In a stratum both utterances are of that stratum.

    - EER: the ROC has a point at every distinct score, accepting the scores at or above it; the crossing
      of miss and false-accept rate on the straight line between neighbouring points. Exact.
    - micro: over all trials. macro: the mean of the EERs of the `macro_systems` systems that have both
      kinds of trials. ci95: see `intervals`.
    - auc, min_dcf: see `rates`. The true AUC is within `auc_error_bound` of `auc`, the true cost at most
      `min_dcf_error_bound` below `min_dcf`; both bounds are 0 for small sets.
    """

    utterances: int
    systems: int
    macro_systems: int
    target_trials: int
    nontarget_trials: int
    eer_micro_percent: float | None
    eer_macro_percent: float | None
    eer_micro_ci95_percent: Interval | None
    eer_macro_ci95_percent: Interval | None
    eer_threshold: float | None  # the crossing lies in the score bin that begins at this cosine
    auc: float | None
    auc_error_bound: float | None
    min_dcf: float | None
    min_dcf_error_bound: float | None
    det: Det | None
    histogram: Histogram | None
    per_system: tuple[SystemScore, ...]  # systems with an utterance in the set, by name
    strata: Mapping[str, SetScores] = field(default_factory=dict)


METRICS = (
    "eer_micro_percent",
    "eer_macro_percent",
    "eer_micro_ci95_percent",
    "eer_macro_ci95_percent",
    "eer_threshold",
    "auc",
    "auc_error_bound",
    "min_dcf",
    "min_dcf_error_bound",
    "utterances",
    "systems",
    "macro_systems",
    "target_trials",
    "nontarget_trials",
)


def as_metrics(scores: SetScores) -> dict[str, Any]:
    """The figures as JSON values under the names of METRICS; `strata` holds the same for each stratum."""
    figures = {name: getattr(scores, name) for name in METRICS}
    figures = {name: list(value) if isinstance(value, tuple) else value for name, value in figures.items()}
    if scores.strata:
        figures["strata"] = {name: as_metrics(stratum) for name, stratum in scores.strata.items()}
    return figures

"""How well a detector's scores tell utterances of training systems (known) from those of others (unknown).

A higher score means "known". An utterance is accepted when its score is at or above the threshold.
Legend of axes: M utterances judged, P thresholds, C systems.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from makermark.scoring.detectors import DETECTORS, Detector, Speech
from makermark.scoring.intervals import LEVELS, Interval

Numbers = NDArray[np.floating[Any]]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Detection:
    """What one detector reaches; all in percent, None where known or unknown utterances are missing.

    - auroc: the chance that a known utterance scores above an unknown one, a tie counting half
    - aupr_known, aupr_unknown: average precision with the one or the other as the class to find
    - fpr95: unknown utterances accepted at the highest threshold that accepts 95 % of the known
    - eer: where rejected known and accepted unknown are equal shares, interpolated
    - oscr: area under correct classification rate (known, accepted and correctly identified, among all
      known) against false positive rate (unknown accepted): Dhamija et al. 2018
    - eerc: the EER where a known utterance counts as missed unless it is accepted *and* correctly identified; so
      defined here: the crossing of 1 - (correct classification rate) and false positive rate, the axes of OSCR
    """

    auroc_percent: float | None
    auroc_ci95_percent: Interval | None
    aupr_known_percent: float | None
    aupr_unknown_percent: float | None
    fpr95_percent: float | None
    fpr95_ci95_percent: Interval | None
    eer_percent: float | None
    oscr_percent: float | None
    eerc_percent: float | None


@dataclass(frozen=True)
class Rates:
    """(P + 1,) each, from the threshold that accepts nothing down to the one that accepts all."""

    known: Numbers  # share of the known that are accepted
    correct: Numbers  # share of the known that are accepted and correctly identified
    unknown: Numbers  # share of the unknown that are accepted


def detect_all(
    train: Speech,
    judged: Speech,
    *,
    bootstrap_samples: int,
    seed: int,
    detectors: Mapping[str, Detector] = DETECTORS,
) -> tuple[dict[str, Any], dict[str, Rates]]:
    """Every detector's figures as JSON values, by its name, with the counts of known and unknown utterances; and
    every detector's rates, where there are utterances of both kinds."""
    systems = np.unique(train.systems)
    known = np.isin(judged.systems, systems)
    correct = systems[judged.logits.argmax(axis=1)] == judged.systems
    figures: dict[str, Any] = {
        "known_utterances": int(known.sum()),
        "unknown_utterances": int((~known).sum()),
    }
    rates = {}
    for name, detector in detectors.items():
        scores = detector(train, judged)
        found = detect(scores, known, correct, judged.systems, bootstrap_samples=bootstrap_samples, seed=seed)
        values = asdict(found)
        figures[name] = {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}
        if known.any() and not known.all():
            rates[name] = rates_of(scores, known, correct)
    return figures, rates


def detect(
    scores: Numbers,
    known: Flags,
    correct: Flags,
    systems: NDArray[np.str_],
    *,
    bootstrap_samples: int,
    seed: int,
) -> Detection:
    """The figures of scores (M,): whether each utterance is `known`, and `correct`ly identified, and whose it is.

    Intervals: 95 %, by drawing the systems with replacement (utterances of a system are not independent).
    """
    from sklearn.metrics import average_precision_score

    if known.all() or not known.any():
        return Detection(*[None] * 9)
    rates = rates_of(scores, known, correct)
    auroc_ci, fpr95_ci = _intervals(scores, known, systems, samples=bootstrap_samples, seed=seed)
    return Detection(
        auroc_percent=100 * area(rates.unknown, rates.known),
        auroc_ci95_percent=auroc_ci,
        aupr_known_percent=100 * float(average_precision_score(known, scores)),
        aupr_unknown_percent=100 * float(average_precision_score(~known, -scores)),
        fpr95_percent=100 * fpr95(rates),
        fpr95_ci95_percent=fpr95_ci,
        eer_percent=100 * crossing(1 - rates.known, rates.unknown),
        oscr_percent=100 * area(rates.unknown, rates.correct),
        eerc_percent=100 * crossing(1 - rates.correct, rates.unknown),
    )


def rates_of(scores: Numbers, known: Flags, correct: Flags) -> Rates:
    """The rates at every distinct score, falling."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of each run of ties

    def share(of: Flags, among: Flags) -> Numbers:
        return np.append(0, np.cumsum(of[order])[last]) / np.count_nonzero(among)

    return Rates(share(known, known), share(known & correct, known), share(~known, ~known))


def area(along: Numbers, height: Numbers) -> float:
    """Under straight lines between the points."""
    return float(np.trapezoid(height, along))


def fpr95(rates: Rates) -> float:
    """Unknown accepted at the first threshold, from above, that accepts at least 95 % of the known."""
    return float(rates.unknown[np.argmax(rates.known >= 0.95 - 1e-12)])


def crossing(miss: Numbers, false_accept: Numbers) -> float:
    """Where two rates (P + 1,), the one falling and the other rising, meet on straight lines between points."""
    after = int(np.argmax(false_accept >= miss))
    if after == 0:
        return float(false_accept[0])
    (m0, m1), (f0, f1) = miss[after - 1 : after + 1], false_accept[after - 1 : after + 1]
    share = (m0 - f0) / ((m0 - f0) + (f1 - m1))
    return float(m0 + share * (m1 - m0))


def _intervals(
    scores: Numbers, known: Flags, systems: NDArray[np.str_], *, samples: int, seed: int
) -> tuple[Interval | None, Interval | None]:
    """Of AUROC and FPR95. A draw of systems weighs what was counted by system, once for all draws."""
    names, column = np.unique(systems, return_inverse=True)
    rng = np.random.default_rng([seed, 1])
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=samples).astype(np.float64)
    _, place = np.unique(
        -scores, return_inverse=True
    )  # of each utterance's score among the P distinct ones, falling
    counts = np.zeros((2, place.max() + 1, len(names)))
    np.add.at(counts, ((~known).astype(np.intp), place, column), 1)
    accepted_known, accepted_unknown = counts.cumsum(axis=1)  # (P, C) each: at or above each score
    drawn = drawn[(drawn @ accepted_known[-1] > 0) & (drawn @ accepted_unknown[-1] > 0)]
    if not len(drawn):
        return None, None
    below = accepted_unknown[-1] - accepted_unknown + counts[1] / 2  # a tie counts half
    of_known, of_unknown = drawn @ accepted_known[-1], drawn @ accepted_unknown[-1]
    auroc = np.einsum("dk,ku,du->d", drawn, counts[0].T @ below, drawn, optimize=True) / (
        of_known * of_unknown
    )
    first = _first_row(accepted_known, drawn, (0.95 - 1e-12) * of_known)
    fpr = np.einsum("dc,dc->d", accepted_unknown[first], drawn) / of_unknown
    (auroc_low, fpr_low), (auroc_high, fpr_high) = 100 * np.quantile([auroc, fpr], LEVELS, axis=1)
    return (float(auroc_low), float(auroc_high)), (float(fpr_low), float(fpr_high))


def _first_row(rising: Numbers, drawn: Numbers, wanted: Numbers) -> NDArray[np.intp]:
    """(draws,): the first row of `rising` (P, C), weighed by each of `drawn` (draws, C), that is at least `wanted`."""
    low, high = np.zeros(len(drawn), np.intp), np.full(len(drawn), len(rising) - 1)
    while (low < high).any():
        middle = (low + high) // 2
        enough = np.einsum("dc,dc->d", rising[middle], drawn) >= wanted
        low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
    return low

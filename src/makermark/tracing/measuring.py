"""How good a tracer is: learned on dev, judged on test; every figure with an interval over systems.

Legend of axes: N clips, S systems of the gallery.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from makermark.scoring.calibration import (
    Reliability,
    cllr,
    expected_calibration_error,
    min_cllr,
    reliability,
)
from makermark.scoring.intervals import LEVELS
from makermark.scoring.outofdomain import detect
from makermark.tracing.calibrating import WHOLE, Clips
from makermark.tracing.tracer import Tracer
from makermark.tracing.verdict import FAMILY, ONE, TOO_LITTLE, UNKNOWN, Decisions

Numbers = NDArray[np.floating[Any]]
Flags = NDArray[np.bool_]
Seconds = NDArray[np.float64]
Figure = Callable[[Numbers], float | None]  # of weights (N,)


def measure(tracer: Tracer, test: Clips, *, bootstrap_samples: int, seed: int) -> dict[str, Any]:
    """The figures at each length and of whole utterances, under `whole` and names such as `4s`."""
    lengths = {f"{seconds:g}s": seconds for seconds in test.lengths} | {"whole": WHOLE}
    return {
        name: measure_length(tracer, test.of_length(seconds), bootstrap_samples=bootstrap_samples, seed=seed)
        for name, seconds in lengths.items()
    }


def measure_length(tracer: Tracer, clips: Clips, *, bootstrap_samples: int, seed: int) -> dict[str, Any]:
    """Verdicts, identification, detection of unknown systems, calibration and coverage on clips of one length.

    Each figure is a value and its 95 % interval; None where the clips hold nothing to measure it on. `seen` are the
    clips of systems in the gallery.
    """
    names = np.array(tracer.gallery.systems, dtype=str)
    told = tracer.decide(clips.vectors, clips.rows["speech_seconds"].to_numpy(dtype=np.float64))
    own = clips.systems[:, None] == names
    seen = own.any(axis=1)
    outcome = outcomes(tracer, told, clips)
    llrs = tracer.calibrated.bounded(told.llrs)

    def share(flags: Flags, among: Flags) -> Figure:
        return lambda weights: percent_of(flags, among, weights)

    def of_trials(cost: Callable[..., float]) -> Figure:
        def figure(weights: Numbers) -> float | None:
            each = np.broadcast_to(weights[:, None], own.shape).ravel()
            if not each[own.ravel()].any():
                return None
            return cost(llrs.ravel(), own.ravel(), weights=each)

        return figure

    figures: dict[str, Figure] = {
        "identification_percent": share(names[told.llrs.argmax(axis=1)] == clips.systems, seen),
        "coverage_percent": share((told.in_set & own).any(axis=1), seen),
        "cllr": of_trials(cllr),
        "min_cllr": of_trials(min_cllr),
        "posterior_error_percent": _posterior_error(told, own, tracer.settings.prior_known),
    }
    for group, among in {"seen": seen, "unseen": ~seen}.items():
        for kind in ("correct", "family", "wrong", "unknown", "too_little"):
            figures[f"{group}_{kind}_percent"] = share(outcome == kind, among)
    found = over_systems(figures, clips.systems, samples=bootstrap_samples, seed=seed)
    right = names[told.llrs.argmax(axis=1)] == clips.systems
    detected = detect(
        told.llrs.max(axis=1), seen, right, clips.systems, bootstrap_samples=bootstrap_samples, seed=seed
    )
    return {
        "seen_clips": int(seen.sum()),
        "unseen_clips": int((~seen).sum()),
        "seen_systems": len(set(clips.systems[seen])),
        "unseen_systems": len(set(clips.systems[~seen])),
        "median_speech_s": float(np.median(clips.rows["speech_seconds"])),
        "candidates_mean": float(told.in_set[seen].sum(axis=1).mean()) if seen.any() else None,
        **found,
        "auroc_percent": detected.auroc_percent,
        "auroc_percent_ci95": _listed(detected.auroc_ci95_percent),
        "fpr95_percent": detected.fpr95_percent,
        "fpr95_percent_ci95": _listed(detected.fpr95_ci95_percent),
    }


def outcomes(tracer: Tracer, told: Decisions, clips: Clips) -> NDArray[np.str_]:
    """(N,): correct (the system named), family (its family named), wrong, unknown or too_little."""
    family = clips.rows["family"].fillna("").to_numpy(dtype=str)
    found = []
    for kind, name, system, own in zip(told.kinds, told.names, clips.systems, family, strict=True):
        if kind == TOO_LITTLE:
            found.append("too_little")
        elif kind == UNKNOWN:
            found.append("unknown")
        elif kind == ONE:
            found.append("correct" if name == system else "wrong")
        else:
            found.append("family" if kind == FAMILY and name == (own or system) else "wrong")
    return np.array(found, dtype=str)


def measure_pairs(tracer: Tracer, test: Clips, *, bootstrap_samples: int, seed: int) -> dict[str, Any]:
    """Cllr of `compare` on all pairs of test's clips of a length that share no utterance."""
    told = {}
    for seconds in test.lengths:
        part = test.of_length(seconds)
        first, second = part.pair_rows()
        cosines = np.einsum("nd,nd->n", part.vectors[first], part.vectors[second])
        same = part.systems[first] == part.systems[second]
        speech = part.rows["speech_seconds"].to_numpy(dtype=np.float64)
        llrs = tracer.pair_llrs(cosines, np.minimum(speech[first], speech[second]))

        def cost(
            weights: Numbers, llrs: Numbers = llrs, same: Flags = same, pair: Any = (first, second)
        ) -> float:
            a, b = weights[pair[0]], weights[pair[1]]
            return cllr(llrs, same, weights=np.where(same, a, a * b))

        found = over_systems({"cllr": cost}, part.systems, samples=bootstrap_samples, seed=seed)
        told[f"{seconds:g}s"] = {
            "pairs": len(same),
            "same_system_pairs": int(same.sum()),
            **found,
            "min_cllr": min_cllr(llrs, same),
        }
    return told


def measure_enrolment(
    tracer: Tracer, test: Clips, *, clips: int, draws: int, bootstrap_samples: int, seed: int
) -> dict[str, Any]:
    """Enrol each system of test that the gallery lacks, in turn, from `clips` whole utterances drawn `draws` times.

    Before and after, on its other utterances and on those of the systems in the gallery: how often the likeliest
    system is the true one, and how often the verdict names it. Intervals over the enrolled systems.
    """
    whole = test.of_length(WHOLE)
    known = np.isin(whole.systems, tracer.gallery.systems)
    speech = whole.rows["speech_seconds"].to_numpy(dtype=np.float64)
    rng = np.random.default_rng(seed)
    before = _rates(tracer, whole.vectors[known], speech[known], whole.systems[known])
    rows: list[dict[str, Any]] = []
    for system in sorted(set(whole.systems[~known])):
        own = np.flatnonzero(whole.systems == system)
        family = str(whole.rows["family"].iloc[own[0]] or "")
        if len(own) <= clips:
            continue
        for _ in range(draws):
            drawn = rng.choice(own, size=clips, replace=False)
            rest = np.setdiff1d(own, drawn)
            names = [f"clip-{number}" for number in range(clips)]
            after = tracer.with_gallery(
                tracer.gallery.with_system(system, whole.vectors[drawn], names, family=family)
            )
            others = _rates(after, whole.vectors[known], speech[known], whole.systems[known])
            likeliest, named = _rates(after, whole.vectors[rest], speech[rest], whole.systems[rest])
            rows.append(
                {
                    "system": system,
                    "named_wrongly_before": _named_percent(tracer, whole.vectors[rest], speech[rest]),
                    "identification": likeliest,
                    "named": named,
                    "others_identification_loss": before[0] - others[0],
                    "others_named_loss": before[1] - others[1],
                }
            )
    if not rows:
        return {"systems": 0}
    systems = np.array([row["system"] for row in rows], dtype=str)
    figures = {
        f"{name}_percent": _mean_of(np.array([row[name] for row in rows], dtype=np.float64))
        for name in rows[0]
        if name != "system"
    }
    by_system = {
        str(system): {
            f"{name}_percent": float(np.mean([row[name] for row in rows if row["system"] == system]))
            for name in ("identification", "named", "others_identification_loss")
        }
        for system in np.unique(systems)
    }
    return {
        "systems": len(by_system),
        "clips": clips,
        "draws": draws,
        "others_identification_before_percent": before[0],
        "others_named_before_percent": before[1],
        "identification_before_percent": 0.0,  # what is not in the gallery cannot be named
        **over_systems(figures, systems, samples=bootstrap_samples, seed=seed),
        "others_identification_worst_loss_percent": max(row["others_identification_loss"] for row in rows),
        "by_system": by_system,
    }


def _mean_of(values: Numbers) -> Figure:
    return lambda weights: float(np.average(values, weights=weights))


def _rates(tracer: Tracer, vectors: Numbers, speech: Seconds, truth: NDArray[np.str_]) -> tuple[float, float]:
    """(likeliest is the true one, verdict names the true one), percent."""
    told = tracer.decide(vectors, speech)
    names = np.array(tracer.gallery.systems, dtype=str)
    named = np.array(told.names, dtype=str) == truth
    one = np.array(told.kinds, dtype=str) == ONE
    likeliest = names[told.llrs.argmax(axis=1)] == truth
    return 100 * float(np.mean(likeliest)), 100 * float(np.mean(named & one))


def _named_percent(tracer: Tracer, vectors: Numbers, speech: Seconds) -> float:
    told = tracer.decide(vectors, speech)
    return 100 * float(np.mean(np.array(told.kinds, dtype=str) == ONE))


def _posterior_error(told: Decisions, own: Flags, prior_known: float) -> Figure:
    """Expected calibration error of the largest probability, that of `unknown` included, in percent."""

    def figure(weights: Numbers) -> float | None:
        said, happened, each = _largest(told, own, prior_known, weights)
        return 100 * expected_calibration_error(said, happened, weights=each)

    return figure


def _largest(
    told: Decisions, own: Flags, prior_known: float, weights: Numbers
) -> tuple[Numbers, Flags, Numbers]:
    """(N,) each: the largest probability of a clip, whether it came true, and the weights such that clips of the
    gallery have the share that the prior says. Raises ValueError without clips of both kinds."""
    all_of = np.concatenate([told.posteriors, told.unknown[:, None]], axis=1)
    seen: Flags = np.asarray(own.any(axis=1))
    truth: Flags = np.concatenate([own, ~seen[:, None]], axis=1)
    known, unknown = weights[seen].sum(), weights[~seen].sum()
    if not known or not unknown:
        raise ValueError("no clip of a known, or none of an unknown system")
    each = weights * np.where(seen, prior_known / known, (1 - prior_known) / unknown)
    rows, best = np.arange(len(own)), all_of.argmax(axis=1)
    return all_of[rows, best], np.asarray(truth[rows, best]), each


def percent_of(flags: Flags, among: Flags, weights: Numbers) -> float | None:
    """The weighted share of `flags` among the flagged, in percent; None among none."""
    total = weights[among].sum()
    return 100 * float(weights[among & flags].sum() / total) if total else None


def over_systems(
    figures: dict[str, Figure], systems: NDArray[np.str_], *, samples: int, seed: int
) -> dict[str, Any]:
    """Each figure, and under NAME_ci95 its 95 % interval: systems are drawn with replacement, since clips of one are
    not independent; a draw without anything to measure is left out."""
    names, column = np.unique(systems, return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=samples)
    told: dict[str, Any] = {}
    for name, figure in figures.items():
        told[name] = _try(figure, np.ones(len(systems)))
        values = [v for times in drawn if (v := _try(figure, times[column].astype(np.float64))) is not None]
        told[f"{name}_ci95"] = [float(v) for v in np.quantile(values, LEVELS)] if values else None
    return told


def _try(figure: Figure, weights: Numbers) -> float | None:
    try:
        return figure(weights)
    except ValueError:  # a draw without trials of both kinds
        return None


def _listed(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)


def trials_of(tracer: Tracer, test: Clips) -> tuple[Numbers, Flags]:
    """LLRs of every whole utterance of test against every system of the gallery, (N S,), and which are of its own."""
    whole = test.of_length(WHOLE)
    told = tracer.decide(whole.vectors, whole.rows["speech_seconds"].to_numpy(dtype=np.float64))
    own = whole.systems[:, None] == np.array(tracer.gallery.systems, dtype=str)
    return tracer.calibrated.bounded(told.llrs).ravel(), own.ravel()


def reliability_of(tracer: Tracer, test: Clips) -> dict[str, Reliability]:
    """Of each length: the largest probability of a clip against how often it came true."""
    curves = {}
    for seconds in test.lengths:
        part = test.of_length(seconds)
        told = tracer.decide(part.vectors, part.rows["speech_seconds"].to_numpy(dtype=np.float64))
        own = part.systems[:, None] == np.array(tracer.gallery.systems, dtype=str)
        said, happened, weights = _largest(told, own, tracer.settings.prior_known, np.ones(len(own)))
        curves[f"{seconds:g} s"] = reliability(said, happened, weights=weights)
    return curves

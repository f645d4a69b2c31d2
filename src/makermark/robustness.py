"""What a tracer is worth when speech arrives otherwise than it was made: every condition in turn on a part of test.

The systems that can be named were learned from clean speech, and stay so; the clips that are judged go through the
condition. In EERs both clips of a pair do. Legend of axes: N clips, S systems, D dimensions.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rich.console
import rich.progress
from numpy.typing import NDArray

from makermark.audio import Samples
from makermark.corpora.rows import Manifest
from makermark.degrading.base import RATE_HZ
from makermark.degrading.conditions import CLEAN, CONDITIONS, SHORTCUT, check_conditions, degrade
from makermark.errors import AudioError, ManifestError, ParamsError
from makermark.scoring import score_set
from makermark.scoring.calibration import cllr
from makermark.scoring.fusion import unit
from makermark.scoring.identification import centroids
from makermark.tracing.calibrating import WHOLE, Clips
from makermark.tracing.hearing import Hearing, speech_seconds
from makermark.tracing.measuring import Figure, Flags, measure_length, over_systems, percent_of
from makermark.tracing.tracer import Tracer
from makermark.vectors import Embeddings

TOGETHER = 64  # clips embedded in one go
KEPT = (
    "identification_percent",
    "cllr",
    "min_cllr",
    "auroc_percent",
    "seen_correct_percent",
    "seen_family_percent",
    "seen_wrong_percent",
    "seen_unknown_percent",
    "seen_too_little_percent",
    "unseen_wrong_percent",
    "unseen_unknown_percent",
)  # of what `measure_length` tells


@dataclass(frozen=True)
class Spoken:
    """Utterances as they are: labels (N rows: utterance_id, system, family) and their waveforms."""

    labels: pd.DataFrame
    waveforms: list[Samples]

    @property
    def systems(self) -> NDArray[np.str_]:
        """(N,)."""
        return self.labels["system"].to_numpy(dtype=str)


def measure_robustness(
    tracer: Tracer,
    hearing: Hearing,
    embeddings: Embeddings,
    manifest: Manifest,
    *,
    conditions: Sequence[str],
    utterances_per_system: int,
    gallery_utterances: int,
    bootstrap_samples: int,
    seed: int,
    workers: int,
) -> dict[str, Any]:
    """The figures of every condition under `conditions`, and under `shortcuts` what of identification stays.

    No `conditions` named: all there are. `embeddings` say which utterances can be used. Raises ParamsError for an
    unknown condition, AudioError for an utterance that cannot be heard.
    """
    names = _with_clean(conditions)
    check_conditions(names)
    if hearing.rate_hz != RATE_HZ:
        raise ParamsError(
            f"the model takes {hearing.rate_hz} Hz; conditions are made for {RATE_HZ}: train on features of that rate"
        )
    draws = {"bootstrap_samples": bootstrap_samples, "seed": seed}
    shortcuts = [name for name in names if name == CLEAN or CONDITIONS[name].group == SHORTCUT]
    told: dict[str, Any] = {}
    alike: dict[str, Any] = {}
    with ThreadPoolExecutor(workers) as pool, _bar() as bar:
        test = _spoken(
            hearing, embeddings, manifest, pool, split="test", count=utterances_per_system, seed=seed
        )
        train = None
        if len(shortcuts) > 1:
            train = _spoken(
                hearing, embeddings, manifest, pool, split="train", count=gallery_utterances, seed=seed
            )
        for name in bar.track(names, description="conditions"):
            clips = _heard(hearing, test, name, pool, seed=seed)
            told[name] = {"group": CONDITIONS[name].group, **_figures(tracer, clips, **draws)}
            if train is not None and name in shortcuts:
                enrolled = _heard(hearing, train, name, pool, seed=seed)
                if name == CLEAN:
                    unchanged = enrolled
                alike[name] = _shortcut(clips, unchanged, enrolled, **draws)
    return {
        "utterances": len(test.labels),
        "systems": len(set(test.systems)),
        "seen_utterances": int(np.isin(test.systems, tracer.gallery.systems).sum()),
        "utterances_per_system": utterances_per_system,
        "conditions": told,
        "shortcuts": _what_stays(alike),
    }


def _with_clean(conditions: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([CLEAN, *(conditions or CONDITIONS)]))


def _spoken(
    hearing: Hearing,
    embeddings: Embeddings,
    manifest: Manifest,
    pool: ThreadPoolExecutor,
    *,
    split: str,
    count: int,
    seed: int,
) -> Spoken:
    """At most `count` utterances of each system of a split, drawn by the seed, as the features stage reads them."""
    labels = embeddings.of_split(split).labels.sort_values("utterance_id", ignore_index=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    chosen = np.sort(labels.iloc[order].groupby("system").head(count).index.to_numpy())
    labels = labels.iloc[chosen].reset_index(drop=True)
    paths = manifest.rows.set_index("utterance_id")["path"]
    missing = sorted(set(labels["utterance_id"]) - set(paths.index))
    if missing:
        raise ManifestError(f"utterance {missing[0]!r} was embedded but is not in the manifest; embed again")
    files: list[Path] = [manifest.file(paths[name]) for name in labels["utterance_id"]]
    return Spoken(labels, list(pool.map(hearing.read, files)))


def _heard(hearing: Hearing, spoken: Spoken, condition: str, pool: ThreadPoolExecutor, *, seed: int) -> Clips:
    """The utterances under a condition, whole. (seed, utterance, condition) decides all chance."""

    def changed(number: int) -> Samples:
        name = str(spoken.labels["utterance_id"].iloc[number])
        rng = np.random.default_rng([seed, zlib.crc32(name.encode()), zlib.crc32(condition.encode())])
        voices = [*spoken.waveforms[:number], *spoken.waveforms[number + 1 :]]
        try:
            waveform = degrade(condition, spoken.waveforms[number], rng=rng, voices=voices)
            return hearing.take(waveform, RATE_HZ)
        except AudioError as error:
            raise AudioError(f"utterance {name!r} under condition {condition}: {error}") from error

    waveforms = list(pool.map(changed, range(len(spoken.waveforms))))
    parts = [
        hearing.vectors(waveforms[first : first + TOGETHER]) for first in range(0, len(waveforms), TOGETHER)
    ]
    rows = spoken.labels[["system", "family"]].assign(
        seconds=WHOLE,
        speech_seconds=[speech_seconds(waveform, RATE_HZ) for waveform in waveforms],
        sources=spoken.labels["utterance_id"],
    )
    return Clips(rows, unit(np.concatenate(parts)).astype(np.float32))


def _figures(tracer: Tracer, clips: Clips, *, bootstrap_samples: int, seed: int) -> dict[str, Any]:
    """EER over every pair of the clips, and what the tracer says of them."""
    pairs = score_set(clips.vectors, clips.systems, bootstrap_samples=bootstrap_samples, seed=seed)
    told: dict[str, Any] = {}
    for kind, eer, interval in (
        ("micro", pairs.eer_micro_percent, pairs.eer_micro_ci95_percent),
        ("macro", pairs.eer_macro_percent, pairs.eer_macro_ci95_percent),
    ):
        told[f"eer_{kind}_percent"] = eer
        told[f"eer_{kind}_percent_ci95"] = None if interval is None else list(interval)
    judged = measure_length(tracer, clips, bootstrap_samples=0, seed=seed)
    told |= {name: judged[name] for name in KEPT}
    return told | _intervals(tracer, clips, samples=bootstrap_samples, seed=seed)


def _intervals(tracer: Tracer, clips: Clips, *, samples: int, seed: int) -> dict[str, Any]:
    """Identification and Cllr, each with its interval."""
    names = np.array(tracer.gallery.systems, dtype=str)
    llrs = tracer.decide(clips.vectors, clips.rows["speech_seconds"].to_numpy(dtype=np.float64)).llrs
    bounded, own = tracer.calibrated.bounded(llrs), clips.systems[:, None] == names
    right: Flags = names[llrs.argmax(axis=1)] == clips.systems

    def cost(weights: NDArray[np.floating[Any]]) -> float:
        each = np.broadcast_to(weights[:, None], own.shape).ravel()
        return cllr(bounded.ravel(), own.ravel(), weights=each)

    figures: dict[str, Figure] = {
        "identification_percent": lambda weights: percent_of(right, own.any(axis=1), weights),
        "cllr": cost,
    }
    return over_systems(figures, clips.systems, samples=samples, seed=seed)


def _shortcut(
    clips: Clips, clean: Clips, alike: Clips, *, bootstrap_samples: int, seed: int
) -> dict[str, Any]:
    """Identification of seen systems by the nearest centroid of clean training speech, and of such speech under the
    same condition as the clips."""
    figures: dict[str, Figure] = {}
    for name, enrolled in (("clean_gallery", clean), ("alike_gallery", alike)):
        systems, directions = centroids(enrolled.vectors, enrolled.systems)
        right: Flags = systems[(clips.vectors @ directions.T).argmax(axis=1)] == clips.systems
        seen: Flags = np.isin(clips.systems, systems)

        def accuracy(
            weights: NDArray[np.floating[Any]], right: Flags = right, seen: Flags = seen
        ) -> float | None:
            return percent_of(right, seen, weights)

        figures[f"{name}_identification_percent"] = accuracy
    return over_systems(figures, clips.systems, samples=bootstrap_samples, seed=seed)


def _what_stays(alike: dict[str, Any]) -> dict[str, Any]:
    """With the share of the clean accuracy that each condition leaves, gallery and clips alike."""
    if not alike:
        return {}
    name = "alike_gallery_identification_percent"
    whole = alike[CLEAN][name]
    return {
        condition: {
            **told,
            "stays_percent": 100 * told[name] / whole if whole and told[name] is not None else None,
        }
        for condition, told in alike.items()
    }


def _bar() -> rich.progress.Progress:
    return rich.progress.Progress(console=rich.console.Console(stderr=True), disable=not sys.stderr.isatty())

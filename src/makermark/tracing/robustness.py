"""Evaluation of a tracer on test under each condition.

The gallery and the calibration are of clean speech. The clips under test go through the condition; for the EER, both
clips of a pair do. Legend of axes: N clips, S systems, D dimensions.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from makermark.features.augmentation.base import SAMPLE_RATE_HZ
from makermark.features.augmentation.conditions import (
    CLEAN,
    CONDITIONS,
    SHORTCUT,
    apply_condition,
    check_conditions,
)
from makermark.foundation.arrays import StrArray
from makermark.foundation.audio import Samples
from makermark.foundation.embeddings import EmbeddingTable, l2_normalise
from makermark.foundation.errors import AudioError, ManifestError, ParamsError
from makermark.foundation.manifest import Manifest
from makermark.foundation.progress import track
from makermark.scoring.calibration import cllr
from makermark.scoring.open_set_metrics import system_centroids
from makermark.scoring.pairs import score_all_pairs
from makermark.tracing.bundle import WHOLE_UTTERANCE, ClipSet
from makermark.tracing.evaluation import (
    WeightedMetric,
    WeightedPercent,
    bootstrap_over_systems,
    evaluate_clips,
    trial_metric,
)
from makermark.tracing.extractor import ClipExtractor
from makermark.tracing.tracer import Tracer
from makermark.tracing.voice_activity import speech_seconds_of_clips

BATCH_CLIPS = 64  # clips that are embedded together
CLIP_METRICS = (  # the metrics of `evaluate_clips` that are reported
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
)


@dataclass(frozen=True)
class Utterances:
    """Clean utterances: labels (N rows with utterance_id, system, family) and waveforms."""

    labels: pd.DataFrame
    waveforms: list[Samples]

    @property
    def systems(self) -> StrArray:
        """System of each utterance, (N,)."""
        return self.labels["system"].to_numpy(dtype=str)


def evaluate_robustness(
    tracer: Tracer,
    embeddings: EmbeddingTable,
    manifest: Manifest,
    *,
    conditions: Sequence[str],
    utterances_per_system: int,
    gallery_utterances: int,
    bootstrap_samples: int,
    seed: int,
    workers: int,
) -> dict[str, Any]:
    """Return metrics for each condition under `conditions`, and the shortcut test under `shortcuts`.

    An empty `conditions` means all. Only utterances with `embeddings` are used. Raises ParamsError for an unknown
    condition or a model of another sample rate, AudioError for an unusable utterance.
    """
    names = list(dict.fromkeys([CLEAN, *(conditions or CONDITIONS)]))
    check_conditions(names)
    extractor = tracer.extractor
    if extractor.rate_hz != SAMPLE_RATE_HZ:
        raise ParamsError(
            f"the sample rate of the model is {extractor.rate_hz} Hz, that of the conditions {SAMPLE_RATE_HZ} Hz; "
            "train on features of that rate"
        )
    draws = {"bootstrap_samples": bootstrap_samples, "seed": seed}
    shortcuts = [name for name in names if name == CLEAN or CONDITIONS[name].group == SHORTCUT]
    by_condition: dict[str, Any] = {}
    by_shortcut: dict[str, Any] = {}
    with ThreadPoolExecutor(workers) as pool:

        def draw(split: str, count: int) -> Utterances:
            return _draw_utterances(
                extractor, embeddings.select_split(split), manifest, pool, count=count, seed=seed
            )

        test = draw("test", utterances_per_system)
        train = draw("train", gallery_utterances) if len(shortcuts) > 1 else None
        for name in track(names, description="conditions"):
            clips = _embed_under_condition(extractor, test, name, pool, seed=seed)
            by_condition[name] = {
                "group": CONDITIONS[name].group,
                **_evaluate_condition(tracer, clips, **draws),
            }
            if train is not None and name in shortcuts:
                gallery_clips = _embed_under_condition(extractor, train, name, pool, seed=seed)
                if name == CLEAN:
                    clean_gallery_clips = gallery_clips
                by_shortcut[name] = _evaluate_shortcut(clips, clean_gallery_clips, gallery_clips, **draws)
    return {
        "utterances": len(test.labels),
        "systems": len(set(test.systems)),
        "seen_utterances": int(np.isin(test.systems, tracer.gallery.systems).sum()),
        "utterances_per_system": utterances_per_system,
        "conditions": by_condition,
        "shortcuts": _add_remaining_accuracy(by_shortcut),
    }


def _draw_utterances(
    extractor: ClipExtractor,
    embeddings: EmbeddingTable,
    manifest: Manifest,
    pool: ThreadPoolExecutor,
    *,
    count: int,
    seed: int,
) -> Utterances:
    """Draw at most `count` utterances of each system and read them."""
    labels = embeddings.labels.sort_values("utterance_id", ignore_index=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    drawn = np.sort(labels.iloc[order].groupby("system").head(count).index.to_numpy())
    labels = labels.iloc[drawn].reset_index(drop=True)
    paths = manifest.rows.set_index("utterance_id")["path"]
    missing = sorted(set(labels["utterance_id"]) - set(paths.index))
    if missing:
        raise ManifestError(
            f"utterance {missing[0]!r} has an embedding but is not in the manifest; run the embed stage again"
        )
    files: list[Path] = [manifest.audio_path(paths[name]) for name in labels["utterance_id"]]
    return Utterances(labels, list(pool.map(extractor.read, files)))


def _embed_under_condition(
    extractor: ClipExtractor, utterances: Utterances, condition: str, pool: ThreadPoolExecutor, *, seed: int
) -> ClipSet:
    """Embed whole utterances under a condition; (seed, utterance, condition) determines all random numbers."""

    def apply(number: int) -> Samples:
        name = str(utterances.labels["utterance_id"].iloc[number])
        rng = np.random.default_rng([seed, zlib.crc32(name.encode()), zlib.crc32(condition.encode())])
        others = [*utterances.waveforms[:number], *utterances.waveforms[number + 1 :]]
        try:
            waveform = apply_condition(condition, utterances.waveforms[number], rng=rng, voices=others)
            return extractor.read((waveform, SAMPLE_RATE_HZ))
        except AudioError as error:
            raise AudioError(f"utterance {name!r} under condition {condition}: {error}") from error

    waveforms = list(pool.map(apply, range(len(utterances.waveforms))))
    parts = [
        extractor.embed(waveforms[first : first + BATCH_CLIPS])
        for first in range(0, len(waveforms), BATCH_CLIPS)
    ]
    rows = utterances.labels[["system", "family"]].assign(
        seconds=WHOLE_UTTERANCE,
        speech_seconds=speech_seconds_of_clips(waveforms, SAMPLE_RATE_HZ),
        sources=utterances.labels["utterance_id"],
    )
    return ClipSet(rows, l2_normalise(np.concatenate(parts)).astype(np.float32))


def _evaluate_condition(
    tracer: Tracer, clips: ClipSet, *, bootstrap_samples: int, seed: int
) -> dict[str, Any]:
    """Return the EER over all pairs of clips, CLIP_METRICS, and intervals of identification and Cllr."""
    pairs = score_all_pairs(clips.embeddings, clips.systems, bootstrap_samples=bootstrap_samples, seed=seed)
    metrics: dict[str, Any] = {}
    for average, eer, interval in (
        ("micro", pairs.eer_micro_percent, pairs.eer_micro_ci95_percent),
        ("macro", pairs.eer_macro_percent, pairs.eer_macro_ci95_percent),
    ):
        metrics[f"eer_{average}_percent"] = eer
        metrics[f"eer_{average}_percent_ci95"] = None if interval is None else list(interval)
    clip_metrics = evaluate_clips(tracer, clips, bootstrap_samples=0, seed=seed)
    metrics |= {name: clip_metrics[name] for name in CLIP_METRICS}
    return metrics | _bootstrap_main_metrics(tracer, clips, samples=bootstrap_samples, seed=seed)


def _bootstrap_main_metrics(tracer: Tracer, clips: ClipSet, *, samples: int, seed: int) -> dict[str, Any]:
    """Return identification and Cllr with their intervals; intervals of all metrics would take too long."""
    names = np.array(tracer.gallery.systems, dtype=str)
    llrs = tracer.decide(clips.embeddings, clips.speech_seconds).llrs
    target = clips.systems[:, None] == names
    correct = names[llrs.argmax(axis=1)] == clips.systems
    metrics: dict[str, WeightedMetric] = {
        "identification_percent": WeightedPercent(correct, target.any(axis=1)),
        "cllr": trial_metric(cllr, tracer.calibration.limit(llrs), target),
    }
    return bootstrap_over_systems(metrics, clips.systems, samples=samples, seed=seed)


def _evaluate_shortcut(
    clips: ClipSet,
    clean_gallery_clips: ClipSet,
    gallery_clips: ClipSet,
    *,
    bootstrap_samples: int,
    seed: int,
) -> dict[str, Any]:
    """Return the identification of seen systems by the nearest centroid of training speech.

    Once with clean training speech (`clean_gallery`), once with training speech under the condition (`alike_gallery`).
    """
    metrics = {
        "clean_gallery_identification_percent": _nearest_centroid_accuracy(clips, clean_gallery_clips),
        "alike_gallery_identification_percent": _nearest_centroid_accuracy(clips, gallery_clips),
    }
    return bootstrap_over_systems(metrics, clips.systems, samples=bootstrap_samples, seed=seed)


def _nearest_centroid_accuracy(clips: ClipSet, gallery_clips: ClipSet) -> WeightedMetric:
    systems, centroids = system_centroids(gallery_clips.embeddings, gallery_clips.systems)
    correct = systems[(clips.embeddings @ centroids.T).argmax(axis=1)] == clips.systems
    return WeightedPercent(correct, np.isin(clips.systems, systems))


def _add_remaining_accuracy(by_shortcut: dict[str, Any]) -> dict[str, Any]:
    """Add `stays_percent`: the accuracy with gallery and clips under the condition, as a share of the clean one."""
    if not by_shortcut:
        return {}
    name = "alike_gallery_identification_percent"
    clean = by_shortcut[CLEAN][name]
    return {
        condition: {
            **metrics,
            "stays_percent": 100 * metrics[name] / clean if clean and metrics[name] is not None else None,
        }
        for condition, metrics in by_shortcut.items()
    }

"""Build of a tracer from the outputs of earlier stages: the model, the embeddings and the corpus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from makermark.foundation.arrays import Float32Array
from makermark.foundation.audio import Samples
from makermark.foundation.embeddings import EmbeddingTable, l2_normalise, read_embeddings
from makermark.foundation.errors import ManifestError
from makermark.foundation.manifest import Manifest, has_bonafide, read_bonafide_manifest
from makermark.foundation.params import Params
from makermark.foundation.progress import track
from makermark.models.checkpoint import load_checkpoint
from makermark.tracing.bundle import (
    SPEAKER_COLUMN,
    WHOLE_UTTERANCE,
    ClipSet,
    TracerBundle,
    TracerSettings,
)
from makermark.tracing.calibration import HUMAN_SPEECH, ScoreCalibrator
from makermark.tracing.extractor import ClipExtractor
from makermark.tracing.gallery import TRAINED, Gallery, check_same_model
from makermark.tracing.tracer import Tracer
from makermark.tracing.voice_activity import speech_seconds_of_clips

BATCH_CLIPS = 64  # clips that are embedded together
CLIPS_PER_SPEAKER = 2  # of bona fide speech, at each length


@dataclass(frozen=True)
class BuiltTracer:
    """A tracer calibrated on dev, its bundle, and clips of test for its evaluation.

    - bonafide_test: clips of human speech, of test's speakers; None without such speech
    """

    tracer: Tracer
    bundle: TracerBundle
    test: ClipSet
    bonafide_test: ClipSet | None


def build_tracer(
    params: Params, manifest: Manifest, embeddings: Path, model: Path, *, bonafide_folder: Path
) -> BuiltTracer:
    """Build the tracer of the checkpoint `model` (a path without suffix) with a gallery of all training systems.

    The bona fide speech of `bonafide_folder`, if it has some, is part of the reference population: the clips of dev's
    speakers in the calibration, those of test's speakers in the evaluation.

    Raises TracerError if the embeddings are of another model, CalibrationError if dev does not allow a calibration.
    """
    p = params.trace
    checkpoint = load_checkpoint(model)
    extractor = ClipExtractor(checkpoint, device=params.embed.device)
    all_embeddings = read_embeddings(embeddings)
    check_same_model(all_embeddings.metadata["model_sha256"], checkpoint.digest, what=str(embeddings))
    held_out = manifest.rows[manifest.rows["split"] != "train"]
    files = {
        str(name): manifest.audio_path(str(path))
        for name, path in zip(held_out["utterance_id"], held_out["path"], strict=True)
    }
    dev, test = (
        sample_clips(
            extractor,
            all_embeddings.select_split(split),
            files,
            clip_seconds=p.clip_seconds,
            clips_per_system=p.clips_per_system,
            seed=p.seed,
        )
        for split in ("dev", "test")
    )
    gallery = training_gallery(all_embeddings.select_split("train"), checkpoint.digest)
    # the other settings have the names of their keys in params.yaml
    trace_settings = p.model_dump(include={field.name for field in fields(TracerSettings)})
    settings = TracerSettings(max_seconds=params.features.max_seconds, **trace_settings)
    bonafide_dev = bonafide_test = None
    if has_bonafide(bonafide_folder):
        bonafide = read_bonafide_manifest(bonafide_folder)
        bonafide_dev, bonafide_test = (
            sample_bonafide_clips(extractor, bonafide, split, clip_seconds=p.clip_seconds, seed=p.seed)
            for split in ("dev", "test")
        )
    calibrator = ScoreCalibrator(dev, gallery, prior=p.calibration_prior, seed=p.seed, bonafide=bonafide_dev)
    tracer = Tracer(extractor, gallery, calibrator, settings)
    _ = tracer.calibration, calibrator.pairs  # raise CalibrationError before anything is written
    bundle = TracerBundle(gallery, dev, settings, bonafide=bonafide_dev)
    return BuiltTracer(tracer, bundle, test, bonafide_test)


def training_gallery(train: EmbeddingTable, model_sha256: str) -> Gallery:
    """Return a gallery of the systems of train with all their embeddings."""
    clips = pd.DataFrame(
        {
            "system": train.labels["system"].astype(str),
            "family": train.labels["family"].fillna("").astype(str),
            "origin": TRAINED,
            "clip": train.labels["utterance_id"].astype(str),
        }
    )
    return Gallery(clips, l2_normalise(train.embeddings).astype("float32"), model_sha256)


def sample_clips(
    extractor: ClipExtractor,
    embeddings: EmbeddingTable,
    files: dict[str, Path],
    *,
    clip_seconds: Sequence[float],
    clips_per_system: int,
    seed: int,
) -> ClipSet:
    """Return all whole utterances of `embeddings`, and `clips_per_system` random clips per system and length.

    Whole utterances keep their embeddings; clips are embedded by `extractor`. A clip is a random segment of an
    utterance; a short utterance is first joined with others of the same system and language. `files` maps utterances to
    audio files. Shows a progress bar on a terminal. Raises ManifestError for an utterance without a file, AudioError
    for an unreadable file.
    """
    labels = embeddings.labels
    missing = sorted(set(labels["utterance_id"]) - set(files))
    if missing:
        raise ManifestError(
            f"utterance {missing[0]!r} has an embedding but is not in the manifest; run the embed stage again"
        )
    rows: list[tuple[str, str, float, float, str]] = []  # the columns of ClipSet.rows
    parts: list[Float32Array] = []
    for number, (system, utterances) in enumerate(
        track(list(labels.groupby("system", sort=True)), description="cutting clips of systems")
    ):
        family = str(utterances["family"].iloc[0])
        waveforms = {name: extractor.read(files[name]) for name in utterances["utterance_id"]}
        lengths = {name: len(waveform) for name, waveform in waveforms.items()}
        speech = speech_seconds_of_clips(list(waveforms.values()), extractor.rate_hz)
        rows += [
            (str(system), family, WHOLE_UTTERANCE, of_clip, name)
            for name, of_clip in zip(waveforms, speech, strict=True)
        ]
        parts.append(embeddings.embeddings[utterances.index])
        rng = np.random.default_rng([seed, number])
        for seconds in clip_seconds:
            length = round(seconds * extractor.rate_hz)
            segments = list(_draw_segments(utterances, lengths, length, clips_per_system, rng))
            clips = [
                np.concatenate([waveforms[name] for name in sources])[start : start + length]
                for sources, start in segments
            ]
            speech = speech_seconds_of_clips(clips, extractor.rate_hz)
            rows += [
                (str(system), family, seconds, of_clip, "\n".join(sorted(set(sources))))
                for (sources, _), of_clip in zip(segments, speech, strict=True)
            ]
            parts += [
                extractor.embed(clips[first : first + BATCH_CLIPS])
                for first in range(0, len(clips), BATCH_CLIPS)
            ]
    table = pd.DataFrame(rows, columns=["system", "family", "seconds", "speech_seconds", "sources"])
    return ClipSet(table, l2_normalise(np.concatenate(parts)).astype(np.float32))


def sample_bonafide_clips(
    extractor: ClipExtractor, manifest: Manifest, split: str, *, clip_seconds: Sequence[float], seed: int
) -> ClipSet:
    """Return whole utterances and clips of each length of the speakers of a split: CLIPS_PER_SPEAKER of each.

    A clip is cut as by `sample_clips`, from utterances of one speaker. All clips have HUMAN_SPEECH as their system and
    family, and their speaker in a column of its own. Raises AudioError for an unreadable file.
    """
    rows = manifest.rows[manifest.rows["split"] == split]
    speakers: list[tuple[float, float, str, str]] = []  # seconds, speech, sources, speaker
    waveforms: list[Samples] = []
    for number, (speaker, utterances) in enumerate(rows.groupby("voice", sort=True)):
        audio = {
            str(row.utterance_id): extractor.read(manifest.audio_path(str(row.path)))
            for row in utterances.itertuples()
        }
        lengths = {name: len(waveform) for name, waveform in audio.items()}
        rng = np.random.default_rng([seed, number])
        drawn = [(WHOLE_UTTERANCE, [name], 0, lengths[name]) for name in list(audio)[:CLIPS_PER_SPEAKER]]
        for seconds in clip_seconds:
            length = round(seconds * extractor.rate_hz)
            for sources, start in _draw_segments(utterances, lengths, length, CLIPS_PER_SPEAKER, rng):
                drawn.append((seconds, sources, start, length))
        clips = [
            np.concatenate([audio[name] for name in sources])[start : start + length]
            for _, sources, start, length in drawn
        ]
        speech = speech_seconds_of_clips(clips, extractor.rate_hz)
        speakers += [
            (seconds, of_clip, "\n".join(sorted(set(sources))), str(speaker))
            for (seconds, sources, _, _), of_clip in zip(drawn, speech, strict=True)
        ]
        waveforms += clips
    table = pd.DataFrame(speakers, columns=["seconds", "speech_seconds", "sources", SPEAKER_COLUMN])
    table.insert(0, "system", HUMAN_SPEECH)
    table.insert(1, "family", HUMAN_SPEECH)
    embeddings = np.concatenate(
        [
            extractor.embed(waveforms[first : first + BATCH_CLIPS])
            for first in range(0, len(waveforms), BATCH_CLIPS)
        ]
    )
    return ClipSet(table, l2_normalise(embeddings).astype(np.float32))


def _draw_segments(
    utterances: pd.DataFrame, lengths: dict[str, int], length: int, count: int, rng: np.random.Generator
) -> Iterator[tuple[list[str], int]]:
    """Yield `count` segments of `length` samples: the utterances to join, and the first sample of the segment.

    Each segment starts from a different utterance.
    """
    for first in rng.permutation(len(utterances))[:count]:
        row = utterances.iloc[first]
        same_language = utterances["utterance_id"][utterances["language"] == row["language"]].tolist()
        index = same_language.index(row["utterance_id"])
        sources: list[str] = []
        total = 0
        while total < length:
            name = same_language[(index + len(sources)) % len(same_language)]
            sources.append(name)
            total += lengths[name]
        yield sources, int(rng.integers(total - length + 1))

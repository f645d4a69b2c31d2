"""Dev and test as an examiner might meet them: clips of several lengths, cut from utterances of one system."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from makermark.audio import Samples
from makermark.errors import ManifestError
from makermark.scoring.fusion import unit
from makermark.tracing.calibrating import WHOLE, Clips
from makermark.tracing.hearing import Hearing, speech_seconds
from makermark.vectors import Embeddings

TOGETHER = 64  # clips embedded in one go


def cut(
    hearing: Hearing,
    embeddings: Embeddings,
    files: dict[str, Path],
    *,
    clip_seconds: Sequence[float],
    clips_per_system: int,
    seed: int,
) -> Clips:
    """Every utterance of `embeddings` whole, with the vector it has there, and of each system `clips_per_system` clips
    of each length in `clip_seconds`, heard anew.

    A clip is a random stretch of an utterance; where that is too short, utterances of the same system and language are
    joined to it first. `files` names each utterance's audio. Raises ManifestError for an utterance without one,
    AudioError for one that cannot be heard.
    """
    labels = embeddings.labels
    missing = sorted(set(labels["utterance_id"]) - set(files))
    if missing:
        raise ManifestError(f"utterance {missing[0]!r} was embedded but is not in the manifest; embed again")
    rows, vectors = [], []
    waiting: list[Samples] = []
    for number, (system, some) in enumerate(labels.groupby("system", sort=True)):
        family = str(some["family"].iloc[0])
        waveforms = {name: hearing.read(files[name]) for name in some["utterance_id"]}
        for name, waveform in waveforms.items():
            speech = speech_seconds(waveform, hearing.rate_hz)
            rows.append((system, family, WHOLE, speech, name))
        vectors.append(embeddings.vectors[some.index])
        rng = np.random.default_rng([seed, number])
        for seconds in clip_seconds:
            chosen = list(
                _stretches(some, waveforms, round(seconds * hearing.rate_hz), clips_per_system, rng)
            )
            for clip, sources in chosen:
                speech = speech_seconds(clip, hearing.rate_hz)
                rows.append((system, family, seconds, speech, "\n".join(sources)))
            waiting = [clip for clip, _ in chosen]
            for first in range(0, len(waiting), TOGETHER):
                vectors.append(hearing.vectors(waiting[first : first + TOGETHER]))
    table = pd.DataFrame(rows, columns=["system", "family", "seconds", "speech_seconds", "sources"])
    return Clips(table, unit(np.concatenate(vectors)).astype(np.float32))


def _stretches(
    rows: pd.DataFrame, waveforms: dict[str, Samples], length: int, count: int, rng: np.random.Generator
) -> Iterator[tuple[Samples, list[str]]]:
    """`count` clips of `length` samples, each with the utterances it was cut from, from different first ones."""
    for first in rng.permutation(len(rows))[:count]:
        row = rows.iloc[first]
        alike = rows["utterance_id"][rows["language"] == row["language"]].tolist()
        start = alike.index(row["utterance_id"])
        sources: list[str] = []
        total = 0
        while total < length:
            name = alike[(start + len(sources)) % len(alike)]
            sources.append(name)
            total += len(waveforms[name])
        joined = np.concatenate([waveforms[name] for name in sources])
        begin = int(rng.integers(len(joined) - length + 1))
        yield joined[begin : begin + length], sorted(set(sources))

"""Dev and test as an examiner might meet them: clips of several lengths, cut from utterances of one system."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

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
    joined to it first. `files` names each utterance's audio. Shows a progress bar on a terminal. Raises ManifestError
    for an utterance without audio, AudioError for one that cannot be heard.
    """
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    labels = embeddings.labels
    missing = sorted(set(labels["utterance_id"]) - set(files))
    if missing:
        raise ManifestError(f"utterance {missing[0]!r} was embedded but is not in the manifest; embed again")
    rows, vectors = [], []
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        groups = list(labels.groupby("system", sort=True))
        for number, (system, some) in enumerate(progress.track(groups, description="systems cut to clips")):
            family = str(some["family"].iloc[0])
            lengths = {}
            for name in some["utterance_id"]:
                waveform = hearing.read(files[name])
                lengths[name] = len(waveform)
                rows.append((system, family, WHOLE, speech_seconds(waveform, hearing.rate_hz), name))
            vectors.append(embeddings.vectors[some.index])
            rng = np.random.default_rng([seed, number])
            for seconds in clip_seconds:
                length = round(seconds * hearing.rate_hz)
                clips = []
                for sources, start in _stretches(some, lengths, length, clips_per_system, rng):
                    joined = np.concatenate([hearing.read(files[name]) for name in sources])
                    clips.append(joined[start : start + length])
                    speech = speech_seconds(clips[-1], hearing.rate_hz)
                    rows.append((system, family, seconds, speech, "\n".join(sorted(set(sources)))))
                for first in range(0, len(clips), TOGETHER):
                    vectors.append(hearing.vectors(clips[first : first + TOGETHER]))
    table = pd.DataFrame(rows, columns=["system", "family", "seconds", "speech_seconds", "sources"])
    return Clips(table, unit(np.concatenate(vectors)).astype(np.float32))


def _stretches(
    rows: pd.DataFrame, lengths: dict[str, int], length: int, count: int, rng: np.random.Generator
) -> Iterator[tuple[list[str], int]]:
    """Of `count` clips of `length` samples the utterances to be joined, and where in them it starts: each has another
    first utterance."""
    for first in rng.permutation(len(rows))[:count]:
        row = rows.iloc[first]
        alike = rows["utterance_id"][rows["language"] == row["language"]].tolist()
        start = alike.index(row["utterance_id"])
        sources: list[str] = []
        total = 0
        while total < length:
            name = alike[(start + len(sources)) % len(alike)]
            sources.append(name)
            total += lengths[name]
        yield sources, int(rng.integers(total - length + 1))

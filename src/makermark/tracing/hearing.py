"""From a sound to the vector that stands for it: audio.read, the model's front end and embedding.embed, nothing else.

Legend of axes: N clips, T samples, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from makermark import audio
from makermark.audio import Samples
from makermark.backbones import Backbone
from makermark.checkpoint import Checkpoint, front_end_of
from makermark.device import choose_device, choose_precision
from makermark.embedding import Vectors, embed
from makermark.errors import AudioError
from makermark.features.base import FrontEnd
from makermark.features.cache import FeatureCache
from makermark.features.shard import Shard

LONGEST_SECONDS = 3600.0
FRAME_SECONDS = 0.02
SPEECH_DB = 40.0  # below the loudest frame still counts as speech
SILENCE_DB = -70.0  # below full scale never does


class Hearing:
    """The model of a checkpoint as a function of sound.

    - `rate_hz` of the waveforms it takes
    - `description`: what the checkpoint says of itself
    """

    def __init__(self, checkpoint: Checkpoint, *, device: str = "auto") -> None:
        """Raises CheckpointError where the front end would not compute what it computed in training."""
        self._backbone, self.description = checkpoint.backbone, checkpoint.description
        self._front_end = front_end_of(checkpoint.description)
        settings = checkpoint.description.params["embed"]
        self._device = choose_device(device)
        self._precision = choose_precision(settings["precision"], self._device)
        self._batch_frames = round(settings["batch_seconds"] * self._front_end.frames_per_second)
        self.rate_hz = self._front_end.sample_rate_hz

    def read(self, path: Path) -> Samples:
        """The waveform (T,) of a file, as the features stage reads it; raises AudioError."""
        least = self._front_end.min_samples / self.rate_hz
        return audio.read(path, sample_rate_hz=self.rate_hz, min_seconds=least, max_seconds=LONGEST_SECONDS)

    def take(self, samples: NDArray[np.floating], rate_hz: int) -> Samples:
        """Samples (T,) or (T, channels), full scale 1, at any rate as `read` gives a file's; raises AudioError for what
        it refuses."""
        if not np.issubdtype(np.asarray(samples).dtype, np.floating) or np.ndim(samples) not in (1, 2):
            raise AudioError("samples: not (T,) or (T, channels) of floating-point numbers, full scale 1")
        if not rate_hz > 0:
            raise AudioError(f"samples: a rate of {rate_hz} Hz is none")
        mixed = np.asarray(samples, dtype=np.float32)
        mixed = mixed if mixed.ndim == 1 else mixed.mean(axis=1)
        if not np.isfinite(mixed).all():
            raise AudioError("samples: some are NaN or infinite")
        if not mixed.size or mixed.min() == mixed.max():
            raise AudioError("samples: silent, all are the same")
        if mixed.size / rate_hz > LONGEST_SECONDS:
            raise AudioError(f"samples: too long, at most {LONGEST_SECONDS:g} s are taken")
        if rate_hz != self.rate_hz:
            import soxr

            mixed = soxr.resample(mixed, rate_hz, self.rate_hz, quality="HQ")
        if len(mixed) < self._front_end.min_samples:
            raise AudioError(f"samples: too short, {self._front_end.min_samples} at least")
        return mixed

    @property
    def network(self) -> Backbone:
        """The backbone, in evaluation mode on its device."""
        return self._backbone.to(self._device).eval()

    @property
    def front_end(self) -> FrontEnd:
        """Where its features come from."""
        return self._front_end

    def vectors(self, waveforms: Sequence[Samples]) -> Vectors:
        """(N, D), of whole waveforms, as the embed stage gives them."""
        found = self._front_end.transform(waveforms)
        shard = Shard(
            path=Path("memory"),
            identity="",
            checksum=0,
            quarantine=[],
            utterance_ids=[str(number) for number in range(len(found))],
            frames=np.array([len(each) for each in found], dtype=np.int32),
            values=np.concatenate(found),
        )
        return embed(
            self._backbone,
            FeatureCache([shard], self._front_end.parameters()),
            np.arange(len(found)),
            batch_frames=self._batch_frames,
            device=self._device,
            precision=self._precision,
        )


def speech_seconds(waveform: Samples, rate_hz: int) -> float:
    """How long somebody speaks: frames of 20 ms no more than 40 dB below the loudest, and above -70 dB of full scale.

    By energy alone: steady noise counts as speech.
    """
    size = max(1, round(FRAME_SECONDS * rate_hz))
    frames = np.resize(waveform, (max(1, len(waveform) // size), size)).astype(np.float64)
    level_db = 10 * np.log10(np.maximum(np.mean(frames**2, axis=1), 1e-20))
    speech = level_db > max(float(level_db.max()) - SPEECH_DB, SILENCE_DB)
    return float(np.count_nonzero(speech) * size / rate_hz)


def windows(length: int, *, size: int, hop: int) -> list[tuple[int, int]]:
    """(start, end) in samples of windows over `length` samples: whole ones, the last one ending where the sound does.

    One window, all of it, where there is no room for two.
    """
    if length < size + hop:
        return [(0, length)]
    starts = list(range(0, length - size + 1, hop))
    if starts[-1] + size < length:
        starts.append(length - size)
    return [(start, start + size) for start in starts]


def pieces(length: int, *, longest: int) -> list[tuple[int, int]]:
    """(start, end) of pieces of at most `longest` samples and nearly the same length that follow one another."""
    count = max(1, math.ceil(length / longest))
    edges = np.linspace(0, length, count + 1).round().astype(int).tolist()
    return list(pairwise(edges))

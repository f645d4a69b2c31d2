"""Embedding extractor: from a file or from samples to the embeddings of a clip and of its windows.

Legend of axes: N clips, T samples, D dimensions, W windows.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from makermark.features.cache import length_batches
from makermark.features.front_end import FrontEnd
from makermark.foundation import audio
from makermark.foundation.arrays import Float32Array, FloatArray
from makermark.foundation.audio import Recording, Samples
from makermark.foundation.device import choose_device, choose_precision
from makermark.foundation.embeddings import l2_normalise
from makermark.foundation.errors import AudioError
from makermark.models.backbones import Backbone
from makermark.models.checkpoint import Checkpoint, rebuild_front_end
from makermark.models.extraction import embed
from makermark.tracing.voice_activity import speech_between, speech_frames

Audio = Path | str | tuple[NDArray[np.floating[Any]], int]  # a file, or samples and their sample rate in Hz
Span = tuple[int, int]  # start and end in samples

MAX_CLIP_SECONDS = 3600.0
BATCH_FILES = 32  # files that are read and embedded together
BATCH_BYTES = 1 << 25  # largest total size of such files


@dataclass(frozen=True)
class ClipEmbedding:
    """Embeddings of a clip, of unit length, and its amounts of speech.

    - embedding (D,): of the whole clip; of a long clip, the mean over its pieces
    - window_spans_s, window_embeddings (W, D), window_speech_s (W,): empty for a clip that is too short for two windows
    """

    embedding: Float32Array
    duration_s: float
    speech_s: float
    window_spans_s: list[tuple[float, float]]
    window_embeddings: Float32Array
    window_speech_s: FloatArray


class ClipExtractor:
    """Front end and backbone of a checkpoint, applied to waveforms.

    - metadata: metadata of the checkpoint
    - front_end: computes the features
    - rate_hz: sample rate of the waveforms
    - max_clip_seconds: longest clip that is read
    """

    def __init__(self, checkpoint: Checkpoint, *, device: str = "auto") -> None:
        """Raises CheckpointError if the front end would not compute the features that the model was trained on."""
        self._backbone, self.metadata = checkpoint.backbone, checkpoint.metadata
        self.front_end: FrontEnd = rebuild_front_end(checkpoint.metadata)
        self.rate_hz = self.front_end.sample_rate_hz
        settings = checkpoint.metadata.params["embed"]
        self.max_clip_seconds = MAX_CLIP_SECONDS
        self._device = choose_device(device)
        self._precision = choose_precision(settings["precision"], self._device)
        self._batch_frames = round(settings["batch_seconds"] * self.front_end.frames_per_second)

    @property
    def backbone(self) -> Backbone:
        """The backbone in evaluation mode, on the device of this extractor."""
        return self._backbone.to(self._device).eval()

    def load(self, clip: Audio) -> Recording:
        """Return the waveform (T,) of a file or of samples, at `rate_hz`, with notes on the file; raises AudioError."""
        if isinstance(clip, tuple):
            return self.prepare_samples(*clip)
        min_seconds = self.front_end.min_samples / self.rate_hz
        return audio.load(
            Path(clip),
            sample_rate_hz=self.rate_hz,
            min_seconds=min_seconds,
            max_seconds=self.max_clip_seconds,
        )

    def read(self, clip: Audio) -> Samples:
        """Return the waveform (T,) of a file or of samples, at `rate_hz`; raises AudioError."""
        return self.load(clip).waveform

    def prepare_samples(self, samples: NDArray[np.floating[Any]], rate_hz: int) -> Recording:
        """Mix samples (T,) or (T, channels), full scale 1, down to one channel and resample them to `self.rate_hz`.

        Raises AudioError if they are not valid, silent, too long or too short.
        """
        if not np.issubdtype(np.asarray(samples).dtype, np.floating) or np.ndim(samples) not in (1, 2):
            raise AudioError("samples: not a floating-point array (T,) or (T, channels) with full scale 1")
        if not rate_hz > 0:
            raise AudioError(f"samples: sample rate {rate_hz} Hz is not above 0")
        mixed = np.asarray(samples, dtype=np.float32)
        channels = 1 if mixed.ndim == 1 else mixed.shape[1]
        notes: list[str] = []
        if mixed.ndim == 2 and mixed.size:
            mixed = audio.mix_channels(mixed, rate_hz, notes)
        if not np.isfinite(mixed).all():
            raise AudioError("samples: some values are NaN or infinite")
        if not mixed.size or mixed.min() == mixed.max():
            raise AudioError("samples: silent, all values are equal")
        if mixed.size / rate_hz > self.max_clip_seconds:
            raise AudioError(
                f"samples: too long, {mixed.size / rate_hz:.0f} s; the maximum is {self.max_clip_seconds:g} s"
            )
        if rate_hz != self.rate_hz:
            import soxr

            mixed = soxr.resample(mixed, rate_hz, self.rate_hz, quality="HQ")
        if len(mixed) < self.front_end.min_samples:
            raise AudioError(
                f"samples: too short, {len(mixed)} at {self.rate_hz} Hz; the minimum is {self.front_end.min_samples}"
            )
        return Recording(mixed, rate_hz=rate_hz, channels=channels, decoder="", sha256="", notes=tuple(notes))

    def embed(self, waveforms: Sequence[Samples]) -> Float32Array:
        """Return the embeddings (N, D) of whole waveforms, not normalised, equal to those of the embed stage."""
        features = self.front_end.transform(waveforms)
        batches = length_batches(
            np.array([len(frames) for frames in features], dtype=np.int64),
            features.__getitem__,
            max_frames=self._batch_frames,
            min_frames=self._backbone.min_frames,
        )
        return embed(self._backbone, batches, device=self._device, precision=self._precision)

    def embed_clips(
        self, waveforms: Sequence[Samples], *, max_seconds: float, window_seconds: float, hop_seconds: float
    ) -> list[ClipEmbedding]:
        """Return the embeddings of whole clips and of their windows; all are computed together.

        A clip longer than `max_seconds` is embedded in pieces, and its embedding is the mean over the pieces.
        """
        rate = self.rate_hz
        segments: list[Samples] = []
        layout: list[tuple[int, list[Span]]] = []  # of each clip: the number of pieces, and the windows
        for waveform in waveforms:
            pieces = split_pieces(len(waveform), longest=round(max_seconds * rate))
            windows = split_windows(
                len(waveform), size=round(window_seconds * rate), hop=round(hop_seconds * rate)
            )
            windows = windows if len(windows) > 1 else []
            layout.append((len(pieces), windows))
            segments += [waveform[start:end] for start, end in [*pieces, *windows]]
        if not segments:
            return []
        embeddings = l2_normalise(self.embed(segments)).astype(np.float32)
        clips, first = [], 0
        for waveform, (num_pieces, windows) in zip(waveforms, layout, strict=True):
            middle, last = first + num_pieces, first + num_pieces + len(windows)
            duration_s, spans_s = len(waveform) / rate, [(start / rate, end / rate) for start, end in windows]
            frames = speech_frames(waveform, rate)
            clips.append(
                ClipEmbedding(
                    embedding=l2_normalise(embeddings[first:middle].mean(axis=0, keepdims=True))[0],
                    duration_s=duration_s,
                    speech_s=speech_between(frames, 0.0, duration_s),
                    window_spans_s=spans_s,
                    window_embeddings=embeddings[middle:last],
                    window_speech_s=np.array([speech_between(frames, *span) for span in spans_s]),
                )
            )
            first = last
        return clips


def split_windows(length: int, *, size: int, hop: int) -> list[Span]:
    """Return overlapping windows over `length` samples; the last one ends at the last sample.

    Returns one window over all samples if there is no room for two.
    """
    if length < size + hop:
        return [(0, length)]
    starts = list(range(0, length - size + 1, hop))
    if starts[-1] + size < length:
        starts.append(length - size)
    return [(start, start + size) for start in starts]


def split_pieces(length: int, *, longest: int) -> list[Span]:
    """Return consecutive pieces of nearly equal size, none longer than `longest` samples."""
    count = max(1, math.ceil(length / longest))
    edges = np.linspace(0, length, count + 1).round().astype(int).tolist()
    return list(pairwise(edges))


def batch_files(files: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield batches of at most BATCH_FILES files and BATCH_BYTES bytes; a larger file forms a batch of its own."""
    batch: list[Path] = []
    total = 0
    for path in files:
        size = os.path.getsize(path) if os.path.isfile(path) else 0  # False too for a path that cannot exist
        if batch and (len(batch) == BATCH_FILES or total + size > BATCH_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(path)
        total += size
    if batch:
        yield batch


def clip_name(clip: Audio) -> str:
    """Return the path of a clip as text, or `samples`."""
    return "samples" if isinstance(clip, tuple) else str(clip)

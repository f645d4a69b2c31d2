"""Hidden states of a frozen pretrained encoder, stored as float16.

Axes: B batch, T' frames of 20 ms, H hidden size.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from makermark.features.front_end import MINUTE_SAMPLES, Features, Scalar
from makermark.foundation.audio import RESAMPLER, Samples
from makermark.foundation.errors import ParamsError

if TYPE_CHECKING:
    from makermark.features.encoders import Architecture, Encoder

LOADING = threading.Lock()  # threads that share a front end load its encoder once
DEVICES = ("auto", "cpu", "cuda", "mps")
FLOAT16_MAX = 65504.0


class SslFeatures:
    """One hidden state of the encoder `model`, a Hugging Face name or a local folder.

    `layer` counts from 0, the input of the first Transformer block; `last` is the highest. All families of
    `makermark.features.encoders` are supported. Batches of up to `batch_seconds` seconds of audio, padding included,
    run in float32 on `device`; both settings affect speed, not features. Threads share the encoder.

    Raises ParamsError for a setting out of range, and for the layer `weighted`, which is learned in training.
    """

    name = "wav2vec2"
    dtype: np.dtype[Any] = np.dtype(np.float16)
    frames_per_second = 50.0
    sample_rate_hz = 16000
    chunk_samples = (
        45 * MINUTE_SAMPLES
    )  # a shard, 170 MB: sorted by length, so many utterances need little padding
    min_samples = 400  # one frame of wav2vec 2.0; Whisper would accept less

    def __init__(self, *, model: str, layer: int | str, batch_seconds: float, device: str) -> None:
        if not batch_seconds > 0:
            raise ParamsError(f"front end wav2vec2: batch_seconds is {batch_seconds}; it must be above 0")
        if layer == "weighted":
            raise ParamsError(
                "ssl.layer: weighted is learned in training and needs waveforms; the wav2vec2 cache holds one layer, "
                "a number or last: change ssl.layer, or remove wav2vec2 from features.front_ends"
            )
        if device not in DEVICES:
            raise ParamsError(f"front end wav2vec2: device is {device!r}; it must be one of {list(DEVICES)}")
        self._model, self._layer = model, layer
        self._batch_samples = batch_seconds * self.sample_rate_hz
        self._device = device
        self._encoder: Encoder | None = None

    @property
    def width(self) -> int:
        return self._architecture.width

    def parameters(self) -> dict[str, Scalar]:
        """Return the parameters, with hashes of the encoder instead of its path. The first call loads the encoder."""
        return dict(self._parameters)

    def libraries(self) -> Sequence[str]:
        return ("numpy", "soundfile", "soxr", "torch", "transformers")

    def transform(self, waveforms: Sequence[Samples]) -> list[Features]:
        """Return features (T', H) float16 of each waveform. Raises ValueError for fewer than `min_samples` samples.

        Waveforms of similar length share a batch.
        """
        if not waveforms:
            return []
        features: list[Features] = [np.empty(0)] * len(waveforms)
        for batch in self._length_batches(waveforms):
            for index, states in zip(batch, self._encode([waveforms[i] for i in batch]), strict=True):
                features[index] = states
        return features

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_encoder": None}  # another process loads its own

    @cached_property
    def _architecture(self) -> Architecture:
        from makermark.features import encoders

        return encoders.describe(self._model, layer=self._layer)

    @cached_property
    def _parameters(self) -> dict[str, Scalar]:
        from makermark.features import encoders

        encoder = self._load_encoder()
        return {
            "front_end": self.name,
            "model": f"{encoder.architecture.config['model_type']}, {encoder.width} wide",
            "layer": str(self._layer),
            "config_sha256": encoders.config_sha256(self._model),
            "weights_sha256": encoders.weights_sha256(encoder),
            "normalise": encoder.architecture.normalise,
            "sample_rate_hz": self.sample_rate_hz,
            "resampler": RESAMPLER,
            "dtype": self.dtype.name,
        }

    def _load_encoder(self) -> Encoder:
        from makermark.features import encoders
        from makermark.foundation.device import choose_device

        with LOADING:
            if self._encoder is None:
                encoder = encoders.load(self._model, layer=self._layer).eval().requires_grad_(False)
                self._encoder = encoder.to(choose_device(self._device))
            return self._encoder

    def _length_batches(self, waveforms: Sequence[Samples]) -> Iterator[list[int]]:
        """Yield indices of waveforms, shortest first, in batches of at most `batch_seconds`, padding included."""
        batch: list[int] = []
        for index in sorted(range(len(waveforms)), key=lambda i: len(waveforms[i])):
            if batch and (len(batch) + 1) * len(waveforms[index]) > self._batch_samples:
                yield batch
                batch = []
            batch.append(index)
        yield batch

    def _encode(self, waveforms: Sequence[Samples]) -> list[Features]:
        import torch

        from makermark.foundation.device import choose_device

        encoder, device = self._load_encoder(), choose_device(self._device)
        lengths = [len(waveform) for waveform in waveforms]
        if min(lengths) < self.min_samples:
            raise ValueError(f"{min(lengths)} samples; wav2vec2 needs at least {self.min_samples}")
        padded = np.zeros((len(waveforms), max(lengths)), dtype=np.float32)
        for row, waveform in zip(padded, waveforms, strict=True):
            row[: len(waveform)] = waveform
        with torch.inference_mode():
            (states,), frames = encoder(
                torch.from_numpy(padded).to(device), torch.tensor(lengths, device=device)
            )
            halves = states.clamp(-FLOAT16_MAX, FLOAT16_MAX).half().cpu().numpy()  # (B, T', H)
        return [np.array(row[:count]) for row, count in zip(halves, frames.tolist(), strict=True)]

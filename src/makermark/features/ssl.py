"""Hidden states of a frozen pretrained encoder, computed once (a cache in float16).

Legend of axes: B batch, T' frames of 20 ms, H hidden size.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from makermark.audio import RESAMPLER, Samples
from makermark.errors import ParamsError
from makermark.features.base import MINUTE, Features, Scalar

if TYPE_CHECKING:
    from makermark.encoders import Architecture, Encoder

LOADING = threading.Lock()  # threads that share a front end share one encoder
DEVICES = ("auto", "cpu", "cuda", "mps")
LARGEST = 65504.0  # of float16
SAMPLES_AT_ONCE = 45 * MINUTE  # a shard, 170 MB: of so many utterances neighbours in length are alike


class SslFeatures:
    """One hidden state of `model`, a Hugging Face name or local folder: `layer` counts from 0, the input of the
    first Transformer block; `last` is the highest. All 16 kHz families of `makermark.encoders` serve.

    `batch_seconds` of audio, padding included, pass through the encoder at once, on `device`, in float32: they
    change the speed, not the features. Threads that write a cache share the encoder.
    """

    name = "wav2vec2"
    dtype: np.dtype[Any] = np.dtype(np.float16)
    frames_per_second = 50.0
    sample_rate_hz = 16000
    samples_at_once = SAMPLES_AT_ONCE
    min_samples = 400  # of one frame of wav2vec 2.0; Whisper would take less

    def __init__(self, *, model: str, layer: int | str, batch_seconds: float, device: str) -> None:
        if not batch_seconds > 0:
            raise ParamsError(f"front end wav2vec2: batch_seconds is {batch_seconds}; it is above 0")
        if layer == "weighted":
            raise ParamsError(
                "ssl.layer: weighted is learned in training and reads waveforms; the wav2vec2 cache holds one layer, "
                "a number or last: change ssl.layer, or take wav2vec2 out of features.front_ends"
            )
        if device not in DEVICES:
            raise ParamsError(f"front end wav2vec2: device is {device!r}; it is one of {list(DEVICES)}")
        self._model, self._layer = model, layer
        self._batch_samples = batch_seconds * self.sample_rate_hz
        self._device = device
        self._encoder: Encoder | None = None

    @property
    def width(self) -> int:
        return self._architecture.width

    def parameters(self) -> dict[str, Scalar]:
        """The model by what it is, not by where it lies: the first call loads it."""
        return dict(self._parameters)

    def libraries(self) -> Sequence[str]:
        return ("numpy", "soundfile", "soxr", "torch", "transformers")

    def transform(self, waveforms: Sequence[Samples]) -> list[Features]:
        """Each (T', H) float16; neighbours in length share a pass."""
        if not waveforms:
            return []
        found: list[Features] = [np.empty(0)] * len(waveforms)
        for batch in self._by_length(waveforms):
            for place, features in zip(batch, self._pass([waveforms[i] for i in batch]), strict=True):
                found[place] = features
        return found

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_encoder": None}  # another process loads its own

    @cached_property
    def _architecture(self) -> Architecture:
        from makermark import encoders

        return encoders.describe(self._model, layer=self._layer)

    @cached_property
    def _parameters(self) -> dict[str, Scalar]:
        from makermark import encoders

        encoder = self._loaded()
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

    def _loaded(self) -> Encoder:
        from makermark import encoders
        from makermark.device import choose_device

        with LOADING:
            if self._encoder is None:
                encoder = encoders.load(self._model, layer=self._layer).eval().requires_grad_(False)
                self._encoder = encoder.to(choose_device(self._device))
            return self._encoder

    def _by_length(self, waveforms: Sequence[Samples]) -> Iterator[list[int]]:
        """Places of waveforms, shortest first, as many as fill a batch with the longest of them."""
        batch: list[int] = []
        for place in sorted(range(len(waveforms)), key=lambda i: len(waveforms[i])):
            if batch and (len(batch) + 1) * len(waveforms[place]) > self._batch_samples:
                yield batch
                batch = []
            batch.append(place)
        yield batch

    def _pass(self, waveforms: Sequence[Samples]) -> list[Features]:
        import torch

        from makermark.device import choose_device

        encoder, device = self._loaded(), choose_device(self._device)
        counts = [len(waveform) for waveform in waveforms]
        if min(counts) < self.min_samples:
            raise ValueError(f"{min(counts)} samples; wav2vec2 needs at least {self.min_samples}")
        padded = np.zeros((len(waveforms), max(counts)), dtype=np.float32)
        for row, waveform in zip(padded, waveforms, strict=True):
            row[: len(waveform)] = waveform
        with torch.inference_mode():
            lengths = torch.tensor(counts, device=device)
            (states,), frames = encoder(torch.from_numpy(padded).to(device), lengths)
            halves = states.clamp(-LARGEST, LARGEST).half().cpu().numpy()  # (B, T', H)
        return [np.array(row[:count]) for row, count in zip(halves, frames.tolist(), strict=True)]

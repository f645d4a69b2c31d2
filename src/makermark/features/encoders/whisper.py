"""Whisper's encoder (Radford et al. 2023) over log-mels of fixed 30 s windows.

Axes: B batch, T samples, P windows per utterance, W samples per window, T' frames of 20 ms, H hidden size.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from makermark.features.encoders.base import (
    HOP_SAMPLES,
    SAMPLE_RATE_HZ,
    Architecture,
    Encoder,
    prepare_waveforms,
)

N_FFT = 400
MEL_HOP_SAMPLES = 160  # the second convolution halves the rate


class WhisperEncoder(Encoder):
    """A `WhisperEncoder` of transformers.

    Its input has a fixed length: a window of `max_source_positions` frames (30 s), zero-padded. Every utterance has
    windows of its own, a longer one several in a row. Of their frames, those up to the utterance's end are returned,
    one per 320 samples begun. So an utterance in a batch has the padding that it has alone, and one second of speech
    costs as much as thirty.
    """

    blocks_key, hidden_size_key = "encoder_layers", "d_model"
    preprocessor = "WhisperFeatureExtractor"
    key_mapping: ClassVar[dict[str, str]] = {r"^(model\.)?encoder\.": ""}
    filters: Tensor  # (n_fft / 2 + 1, bands)
    window: Tensor  # (n_fft,)
    min_samples = 1

    def __init__(self, model: Any, architecture: Architecture) -> None:
        super().__init__(model, architecture)
        config = model.config
        if not architecture.final_norm:
            model.layer_norm = nn.Identity()
        model.embed_positions.requires_grad_(False)  # fixed sinusoids
        self._window_frames = int(config.max_source_positions)
        with torch.device(
            "cpu"
        ):  # constants: they need values also when the model is built on the meta device
            self.register_buffer("filters", mel_filters(config.num_mel_bins), persistent=False)
            self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> tuple[list[Tensor], Tensor | None]:
        rows, samples = waveforms.shape
        ends = lengths if lengths is not None else waveforms.new_full((rows,), samples, dtype=torch.long)
        window_samples = self._window_frames * HOP_SAMPLES  # W
        with torch.autocast(waveforms.device.type, enabled=False):
            prepared = prepare_waveforms(waveforms, lengths, normalise=self.architecture.normalise)
            padded = F.pad(prepared, (0, -samples % window_samples))
            windows = padded.reshape(rows, -1, window_samples)  # (B, P, W)
            starts = torch.arange(windows.shape[1], device=ends.device) * window_samples
            used = starts < ends[:, None]  # (B, P)
            log_mels = compute_log_mels(windows[used], self.filters, self.window)
        out = self.model(log_mels, output_hidden_states=self.architecture.weighted)
        frame_lengths = -(-ends // HOP_SAMPLES)
        states = []
        for layer in self.select_states(out):  # (used windows, T' of a window, H)
            state = layer.new_zeros(*used.shape, *layer.shape[1:])
            state[used] = layer
            states.append(state.flatten(1, 2)[:, : int(frame_lengths.max())])
        return states, None if lengths is None else frame_lengths

    def freeze_convolutions(self) -> None:
        self.model.conv1.requires_grad_(False)
        self.model.conv2.requires_grad_(False)


def mel_filters(bands: int) -> Tensor:
    """Return Slaney's mel filters (N_FFT / 2 + 1, bands) up to half of the sample rate."""
    bins, highest_hz = N_FFT // 2 + 1, SAMPLE_RATE_HZ / 2
    filters: Tensor = melscale_fbanks(
        bins, 0.0, highest_hz, bands, SAMPLE_RATE_HZ, norm="slaney", mel_scale="slaney"
    )
    return filters


def compute_log_mels(windows: Tensor, filters: Tensor, window: Tensor) -> Tensor:
    """Return log-mels (windows, bands, spectra) of waveforms (windows, W), as Whisper's preprocessor computes them.

    `filters`: those of `mel_filters`. `window`: a Hann window (N_FFT,). Decadic logarithms are clipped at 8 below the
    maximum of each waveform and scaled as (x + 4) / 4.
    """
    spectra = torch.stft(windows, N_FFT, MEL_HOP_SAMPLES, window=window, return_complex=True)
    mels = filters.T @ spectra[..., :-1].abs().square()
    logs = mels.clamp(min=1e-10).log10()
    logs = torch.maximum(logs, logs.amax(dim=(1, 2), keepdim=True) - 8)
    return (logs + 4) / 4

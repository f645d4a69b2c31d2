"""Whisper's encoder (Radford et al. 2023) over log-mels of fixed 30 s windows.

Legend of axes: B batch, T samples, P windows, W samples of a window, T' frames of 20 ms, H hidden size.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from makermark.encoders.base import HOP_SAMPLES, SAMPLE_RATE_HZ, Architecture, Encoder, prepared

N_FFT = 400
MEL_HOP = 160  # samples between spectra; the second convolution halves their rate


class WhisperEncoder(Encoder):
    """A `WhisperEncoder` of transformers.

    It knows one length: a window of `max_source_positions` frames (30 s), silence after the utterance. Every
    utterance is laid in windows of its own, a longer one in successive windows; of their frames those up to
    the utterance's end are given, one for each 320 samples begun. So nothing is padded that an utterance
    would not have alone, and a second of speech costs as much as thirty.
    """

    blocks, hidden = "encoder_layers", "d_model"  # keys of its configuration
    preprocessor = "WhisperFeatureExtractor"
    key_mapping: ClassVar[dict[str, str]] = {r"^(model\.)?encoder\.": ""}  # from names in a file of weights
    filters: Tensor  # (n_fft / 2 + 1, bands)
    window: Tensor  # (n_fft,)
    min_samples = 1

    def __init__(self, model: Any, architecture: Architecture) -> None:
        super().__init__()
        config = model.config
        if not architecture.final_norm:
            model.layer_norm = nn.Identity()
        model.embed_positions.requires_grad_(False)  # sinusoids
        self.model = model
        self.architecture = architecture
        self.width = architecture.width
        self.states = config.encoder_layers + 1 if architecture.weighted else 1
        self._window_frames = int(config.max_source_positions)
        with torch.device("cpu"):  # computed, not initial weights: they have values on the meta device too
            filters = melscale_fbanks(
                N_FFT // 2 + 1,
                0.0,
                SAMPLE_RATE_HZ / 2,
                config.num_mel_bins,
                SAMPLE_RATE_HZ,
                norm="slaney",
                mel_scale="slaney",
            )
            self.register_buffer("filters", filters, persistent=False)
            self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> tuple[list[Tensor], Tensor | None]:
        rows, samples = waveforms.shape
        ends = lengths if lengths is not None else waveforms.new_full((rows,), samples, dtype=torch.long)
        span = self._window_frames * HOP_SAMPLES  # W
        with torch.autocast(waveforms.device.type, enabled=False):
            whole = prepared(waveforms, lengths, normalise=self.architecture.normalise)
            windows = F.pad(whole, (0, -samples % span)).reshape(rows, -1, span)  # (B, P, W)
            starts = torch.arange(windows.shape[1], device=ends.device) * span
            used = starts < ends[:, None]  # (B, P)
            log_mels = self.log_mels(windows[used])
        weighted = self.architecture.weighted
        out = self.model(log_mels, output_hidden_states=weighted)
        found = [*out.hidden_states[:-1], out.last_hidden_state] if weighted else [out.last_hidden_state]
        frame_lengths = -(-ends // HOP_SAMPLES)
        states = []
        for state in found:  # (windows used, T' of a window, H)
            laid = state.new_zeros(*used.shape, *state.shape[1:])
            laid[used] = state
            states.append(laid.flatten(1, 2)[:, : int(frame_lengths.max())])
        return states, None if lengths is None else frame_lengths

    def log_mels(self, windows: Tensor) -> Tensor:
        """(windows, bands, spectra) of waveforms (windows, W): decadic logarithms, at most 8 below each window's
        highest, then (x + 4) / 4."""
        spectra = torch.stft(windows, N_FFT, MEL_HOP, window=self.window, return_complex=True)[..., :-1]
        mels = self.filters.T @ spectra.abs().square()
        logs = mels.clamp(min=1e-10).log10()
        logs = torch.maximum(logs, logs.amax(dim=(1, 2), keepdim=True) - 8)
        return (logs + 4) / 4

    def freeze_front(self) -> None:
        self.model.conv1.requires_grad_(False)
        self.model.conv2.requires_grad_(False)

    def checkpoint_gradients(self) -> None:
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

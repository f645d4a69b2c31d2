"""Encoders over the raw waveform: wav2vec 2.0 (Baevski et al. 2020; XLS-R: Babu et al. 2022), HuBERT, WavLM.

Axes: B batch, T samples, T' frames of 20 ms, H hidden size, L Transformer blocks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.features.encoders.base import Architecture, Encoder, prepare_waveforms, sample_mask


class Wav2Vec2Encoder(Encoder):
    """A `Wav2Vec2Model` of transformers, or a model with the same modules (HuBERT, WavLM).

    Models whose first convolution is normalised over time (`feat_extract_norm: group`, such as wav2vec2-base and
    hubert-base) cannot mask padding, because it would count in the normalisation: they run once per distinct length.
    All others run the padded batch with an attention mask.
    """

    blocks_key, hidden_size_key = "num_hidden_layers", "hidden_size"
    preprocessor = "Wav2Vec2FeatureExtractor"

    def __init__(self, model: Any, architecture: Architecture) -> None:
        super().__init__(model, architecture)
        config = model.config
        if not architecture.final_norm and config.do_stable_layer_norm:
            model.encoder.layer_norm = (
                nn.Identity()
            )  # without stable layer norm it comes before the first block
        self.min_samples = _receptive_field(config.conv_kernel, config.conv_stride)
        self._maskable = config.feat_extract_norm != "group"

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> tuple[list[Tensor], Tensor | None]:
        if lengths is not None and not self._maskable:
            return self._forward_per_length(waveforms, lengths)
        with torch.autocast(waveforms.device.type, enabled=False):
            samples = prepare_waveforms(waveforms, lengths, normalise=self.architecture.normalise)
        mask = None if lengths is None else sample_mask(lengths, waveforms.shape[1]).long()
        out = self.model(samples, attention_mask=mask, output_hidden_states=self.architecture.weighted)
        return self.select_states(out), None if lengths is None else self._frame_lengths(lengths)

    def freeze_convolutions(self) -> None:
        self.model.feature_extractor._freeze_parameters()

    def _forward_per_length(self, waveforms: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        frame_lengths = self._frame_lengths(lengths)
        longest = int(frame_lengths.max())
        rows = [(lengths == length).nonzero().squeeze(1) for length in sorted(set(lengths.tolist()))]
        parts = [self(waveforms[group, : int(lengths[group[0]])])[0] for group in rows]
        order = torch.cat(rows).argsort()
        states = [
            torch.cat([F.pad(state, (0, 0, 0, longest - state.shape[1])) for state in layer])[order]
            for layer in zip(*parts, strict=True)
        ]
        return states, frame_lengths

    def _frame_lengths(self, lengths: Tensor) -> Tensor:
        for kernel, stride in zip(self.model.config.conv_kernel, self.model.config.conv_stride, strict=True):
            lengths = (lengths - kernel).div(stride, rounding_mode="floor") + 1
        return lengths


def _receptive_field(kernels: list[int], strides: list[int]) -> int:
    """Return the number of samples that one frame depends on."""
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples

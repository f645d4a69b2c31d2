"""Encoders over the raw waveform: wav2vec 2.0 (Baevski et al. 2020; XLS-R: Babu et al. 2022), HuBERT, WavLM.

Legend of axes: B batch, T samples, T' frames of 20 ms, H hidden size, L Transformer blocks.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.encoders.base import Architecture, Encoder, inside, prepared


class Wav2Vec2Encoder(Encoder):
    """A `Wav2Vec2Model` of transformers, or one with the same parts (HuBERT, WavLM).

    Models whose first convolution is normalised over time (`feat_extract_norm: group`, such as wav2vec2-base
    and hubert-base) cannot be masked, since what pads would count in that norm: they run once per distinct
    length. All others run the padded batch with an attention mask.
    """

    blocks, hidden = "num_hidden_layers", "hidden_size"  # keys of its configuration
    preprocessor = "Wav2Vec2FeatureExtractor"
    key_mapping: ClassVar[dict[str, str]] = {}  # from names in a file of weights

    def __init__(self, model: Any, architecture: Architecture) -> None:
        super().__init__()
        config = model.config
        if not architecture.final_norm and config.do_stable_layer_norm:
            model.encoder.layer_norm = nn.Identity()  # the other variant normalises below its first block
        self.model = model
        self.architecture = architecture
        self.width = architecture.width
        self.states = config.num_hidden_layers + 1 if architecture.weighted else 1
        self.min_samples = _receptive_field(config.conv_kernel, config.conv_stride)
        self._maskable = config.feat_extract_norm != "group"

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> tuple[list[Tensor], Tensor | None]:
        if lengths is not None and not self._maskable:
            return self._by_length(waveforms, lengths)
        with torch.autocast(waveforms.device.type, enabled=False):
            samples = prepared(waveforms, lengths, normalise=self.architecture.normalise)
        mask = None if lengths is None else inside(lengths, waveforms.shape[1]).long()
        weighted = self.architecture.weighted
        out = self.model(samples, attention_mask=mask, output_hidden_states=weighted)
        states = [*out.hidden_states[:-1], out.last_hidden_state] if weighted else [out.last_hidden_state]
        return states, None if lengths is None else self._frames(lengths)

    def freeze_front(self) -> None:
        self.model.feature_extractor._freeze_parameters()

    def checkpoint_gradients(self) -> None:
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def _by_length(self, waveforms: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        frame_lengths = self._frames(lengths)
        longest = int(frame_lengths.max())
        rows = [(lengths == length).nonzero().squeeze(1) for length in sorted(set(lengths.tolist()))]
        parts = [self(waveforms[of_length, : int(lengths[of_length[0]])])[0] for of_length in rows]
        order = torch.cat(rows).argsort()
        states = [
            torch.cat([F.pad(state, (0, 0, 0, longest - state.shape[1])) for state in of_all])[order]
            for of_all in zip(*parts, strict=True)
        ]
        return states, frame_lengths

    def _frames(self, lengths: Tensor) -> Tensor:
        for kernel, stride in zip(self.model.config.conv_kernel, self.model.config.conv_stride, strict=True):
            lengths = (lengths - kernel).div(stride, rounding_mode="floor") + 1
        return lengths


def _receptive_field(kernels: list[int], strides: list[int]) -> int:
    """The samples that one frame sees."""
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples

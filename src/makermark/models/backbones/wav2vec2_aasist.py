"""A pretrained SSL encoder, such as wav2vec 2.0, followed by the graph module of AASIST (Tak et al. 2022).

Axes: B batch, T samples or frames, T' frames of 20 ms, H hidden size of the encoder, C channels.
Images are (B, C, bands, times).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.foundation.errors import ParamsError
from makermark.models.backbones.aasist_layers import ResidualBlock, SpectroTemporalGraph
from makermark.models.backbones.base import Backbone, ParamGroup, apply_per_length, to_float

FILTERS = (32, 32, 64, 64, 64, 64)  # of the residual blocks
POOL_SIZE = 3  # bands and frames per position of the image
POOL_RATIO = 0.5  # of nodes kept by every graph pooling
CACHED_FRONT_END = "wav2vec2"


class SslEncoder(Protocol):
    """The part of `features.encoders.base.Encoder` that this backbone uses. It must be an nn.Module."""

    width: int
    num_states: int
    min_samples: int
    hop_samples: int

    def __call__(self, waveforms: Tensor, lengths: Tensor | None) -> tuple[list[Tensor], Tensor | None]: ...
    def freeze_convolutions(self) -> None: ...
    def enable_gradient_checkpointing(self) -> None: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def requires_grad_(self, requires_grad: bool) -> Any: ...
    def eval(self) -> Any: ...


class Wav2Vec2Aasist(Backbone):
    """Hidden states -> linear to `frame_width` -> an image, max pooled 3 x 3 -> six residual blocks -> graphs -> `dim`.

    - `freeze: none` trains the whole encoder and `feature_encoder` all of it but its convolutions, both on waveforms
      and at the peak rate `learning_rate`. With `freeze: all` and a fixed layer there is no encoder inside: the hidden
      states come from the cache of the wav2vec2 front end.
    - `weighted` uses the softmax-weighted sum of all hidden states, with learned weights (Yang et al. 2021, SUPERB),
      on waveforms. With `freeze: all` the encoder stays in evaluation mode and only the weights are learned.
    - `gradient_checkpointing` recomputes the encoder's activations in the backward pass to save memory.
    """

    front_end = "waveform"
    uses_ssl_encoder = True

    def __init__(
        self,
        *,
        dim: int,
        width: int,
        encoder: SslEncoder | None,
        freeze: str,
        weighted: bool,
        learning_rate: float,
        gradient_checkpointing: bool,
        frame_width: int,
    ) -> None:
        super().__init__()
        if frame_width < POOL_SIZE:
            raise ParamsError(
                f"backbone wav2vec2-aasist: frame_width is {frame_width}; it must be at least {POOL_SIZE}"
            )
        front_end = self.front_end_name(freeze=freeze, weighted=weighted)
        if (encoder is None) != (front_end == CACHED_FRONT_END):
            state = "no encoder" if encoder is None else "an encoder"
            raise ValueError(f"{state}, but freeze: {freeze}, weighted: {weighted} reads {front_end}")
        self.encoder, self._frozen, self._encoder_rate = encoder, freeze == "all", learning_rate
        self.min_frames = POOL_SIZE
        self.layer_weights = None
        if encoder is not None:
            self.min_frames = encoder.min_samples + (POOL_SIZE - 1) * encoder.hop_samples
            width = encoder.width
            if weighted:
                self.layer_weights = nn.Parameter(torch.zeros(encoder.num_states))
            if self._frozen:
                encoder.requires_grad_(False)
            elif freeze == "feature_encoder":
                encoder.freeze_convolutions()
            if gradient_checkpointing and not self._frozen:
                encoder.enable_gradient_checkpointing()
        self.projection = nn.Linear(width, frame_width)
        self.image_norm = nn.BatchNorm2d(1)
        inputs = (1, *FILTERS[:-1])
        self.blocks = nn.Sequential(
            *(ResidualBlock(i, o, normalised=i > 1, pooled=1) for i, o in zip(inputs, FILTERS, strict=True))
        )
        channels = FILTERS[-1]
        self.block_norm = nn.BatchNorm2d(channels)
        self.attention = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, kernel_size=1),
            nn.SELU(),
            nn.BatchNorm2d(2 * channels),
            nn.Conv2d(2 * channels, channels, kernel_size=1),
        )
        self.graph = SpectroTemporalGraph(
            spectral_nodes=frame_width // POOL_SIZE, channels=channels, wide=64, narrow=32,
            kept_bands=POOL_RATIO, kept_times=POOL_RATIO, kept_mixed=POOL_RATIO,
        )  # fmt: skip
        self.drop = nn.Dropout(0.5)
        self.embedding = nn.Linear(self.graph.out_width, dim)

    @classmethod
    def front_end_name(cls, **settings: str | int | float | bool) -> str:
        """Return wav2vec2 for a frozen encoder with a fixed layer, else waveform."""
        return CACHED_FRONT_END if settings["freeze"] == "all" and not settings["weighted"] else cls.front_end

    def param_groups(self, peak_learning_rate: float) -> list[ParamGroup]:
        """Return the encoder's parameters with their own learning rate, and all others."""
        encoder_parameters = [] if self.encoder is None else [*self.encoder.parameters()]
        ids = {id(parameter) for parameter in encoder_parameters}
        others = [parameter for parameter in self.parameters() if id(parameter) not in ids]
        trained = [parameter for parameter in encoder_parameters if parameter.requires_grad]
        return [ParamGroup(trained, self._encoder_rate), ParamGroup(others, peak_learning_rate)]

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.encoder is not None and self._frozen:
            self.encoder.eval()
        return self

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed waveforms (B, T, 1), or cached hidden states (B, T', H), as (B, dim), not normalised.

        With `lengths` (B,) the encoder masks padding, or runs once per distinct length if it cannot; the layers above
        run once per distinct number of frames. Raises ValueError for an utterance shorter than `min_frames`, and for
        lengths in training mode.
        """
        self.check_lengths(features, lengths, name="wav2vec2-aasist")
        if self.encoder is None:
            frames = to_float(features)
        else:
            frames, lengths = self._encode(self.encoder, to_float(features).squeeze(2), lengths)
        with torch.autocast(features.device.type, enabled=False):
            if lengths is None:
                return self._embed(frames.float())
            return apply_per_length(lambda part: self._embed(part.float()), frames, lengths)

    def _encode(
        self, encoder: SslEncoder, waveforms: Tensor, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the encoder's hidden state, or the weighted sum of all (B, T', H), and the lengths in frames."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._frozen):
            states, frame_lengths = encoder(waveforms, lengths)
        if self.layer_weights is None:
            return states[0], frame_lengths
        shares = F.softmax(self.layer_weights, dim=0)
        return sum(share * state.float() for share, state in zip(shares, states, strict=True)), frame_lengths

    def _embed(self, frames: Tensor) -> Tensor:
        image = self.projection(frames).transpose(1, 2).unsqueeze(1)  # (B, 1, frame_width, T')
        image = F.selu(self.image_norm(F.max_pool2d(image, POOL_SIZE)))
        image = F.selu(self.block_norm(self.blocks(image)))  # (B, C, bands, times)
        scores = self.attention(image)
        spectral = (image * scores.softmax(dim=3)).sum(dim=3).transpose(1, 2)  # (B, bands, C)
        temporal = (image * scores.softmax(dim=2)).sum(dim=2).transpose(1, 2)  # (B, times, C)
        embeddings: Tensor = self.embedding(self.drop(self.graph(spectral, temporal)))
        return embeddings

"""wav2vec 2.0, or another pretrained encoder, under the graph part of AASIST (Tak et al. 2022).

Legend of axes: B batch, T samples or frames, T' frames of 20 ms, H hidden size of the encoder, C channels.
Images are (B, C, bands, times).
"""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.backbones.base import Backbone, Learners, as_float
from makermark.backbones.graph import SpectroTemporalGraph
from makermark.backbones.rawnet import ResidualBlock
from makermark.encoders.base import HOP_SAMPLES, Encoder
from makermark.errors import ParamsError

FILTERS = (32, 32, 64, 64, 64, 64)  # of the residual blocks
POOLED = 3  # bands and frames that share a place in the image
KEPT = 0.5  # of the nodes, in every pooling of the graphs
CACHED = "wav2vec2"


class Wav2Vec2Aasist(Backbone):
    """Hidden states -> linear to `frame_width` -> an image, pooled 3 x 3 -> six residual blocks -> graphs -> `dim`.

    - `freeze: none` trains all of the encoder, `feature_encoder` all but its convolutions, both at the peak rate
      `learning_rate` and from waveforms. With `freeze: all` and one fixed layer no encoder is inside: its hidden
      states come from the cache of the wav2vec2 front end.
    - `weighted`: softmax-weighted sum of all hidden states with learned weights (Yang et al. 2021, SUPERB),
      from waveforms; with `freeze: all` the encoder runs in evaluation mode and only these weights are learned.
    """

    front_end = "waveform"
    starts_pretrained = True

    def __init__(
        self,
        *,
        dim: int,
        width: int,
        encoder: Encoder | None,
        freeze: str,
        weighted: bool,
        learning_rate: float,
        gradient_checkpointing: bool,
        frame_width: int,
    ) -> None:
        super().__init__()
        if frame_width < POOLED:
            raise ParamsError(
                f"backbone wav2vec2-aasist: frame_width is {frame_width}; it is at least {POOLED}"
            )
        reads = self.reads(freeze=freeze, weighted=weighted)
        if (encoder is None) != (reads == CACHED):
            given = "no encoder" if encoder is None else "an encoder"
            raise ValueError(f"{given}, but freeze: {freeze}, weighted: {weighted} reads {reads}")
        self.encoder, self._frozen, self._encoder_rate = encoder, freeze == "all", learning_rate
        self.min_frames = POOLED
        self.layer_weights = None
        if encoder is not None:
            self.min_frames = encoder.min_samples + (POOLED - 1) * HOP_SAMPLES
            width = encoder.width
            if weighted:
                self.layer_weights = nn.Parameter(torch.zeros(encoder.states))
            if self._frozen:
                encoder.requires_grad_(False)
            elif freeze == "feature_encoder":
                encoder.freeze_front()
            if gradient_checkpointing and not self._frozen:
                encoder.checkpoint_gradients()
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
            spectral_nodes=frame_width // POOLED, channels=channels, wide=64, narrow=32,
            kept_bands=KEPT, kept_times=KEPT, kept_mixed=KEPT,
        )  # fmt: skip
        self.drop = nn.Dropout(0.5)
        self.embedding = nn.Linear(self.graph.out_width, dim)

    @classmethod
    def reads(cls, **settings: str | int | float | bool) -> str:
        return CACHED if settings["freeze"] == "all" and not settings["weighted"] else cls.front_end

    def learners(self, peak_learning_rate: float) -> list[Learners]:
        """The encoder at its own rate, everything else at `peak_learning_rate`."""
        of_encoder = [] if self.encoder is None else [*self.encoder.parameters()]
        there = {id(parameter) for parameter in of_encoder}
        others = [parameter for parameter in self.parameters() if id(parameter) not in there]
        return [
            Learners([parameter for parameter in of_encoder if parameter.requires_grad], self._encoder_rate),
            Learners(others, peak_learning_rate),
        ]

    def train(self, mode: bool = True) -> Self:
        """As usual, but a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.encoder is not None and self._frozen:
            self.encoder.eval()
        return self

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed waveforms (B, T, 1), or cached hidden states (B, T', H), as (B, dim), not normalised.

        With `lengths` (B,) the encoder masks what pads (models that cannot: one pass per length) and what follows
        runs once per distinct number of frames. Raises ValueError for an utterance below `min_frames`, and for
        lengths in training mode.
        """
        self.refuse_lengths(features, lengths, name="wav2vec2-aasist")
        if self.encoder is None:
            frames = as_float(features)
        else:
            frames, lengths = self._encoded(self.encoder, as_float(features).squeeze(2), lengths)
        with torch.autocast(features.device.type, enabled=False):
            if lengths is None:
                return self._embedded(frames.float())
            rows = [(lengths == length).nonzero().squeeze(1) for length in sorted(set(lengths.tolist()))]
            parts = [self._embedded(frames[r, : int(lengths[r[0]])].float()) for r in rows]
            return torch.cat(parts)[torch.cat(rows).argsort()]

    def _encoded(
        self, encoder: Encoder, waveforms: Tensor, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """(B, T', H): the one hidden state that the encoder gives, or the weighted sum of all."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._frozen):
            states, frame_lengths = encoder(waveforms, lengths)
        if self.layer_weights is None:
            return states[0], frame_lengths
        shares = F.softmax(self.layer_weights, dim=0)
        return sum(share * state.float() for share, state in zip(shares, states, strict=True)), frame_lengths

    def _embedded(self, frames: Tensor) -> Tensor:
        image = self.projection(frames).transpose(1, 2).unsqueeze(1)  # (B, 1, frame_width, T')
        image = F.selu(self.image_norm(F.max_pool2d(image, POOLED)))
        image = F.selu(self.block_norm(self.blocks(image)))  # (B, C, bands, times)
        scores = self.attention(image)
        spectral = (image * scores.softmax(dim=3)).sum(dim=3).transpose(1, 2)  # (B, bands, C)
        temporal = (image * scores.softmax(dim=2)).sum(dim=2).transpose(1, 2)  # (B, times, C)
        embeddings: Tensor = self.embedding(self.drop(self.graph(spectral, temporal)))
        return embeddings

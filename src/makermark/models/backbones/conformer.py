"""A Conformer encoder over filter banks or cached hidden states of a pretrained encoder.

Axes: B batch, T frames of the features, T' frames of 40 ms, F values per frame, H model width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.models import Conformer as Encoder

from makermark.foundation.errors import ParamsError
from makermark.models.backbones.base import (
    FILTER_BANKS,
    Backbone,
    Setting,
    check_front_end,
    frame_mask,
    mask_padding,
    normalise_over_time,
)
from makermark.models.backbones.pooling import build_pooling

STRIDES = dict.fromkeys(FILTER_BANKS, (2, 2)) | {
    "wav2vec2": (1, 2)
}  # of the two subsampling convolutions, by front end


class Conformer(Backbone):
    """Two subsampling convolutions, torchaudio's Conformer (Gulati et al. 2020), pooling, a linear layer to `dim`.

    - Subsampling to frames of 40 ms: two convolutions of kernel size 3, each with a ReLU. Their strides are 2 and 2
      for filter banks (frames of 10 ms), 1 and 2 for hidden states (frames of 20 ms).
    - Each of `layers` layers is half a feed-forward module of `feed_forward` units, self-attention with `heads`
      heads, a depthwise convolution over `kernel` frames of 40 ms with batch normalisation, and the other half.
    - Filter banks are first normalised over each utterance's own frames (`normalise`, see `normalise_over_time`);
      hidden states are not normalised.
    """

    front_end = "fbank"
    first_layer = "front.0"
    min_frames = 2  # normalisation over time needs two

    def __init__(
        self,
        *,
        dim: int,
        width: int,
        front_end: str,
        normalise: str,
        layers: int,
        heads: int,
        model_width: int,
        feed_forward: int,
        kernel: int,
        dropout: float,
        pooling: str,
    ) -> None:
        super().__init__()
        _check_sizes(layers=layers, heads=heads, model_width=model_width, feed_forward=feed_forward)
        if kernel < 1 or kernel % 2 == 0:
            raise ParamsError(f"backbone conformer: kernel is {kernel}; it must be an odd number of frames")
        if not 0 <= dropout < 1:
            raise ParamsError(f"backbone conformer: dropout is {dropout}; it must be at least 0 and below 1")
        self._normalised = self.front_end_name(front_end=front_end, normalise=normalise) in FILTER_BANKS
        self._statistics = normalise
        self._strides = STRIDES[front_end]
        self.front = nn.ModuleList(
            nn.Conv1d(inputs, model_width, kernel_size=3, stride=stride, padding=1)
            for inputs, stride in zip((width, model_width), self._strides, strict=True)
        )
        self.front_drop = nn.Dropout(dropout)
        self.encoder = Encoder(
            input_dim=model_width,
            num_heads=heads,
            ffn_dim=feed_forward,
            num_layers=layers,
            depthwise_conv_kernel_size=kernel,
            dropout=dropout,
        )
        self.pooling = build_pooling(pooling, model_width)
        self.embedding = nn.Linear(self.pooling.out_width, dim)

    @classmethod
    def front_end_name(cls, **settings: Setting) -> str:
        """Return the setting `front_end`. Raises ParamsError if it, or `normalise`, is unknown."""
        return check_front_end(settings, tuple(STRIDES), name="conformer")

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed features (B, T, F) as (B, dim), not normalised.

        With `lengths` (B,), in frames, padding does not change the result. Raises ValueError for lengths in training
        mode, and for an utterance shorter than `min_frames`.
        """
        self.check_lengths(features, lengths, name="conformer")
        with torch.autocast(features.device.type, enabled=False):
            x = features.float() if lengths is None else features[:, : int(lengths.max())].float()
            x = normalise_over_time(x, lengths, statistics=self._statistics) if self._normalised else x
        x = x.transpose(1, 2)  # (B, F, T)
        for convolution, stride in zip(self.front, self._strides, strict=True):
            x = F.relu(convolution(mask_padding(x, lengths)))
            if lengths is not None:
                lengths = (lengths + stride - 1).div(stride, rounding_mode="floor")
        frames = self._encode(self.front_drop(x.transpose(1, 2)), lengths)  # (B, T', H)
        with torch.autocast(features.device.type, enabled=False):
            embeddings: Tensor = self.embedding(self.pooling(frames.float(), lengths))
        return embeddings

    def _encode(self, frames: Tensor, lengths: Tensor | None) -> Tensor:
        if lengths is None:
            lengths = torch.full((len(frames),), frames.shape[1], device=frames.device)
            masked: AbstractContextManager[None] = nullcontext()
        else:
            masked = _masked_convolutions(self.encoder, ~frame_mask(lengths, frames.shape[1]))
        with masked:
            encoded: Tensor = self.encoder(frames, lengths)[0]
        return encoded


@contextmanager
def _masked_convolutions(encoder: nn.Module, padding: Tensor) -> Iterator[None]:
    """Set the input of every depthwise convolution to zero where `padding` (B, T') is True.

    torchaudio masks padding in the attention but not in the convolution. Biases before the convolution make padding
    non-zero, which would leak into an utterance's last frames.
    """

    def mask(_: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        return inputs[0].masked_fill(padding[:, None], 0)

    depthwise = [m for m in encoder.modules() if isinstance(m, nn.Conv1d) and m.kernel_size[0] > 1]
    hooks = [convolution.register_forward_pre_hook(mask) for convolution in depthwise]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check_sizes(*, heads: int, model_width: int, **sizes: int) -> None:
    for setting, value in {"heads": heads, "model_width": model_width, **sizes}.items():
        if value < 1:
            raise ParamsError(f"backbone conformer: {setting} is {value}; it must be at least 1")
    if model_width % heads:
        raise ParamsError(
            f"backbone conformer: model_width is {model_width}; it must be a multiple of heads ({heads})"
        )

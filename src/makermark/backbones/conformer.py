"""A Conformer encoder over log-mel filterbanks or cached hidden states of a pretrained encoder.

Legend of axes: B batch, T frames of the features, T' frames of 40 ms, F numbers per frame, H width of the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.models import Conformer as Encoder

from makermark.backbones.base import Backbone
from makermark.backbones.frames import frame_mask, normalise_over_time, silence
from makermark.backbones.pooling import build_pooling
from makermark.errors import ParamsError

STRIDES = {"fbank": (2, 2), "wav2vec2": (1, 2)}  # of the two convolutions in front, by front end


class Conformer(Backbone):
    """Two convolutions in front, torchaudio's Conformer (Gulati et al. 2020), pooling, a linear layer to `dim`.

    - The front brings any features to 40 ms: two convolutions over 3 frames and all numbers of a frame, each with
      a rectifier, of stride 2 and 2 over filterbanks (every 10 ms), 1 and 2 over hidden states (every 20 ms).
    - A `layer` is half a feed-forward module of `feed_forward` units, self-attention of `heads`, a depthwise
      convolution over `kernel` frames of 40 ms with batch normalisation, and the other half.
    - Filterbanks are first normalised to mean 0 and variance 1 over each utterance's own frames; hidden states are
      taken as they are.
    """

    front_end = "fbank"
    min_frames = 2  # the normalisation over time needs two; whoever has less repeats it

    def __init__(
        self,
        *,
        dim: int,
        width: int,
        front_end: str,
        layers: int,
        heads: int,
        model_width: int,
        feed_forward: int,
        kernel: int,
        dropout: float,
        pooling: str,
    ) -> None:
        super().__init__()
        _check(layers=layers, heads=heads, model_width=model_width, feed_forward=feed_forward)
        if kernel < 1 or kernel % 2 == 0:
            raise ParamsError(f"backbone conformer: kernel is {kernel}; it is an odd number of frames")
        if not 0 <= dropout < 1:
            raise ParamsError(f"backbone conformer: dropout is {dropout}; it is at least 0 and below 1")
        self._normalised = self.reads(front_end=front_end) == "fbank"
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
    def reads(cls, **settings: str | int | float | bool) -> str:
        front_end = str(settings["front_end"])
        if front_end not in STRIDES:
            raise ParamsError(f"backbone conformer: front_end is {front_end!r}; it is one of {list(STRIDES)}")
        return front_end

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed features (B, T, F) as (B, dim), not normalised.

        With `lengths` (B,), in frames, what lies past an utterance's length changes nothing. Raises ValueError
        for lengths in training mode, and for an utterance shorter than `min_frames`.
        """
        self.refuse_lengths(features, lengths, name="conformer")
        with torch.autocast(features.device.type, enabled=False):
            x = features.float() if lengths is None else features[:, : int(lengths.max())].float()
            x = normalise_over_time(x, lengths) if self._normalised else x
        x = x.transpose(1, 2)  # (B, F, T)
        for convolution, stride in zip(self.front, self._strides, strict=True):
            x = F.relu(convolution(silence(x, lengths)))
            if lengths is not None:
                lengths = (lengths + stride - 1).div(stride, rounding_mode="floor")
        frames = self._encoded(self.front_drop(x.transpose(1, 2)), lengths)  # (B, T', H)
        with torch.autocast(features.device.type, enabled=False):
            embeddings: Tensor = self.embedding(self.pooling(frames.float(), lengths))
        return embeddings

    def _encoded(self, frames: Tensor, lengths: Tensor | None) -> Tensor:
        if lengths is None:
            lengths = torch.full((len(frames),), frames.shape[1], device=frames.device)
            unseen: AbstractContextManager[None] = nullcontext()
        else:
            unseen = _unseen_padding(self.encoder, ~frame_mask(lengths, frames.shape[1]))
        with unseen:
            encoded: Tensor = self.encoder(frames, lengths)[0]
        return encoded


@contextmanager
def _unseen_padding(encoder: nn.Module, outside: Tensor) -> Iterator[None]:
    """Let every depthwise convolution see zeros where `outside` (B, T') is True.

    torchaudio's attention masks what pads, its convolution does not: biases before it make padding something
    other than zero, which it would carry into an utterance's last frames.
    """

    def silenced(_: nn.Module, given: tuple[Tensor]) -> Tensor:
        return given[0].masked_fill(outside[:, None], 0)

    over_time = [m for m in encoder.modules() if isinstance(m, nn.Conv1d) and m.kernel_size[0] > 1]
    hooks = [convolution.register_forward_pre_hook(silenced) for convolution in over_time]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check(*, heads: int, model_width: int, **sizes: int) -> None:
    for setting, value in {"heads": heads, "model_width": model_width, **sizes}.items():
        if value < 1:
            raise ParamsError(f"backbone conformer: {setting} is {value}; it is at least 1")
    if model_width % heads:
        raise ParamsError(
            f"backbone conformer: model_width is {model_width}; it is a multiple of heads ({heads})"
        )

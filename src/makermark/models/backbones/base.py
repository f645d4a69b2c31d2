"""Contract of the backbones, and masking of the padding in batches of utterances of different lengths.

Axes: B batch, T frames (or samples of a waveform), F values per frame or bands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from makermark.foundation.errors import ParamsError

Setting = str | int | float | bool
FILTER_BANKS = ("fbank", "linear-fbank")  # front ends of the same kind: bands over time
CHANGES = "linear-fbank-changes"  # bands, then the changes of short windows within a frame
MEAN_AND_VARIANCE, MEAN = NORMALISATIONS = ("mean-variance", "mean")  # of each band over an utterance


class ParamGroup(NamedTuple):
    """Parameters that share a learning rate."""

    parameters: list[nn.Parameter]
    peak_learning_rate: float


class Backbone(nn.Module):
    """Base class of all backbones: `backbone(features (B, T, F), lengths (B,) or None) -> (B, dim)`.

    Embeddings are not normalised. Features have the dtype of the feature cache (float16, int16) or float32. Without
    `lengths` all utterances fill all T frames and no mask is computed. With `lengths`, in evaluation mode, a padded
    utterance gets the embedding that it gets alone.

    `forward` raises ValueError for `lengths` in training mode and for utterances shorter than `min_frames`; the
    caller repeats shorter ones. Initial weights come from torch's global generator.
    """

    front_end: ClassVar[str]  # default of `front_end_name`
    min_frames: int  # shortest utterance in frames, or samples of a waveform
    supports_cuda_graph: ClassVar[bool] = (
        False  # the training step has no host synchronisation and no host RNG
    )
    uses_ssl_encoder: ClassVar[bool] = False  # the constructor takes `encoder` and the settings of `ssl:`
    # For attributions: the layer that reads the normalised bands, as (B, F, T) or (B, 1, F, T); empty: not supported.
    first_layer: ClassVar[str] = ""
    # For attributions: the layer that selects frames of a clip by their log energies, as a mask (B, T); empty: none.
    frame_selection: ClassVar[str] = ""
    # The last convolution before the pooling, including shortcut and activation: (B, C, F', T') or (B, C, T').
    last_convolution: ClassVar[str] = ""

    @classmethod
    def front_end_name(cls, **settings: Setting) -> str:
        """Return the name of the front end whose features the backbone reads under these settings."""
        return cls.front_end

    def param_groups(self, peak_learning_rate: float) -> list[ParamGroup]:
        """Return the trainable parameters with their learning rates; by default one group."""
        return [ParamGroup([p for p in self.parameters() if p.requires_grad], peak_learning_rate)]

    def load_pretrained(self) -> None:
        """Load the pretrained weights that a setting names, if any; called once before training."""
        return

    def check_lengths(self, features: Tensor, lengths: Tensor | None, *, name: str) -> None:
        """Raise ValueError for lengths in training mode, above T, or below `min_frames`."""
        shortest = longest = features.shape[1]
        if lengths is not None:
            if self.training:
                raise ValueError(
                    "lengths in training mode: batch statistics would count padding; use crops of equal length"
                )
            shortest, longest = int(lengths.min()), int(lengths.max())
        if shortest < self.min_frames:
            raise ValueError(f"an utterance of {shortest} frames; {name} takes {self.min_frames} or more")
        if longest > features.shape[1]:
            raise ValueError(f"a length of {longest} frames, but the features have only {features.shape[1]}")


def apply_per_length(network: Callable[[Tensor], Tensor], frames: Tensor, lengths: Tensor) -> Tensor:
    """Return (B, dim) from one unpadded pass per distinct length, for networks that cannot mask padding."""
    rows = [(lengths == length).nonzero().squeeze(1) for length in sorted(set(lengths.tolist()))]
    parts = [network(frames[group, : int(lengths[group[0]])]) for group in rows]
    return torch.cat(parts)[torch.cat(rows).argsort()]


def to_float(features: Tensor) -> Tensor:
    """Convert cached features to float32; int16 waveforms are divided by 32768."""
    return features.float() / 32768 if features.dtype == torch.int16 else features.float()


def frame_mask(lengths: Tensor, frames: int) -> Tensor:
    """Return a mask (B, frames) bool: True for the frames of each utterance, False for padding."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def mask_padding(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Set (B, ..., T) to zero past each utterance's length, as a convolution pads past the last frame."""
    if lengths is None:
        return x
    mask = frame_mask(lengths, x.shape[-1])
    return x.masked_fill(~mask.view(len(x), *(1,) * (x.dim() - 2), -1), 0)


def mask_padding_(x: Tensor, lengths: Tensor | None) -> Tensor:
    """In-place `mask_padding`; out of place if `x` requires a gradient.

    On a CPU only the frames past the shortest utterance are touched. On other devices reading the lengths would
    make the host wait.
    """
    if lengths is None or x.requires_grad:
        return mask_padding(x, lengths)
    shortest = min(int(lengths.min()), x.shape[-1]) if lengths.device.type == "cpu" else 0
    padding = torch.arange(shortest, x.shape[-1], device=lengths.device) >= lengths[:, None]
    x[..., shortest:].masked_fill_(padding.view(len(x), *(1,) * (x.dim() - 2), -1), 0)
    return x


def check_front_end(settings: Mapping[str, Setting], front_ends: Sequence[str], *, name: str) -> str:
    """Return the setting `front_end`. Raises ParamsError if it, or `normalise`, if there is one, is unknown."""
    for setting, choices in (("front_end", front_ends), ("normalise", NORMALISATIONS)):
        if settings.get(setting, choices[0]) not in choices:
            raise ParamsError(
                f"backbone {name}: {setting} is {settings[setting]!r}; it must be one of {list(choices)}"
            )
    return str(settings["front_end"])


def normalise_over_time(
    features: Tensor, lengths: Tensor | None, *, statistics: str = MEAN_AND_VARIANCE
) -> Tensor:
    """Normalise each band of each utterance in (B, T, F) over its frames; 0 in padding.

    `statistics` is one of NORMALISATIONS:

    - `mean-variance`: to mean 0 and variance 1, which is instance normalisation (Ulyanov et al. 2016) without affine
      parameters; 1e-5 is added to the variance.
    - `mean`: to mean 0. How much each band varies, and how that differs between bands, is kept.
    """
    if lengths is None:
        if statistics == MEAN:
            return features - features.mean(dim=1, keepdim=True)
        variance, mean = torch.var_mean(features, dim=1, correction=0, keepdim=True)
        return (features - mean) * torch.rsqrt(variance + 1e-5)
    padding = ~frame_mask(lengths, features.shape[1])[..., None]  # (B, T, 1)
    count = lengths[:, None, None]
    mean = features.masked_fill(padding, 0).sum(dim=1, keepdim=True) / count
    centred = (features - mean).masked_fill(padding, 0)
    if statistics == MEAN:
        return centred
    variance = centred.square().sum(dim=1, keepdim=True) / count
    return centred * torch.rsqrt(variance + 1e-5)

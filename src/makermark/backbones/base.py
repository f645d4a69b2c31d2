"""What every backbone offers."""

from __future__ import annotations

from typing import ClassVar

from torch import nn


class Backbone(nn.Module):
    """The contract: `backbone(features (B, T, F), lengths (B,) or None) -> (B, dim)`, not normalised.

    Without `lengths` all utterances fill all T frames and no mask is computed. With them, in evaluation mode,
    a padded utterance gives the vector that it gives alone. Input shorter than `min_frames` raises
    ValueError: the caller repeats it. Initial weights come from torch's generator: seed it before building.
    """

    front_end: ClassVar[str]  # the feature cache it reads: "fbank" or "waveform"
    min_frames: ClassVar[int]  # frames, or samples of a waveform

"""What every backbone offers."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn


class Learners(NamedTuple):
    """Parameters that share a learning rate."""

    parameters: list[nn.Parameter]
    peak_learning_rate: float


class Backbone(nn.Module):
    """The contract: `backbone(features (B, T, F), lengths (B,) or None) -> (B, dim)`, not normalised.

    Features come as the cache stores them (float16 or int16 too). Without `lengths` all utterances fill all T
    frames and no mask is computed. With them, in evaluation mode, a padded utterance gives the vector that it
    gives alone; in training mode they raise ValueError, as does input shorter than `min_frames`: the caller
    repeats it. Initial weights come from torch's generator: seed it before building.
    """

    front_end: ClassVar[str]  # the feature cache it reads, unless `reads` says otherwise
    min_frames: int  # frames, or samples of a waveform
    capturable: ClassVar[bool] = (
        False  # its training step never waits for the device nor asks the host for chance
    )
    starts_pretrained: ClassVar[bool] = False  # it takes the SSL encoder and the settings that `ssl:` names

    @classmethod
    def reads(cls, **settings: str | int | float | bool) -> str:
        """The name of the front end whose cache it reads under these settings."""
        return cls.front_end

    def learners(self, peak_learning_rate: float) -> list[Learners]:
        """What is trained, and how fast; by default everything at the same rate."""
        return [Learners([p for p in self.parameters() if p.requires_grad], peak_learning_rate)]

    def begin(self) -> None:
        """Take the weights that a setting names, if it has one and it names any; once, before training."""
        return

    def refuse_lengths(self, features: Tensor, lengths: Tensor | None, *, name: str) -> None:
        """Raise ValueError for lengths in training mode, beyond the features, or below `min_frames`."""
        shortest = longest = features.shape[1]
        if lengths is not None:
            if self.training:
                raise ValueError("lengths in training mode: batch statistics would count padding; crop alike")
            shortest, longest = int(lengths.min()), int(lengths.max())
        if shortest < self.min_frames:
            raise ValueError(f"an utterance of {shortest} frames; {name} takes {self.min_frames} or more")
        if longest > features.shape[1]:
            raise ValueError(f"a length of {longest} frames, but features hold only {features.shape[1]}")

    def by_length(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(B, dim): one pass for each length that occurs, without padding; for networks that cannot mask."""
        rows = [(lengths == length).nonzero().squeeze(1) for length in sorted(set(lengths.tolist()))]
        parts = [self(features[of_length, : int(lengths[of_length[0]])], None) for of_length in rows]
        embeddings: Tensor = torch.cat(parts)[torch.cat(rows).argsort()]
        return embeddings


def as_float(features: Tensor) -> Tensor:
    """float32 of cached features: int16 waveforms divided by 32768, anything else as it is."""
    return features.float() / 32768 if features.dtype == torch.int16 else features.float()

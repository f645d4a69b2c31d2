"""What the losses share: their contract, directions with a safe gradient, and groups of a batch.

Legend of axes: B batch, D dimensions, C systems.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from makermark.errors import ParamsError


class Loss(nn.Module):
    """The contract: `loss(embeddings (B, D), systems (B,) int64) -> scalar`, computed in float32 or better.

    The embeddings need not be normalised, and the order of rows carries no meaning.
    """

    needs_groups: ClassVar[bool]  # whether every system of a batch must bring at least 2 utterances

    def logits(self, embeddings: Tensor) -> Tensor | None:
        """(B, C): what its classifier says of the training systems, without margins; None if it has none."""
        return None


class Groups(NamedTuple):
    """The systems that stand in a batch."""

    column: Tensor  # (B,) int64: which of the batch's systems each utterance belongs to
    counts: Tensor  # (C,) int64: utterances of each
    member: Tensor  # (B, C) bool: whether the utterance belongs to the system


def groups(systems: Tensor, *, loss: str) -> Groups:
    """The groups of a batch; raises ValueError if a system has a single utterance."""
    names, column, counts = torch.unique(systems, return_inverse=True, return_counts=True)
    if int(counts.min()) < 2:
        lone = int(names[counts.argmin()])
        raise ValueError(
            f"{loss}: system {lone} has 1 utterance in the batch; this loss compares utterances of one "
            "system and needs at least 2 of each: use the balanced sampler with 2 or more per system"
        )
    return Groups(column, counts, column[:, None] == torch.arange(len(names), device=systems.device))


def unit(vectors: Tensor) -> Tensor:
    """Rows of length 1. A row of zeros has no direction: it stays zero and passes no gradient."""
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / length.masked_fill(length < 1e-12, torch.inf)


@contextmanager
def full_precision(embeddings: Tensor) -> Iterator[Tensor]:
    """The embeddings in float32 (float64 stays), with autocast off: angles need the digits."""
    with torch.autocast(embeddings.device.type, enabled=False):
        yield embeddings if embeddings.dtype == torch.float64 else embeddings.float()


def at_least_zero(loss: str, **settings: float) -> None:
    """Raise ParamsError for a negative setting."""
    for name, value in settings.items():
        if value < 0:
            raise ParamsError(f"loss {loss}: {name} is {value}; it is at least 0")


def above_zero(loss: str, **settings: float) -> None:
    """Raise ParamsError for a setting that is not positive."""
    for name, value in settings.items():
        if not value > 0:
            raise ParamsError(f"loss {loss}: {name} is {value}; it is above 0")

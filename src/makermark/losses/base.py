"""What the losses share: their contract, directions with a safe gradient, and groups of a batch.

Legend of axes: B batch, D dimensions, C systems.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from makermark.errors import ParamsError

if TYPE_CHECKING:
    from makermark.losses.emphasis import Emphasis


class Loss(nn.Module):
    """The contract: `loss(embeddings (B, D), systems (B,) int64) -> scalar`, computed in float32 or better.

    The embeddings need not be normalised, and the order of rows carries no meaning. Instead of the systems it
    takes what `arrange` made of them beforehand: on an accelerator, counting them in `forward` would mean waiting.
    """

    needs_groups: ClassVar[bool]  # whether every system of a batch must bring at least 2 utterances

    mixing: float = (
        0.0  # above 0: batches are mixed too, with shares from Beta(mixing, mixing); see `of_mixture`
    )

    def arrange(self, systems: Tensor) -> Tensor | Groups:
        """What `forward` has to know of the systems (B,): they themselves, or their groups."""
        return groups(systems, loss=type(self).__name__.lower()) if self.needs_groups else systems

    def logits(self, embeddings: Tensor) -> Tensor | None:
        """(B, C): what its classifier says of the training systems, without margins; None if it has none."""
        return None

    def of_mixture(self, embeddings: Tensor, first: Tensor, second: Tensor, share: Tensor) -> Tensor:
        """What is added for embeddings (B, D) of mixed inputs, each `share` (B,) of an utterance of system `first`
        (B,) and for the rest one of system `second` (B,). Losses with `mixing` above 0 have it."""
        raise NotImplementedError(f"{type(self).__name__} does not mix")

    def emphasis(self) -> Emphasis | None:
        """Afresh, what the backbone learns first, on bona fide and synthetic speech; None for most losses."""
        return None


class Groups(NamedTuple):
    """The systems that stand in a batch; R is how many utterances the largest has."""

    systems: Tensor  # (B,) int64: as given
    column: Tensor  # (B,) int64: which of the batch's systems each utterance belongs to
    counts: Tensor  # (C,) int64: utterances of each
    places: Tensor  # (R,) int64: 0, 1, ..., R - 1
    turns: Tensor  # (R, C) int64: of rows sorted by system, which each system has at a place; a smaller starts over

    def member(self) -> Tensor:
        """(B, C) bool: whether the utterance belongs to the system."""
        return self.column[:, None] == torch.arange(len(self.counts), device=self.column.device)

    def partners(self) -> Tensor:
        """(B, R) int64: the rows of the utterance's system, and from the first again where it has fewer."""
        return self.column.argsort(stable=True)[self.turns].T[self.column]


def groups(systems: Tensor | Groups, *, loss: str) -> Groups:
    """The groups of a batch, on its device; raises ValueError if a system has a single utterance."""
    if isinstance(systems, Groups):
        return systems
    names, column, counts = torch.unique(systems, return_inverse=True, return_counts=True)
    sizes = counts.tolist()
    if min(sizes) < 2:
        lone = int(names[counts.argmin()])
        raise ValueError(
            f"{loss}: system {lone} has 1 utterance in the batch; this loss compares utterances of one "
            "system and needs at least 2 of each: use the balanced sampler with 2 or more per system"
        )
    places = torch.arange(max(sizes), device=systems.device)
    first = counts.cumsum(0) - counts  # (C,): where each system starts among the sorted rows
    return Groups(systems, column, counts, places, first + places[:, None] % counts)


def rows_by_turn(embeddings: Tensor, batch: Groups) -> Tensor:
    """(R, C) int64: the row of the utterance whose turn it is, of each system.

    A system's utterances have their turns in the order of the first number of their embeddings (B, D), a rule
    that depends on the vectors alone; after the last one it begins again.
    """
    by_value = embeddings[:, 0].argsort()
    ranked = by_value[batch.column[by_value].argsort(stable=True)]  # rows by system, then by value
    return ranked[batch.turns]


def lengths(vectors: Tensor) -> Tensor:
    """(..., 1): of the rows (..., D); infinity for a row of zeros."""
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return length.masked_fill(length < 1e-12, torch.inf)


def unit(vectors: Tensor) -> Tensor:
    """Rows of length 1. A row of zeros has no direction: it stays zero and passes no gradient."""
    return vectors / lengths(vectors)


def with_slope(x: Tensor, cost: Tensor, slope: Tensor) -> Tensor:
    """The cost (), whose gradient by x is said to be the slope, of the shape of x; there is no second derivative.

    For losses whose gradient, written out, takes less time than autograd with what it would have to keep.
    """
    return cast(Tensor, _WithSlope.apply(x, cost, slope))  # type: ignore[no-untyped-call]


class _Saved(Protocol):
    """What `backward` finds in its context."""

    saved_tensors: tuple[Tensor, ...]


class _WithSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, cost: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return cost.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: _Saved, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None


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

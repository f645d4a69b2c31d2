"""Contract of the losses, and the functions that several losses share.

Axes: B batch, D embedding dimensions, C systems, R utterances of the largest system in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from makermark.foundation.errors import ParamsError

if TYPE_CHECKING:
    from makermark.models.losses.real_vs_spoof import RealVsSpoof


class Loss(nn.Module):
    """Base class of all losses: `loss(embeddings (B, D), systems (B,) int64) -> scalar`.

    The loss is computed in float32, or in float64 for float64 embeddings. The embeddings need not be normalised.
    The order of the rows has no meaning. `systems` may also be the output of `prepare_labels`: grouping the
    labels inside `forward` would make the host wait for an accelerator.
    """

    needs_groups: ClassVar[bool]  # True if every system of a batch must have at least 2 utterances

    mixup_alpha: float = (
        0.0  # above 0: batches are also mixed, with shares from Beta(alpha, alpha); see `mixup_loss`
    )

    def prepare_labels(self, systems: Tensor) -> Tensor | Groups:
        """Return what `forward` needs to know of the labels (B,): the labels, or their groups.

        Raises ValueError if the loss needs groups and a system has a single utterance.
        """
        return group_by_system(systems, loss=type(self).__name__.lower()) if self.needs_groups else systems

    def logits(self, embeddings: Tensor) -> Tensor | None:
        """Return the classifier's scores (B, C) for the training systems without margins, or None."""
        return None

    def mixup_loss(self, embeddings: Tensor, first: Tensor, second: Tensor, share: Tensor) -> Tensor:
        """Return the loss term for embeddings (B, D) of mixed inputs.

        Input i is `share[i]` times an utterance of system `first[i]` plus `1 - share[i]` times an utterance of
        system `second[i]`; all three are (B,). Losses with `mixup_alpha` above 0 override this method.
        """
        raise NotImplementedError(f"{type(self).__name__} has no mixup term")

    def pretraining_loss(self) -> RealVsSpoof | None:
        """Return a new loss for pre-training the backbone on bona fide and synthetic speech, or None."""
        return None


class ScaledCosineLoss(Loss):
    """Base class of losses over w cos + b, with learned w > 0 and b; `scale` and `bias` are their initial values.

    A softmax does not depend on b, so its gradient is zero up to rounding; b is part of the published models.
    """

    needs_groups = True

    def __init__(self, *, scale: float, bias: float) -> None:
        super().__init__()
        check_positive(type(self).__name__.lower(), scale=scale)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def similarities(self, cosines: Tensor) -> Tensor:
        """Return w cos + b."""
        return self.log_scale.exp() * cosines + self.bias


class Groups(NamedTuple):
    """Rows of a batch grouped by system. Groups smaller than R are repeated cyclically."""

    systems: Tensor  # (B,) int64: labels as passed
    group_index: Tensor  # (B,) int64: group of each row, 0 to C - 1
    counts: Tensor  # (C,) int64: rows per group
    ranks: Tensor  # (R,) int64: 0, 1, ..., R - 1
    sorted_index: Tensor  # (R, C) int64: position of element r of each group among the rows sorted by group

    def membership(self) -> Tensor:
        """Return a mask (B, C) bool: True where the row belongs to the system."""
        return self.group_index[:, None] == torch.arange(len(self.counts), device=self.group_index.device)

    def same_system_index(self) -> Tensor:
        """Return (B, R) int64: the rows of each row's own system, repeated cyclically."""
        return self.group_index.argsort(stable=True)[self.sorted_index].T[self.group_index]


def group_by_system(systems: Tensor | Groups, *, loss: str) -> Groups:
    """Group the labels (B,) on their device; groups are returned unchanged.

    Raises ValueError if a system has a single utterance.
    """
    if isinstance(systems, Groups):
        return systems
    labels, group_index, counts = torch.unique(systems, return_inverse=True, return_counts=True)
    sizes = counts.tolist()
    if min(sizes) < 2:
        system = int(labels[counts.argmin()])
        raise ValueError(
            f"{loss}: system {system} has 1 utterance in the batch; this loss compares utterances of one "
            "system and needs at least 2 of each: use the balanced sampler with 2 or more per system"
        )
    ranks = torch.arange(max(sizes), device=systems.device)
    first = counts.cumsum(0) - counts  # (C,): start of each group among the sorted rows
    return Groups(systems, group_index, counts, ranks, first + ranks[:, None] % counts)


def query_index(embeddings: Tensor, batch: Groups) -> Tensor:
    """Return (R, C) int64: the row that is the query of each system in each of R rounds.

    The rows of a system take turns in the order of the first component of their embeddings (B, D), so the choice
    depends on the embeddings and not on the row order. A smaller system starts over.
    """
    by_value = embeddings[:, 0].argsort()
    ranked = by_value[batch.group_index[by_value].argsort(stable=True)]  # rows by system, then by value
    return ranked[batch.sorted_index]


def overflow_scale(embeddings: Tensor) -> Tensor:
    """Return factors (..., 1) with which the squares of rows (..., D) are finite in float32.

    The factor is 2^-100 for a row with a component above 2^60, and 1 otherwise. A power of two adds no rounding.
    """
    largest = embeddings.detach().abs().amax(dim=-1, keepdim=True)
    return torch.ones_like(largest).masked_fill(largest > 2.0**60, 2.0**-100)


def l2_norms(embeddings: Tensor) -> Tensor:
    """Return the Euclidean norms (..., 1) of rows (..., D); infinity for a zero row."""
    scale = overflow_scale(embeddings)
    return _row_norms(embeddings * scale) / scale


def l2_normalise(embeddings: Tensor) -> Tensor:
    """Divide rows by their norm. A zero row stays zero and passes no gradient, unlike in `F.normalize`."""
    scaled = embeddings * overflow_scale(embeddings)
    return scaled / _row_norms(scaled)


def _row_norms(embeddings: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(embeddings, dim=-1, keepdim=True)
    return norms.masked_fill(norms < 1e-12, torch.inf)


def with_precomputed_grad(x: Tensor, loss: Tensor, grad: Tensor) -> Tensor:
    """Return the scalar loss with a precomputed gradient; not twice differentiable.

    `grad` has the shape of `x`. For losses whose written-out gradient is faster than autograd: a forward and
    backward pass of N-pair takes 0.79 instead of 1.33 ms, of Triplet 1.20 instead of 4.43 ms, both in float32
    (benchmarks/README.md).
    """
    return cast(Tensor, _PrecomputedGrad.apply(x, loss, grad))  # type: ignore[no-untyped-call]


class _Saved(Protocol):
    """Context of `backward`."""

    saved_tensors: tuple[Tensor, ...]


class _PrecomputedGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, loss: Tensor, grad: Tensor) -> Tensor:
        ctx.save_for_backward(grad)
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: _Saved, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = ctx.saved_tensors
        return grad_output * grad, None, None


@contextmanager
def full_precision(embeddings: Tensor) -> Iterator[Tensor]:
    """Disable autocast and yield the embeddings in float32 (float64 stays): small angles need the precision."""
    with torch.autocast(embeddings.device.type, enabled=False):
        yield embeddings.to(loss_dtype(embeddings))


@contextmanager
def double_precision(embeddings: Tensor) -> Iterator[Tensor]:
    """Disable autocast and yield the embeddings in float64, which holds the squares of all float32 numbers.

    For losses over distances of embeddings that are not normalised: at 1e20 those overflow in float32. It costs time: a
    pass of Proto takes 1.4 times as long as in float32 (288 x 50, one thread of an AVX2 processor). MPS has no float64;
    there the embeddings are yielded in float32.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        yield embeddings.float() if embeddings.device.type == "mps" else embeddings.double()


def saturate(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert to `dtype`; numbers beyond its range become its largest. The gradient is passed on unchanged."""
    limit = torch.finfo(dtype).max
    constant = values.detach()
    return (constant.clamp(-limit, limit) + (values - constant)).to(dtype)


def loss_dtype(embeddings: Tensor) -> torch.dtype:
    """Return the dtype of a loss of these embeddings: float64 for float64, otherwise float32."""
    return torch.float64 if embeddings.dtype == torch.float64 else torch.float32


def check_non_negative(loss: str, **settings: float) -> None:
    """Raise ParamsError for a negative setting."""
    for name, value in settings.items():
        if value < 0:
            raise ParamsError(f"loss {loss}: {name} is {value}; it must be at least 0")


def check_positive(loss: str, **settings: float) -> None:
    """Raise ParamsError for a setting that is not above 0."""
    for name, value in settings.items():
        if not value > 0:
            raise ParamsError(f"loss {loss}: {name} is {value}; it must be above 0")

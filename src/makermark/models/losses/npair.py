"""N-pair: cross-entropy over inner products of an anchor with one positive of each system."""

from __future__ import annotations

import torch
from torch import Tensor

from makermark.models.losses.base import (
    Groups,
    Loss,
    check_non_negative,
    full_precision,
    group_by_system,
    query_index,
    with_precomputed_grad,
)


class NPair(Loss):
    """N-pair-mc with L2 regularisation (Sohn 2016, Improved deep metric learning with multi-class N-pair loss).

    The paper's batch has one pair per system, an anchor f and a positive f+, not normalised. The loss is the mean
    over systems i of

    log(1 + sum over j != i of e^(f_i f_j+ - f_i f_i+))

    Here systems have more than two utterances, and rows have no order: every ordered pair of utterances of a system
    is anchor and positive once. The anchors of round r are those of `base.query_index`; the other utterances of
    the system are the positives in turn. The result is the mean over all choices.

    `reg` times the mean squared norm of the embeddings is added: without it, longer embeddings alone would lower
    the loss. A batch of one system has only this term.
    """

    needs_groups = True

    def __init__(self, *, reg: float) -> None:
        super().__init__()
        check_non_negative("npair", reg=reg)
        self.reg = reg

    def forward(self, embeddings: Tensor, systems: Tensor | Groups) -> Tensor:
        batch = group_by_system(systems, loss="npair")
        with full_precision(embeddings) as x:
            return with_precomputed_grad(x, *loss_and_grad(x.detach(), batch, reg=self.reg))


@torch.no_grad()
def loss_and_grad(x: Tensor, batch: Groups, *, reg: float) -> tuple[Tensor, Tensor]:
    """Return the scalar loss of x (B, D) and its gradient (B, D); numbers beyond the range become its largest.

    The anchors of a round are positives in all other rounds, so one table holds all inner products of anchors and
    positives: (R, C, R, C), each by round and system. The positives of a round differ from the anchors of another
    round only where systems differ in size.

    The inner products are those of scaled embeddings, which do not overflow. Only their differences to the largest one
    of an anchor and round are scaled back.
    """
    limit = torch.finfo(x.dtype).max
    scale = product_scale(x)
    unscale = (1 / scale).square().clamp(max=limit)  # of inner products
    x = x * scale
    table = (*batch.sorted_index.shape, *batch.sorted_index.shape)
    rows = query_index(x, batch).flatten()  # (R C,)
    queries = x[rows]
    products = queries @ queries.T  # (R C, R C)
    positives = positive_index(batch) if len(x) < len(rows) else None
    if positives is not None:
        products = products.gather(1, positives)
    share = products.view(table)
    share -= share.amax(3, keepdim=True)
    own = share.diagonal(dim1=1, dim2=3)  # (R, R, C): anchor and positive of one system
    choices = own.numel() - len(rows)
    gap = own.diagonal().sum() - own.sum()
    total = share.mul_(unscale).exp_().sum(3, keepdim=True)  # (R, C, R, 1)
    log_total = total.log()[..., 0]
    loss = gap / choices * unscale + (log_total.sum() - log_total.diagonal(dim1=0, dim2=2).sum()) / choices
    share /= total  # gradient by the products: the softmax, minus 1 for the own system
    own.sub_(1)
    share.diagonal(dim1=0, dim2=2).zero_()  # an anchor is not its own positive
    share = share.view_as(products)
    if positives is not None:
        share = torch.zeros_like(share).scatter_add_(1, positives, share)
    grad = (x * (2 * reg / len(x))).index_add_(0, rows, (share + share.T) @ queries, alpha=1 / choices)
    loss = loss + x.square().sum() * (reg / len(x)) * unscale
    return loss.clamp(max=limit), (grad / scale).clamp(-limit, limit)


def product_scale(x: Tensor) -> Tensor:
    """Return a factor () with which the inner products of the rows of x (B, D) are finite in float32.

    A power of two adds no rounding. It is 1 up to components of 2^50, and no smaller than needed: the products of
    short rows beside long ones must not vanish.
    """
    largest = x.abs().amax()
    scale = torch.ones_like(largest).masked_fill(largest > 2.0**50, 2.0**-40)
    return scale.masked_fill(largest > 2.0**90, 2.0**-78)


def positive_index(batch: Groups) -> Tensor:
    """Return (R C, R C) int64: for each anchor, the queries that are the positives of all systems, by round."""
    rank = batch.ranks
    step = (rank - rank[:, None] - 1) % len(rank)  # (R, R): rounds after the one that follows the anchor's
    positive = (rank[:, None, None] + 1 + step[..., None] % (batch.counts - 1)) % batch.counts  # (R, R, C)
    system = torch.arange(len(batch.counts), device=rank.device)
    return (positive * len(system) + system).flatten(1)[:, None].expand(-1, len(system), -1).flatten(0, 1)

"""N-pair: cross-entropy over inner products of an anchor with one positive of each system."""

from __future__ import annotations

import torch
from torch import Tensor

from makermark.models.losses.base import (
    Groups,
    Loss,
    check_non_negative,
    double_precision,
    group_by_system,
    loss_dtype,
    query_index,
    saturate,
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
        with double_precision(embeddings) as x:
            loss, grad = loss_and_grad(x.detach(), batch, reg=self.reg)
            dtype = loss_dtype(embeddings)
            return with_precomputed_grad(embeddings.to(dtype), saturate(loss, dtype), saturate(grad, dtype))


@torch.no_grad()
def loss_and_grad(x: Tensor, batch: Groups, *, reg: float) -> tuple[Tensor, Tensor]:
    """Return the scalar loss of x (B, D) and its gradient (B, D).

    The anchors of a round are positives in all other rounds, so one table holds all inner products of anchors and
    positives: (R, C, R, C), each by round and system. The positives of a round differ from the anchors of another
    round only where systems differ in size.
    """
    table = (*batch.sorted_index.shape, *batch.sorted_index.shape)
    rows = query_index(x, batch).flatten()  # (R C,)
    queries = x[rows]
    products = queries @ queries.T  # (R C, R C)
    positives = positive_index(batch) if len(x) < len(rows) else None
    if positives is not None:
        products = products.gather(1, positives)
    share = products.view(table).log_softmax(3)
    own = share.diagonal(dim1=1, dim2=3)  # (R, R, C): anchor and positive of one system
    choices = own.numel() - len(rows)
    loss = (own.diagonal().sum() - own.sum()) / choices
    share.exp_()  # gradient by the products: the softmax, minus 1 for the own system
    own.sub_(1)
    share.diagonal(dim1=0, dim2=2).zero_()  # an anchor is not its own positive
    share = share.view_as(products)
    if positives is not None:
        share = torch.zeros_like(share).scatter_add_(1, positives, share)
    grad = (x * (2 * reg / len(x))).index_add_(0, rows, (share + share.T) @ queries, alpha=1 / choices)
    return loss + x.square().sum() * (reg / len(x)), grad


def positive_index(batch: Groups) -> Tensor:
    """Return (R C, R C) int64: for each anchor, the queries that are the positives of all systems, by round."""
    rank = batch.ranks
    step = (rank - rank[:, None] - 1) % len(rank)  # (R, R): rounds after the one that follows the anchor's
    positive = (rank[:, None, None] + 1 + step[..., None] % (batch.counts - 1)) % batch.counts  # (R, R, C)
    system = torch.arange(len(batch.counts), device=rank.device)
    return (positive * len(system) + system).flatten(1)[:, None].expand(-1, len(system), -1).flatten(0, 1)

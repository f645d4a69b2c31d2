"""Proto: a query of each system must lie nearer to its own system's mean than to the others'."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from makermark.losses.base import Groups, Loss, full_precision, groups, rows_by_turn


class Proto(Loss):
    """Snell et al. 2017 (Prototypical networks for few-shot learning), eq. 1 and 2.

    The prototype c_k is the mean of system k's support (eq. 1), and a query x_j costs -log softmax over k of
    -|x_j - c_k|^2 at k = j (eq. 2), averaged over the queries; embeddings are not normalised. In the paper
    query and support are drawn for each batch. Here every utterance is the query once, with the rest of its
    system as support: in round r each system's query is its r-th utterance by the first number of its
    embedding (base.rows_by_turn), and the result is the mean over the rounds. A smaller system starts over. A
    batch of one system costs 0.
    """

    needs_groups = True

    def __init__(self) -> None:
        super().__init__()

    def forward(self, embeddings: Tensor, systems: Tensor | Groups) -> Tensor:
        batch = groups(systems, loss="proto")
        with full_precision(embeddings) as x:
            x = x - x.detach().mean(dim=0)  # distances stay, and their products below keep their digits
            queries = x[rows_by_turn(x.detach(), batch)]  # (R, C, D)
            sums = batch.member().to(x.dtype).T @ x  # (C, D)
            prototypes = (sums - queries) / (batch.counts - 1)[:, None]  # (R, C, D)
            closeness = (
                2 * queries @ prototypes.mT - prototypes.square().sum(dim=2)[:, None]
            )  # + |x_j|^2: -distance
            rounds, count = queries.shape[:2]
            own = torch.arange(count, device=x.device).repeat(rounds)
            return F.cross_entropy(closeness.flatten(0, 1), own)

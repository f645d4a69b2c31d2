"""Proto: a query of each system must lie nearer to its own system's mean than to the others'."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from makermark.losses.base import Loss, full_precision, groups, rows_at, turns


class Proto(Loss):
    """Snell et al. 2017 (Prototypical networks for few-shot learning), eq. 1 and 2.

    The prototype c_k is the mean of system k's support (eq. 1), and a query x_j costs -log softmax over k of
    -|x_j - c_k|^2 at k = j (eq. 2), averaged over the queries; embeddings are not normalised. In the paper
    query and support are drawn for each batch. Here every utterance is the query once, with the rest of its
    system as support: in round r each system's query is its r-th utterance by the first number of its
    embedding (base.rows_at), and the result is the mean over the rounds. A smaller system starts over. A
    batch of one system costs 0.
    """

    needs_groups = True

    def __init__(self) -> None:
        super().__init__()

    def forward(self, embeddings: Tensor, systems: Tensor) -> Tensor:
        batch = groups(systems, loss="proto")
        with full_precision(embeddings) as x:
            queries = x[rows_at(turns(batch)[:, None], x.detach(), batch)]  # (R, C, D)
            sums = batch.member.to(x.dtype).T @ x  # (C, D)
            prototypes = (sums - queries) / (batch.counts - 1)[:, None]  # (R, C, D)
            distances = (queries[:, :, None] - prototypes[:, None]).square().sum(dim=-1)  # (R, C, C)
            rounds, count = queries.shape[:2]
            return F.cross_entropy(
                -distances.flatten(0, 1), torch.arange(count, device=x.device).repeat(rounds)
            )

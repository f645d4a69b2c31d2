"""Proto: cross-entropy over negative squared distances between a query and the systems' prototypes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from makermark.models.losses.base import (
    Groups,
    Loss,
    double_precision,
    group_by_system,
    loss_dtype,
    query_index,
    saturate,
)


class Proto(Loss):
    """Prototypical loss (Snell et al. 2017, Prototypical networks for few-shot learning, eq. 1 and 2).

    The prototype c_k is the mean of system k's support (eq. 1). The loss is the mean over queries x_j of

    -log softmax over k of -|x_j - c_k|^2 at k = j   (eq. 2)

    Embeddings are not normalised. The paper draws query and support for each batch. Here every utterance is the
    query once, and the other utterances of its system are the support: the result is the mean over R rounds with
    the queries of `base.query_index`. A batch of one system has loss 0.
    """

    needs_groups = True

    def __init__(self) -> None:
        super().__init__()

    def forward(self, embeddings: Tensor, systems: Tensor | Groups) -> Tensor:
        batch = group_by_system(systems, loss="proto")
        with double_precision(embeddings) as x:
            x = x - x.detach().mean(dim=0)  # keeps distances, and the precision of the products below
            queries = x[query_index(x.detach(), batch)]  # (R, C, D)
            sums = batch.membership().to(x.dtype).T @ x  # (C, D)
            prototypes = (sums - queries) / (batch.counts - 1)[:, None]  # (R, C, D)
            # -|x - c|^2 without the term |x|^2, which the softmax does not depend on
            similarities = 2 * queries @ prototypes.mT - prototypes.square().sum(dim=2)[:, None]  # (R, C, C)
            rounds, count = queries.shape[:2]
            target = torch.arange(count, device=x.device).repeat(rounds)
            loss = F.cross_entropy(similarities.flatten(0, 1), target)
            return saturate(loss, loss_dtype(embeddings))

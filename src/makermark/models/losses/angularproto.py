"""AngularProto: cross-entropy over the cosines between a query and the prototypes of the systems."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from makermark.models.losses.base import (
    Groups,
    ScaledCosineLoss,
    full_precision,
    group_by_system,
    l2_normalise,
    query_index,
)


class AngularProto(ScaledCosineLoss):
    """Angular prototypical loss (Chung et al. 2020, In defence of metric learning for speaker recognition).

    With one query x_j per system and the prototype c_k, the mean of system k's other utterances, the loss is the
    mean over systems j of

    -log softmax over k of (w cos(x_j, c_k) + b) at k = j

    The paper takes the last utterance of each system as its query. Here rows have no order, so every utterance is
    the query once: the result is the mean over R rounds with the queries of `base.query_index`. A batch of one
    system has loss 0.

    w > 0 and b are learned; see `ScaledCosineLoss`.
    """

    def forward(self, embeddings: Tensor, systems: Tensor | Groups) -> Tensor:
        batch = group_by_system(systems, loss="angularproto")
        with full_precision(embeddings) as x:
            queries = x[query_index(x.detach(), batch)]  # (R, C, D)
            prototypes = (
                batch.membership().to(x.dtype).T @ x - queries
            )  # (R, C, D), sums: the scale cancels below
            cosines = l2_normalise(queries) @ l2_normalise(prototypes).mT  # (R, C, C)
            similarities = self.similarities(cosines).flatten(0, 1)  # (R C, C)
            rounds, count = queries.shape[:2]
            return F.cross_entropy(similarities, torch.arange(count, device=x.device).repeat(rounds))

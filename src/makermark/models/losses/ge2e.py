"""GE2E: cross-entropy over the cosines between an utterance and the centroids of the systems."""

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
)


class GE2E(ScaledCosineLoss):
    """Generalised end-to-end loss (Wan et al. 2018), softmax variant, averaged over the batch.

    The embeddings e are normalised to length 1, and c_k is the mean over system k. The similarity of utterance i
    of system j to system k is w cos(e_ji, c_k) + b (eq. 5); c_j leaves e_ji out (eq. 8 and 9). The loss is
    -log softmax over k of the similarities at k = j (eq. 6). A batch of one system has loss 0.

    w > 0 and b are learned; see `ScaledCosineLoss`.
    """

    def forward(self, embeddings: Tensor, systems: Tensor | Groups) -> Tensor:
        batch = group_by_system(systems, loss="ge2e")
        with full_precision(embeddings) as x:
            x = l2_normalise(x)
            membership = batch.membership()
            sums = membership.to(x.dtype).T @ x  # (C, D): parallel to the centroids
            others = l2_normalise(sums[batch.group_index] - x)  # (B, D): own centroid without the utterance
            own = (x * others).sum(dim=1, keepdim=True)  # (B, 1)
            cosines = torch.where(membership, own, x @ l2_normalise(sums).T)  # (B, C)
            return F.cross_entropy(self.similarities(cosines), batch.group_index)

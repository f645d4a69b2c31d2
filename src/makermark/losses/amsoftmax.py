"""AMSoftmax: softmax over cosines with an additive margin on the cosine of the true system."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.losses.base import Loss, above_zero, at_least_zero, full_precision, unit


class AMSoftmax(Loss):
    """Wang et al. 2018 (Additive margin softmax for face verification), eq. 6, averaged over the batch.

    -log e^(s (cos_y - m)) / (e^(s (cos_y - m)) + sum over j != y of e^(s cos_j)), where cos_j is the cosine
    of the embedding and the learned direction of system j.
    """

    needs_groups = False

    def __init__(self, *, num_systems: int, dim: int, margin: float, scale: float) -> None:
        super().__init__()
        at_least_zero("amsoftmax", margin=margin)
        above_zero("amsoftmax", scale=scale)
        self.margin = margin
        self.scale = scale
        self.directions = nn.Parameter(torch.empty(num_systems, dim))
        nn.init.xavier_normal_(self.directions)

    def forward(self, embeddings: Tensor, systems: Tensor) -> Tensor:
        true = systems[:, None] == torch.arange(len(self.directions), device=systems.device)  # (B, C)
        return F.cross_entropy(self.logits(embeddings) - self.scale * self.margin * true, systems)

    def logits(self, embeddings: Tensor) -> Tensor:
        """(B, C): s cos_j, without the margin."""
        with full_precision(embeddings) as x:
            return self.scale * (unit(x) @ unit(self.directions).T)

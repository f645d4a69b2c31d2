"""AMSoftmax: softmax over cosines with an additive margin on the cosine of the true system."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.models.losses.base import (
    Loss,
    check_non_negative,
    check_positive,
    full_precision,
    l2_normalise,
)


class AMSoftmax(Loss):
    """Additive margin softmax, averaged over the batch.

    Wang et al. 2018 (Additive margin softmax for face verification), eq. 6:
    -log(e^(s (cos_y - m)) / (e^(s (cos_y - m)) + sum over j != y of e^(s cos_j)))

    cos_j is the cosine between the embedding and the learned direction of system j, s the scale and m the margin.
    """

    needs_groups = False

    def __init__(self, *, num_systems: int, dim: int, margin: float, scale: float) -> None:
        super().__init__()
        check_non_negative("amsoftmax", margin=margin)
        check_positive("amsoftmax", scale=scale)
        self.margin = margin
        self.scale = scale
        self.directions = nn.Parameter(torch.empty(num_systems, dim))
        nn.init.xavier_normal_(self.directions)

    def forward(self, embeddings: Tensor, systems: Tensor) -> Tensor:
        target = systems[:, None] == torch.arange(len(self.directions), device=systems.device)  # (B, C)
        return F.cross_entropy(self.logits(embeddings) - self.scale * self.margin * target, systems)

    def logits(self, embeddings: Tensor) -> Tensor:
        """Return s cos_j (B, C), without the margin."""
        with full_precision(embeddings) as x:
            return self.scale * (l2_normalise(x) @ l2_normalise(self.directions).T)

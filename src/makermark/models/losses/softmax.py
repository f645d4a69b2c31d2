"""Softmax: cross-entropy of a linear classifier over the training systems."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from makermark.models.losses.base import Loss, full_precision


class Softmax(Loss):
    """-log softmax(W x + b) at the true system, averaged over the batch."""

    needs_groups = False

    def __init__(self, *, num_systems: int, dim: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(dim, num_systems)

    def forward(self, embeddings: Tensor, systems: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(embeddings), systems)

    def logits(self, embeddings: Tensor) -> Tensor:
        """Return W x + b (B, C)."""
        with full_precision(embeddings) as x:
            return F.linear(x, self.classifier.weight, self.classifier.bias)

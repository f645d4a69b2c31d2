"""Triplet: of three utterances, the two of one system must lie nearer together, by a margin."""

from __future__ import annotations

import torch
from torch import Tensor

from makermark.losses.base import Loss, above_zero, full_precision, groups, unit


class Triplet(Loss):
    """Schroff et al. 2015 (FaceNet), sections 3.1 and 3.2, averaged over all pairs of anchor and positive of the batch.

    max(0, |a - p|^2 - |a - n|^2 + margin), with embeddings of length 1. The negative n is semi-hard:
    of the other systems' utterances that lie farther from the anchor than the positive, the nearest. If all
    lie nearer, n is the farthest of them, the least hard: the hardest would let the embedding collapse to a
    point early on. A batch of one system costs 0.
    """

    needs_groups = True

    def __init__(self, *, margin: float) -> None:
        super().__init__()
        above_zero("triplet", margin=margin)
        self.margin = margin

    def forward(self, embeddings: Tensor, systems: Tensor) -> Tensor:
        groups(systems, loss="triplet")
        same = systems[:, None] == systems  # (B, B)
        anchors, positives = same.fill_diagonal_(False).nonzero(as_tuple=True)  # (M,) each: M pairs
        with full_precision(embeddings) as x:
            x = unit(x)
            distances = 2 - 2 * x @ x.T  # (B, B): squared
            to_positive = distances[anchors, positives][:, None]  # (M, 1)
            negative = (systems[:, None] != systems)[anchors]  # (M, B)
            to_negative = semihard(distances.index_select(0, anchors), negative, to_positive)
            return (to_positive[:, 0] - to_negative + self.margin).relu().mean()


def semihard(distances: Tensor, negative: Tensor, to_positive: Tensor) -> Tensor:
    """(M,): the least of distances (M, B) to a `negative` (M, B) above `to_positive` (M, 1).

    Where none is above, the largest; where there is no negative at all, infinity.
    """
    farther = negative & (distances > to_positive)
    nearest = distances.masked_fill(~farther, torch.inf).amin(dim=1)
    farthest = distances.masked_fill(~negative, -torch.inf).amax(dim=1)
    return torch.where(negative.any(dim=1) & ~farther.any(dim=1), farthest, nearest)

"""Triplet: of three utterances, the two of one system must lie nearer together, by a margin."""

from __future__ import annotations

import torch
from torch import Tensor

from makermark.losses.base import Groups, Loss, above_zero, full_precision, groups, unit


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

    def forward(self, embeddings: Tensor, systems: Tensor | Groups) -> Tensor:
        batch = groups(systems, loss="triplet")
        own = torch.arange(len(batch.column), device=batch.column.device)[:, None]  # (B, 1)
        repeated = batch.places >= batch.counts[batch.column, None]  # (B, R)
        with full_precision(embeddings) as x:
            x = unit(x)
            distances = 2 - 2 * x @ x.T  # (B, B): squared
            to_positive = distances.gather(1, batch.partners)  # (B, R)
            to_negative = semihard(distances, batch.column[:, None] != batch.column, to_positive)
            costs = (to_positive - to_negative + self.margin).relu()
            pairs = (batch.counts * (batch.counts - 1)).sum()
            return costs.masked_fill(repeated | (batch.partners == own), 0).sum() / pairs


def semihard(distances: Tensor, negative: Tensor, to_positive: Tensor) -> Tensor:
    """(B, R): the least of distances (B, B) to a `negative` (B, B) above each of `to_positive` (B, R).

    Where none is above, the largest; where there is no negative at all, infinity. A negative falls into the class of
    how many positives lie below it; what is above a positive are the classes from that positive's own rank on.
    """
    apart = distances.masked_fill(~negative, torch.inf)
    below = torch.zeros_like(apart, dtype=torch.int16)  # (B, B): positives nearer than the negative
    for positive in to_positive.detach()[..., None].unbind(1):  # (B, 1) each
        below += apart > positive
    rank = (to_positive[:, None] <= to_positive[..., None]).sum(dim=2)  # (B, R): from 1
    classes = torch.full_like(to_positive, torch.inf)[:, :1].repeat(1, to_positive.shape[1] + 1)  # (B, R + 1)
    least = classes.scatter_reduce(1, below.long(), apart, "amin")
    above = least.flip(1).cummin(dim=1).values.flip(1)  # of a class and those beyond
    nearest = above.gather(1, rank)
    farthest = distances.masked_fill(~negative, -torch.inf).amax(dim=1, keepdim=True)
    return torch.where(nearest.isinf() & farthest.isfinite(), farthest, nearest)

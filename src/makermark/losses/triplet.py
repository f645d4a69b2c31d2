"""Triplet: of three utterances, the two of one system must lie nearer together, by a margin."""

from __future__ import annotations

import torch
from torch import Tensor

from makermark.losses.base import Groups, Loss, above_zero, full_precision, groups, lengths, with_slope


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
        with full_precision(embeddings) as x:
            return with_slope(x, *cost_and_slope(x.detach(), batch, margin=self.margin))


@torch.no_grad()
def cost_and_slope(x: Tensor, batch: Groups, *, margin: float) -> tuple[Tensor, Tensor]:
    """The cost () of x (B, D) and its gradient (B, D), in which negatives equally near share.

    At length 1 a squared distance is 2 - 2 cos, so "farther" is a smaller cosine.
    """
    partners = batch.partners()  # (B, R)
    length = lengths(x)  # (B, 1)
    x = x / length
    itself = torch.finfo(x.dtype).max  # as a positive so near that it costs nothing
    cosines = (x @ x.T).fill_diagonal_(itself)  # (B, B)
    positive = cosines.gather(1, partners)  # (B, R)
    farthest = cosines.scatter_(1, partners, 2).amin(1, keepdim=True)  # (B, 1): 2 where there is no negative
    negative = cosines.scatter_(1, partners, -torch.inf)  # (B, B): or -inf in the own system
    bound = positive.maximum(farthest.nextafter(farthest + 1))  # the farthest is beyond every bound
    beyond = torch.threshold_(bound[..., None] - negative[:, None], 0.0, torch.inf)  # (B, R, B)
    nearest = beyond.amin(2)  # (B, R)
    repeated = batch.places >= batch.counts[batch.column, None]  # (B, R)
    costs = (2 * (bound - positive - nearest) + margin).masked_fill_(repeated, 0).relu_()
    costly = costs.sign()
    chosen = beyond.eq_(nearest[..., None])  # 1 at the negative, 0 elsewhere
    share = ((costly / chosen.sum(2))[:, None] @ chosen)[:, 0]  # (B, B): of each cosine in half the cost
    share.scatter_add_(1, partners, -costly)
    pairs = (batch.counts * (batch.counts - 1)).sum()
    slope = (share + share.T) @ x * (2 / pairs)
    return costs.sum() / pairs, (slope - (slope * x).sum(1, keepdim=True) * x) / length

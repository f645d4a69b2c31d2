"""Triplet: an anchor must be nearer to a positive than to a semi-hard negative, by a margin."""

from __future__ import annotations

import torch
from torch import Tensor

from makermark.models.losses.base import (
    Groups,
    Loss,
    check_positive,
    full_precision,
    group_by_system,
    l2_norms,
    with_precomputed_grad,
)


class Triplet(Loss):
    """Triplet loss with semi-hard negatives (Schroff et al. 2015, FaceNet, sections 3.1 and 3.2).

    max(0, |a - p|^2 - |a - n|^2 + margin), averaged over all pairs of anchor a and positive p in the batch.
    Embeddings are normalised to length 1. The negative n is the nearest utterance of another system that is farther
    from the anchor than the positive. If there is none, n is the farthest negative: the hardest one would let the
    embeddings collapse to a point early in training. A batch of one system has loss 0.
    """

    needs_groups = True

    def __init__(self, *, margin: float) -> None:
        super().__init__()
        check_positive("triplet", margin=margin)
        self.margin = margin

    def forward(self, embeddings: Tensor, systems: Tensor | Groups) -> Tensor:
        batch = group_by_system(systems, loss="triplet")
        with full_precision(embeddings) as x:
            return with_precomputed_grad(x, *loss_and_grad(x.detach(), batch, margin=self.margin))


@torch.no_grad()
def loss_and_grad(x: Tensor, batch: Groups, *, margin: float) -> tuple[Tensor, Tensor]:
    """Return the scalar loss of x (B, D) and its gradient (B, D). Negatives at equal distance share the gradient.

    At length 1 a squared distance is 2 - 2 cos, so "farther" means a smaller cosine.
    """
    same_system = batch.same_system_index()  # (B, R)
    norms = l2_norms(x)  # (B, 1)
    x = x / norms
    own_cosine = torch.finfo(x.dtype).max  # the loss of an anchor with itself as positive is then 0
    cosines = (x @ x.T).fill_diagonal_(own_cosine)  # (B, B)
    positive = cosines.gather(1, same_system)  # (B, R)
    farthest = cosines.scatter_(1, same_system, 2).amin(1, keepdim=True)  # (B, 1); 2 if there is no negative
    negative = cosines.scatter_(1, same_system, -torch.inf)  # (B, B); -inf for the own system
    bound = positive.maximum(farthest.nextafter(farthest + 1))  # at least one negative is beyond the bound
    beyond = torch.threshold_(bound[..., None] - negative[:, None], 0.0, torch.inf)  # (B, R, B)
    nearest = beyond.amin(2)  # (B, R)
    repeated = batch.ranks >= batch.counts[batch.group_index, None]  # (B, R)
    losses = (2 * (bound - positive - nearest) + margin).masked_fill_(repeated, 0).relu_()
    active = losses.sign()
    selected = beyond.eq_(nearest[..., None])  # 1 at the negative, 0 elsewhere
    share = ((active / selected.sum(2))[:, None] @ selected)[:, 0]  # (B, B): half the gradient by each cosine
    share.scatter_add_(1, same_system, -active)
    pairs = (batch.counts * (batch.counts - 1)).sum()
    grad = (share + share.T) @ x * (2 / pairs)
    return losses.sum() / pairs, (grad - (grad * x).sum(1, keepdim=True) * x) / norms

"""GE2E: every utterance must lie nearer to its own system's centroid than to the others'."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.losses.base import Groups, Loss, above_zero, full_precision, groups, unit


class GE2E(Loss):
    """Wan et al. 2018 (Generalized end-to-end loss for speaker verification), eq. 5, 6, 8 and 9.

    With e the embeddings at length 1 and c_k the mean of system k's, the similarity of utterance i of system
    j to system k is w cos(e_ji, c_k) + b, where c_j leaves e_ji itself out (eq. 9). The loss is
    -log softmax over k at k = j (eq. 6), averaged over the utterances of the batch; systems may bring
    different numbers of utterances, at least 2. A batch of one system costs 0.

    w > 0 and b are learned. b shifts all similarities alike, which the softmax does not see: its gradient is
    zero but for rounding, and it is kept as part of the published model.
    """

    needs_groups = True

    def __init__(self, *, scale: float, bias: float) -> None:
        super().__init__()
        above_zero("ge2e", scale=scale)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def forward(self, embeddings: Tensor, systems: Tensor | Groups) -> Tensor:
        batch = groups(systems, loss="ge2e")
        with full_precision(embeddings) as x:
            x = unit(x)
            member = batch.member()
            sums = member.to(x.dtype).T @ x  # (C, D): in the direction of the centroids
            others = unit(sums[batch.column] - x)  # (B, D): the own centroid without the utterance
            own = (x * others).sum(dim=1, keepdim=True)  # (B, 1)
            cosines = torch.where(member, own, x @ unit(sums).T)  # (B, C)
            return F.cross_entropy(self.log_scale.exp() * cosines + self.bias, batch.column)

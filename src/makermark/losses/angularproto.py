"""AngularProto: a query of each system must lie nearer to its own system's prototype than to the others'."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.losses.base import Groups, Loss, above_zero, full_precision, groups, rows_by_turn, unit


class AngularProto(Loss):
    """Chung et al. 2020 (In defence of metric learning for speaker recognition), angular prototypical loss.

    In the paper one utterance of each system, the last of its list, is the query x_j, and the prototype c_k
    is the mean of system k's other utterances; the loss is -log softmax over k of w cos(x_j, c_k) + b at
    k = j, averaged over the systems. Rows have no order here, so every utterance is the query once: a round
    is the paper's loss for one choice of query per system, and the result is the mean over the rounds. In
    round r each system's query is its r-th utterance by the first number of its embedding: a rule that
    depends on the vectors alone, and decides only which queries meet. There are as many rounds as the largest
    system has utterances; a smaller one starts over. A batch of one system costs 0.

    w > 0 and b are learned. b shifts all similarities alike, which the softmax does not see: its gradient is
    zero but for rounding, and it is kept as part of the published model.
    """

    needs_groups = True

    def __init__(self, *, scale: float, bias: float) -> None:
        super().__init__()
        above_zero("angularproto", scale=scale)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def forward(self, embeddings: Tensor, systems: Tensor | Groups) -> Tensor:
        batch = groups(systems, loss="angularproto")
        with full_precision(embeddings) as x:
            queries = x[rows_by_turn(x.detach(), batch)]  # (R, C, D)
            prototypes = batch.member().to(x.dtype).T @ x - queries  # (R, C, D), but for a positive factor
            cosines = unit(queries) @ unit(prototypes).mT  # (R, C, C)
            similarities = (self.log_scale.exp() * cosines + self.bias).flatten(0, 1)  # (R C, C)
            rounds, count = queries.shape[:2]
            return F.cross_entropy(similarities, torch.arange(count, device=x.device).repeat(rounds))

"""AAMSoftmax (ArcFace): softmax over cosines with an additive margin on the angle to the true system."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.errors import ParamsError
from makermark.losses.base import Loss, above_zero, full_precision, unit


class AAMSoftmax(Loss):
    """Deng et al. 2019 (ArcFace), eq. 3, averaged over the batch.

    -log e^(s cos(a_y + m)) / (e^(s cos(a_y + m)) + sum over j != y of e^(s cos a_j)), where a_j is the angle
    of the embedding to the learned direction of system j. For angles above pi - m, where cos(a + m) would
    rise again, it continues as cos a - m sin m (as the authors' code does), which goes on falling.
    """

    needs_groups = False

    def __init__(self, *, num_systems: int, dim: int, margin: float, scale: float) -> None:
        super().__init__()
        check_angle("aamsoftmax", margin=margin)
        above_zero("aamsoftmax", scale=scale)
        self.margin = margin
        self.scale = scale
        self.directions = nn.Parameter(torch.empty(num_systems, dim))
        nn.init.xavier_normal_(self.directions)

    def forward(self, embeddings: Tensor, systems: Tensor) -> Tensor:
        with full_precision(embeddings) as x:
            x, directions = unit(x), unit(self.directions)
            cosines = x @ directions.T  # (B, C)
            true = with_margin(x, directions[systems], self.margin)  # (B, 1)
            logits = self.scale * cosines.scatter(1, systems[:, None], true)
            return F.cross_entropy(logits, systems)

    def logits(self, embeddings: Tensor) -> Tensor:
        """(B, C): s cos a_j, without the margin."""
        with full_precision(embeddings) as x:
            return self.scale * (unit(x) @ unit(self.directions).T)


def with_margin(x: Tensor, true: Tensor, margin: float) -> Tensor:
    """(B, 1): cos(a + m) of the unit vectors `x` and `true`, each (B, D), and its continuation.

    The sine is the length of what of `x` stands across `true`: unlike sqrt(1 - cos^2) it is exact for small
    angles, and its gradient at an exact match is 0, not infinite.
    """
    cosine = (x * true).sum(dim=1, keepdim=True)
    sine = torch.linalg.vector_norm(x - cosine * true, dim=1, keepdim=True)
    shifted = cosine * math.cos(margin) - sine * math.sin(margin)
    continued = cosine - margin * math.sin(margin)
    return torch.where(cosine >= -math.cos(margin), shifted, continued)


def check_angle(loss: str, *, margin: float) -> None:
    """Raise ParamsError unless the margin is an angle that leaves room."""
    if not 0 <= margin < math.pi / 2:
        raise ParamsError(f"loss {loss}: margin is {margin}; an angle from 0 to below pi / 2 radians")

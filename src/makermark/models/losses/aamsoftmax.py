"""AAMSoftmax (ArcFace): softmax over cosines with an additive margin on the angle to the true system."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.foundation.errors import ParamsError
from makermark.models.losses.base import Loss, check_positive, full_precision, l2_normalise


class AAMSoftmax(Loss):
    """Additive angular margin softmax, averaged over the batch (Deng et al. 2019, ArcFace, eq. 3).

    -log(e^(s cos(a_y + m)) / (e^(s cos(a_y + m)) + sum over j != y of e^(s cos a_j)))

    a_j is the angle between the embedding and the learned direction of system j, s the scale and m the margin in
    radians. For angles above pi - m, where cos(a + m) would rise again, it is replaced by cos a - m sin m, as in
    the authors' code.
    """

    needs_groups = False

    def __init__(self, *, num_systems: int, dim: int, margin: float, scale: float) -> None:
        super().__init__()
        check_angular_margin("aamsoftmax", margin=margin)
        check_positive("aamsoftmax", scale=scale)
        self.margin = margin
        self.scale = scale
        self.directions = nn.Parameter(torch.empty(num_systems, dim))
        nn.init.xavier_normal_(self.directions)

    def forward(self, embeddings: Tensor, systems: Tensor) -> Tensor:
        with full_precision(embeddings) as x:
            x, directions = l2_normalise(x), l2_normalise(self.directions)
            cosines = x @ directions.T  # (B, C)
            target = cosine_with_margin(x, directions[systems], self.margin)  # (B, 1)
            logits = self.scale * cosines.scatter(1, systems[:, None], target)
            return F.cross_entropy(logits, systems)

    def logits(self, embeddings: Tensor) -> Tensor:
        """Return s cos a_j (B, C), without the margin."""
        with full_precision(embeddings) as x:
            return self.scale * (l2_normalise(x) @ l2_normalise(self.directions).T)


def cosine_with_margin(x: Tensor, direction: Tensor, margin: float) -> Tensor:
    """Return cos(a + m) (B, 1) for the angle a between the unit rows of `x` and `direction`, both (B, D).

    For a > pi - m it returns cos a - m sin m. The sine is the norm of the component of `x` orthogonal to
    `direction`: unlike sqrt(1 - cos^2) it is accurate for small angles, and its gradient at an exact match is 0
    instead of infinite.
    """
    cosine = (x * direction).sum(dim=1, keepdim=True)
    sine = torch.linalg.vector_norm(x - cosine * direction, dim=1, keepdim=True)
    shifted = cosine * math.cos(margin) - sine * math.sin(margin)
    continued = cosine - margin * math.sin(margin)
    return torch.where(cosine >= -math.cos(margin), shifted, continued)


def check_angular_margin(loss: str, *, margin: float) -> None:
    """Raise ParamsError unless 0 <= margin < pi / 2."""
    if not 0 <= margin < math.pi / 2:
        raise ParamsError(
            f"loss {loss}: margin is {margin}; it must be an angle from 0 to below pi / 2 radians"
        )

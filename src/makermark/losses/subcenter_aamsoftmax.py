"""Sub-centre AAMSoftmax: AAMSoftmax where each system has several directions and the nearest one counts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.losses.aamsoftmax import check_angle, with_margin
from makermark.losses.base import Loss, above_zero, full_precision, unit


class SubcenterAAMSoftmax(Loss):
    """Deng et al. 2020 (Sub-center ArcFace), averaged over the batch.

    AAMSoftmax (see there, also for angles above pi - m) with a_j the angle of the embedding to the nearest of
    the `sub_centres` learned directions of system j: a system may have several ways to sound.
    """

    needs_groups = False

    def __init__(self, *, num_systems: int, dim: int, margin: float, scale: float, sub_centres: int) -> None:
        super().__init__()
        check_angle("subcenter-aamsoftmax", margin=margin)
        above_zero("subcenter-aamsoftmax", scale=scale, sub_centres=sub_centres)
        self.margin = margin
        self.scale = scale
        self.directions = nn.Parameter(torch.empty(num_systems, sub_centres, dim))
        nn.init.xavier_normal_(self.directions.view(-1, dim))

    def forward(self, embeddings: Tensor, systems: Tensor) -> Tensor:
        with full_precision(embeddings) as x:
            x, directions = unit(x), unit(self.directions)
            cosines, nearest = torch.einsum("bd,ckd->bck", x, directions).max(dim=2)  # (B, C) each
            own = nearest.gather(1, systems[:, None])[:, 0]  # (B,)
            true = with_margin(x, directions[systems, own], self.margin)  # (B, 1)
            return F.cross_entropy(self.scale * cosines.scatter(1, systems[:, None], true), systems)

    def logits(self, embeddings: Tensor) -> Tensor:
        """(B, C): s cos a_j of the nearest sub-centre, without the margin."""
        with full_precision(embeddings) as x:
            return self.scale * torch.einsum("bd,ckd->bck", unit(x), unit(self.directions)).amax(dim=2)

"""Sub-centre AAMSoftmax: AAMSoftmax with several directions per system, of which the nearest counts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.models.losses.aamsoftmax import check_angular_margin, cosine_with_margin
from makermark.models.losses.base import Loss, check_positive, full_precision, l2_normalise


class SubcenterAAMSoftmax(Loss):
    """Sub-centre ArcFace, averaged over the batch (Deng et al. 2020, Sub-center ArcFace).

    The formula of `AAMSoftmax`, with a_j the angle between the embedding and the nearest of the `sub_centres`
    learned directions of system j, so that the utterances of a system may form several clusters.
    """

    needs_groups = False

    def __init__(self, *, num_systems: int, dim: int, margin: float, scale: float, sub_centres: int) -> None:
        super().__init__()
        check_angular_margin("subcenter-aamsoftmax", margin=margin)
        check_positive("subcenter-aamsoftmax", scale=scale, sub_centres=sub_centres)
        self.margin = margin
        self.scale = scale
        self.directions = nn.Parameter(torch.empty(num_systems, sub_centres, dim))
        nn.init.xavier_normal_(self.directions.view(-1, dim))

    def forward(self, embeddings: Tensor, systems: Tensor) -> Tensor:
        with full_precision(embeddings) as x:
            x, directions = l2_normalise(x), l2_normalise(self.directions)
            cosines, nearest = torch.einsum("bd,ckd->bck", x, directions).max(dim=2)  # both (B, C)
            own = nearest.gather(1, systems[:, None])[:, 0]  # (B,)
            target = cosine_with_margin(x, directions[systems, own], self.margin)  # (B, 1)
            return F.cross_entropy(self.scale * cosines.scatter(1, systems[:, None], target), systems)

    def logits(self, embeddings: Tensor) -> Tensor:
        """Return s cos a_j of the nearest sub-centre (B, C), without the margin."""
        with full_precision(embeddings) as x:
            directions = l2_normalise(self.directions)
            return self.scale * torch.einsum("bd,ckd->bck", l2_normalise(x), directions).amax(dim=2)

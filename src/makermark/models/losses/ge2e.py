"""GE2E: cross-entropy over the cosines between an utterance and the centroids of the systems."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from makermark.foundation.errors import ParamsError
from makermark.models.losses.base import (
    Groups,
    ScaledCosineLoss,
    full_precision,
    group_by_system,
    l2_normalise,
)

VARIANTS = ("wan2018", "voxceleb-trainer")
MIN_COSINE = 1e-6  # of the variant voxceleb-trainer


class GE2E(ScaledCosineLoss):
    """Generalised end-to-end loss (Wan et al. 2018), softmax variant, averaged over the batch.

    The embeddings e are normalised to length 1, and c_k is the mean over system k. The similarity of utterance i
    of system j to system k is w cos(e_ji, c_k) + b (eq. 5); c_j leaves e_ji out (eq. 8 and 9). The loss is
    -log softmax over k of the similarities at k = j (eq. 6). A batch of one system has loss 0.

    w > 0 and b are learned; see `ScaledCosineLoss`.

    The variant `voxceleb-trainer` is what the code of Chung et al. 2020 computes, from which the paper of Table 1
    starts: c_k is the mean of the embeddings as they are, without normalisation, and cosines below 1e-6 are set
    to 1e-6. Raises ParamsError for another variant.
    """

    def __init__(self, *, scale: float, bias: float, variant: str) -> None:
        super().__init__(scale=scale, bias=bias)
        if variant not in VARIANTS:
            raise ParamsError(f"loss ge2e: unknown variant {variant!r}; it must be one of {list(VARIANTS)}")
        self.as_published = variant == "wan2018"

    def forward(self, embeddings: Tensor, systems: Tensor | Groups) -> Tensor:
        batch = group_by_system(systems, loss="ge2e")
        with full_precision(embeddings) as x:
            unit = l2_normalise(x)
            averaged = unit if self.as_published else x
            membership = batch.membership()
            sums = membership.to(x.dtype).T @ averaged  # (C, D): parallel to the centroids
            # (B, D): own centroid without the utterance
            others = l2_normalise(sums[batch.group_index] - averaged)
            own = (unit * others).sum(dim=1, keepdim=True)  # (B, 1)
            cosines = torch.where(membership, own, unit @ l2_normalise(sums).T)  # (B, C)
            if not self.as_published:
                cosines = cosines.clamp(min=MIN_COSINE)
            return F.cross_entropy(self.similarities(cosines), batch.group_index)

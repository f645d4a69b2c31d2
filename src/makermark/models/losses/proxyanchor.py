"""ProxyAnchor: a learned proxy per system attracts its own utterances and repels all others."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.models.losses.base import (
    Loss,
    check_non_negative,
    check_positive,
    full_precision,
    l2_normalise,
)


class ProxyAnchor(Loss):
    """Proxy anchor loss (Kim et al. 2020, Proxy anchor loss for deep metric learning, eq. 4).

    The sum of two terms, with s(x, p) the cosine between embedding and proxy, a the scale and d the margin:

    - mean over the proxies p of the systems in the batch of log(1 + sum over x of system p of e^(-a (s(x, p) - d)));
    - mean over all proxies p of log(1 + sum over x of other systems of e^(a (s(x, p) + d))).

    A system may have a single utterance in the batch.
    """

    needs_groups = False

    def __init__(self, *, num_systems: int, dim: int, margin: float, scale: float) -> None:
        super().__init__()
        check_non_negative("proxyanchor", margin=margin)
        check_positive("proxyanchor", scale=scale)
        self.margin = margin
        self.scale = scale
        self.proxies = nn.Parameter(torch.empty(num_systems, dim))
        nn.init.xavier_normal_(self.proxies)

    def forward(self, embeddings: Tensor, systems: Tensor) -> Tensor:
        similarities = self.logits(embeddings)  # (B, C): a s(x, p)
        own = systems[:, None] == torch.arange(len(self.proxies), device=systems.device)  # (B, C)
        offset = self.scale * self.margin
        attraction = log1p_sum_exp(
            offset - similarities, own
        )  # (C,): 0 for a system that is not in the batch
        repulsion = log1p_sum_exp(offset + similarities, ~own)
        return attraction.sum() / own.any(dim=0).sum() + repulsion.mean()

    def logits(self, embeddings: Tensor) -> Tensor:
        """Return a s(x, p) (B, C), the scaled cosines to the proxies. The paper itself does not classify."""
        with full_precision(embeddings) as x:
            return self.scale * (l2_normalise(x) @ l2_normalise(self.proxies).T)


def log1p_sum_exp(exponents: Tensor, mask: Tensor) -> Tensor:
    """Return log(1 + sum of e^exponents over the rows in the mask) (C,) for inputs (B, C), without overflow."""
    return F.pad(exponents.masked_fill(~mask, -torch.inf), (0, 0, 1, 0)).logsumexp(dim=0)

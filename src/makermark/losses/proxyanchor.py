"""ProxyAnchor: a learned proxy of each system pulls its utterances and pushes the others, the worst most."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.losses.base import Loss, above_zero, at_least_zero, full_precision, unit


class ProxyAnchor(Loss):
    """Kim et al. 2020 (Proxy anchor loss for deep metric learning), eq. 4.

    With s(x, p) the cosine of embedding and proxy, a the scale and d the margin, the sum of
    - the mean over the proxies p of the batch's systems of log(1 + sum over p's utterances x of e^(-a (s - d)));
    - the mean over all proxies p of log(1 + sum over the other systems' utterances x of e^(a (s + d))).

    One proxy for every training system is learned, so a system may bring a single utterance.
    """

    needs_groups = False

    def __init__(self, *, num_systems: int, dim: int, margin: float, scale: float) -> None:
        super().__init__()
        at_least_zero("proxyanchor", margin=margin)
        above_zero("proxyanchor", scale=scale)
        self.margin = margin
        self.scale = scale
        self.proxies = nn.Parameter(torch.empty(num_systems, dim))
        nn.init.xavier_normal_(self.proxies)

    def forward(self, embeddings: Tensor, systems: Tensor) -> Tensor:
        similarities = self.logits(embeddings)  # (B, C): a s
        own = systems[:, None] == torch.arange(len(self.proxies), device=systems.device)  # (B, C)
        offset = self.scale * self.margin
        pull = log_one_plus(offset - similarities, own)  # (C,): 0 for a system that is not in the batch
        push = log_one_plus(offset + similarities, ~own)
        return pull.sum() / own.any(dim=0).sum() + push.mean()

    def logits(self, embeddings: Tensor) -> Tensor:
        """(B, C): a s(x, p), the scaled cosines to the proxies; the paper itself classifies nothing."""
        with full_precision(embeddings) as x:
            return self.scale * (unit(x) @ unit(self.proxies).T)


def log_one_plus(exponents: Tensor, chosen: Tensor) -> Tensor:
    """(C,): log(1 + sum of e^exponents over the `chosen` rows), both (B, C), without overflow."""
    return F.pad(exponents.masked_fill(~chosen, -torch.inf), (0, 0, 1, 0)).logsumexp(dim=0)

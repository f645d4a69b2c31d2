"""Real emphasis, fake dispersion: a scheme of two stages; this is the second, and it brings the first."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from makermark.losses.base import Groups, Loss, above_zero, at_least_zero, full_precision, groups
from makermark.losses.emphasis import Emphasis
from makermark.losses.npair import NPair


class RefD(Loss):
    """Kulkarni et al. 2025 (Unveiling audio deepfake origins), Fake Dispersion.

    CE(clean) + eta CE(mixed) + npair_weight N-pair(clean), where CE is the cross-entropy of a linear classifier, and
    mixed inputs (RegMixup, Pinto et al. 2022, eq. 3; shares from Beta(mix_alpha, mix_alpha)) cost share CE of
    the one system plus (1 - share) CE of the other. The backbone starts from Real Emphasis: see Emphasis for
    m_real, m_fake and alpha; `emphasis_epochs` and `emphasis_batch` are its length and its batch.
    """

    needs_groups = True

    def __init__(
        self,
        *,
        num_systems: int,
        dim: int,
        emphasis_epochs: int,
        emphasis_batch: int,
        m_real: float,
        m_fake: float,
        alpha: float,
        mix_alpha: float,
        eta: float,
        npair_weight: float,
        npair_reg: float,
    ) -> None:
        super().__init__()
        above_zero("refd", mix_alpha=mix_alpha)
        at_least_zero("refd", eta=eta, npair_weight=npair_weight)
        self.mixing = mix_alpha
        self.eta = eta
        self.npair_weight = npair_weight
        self.npair = NPair(reg=npair_reg)
        self.classifier = nn.Linear(dim, num_systems)
        self._emphasis = partial(
            Emphasis,
            dim=dim,
            epochs=emphasis_epochs,
            batch_utterances=emphasis_batch,
            m_real=m_real,
            m_fake=m_fake,
            alpha=alpha,
        )

    def forward(self, embeddings: Tensor, systems: Tensor | Groups) -> Tensor:
        batch = groups(systems, loss="refd")
        pairs: Tensor = self.npair(embeddings, batch)
        return F.cross_entropy(self.logits(embeddings), batch.systems) + self.npair_weight * pairs

    def logits(self, embeddings: Tensor) -> Tensor:
        """(B, C): W x + b."""
        with full_precision(embeddings) as x:
            return F.linear(x, self.classifier.weight, self.classifier.bias)

    def of_mixture(self, embeddings: Tensor, first: Tensor, second: Tensor, share: Tensor) -> Tensor:
        """eta times the mean of share CE(first) + (1 - share) CE(second)."""
        logits = self.logits(embeddings)
        one, other = (F.cross_entropy(logits, systems, reduction="none") for systems in (first, second))
        return self.eta * (share * one + (1 - share) * other).mean()

    def emphasis(self) -> Emphasis:
        return self._emphasis()

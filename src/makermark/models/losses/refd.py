"""Real Emphasis, Fake Dispersion: a training scheme of two stages. This is the loss of the second stage."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from makermark.models.losses.base import (
    Groups,
    Loss,
    check_non_negative,
    check_positive,
    full_precision,
    group_by_system,
)
from makermark.models.losses.npair import NPair
from makermark.models.losses.real_vs_spoof import RealVsSpoof


class RefD(Loss):
    """Fake Dispersion (Kulkarni et al. 2025, Unveiling audio deepfake origins).

    CE(clean) + eta CE(mixed) + npair_weight N-pair(clean)

    CE is the cross-entropy of a linear classifier. Inputs are mixed as in RegMixup (Pinto et al. 2022, eq. 3) with
    shares from Beta(mix_alpha, mix_alpha); CE(mixed) is share CE(first) + (1 - share) CE(second). `npair_reg` is
    the regularisation of `NPair`.

    The first stage pre-trains the backbone with `RealVsSpoof`; `m_real`, `m_fake` and `alpha` are its settings,
    `emphasis_epochs` its length and `emphasis_batch` its batch size.
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
        check_positive("refd", mix_alpha=mix_alpha)
        check_non_negative("refd", eta=eta, npair_weight=npair_weight)
        self.mixup_alpha = mix_alpha
        self.eta = eta
        self.npair_weight = npair_weight
        self.npair = NPair(reg=npair_reg)
        self.classifier = nn.Linear(dim, num_systems)
        self._build_pretraining_loss = partial(
            RealVsSpoof,
            dim=dim,
            epochs=emphasis_epochs,
            batch_utterances=emphasis_batch,
            m_real=m_real,
            m_fake=m_fake,
            alpha=alpha,
        )

    def forward(self, embeddings: Tensor, systems: Tensor | Groups) -> Tensor:
        batch = group_by_system(systems, loss="refd")
        npair: Tensor = self.npair(embeddings, batch)
        return F.cross_entropy(self.logits(embeddings), batch.systems) + self.npair_weight * npair

    def logits(self, embeddings: Tensor) -> Tensor:
        """Return W x + b (B, C)."""
        with full_precision(embeddings) as x:
            return F.linear(x, self.classifier.weight, self.classifier.bias)

    def mixup_loss(self, embeddings: Tensor, first: Tensor, second: Tensor, share: Tensor) -> Tensor:
        """Return eta times the mean of share CE(first) + (1 - share) CE(second)."""
        logits = self.logits(embeddings)
        ce_first, ce_second = (
            F.cross_entropy(logits, systems, reduction="none") for systems in (first, second)
        )
        return self.eta * (share * ce_first + (1 - share) * ce_second).mean()

    def pretraining_loss(self) -> RealVsSpoof:
        return self._build_pretraining_loss()

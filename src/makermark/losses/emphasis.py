"""Real Emphasis, the first of refd's two stages: bona fide against synthetic speech."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.errors import ParamsError
from makermark.losses.base import Loss, above_zero, full_precision, unit

BONAFIDE, SYNTHETIC = 0, 1


class Emphasis(Loss):
    """Kulkarni et al. 2025 (Unveiling audio deepfake origins): binary cross-entropy plus OC-Softmax.

    - binary cross-entropy of sigmoid(v x + c), synthetic being 1;
    - OC-Softmax (Zhang et al. 2021, One-class learning towards synthetic voice spoofing detection, eq. 5): the
      mean of log(1 + e^(alpha (m_real - cos))) over bona fide and of log(1 + e^(alpha (cos - m_fake))) over
      synthetic utterances, cos being that of the embedding and one learned direction. Bona fide speech must
      come nearer to it than m_real, synthetic speech only stay away.

    `systems` are BONAFIDE or SYNTHETIC. `epochs` and `batch_utterances` (half of them bona fide) say how
    long it trains a backbone. Kulkarni et al. give the two terms no weights; here both weigh 1.
    """

    needs_groups = False

    def __init__(
        self, *, dim: int, epochs: int, batch_utterances: int, m_real: float, m_fake: float, alpha: float
    ) -> None:
        super().__init__()
        above_zero("refd", emphasis_epochs=epochs, alpha=alpha)
        if batch_utterances < 2:
            raise ParamsError(f"loss refd: emphasis_batch is {batch_utterances}; it is at least 2")
        if not -1 <= m_fake < m_real <= 1:
            raise ParamsError(
                f"loss refd: m_fake is {m_fake} and m_real {m_real}; both are cosines, m_fake the smaller"
            )
        self.epochs = epochs
        self.batch_utterances = batch_utterances
        self.m_real, self.m_fake, self.alpha = m_real, m_fake, alpha
        self.classifier = nn.Linear(dim, 1)
        self.direction = nn.Parameter(torch.randn(dim))

    def forward(self, embeddings: Tensor, systems: Tensor) -> Tensor:
        with full_precision(embeddings) as x:
            logits = F.linear(x, self.classifier.weight, self.classifier.bias)[:, 0]  # (B,)
            binary = F.binary_cross_entropy_with_logits(logits, systems.to(logits.dtype))
            cosines = self.realness(x)
            short = torch.where(systems == BONAFIDE, self.m_real - cosines, cosines - self.m_fake)
            return binary + F.softplus(self.alpha * short).mean()

    def realness(self, embeddings: Tensor) -> Tensor:
        """(B,): the cosine of each embedding and the direction of bona fide speech; higher is more real."""
        with full_precision(embeddings) as x:
            return unit(x) @ unit(self.direction)

"""Real Emphasis: pre-training loss for bona fide against synthetic speech, the first stage of `refd`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.foundation.errors import ParamsError
from makermark.models.losses.base import Loss, check_positive, full_precision, l2_normalise

BONAFIDE, SYNTHETIC = 0, 1  # class labels


class RealVsSpoof(Loss):
    """Binary cross-entropy plus OC-Softmax (Kulkarni et al. 2025, Unveiling audio deepfake origins).

    - Binary cross-entropy of sigmoid(v x + c), with SYNTHETIC as the positive class.
    - OC-Softmax (Zhang et al. 2021, One-class learning towards synthetic voice spoofing detection, eq. 5): the mean
      of log(1 + e^(alpha (m_real - cos))) over bona fide and of log(1 + e^(alpha (cos - m_fake))) over synthetic
      utterances. cos is the cosine between the embedding and one learned direction.

    The paper gives no weights for the two terms; here both have weight 1. `systems` in `forward` are the labels
    BONAFIDE and SYNTHETIC. `epochs` and `batch_utterances` (half of them bona fide) are the length of the
    pre-training and its batch size.
    """

    needs_groups = False

    def __init__(
        self, *, dim: int, epochs: int, batch_utterances: int, m_real: float, m_fake: float, alpha: float
    ) -> None:
        super().__init__()
        check_positive("refd", emphasis_epochs=epochs, alpha=alpha)
        if batch_utterances < 2:
            raise ParamsError(f"loss refd: emphasis_batch is {batch_utterances}; it must be at least 2")
        if not -1 <= m_fake < m_real <= 1:
            raise ParamsError(
                f"loss refd: m_fake is {m_fake} and m_real {m_real}; both are cosines, and m_fake must be the smaller"
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
            cosines = self.bonafide_score(x)
            violation = torch.where(systems == BONAFIDE, self.m_real - cosines, cosines - self.m_fake)
            return binary + F.softplus(self.alpha * violation).mean()

    def bonafide_score(self, embeddings: Tensor) -> Tensor:
        """Return the cosines (B,) between embeddings and the bona fide direction; higher means more likely real."""
        with full_precision(embeddings) as x:
            return l2_normalise(x) @ l2_normalise(self.direction)

"""RealVsSpoof against its formulas with loops, value and gradient, and its effect in training."""

from __future__ import annotations

import math

import pytest
import torch
from naive_losses import cosine
from torch import Tensor

from makermark.foundation.errors import ParamsError
from makermark.models.losses.real_vs_spoof import BONAFIDE, SYNTHETIC, RealVsSpoof

SETTINGS = {"epochs": 2, "batch_utterances": 8, "m_real": 0.9, "m_fake": 0.2, "alpha": 20.0}


def loss_of(**changes: float) -> RealVsSpoof:
    torch.manual_seed(0)
    return RealVsSpoof(dim=6, **{**SETTINGS, **changes}).double()


def naive(loss: RealVsSpoof, embeddings: Tensor, classes: Tensor) -> Tensor:
    """Return -[t log p + (1 - t) log(1 - p)] plus Zhang et al. 2021, eq. 5, utterance by utterance."""
    terms = []
    for x, y in zip(embeddings, classes.tolist(), strict=True):
        p = 1 / (1 + torch.exp(-((loss.classifier.weight[0] * x).sum() + loss.classifier.bias[0])))
        binary = -torch.log(p if y == SYNTHETIC else 1 - p)
        margin = loss.m_real if y == BONAFIDE else loss.m_fake
        sign = 1 if y == BONAFIDE else -1
        oc = torch.log(1 + torch.exp(loss.alpha * (margin - cosine(loss.direction, x)) * sign))
        terms.append(binary + oc)
    return torch.stack(terms).mean()


@pytest.mark.parametrize("classes", [[0, 1] * 5, [0] * 4, [1] * 4, [0, 1, 1, 1, 1]])
def test_real_vs_spoof_equals_formula(classes: list[int]) -> None:
    loss, classes_ = loss_of(), torch.tensor(classes)
    embeddings = torch.randn(len(classes), 6, dtype=torch.float64, requires_grad=True)
    learned = [embeddings, *loss.parameters()]
    value, expected = loss(embeddings, classes_), naive(loss, embeddings, classes_)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(
        torch.autograd.grad(value, learned), torch.autograd.grad(expected, learned), rtol=1e-7, atol=1e-9
    )


def test_real_vs_spoof_equals_hand_computed_value() -> None:
    """At the margins OC-Softmax is log 2 for each class; a zero classifier has cross-entropy log 2 too."""
    loss = loss_of()
    with torch.no_grad():
        loss.classifier.weight.zero_()
        loss.classifier.bias.zero_()
        loss.direction.copy_(torch.tensor([1.0, 0, 0, 0, 0, 0]))
    at = torch.tensor([[c, math.sqrt(1 - c * c), 0, 0, 0, 0] for c in (0.9, 0.2)], dtype=torch.float64)
    assert loss(at, torch.tensor([BONAFIDE, SYNTHETIC])).item() == pytest.approx(2 * math.log(2))
    torch.testing.assert_close(loss.bonafide_score(5 * at), torch.tensor([0.9, 0.2], dtype=torch.float64))


def test_real_vs_spoof_training_separates_classes() -> None:
    torch.manual_seed(1)
    loss = RealVsSpoof(dim=6, **SETTINGS)
    classes = torch.tensor([0, 1] * 10)
    embeddings = (torch.randn(20, 6) + 2 * classes[:, None]).requires_grad_()
    optimizer = torch.optim.Adam([embeddings, *loss.parameters()], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        loss(embeddings, classes).backward()
        optimizer.step()
    bonafide_score = loss.bonafide_score(embeddings)
    assert bonafide_score[classes == BONAFIDE].min() > bonafide_score[classes == SYNTHETIC].max()


def test_real_vs_spoof_has_finite_gradients_for_zero_and_bfloat16_embeddings() -> None:
    loss = RealVsSpoof(dim=6, **SETTINGS)
    for embeddings in (torch.zeros(4, 6), torch.randn(4, 6).bfloat16()):
        embeddings.requires_grad_()
        value = loss(embeddings, torch.tensor([0, 1, 0, 1]))
        assert value.dtype == torch.float32
        value.backward()
        assert embeddings.grad is not None
        assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "emphasis_epochs is 0; it must be above 0"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"batch_utterances": 1}, "emphasis_batch is 1"),
        ({"m_real": 1.1}, "m_real 1.1"),
        ({"m_fake": 0.95}, "m_fake is 0.95 and m_real 0.9"),
    ],
)
def test_real_vs_spoof_raises_for_setting_out_of_range(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        loss_of(**changes)

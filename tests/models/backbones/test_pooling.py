"""Contract tests over all POOLINGS, and each against its formula with loops."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor

from makermark.models import backbones
from makermark.models.backbones import BACKBONES
from makermark.models.backbones.pooling import POOLINGS, build_pooling
from tests_support import LOG_MELS

SMALL: dict[str, dict[str, str | int | float]] = {
    "resnet34": {**LOG_MELS, "stem_order": "norm-relu"},
    "conformer": {
        **LOG_MELS,
        "layers": 1,
        "heads": 2,
        "model_width": 16,
        "feed_forward": 32,
        "kernel": 5,
        "dropout": 0.0,
    },
    "ecapa": {**LOG_MELS, "channels": 16},
}

every_pooling = pytest.mark.parametrize("name", POOLINGS)
WIDTH = 5


def attention_weights(pooling: torch.nn.Module, frames: Tensor) -> list[float]:
    """Return softmax over t of u . tanh(W x_t + b) for the frames (T, width) of one utterance."""
    layer, query = pooling.attention.hidden, pooling.attention.query[:, 0]
    scores = [(query * torch.tanh(layer.weight @ x + layer.bias)).sum().exp() for x in frames]
    return [float(score / sum(scores)) for score in scores]


def naive(name: str, pooling: torch.nn.Module, frames: Tensor) -> Tensor:
    if name == "mean":
        return sum(frames) / len(frames)
    if name == "context-asp":
        return naive_context_statistics(pooling, frames)
    weights = attention_weights(pooling, frames)
    mean = sum(w * x for w, x in zip(weights, frames, strict=True))
    if name == "sap":
        return mean
    variance = sum(w * (x - mean) ** 2 for w, x in zip(weights, frames, strict=True))
    return torch.cat([mean, variance.clamp(min=1e-5).sqrt()])


def naive_context_statistics(pooling: torch.nn.Module, frames: Tensor) -> Tensor:
    """Compute channel by channel, with the first attention layer as one matrix over [x_t; m; s] as in the paper."""
    spread = frames.var(dim=0, correction=0).clamp(min=1e-5).sqrt()
    together = [torch.cat([x, frames.mean(dim=0), spread]) for x in frames]
    first = torch.cat([pooling.local.weight, pooling.context.weight], dim=1)
    scores = torch.stack(
        [pooling.scores(torch.tanh(first @ x + pooling.local.bias)) for x in together]
    )  # (T, width)
    means, deviations = [], []
    for channel in range(frames.shape[1]):
        weights = scores[:, channel].exp() / scores[:, channel].exp().sum()
        mean = (weights * frames[:, channel]).sum()
        means.append(mean)
        deviations.append((weights * (frames[:, channel] - mean) ** 2).sum().clamp(min=1e-5).sqrt())
    return torch.stack(means + deviations)


@every_pooling
@torch.no_grad()
def test_pooling_equals_formula_with_and_without_padding(name: str) -> None:
    torch.manual_seed(0)
    pooling = build_pooling(name, WIDTH).double()
    frames = torch.randn(3, 7, WIDTH, dtype=torch.float64)
    lengths = torch.tensor([7, 4, 2])
    expected = torch.stack([naive(name, pooling, x) for x in frames])
    torch.testing.assert_close(pooling(frames), expected)
    expected = torch.stack([naive(name, pooling, x[:n]) for x, n in zip(frames, lengths, strict=True)])
    torch.testing.assert_close(pooling(frames, lengths), expected)
    assert expected.shape == (3, pooling.out_width)


@every_pooling
def test_pooling_is_invariant_to_order_of_frames(name: str) -> None:
    pooling, frames = build_pooling(name, WIDTH), torch.randn(2, 9, WIDTH)
    torch.testing.assert_close(pooling(frames), pooling(frames[:, torch.randperm(9)]))


@every_pooling
def test_pooling_has_finite_gradients_for_equal_frames(name: str) -> None:
    """The gradient of a standard deviation of 0 is infinite without the clamp."""
    pooling = build_pooling(name, WIDTH)
    for count in (1, 4):
        frames = torch.ones(2, count, WIDTH, requires_grad=True)
        pooling(frames).sum().backward()
        assert frames.grad is not None
        assert frames.grad.isfinite().all()


@every_pooling
@pytest.mark.parametrize("backbone", SMALL)
def test_backbone_trains_with_pooling(backbone: str, name: str) -> None:
    torch.manual_seed(0)
    net = backbones.build(backbone, dim=6, width=40, **SMALL[backbone], pooling=name)
    features, systems = torch.randn(6, 40, 40), torch.tensor([0, 1, 2] * 2)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    history = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(features), systems)
        history.append(loss.item())
        loss.backward()
        optimizer.step()
    assert history[-1] < 0.8 * history[0]
    net.eval()
    with torch.no_grad():
        padded = net(features[:2], torch.tensor([40, 23]))
        torch.testing.assert_close(padded[1:], net(features[1:2, :23]), rtol=1e-4, atol=1e-4)


def test_every_backbone_with_pooling_setting_is_in_small() -> None:
    with_pooling = {
        name for name, built in BACKBONES.items() if "pooling" in inspect.signature(built).parameters
    }
    assert with_pooling == set(SMALL)

"""What holds for every pooling, and each against its formula written with loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from makermark import backbones
from makermark.backbones.pooling import POOLINGS, build_pooling

every_pooling = pytest.mark.parametrize("name", POOLINGS)
WIDTH = 5


def attention_weights(pooling: torch.nn.Module, frames: Tensor) -> list[float]:
    """softmax over t of u . tanh(W x_t + b), for the frames (T, width) of one utterance."""
    layer, query = pooling.attention.hidden, pooling.attention.query[:, 0]
    scores = [(query * torch.tanh(layer.weight @ x + layer.bias)).sum().exp() for x in frames]
    return [float(score / sum(scores)) for score in scores]


def naive(name: str, pooling: torch.nn.Module, frames: Tensor) -> Tensor:
    if name == "mean":
        return sum(frames) / len(frames)
    weights = attention_weights(pooling, frames)
    mean = sum(w * x for w, x in zip(weights, frames, strict=True))
    if name == "sap":
        return mean
    variance = sum(w * (x - mean) ** 2 for w, x in zip(weights, frames, strict=True))
    return torch.cat([mean, variance.clamp(min=1e-5).sqrt()])


@every_pooling
@torch.no_grad()
def test_equals_its_formula_with_and_without_padding(name: str) -> None:
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
def test_order_of_frames_does_not_matter(name: str) -> None:
    pooling, frames = build_pooling(name, WIDTH), torch.randn(2, 9, WIDTH)
    torch.testing.assert_close(pooling(frames), pooling(frames[:, torch.randperm(9)]))


@every_pooling
def test_equal_frames_and_a_single_frame_give_finite_gradients(name: str) -> None:
    """A standard deviation of 0 has no gradient of its own."""
    pooling = build_pooling(name, WIDTH)
    for count in (1, 4):
        frames = torch.ones(2, count, WIDTH, requires_grad=True)
        pooling(frames).sum().backward()
        assert frames.grad is not None
        assert frames.grad.isfinite().all()


@every_pooling
def test_the_frame_level_backbone_takes_it(name: str) -> None:
    net = backbones.build("resnet34", dim=6, width=40, pooling=name).eval()
    features = torch.randn(2, 40, 40)
    with torch.no_grad():
        padded = net(features, torch.tensor([40, 23]))
        torch.testing.assert_close(padded[1:], net(features[1:, :23]), rtol=1e-5, atol=1e-5)

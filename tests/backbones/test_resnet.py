"""The thin ResNet-34: its size, its normalisation, its shortcuts through time."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from makermark import backbones
from makermark.errors import ParamsError


def parameters(net: nn.Module) -> int:
    return sum(learned.numel() for learned in net.parameters())


@pytest.mark.parametrize(("dim", "expected"), [(50, 1_377_480), (512, 1_437_078), (10, 1_372_320)])
def test_parameter_count(dim: int, expected: int) -> None:
    """1.38 M at dim 50 and 1.44 M at dim 512, counted layer by layer.

    A basic block from a to b channels has two 3 x 3 convolutions (9 a b + 9 b b), two normalisations (4 b),
    squeeze-and-excitation through b / 8 (2 b b / 8 + b / 8 + b) and, where a and b differ, a 1 x 1 projection
    with its normalisation (a b + 2 b). Before the blocks stand a 7 x 7 convolution and its normalisation;
    behind them attention (a linear layer and a vector) and the linear layer to dim.
    """

    def block(a: int, b: int) -> int:
        squeeze_excitation = 2 * b * (b // 8) + b // 8 + b
        projection = a * b + 2 * b if a != b else 0
        return 9 * a * b + 9 * b * b + 4 * b + squeeze_excitation + projection

    stem = 49 * 16 + 2 * 16
    stages = 3 * block(16, 16) + block(16, 32) + 3 * block(32, 32)
    stages += block(32, 64) + 5 * block(64, 64) + block(64, 128) + 2 * block(128, 128)
    attention = 128 * 128 + 128 + 128
    counted = stem + stages + attention + 128 * dim + dim
    assert counted == expected
    assert parameters(backbones.build("resnet34", dim=dim, width=40, pooling="sap")) == expected


def test_four_frames_become_one_and_forty_bands_five() -> None:
    net = backbones.build("resnet34", dim=4, width=40, pooling="mean")
    shapes = []
    net.blocks[-1].register_forward_hook(lambda module, given, result: shapes.append(result[0].shape))
    net(torch.randn(2, 200, 40))
    net(torch.randn(2, 201, 40))
    assert shapes == [(2, 128, 5, 50), (2, 128, 5, 51)]


def test_level_and_spread_of_a_band_do_not_matter() -> None:
    """Instance normalisation: a recording louder by some dB gives the same vector."""
    net = backbones.build("resnet34", dim=8, width=40, pooling="sap").eval()
    features = torch.randn(3, 80, 40)
    changed = 3 * features + torch.randn(3, 1, 40)
    with torch.no_grad():
        torch.testing.assert_close(net(features), net(changed), rtol=1e-3, atol=1e-4)


def test_float16_features_are_normalised_in_float32() -> None:
    """The cache stores float16; its sums over time must not be rounded there."""
    net = backbones.build("resnet34", dim=8, width=40, pooling="sap").eval()
    features = (torch.randn(2, 3000, 40) - 12).half()
    with torch.no_grad():
        assert torch.equal(net(features), net(features.float()))


def test_lengths_are_refused_in_training_mode() -> None:
    net = backbones.build("resnet34", dim=4, width=40, pooling="sap").train()
    with pytest.raises(ValueError, match="batch statistics would count padding"):
        net(torch.randn(2, 30, 40), torch.tensor([30, 20]))


def test_an_unknown_pooling_is_refused_with_the_choices() -> None:
    with pytest.raises(
        ParamsError, match=r"unknown pooling 'max'; it is one of \['sap', 'asp', 'context-asp', 'mean'\]"
    ):
        backbones.build("resnet34", dim=4, width=40, pooling="max")

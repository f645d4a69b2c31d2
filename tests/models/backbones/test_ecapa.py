"""ECAPA-TDNN: published parameter count, Res2 convolution, normalisation, errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from makermark.foundation.errors import ParamsError
from makermark.models import backbones
from makermark.models.backbones.ecapa import Res2Convolution
from tests_support import LOG_MELS


def parameters(net: nn.Module) -> int:
    return sum(learned.numel() for learned in net.parameters())


@pytest.mark.parametrize(("channels", "published_millions"), [(512, 6.2), (1024, 14.7)])
def test_ecapa_parameter_count_equals_published_count(channels: int, published_millions: float) -> None:
    """The paper's table counts 80 mels, an embedding of 192 and its own pooling, without a classifier.

    Layer by layer, with c channels: every convolution from a to b channels over k frames has k a b + b, every
    normalisation 2 b parameters.
    """

    def convolution(a: int, b: int, k: int = 1) -> int:
        return k * a * b + b

    c = channels
    res2 = 7 * (convolution(c // 8, c // 8, 3) + 2 * c // 8)
    squeeze_excitation = convolution(c, 128) + convolution(128, c)
    block = 2 * (convolution(c, c) + 2 * c) + res2 + squeeze_excitation
    attention = convolution(3 * 1536, 128) + convolution(128, 1536)
    counted = convolution(80, c, 5) + 2 * c + 3 * block + convolution(3 * c, 1536) + attention
    counted += 2 * 3072 + convolution(3072, 192) + 2 * 192
    net = backbones.build(
        "ecapa",
        dim=192,
        width=80,
        **LOG_MELS,
        channels=channels,
        pooling="context-asp",
    )
    assert parameters(net) == counted
    assert round(counted / 1e6, 1) == published_millions


@torch.no_grad()
def test_res2_convolution_equals_formula() -> None:
    torch.manual_seed(0)
    res2 = Res2Convolution(16, dilation=3).eval()
    x = torch.randn(2, 16, 20)
    groups = x.split(2, dim=1)
    expected, before = [groups[0]], torch.zeros(2, 2, 20)
    for group, convolution, norm in zip(groups[1:], res2.convolutions, res2.norms, strict=True):
        before = norm(torch.relu(convolution(group + before)))
        expected.append(before)
    torch.testing.assert_close(res2(x, None), torch.cat(expected, dim=1))


def test_ecapa_blocks_have_dilations_2_3_and_4() -> None:
    net = backbones.build("ecapa", dim=8, width=40, **LOG_MELS, channels=16, pooling="mean")
    convolutions = [[c.dilation for c in block.res2.convolutions] for block in net.blocks]
    assert convolutions == [[(dilation,)] * 7 for dilation in (2, 3, 4)]


@torch.no_grad()
@pytest.mark.parametrize(("block", "reach"), [(0, 14), (1, 21), (2, 28)])
def test_ecapa_block_reaches_seven_times_its_dilation(block: int, reach: int) -> None:
    """Seven convolutions over 3 frames in a chain: +-7 d frames, both ends included.

    Squeeze-and-excitation, a mean over all frames, is left out.
    """
    torch.manual_seed(0)
    net = (
        backbones.build(
            "ecapa",
            dim=8,
            width=40,
            **LOG_MELS,
            channels=64,
            pooling="mean",
        )
        .double()
        .eval()
    )
    res2 = net.blocks[block].res2
    signal = torch.randn(1, 64, 101, dtype=torch.float64)
    changed = signal.clone()
    changed[:, :, 50] += 5.0
    frames = (res2(signal, None) != res2(changed, None)).any(dim=1)[0].nonzero().flatten()
    assert (frames.min().item(), frames.max().item()) == (50 - reach, 50 + reach)
    assert net.stem(torch.zeros(1, 40, 101, dtype=torch.float64)).shape == (1, 64, 101)


def test_ecapa_is_invariant_to_level_and_scale_of_a_band() -> None:
    torch.manual_seed(0)
    net = backbones.build(
        "ecapa",
        dim=8,
        width=40,
        **LOG_MELS,
        channels=16,
        pooling="context-asp",
    ).eval()
    features = torch.randn(3, 80, 40)
    with torch.no_grad():
        changed = net(3 * features + torch.randn(3, 1, 40))
        torch.testing.assert_close(net(features), changed, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("channels", [0, 4, 100, -8])
def test_ecapa_raises_for_channels_not_divisible_by_eight(channels: int) -> None:
    with pytest.raises(ParamsError, match=f"ecapa: channels is {channels}; it must be a multiple of 8"):
        backbones.build(
            "ecapa",
            dim=4,
            width=40,
            **LOG_MELS,
            channels=channels,
            pooling="mean",
        )

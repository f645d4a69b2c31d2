"""Thin ResNet-34: parameter count, subsampling, normalisation, errors."""

from __future__ import annotations

import pytest
import torch
from reference_resnet import ReferenceResNet
from torch import Tensor, nn

from makermark.foundation.errors import ParamsError
from makermark.models import backbones
from tests_support import LOG_MELS


def parameters(net: nn.Module) -> int:
    return sum(learned.numel() for learned in net.parameters())


@pytest.mark.parametrize(("dim", "expected"), [(50, 1_377_480), (512, 1_437_078), (10, 1_372_320)])
def test_resnet_parameter_count_equals_hand_count(dim: int, expected: int) -> None:
    """1.38 M at dim 50 and 1.44 M at dim 512, counted layer by layer.

    A basic block from a to b channels has two 3 x 3 convolutions (9 a b + 9 b b), two normalisations (4 b),
    squeeze-and-excitation through b / 8 (2 b b / 8 + b / 8 + b) and, where a and b differ, a 1 x 1 projection
    with its normalisation (a b + 2 b). A 7 x 7 convolution with its normalisation comes
    before the blocks; attention (a linear layer and a vector) and the linear layer to dim come after them.
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
    assert (
        parameters(
            backbones.build(
                "resnet34",
                dim=dim,
                width=40,
                **LOG_MELS,
                pooling="sap",
                stem_order="norm-relu",
            )
        )
        == expected
    )


def test_resnet_subsamples_frames_by_four_and_bands_by_eight() -> None:
    net = backbones.build(
        "resnet34",
        dim=4,
        width=40,
        **LOG_MELS,
        pooling="mean",
        stem_order="norm-relu",
    )
    shapes = []
    net.blocks[-1].register_forward_hook(lambda module, inputs, result: shapes.append(result[0].shape))
    net(torch.randn(2, 200, 40))
    net(torch.randn(2, 201, 40))
    assert shapes == [(2, 128, 5, 50), (2, 128, 5, 51)]


@pytest.mark.parametrize(("pooling", "expected"), [("sap", 1_377_480), ("asp", 1_383_880)])
def test_resnet_parameter_count_of_the_poolings_in_the_paper(pooling: str, expected: int) -> None:
    """The reference implementation has as many; statistics pooling doubles the input of the last layer."""
    assert (
        parameters(
            backbones.build(
                "resnet34",
                dim=50,
                width=40,
                **LOG_MELS,
                pooling=pooling,
                stem_order="norm-relu",
            )
        )
        == expected
    )


def test_resnet_stages_halve_bands_and_frames_at_stages_2_and_3() -> None:
    """The stem halves the bands only. 40 bands x 200 frames, as (channels, bands, frames) after every stage."""
    net = backbones.build(
        "resnet34",
        dim=4,
        width=40,
        **LOG_MELS,
        pooling="mean",
        stem_order="norm-relu",
    )
    shapes = []
    net.stem.register_forward_hook(lambda module, inputs, result: shapes.append(tuple(result.shape[1:])))
    for block in net.blocks:
        block.register_forward_hook(lambda module, inputs, result: shapes.append(tuple(result[0].shape[1:])))
    net(torch.randn(2, 200, 40))
    stages = [(16, 20, 200)] * 3 + [(32, 10, 100)] * 4 + [(64, 5, 50)] * 6 + [(128, 5, 50)] * 3
    assert shapes == [(16, 20, 200), *stages]


def test_resnet_strides_are_in_the_first_convolution_of_a_stage_and_its_shortcut() -> None:
    net = backbones.build(
        "resnet34",
        dim=4,
        width=40,
        **LOG_MELS,
        pooling="mean",
        stem_order="norm-relu",
    )
    assert (net.stem.kernel_size, net.stem.stride, net.stem.padding) == ((7, 7), (2, 1), (3, 3))
    strides = [block.conv1.stride for block in net.blocks]
    assert strides == [(2, 2) if number in (3, 7) else (1, 1) for number in range(16)]
    assert {block.conv2.stride for block in net.blocks} == {(1, 1)}
    projections = {
        n: block.shortcut[0] for n, block in enumerate(net.blocks) if list(block.shortcut.parameters())
    }
    assert {n: layer.stride for n, layer in projections.items()} == {3: (2, 2), 7: (2, 2), 13: (1, 1)}
    assert all(layer.kernel_size == (1, 1) for layer in projections.values())


def test_resnet_convolutions_start_with_fan_out_initialisation() -> None:
    """He et al. 2015: normal with variance 2 / (outputs x kernel positions). Fan-in would give a variance 16 times as
    large for the stem, and half as large for the first convolution of stages 2 to 4."""
    torch.manual_seed(0)
    net = backbones.build(
        "resnet34",
        dim=4,
        width=40,
        **LOG_MELS,
        pooling="sap",
        stem_order="norm-relu",
    )
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 1 + 2 * 16 + 3
    for convolution in convolutions:
        weight = convolution.weight.detach()
        variance = 2 / (convolution.out_channels * weight[0, 0].numel())
        error = (
            4 * (2 / weight.numel()) ** 0.5
        )  # of the variance of so many normal numbers, four standard deviations
        assert weight.square().mean().item() == pytest.approx(variance, rel=error)
        assert convolution.bias is None


def test_resnet_is_invariant_to_level_and_scale_of_a_band() -> None:
    """Instance normalisation removes the level of a recording."""
    net = backbones.build(
        "resnet34",
        dim=8,
        width=40,
        **LOG_MELS,
        pooling="sap",
        stem_order="norm-relu",
    ).eval()
    features = torch.randn(3, 80, 40)
    changed = 3 * features + torch.randn(3, 1, 40)
    with torch.no_grad():
        torch.testing.assert_close(net(features), net(changed), rtol=1e-3, atol=1e-4)


def test_resnet_normalises_float16_features_in_float32() -> None:
    """The cache stores float16; sums over time need float32."""
    net = backbones.build(
        "resnet34",
        dim=8,
        width=40,
        **LOG_MELS,
        pooling="sap",
        stem_order="norm-relu",
    ).eval()
    features = (torch.randn(2, 3000, 40) - 12).half()
    with torch.no_grad():
        assert torch.equal(net(features), net(features.float()))


def test_resnet_raises_for_lengths_in_training_mode() -> None:
    net = backbones.build(
        "resnet34",
        dim=4,
        width=40,
        **LOG_MELS,
        pooling="sap",
        stem_order="norm-relu",
    ).train()
    with pytest.raises(ValueError, match="batch statistics would count padding"):
        net(torch.randn(2, 30, 40), torch.tensor([30, 20]))


RENAMED = {  # a part of ours: the same part of the reference
    "stem.": "conv1.", "stem_norm.": "bn1.", "blocks.": "layers.", "norm1.": "bn1.", "norm2.": "bn2.",
    "squeeze.": "fc1.", "excite.": "fc2.", "shortcut.": "downsample.", "embedding.": "fc.",
    "pooling.attention.query": "attention", "pooling.attention.hidden.": "sap_linear.",
}  # fmt: skip


def reference_weights(net: nn.Module) -> dict[str, Tensor]:
    """Return the weights of our network under the names of the reference."""
    weights = {}
    for name, weight in net.state_dict().items():
        for ours, reference in RENAMED.items():
            name = name.replace(ours, reference)
        weights[name] = weight
    return weights


@pytest.mark.parametrize("pooling", ["sap", "asp"])
@pytest.mark.parametrize("stem_order", ["norm-relu", "relu-norm"])
def test_resnet_equals_the_reference_with_the_same_weights(pooling: str, stem_order: str) -> None:
    """In evaluation and in training mode, after training steps that move the statistics of batch normalisation."""
    torch.manual_seed(0)
    net = backbones.build(
        "resnet34",
        dim=50,
        width=40,
        **LOG_MELS,
        pooling=pooling,
        stem_order=stem_order,
    )
    reference = ReferenceResNet(50, pooling=pooling, norm_first=stem_order == "norm-relu")
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):  # initial values of 1 and 0 would hide an exchange
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
    reference.load_state_dict(reference_weights(net))
    assert parameters(net) == parameters(reference) == {"sap": 1_377_480, "asp": 1_383_880}[pooling]
    features = 3 * torch.randn(6, 120, 40) - 5
    for _ in range(2):
        torch.testing.assert_close(net(features), reference(features), rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        ours, expected = net.eval()(features), reference.eval()(features)
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
        other = ReferenceResNet(50, pooling=pooling, norm_first=stem_order != "norm-relu").eval()
        other.load_state_dict(reference.state_dict())
        assert (other(features) - expected).abs().max() > 0.02


def test_resnet_raises_for_unknown_stem_order() -> None:
    with pytest.raises(
        ParamsError, match=r"stem_order 'norm'; it must be one of \['norm-relu', 'relu-norm'\]"
    ):
        backbones.build(
            "resnet34",
            dim=4,
            width=40,
            **LOG_MELS,
            pooling="sap",
            stem_order="norm",
        )


def test_resnet_raises_for_unknown_pooling() -> None:
    with pytest.raises(
        ParamsError, match=r"unknown pooling 'max'; it must be one of \['sap', 'asp', 'context-asp', 'mean'\]"
    ):
        backbones.build(
            "resnet34",
            dim=4,
            width=40,
            **LOG_MELS,
            pooling="max",
            stem_order="norm-relu",
        )

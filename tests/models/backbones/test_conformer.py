"""Conformer: subsampling, its two kinds of features, and masking of padding in the convolutions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from makermark.foundation.errors import ParamsError
from makermark.models import backbones
from makermark.models.backbones import Backbone
from makermark.models.backbones.conformer import Conformer
from tests_support import LOG_MELS

SMALL = {
    **LOG_MELS,
    "layers": 2,
    "heads": 2,
    "model_width": 16,
    "feed_forward": 32,
    "kernel": 7,
    "dropout": 0.1,
    "pooling": "sap",
}


def conformer(*, width: int = 40, **changed: str | float) -> Backbone:
    torch.manual_seed(0)
    return backbones.build("conformer", dim=6, width=width, **{**SMALL, **changed}).eval()


@pytest.mark.parametrize(
    ("front_end", "width", "frames", "expected"),
    [("fbank", 40, 200, 50), ("fbank", 40, 201, 51), ("wav2vec2", 32, 100, 50), ("wav2vec2", 32, 99, 50)],
)
def test_two_seconds_of_features_become_fifty_frames(
    front_end: str, width: int, frames: int, expected: int
) -> None:
    net = conformer(front_end=front_end, width=width)
    shapes: list[torch.Size] = []
    net.pooling.register_forward_hook(lambda module, inputs, result: shapes.append(inputs[0].shape))
    assert net(torch.randn(2, frames, width)).shape == (2, 6)
    assert shapes == [(2, expected, 16)]


def test_front_end_name_is_setting() -> None:
    assert [Conformer.front_end_name(**{**SMALL, "front_end": name}) for name in ("fbank", "wav2vec2")] == [
        "fbank",
        "wav2vec2",
    ]
    with pytest.raises(
        ParamsError,
        match=r"front_end is 'waveform'; it must be one of \['fbank', 'linear-fbank', 'wav2vec2'\]",
    ):
        Conformer.front_end_name(**{**SMALL, "front_end": "waveform"})


@pytest.mark.parametrize("front_end", ["fbank", "wav2vec2"])
@torch.no_grad()
def test_padding_does_not_change_embeddings(front_end: str) -> None:
    net = conformer(front_end=front_end, width=32, layers=3, kernel=31)
    randomise_biases(net)
    features, lengths = torch.randn(4, 90, 32), torch.tensor([61, 60, 33, 2])
    for row, length in enumerate(lengths):
        features[row, length:] = 1000.0
    together = net(features, lengths)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(
            together[row], net(features[row : row + 1, :length])[0], rtol=1e-5, atol=1e-5
        )


@torch.no_grad()
def test_torchaudio_conformer_does_not_mask_padding_in_convolutions() -> None:
    """The reason for the masks: with lengths alone, padding changes the last frames."""
    net = conformer()
    randomise_biases(net)
    frames = torch.randn(1, 30, 16)
    alone, _ = net.encoder(frames[:, :20], torch.tensor([20]))
    padded, _ = net.encoder(torch.cat([frames, frames]), torch.tensor([20, 30]))
    assert (padded[0, :20] - alone[0]).abs().max() > 1e-2


@torch.no_grad()
def test_masks_are_removed_after_padded_batch() -> None:
    net = conformer()
    features = torch.randn(2, 60, 40)
    before = net(features)
    net(features, torch.tensor([60, 20]))
    assert torch.equal(net(features), before)


def test_only_filterbanks_are_normalised() -> None:
    """Hidden states are already normalised by their encoder; the level of a recording does not identify a system."""
    features = torch.randn(2, 60, 40)

    def level_matters(front_end: str) -> bool:
        net = conformer(front_end=front_end)
        return not torch.allclose(net(features), net(features + 3), atol=1e-3)

    assert (level_matters("fbank"), level_matters("wav2vec2")) == (False, True)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("layers", 0, "layers is 0; it must be at least 1"),
        ("heads", 3, r"model_width is 16; it must be a multiple of heads \(3\)"),
        ("heads", 0, "heads is 0; it must be at least 1"),
        ("feed_forward", -1, "feed_forward is -1"),
        ("kernel", 8, "kernel is 8; it must be an odd number"),
        ("dropout", 1.0, "dropout is 1.0"),
        ("front_end", "mfcc", "front_end is 'mfcc'; it must be one of"),
        ("pooling", "max", "unknown pooling 'max'"),
    ],
)
def test_conformer_raises_for_setting_out_of_range(setting: str, value: str | float, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        conformer(**{setting: value})


def randomise_biases(net: nn.Module) -> None:
    """Randomise biases and running means, as after training: zero padding at the input becomes non-zero inside."""

    def add_noise(x: Tensor) -> None:
        x.add_(torch.randn(x.shape))

    for module in net.modules():
        if isinstance(module, nn.Conv1d | nn.LayerNorm) and module.bias is not None:
            add_noise(module.bias)
        if isinstance(module, nn.BatchNorm1d):
            add_noise(module.running_mean)

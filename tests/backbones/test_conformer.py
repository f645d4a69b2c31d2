"""The Conformer: its front, its two kinds of features, and the padding that torchaudio's convolution would see."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from makermark import backbones
from makermark.backbones import Backbone
from makermark.backbones.conformer import Conformer
from makermark.errors import ParamsError

SMALL = {
    "front_end": "fbank",
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
def test_two_seconds_of_any_features_become_fifty_frames(
    front_end: str, width: int, frames: int, expected: int
) -> None:
    net = conformer(front_end=front_end, width=width)
    shapes: list[torch.Size] = []
    net.pooling.register_forward_hook(lambda module, given, result: shapes.append(given[0].shape))
    assert net(torch.randn(2, frames, width)).shape == (2, 6)
    assert shapes == [(2, expected, 16)]


def test_the_cache_it_reads_is_a_setting() -> None:
    assert [Conformer.reads(**{**SMALL, "front_end": name}) for name in ("fbank", "wav2vec2")] == [
        "fbank",
        "wav2vec2",
    ]
    with pytest.raises(ParamsError, match=r"front_end is 'waveform'; it is one of \['fbank', 'wav2vec2'\]"):
        Conformer.reads(**{**SMALL, "front_end": "waveform"})


@pytest.mark.parametrize("front_end", ["fbank", "wav2vec2"])
@torch.no_grad()
def test_padding_is_unseen_even_past_the_longest_utterance(front_end: str) -> None:
    net = conformer(front_end=front_end, width=32, layers=3, kernel=31)
    unlike_zero(net)
    features, lengths = torch.randn(4, 90, 32), torch.tensor([61, 60, 33, 2])
    for row, length in enumerate(lengths):
        features[row, length:] = 1000.0
    together = net(features, lengths)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(
            together[row], net(features[row : row + 1, :length])[0], rtol=1e-5, atol=1e-5
        )


@torch.no_grad()
def test_without_the_mask_torchaudios_convolution_sees_the_padding() -> None:
    """Why the backbone masks it: the encoder alone, given lengths, lets padding into the last frames."""
    net = conformer()
    unlike_zero(net)
    frames = torch.randn(1, 30, 16)
    alone, _ = net.encoder(frames[:, :20], torch.tensor([20]))
    padded, _ = net.encoder(torch.cat([frames, frames]), torch.tensor([20, 30]))
    assert (padded[0, :20] - alone[0]).abs().max() > 1e-2


@torch.no_grad()
def test_no_mask_stays_behind_after_a_padded_batch() -> None:
    net = conformer()
    features = torch.randn(2, 60, 40)
    before = net(features)
    net(features, torch.tensor([60, 20]))
    assert torch.equal(net(features), before)


def test_hidden_states_keep_their_level_and_filterbanks_do_not() -> None:
    """Encoders have normalised theirs; a recording's loudness is nobody's mark."""
    features = torch.randn(2, 60, 40)

    def moves(front_end: str) -> bool:
        net = conformer(front_end=front_end)
        return not torch.allclose(net(features), net(features + 3), atol=1e-3)

    assert (moves("fbank"), moves("wav2vec2")) == (False, True)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("layers", 0, "layers is 0; it is at least 1"),
        ("heads", 3, r"model_width is 16; it is a multiple of heads \(3\)"),
        ("heads", 0, "heads is 0; it is at least 1"),
        ("feed_forward", -1, "feed_forward is -1"),
        ("kernel", 8, "kernel is 8; it is an odd number"),
        ("dropout", 1.0, "dropout is 1.0"),
        ("front_end", "mfcc", "front_end is 'mfcc'; it is one of"),
        ("pooling", "max", "unknown pooling 'max'"),
    ],
)
def test_settings_out_of_range_are_refused(setting: str, value: str | float, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        conformer(**{setting: value})


def unlike_zero(net: nn.Module) -> None:
    """Biases and running means as training leaves them: padding that is zero at the input is not zero inside."""

    def moved(x: Tensor) -> None:
        x.add_(torch.randn(x.shape))

    for module in net.modules():
        if isinstance(module, nn.Conv1d | nn.LayerNorm) and module.bias is not None:
            moved(module.bias)
        if isinstance(module, nn.BatchNorm1d):
            moved(module.running_mean)

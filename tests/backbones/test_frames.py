"""Masks and normalisation over the real frames of a padded batch."""

from __future__ import annotations

import torch
from torch import nn

from makermark.backbones.frames import frame_mask, normalise_over_time, silence, silence_


def test_the_mask_holds_as_many_frames_as_each_length_says() -> None:
    assert frame_mask(torch.tensor([3, 1, 0]), 3).int().tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]


def test_silence_leaves_real_frames_and_clears_the_rest_of_signals_and_images() -> None:
    for shape in ((2, 3, 5), (2, 3, 4, 5)):
        x = torch.randn(shape)
        quiet = silence(x, torch.tensor([5, 2]))
        assert torch.equal(quiet[0], x[0])
        assert torch.equal(quiet[1, ..., :2], x[1, ..., :2])
        assert not quiet[1, ..., 2:].any()
        assert silence(x, None) is x


def test_silence_in_place_is_silence_and_keeps_gradients_right() -> None:
    for lengths in (torch.tensor([5, 2]), torch.tensor([3, 4]), torch.tensor([5, 5])):
        for shape in ((2, 3, 5), (2, 3, 4, 5)):
            x = torch.randn(shape)
            expected = silence(x, lengths)
            assert torch.equal(silence_(x, lengths), expected)
            assert torch.equal(x, expected)
    asked = torch.randn(2, 3, 5, requires_grad=True)
    silence_(torch.relu(asked), torch.tensor([5, 2])).sum().backward()
    assert not asked.grad[1, :, 2:].any()
    x = torch.randn(2, 3, 5)
    assert silence_(x, None) is x


def test_normalisation_equals_torchs_instance_norm() -> None:
    features = 3 * torch.randn(4, 50, 40) - 7
    expected = nn.InstanceNorm1d(40)(features.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(normalise_over_time(features, None), expected, rtol=1e-4, atol=1e-5)
    lengths = torch.tensor([50, 20, 2, 33])
    padded = normalise_over_time(features, lengths)
    for row, length in enumerate(lengths):
        alone = normalise_over_time(features[row : row + 1, :length], None)[0]
        torch.testing.assert_close(padded[row, :length], alone, rtol=1e-4, atol=1e-5)
        assert not padded[row, length:].any()

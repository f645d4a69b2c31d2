"""Masks and normalisation of padded batches."""

from __future__ import annotations

import torch
from torch import nn

from makermark.models.backbones.base import frame_mask, mask_padding, mask_padding_, normalise_over_time


def test_frame_mask_is_true_up_to_length() -> None:
    assert frame_mask(torch.tensor([3, 1, 0]), 3).int().tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]


def test_mask_padding_zeroes_frames_past_length() -> None:
    for shape in ((2, 3, 5), (2, 3, 4, 5)):
        x = torch.randn(shape)
        masked = mask_padding(x, torch.tensor([5, 2]))
        assert torch.equal(masked[0], x[0])
        assert torch.equal(masked[1, ..., :2], x[1, ..., :2])
        assert not masked[1, ..., 2:].any()
        assert mask_padding(x, None) is x


def test_mask_padding_in_place_equals_mask_padding() -> None:
    for lengths in (torch.tensor([5, 2]), torch.tensor([3, 4]), torch.tensor([5, 5])):
        for shape in ((2, 3, 5), (2, 3, 4, 5)):
            x = torch.randn(shape)
            expected = mask_padding(x, lengths)
            assert torch.equal(mask_padding_(x, lengths), expected)
            assert torch.equal(x, expected)
    inputs = torch.randn(2, 3, 5, requires_grad=True)
    mask_padding_(torch.relu(inputs), torch.tensor([5, 2])).sum().backward()
    assert not inputs.grad[1, :, 2:].any()
    x = torch.randn(2, 3, 5)
    assert mask_padding_(x, None) is x


def test_normalise_over_time_equals_instance_norm() -> None:
    features = 3 * torch.randn(4, 50, 40) - 7
    expected = nn.InstanceNorm1d(40)(features.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(normalise_over_time(features, None), expected, rtol=1e-4, atol=1e-5)
    lengths = torch.tensor([50, 20, 2, 33])
    padded = normalise_over_time(features, lengths)
    for row, length in enumerate(lengths):
        alone = normalise_over_time(features[row : row + 1, :length], None)[0]
        torch.testing.assert_close(padded[row, :length], alone, rtol=1e-4, atol=1e-5)
        assert not padded[row, length:].any()


def test_normalise_over_time_can_keep_the_variances_of_the_bands() -> None:
    features = torch.tensor([[[1.0, 10.0], [3.0, 50.0], [99.0, 99.0]], [[2.0, 0.0], [4.0, 0.0], [9.0, 3.0]]])
    expected = torch.tensor(
        [[[-1.0, -20.0], [1.0, 20.0], [0.0, 0.0]], [[-3.0, -1.0], [-1.0, -1.0], [4.0, 2.0]]]
    )
    lengths = torch.tensor([2, 3])
    torch.testing.assert_close(normalise_over_time(features, lengths, statistics="mean"), expected)
    torch.testing.assert_close(normalise_over_time(features[1:], None, statistics="mean"), expected[1:])

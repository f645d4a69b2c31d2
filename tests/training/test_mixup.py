"""Mixup of a batch: computed by hand, and in the loss of a step."""

import numpy as np
import pytest
import torch
from torch import nn

from makermark.models.losses.base import Loss
from makermark.training.step import Mixture, batch_loss, draw_mixture, mix


def test_mix_combines_every_row_with_its_partner():
    rng = np.random.default_rng(3)
    features = torch.from_numpy(rng.standard_normal((5, 7, 2)).astype(np.float16))
    mixture = draw_mixture(5, alpha=0.5, rng=np.random.default_rng(0))
    mixed, (partner, share) = mix(features, mixture), mixture
    assert sorted(partner.tolist()) == [0, 1, 2, 3, 4]
    assert mixed.dtype == torch.float32
    for row in range(5):
        for frame in range(7):
            for band in range(2):
                own, other = features[row, frame, band].item(), features[partner[row], frame, band].item()
                expected = share[row].item() * own + (1 - share[row].item()) * other
                assert mixed[row, frame, band].item() == pytest.approx(expected, abs=1e-6)


def test_mix_scales_int16_waveforms_to_one():
    features = torch.tensor([[[16384]], [[-32768]]], dtype=torch.int16)
    partner, share = draw_mixture(2, alpha=0.5, rng=np.random.default_rng(1))
    mixed = mix(features, Mixture(partner, share))
    own, other = torch.tensor([0.5, -1.0]), torch.tensor([0.5, -1.0])[partner]
    torch.testing.assert_close(mixed[:, 0, 0], share * own + (1 - share) * other)


def test_draw_mixture_draws_beta_shares_from_the_generator():
    share = draw_mixture(20_000, alpha=0.5, rng=np.random.default_rng(0)).share
    assert share.mean().item() == pytest.approx(0.5, abs=0.01)
    assert share.var().item() == pytest.approx(1 / 8, abs=0.005)  # of Beta(1/2, 1/2)
    assert torch.equal(share, draw_mixture(20_000, alpha=0.5, rng=np.random.default_rng(0)).share)


class RecordingLoss(Loss):
    """A loss that stores its arguments."""

    needs_groups = False
    mixup_alpha = 0.5

    def forward(self, embeddings, systems):
        self.clean = (embeddings, systems)
        return embeddings.sum()

    def mixup_loss(self, embeddings, first, second, share):
        self.mixed = (embeddings, first, second, share)
        return 2 * embeddings.sum()


def test_batch_loss_adds_the_loss_of_the_clean_and_of_the_mixed_half():
    loss, network = RecordingLoss(), nn.Flatten()
    crops = torch.tensor([[[1.0]], [[2.0]], [[3.0]]])
    mixture = Mixture(torch.tensor([2, 0, 1]), torch.full((3,), 0.4))
    value = batch_loss(network, loss, crops, torch.tensor([7, 8, 9]), mixture)
    expected = [0.4 * 1 + 0.6 * 3, 0.4 * 2 + 0.6 * 1, 0.4 * 3 + 0.6 * 2]
    assert value.item() == pytest.approx(6 + 2 * sum(expected))
    assert loss.clean[1].tolist() == [7, 8, 9]
    embeddings, first, second, share = loss.mixed
    assert embeddings.flatten().tolist() == pytest.approx(expected)
    assert (first.tolist(), second.tolist()) == ([7, 8, 9], [9, 7, 8])
    assert share.tolist() == pytest.approx([0.4] * 3)

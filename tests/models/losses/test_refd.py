"""RefD: the mixup term and the pre-training loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from makermark.foundation.errors import ParamsError
from makermark.foundation.params import read_params
from makermark.models.losses import LOSSES, Loss, build
from makermark.models.losses.real_vs_spoof import RealVsSpoof

ALL = read_params(Path(__file__).parents[3] / "params.yaml").losses


def refd(**changes: float) -> Loss:
    torch.manual_seed(0)
    return build("refd", num_systems=4, dim=6, **{**ALL["refd"], **changes}).double()


def test_mixup_loss_equals_weighted_cross_entropy_per_utterance() -> None:
    loss = refd(eta=0.7)
    embeddings = torch.randn(5, 6, dtype=torch.float64)
    first, second = torch.tensor([0, 1, 2, 3, 3]), torch.tensor([3, 1, 0, 2, 0])
    share = torch.tensor([0.0, 0.3, 0.5, 0.9, 1.0])
    logits = embeddings @ loss.classifier.weight.T + loss.classifier.bias
    costs = []
    for row, part in enumerate(share.tolist()):
        log_shares = logits[row] - logits[row].exp().sum().log()
        costs.append(-part * log_shares[first[row]] - (1 - part) * log_shares[second[row]])
    value = loss.mixup_loss(embeddings, first, second, share)
    torch.testing.assert_close(value, 0.7 * torch.stack(costs).mean())


def test_mixup_loss_with_share_one_equals_cross_entropy() -> None:
    loss, embeddings, systems = refd(eta=2.0), torch.randn(4, 6, dtype=torch.float64), torch.arange(4)
    value = loss.mixup_loss(embeddings, systems, systems.roll(1), torch.ones(4))
    torch.testing.assert_close(value, 2 * functional.cross_entropy(loss.logits(embeddings), systems))


def test_only_refd_has_mixup_and_pretraining() -> None:
    for name in LOSSES:
        loss = build(name, num_systems=4, dim=6, **ALL[name])
        assert (loss.mixup_alpha > 0) == (loss.pretraining_loss() is not None) == (name == "refd")


def test_pretraining_loss_has_its_settings_and_is_not_part_of_refd() -> None:
    loss = refd(m_real=0.8, emphasis_epochs=7)
    first = loss.pretraining_loss()
    assert isinstance(first, RealVsSpoof)
    assert (first.epochs, first.m_real, first.m_fake, first.alpha) == (7, 0.8, 0.2, 20.0)
    assert set(loss.state_dict()) == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(("setting", "value"), [("eta", -1.0), ("mix_alpha", 0.0), ("npair_weight", -0.1)])
def test_refd_raises_for_setting_out_of_range(setting: str, value: float) -> None:
    with pytest.raises(ParamsError, match=rf"loss refd: {setting} is {value}"):
        refd(**{setting: value})

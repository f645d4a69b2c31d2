"""Contract tests over all LOSSES."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from makermark.foundation.errors import ParamsError
from makermark.foundation.params import read_params
from makermark.models.losses import LOSSES, Loss, build

REPOSITORY = Path(__file__).parents[3]
SETTINGS = read_params(REPOSITORY / "params.yaml").losses
DIM = 8
NUM_SYSTEMS = 6

every_loss = pytest.mark.parametrize("name", LOSSES)
grouping_loss = pytest.mark.parametrize("name", [name for name, kind in LOSSES.items() if kind.needs_groups])
group_only_loss = pytest.mark.parametrize(  # without a classifier over the training systems
    "name", [name for name, kind in LOSSES.items() if kind.needs_groups and kind.logits is Loss.logits]
)
scaled_loss = pytest.mark.parametrize("name", ["angularproto", "ge2e"])  # with a learned scale and bias


def loss_of(name: str) -> nn.Module:
    torch.manual_seed(1)
    return build(name, num_systems=NUM_SYSTEMS, dim=DIM, **SETTINGS[name])


def batch_of(labels: list[int]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(labels), DIM, generator=generator).requires_grad_(), torch.tensor(labels)


def gradients(value: Tensor, embeddings: Tensor, loss: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(value, [embeddings, *loss.parameters()]))


@every_loss
def test_loss_builds_from_params_yaml(name: str) -> None:
    assert isinstance(loss_of(name).needs_groups, bool)


@every_loss
def test_loss_is_in_docs_table_with_settings_and_sampler(name: str) -> None:
    (row,) = [
        line
        for line in (REPOSITORY / "docs/losses.md").read_text().splitlines()
        if line.startswith(f"| `{name}`")
    ]
    settings, sampler = row.replace(r"\|", "").split("|")[4:6]
    assert set(re.findall("`(.*?)`", settings)) == set(SETTINGS[name])
    assert sampler.strip() == ("balanced" if LOSSES[name].needs_groups else "any")


@every_loss
@pytest.mark.parametrize("labels", [[0, 1, 2, 3] * 3, [5, 5, 1, 1, 1, 2, 2, 2, 2]])
def test_loss_is_invariant_to_row_order(name: str, labels: list[int]) -> None:
    loss, (embeddings, systems) = loss_of(name), batch_of(labels)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(5))
    value, shuffled = loss(embeddings, systems), loss(embeddings[order], systems[order])
    torch.testing.assert_close(value, shuffled)
    for gradient, other in zip(
        gradients(value, embeddings, loss), gradients(shuffled, embeddings, loss), strict=True
    ):
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-6)


@every_loss
def test_loss_depends_on_labels(name: str) -> None:
    loss, (embeddings, systems) = loss_of(name), batch_of([0, 1, 2, 3] * 3)
    wrong = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    assert (loss(embeddings, systems) - loss(embeddings, wrong)).abs() > 1e-3


@every_loss
def test_loss_is_lower_for_correct_labels_after_training(name: str) -> None:
    """The embeddings start well separated, so that a classifier can learn them too."""
    loss = loss_of(name)
    systems = torch.tensor([0, 1, 2, 3] * 3)
    embeddings = (torch.eye(DIM)[systems] + 0.01 * torch.randn(12, DIM)).requires_grad_()
    optimizer = torch.optim.Adam([embeddings, *loss.parameters()], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        loss(embeddings, systems).backward()
        optimizer.step()
    assert loss(embeddings, systems) < 0.5 * loss(embeddings, systems.roll(2).sort().values)


@every_loss
def test_gradient_step_lowers_loss(name: str) -> None:
    """The step is short: a longer one would change which triplets are semi-hard, where that loss is discontinuous."""
    loss, (embeddings, systems) = loss_of(name), batch_of([0, 1, 2, 3] * 3)
    before = loss(embeddings, systems)
    (gradient,) = torch.autograd.grad(before, embeddings)
    assert loss(embeddings - 0.001 * gradient, systems) < before


@every_loss
@pytest.mark.parametrize(
    "embeddings",
    {
        "all alike": torch.ones(6, DIM),
        "all alike and large": torch.full((6, DIM), 100.0),
        "opposite pairs": torch.tensor([[1.0], [-1.0], [1.0], [-1.0], [1.0], [-1.0]]).expand(6, DIM),
        "zeros": torch.zeros(6, DIM),
    }.values(),
    ids=["all alike", "all alike and large", "opposite pairs", "zeros"],
)
@pytest.mark.parametrize("labels", [[0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1]])
def test_loss_has_finite_gradients_for_degenerate_embeddings(
    name: str, embeddings: Tensor, labels: list[int]
) -> None:
    loss, embeddings = loss_of(name), embeddings.clone().requires_grad_()
    value = loss(embeddings, torch.tensor(labels))
    assert value.isfinite()
    for gradient in gradients(value, embeddings, loss):
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 1e3


@every_loss
def test_every_parameter_gets_a_gradient(name: str) -> None:
    """Except the bias of the prototype losses, on which a softmax does not depend."""
    loss, (embeddings, systems) = loss_of(name), batch_of([0, 1, 2, 3, 4, 5] * 2)
    loss(embeddings, systems).backward()
    for parameter, learned in loss.named_parameters():
        assert learned.grad is not None
        assert parameter == "bias" or learned.grad.abs().max() > 1e-4


@every_loss
def test_loss_ignores_autocast(name: str) -> None:
    loss, (embeddings, systems) = loss_of(name), batch_of([0, 1, 2, 3] * 3)
    expected = loss(embeddings, systems)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(embeddings, systems)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)


@every_loss
def test_loss_converts_bfloat16_embeddings_to_float32(name: str) -> None:
    loss, (embeddings, systems) = loss_of(name), batch_of([0, 1, 2, 3] * 3)
    coarse = embeddings.detach().bfloat16().requires_grad_()
    value = loss(coarse, systems)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(coarse.float(), systems))
    (gradient,) = torch.autograd.grad(value, coarse)
    assert gradient.isfinite().all()


@every_loss
def test_build_raises_for_unknown_setting(name: str) -> None:
    with pytest.raises(ParamsError, match=rf"loss {name}: unknown settings \['sclae'\]; it takes"):
        build(name, num_systems=3, dim=4, **SETTINGS[name], sclae=1.0)


@every_loss
def test_build_raises_for_missing_setting(name: str) -> None:
    for setting in SETTINGS[name]:
        others = {key: value for key, value in SETTINGS[name].items() if key != setting}
        with pytest.raises(ParamsError, match=rf"loss {name}: missing settings \['{setting}'\]"):
            build(name, num_systems=3, dim=4, **others)


@every_loss
def test_build_raises_for_setting_of_wrong_type(name: str) -> None:
    for setting in SETTINGS[name].keys() - {"variant"}:  # a word
        with pytest.raises(ParamsError, match=f"{setting} is 'wide'; it takes a (whole )?number"):
            build(name, num_systems=3, dim=4, **{**SETTINGS[name], setting: "wide"})


def test_build_raises_for_unknown_loss() -> None:
    with pytest.raises(ParamsError, match=r"unknown loss 'arcface'; .*one of .*'aamsoftmax'"):
        build("arcface", num_systems=3, dim=4)


@every_loss
def test_build_raises_for_dim_zero(name: str) -> None:
    with pytest.raises(ParamsError, match="dim 0"):
        build(name, num_systems=3, dim=0, **SETTINGS[name])


@grouping_loss
def test_group_loss_raises_for_single_utterance_of_a_system(name: str) -> None:
    loss, (embeddings, systems) = loss_of(name), batch_of([0, 0, 1, 1, 4])
    with pytest.raises(ValueError, match=f"{name}: system 4 has 1 utterance in the batch"):
        loss(embeddings, systems)


@every_loss
def test_loss_is_finite_for_batch_of_one_system(name: str) -> None:
    loss, (embeddings, systems) = loss_of(name), batch_of([2, 2, 2])
    value = loss(embeddings, systems)
    assert value.isfinite()
    assert value >= 0
    assert all(gradient.isfinite().all() for gradient in gradients(value, embeddings, loss))


@group_only_loss
def test_group_loss_of_one_system_is_its_regularisation(name: str) -> None:
    loss, (embeddings, systems) = loss_of(name), batch_of([2, 2, 2])
    value = loss(embeddings, systems)
    weight = SETTINGS[name].get("reg", 0.0)
    norm = weight * embeddings.square().sum(dim=1).mean()
    torch.testing.assert_close(value, norm)
    (gradient,) = torch.autograd.grad(value, embeddings, retain_graph=True)
    torch.testing.assert_close(gradient, 2 * weight * embeddings / len(systems))
    assert not any(learned.any() for learned in gradients(value, embeddings, loss)[1:])


@scaled_loss
def test_learned_scale_starts_at_setting_and_stays_positive(name: str) -> None:
    loss, (embeddings, systems) = loss_of(name), batch_of([0, 1, 2, 3] * 3)
    assert loss.log_scale.exp().item() == pytest.approx(SETTINGS[name]["scale"])
    assert loss.bias.item() == SETTINGS[name]["bias"]
    optimizer = torch.optim.SGD(loss.parameters(), lr=20.0)
    for _ in range(5):
        optimizer.zero_grad()
        loss(embeddings, systems).backward()
        optimizer.step()
    assert loss.log_scale.exp() > 0
    assert loss.log_scale.exp().item() != pytest.approx(SETTINGS[name]["scale"], rel=1e-2)


@every_loss
def test_loss_is_deterministic_for_seed(name: str) -> None:
    (embeddings, systems), first, second = batch_of([0, 1, 2, 3] * 3), loss_of(name), loss_of(name)
    assert torch.equal(first(embeddings, systems), second(embeddings, systems))

"""What holds for every loss of the registry; a new loss is tested here by being listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from makermark.errors import ParamsError
from makermark.losses import LOSSES, Loss, build
from makermark.params import read_params

REPOSITORY = Path(__file__).parents[2]
SETTINGS = read_params(REPOSITORY / "params.yaml").losses
DIM = 8
NUM_SYSTEMS = 6

every_loss = pytest.mark.parametrize("name", LOSSES)
grouping_loss = pytest.mark.parametrize("name", [name for name, kind in LOSSES.items() if kind.needs_groups])
comparing_loss = pytest.mark.parametrize(  # those that know no system but the batch's
    "name", [name for name, kind in LOSSES.items() if kind.needs_groups and kind.logits is Loss.logits]
)
scaled_loss = pytest.mark.parametrize("name", ["angularproto", "ge2e"])  # those that learn a scale and a bias


def loss_of(name: str) -> nn.Module:
    torch.manual_seed(1)
    return build(name, num_systems=NUM_SYSTEMS, dim=DIM, **SETTINGS[name])


def batch_of(labels: list[int]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(labels), DIM, generator=generator).requires_grad_(), torch.tensor(labels)


def gradients(value: Tensor, embeddings: Tensor, loss: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(value, [embeddings, *loss.parameters()]))


@every_loss
def test_params_yaml_has_its_settings_and_they_build_it(name: str) -> None:
    assert isinstance(loss_of(name).needs_groups, bool)


@every_loss
def test_the_table_in_docs_has_it_with_its_settings_and_its_sampler(name: str) -> None:
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
def test_row_order_does_not_matter(name: str, labels: list[int]) -> None:
    loss, (embeddings, systems) = loss_of(name), batch_of(labels)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(5))
    value, shuffled = loss(embeddings, systems), loss(embeddings[order], systems[order])
    torch.testing.assert_close(value, shuffled)
    for gradient, other in zip(
        gradients(value, embeddings, loss), gradients(shuffled, embeddings, loss), strict=True
    ):
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-6)


@every_loss
def test_labels_matter(name: str) -> None:
    loss, (embeddings, systems) = loss_of(name), batch_of([0, 1, 2, 3] * 3)
    wrong = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    assert (loss(embeddings, systems) - loss(embeddings, wrong)).abs() > 1e-3


@every_loss
def test_right_groups_cost_less_than_wrong_ones(name: str) -> None:
    """After some steps of descent from well separated embeddings, so that a classifier can learn them too."""
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
def test_descent_on_the_embeddings_lowers_the_loss(name: str) -> None:
    """The step is short: a longer one changes which triplets are semi-hard, where that loss jumps."""
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
def test_exact_matches_and_opposites_give_finite_gradients(
    name: str, embeddings: Tensor, labels: list[int]
) -> None:
    loss, embeddings = loss_of(name), embeddings.clone().requires_grad_()
    value = loss(embeddings, torch.tensor(labels))
    assert value.isfinite()
    for gradient in gradients(value, embeddings, loss):
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 1e3


@every_loss
def test_every_learnable_number_gets_a_gradient(name: str) -> None:
    """The bias of the prototype losses is the one exception: a softmax does not see it."""
    loss, (embeddings, systems) = loss_of(name), batch_of([0, 1, 2, 3, 4, 5] * 2)
    loss(embeddings, systems).backward()
    for parameter, learned in loss.named_parameters():
        assert learned.grad is not None
        assert parameter == "bias" or learned.grad.abs().max() > 1e-4


@every_loss
def test_autocast_to_bfloat16_changes_nothing(name: str) -> None:
    loss, (embeddings, systems) = loss_of(name), batch_of([0, 1, 2, 3] * 3)
    expected = loss(embeddings, systems)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(embeddings, systems)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)


@every_loss
def test_bfloat16_embeddings_are_taken_in_float32(name: str) -> None:
    loss, (embeddings, systems) = loss_of(name), batch_of([0, 1, 2, 3] * 3)
    coarse = embeddings.detach().bfloat16().requires_grad_()
    value = loss(coarse, systems)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(coarse.float(), systems))
    (gradient,) = torch.autograd.grad(value, coarse)
    assert gradient.isfinite().all()


@every_loss
def test_an_unknown_setting_is_refused_with_the_choices(name: str) -> None:
    with pytest.raises(ParamsError, match=rf"loss {name}: unknown settings \['sclae'\]; it takes"):
        build(name, num_systems=3, dim=4, **SETTINGS[name], sclae=1.0)


@every_loss
def test_a_missing_setting_is_refused_by_name(name: str) -> None:
    for setting in SETTINGS[name]:
        others = {key: value for key, value in SETTINGS[name].items() if key != setting}
        with pytest.raises(ParamsError, match=rf"loss {name}: missing settings \['{setting}'\]"):
            build(name, num_systems=3, dim=4, **others)


@every_loss
def test_a_setting_of_the_wrong_type_is_refused(name: str) -> None:
    for setting in SETTINGS[name]:
        with pytest.raises(ParamsError, match=f"{setting} is 'wide'; it takes a (finite|whole) number"):
            build(name, num_systems=3, dim=4, **{**SETTINGS[name], setting: "wide"})


def test_an_unknown_loss_is_refused_with_the_choices() -> None:
    with pytest.raises(ParamsError, match=r"unknown loss 'arcface'; it is one of .*'aamsoftmax'"):
        build("arcface", num_systems=3, dim=4)


@every_loss
def test_dim_zero_is_refused(name: str) -> None:
    with pytest.raises(ParamsError, match="dim 0"):
        build(name, num_systems=3, dim=0, **SETTINGS[name])


@grouping_loss
def test_a_lone_utterance_is_refused_in_clear_words(name: str) -> None:
    loss, (embeddings, systems) = loss_of(name), batch_of([0, 0, 1, 1, 4])
    with pytest.raises(ValueError, match=f"{name}: system 4 has 1 utterance in the batch"):
        loss(embeddings, systems)


@every_loss
def test_a_batch_of_one_system_has_a_finite_cost_and_gradient(name: str) -> None:
    loss, (embeddings, systems) = loss_of(name), batch_of([2, 2, 2])
    value = loss(embeddings, systems)
    assert value.isfinite()
    assert value >= 0
    assert all(gradient.isfinite().all() for gradient in gradients(value, embeddings, loss))


@comparing_loss
def test_one_system_has_none_to_compare_with_and_costs_nothing_but_the_norm(name: str) -> None:
    loss, (embeddings, systems) = loss_of(name), batch_of([2, 2, 2])
    value = loss(embeddings, systems)
    weight = SETTINGS[name].get("reg", 0.0)
    norm = weight * embeddings.square().sum(dim=1).mean()
    torch.testing.assert_close(value, norm)
    (gradient,) = torch.autograd.grad(value, embeddings, retain_graph=True)
    torch.testing.assert_close(gradient, 2 * weight * embeddings / len(systems))
    assert not any(learned.any() for learned in gradients(value, embeddings, loss)[1:])


@scaled_loss
def test_the_scale_starts_as_set_and_stays_positive_whatever_the_optimiser_does(name: str) -> None:
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
def test_the_same_seed_gives_the_same_loss(name: str) -> None:
    (embeddings, systems), first, second = batch_of([0, 1, 2, 3] * 3), loss_of(name), loss_of(name)
    assert torch.equal(first(embeddings, systems), second(embeddings, systems))

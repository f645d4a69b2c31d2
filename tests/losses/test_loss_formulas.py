"""Each loss equals its paper's formula, value and gradient, in float64."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from naive_losses import NAIVE, cosine, prototypical
from torch import Tensor, nn

from makermark.errors import ParamsError
from makermark.losses import LOSSES, build
from makermark.params import read_params

SETTINGS = read_params(Path(__file__).parents[2] / "params.yaml").losses
DIM = 6
NUM_SYSTEMS = 5
BATCHES = {
    "5 systems x 4": [0, 1, 2, 3, 4] * 4,
    "K = 2": [0, 1, 2, 3, 4] * 2,
    "one system": [3] * 4,
    "unequal counts": [0, 0, 2, 2, 2, 2, 4, 4, 4],
}


def loss_of(name: str) -> nn.Module:
    torch.manual_seed(1)
    return build(name, num_systems=NUM_SYSTEMS, dim=DIM, **SETTINGS[name]).double()


def batch_of(labels: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(len(labels), DIM, generator=generator, dtype=torch.float64)
    return embeddings.requires_grad_(), torch.tensor(labels)


def assert_equals_naive(name: str, embeddings: Tensor, systems: Tensor) -> None:
    loss = loss_of(name)
    learned = [embeddings, *loss.parameters()]
    value, expected = loss(embeddings, systems), NAIVE[name](loss, embeddings, systems)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    gradients = torch.autograd.grad(value, learned)
    expected_gradients = torch.autograd.grad(expected, learned)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-7, atol=1e-9)


def test_every_loss_has_a_naive_formula() -> None:
    assert set(NAIVE) == set(LOSSES)


@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_equal_the_paper(name: str, labels: list[int]) -> None:
    assert_equals_naive(name, *batch_of(labels))


@pytest.mark.parametrize("name", ["angularproto", "ge2e", "amsoftmax", "softmax"])
def test_exact_matches_equal_the_paper(name: str) -> None:
    embeddings, systems = batch_of([0, 0, 0, 1, 1, 1, 2, 2])
    with torch.no_grad():
        embeddings[1:3] = embeddings[0]  # all of system 0 alike
        embeddings[7] = embeddings[6]
    assert_equals_naive(name, embeddings, systems)


def test_aamsoftmax_at_the_direction_of_the_system_costs_what_the_paper_says() -> None:
    """The angle is 0 there: the naive acos has no finite gradient, the loss has one."""
    loss = loss_of("aamsoftmax")
    embeddings = (3 * loss.directions.detach()).requires_grad_()
    systems = torch.arange(NUM_SYSTEMS)
    value = loss(embeddings, systems)
    torch.testing.assert_close(value, NAIVE["aamsoftmax"](loss, embeddings, systems), rtol=1e-6, atol=1e-9)
    value.backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()


def test_aamsoftmax_past_pi_minus_the_margin_equals_the_stated_continuation() -> None:
    loss = loss_of("aamsoftmax")
    torch.manual_seed(3)
    opposed = -loss.directions.detach() + 0.02 * torch.randn(NUM_SYSTEMS, DIM, dtype=torch.float64)
    angles = [math.acos(cosine(x, d).item()) for x, d in zip(opposed, loss.directions, strict=True)]
    assert min(angles) > math.pi - loss.margin
    assert_equals_naive("aamsoftmax", opposed.requires_grad_(), torch.arange(NUM_SYSTEMS))


@pytest.mark.parametrize("margin", [0.0, 0.2, 0.5, 1.5])
def test_aamsoftmax_costs_more_the_larger_the_angle(margin: float) -> None:
    loss = build("aamsoftmax", num_systems=2, dim=3, margin=margin, scale=5.0).double()
    with torch.no_grad():
        loss.directions.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    angles = torch.linspace(0, math.pi, 500, dtype=torch.float64)
    around = torch.stack([angles.cos(), angles.sin(), torch.zeros_like(angles)], dim=1)  # other cosine: 0
    costs = torch.stack([loss(x[None], torch.tensor([0])) for x in around])
    assert (costs.diff() > 0).all()


def test_angularproto_with_two_utterances_is_the_mean_over_both_choices_of_query() -> None:
    """With one system's pair alike, only the other's choice counts: two choices, and their mean."""
    embeddings, systems = batch_of([0, 0, 1, 1])
    with torch.no_grad():
        embeddings[1] = embeddings[0]
    loss = loss_of("angularproto")
    same, first, second = embeddings[0], embeddings[2], embeddings[3]
    w, b = loss.log_scale.exp(), loss.bias
    choices = [
        prototypical([same, query], [same, prototype], w, b)
        for query, prototype in [(first, second), (second, first)]
    ]
    torch.testing.assert_close(loss(embeddings, systems), torch.stack(choices).mean())


def test_angularproto_lies_within_the_papers_loss_over_all_choices_of_query() -> None:
    embeddings, systems = batch_of([0, 0, 0, 1, 1, 1, 2, 2, 2])
    loss = loss_of("angularproto")
    groups = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    values = []
    for chosen in itertools.product(*groups):
        queries = [embeddings[row] for row in chosen]
        prototypes = [
            embeddings[[row for row in rows if row != query]].mean(0)
            for rows, query in zip(groups, chosen, strict=True)
        ]
        values.append(prototypical(queries, prototypes, loss.log_scale.exp(), loss.bias).item())
    assert min(values) < loss(embeddings, systems).item() < max(values)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_pass_gradcheck(name: str) -> None:
    loss = loss_of(name)
    embeddings, systems = batch_of([0, 0, 0, 2, 2, 2, 4, 4])
    assert torch.autograd.gradcheck(lambda x: loss(x, systems), embeddings)


@pytest.mark.parametrize("name", ["amsoftmax", "aamsoftmax"])
def test_logits_are_scaled_cosines_without_the_margin(name: str) -> None:
    loss = loss_of(name)
    embeddings, _ = batch_of([0, 1, 2])
    expected = [[loss.scale * cosine(x, d).item() for d in loss.directions] for x in embeddings]
    torch.testing.assert_close(loss.logits(embeddings), torch.tensor(expected, dtype=torch.float64))


def test_margin_zero_is_cross_entropy_of_the_logits() -> None:
    embeddings, systems = batch_of([0, 1, 2, 3])
    for name in ("amsoftmax", "aamsoftmax"):
        loss = build(name, num_systems=NUM_SYSTEMS, dim=DIM, margin=0.0, scale=20.0).double()
        expected = nn.functional.cross_entropy(loss.logits(embeddings), systems)
        torch.testing.assert_close(loss(embeddings, systems), expected)


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("amsoftmax", "margin", -0.1),
        ("amsoftmax", "scale", 0.0),
        ("aamsoftmax", "margin", 1.6),
        ("aamsoftmax", "scale", -1.0),
        ("angularproto", "scale", 0.0),
        ("ge2e", "scale", -10.0),
        ("ge2e", "scale", float("nan")),
        ("ge2e", "bias", float("inf")),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(name: str, setting: str, value: float) -> None:
    with pytest.raises(ParamsError, match=rf"loss {name}: {setting} is "):
        build(name, num_systems=3, dim=4, **{**SETTINGS[name], setting: value})

"""Value and gradient of each loss against the formula of its paper, in float64."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_losses import NAIVE, cosine, prototypical
from torch import Tensor, nn

from makermark.foundation.errors import ParamsError
from makermark.foundation.params import read_params
from makermark.models.losses import LOSSES, build
from makermark.models.losses.aamsoftmax import cosine_with_margin

SETTINGS = read_params(Path(__file__).parents[3] / "params.yaml").losses
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
def test_loss_equals_formula(name: str, labels: list[int]) -> None:
    assert_equals_naive(name, *batch_of(labels))


@pytest.mark.parametrize("name", LOSSES)
def test_loss_equals_formula_for_equal_embeddings(name: str) -> None:
    embeddings, systems = batch_of([0, 0, 0, 1, 1, 1, 2, 2])
    with torch.no_grad():
        embeddings[1:3] = embeddings[0]  # all of system 0 alike
        embeddings[7] = embeddings[6]
    assert_equals_naive(name, embeddings, systems)


systems_of_many_sizes = st.lists(st.integers(2, 5), min_size=1, max_size=4).flatmap(
    lambda sizes: st.permutations([name for name, size in enumerate(sizes) for _ in range(size)])
)


@settings(deadline=None)
@given(labels=systems_of_many_sizes, seed=st.integers(0, 1000))
def test_npair_equals_formula_for_any_group_sizes(labels: list[int], seed: int) -> None:
    assert_equals_naive("npair", *batch_of(labels, seed))


# 24 directions with pairwise cosines 0, 1/2 or 1, or the negative: distances without rounding, many of them tied
CELLS = [*torch.eye(4, dtype=torch.float64), *-torch.eye(4, dtype=torch.float64)]
CELLS += [torch.tensor(signs, dtype=torch.float64) / 2 for signs in itertools.product((1, -1), repeat=4)]


@settings(deadline=None)
@given(labels=systems_of_many_sizes, data=st.data())
def test_triplet_equals_formula_for_tied_distances(labels: list[int], data: st.DataObject) -> None:
    """Ties between positives and negatives and among negatives, opposite and equal embeddings."""
    cells = st.lists(st.sampled_from(range(len(CELLS))), min_size=len(labels), max_size=len(labels))
    embeddings = torch.stack([CELLS[cell] for cell in data.draw(cells)])
    lengths = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)[torch.arange(len(labels)) % 3]
    assert_equals_naive("triplet", (embeddings * lengths[:, None]).requires_grad_(), torch.tensor(labels))


def centres_of(loss: nn.Module) -> Tensor:
    """Return one learned direction (C, D) of every system, the last one if it has several."""
    directions: Tensor = loss.directions.detach()
    return directions if directions.ndim == 2 else directions[:, -1]


@pytest.mark.parametrize("name", ["aamsoftmax", "subcenter-aamsoftmax"])
def test_margin_loss_equals_formula_at_angle_zero(name: str) -> None:
    """At angle 0 the gradient of the naive acos is infinite; that of the loss is finite."""
    loss = loss_of(name)
    embeddings = (3 * centres_of(loss)).requires_grad_()
    systems = torch.arange(NUM_SYSTEMS)
    value = loss(embeddings, systems)
    torch.testing.assert_close(value, NAIVE[name](loss, embeddings, systems), rtol=1e-6, atol=1e-9)
    value.backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()


def test_aamsoftmax_equals_continuation_beyond_pi_minus_margin() -> None:
    loss = loss_of("aamsoftmax")
    torch.manual_seed(3)
    opposed = -loss.directions.detach() + 0.02 * torch.randn(NUM_SYSTEMS, DIM, dtype=torch.float64)
    angles = [math.acos(cosine(x, d).item()) for x, d in zip(opposed, loss.directions, strict=True)]
    assert min(angles) > math.pi - loss.margin
    assert_equals_naive("aamsoftmax", opposed.requires_grad_(), torch.arange(NUM_SYSTEMS))


@pytest.mark.parametrize("margin", [0.2, 0.5, 1.5])
def test_cosine_with_margin_at_the_limit_is_that_of_a_straight_angle(margin: float) -> None:
    """At the angle pi - m, cos(a + m) is -1; only beyond it cos a - m sin m is returned."""
    at_limit = torch.tensor([[-math.cos(margin), math.sin(margin)]], dtype=torch.float64)
    value = cosine_with_margin(at_limit, torch.tensor([[1.0, 0.0]], dtype=torch.float64), margin)
    assert value.item() == pytest.approx(-1, abs=1e-12)


@pytest.mark.parametrize("margin", [0.0, 0.2, 0.5, 1.5])
def test_aamsoftmax_increases_with_angle(margin: float) -> None:
    loss = build("aamsoftmax", num_systems=2, dim=3, margin=margin, scale=5.0).double()
    with torch.no_grad():
        loss.directions.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    angles = torch.linspace(0, math.pi, 500, dtype=torch.float64)
    around = torch.stack([angles.cos(), angles.sin(), torch.zeros_like(angles)], dim=1)  # other cosine: 0
    costs = torch.stack([loss(x[None], torch.tensor([0])) for x in around])
    assert (costs.diff() > 0).all()


def test_angularproto_of_two_utterances_is_mean_over_queries() -> None:
    """One system has two equal utterances, so only the choice of the other system's query matters."""
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


def test_angularproto_lies_within_range_over_all_queries() -> None:
    embeddings, systems = batch_of([0, 0, 0, 1, 1, 1, 2, 2, 2])
    loss = loss_of("angularproto")
    groups = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    values = []
    for selected in itertools.product(*groups):
        queries = [embeddings[row] for row in selected]
        prototypes = [
            embeddings[[row for row in rows if row != query]].mean(0)
            for rows, query in zip(groups, selected, strict=True)
        ]
        values.append(prototypical(queries, prototypes, loss.log_scale.exp(), loss.bias).item())
    assert min(values) < loss(embeddings, systems).item() < max(values)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_passes_gradcheck(name: str) -> None:
    loss = loss_of(name)
    embeddings, systems = batch_of([0, 0, 0, 2, 2, 2, 4, 4])
    assert torch.autograd.gradcheck(lambda x: loss(x, systems), embeddings)


def test_npair_does_not_overflow_for_long_embeddings() -> None:
    """The exponents reach thousands; their exponentials overflow float32."""
    loss = build("npair", num_systems=NUM_SYSTEMS, dim=DIM, reg=0.001)
    embeddings, systems = batch_of([0, 1, 2, 3] * 3)
    embeddings = (40 * embeddings).detach().requires_grad_()
    short = embeddings.detach().float().requires_grad_()
    value, expected = loss(short, systems), loss(embeddings, systems)
    assert expected > math.log(torch.finfo(torch.float32).max)
    torch.testing.assert_close(value, expected.float(), rtol=1e-5, atol=0)
    gradients = torch.autograd.grad(value, short) + torch.autograd.grad(expected, embeddings)
    torch.testing.assert_close(gradients[0], gradients[1].float(), rtol=1e-4, atol=1e-4)


def test_npair_equals_hand_computed_value() -> None:
    """Both utterances of a pair are the anchor once. Inner products are 2 and 3 within systems, 0 between them."""
    loss = build("npair", num_systems=2, dim=2, reg=0.5)
    embeddings = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]], dtype=torch.float64)
    costs = [math.log1p(math.exp(-own)) for own in (2, 3)]  # in both rounds
    expected = sum(costs) / 2 + 0.5 * (1 + 4 + 1 + 9) / 4
    assert loss(embeddings, torch.tensor([0, 0, 1, 1])).item() == pytest.approx(expected)


def on_the_circle(*degrees: float) -> Tensor:
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def squared(degrees: float) -> float:
    return 2 - 2 * math.cos(math.radians(degrees))


def test_triplet_selects_semi_hard_negative() -> None:
    """System 0 is at 0 and 20 degrees, system 1 at 10, 30 and 33."""
    loss = build("triplet", num_systems=2, dim=2, margin=0.2)
    embeddings = on_the_circle(0, 20, 10, 30, 33)
    chosen = [  # degrees from the anchor to the positive and to the selected negative
        (20, 30),  # anchor 0: the negatives at 30 and 33 are beyond 20
        (20, 13),  # anchor 20: all nearer, at 10, 10 and 13
        (20, 10),  # anchor 10: all nearer, at 10 and 10
        (23, 10),
        (20, 30),  # anchor 30: at 30 and 10
        (3, 10),
        (23, 33),  # anchor 33: at 33 and 13
        (3, 13),
    ]
    costs = [max(0.0, squared(positive) - squared(negative) + 0.2) for positive, negative in chosen]
    systems = torch.tensor([0, 0, 1, 1, 1])
    assert loss(embeddings, systems).item() == pytest.approx(sum(costs) / len(costs))


def test_triplet_without_semi_hard_negative_selects_farthest() -> None:
    """System 1 lies between the utterances of system 0, so all negatives are nearer than the positive."""
    loss = build("triplet", num_systems=2, dim=2, margin=0.2)
    embeddings = on_the_circle(0, 90, 40, 45)
    costs = [
        squared(90) - squared(45) + 0.2,  # anchor 0: negatives at 40 and 45 degrees from it
        squared(90) - squared(50) + 0.2,  # anchor 90: at 50 and 45
        0,  # anchor 40, positive 5 from it: negatives at 40 and 50
        0,  # anchor 45: at 45 and 45
    ]
    value = loss(embeddings, torch.tensor([0, 0, 1, 1]))
    assert value.item() == pytest.approx(sum(costs) / len(costs))


def test_proto_equals_hand_computed_value() -> None:
    """Two systems of two utterances on a line."""
    loss = build("proto", num_systems=2, dim=1)
    embeddings = torch.tensor([[0.0], [1.0], [3.0], [5.0]], dtype=torch.float64)
    distances = [(1, 25), (4, 4), (1, 4), (4, 25)]  # of 0 to 1, 5; 3 to 5, 1; 1 to 0, 3; 5 to 3, 0
    expected = sum(math.log1p(math.exp(own - other)) for own, other in distances) / 4
    assert loss(embeddings, torch.tensor([0, 0, 1, 1])).item() == pytest.approx(expected)


def test_proxyanchor_equals_hand_computed_value() -> None:
    """One utterance at its proxy, and an orthogonal second proxy: cosines 1 and 0."""
    loss = build("proxyanchor", num_systems=2, dim=2, margin=0.1, scale=2.0).double()
    with torch.no_grad():
        loss.proxies.copy_(torch.tensor([[5.0, 0.0], [0.0, 0.1]]))
    value = loss(torch.tensor([[3.0, 0.0]], dtype=torch.float64), torch.tensor([0]))
    pull = math.log1p(math.exp(-2 * (1 - 0.1)))
    push = math.log1p(math.exp(2 * (0 + 0.1)))  # of the second proxy; the first has no other utterance
    assert value.item() == pytest.approx(pull / 1 + push / 2)


def test_subcenter_aamsoftmax_with_one_centre_equals_aamsoftmax() -> None:
    one = build(
        "subcenter-aamsoftmax", num_systems=5, dim=DIM, margin=0.3, scale=20.0, sub_centres=1
    ).double()
    plain = build("aamsoftmax", num_systems=5, dim=DIM, margin=0.3, scale=20.0).double()
    with torch.no_grad():
        plain.directions.copy_(one.directions[:, 0])
    embeddings, systems = batch_of([0, 1, 2, 3, 4] * 2)
    with torch.no_grad():
        embeddings[:5] = -plain.directions
    torch.testing.assert_close(one(embeddings, systems), plain(embeddings, systems))
    torch.testing.assert_close(one.logits(embeddings), plain.logits(embeddings))


def test_subcenter_logits_use_nearest_centre() -> None:
    loss = loss_of("subcenter-aamsoftmax")
    embeddings, _ = batch_of([0, 1, 2])
    expected = [
        [loss.scale * max(cosine(x, centre).item() for centre in centres) for centres in loss.directions]
        for x in embeddings
    ]
    torch.testing.assert_close(loss.logits(embeddings), torch.tensor(expected, dtype=torch.float64))


def test_proxyanchor_logits_are_scaled_cosines() -> None:
    loss = loss_of("proxyanchor")
    embeddings, _ = batch_of([0, 1, 2])
    expected = [[loss.scale * cosine(x, proxy).item() for proxy in loss.proxies] for x in embeddings]
    torch.testing.assert_close(loss.logits(embeddings), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("name", ["amsoftmax", "aamsoftmax"])
def test_margin_loss_logits_have_no_margin(name: str) -> None:
    loss = loss_of(name)
    embeddings, _ = batch_of([0, 1, 2])
    expected = [[loss.scale * cosine(x, d).item() for d in loss.directions] for x in embeddings]
    torch.testing.assert_close(loss.logits(embeddings), torch.tensor(expected, dtype=torch.float64))


def test_margin_loss_with_margin_zero_equals_cross_entropy() -> None:
    embeddings, systems = batch_of([0, 1, 2, 3])
    for name in ("amsoftmax", "aamsoftmax"):
        loss = build(name, num_systems=NUM_SYSTEMS, dim=DIM, margin=0.0, scale=20.0).double()
        expected = nn.functional.cross_entropy(loss.logits(embeddings), systems)
        torch.testing.assert_close(loss(embeddings, systems), expected)


@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
def test_ge2e_of_the_trainer_averages_raw_embeddings_and_clamps_cosines(labels: list[int]) -> None:
    """The code of Chung et al. 2020 (voxceleb_trainer), with `F.cosine_similarity` and loops over the utterances."""
    torch.manual_seed(1)
    settings = SETTINGS["ge2e"] | {"variant": "voxceleb-trainer"}
    loss = build("ge2e", num_systems=NUM_SYSTEMS, dim=DIM, **settings).double()
    embeddings, systems = batch_of(labels)
    scaled = embeddings * torch.linspace(0.5, 3, len(labels))[:, None]  # the norms weight the centroids
    rows = [(systems == system).nonzero().squeeze(1) for system in systems.unique()]
    logits, targets = [], []
    for target, own in enumerate(rows):
        for row in own:
            centroids = [scaled[own[own != row] if group is own else group].mean(dim=0) for group in rows]
            cosines = nn.functional.cosine_similarity(scaled[row][None], torch.stack(centroids))
            logits.append(loss.log_scale.exp() * cosines.clamp(min=1e-6) + loss.bias)
            targets.append(target)
    assert len(rows) == 1 or any((row - loss.bias).min() < 1e-4 for row in logits)  # a cosine was clamped
    expected = nn.functional.cross_entropy(torch.stack(logits), torch.tensor(targets))
    value = loss(scaled, systems)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(value, embeddings, retain_graph=True), torch.autograd.grad(expected, embeddings),
        rtol=1e-7, atol=1e-9,
    )  # fmt: skip
    if len(rows) > 1:
        assert value.item() != pytest.approx(loss_of("ge2e")(scaled, systems).item(), rel=1e-3)


def test_ge2e_raises_for_unknown_variant() -> None:
    with pytest.raises(ParamsError, match=r"unknown variant 'wan'; it must be one of"):
        build("ge2e", num_systems=3, dim=4, **SETTINGS["ge2e"] | {"variant": "wan"})


@pytest.mark.parametrize("factor", [1e20, 1e25])
def test_npair_of_ordinary_rows_beside_huge_ones_has_their_gradients(factor: float) -> None:
    """The inner products of the ordinary rows are not lost when those of the huge rows must not overflow."""
    embeddings, systems = batch_of([0, 0, 0, 1, 1, 1, 2, 2])
    with torch.no_grad():
        embeddings[0] *= factor
        embeddings[1:, 0] = 0  # orthogonal to the huge row
        embeddings[0, 1:] = 0
    mixed = embeddings.detach().float().requires_grad_()
    exact = mixed.detach().double().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of("npair").float()(mixed, systems), mixed)
    (expected,) = torch.autograd.grad(NAIVE["npair"](loss_of("npair"), exact, systems), exact)
    assert expected[1:, 1:].abs().amax(1).min() > 1e-3
    torch.testing.assert_close(gradient[1:, 1:].double(), expected[1:, 1:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient[:, 0].double(), expected[:, 0], rtol=1e-4, atol=1e-4 * factor)


@pytest.mark.parametrize("factor", [1e15, 1e20, 1e30])
@pytest.mark.parametrize("name", LOSSES)
def test_loss_of_huge_float32_embeddings_has_the_gradient_of_the_formula(name: str, factor: float) -> None:
    """Squares and products of such embeddings overflow in float32. The value is at most the largest float32."""
    embeddings, systems = batch_of([0, 0, 0, 1, 1, 1, 2, 2, 2])
    huge = (factor * embeddings.detach()).float().requires_grad_()
    exact = huge.detach().double().requires_grad_()
    value = loss_of(name).float()(huge, systems)
    expected = NAIVE[name](loss_of(name), exact, systems)
    largest = torch.finfo(torch.float32).max * SETTINGS[name].get("npair_weight", 1)  # its term is limited
    assert value.item() == pytest.approx(min(expected.item(), largest), rel=1e-4)
    (gradient,) = torch.autograd.grad(value, huge)
    (expected_gradient,) = torch.autograd.grad(expected, exact)
    size = expected_gradient.abs().max().item()
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-3, atol=1e-3 * size)


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
        ("npair", "reg", -0.1),
        ("triplet", "margin", 0.0),
        ("proxyanchor", "margin", -0.1),
        ("proxyanchor", "scale", 0.0),
        ("subcenter-aamsoftmax", "margin", 1.6),
        ("subcenter-aamsoftmax", "scale", 0.0),
        ("subcenter-aamsoftmax", "sub_centres", 0),
    ],
)
def test_build_raises_for_setting_out_of_range(name: str, setting: str, value: float) -> None:
    with pytest.raises(ParamsError, match=rf"loss {name}: {setting} is "):
        build(name, num_systems=3, dim=4, **{**SETTINGS[name], setting: value})

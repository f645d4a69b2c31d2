"""Graph module of AASIST: node order, graph pooling, gradients, attention temperature."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from makermark.models.backbones.aasist_layers import (
    GraphAttention,
    GraphPool,
    HeterogeneousAttention,
    SpectroTemporalGraph,
)


def graph_of(**changed: float) -> SpectroTemporalGraph:
    torch.manual_seed(0)
    return SpectroTemporalGraph(spectral_nodes=5, channels=6, wide=8, narrow=3, **changed)


@given(times=st.integers(1, 9), seed=st.integers(0, 1000))
def test_graph_is_invariant_to_order_of_times(times: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    spectral, temporal = (torch.randn(2, n, 6, generator=generator) for n in (5, times))
    order = torch.randperm(times, generator=generator)
    graph = graph_of().eval()
    with torch.no_grad():
        torch.testing.assert_close(
            graph(spectral, temporal), graph(spectral, temporal[:, order]), rtol=1e-4, atol=1e-5
        )


def test_graph_depends_on_order_of_bands() -> None:
    graph = graph_of().eval()
    spectral, temporal = torch.randn(2, 5, 6), torch.randn(2, 7, 6)
    with torch.no_grad():
        assert not torch.allclose(graph(spectral, temporal), graph(spectral.flip(1), temporal), atol=1e-3)
        graph.pos_S.zero_()
        torch.testing.assert_close(
            graph(spectral, temporal), graph(spectral.flip(1), temporal), rtol=1e-4, atol=1e-5
        )


def test_graph_readout_has_five_parts() -> None:
    graph = graph_of()
    assert graph.out_width == 15
    assert graph(torch.randn(2, 5, 6), torch.randn(2, 4, 6)).shape == (2, 15)


@given(nodes=st.integers(1, 40), ratio=st.floats(0.01, 1))
def test_graph_pool_keeps_ratio_rounded_down_but_at_least_one(nodes: int, ratio: float) -> None:
    pooled = GraphPool(3, ratio=ratio).eval()(torch.randn(2, nodes, 3))
    assert pooled.shape == (2, max(1, int(ratio * nodes)), 3)


@pytest.mark.parametrize(
    ("setting", "kept_nodes"),
    [
        ("kept_bands", {"pool_S": 4}),
        ("kept_times", {"pool_T": 8}),
        ("kept_mixed", {"pool_hS1": 1, "pool_hT2": 4}),
    ],
)
def test_kept_settings_apply_to_their_poolings(setting: str, kept_nodes: dict[str, int]) -> None:
    """Input of 5 bands and 10 times; the other poolings keep half."""
    graph = graph_of(**{setting: 0.8}).eval()
    counts = {}
    for name, pool in graph.named_children():
        if name.startswith("pool_"):
            pool.register_forward_hook(
                lambda module, inputs, result, name=name: counts.update({name: result.shape[1]})
            )
    graph(torch.randn(1, 5, 6), torch.randn(1, 10, 6))
    halves = {"pool_S": 2, "pool_T": 5, "pool_hS1": 1, "pool_hS2": 1, "pool_hT1": 2, "pool_hT2": 2}
    if setting == "kept_bands":
        halves |= {"pool_hS1": 2, "pool_hS2": 2}
    if setting == "kept_times":
        halves |= {"pool_hT1": 4, "pool_hT2": 4}
    if setting == "kept_mixed":
        halves |= {"pool_hT1": 4, "pool_hT2": 4}
    assert counts == halves | kept_nodes


def test_every_weight_has_finite_gradient_for_equal_nodes() -> None:
    graph = graph_of().train()
    for spectral, temporal in [
        (torch.randn(3, 5, 6), torch.randn(3, 4, 6)),
        (torch.zeros(3, 5, 6), torch.zeros(3, 4, 6)),
    ]:
        graph.zero_grad()
        graph(spectral, temporal).square().sum().backward()
        for name, weight in graph.named_parameters():
            assert weight.grad is not None, name
            assert weight.grad.isfinite().all(), name


def test_attention_at_infinite_temperature_is_uniform() -> None:
    """Every node then attends to the mean of all nodes."""
    torch.manual_seed(0)
    nodes = torch.randn(2, 5, 4)
    layer = GraphAttention(4, 3, temperature=1e9).eval()
    attended = []
    layer.proj_with_att.register_forward_hook(lambda module, inputs, result: attended.append(inputs[0]))
    mixed = HeterogeneousAttention(4, 3, temperature=1e9).eval()
    mixed.proj_with_attM.register_forward_hook(lambda module, inputs, result: attended.append(inputs[0]))
    with torch.no_grad():
        layer(nodes)
        mixed(nodes[:, :2], nodes[:, 2:], torch.randn(2, 1, 4))
        kinds = torch.cat([mixed.proj_type1(nodes[:, :2]), mixed.proj_type2(nodes[:, 2:])], dim=1)
    torch.testing.assert_close(attended[0], nodes.mean(dim=1, keepdim=True).expand(2, 5, 4))
    torch.testing.assert_close(attended[1], kinds.mean(dim=1, keepdim=True))


def test_every_dropout_of_the_graph_has_its_share_in_training_only() -> None:
    """The reference implementation drops 0.2 of the nodes' values, and 0.3 before the scores of a pooling."""
    graph = graph_of()
    pairs: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, module in graph.named_modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(
                lambda _, inputs, result, name=name: pairs.update({name: (inputs[0], result)})
            )
    spectral, temporal = torch.randn(400, 5, 6), torch.randn(400, 7, 6)
    with torch.no_grad():
        graph.eval()(spectral, temporal)
        assert all(torch.equal(before, after) for before, after in pairs.values())
        graph.train()(spectral, temporal)
    assert len(pairs) == 13  # 6 attentions, 6 poolings and the end of the branches
    for name, (before, after) in pairs.items():
        rate = 0.3 if name.startswith("pool") else 0.2
        is_kept = after != 0
        torch.testing.assert_close(after[is_kept], before[is_kept] / (1 - rate))
        spread = (rate * (1 - rate) / before.numel()) ** 0.5
        assert 1 - is_kept.double().mean().item() == pytest.approx(rate, abs=5 * spread), name

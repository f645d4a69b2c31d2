"""The graph part of AASIST: nodes have no order, poolings keep their share, every weight has a gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from makermark.backbones.graph import GraphAttention, GraphPool, HeterogeneousAttention, SpectroTemporalGraph


def graph_of(**changed: float) -> SpectroTemporalGraph:
    torch.manual_seed(0)
    return SpectroTemporalGraph(spectral_nodes=5, channels=6, wide=8, narrow=3, **changed)


@given(times=st.integers(1, 9), seed=st.integers(0, 1000))
def test_the_order_of_times_does_not_matter(times: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    spectral, temporal = (torch.randn(2, n, 6, generator=generator) for n in (5, times))
    order = torch.randperm(times, generator=generator)
    graph = graph_of().eval()
    with torch.no_grad():
        torch.testing.assert_close(
            graph(spectral, temporal), graph(spectral, temporal[:, order]), rtol=1e-4, atol=1e-5
        )


def test_the_order_of_bands_matters() -> None:
    graph = graph_of().eval()
    spectral, temporal = torch.randn(2, 5, 6), torch.randn(2, 7, 6)
    with torch.no_grad():
        assert not torch.allclose(graph(spectral, temporal), graph(spectral.flip(1), temporal), atol=1e-3)
        graph.pos_S.zero_()
        torch.testing.assert_close(
            graph(spectral, temporal), graph(spectral.flip(1), temporal), rtol=1e-4, atol=1e-5
        )


def test_the_readout_has_five_parts() -> None:
    graph = graph_of()
    assert graph.out_width == 15
    assert graph(torch.randn(2, 5, 6), torch.randn(2, 4, 6)).shape == (2, 15)


@given(nodes=st.integers(1, 40), kept=st.floats(0.01, 1))
def test_pooling_keeps_its_share_rounded_down_and_always_one(nodes: int, kept: float) -> None:
    pooled = GraphPool(3, kept=kept).eval()(torch.randn(2, nodes, 3))
    assert pooled.shape == (2, max(1, int(kept * nodes)), 3)


@pytest.mark.parametrize(
    ("share", "kept_nodes"),
    [
        ("kept_bands", {"pool_S": 4}),
        ("kept_times", {"pool_T": 8}),
        ("kept_mixed", {"pool_hS1": 1, "pool_hT2": 4}),
    ],
)
def test_each_share_belongs_to_its_pooling(share: str, kept_nodes: dict[str, int]) -> None:
    """Of 5 bands and 10 times; the others keep the half."""
    graph = graph_of(**{share: 0.8}).eval()
    found = {}
    for name, pool in graph.named_children():
        if name.startswith("pool_"):
            pool.register_forward_hook(
                lambda module, given, result, name=name: found.update({name: result.shape[1]})
            )
    graph(torch.randn(1, 5, 6), torch.randn(1, 10, 6))
    halves = {"pool_S": 2, "pool_T": 5, "pool_hS1": 1, "pool_hS2": 1, "pool_hT1": 2, "pool_hT2": 2}
    if share == "kept_bands":
        halves |= {"pool_hS1": 2, "pool_hS2": 2}
    if share == "kept_times":
        halves |= {"pool_hT1": 4, "pool_hT2": 4}
    if share == "kept_mixed":
        halves |= {"pool_hT1": 4, "pool_hT2": 4}
    assert found == halves | kept_nodes


def test_every_weight_has_a_gradient_even_where_all_nodes_are_alike() -> None:
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


def test_a_higher_temperature_evens_the_attention() -> None:
    """At an infinite one, every node sees the mean of all."""
    torch.manual_seed(0)
    nodes = torch.randn(2, 5, 4)
    layer = GraphAttention(4, 3, temperature=1e9).eval()
    seen = []
    layer.proj_with_att.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    mixed = HeterogeneousAttention(4, 3, temperature=1e9).eval()
    mixed.proj_with_attM.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    with torch.no_grad():
        layer(nodes)
        mixed(nodes[:, :2], nodes[:, 2:], torch.randn(2, 1, 4))
        kinds = torch.cat([mixed.proj_type1(nodes[:, :2]), mixed.proj_type2(nodes[:, 2:])], dim=1)
    torch.testing.assert_close(seen[0], nodes.mean(dim=1, keepdim=True).expand(2, 5, 4))
    torch.testing.assert_close(seen[1], kinds.mean(dim=1, keepdim=True))

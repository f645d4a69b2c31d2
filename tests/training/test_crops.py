"""Crops cut on the device are bit-identical to crops cut on the host."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_caches import memory_cache

from makermark.training.crops import DeviceCrops, HostCrops, build_crops

CPU = torch.device("cpu")


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=2, max_size=12),
    frames=st.integers(1, 30),
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from([np.float16, np.int16]),
)
def test_device_crops_equal_host_crops(lengths, frames, seed, dtype):
    cache, rng = memory_cache(lengths, dtype=dtype), np.random.default_rng(seed)
    rows = rng.permutation(len(lengths))[: rng.integers(1, len(lengths) + 1)]
    batch = rng.integers(0, len(rows), size=7)
    sources = [HostCrops(cache, rows, frames=frames), DeviceCrops(cache, rows, frames=frames, device=CPU)]
    generators = [np.random.default_rng(seed) for _ in sources]
    host, device = (s.cut(s.draw(batch, g)) for s, g in zip(sources, generators, strict=True))
    assert host.shape == (7, frames, 3)
    assert host.dtype == device.dtype
    assert torch.equal(host, device)
    assert generators[0].integers(2**63) == generators[1].integers(2**63)  # both drew the same numbers


@pytest.mark.parametrize(
    ("features_on", "kind"), [("auto", HostCrops), ("host", HostCrops), ("device", DeviceCrops)]
)
def test_build_crops_keeps_features_on_the_host_of_a_cpu_unless_asked(features_on, kind):
    crops = build_crops(features_on, memory_cache([4, 5]), np.arange(2), frames=3, device=CPU)
    assert isinstance(crops, kind)


@pytest.mark.parametrize(("free", "kind"), [(4 * 9 * 3 * 2, DeviceCrops), (4 * 9 * 3 * 2 - 1, HostCrops)])
def test_build_crops_auto_uses_a_gpu_with_four_times_the_memory(monkeypatch, free, kind):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    monkeypatch.setattr("makermark.training.crops.DeviceCrops.__init__", lambda self, *_, **__: None)
    crops = build_crops("auto", memory_cache([4, 5]), np.arange(2), frames=3, device=torch.device("cuda"))
    assert isinstance(crops, kind)

"""Crops cut on the device are those cut on the host, bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_caches import cache_of

from makermark.training.crops import DeviceCrops, HostCrops, crops_from

CPU = torch.device("cpu")


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=2, max_size=12),
    frames=st.integers(1, 30),
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from([np.float16, np.int16]),
)
def test_the_device_cuts_the_crops_of_the_host(lengths, frames, seed, dtype):
    cache, pick = cache_of(lengths, dtype=dtype), np.random.default_rng(seed)
    rows = pick.permutation(len(lengths))[: pick.integers(1, len(lengths) + 1)]
    batch = pick.integers(0, len(rows), size=7)
    kinds = [HostCrops(cache, rows, frames=frames), DeviceCrops(cache, rows, frames=frames, device=CPU)]
    chance = [np.random.default_rng(seed) for _ in kinds]
    host, device = (kind.cut(kind.draw(batch, rng)) for kind, rng in zip(kinds, chance, strict=True))
    assert host.shape == (7, frames, 3)
    assert host.dtype == device.dtype
    assert torch.equal(host, device)
    assert chance[0].integers(2**63) == chance[1].integers(2**63)  # and both leave chance where it was


@pytest.mark.parametrize(
    ("wish", "kind"), [("auto", HostCrops), ("host", HostCrops), ("device", DeviceCrops)]
)
def test_features_stay_on_the_host_of_a_processor_unless_asked(wish, kind):
    assert isinstance(crops_from(wish, cache_of([4, 5]), np.arange(2), frames=3, device=CPU), kind)


@pytest.mark.parametrize(("free", "kind"), [(4 * 9 * 3 * 2, DeviceCrops), (4 * 9 * 3 * 2 - 1, HostCrops)])
def test_auto_keeps_them_on_a_gpu_that_has_four_times_the_room(monkeypatch, free, kind):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    monkeypatch.setattr("makermark.training.crops.DeviceCrops.__init__", lambda self, *_, **__: None)
    made = crops_from("auto", cache_of([4, 5]), np.arange(2), frames=3, device=torch.device("cuda"))
    assert isinstance(made, kind)

"""AASIST: its filters, its shortest input, its settings, chance, and weights to begin with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from makermark import backbones, experiment
from makermark.backbones import Backbone
from makermark.backbones.rawnet import ResidualBlock, band_passes
from makermark.errors import CheckpointError, ParamsError
from makermark.params import read_params
from naive_aasist import filters

SMALL = {
    "sinc_filters": 12, "sinc_length": 33, "narrow_filters": 3, "wide_filters": 5, "wide_nodes": 6, "narrow_nodes": 4,
    "kept_bands": 0.5, "kept_times": 0.7, "kept_mixed": 0.5, "initial": "",
}  # fmt: skip


def small_net(seed: int = 0, **changed: int | float | str) -> Backbone:
    torch.manual_seed(seed)
    return backbones.build("aasist", dim=4, width=1, **{**SMALL, **changed})


def test_the_filters_are_those_that_scipy_designs() -> None:
    ours = band_passes(70, 129, sample_rate_hz=16000)[:, 0].numpy()
    np.testing.assert_allclose(ours, np.array(filters()), atol=1e-7)


def test_a_tone_is_strongest_in_the_filter_of_its_band() -> None:
    edges_hz = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 21) / 2595) - 1)
    spectra = torch.fft.rfft(
        band_passes(20, 401, sample_rate_hz=16000)[:, 0], n=16000
    ).abs()  # one bin per Hz
    middles = ((edges_hz[:-1] + edges_hz[1:]) / 2).round().astype(int)
    assert spectra[:, middles].argmax(dim=0).tolist() == list(range(20))


def test_the_filters_are_computed_once_not_learned_and_not_saved() -> None:
    net = small_net().train()
    before, place = net.filters.clone(), net.filters.data_ptr()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    net(torch.randn(4, 5000, 1)).sum().backward()
    optimizer.step()
    assert (net.filters.data_ptr(), torch.equal(net.filters, before)) == (place, True)
    assert "filters" not in net.state_dict()


def test_samples_of_16_bits_are_fractions_of_full_scale() -> None:
    net = small_net().eval()
    samples = torch.randint(-20000, 20000, (2, 4000, 1), dtype=torch.int16)
    with torch.no_grad():
        assert torch.equal(net(samples), net(samples.float() / 32768))


@pytest.mark.parametrize("sinc_length", [1, 33, 129])
def test_the_shortest_waveform_leaves_one_time_and_each_2187_samples_more_another(sinc_length: int) -> None:
    """The filters take sinc_length - 1 samples, the pooling before the blocks and those of six blocks divide by 3^7."""
    net = small_net(sinc_length=sinc_length).eval()
    assert net.min_frames == sinc_length - 1 + 3**7
    times = []
    net.blocks.register_forward_hook(lambda module, given, result: times.append(result.shape[3]))
    with torch.no_grad():
        for samples in (0, 2186, 2187, 10 * 2187):
            net(torch.randn(1, net.min_frames + samples, 1))
    assert times == [1, 1, 2, 11]


def test_the_papers_input_of_64600_samples_has_23_bands_and_29_times() -> None:
    net = small_net(sinc_filters=70, sinc_length=129).eval()
    shapes = []
    net.blocks.register_forward_hook(lambda module, given, result: shapes.append(result.shape))
    with torch.no_grad():
        net(torch.randn(1, 64600, 1))
    assert shapes == [(1, 5, 23, 29)]


def test_a_residual_block_is_its_shortcut_where_its_convolutions_give_nothing() -> None:
    block = ResidualBlock(3, 3, normalised=True, pooled=1)
    torch.nn.init.zeros_(block.conv2.weight)
    torch.nn.init.zeros_(block.conv2.bias)
    images = torch.randn(2, 3, 4, 7)
    assert torch.equal(block(images), images)
    pooled = ResidualBlock(3, 3, normalised=True, pooled=3)
    pooled.load_state_dict(block.state_dict())
    assert torch.equal(pooled(images), images[..., :6].unflatten(3, (2, 3)).amax(dim=4))


def test_torchs_generator_decides_what_dropout_drops() -> None:
    net = small_net().train()
    waveforms = torch.randn(3, 9000, 1)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(net(waveforms))
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


def test_bfloat16_does_not_reach_the_waveform() -> None:
    """A tone 60 dB below another one is lost in 8 bits; the filters compute in float32 under autocast as well."""
    net = small_net().eval()
    seen = []
    net.image_norm.register_forward_hook(
        lambda module, given, result: seen.append((given[0].dtype, given[0].clone()))
    )
    waveforms = torch.randn(2, 6000, 1)
    with torch.no_grad():
        net(waveforms)
        with torch.autocast("cpu", torch.bfloat16):
            assert net(waveforms).dtype == torch.float32
    assert seen[1][0] == torch.float32
    assert torch.equal(seen[0][1], seen[1][1])


@pytest.mark.parametrize(
    ("setting", "value", "wanted"),
    [
        ("sinc_filters", 2, "3 or more"),
        ("sinc_length", 128, "odd"),
        ("narrow_filters", 0, "1 or more"),
        ("wide_nodes", 0, "1 or more"),
        ("kept_times", 0.0, "above 0 and at most 1"),
        ("kept_mixed", 1.5, "above 0 and at most 1"),
    ],
)
def test_settings_that_make_no_network_are_refused(setting: str, value: float, wanted: str) -> None:
    with pytest.raises(ParamsError, match=f"backbone aasist: {setting} is {value}; it is {wanted}"):
        small_net(**{setting: value})


def test_training_begins_with_the_weights_that_initial_names(tmp_path: Path) -> None:
    other = small_net(seed=1)
    shared = {name: w for name, w in other.state_dict().items() if not name.startswith("embedding.")}
    save_file(shared, tmp_path / "weights.safetensors")
    params = read_params(Path(__file__).parents[2] / "params.yaml")
    settings = {**SMALL, "initial": str(tmp_path / "weights.safetensors")}
    params = dataclasses.replace(params, backbone="aasist", backbones={"aasist": settings})
    net = experiment.build_backbone(params, width=1, encoder=None)
    for name, weight in net.state_dict().items():
        if name.startswith("embedding."):
            torch.manual_seed(params.seed)
            assert torch.equal(
                weight, backbones.build("aasist", dim=params.dim, width=1, **SMALL).state_dict()[name]
            )
        else:
            assert torch.equal(weight, shared[name])
    with torch.device("meta"):  # as the check stage does: names and sizes only
        experiment.build_backbone(params, width=1, encoder=None)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: cannot be read as weights"):
        experiment.build_backbone(params, width=1, encoder=None)


def test_a_checkpoint_loads_without_the_file_it_began_with() -> None:
    """Only training calls `begin`: a model travels without the file."""
    small_net(initial="no such file")


def test_weights_to_begin_with_that_do_not_fit_are_refused_and_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    fitting = {n: w for n, w in small_net(seed=1).state_dict().items() if not n.startswith("embedding.")}
    cases = {
        r"graph.pos_S is \[1, 8, 5\] in the file, \[1, 4, 5\] in the network \(1 such\)": {
            **fitting, "graph.pos_S": torch.zeros(1, 8, 5),
        },
        "graph.master1 is not in the file": {n: w for n, w in fitting.items() if n != "graph.master1"},
        r"more is \[1\] in the file, not in the network": {**fitting, "more": torch.zeros(1)},
    }  # fmt: skip
    for message, weights in cases.items():
        save_file(weights, path)
        net = small_net(initial=str(path))
        before = {name: weight.clone() for name, weight in net.state_dict().items()}
        with pytest.raises(CheckpointError, match=message):
            net.begin()
        assert all(torch.equal(weight, before[name]) for name, weight in net.state_dict().items())
    path.write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match="cannot be read as weights") as refused:
        small_net(initial=str(path)).begin()
    assert "\n" not in str(refused.value)
    save_file(fitting, path)
    net = small_net(initial=str(path))
    net.begin()
    assert torch.equal(net.state_dict()["graph.pos_S"], load_file(path)["graph.pos_S"])

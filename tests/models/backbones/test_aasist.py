"""AASIST: filters, shortest input, settings, random numbers, and pretrained weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from makermark.foundation.errors import CheckpointError, ParamsError
from makermark.foundation.params import read_params
from makermark.models import backbones
from makermark.models.backbones import Backbone
from makermark.models.backbones.aasist import build_sinc_filters
from makermark.models.backbones.aasist_layers import ResidualBlock
from makermark.training import components
from naive_aasist import filters

SMALL = {
    "sinc_filters": 12, "sinc_length": 33, "narrow_filters": 3, "wide_filters": 5, "wide_nodes": 6, "narrow_nodes": 4,
    "kept_bands": 0.5, "kept_times": 0.7, "kept_mixed": 0.5, "initial": "",
}  # fmt: skip


def small_net(seed: int = 0, **changed: int | float | str) -> Backbone:
    torch.manual_seed(seed)
    return backbones.build("aasist", dim=4, width=1, **{**SMALL, **changed})


def test_sinc_filters_equal_scipy_design() -> None:
    ours = build_sinc_filters(70, 129, sample_rate_hz=16000)[:, 0].numpy()
    np.testing.assert_allclose(ours, np.array(filters()), atol=1e-7)


def test_sinc_filter_responds_most_to_tone_in_its_band() -> None:
    edges_hz = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 21) / 2595) - 1)
    spectra = torch.fft.rfft(
        build_sinc_filters(20, 401, sample_rate_hz=16000)[:, 0], n=16000
    ).abs()  # one bin per Hz
    middles = ((edges_hz[:-1] + edges_hz[1:]) / 2).round().astype(int)
    assert spectra[:, middles].argmax(dim=0).tolist() == list(range(20))


def test_sinc_filters_are_constant_and_not_saved() -> None:
    net = small_net().train()
    before, address = net.filters.clone(), net.filters.data_ptr()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    net(torch.randn(4, 5000, 1)).sum().backward()
    optimizer.step()
    assert (net.filters.data_ptr(), torch.equal(net.filters, before)) == (address, True)
    assert "filters" not in net.state_dict()


def test_int16_waveform_is_scaled_to_full_scale() -> None:
    net = small_net().eval()
    samples = torch.randint(-20000, 20000, (2, 4000, 1), dtype=torch.int16)
    with torch.no_grad():
        assert torch.equal(net(samples), net(samples.float() / 32768))


@pytest.mark.parametrize("sinc_length", [1, 33, 129])
def test_shortest_waveform_has_one_time_and_2187_samples_add_one(sinc_length: int) -> None:
    """The filters shorten by sinc_length - 1 samples; seven poolings divide the rest by 3^7."""
    net = small_net(sinc_length=sinc_length).eval()
    assert net.min_frames == sinc_length - 1 + 3**7
    times = []
    net.blocks.register_forward_hook(lambda module, inputs, result: times.append(result.shape[3]))
    with torch.no_grad():
        for samples in (0, 2186, 2187, 10 * 2187):
            net(torch.randn(1, net.min_frames + samples, 1))
    assert times == [1, 1, 2, 11]


def test_published_input_of_64600_samples_has_23_bands_and_29_times() -> None:
    net = small_net(sinc_filters=70, sinc_length=129).eval()
    shapes = []
    net.blocks.register_forward_hook(lambda module, inputs, result: shapes.append(result.shape))
    with torch.no_grad():
        net(torch.randn(1, 64600, 1))
    assert shapes == [(1, 5, 23, 29)]


def test_residual_block_with_zero_convolution_is_its_shortcut() -> None:
    block = ResidualBlock(3, 3, normalised=True, pooled=1)
    torch.nn.init.zeros_(block.conv2.weight)
    torch.nn.init.zeros_(block.conv2.bias)
    images = torch.randn(2, 3, 4, 7)
    assert torch.equal(block(images), images)
    pooled = ResidualBlock(3, 3, normalised=True, pooled=3)
    pooled.load_state_dict(block.state_dict())
    assert torch.equal(pooled(images), images[..., :6].unflatten(3, (2, 3)).amax(dim=4))


def test_dropout_depends_on_torch_seed_only() -> None:
    net = small_net().train()
    waveforms = torch.randn(3, 9000, 1)
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(net(waveforms))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])


def test_half_of_the_readout_is_dropped_in_training_only() -> None:
    """The reference implementation drops with a probability of 0.5 before its last layer, and scales the rest by 2."""
    net = small_net()
    pairs = []
    net.drop.register_forward_hook(lambda module, inputs, result: pairs.append((inputs[0], result)))
    waveforms = torch.randn(200, net.min_frames, 1)
    with torch.no_grad():
        net.eval()(waveforms)
        net.train()(waveforms)
    (before, after), (readout, dropped) = pairs
    assert torch.equal(before, after)
    is_kept = dropped != 0
    torch.testing.assert_close(dropped[is_kept], 2 * readout[is_kept])
    share = is_kept.double().mean().item() / (readout != 0).double().mean().item()
    assert share == pytest.approx(0.5, abs=4 * 0.5 / (readout != 0).sum().item() ** 0.5)
    inputs = []
    net.embedding.register_forward_hook(lambda module, given, result: inputs.append(given[0]))
    net(waveforms[:20])
    assert torch.equal(inputs[0], pairs[-1][1])


def test_waveform_is_filtered_in_float32_under_autocast() -> None:
    """bfloat16 has 8 significant bits, which would lose a tone 60 dB below another one."""
    net = small_net().eval()
    seen = []
    net.image_norm.register_forward_hook(
        lambda module, inputs, result: seen.append((inputs[0].dtype, inputs[0].clone()))
    )
    waveforms = torch.randn(2, 6000, 1)
    with torch.no_grad():
        net(waveforms)
        with torch.autocast("cpu", torch.bfloat16):
            assert net(waveforms).dtype == torch.float32
    assert seen[1][0] == torch.float32
    assert torch.equal(seen[0][1], seen[1][1])


@pytest.mark.parametrize(
    ("setting", "value", "valid"),
    [
        ("sinc_filters", 2, "3 or more"),
        ("sinc_length", 128, "odd"),
        ("narrow_filters", 0, "1 or more"),
        ("wide_nodes", 0, "1 or more"),
        ("kept_times", 0.0, "above 0 and at most 1"),
        ("kept_mixed", 1.5, "above 0 and at most 1"),
    ],
)
def test_aasist_raises_for_setting_out_of_range(setting: str, value: float, valid: str) -> None:
    with pytest.raises(ParamsError, match=f"backbone aasist: {setting} is {value}; it must be {valid}"):
        small_net(**{setting: value})


def test_training_starts_from_weights_of_setting_initial(tmp_path: Path) -> None:
    other = small_net(seed=1)
    shared = {name: w for name, w in other.state_dict().items() if not name.startswith("embedding.")}
    save_file(shared, tmp_path / "weights.safetensors")
    params = read_params(Path(__file__).parents[3] / "params.yaml")
    settings = {**SMALL, "initial": str(tmp_path / "weights.safetensors")}
    params = params.replace(backbone="aasist", backbones={"aasist": settings})
    net = components.build_backbone(params, width=1, encoder=None)
    for name, weight in net.state_dict().items():
        if name.startswith("embedding."):
            torch.manual_seed(params.seed)
            assert torch.equal(
                weight, backbones.build("aasist", dim=params.dim, width=1, **SMALL).state_dict()[name]
            )
        else:
            assert torch.equal(weight, shared[name])
    with torch.device("meta"):  # as in the check stage: names and shapes only
        components.build_backbone(params, width=1, encoder=None)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: cannot be read as weights"):
        components.build_backbone(params, width=1, encoder=None)


def test_building_backbone_does_not_read_setting_initial() -> None:
    """Only training calls `load_pretrained`: a checkpoint loads without the file."""
    small_net(initial="no such file")


def test_load_pretrained_raises_for_other_weights_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    fitting = {n: w for n, w in small_net(seed=1).state_dict().items() if not n.startswith("embedding.")}
    cases = {
        r"graph.pos_S is \[1, 8, 5\] in the file, \[1, 4, 5\] in the network \(mismatches: 1\)": {
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
            net.load_pretrained()
        assert all(torch.equal(weight, before[name]) for name, weight in net.state_dict().items())
    path.write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match="cannot be read as weights") as refused:
        small_net(initial=str(path)).load_pretrained()
    assert "\n" not in str(refused.value)
    save_file(fitting, path)
    net = small_net(initial=str(path))
    net.load_pretrained()
    assert torch.equal(net.state_dict()["graph.pos_S"], load_file(path)["graph.pos_S"])

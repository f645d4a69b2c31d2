"""Published weights of AASIST: converted they compute what the published network computes; others are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from makermark import backbones
from makermark.backbones import Backbone
from makermark.cli import app
from makermark.converting import CONFIGURATIONS, convert_aasist
from makermark.errors import CheckpointError, FilesError
from makermark.params import read_params
from naive_aasist import published_shapes, readout

WIDE = {"AASIST": 64, "AASIST-L": 24}
PUBLISHED_COUNT = {"AASIST": 297_866, "AASIST-L": 85_306}
every_configuration = pytest.mark.parametrize("name", WIDE)


def published(name: str) -> dict[str, Tensor]:
    """Random weights under the names and in the shapes of the published file."""
    torch.manual_seed(0)
    weights = {}
    for weight, shape in published_shapes(WIDE[name]).items():
        scale = 1 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 and shape[0] > 1 else 0.3
        weights[weight] = scale * torch.randn(shape)
        if weight.endswith("running_var"):
            weights[weight] = 0.5 + torch.rand(shape)
        if weight.endswith("num_batches_tracked"):
            weights[weight] = torch.tensor(7)
    return weights


def begun(settings: dict[str, int | float], path: Path) -> Backbone:
    net = backbones.build("aasist", dim=5, width=1, **settings, initial=str(path))
    net.begin()
    return net.eval()


@every_configuration
def test_converted_weights_give_the_readout_of_the_published_network(name: str, tmp_path: Path) -> None:
    weights = published(name)
    torch.save(weights, tmp_path / "published.pth")
    settings = convert_aasist(tmp_path / "published.pth", tmp_path / "out.safetensors")
    net = begun(settings, tmp_path / "out.safetensors")
    found = []
    net.embedding.register_forward_pre_hook(lambda module, given: found.append(given[0]))
    waveform = torch.randint(-9000, 9000, (1, 12_000, 1), dtype=torch.int16)
    with torch.no_grad():
        net(waveform)
    kept = {kind: float(settings[f"kept_{kind}"]) for kind in ("bands", "times", "mixed")}
    exact = {weight: tensor.double().numpy() for weight, tensor in weights.items()}
    expected = readout(exact, waveform[0, :, 0].numpy() / 32768, kept=kept)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found[0][0].numpy(), expected, atol=1e-4)


@every_configuration
def test_which_weights_count_and_which_are_left_out(name: str, tmp_path: Path) -> None:
    """The paper's count holds the classifier of two classes, and normalisations that the network never uses.

    Neither is among ours; the layer to `dim` numbers comes in their place. Running statistics count nowhere.
    """
    shapes = published_shapes(WIDE[name])
    learned = {n: int(np.prod(s)) for n, s in shapes.items() if not n.endswith(("mean", "var", "tracked"))}
    assert sum(learned.values()) == PUBLISHED_COUNT[name]
    head = sum(count for weight, count in learned.items() if weight.startswith("out_layer."))
    unused = sum(count for weight, count in learned.items() if ".bn1." in weight)
    assert (head, unused) == (160 * 2 + 2, 2 * (32 + 32 + 3 * WIDE[name]))
    net = backbones.build("aasist", dim=50, width=1, **CONFIGURATIONS[name], initial="")
    ours = sum(weight.numel() for weight in net.parameters())
    assert ours == PUBLISHED_COUNT[name] - head - unused + 160 * 50 + 50


def test_params_yaml_has_the_configuration_of_the_paper() -> None:
    params = read_params(Path(__file__).parents[1] / "params.yaml")
    assert params.settings("backbones", "aasist") == CONFIGURATIONS["AASIST"] | {"initial": ""}


@every_configuration
def test_the_command_writes_weights_and_settings_and_says_how_to_use_them(name: str, tmp_path: Path) -> None:
    torch.save(published(name), tmp_path / "published.pth")
    out = tmp_path / "made" / "weights.safetensors"
    result = CliRunner().invoke(app, ["convert", "aasist", str(tmp_path / "published.pth"), str(out)])
    assert result.exit_code == 0
    told = json.loads(out.with_suffix(".json").read_text())
    assert told == {"backbone": "aasist", "configuration": name, "settings": CONFIGURATIONS[name]}
    said = dict(
        choice.removeprefix("backbones.aasist.").split("=")
        for choice in result.stdout.split()
        if "aasist." in choice
    )
    assert said == {k: str(v) for k, v in CONFIGURATIONS[name].items()} | {"initial": str(out)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: w | {"first_bn.weight": torch.zeros(2)},
            r"image_norm.weight is \[2\], unlike that of AASIST ",
        ),
        (lambda w: {n: t for n, t in w.items() if n != "pos_S"}, "graph.pos_S is absent"),
        (lambda w: w | {"module.pos_S": w["pos_S"]}, "'module.pos_S' is no weight of AASIST"),
        (lambda w: w | {"master1": w["master1"] / 0}, "'master1' is not finite"),
        (lambda w: [*w.values()], "something other than tensors by name"),
        (lambda w: {"model": w}, "something other than tensors by name"),
        (lambda w: w | {"path": Path("weights")}, r"no file of weights alone .*UnpicklingError"),
    ],
    ids=["other size", "missing", "unknown", "not finite", "a list", "nested", "code"],
)
def test_what_is_no_published_file_is_refused_in_one_line(change, message: str, tmp_path: Path) -> None:
    source = tmp_path / "given.pth"
    torch.save(change(published("AASIST")), source)
    with pytest.raises(CheckpointError, match=message) as refused:
        convert_aasist(source, tmp_path / "out.safetensors")
    assert str(refused.value).startswith(f"{source}: ")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 cut short", b"\x80\x02."])
def test_a_damaged_file_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "given.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="no file of weights alone") as refused:
        convert_aasist(tmp_path / "given.pth", tmp_path / "out.safetensors")
    assert "\n" not in str(refused.value)


def test_an_absent_file_and_an_unwritable_place_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.pth: No such file"):
        convert_aasist(tmp_path / "absent.pth", tmp_path / "out.safetensors")
    torch.save(published("AASIST-L"), tmp_path / "published.pth")
    with pytest.raises(FilesError, match="a file stands where a folder is needed"):
        convert_aasist(tmp_path / "published.pth", tmp_path / "published.pth" / "out.safetensors")

"""Conversion of published AASIST weights: equal output of the network, and errors for other files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from makermark.cli.main import app
from makermark.foundation.errors import CheckpointError, FilesError
from makermark.foundation.params import read_params
from makermark.models import backbones
from makermark.models.backbones import Backbone
from makermark.models.weight_conversion.aasist import CONFIGURATIONS, convert_aasist
from naive_aasist import published_shapes, readout

WIDE = {"AASIST": 64, "AASIST-L": 24}
PUBLISHED_COUNT = {"AASIST": 297_866, "AASIST-L": 85_306}
every_configuration = pytest.mark.parametrize("name", WIDE)


def published(name: str) -> dict[str, Tensor]:
    """Return random weights with the names and shapes of the published file."""
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


def load_backbone(settings: dict[str, int | float], path: Path) -> Backbone:
    net = backbones.build("aasist", dim=5, width=1, **settings, initial=str(path))
    net.load_pretrained()
    return net.eval()


@every_configuration
def test_converted_weights_give_readout_of_published_network(name: str, tmp_path: Path) -> None:
    weights = published(name)
    torch.save(weights, tmp_path / "published.pth")
    settings = convert_aasist(tmp_path / "published.pth", tmp_path / "out.safetensors")
    net = load_backbone(settings, tmp_path / "out.safetensors")
    readouts = []
    net.embedding.register_forward_pre_hook(lambda module, inputs: readouts.append(inputs[0]))
    waveform = torch.randint(-9000, 9000, (1, 12_000, 1), dtype=torch.int16)
    with torch.no_grad():
        net(waveform)
    ratios = {kind: float(settings[f"kept_{kind}"]) for kind in ("bands", "times", "mixed")}
    exact = {weight: tensor.double().numpy() for weight, tensor in weights.items()}
    expected = readout(exact, waveform[0, :, 0].numpy() / 32768, ratios=ratios)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(readouts[0][0].numpy(), expected, atol=1e-4)


@every_configuration
def test_parameter_count_equals_published_count_without_dropped_weights(name: str, tmp_path: Path) -> None:
    """The published count includes the classifier of two classes, and normalisations that the network never uses.

    The backbone has neither, but a layer to `dim`. Running statistics do not count.
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


def test_params_yaml_has_published_configuration() -> None:
    params = read_params(Path(__file__).parents[3] / "params.yaml")
    assert params.settings("backbones", "aasist") == CONFIGURATIONS["AASIST"] | {"initial": ""}


@every_configuration
def test_convert_command_writes_weights_and_prints_settings(name: str, tmp_path: Path) -> None:
    torch.save(published(name), tmp_path / "published.pth")
    out = tmp_path / "converted" / "weights.safetensors"
    result = CliRunner().invoke(app, ["convert", "aasist", str(tmp_path / "published.pth"), str(out)])
    assert result.exit_code == 0
    metadata = json.loads(out.with_suffix(".json").read_text())
    assert metadata == {"backbone": "aasist", "configuration": name, "settings": CONFIGURATIONS[name]}
    printed = dict(
        choice.removeprefix("backbones.aasist.").split("=")
        for choice in result.stdout.split()
        if "aasist." in choice
    )
    assert printed == {k: str(v) for k, v in CONFIGURATIONS[name].items()} | {"initial": str(out)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: w | {"first_bn.weight": torch.zeros(2)},
            r"image_norm\.weight has the shape \[2\], unlike in AASIST ",
        ),
        (lambda w: {n: t for n, t in w.items() if n != "pos_S"}, "graph.pos_S is absent"),
        (lambda w: w | {"module.pos_S": w["pos_S"]}, "'module.pos_S' is not a weight of AASIST"),
        (lambda w: w | {"master1": w["master1"] / 0}, "'master1' is not finite"),
        (lambda w: [*w.values()], "not a dictionary of tensors"),
        (lambda w: {"model": w}, "not a dictionary of tensors"),
        (lambda w: w | {"path": Path("weights")}, r"not a torch.save file of weights only .*UnpicklingError"),
    ],
    ids=["other size", "missing", "unknown", "not finite", "a list", "nested", "code"],
)
def test_convert_aasist_raises_for_other_content(change, message: str, tmp_path: Path) -> None:
    source = tmp_path / "source.pth"
    torch.save(change(published("AASIST")), source)
    with pytest.raises(CheckpointError, match=message) as refused:
        convert_aasist(source, tmp_path / "out.safetensors")
    assert str(refused.value).startswith(f"{source}: ")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 cut short", b"\x80\x02."])
def test_convert_aasist_raises_for_damaged_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "source.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"not a torch\.save file of weights only") as refused:
        convert_aasist(tmp_path / "source.pth", tmp_path / "out.safetensors")
    assert "\n" not in str(refused.value)


def test_convert_aasist_raises_for_missing_file_and_unwritable_output(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.pth: No such file"):
        convert_aasist(tmp_path / "absent.pth", tmp_path / "out.safetensors")
    torch.save(published("AASIST-L"), tmp_path / "published.pth")
    with pytest.raises(FilesError, match="a file is where a folder is needed"):
        convert_aasist(tmp_path / "published.pth", tmp_path / "published.pth" / "out.safetensors")

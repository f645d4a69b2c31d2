"""Presets: complete params.yaml files, and the lines that they replace."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from makermark.experiments import presets
from makermark.experiments.presets import PRESETS, preset, read_changes, replace_lines
from makermark.foundation.errors import ParamsError
from makermark.foundation.params import read_params

REPOSITORY = Path(__file__).parents[2]
PAPER = {
    "mlaad-resnet": {"epochs": 300, "evaluate_every_epochs": 25, "batch_utterances": 128},
    "mlaad-ssl": {"epochs": 100, "evaluate_every_epochs": 10, "batch_utterances": 32},
}


def merge(base, changes):
    """Return `base` with the leaves of `changes`."""
    return base | {
        key: merge(base[key], value) if isinstance(value, dict) else value for key, value in changes.items()
    }


def test_local_preset_is_the_params_yaml_of_the_repository():
    show = ["git", "show", "HEAD:params.yaml"]
    committed = subprocess.run(show, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert preset("local") == committed
    link = Path(presets.__file__).with_name("params.yaml")
    assert link.samefile(REPOSITORY / "params.yaml")


def test_local_preset_outside_git_is_the_file(monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    assert preset("local") == (REPOSITORY / "params.yaml").read_text()


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_a_complete_params_yaml(tmp_path, name):
    (tmp_path / "params.yaml").write_text(preset(name))
    assert read_params(tmp_path / "params.yaml").corpus == ("mlaad-v5" if name in PAPER else "local")


def test_full_preset_selects_the_full_protocol(tmp_path):
    (tmp_path / "params.yaml").write_text(preset("local-full"))
    params = read_params(tmp_path / "params.yaml")
    assert (params.local.protocol, params.local.train_utterances) == ("full", 100)


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "local"])
def test_preset_changes_the_lines_of_its_file_and_nothing_else(name):
    expected = merge(yaml.safe_load(preset("local")), yaml.safe_load(read_changes(name)))
    assert yaml.safe_load(preset(name)) == expected


@pytest.mark.parametrize("name", PAPER)
def test_preset_has_the_papers_settings_and_marks_those_not_stated(tmp_path, name):
    (tmp_path / "params.yaml").write_text(preset(name))
    params = read_params(tmp_path / "params.yaml")
    assert (params.train.epochs, params.train.evaluate_every_epochs) == (
        PAPER[name]["epochs"],
        PAPER[name]["evaluate_every_epochs"],
    )
    assert (params.train.warmup_epochs, params.train.learning_rate) == (10.0, 1e-4)
    assert params.samplers["random"]["batch_utterances"] == PAPER[name]["batch_utterances"]
    assert params.samplers["balanced"]["batch_systems"] == 12
    assert params.external.dedupe is False  # the paper scores every row, duplicates too
    marked = [
        line.split(":")[0].strip()
        for line in preset(name).splitlines()
        if "ot stated" in line.partition("#")[2]
    ]
    assert {"aamsoftmax", "balanced", "batch_seconds"} <= set(marked)


def test_preset_keeps_the_comments_of_unchanged_lines():
    unchanged = "seed: 0                 # of training: initial weights, batches, crops"
    assert unchanged in preset("mlaad-resnet").splitlines()


def test_replace_lines_raises_for_a_key_that_params_yaml_lacks():
    with pytest.raises(ParamsError, match=r"sets train\.epoch, which"):
        replace_lines("train:\n  epochs: 3\n", "train:\n  epoch: 4\n")


def test_preset_raises_for_an_unknown_name_with_choices_and_remedy():
    with pytest.raises(ParamsError, match=r"'mlaad'.*mlaad-ssl.*git restore params\.yaml"):
        preset("mlaad")


def test_preset_command_can_overwrite_params_yaml(tmp_path):
    (tmp_path / "params.yaml").write_text("loss: ge2e\n")
    command = (
        f'"{sys.executable}" -c "from makermark.cli.main import main; main()" preset mlaad-ssl > params.yaml'
    )
    subprocess.run(command, cwd=tmp_path, shell=True, check=True)
    assert (tmp_path / "params.yaml").read_text() == preset("mlaad-ssl")

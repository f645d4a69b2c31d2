"""Presets: whole params.yaml files that are read, and what they change, by another reckoning."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from makermark.errors import ParamsError
from makermark.params import read_params
from makermark.presets import PRESETS, overlaid, preset, text_of

REPOSITORY = Path(__file__).parents[1]
PAPER = {
    "mlaad-resnet": {"epochs": 300, "evaluate_every_epochs": 25, "batch_utterances": 128},
    "mlaad-ssl": {"epochs": 100, "evaluate_every_epochs": 10, "batch_utterances": 32},
}


def merged(base, changes):
    """`base` with the leaves of `changes`: plain dictionaries, no text."""
    return base | {
        key: merged(base[key], value) if isinstance(value, dict) else value for key, value in changes.items()
    }


def test_the_local_preset_is_the_params_yaml_of_the_repository():
    ours = (REPOSITORY / "params.yaml").read_text()
    assert preset("local") == ours, "copy params.yaml to src/makermark/presets/local.yaml"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_whole_and_is_read(tmp_path, name):
    (tmp_path / "params.yaml").write_text(preset(name))
    assert read_params(tmp_path / "params.yaml").corpus == ("local" if name == "local" else "mlaad-v5")


@pytest.mark.parametrize("name", PAPER)
def test_what_it_changes_is_what_its_file_says_and_nothing_else(name):
    expected = merged(yaml.safe_load(text_of("local")), yaml.safe_load(text_of(name)))
    assert yaml.safe_load(preset(name)) == expected


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_settings_stand_in_it_and_what_it_does_not_state_is_marked(tmp_path, name):
    (tmp_path / "params.yaml").write_text(preset(name))
    params = read_params(tmp_path / "params.yaml")
    assert (params.train.epochs, params.train.evaluate_every_epochs) == (
        PAPER[name]["epochs"],
        PAPER[name]["evaluate_every_epochs"],
    )
    assert (params.train.warmup_epochs, params.train.learning_rate) == (10.0, 1e-4)
    assert params.samplers["random"]["batch_utterances"] == PAPER[name]["batch_utterances"]
    assert params.samplers["balanced"]["batch_systems"] == 12
    assert params.external.dedupe is False  # its trials are of every row, repeated ones too
    marked = [
        line.split(":")[0].strip()
        for line in preset(name).splitlines()
        if "ot stated" in line.partition("#")[2]
    ]
    assert {"aamsoftmax", "balanced", "batch_seconds"} <= set(marked)


def test_comments_of_what_a_preset_leaves_alone_stay():
    kept = "seed: 0                 # of training: initial weights, batches, crops"
    assert kept in preset("mlaad-resnet").splitlines()


def test_a_key_that_params_yaml_has_not_is_refused():
    with pytest.raises(ParamsError, match=r"sets train\.epoch, which"):
        overlaid("train:\n  epochs: 3\n", "train:\n  epoch: 4\n")


def test_an_unknown_name_is_told_with_the_choices_and_how_to_get_the_file_back():
    with pytest.raises(ParamsError, match=r"'mlaad'.*mlaad-ssl.*git restore params\.yaml"):
        preset("mlaad")


def test_a_shell_that_empties_params_yaml_first_gets_it_whole(tmp_path):
    (tmp_path / "params.yaml").write_text("loss: ge2e\n")
    command = f'"{sys.executable}" -c "from makermark.cli import main; main()" preset mlaad-ssl > params.yaml'
    subprocess.run(command, cwd=tmp_path, shell=True, check=True)
    assert (tmp_path / "params.yaml").read_text() == preset("mlaad-ssl")

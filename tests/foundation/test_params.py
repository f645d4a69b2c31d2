"""params.yaml: what is read, and what is refused in one line that names the key."""

import re
from pathlib import Path

import pytest
import yaml

from makermark.foundation.errors import FilesError, ParamsError
from makermark.foundation.params import read_params

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def content():
    return yaml.safe_load((REPOSITORY / "params.yaml").read_text())


def read(content, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    return read_params(path)


def test_the_projects_own_params_are_read_and_name_the_experiment(content, tmp_path):
    params = read(content | {"loss": "softmax", "sampler": "random", "dim": 10, "seed": 3}, tmp_path)
    assert params.experiment == "spectral-statistics-softmax-random-10-s3"
    content["train"] |= {"epochs": 1, "warmup_epochs": 0.5}
    assert read(content, tmp_path).experiment == "spectral-statistics-ge2e-balanced-50-s0-e1"
    assert params.train.learning_rate == content["train"]["learning_rate"]


def test_a_misspelt_key_is_named_with_the_keys_that_exist(content, tmp_path):
    content["train"]["epoch"] = content["train"].pop("epochs")
    with pytest.raises(
        ParamsError,
        match=r"train: unknown settings \['epoch'\], missing settings \['epochs'\].*evaluate_every_epochs",
    ):
        read(content, tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("dim", 0, "dim is 0; it is at least 1"),
        ("dim", "50", "dim is '50'; it takes a whole number"),
        ("dim", True, "dim is True; it takes a whole number"),
        ("seed", -1, "seed is -1"),
        ("loss", None, "loss is None; it takes a word"),
        ("augment", True, "augment is True; it takes a word"),
        ("features.augmented_copies", 0, "features.augmented_copies is 0; it is at least 1"),
        ("robustness.utterances_per_system", 1, "robustness.utterances_per_system is 1; it is at least 2"),
        ("foreign.label", [], "foreign.label is []; it is not empty"),
        ("foreign.min_utterances", 0, "foreign.min_utterances is 0; it is at least 1"),
        ("robustness.conditions", "mulaw", "robustness.conditions is 'mulaw'; it takes a list"),
        ("train.epochs", 0, "train.epochs is 0"),
        ("train.epochs", 2.5, "train.epochs is 2.5; it takes a whole number"),
        ("train.learning_rate", "1e-4", "write 1.0e-4"),
        ("train.learning_rate", float("nan"), "a finite number"),
        ("train.learning_rate", 0, "it is above 0"),
        ("train.warmup_epochs", 10_000, "above train.epochs"),
        ("train.precision", "float16", "one of"),
        ("train", [1], "it takes keys and values"),
        ("features.front_ends", "fbank", "it takes a list"),
        ("features.max_bad_fraction", 1.5, "between 0 and 1"),
        ("score.p_target", 0, "between 0 and 1"),
        ("external.label", "maker", "external.label is 'maker'; it is one of"),
        ("external.strata_from", "dev", "external.strata_from is 'dev'"),
        ("external.max_bad_fraction", 2, "between 0 and 1"),
        ("external.workers", 0, "external.workers is 0"),
        ("mlaad.protocol_url", "deepfake-total.com/p.zip", "'deepfake-total.com/p.zip'; it begins"),
        ("mlaad.protocol_url", "https://deepfake-total.com/a b.zip", "it begins with https:// (or http://)"),
        ("mlaad.zip_url", "ftp://host/{name}", "mlaad.zip_url is 'ftp://host/{name}'; it begins with https://"),
        ("manifest.columns", ["path"], "it takes keys and values"),
        ("manifest.columns", {"path": 1}, "manifest.columns.path is 1; it takes a word"),
        ("split.everything_in", "eval", "split.everything_in is 'eval'"),
        ("split.dev_unseen_systems", -1, "split.dev_unseen_systems is -1"),
        ("split.test_fraction", 0.8, "leave nothing for train"),
        ("split.disjoint", ["speaker"], "split.disjoint is ['speaker']; 'speaker' is unknown; it takes voice and text"),
        ("bonafide.test_fraction", 0, "bonafide.test_fraction is 0"),
        ("bonafide.dev_fraction", 0.9, "leave no speaker to train on; their sum is below 1"),
        ("losses.ge2e.scale", [1], "it takes a word or a whole number or a number or true or false"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_or_of_another_type_is_refused(content, tmp_path, key, value, said):
    *sections, last = key.split(".")
    place = content
    for section in sections:
        place = place[section]
    place[last] = value
    with pytest.raises(ParamsError, match=re.escape(said)):
        read(content, tmp_path)


def test_settings_that_are_missing_for_a_name_are_asked_for(content, tmp_path):
    params = read(content, tmp_path)
    with pytest.raises(ParamsError, match=r"no settings for 'arcface' under `losses:`.*ge2e"):
        params.settings("losses", "arcface")


def test_a_file_that_is_no_yaml_is_refused_with_its_line(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("a: [1,\nb: 2")
    with pytest.raises(ParamsError, match=r"not YAML.*line 2"):
        read_params(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FilesError, match=r"absent\.yaml"):
        read_params(tmp_path / "absent.yaml")

"""What is refused before any work, and the door that tells it in one line."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from makermark.errors import ParamsError
from makermark.experiment import check
from makermark.losses import LOSSES
from makermark.params import read_params

REPOSITORY = Path(__file__).parents[1]
PARAMS = read_params(REPOSITORY / "params.yaml")


def changed(**values):
    return dataclasses.replace(PARAMS, **values)


def test_every_registered_loss_has_settings_that_fit():
    for name in PARAMS.losses:
        check(changed(loss=name))


@pytest.mark.parametrize("name", [name for name, kind in LOSSES.items() if kind.needs_groups])
def test_a_loss_that_compares_inside_a_batch_refuses_the_random_sampler(name):
    with pytest.raises(ParamsError, match=f"loss '{name}' compares utterances of one system inside a batch"):
        check(changed(loss=name, sampler="random"))


@pytest.mark.parametrize("name", [name for name, kind in LOSSES.items() if not kind.needs_groups])
def test_a_loss_that_learns_its_classes_takes_the_random_sampler(name):
    check(changed(loss=name, sampler="random"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"corpus": "voxceleb"}, "unknown corpus 'voxceleb'; it is one of"),
        ({"loss": "arcface"}, "no settings for 'arcface'"),
        ({"augment": "codecs"}, "augment is 'codecs'; it is one of"),
        ({"backbone": "vgg"}, "no settings for 'vgg'"),
        ({"sampler": "random"}, "loss 'ge2e' compares utterances of one system"),
        ({"samplers": {"balanced": {"batch_systems": 4, "utterances_per_system": 1}}}, "make it 2 or more"),
        ({"losses": {"ge2e": {"scale": 10.0, "bais": -5.0}}}, r"unknown settings \['bais'\]"),
        ({"losses": {"ge2e": {"scale": -1.0, "bias": -5.0}}}, "scale is -1.0"),
        ({"backbones": {"resnet34": {"pooling": "max"}}}, "max"),
        (
            {"samplers": {"balanced": {"batch_systems": 0, "utterances_per_system": 6}}},
            "batch_systems is 0; it is at",
        ),
        (
            {"train": dataclasses.replace(PARAMS.train, crop_seconds=0.01)},
            "1 frames of fbank, but backbone 'resnet34'",
        ),
        (
            {"trace": dataclasses.replace(PARAMS.trace, clip_seconds=[0.01, 1.0])},
            r"trace.clip_seconds is 0.01; front end fbank takes 0.016 or more",
        ),
        ({"trace": dataclasses.replace(PARAMS.trace, window_seconds=0.001)}, "trace.window_seconds is 0.001"),
        ({"embed": dataclasses.replace(PARAMS.embed, device="mps")}, "device is 'mps', which this machine"),
        (
            {"front_ends": {**PARAMS.front_ends, "waveform": {"sample_rate_hz": 8000}}, "backbone": "aasist"},
            "it is 16000",
        ),
        ({"features": dataclasses.replace(PARAMS.features, front_ends=["mfcc"])}, "'mfcc'"),
    ],
)
def test_impossible_params_are_refused(values, said):
    with pytest.raises(ParamsError, match=said):
        check(changed(**values))


def stage(name, *arguments, params=None, folder=REPOSITORY):
    command = [sys.executable, REPOSITORY / "stages" / f"{name}.py", *arguments]
    if params:
        command += ["--params", params]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_stage_tells_a_users_error_in_one_line_without_a_traceback(tmp_path):
    content = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content | {"dim": 0}))
    done = stage("check", params=path)
    assert done.returncode == 1
    assert done.stderr == "error: params.yaml: dim is 0; it is at least 1\n"
    assert done.stdout == ""


def test_a_stage_without_its_input_says_which_stage_makes_it(tmp_path):
    done = stage(
        "score",
        "embeddings",
        "metrics/score.json",
        "plots",
        params=REPOSITORY / "params.yaml",
        folder=tmp_path,
    )
    assert done.returncode == 1
    assert "model.arrow" in done.stderr
    assert "run the stage that makes it" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []

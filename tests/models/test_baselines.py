"""Embeddings of the model and of its baselines: which files are written, in which order, and what raises."""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from makermark import features
from makermark.features.cache_writer import write_cache
from makermark.foundation.embeddings import read_embeddings
from makermark.foundation.errors import EncoderError, ParamsError
from makermark.foundation.params import read_params
from makermark.models import early_whisper, speaker_encoder
from makermark.models.checkpoint import (
    CheckpointMetadata,
    build_backbone,
    build_loss,
    copy_weights,
    save_checkpoint,
)
from makermark.models.embed_corpus import (
    BASELINES,
    EmbeddingTask,
    check_baselines,
    embed_corpus,
    installed_baselines,
)
from tests_support import FBANK, LOG_MELS, speech_corpus

PARAMS = read_params(Path(__file__).parents[2] / "params.yaml")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """(manifest, folder of its fbank cache)."""
    folder = tmp_path_factory.mktemp("corpus")
    manifest, front_end = speech_corpus(folder)
    write_cache(
        manifest, front_end, folder, shard_utterances=10, max_bad_fraction=0, min_seconds=0.1, max_seconds=10, workers=1
    )  # fmt: skip
    return manifest, folder


MODEL = CheckpointMetadata(
    backbone="resnet34",
    backbone_settings={
        **LOG_MELS,
        "pooling": "sap",
        "stem_order": "norm-relu",
    },
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


def task_of(corpus, rows, **changes):
    manifest, folder = corpus
    task = EmbeddingTask(
        manifest=dataclasses.replace(manifest, rows=rows),
        features=folder,
        model=MODEL,
        params=PARAMS,
        batch_seconds=60.0,
        device=torch.device("cpu"),
        precision=torch.float32,
    )
    return dataclasses.replace(task, **changes)


@pytest.mark.parametrize("name", BASELINES)
def test_baseline_follows_the_order_of_the_manifest_and_separates_utterances(name, corpus):
    package = {"resemblyzer": "resemblyzer", "whisper-early": "pipecat"}.get(name, "makermark")
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    rows = corpus[0].rows.iloc[[0, 30, 12, 5]]
    embeddings = BASELINES[name](task_of(corpus, rows))
    reversed_embeddings = BASELINES[name](task_of(corpus, rows.iloc[::-1]))
    assert embeddings.dtype == np.float32
    assert len(np.unique(embeddings.round(4), axis=0)) == 4
    np.testing.assert_allclose(reversed_embeddings[::-1], embeddings, atol=1e-4)


@pytest.mark.parametrize(("split", "reference"), [("train", slice(0, 24)), (None, slice(None))])
def test_logmel_stats_are_standardised_on_the_reference_split(corpus, split, reference):
    embeddings = BASELINES["logmel_stats"](task_of(corpus, corpus[0].rows, reference_split=split))
    np.testing.assert_allclose(embeddings[reference].mean(axis=0), 0, atol=1e-4)


def embed(corpus, folder, metadata, *baselines):
    """Return (embeddings by name, loss) of a checkpoint with initial weights."""
    torch.manual_seed(1)
    backbone, loss = build_backbone(metadata), build_loss(metadata)
    save_checkpoint(folder / "best", copy_weights({"backbone": backbone, "loss": loss}), metadata)
    params = PARAMS.replace(embed=PARAMS.embed.replace(baselines=list(baselines)))
    manifest, caches = corpus
    embed_corpus(params, manifest, caches, model=folder / "best", folder=folder / "embeddings")
    return {f.stem: read_embeddings(f) for f in (folder / "embeddings").glob("*.arrow")}, loss


def test_embed_corpus_writes_the_model_and_the_baselines_of_params(corpus, tmp_path):
    embeddings, _ = embed(corpus, tmp_path, MODEL, "untrained")
    assert set(embeddings) == {"model", "untrained"}
    assert not np.allclose(embeddings["model"].embeddings, embeddings["untrained"].embeddings)


def test_embed_corpus_stores_the_logits_of_every_utterance(corpus, tmp_path):
    embeddings, loss = embed(corpus, tmp_path, MODEL, "logmel_stats")
    with torch.inference_mode():
        expected = loss.logits(torch.tensor(embeddings["model"].embeddings)).numpy()
    np.testing.assert_allclose(embeddings["model"].logits, expected, rtol=1e-6)
    assert set(embeddings["model"].labels["split"]) == {"train", "dev"}
    assert embeddings["logmel_stats"].logits is None


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "ge2e", "loss_settings": {"scale": 10.0, "bias": -5.0, "variant": "wan2018"}},
        {"systems": ["fast", "middle", "another system"]},
    ],
)
def test_embed_corpus_stores_no_logits_without_a_classifier_of_the_training_systems(
    corpus, tmp_path, changes
):
    embeddings, _ = embed(corpus, tmp_path, dataclasses.replace(MODEL, **changes))
    assert embeddings["model"].logits is None


def test_check_baselines_raises_for_an_unknown_name_with_the_choices():
    with pytest.raises(ParamsError, match=r"unknown baseline 'chance'; it is one of \['logmel_stats'"):
        check_baselines(["logmel_stats", "chance"])


def test_check_baselines_raises_for_a_baseline_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(speaker_encoder, "PACKAGE", "a_package_that_does_not_exist")
    check_baselines(["untrained"])
    with pytest.raises(EncoderError, match="not installed"):
        check_baselines(["resemblyzer"])


def test_installed_baselines_leaves_out_what_is_not_installed_with_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(early_whisper, "PACKAGE", "a_package_that_does_not_exist")
    assert installed_baselines(["untrained", "whisper-early", "logmel_stats"]) == [
        "untrained",
        "logmel_stats",
    ]
    (record,) = caplog.records
    assert record.getMessage() == (
        "baseline whisper-early: the package pipecat-ai is not installed; pip install --no-deps -r "
        "requirements-local.txt; it is left out"
    )
    with pytest.raises(ParamsError, match="unknown baseline 'chance'"):
        installed_baselines(["chance"])

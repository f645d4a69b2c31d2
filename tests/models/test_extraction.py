"""Extraction: the same embeddings whatever the batch. Checkpoints: the same weights after a reload."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from makermark.features.cache import FeatureCache
from makermark.features.cache_writer import write_cache
from makermark.foundation.errors import CheckpointError, FilesError
from makermark.models import backbones, losses
from makermark.models.checkpoint import CheckpointMetadata, copy_weights, load_checkpoint, save_checkpoint
from makermark.models.embed_corpus import log_mel_statistics, standardise
from makermark.models.extraction import embed, embed_rows
from tests_support import FBANK, LOG_MELS, speech_corpus

CPU = torch.device("cpu")


def replace_value(path, key, value):
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    manifest, front_end = speech_corpus(folder)
    write_cache(
        manifest, front_end, folder, shard_utterances=10, max_bad_fraction=0, min_seconds=0.1, max_seconds=10, workers=1
    )  # fmt: skip
    return FeatureCache.open(folder / "fbank", front_end.parameters())


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    network = backbones.build(
        "resnet34",
        dim=10,
        width=40,
        **LOG_MELS,
        pooling="sap",
        stem_order="norm-relu",
    )
    for module in network.modules():  # statistics as after training, other than 0 and 1
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    return network.eval()


@pytest.fixture
def weights(backbone):
    loss = losses.build("amsoftmax", num_systems=2, dim=10, margin=0.2, scale=30.0)
    return copy_weights({"backbone": backbone, "loss": loss})


@pytest.fixture
def metadata():
    return CheckpointMetadata(
        backbone="resnet34",
        backbone_settings={
            **LOG_MELS,
            "pooling": "sap",
            "stem_order": "norm-relu",
        },
        dim=10,
        loss="amsoftmax",
        loss_settings={"margin": 0.2, "scale": 30.0},
        systems=["a", "b"],
        front_end="fbank",
        width=40,
        front_end_parameters=dict(FBANK),
        feature_fingerprint="f",
        params={"loss": "ge2e"},
        epoch=3,
        dev_eer_percent=12.5,
        git_commit="none",
        versions={},
    )


def test_embed_rows_does_not_depend_on_the_batch(cache, backbone):
    rows = np.arange(len(cache.frames))
    batched = embed_rows(backbone, cache, rows, batch_frames=2000, device=CPU)
    alone = embed_rows(backbone, cache, rows, batch_frames=1, device=CPU)
    np.testing.assert_allclose(batched, alone, atol=1e-5)
    with torch.inference_mode():
        direct = backbone(torch.from_numpy(cache.read_utterance(5).astype(np.float32))[None]).numpy()[0]
    np.testing.assert_allclose(batched[5], direct, atol=1e-5)


def test_embed_rows_returns_embeddings_in_the_order_of_the_rows(cache, backbone):
    rows = np.array([7, 2, 11])
    forward = embed_rows(backbone, cache, rows, batch_frames=2000, device=CPU)
    backward = embed_rows(backbone, cache, rows[::-1].copy(), batch_frames=2000, device=CPU)
    np.testing.assert_allclose(forward[::-1], backward, atol=1e-6)


def test_embed_raises_without_batches(backbone):
    with pytest.raises(ValueError, match="no utterances"):
        embed(backbone, [], device=CPU)


def test_log_mel_statistics_are_mean_and_deviation_of_each_band(cache):
    statistics = log_mel_statistics(cache, np.array([3]))[0]
    bands = cache.read_utterance(3).astype(np.float64)
    expected = np.concatenate([bands.mean(0), bands.std(0)])
    np.testing.assert_allclose(statistics, expected, rtol=1e-4, atol=1e-5)


def test_standardise_gives_mean_0_and_deviation_1_and_keeps_constants_finite():
    embeddings = np.random.default_rng(0).normal(3, 2, (50, 4)).astype(np.float32)
    embeddings[:, 2] = 7
    scaled = standardise(embeddings, reference=embeddings)
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(0), [1, 1, 0, 1], atol=1e-5)


def test_load_checkpoint_restores_the_same_bits(tmp_path, weights, metadata):
    digest = save_checkpoint(tmp_path / "best", weights, metadata)
    checkpoint = load_checkpoint(tmp_path / "best")
    assert (checkpoint.metadata, checkpoint.digest) == (metadata, digest)
    restored = copy_weights({"backbone": checkpoint.backbone, "loss": checkpoint.loss})
    assert restored.keys() == weights.keys()
    assert all(torch.equal(tensor, restored[name]) for name, tensor in weights.items())


def test_load_checkpoint_computes_what_an_earlier_version_computed(tmp_path, metadata):
    """Without these settings: log-mels of variance 1, the order relu-norm, and the loss of Wan 2018."""
    torch.manual_seed(0)
    parts = {
        "backbone": backbones.build(
            "resnet34",
            dim=10,
            width=40,
            **LOG_MELS,
            pooling="sap",
            stem_order="relu-norm",
        ),
        "loss": losses.build("ge2e", num_systems=2, dim=10, scale=9.0, bias=-4.0, variant="wan2018"),
    }
    earlier = dataclasses.replace(
        metadata,
        backbone_settings={"pooling": "sap"},
        loss="ge2e",
        loss_settings={"scale": 9.0, "bias": -4.0},
    )
    save_checkpoint(tmp_path / "best", copy_weights(parts), earlier)
    checkpoint = load_checkpoint(tmp_path / "best")
    features = torch.randn(2, 50, 40)
    with torch.no_grad():
        assert torch.equal(checkpoint.backbone(features), parts["backbone"].eval()(features))
    assert checkpoint.loss.as_published
    assert checkpoint.metadata.backbone_settings["stem_order"] == "relu-norm"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda stem: stem.with_suffix(".json").write_text("{}"), "not a checkpoint of this version"),
        (
            lambda stem: replace_value(stem.with_suffix(".json"), "loss_settings", []),
            "a value has another type",
        ),
        (lambda stem: replace_value(stem.with_suffix(".json"), "backbone", {}), "a value has another type"),
        (lambda stem: replace_value(stem.with_suffix(".json"), "width", "40"), "damaged: width is '40'"),
        (lambda stem: replace_value(stem.with_suffix(".json"), "dim", 0), "damaged: dim is 0"),
        (lambda stem: replace_value(stem.with_suffix(".json"), "bands", 80.0), "damaged: bands is 80.0"),
        (lambda stem: replace_value(stem.with_suffix(".json"), "bands", 41), "bands is 41, width only 40"),
        (lambda stem: stem.with_suffix(".safetensors").write_bytes(b"x"), "its SHA-256 is not the one in"),
        (lambda stem: stem.with_suffix(".safetensors").unlink(), "run the train stage"),
    ],
)
def test_load_checkpoint_raises_for_a_damaged_checkpoint(tmp_path, weights, metadata, damage, message):
    save_checkpoint(tmp_path / "best", weights, metadata)
    damage(tmp_path / "best")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "best")


def test_load_checkpoint_raises_for_weights_of_another_shape(tmp_path, weights, metadata):
    save_checkpoint(tmp_path / "best", weights, dataclasses.replace(metadata, dim=11))
    with pytest.raises(CheckpointError, match="do not fit backbone resnet34"):
        load_checkpoint(tmp_path / "best")


def test_load_checkpoint_names_the_remedy_for_a_missing_model(tmp_path):
    with pytest.raises(FilesError, match=r"best\.json: there is no trained model; run make repro in a clone"):
        load_checkpoint(tmp_path / "best")

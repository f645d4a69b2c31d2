"""Embeddings and checkpoints: the same vectors whatever the batch and after a reload; files that say what they are."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from makermark import backbones, losses
from makermark.checkpoint import Description, load_checkpoint, save_checkpoint
from makermark.corpora.rows import GIVEN, derive_seen
from makermark.embedding import embed, log_mel_statistics, standardise
from makermark.errors import CheckpointError, FilesError
from makermark.features.cache import FeatureCache, write_cache
from makermark.training import weights_of
from makermark.vectors import read_embeddings, utterances_sha256, write_embeddings
from tests_support import FBANK, tone_corpus

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    manifest, front_end = tone_corpus(folder)
    write_cache(
        manifest, front_end, folder, shard_utterances=10, max_bad_fraction=0, min_seconds=0.1, max_seconds=10, workers=1
    )  # fmt: skip
    return FeatureCache.open(folder / "fbank", front_end.parameters())


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    network = backbones.build("resnet34", dim=10, width=40, pooling="sap")
    for module in network.modules():  # as after training: statistics that are not 0 and 1
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    return network.eval()


@pytest.fixture
def weights(backbone):
    return weights_of(
        {
            "backbone": backbone,
            "loss": losses.build("amsoftmax", num_systems=2, dim=10, margin=0.2, scale=30.0),
        }
    )


@pytest.fixture
def description():
    return Description(
        backbone="resnet34",
        backbone_settings={"pooling": "sap"},
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


def test_a_batch_gives_the_vectors_of_utterances_alone(cache, backbone):
    rows = np.arange(len(cache.frames))
    batched = embed(backbone, cache, rows, batch_frames=2000, device=CPU)
    alone = embed(backbone, cache, rows, batch_frames=1, device=CPU)
    np.testing.assert_allclose(batched, alone, atol=1e-5)
    with torch.inference_mode():
        direct = backbone(torch.from_numpy(cache.whole(5).astype(np.float32))[None]).numpy()[0]
    np.testing.assert_allclose(batched[5], direct, atol=1e-5)


def test_vectors_come_in_the_order_asked_for(cache, backbone):
    rows = np.array([7, 2, 11])
    forward = embed(backbone, cache, rows, batch_frames=2000, device=CPU)
    np.testing.assert_allclose(
        forward[::-1], embed(backbone, cache, rows[::-1].copy(), batch_frames=2000, device=CPU), atol=1e-6
    )


def test_log_mel_statistics_are_mean_and_deviation_of_each_band(cache):
    found = log_mel_statistics(cache, np.array([3]))[0]
    bands = cache.whole(3).astype(np.float64)
    np.testing.assert_allclose(found, np.concatenate([bands.mean(0), bands.std(0)]), rtol=1e-4, atol=1e-5)


def test_standardised_train_vectors_have_mean_0_and_deviation_1_and_constants_stay_finite():
    vectors = np.random.default_rng(0).normal(3, 2, (50, 4)).astype(np.float32)
    vectors[:, 2] = 7
    scaled = standardise(vectors, reference=vectors)
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(0), [1, 1, 0, 1], atol=1e-5)


def test_a_checkpoint_reloads_to_the_same_bits(tmp_path, weights, description):
    digest = save_checkpoint(tmp_path / "best", weights, description)
    again = load_checkpoint(tmp_path / "best")
    assert (again.description, again.digest) == (description, digest)
    found = weights_of({"backbone": again.backbone, "loss": again.loss})
    assert found.keys() == weights.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in weights.items())


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda stem: stem.with_suffix(".json").write_text("{}"), "not a checkpoint of this version"),
        (lambda stem: stem.with_suffix(".safetensors").write_bytes(b"x"), "not those that"),
        (lambda stem: stem.with_suffix(".safetensors").unlink(), "run the train stage"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused(tmp_path, weights, description, damage, said):
    save_checkpoint(tmp_path / "best", weights, description)
    damage(tmp_path / "best")
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(tmp_path / "best")


def test_weights_of_another_shape_are_refused(tmp_path, weights, description):
    save_checkpoint(tmp_path / "best", weights, dataclasses.replace(description, dim=11))
    with pytest.raises(CheckpointError, match="does not fit backbone resnet34"):
        load_checkpoint(tmp_path / "best")


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FilesError, match=r"best\.json.*run the stage"):
        load_checkpoint(tmp_path / "best")


def rows_of(count):
    table = pd.DataFrame({name: [f"{name}{i}" for i in range(count)] for name in GIVEN.names})
    return derive_seen(table.assign(split=["train", "test"] * (count // 2), system=["a", "b"] * (count // 2)))


def test_embeddings_survive_the_disk_with_labels_strata_and_metadata(tmp_path):
    rows, vectors = rows_of(6), np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    write_embeddings(tmp_path / "e.arrow", rows, vectors, metadata={"model_sha256": "m"})
    found = read_embeddings(tmp_path / "e.arrow")
    np.testing.assert_array_equal(found.vectors, vectors)
    assert found.metadata == {"model_sha256": "m", "utterances_sha256": utterances_sha256(rows)}
    test = found.of_split("test")
    assert list(test.labels["utterance_id"]) == list(rows.loc[rows["split"] == "test", "utterance_id"])
    assert set(test.labels["stratum"]) == {"unseen_system_unseen_language"}
    np.testing.assert_array_equal(test.vectors, vectors[1::2])


def test_utterances_are_the_same_in_any_order_and_others_with_another_system_or_file():
    rows = rows_of(6)
    assert utterances_sha256(rows) == utterances_sha256(rows.iloc[::-1])
    for column in ("system", "sha256", "split"):
        changed = rows.copy()
        changed.loc[2, column] = "another"
        assert utterances_sha256(changed) != utterances_sha256(rows)


def test_logits_lie_beside_the_vectors_where_the_model_has_a_classifier(tmp_path):
    rows, rng = rows_of(6), np.random.default_rng(0)
    vectors, logits = (rng.normal(size=(6, width)).astype(np.float32) for width in (3, 2))
    write_embeddings(tmp_path / "e.arrow", rows, vectors, logits=logits, metadata={})
    found = read_embeddings(tmp_path / "e.arrow")
    np.testing.assert_array_equal(found.logits, logits)
    np.testing.assert_array_equal(found.of_split("test").logits, logits[1::2])
    assert "logits" not in found.labels
    write_embeddings(tmp_path / "e.arrow", rows, vectors, metadata={})
    assert read_embeddings(tmp_path / "e.arrow").of_split("test").logits is None


def test_a_vector_too_few_is_a_programming_error(tmp_path):
    with pytest.raises(ValueError, match="6 rows but 5 vectors"):
        write_embeddings(tmp_path / "e.arrow", rows_of(6), np.zeros((5, 3), np.float32), metadata={})


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "e.arrow").write_text(json.dumps({}))
    with pytest.raises(FilesError, match="damaged Arrow file"):
        read_embeddings(tmp_path / "e.arrow")

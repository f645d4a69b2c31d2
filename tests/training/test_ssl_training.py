"""Pretrained encoders in training and embedding: fine-tuned, frozen in a cache, frozen and weighted."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders_support import save_model
from makermark.features import encoders
from makermark.features.cache import FeatureCache
from makermark.features.cache_writer import write_cache
from makermark.foundation.errors import EncoderError, FeatureCacheError, ParamsError
from makermark.foundation.params import read_params
from makermark.foundation.tracking.tracker import NoTracker
from makermark.models.checkpoint import load_checkpoint
from makermark.models.embed_corpus import BASELINES, EmbeddingTask, embed_corpus
from makermark.models.extraction import embed_rows
from makermark.models.feature_spec import (
    build_front_end,
    encoder_architecture,
    front_end_name,
    front_end_names,
)
from makermark.training import components, run
from makermark.training.components import check_params
from tests_support import speech_corpus

PARAMS = read_params(Path(__file__).parents[2] / "params.yaml")


def params_for(model, **ssl):
    return PARAMS.replace(
        backbone="wav2vec2-aasist",
        loss="amsoftmax",
        sampler="random",
        dim=8,
        backbones={"wav2vec2-aasist": {"frame_width": 24}},
        samplers={"random": {"batch_utterances": 8}},
        front_ends={**PARAMS.front_ends, "wav2vec2": {"batch_seconds": 20.0, "device": "cpu"}},
        ssl=PARAMS.ssl.replace(model=str(model), **ssl),
        train=PARAMS.train.replace(
            epochs=2,
            warmup_epochs=1.0,
            crop_seconds=0.5,
            evaluate_every_epochs=1,
            device="cpu",
            precision="float32",
        ),
        embed=PARAMS.embed.replace(device="cpu", baselines=["logmel_stats"]),
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    manifest, _ = speech_corpus(folder)
    return manifest, folder


def write_features(params, corpus, folder):
    for name in front_end_names(params):
        write_cache(
            corpus[0],
            build_front_end(params, name),
            folder,
            shard_utterances=10,
            max_bad_fraction=0,
            min_seconds=0.1,
            max_seconds=10,
            workers=2,
        )


def train(params, corpus, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.tracking, "open_run", lambda *_, **__: NoTracker())
        run.train_experiment(
            params, corpus[0], folder / "features", bonafide_folder=folder / "none", models=folder / "models"
        )


@pytest.mark.parametrize(
    ("name", "ssl", "reads"),
    [
        ("layer", {"freeze": "none", "layer": "last", "gradient_checkpointing": True}, "waveform"),
        ("layer", {"freeze": "feature_encoder", "layer": 2}, "waveform"),
        ("group", {"freeze": "all", "layer": "weighted"}, "waveform"),
        ("layer", {"freeze": "all", "layer": 2}, "wav2vec2"),
        ("whisper", {"freeze": "all", "layer": "last"}, "wav2vec2"),
    ],
)
def test_checkpoint_embeds_after_the_pretrained_model_is_deleted(name, ssl, reads, corpus, tmp_path):
    model = save_model(tmp_path, name)
    params = params_for(model, **ssl)
    assert front_end_name(params) == reads
    write_features(params, corpus, tmp_path / "features")
    train(params, corpus, tmp_path)
    shutil.rmtree(model)
    checkpoint = load_checkpoint(tmp_path / "models" / "best")
    assert checkpoint.metadata.front_end == reads
    assert (checkpoint.metadata.encoder is None) is (reads == "wav2vec2")
    embed_corpus(
        params,
        corpus[0],
        tmp_path / "features",
        model=tmp_path / "models" / "best",
        folder=tmp_path / "embeddings",
    )
    assert (tmp_path / "embeddings" / "model.arrow").exists()
    encoder_weights = [name for name in checkpoint.backbone.state_dict() if name.startswith("encoder.")]
    assert bool(encoder_weights) is (reads == "waveform")  # with cached frames no encoder is stored


def test_untrained_baseline_starts_from_the_pretrained_encoder_and_raises_without_it(corpus, tmp_path):
    model = save_model(tmp_path, "layer")
    params = params_for(model)
    write_features(params, corpus, tmp_path / "features")
    train(params, corpus, tmp_path)
    cpu = torch.device("cpu")
    task = EmbeddingTask(
        manifest=corpus[0],
        features=tmp_path / "features",
        model=load_checkpoint(tmp_path / "models" / "last").metadata,
        params=params,
        batch_seconds=params.embed.batch_seconds,
        device=cpu,
        precision=torch.float32,
    )
    embeddings = BASELINES["untrained"](task)
    encoder = encoders.load(str(model), layer="last")
    network = components.build_backbone(params, width=1, encoder=encoder)
    cache = FeatureCache.open(
        tmp_path / "features" / "waveform", build_front_end(params, "waveform").parameters()
    )
    rows = cache.find_rows(corpus[0].rows["utterance_id"])
    expected = embed_rows(network, cache, rows, batch_frames=32000, device=cpu)
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)
    shutil.rmtree(model)
    with pytest.raises(EncoderError):
        BASELINES["untrained"](task)


def test_fine_tuned_checkpoint_stores_the_trained_encoder(corpus, tmp_path):
    model = save_model(tmp_path, "layer")
    params = params_for(model, freeze="feature_encoder", learning_rate=1e-3)
    write_features(params, corpus, tmp_path / "features")
    train(params, corpus, tmp_path)
    trained = load_checkpoint(tmp_path / "models" / "last").backbone.encoder.state_dict()
    architecture = encoder_architecture(params)
    start = encoders.load(str(model), layer="last")
    assert dataclasses.asdict(architecture) == dataclasses.asdict(start.architecture)
    unchanged = {name for name, weight in start.state_dict().items() if torch.equal(weight, trained[name])}
    front = {name for name in trained if name.startswith("model.feature_extractor.")}
    assert front <= unchanged
    assert len(unchanged - front) < 0.1 * len(trained)


def test_training_on_the_cache_of_another_model_raises(corpus, tmp_path):
    first, second = (save_model(tmp_path, "layer", seed=seed) for seed in (0, 1))
    write_features(params_for(first, freeze="all"), corpus, tmp_path / "features")
    with pytest.raises(FeatureCacheError, match=r"weights_sha256 is .* in the cache"):
        train(params_for(second, freeze="all"), corpus, tmp_path)


@pytest.mark.parametrize("freeze", ["none", "all"])
def test_check_params_reports_a_missing_model_in_one_line(freeze, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderError, match="cannot be loaded") as error:
        check_params(params_for("someone/nothing", freeze=freeze))
    assert "\n" not in str(error.value)


def test_check_params_raises_for_a_layer_that_the_model_lacks(tmp_path):
    model = save_model(tmp_path, "layer")
    check_params(params_for(model, layer=3))
    with pytest.raises(ParamsError, match=r"ssl\.layer is 4; .* has the layers 0 to 3, last and weighted"):
        check_params(params_for(model, layer=4))


def test_check_params_needs_no_model_for_other_backbones():
    check_params(PARAMS.replace(ssl=PARAMS.ssl.replace(model="no/such-thing")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": "first"}, r"ssl\.layer is 'first'; it is one of \['last', 'weighted'\]"),
        ({"layer": -1}, r"ssl\.layer is -1; it is at least 0"),
        ({"freeze": "some"}, r"ssl\.freeze is 'some'"),
        ({"learning_rate": 0.0}, r"ssl\.learning_rate is 0\.0; it is above 0"),
    ],
)
def test_ssl_settings_out_of_range_raise(change, message):
    with pytest.raises(ParamsError, match=message):
        PARAMS.ssl.replace(**change)


def test_equal_seeds_give_equal_weights_with_a_frozen_encoder(corpus, tmp_path):
    model = save_model(tmp_path, "layer")
    params = params_for(model, freeze="all")
    write_features(params, corpus, tmp_path / "features")
    weights = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "features").symlink_to(tmp_path / "features")
        train(params, corpus, tmp_path / name)
        backbone = load_checkpoint(tmp_path / name / "models" / "last").backbone
        weights.append(torch.cat([weight.flatten() for weight in backbone.state_dict().values()]))
    assert torch.equal(*weights)

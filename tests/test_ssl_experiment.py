"""Pretrained encoders through the whole of train and embed: fine-tuned, frozen in a cache, frozen and weighted."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders_support import save_model
from makermark import experiment
from makermark.baselines import BASELINES
from makermark.checkpoint import load_checkpoint
from makermark.embedding import embed
from makermark.errors import EncoderError, FeatureCacheError, ParamsError
from makermark.features.cache import FeatureCache, write_cache
from makermark.inputs import build_front_end, front_end_of, front_ends_of
from makermark.params import read_params
from makermark.tracking.tracker import NoTracker
from tests_support import tone_corpus

PARAMS = read_params(Path(__file__).parents[1] / "params.yaml")


def params_for(model, **ssl):
    return dataclasses.replace(
        PARAMS,
        backbone="wav2vec2-aasist",
        loss="amsoftmax",
        sampler="random",
        dim=8,
        backbones={"wav2vec2-aasist": {"frame_width": 24}},
        samplers={"random": {"batch_utterances": 8}},
        front_ends={**PARAMS.front_ends, "wav2vec2": {"batch_seconds": 20.0, "device": "cpu"}},
        ssl=dataclasses.replace(PARAMS.ssl, model=str(model), **ssl),
        train=dataclasses.replace(
            PARAMS.train,
            epochs=2,
            warmup_epochs=1.0,
            crop_seconds=0.5,
            evaluate_every_epochs=1,
            device="cpu",
            precision="float32",
        ),
        embed=dataclasses.replace(PARAMS.embed, device="cpu", baselines=["logmel_stats"]),
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    manifest, _ = tone_corpus(folder)
    return manifest, folder


def write_features(params, corpus, place):
    for name in front_ends_of(params):
        write_cache(
            corpus[0],
            build_front_end(params, name),
            place,
            shard_utterances=10,
            max_bad_fraction=0,
            min_seconds=0.1,
            max_seconds=10,
            workers=2,
        )


def train(params, corpus, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment.tracking, "open_run", lambda *_, **__: NoTracker())
        experiment.train_experiment(
            params, corpus[0], folder / "features", human=folder / "none", models=folder / "models"
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
def test_it_trains_and_its_checkpoint_embeds_where_the_model_is_gone(name, ssl, reads, corpus, tmp_path):
    model = save_model(tmp_path, name)
    params = params_for(model, **ssl)
    assert front_end_of(params) == reads
    write_features(params, corpus, tmp_path / "features")
    train(params, corpus, tmp_path)
    shutil.rmtree(model)
    checkpoint = load_checkpoint(tmp_path / "models" / "best")
    assert checkpoint.description.front_end == reads
    assert (checkpoint.description.encoder is None) is (reads == "wav2vec2")
    experiment.embed_experiment(
        params,
        corpus[0],
        tmp_path / "features",
        model=tmp_path / "models" / "best",
        folder=tmp_path / "embeddings",
    )
    assert (tmp_path / "embeddings" / "model.arrow").exists()
    inside = [name for name in checkpoint.backbone.state_dict() if name.startswith("encoder.")]
    assert bool(inside) is (reads == "waveform")  # beside a cache of its frames nothing of it is stored


def test_the_untrained_baseline_begins_with_the_pretrained_encoder_and_refuses_where_it_is_gone(
    corpus, tmp_path
):
    model = save_model(tmp_path, "layer")
    params = params_for(model)
    write_features(params, corpus, tmp_path / "features")
    train(params, corpus, tmp_path)
    description = load_checkpoint(tmp_path / "models" / "last").description
    cpu = torch.device("cpu")
    found = BASELINES["untrained"](params, corpus[0], tmp_path / "features", description, cpu)
    encoder = experiment.encoders.load(str(model), layer="last")
    network = experiment.build_backbone(params, width=1, encoder=encoder)
    cache = FeatureCache.open(
        tmp_path / "features" / "waveform", build_front_end(params, "waveform").parameters()
    )
    rows = cache.rows_of(corpus[0].rows["utterance_id"])
    expected = embed(network, cache, rows, batch_frames=32000, device=cpu)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    shutil.rmtree(model)
    with pytest.raises(EncoderError):
        BASELINES["untrained"](params, corpus[0], tmp_path / "features", description, cpu)


def test_a_fine_tuned_checkpoint_holds_the_encoder_as_it_was_trained(corpus, tmp_path):
    model = save_model(tmp_path, "layer")
    params = params_for(model, freeze="feature_encoder", learning_rate=1e-3)
    write_features(params, corpus, tmp_path / "features")
    train(params, corpus, tmp_path)
    trained = load_checkpoint(tmp_path / "models" / "last").backbone.encoder.state_dict()
    architecture = experiment.encoder_of(params)
    start = experiment.encoders.load(str(model), layer="last")
    assert dataclasses.asdict(architecture) == dataclasses.asdict(start.architecture)
    same = {name for name, weight in start.state_dict().items() if torch.equal(weight, trained[name])}
    front = {name for name in trained if name.startswith("model.feature_extractor.")}
    assert front <= same
    assert len(same - front) < 0.1 * len(trained)


def test_training_on_the_cache_of_another_model_is_refused(corpus, tmp_path):
    first, second = (save_model(tmp_path, "layer", seed=seed) for seed in (0, 1))
    write_features(params_for(first, freeze="all"), corpus, tmp_path / "features")
    with pytest.raises(FeatureCacheError, match=r"weights_sha256 is .* in the cache"):
        train(params_for(second, freeze="all"), corpus, tmp_path)


@pytest.mark.parametrize("freeze", ["none", "all"])
def test_check_says_in_one_line_that_the_model_is_not_there(freeze, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderError, match="cannot be loaded") as failure:
        experiment.check(params_for("someone/nothing", freeze=freeze))
    assert "\n" not in str(failure.value)


def test_check_refuses_a_layer_that_the_model_lacks(tmp_path):
    model = save_model(tmp_path, "layer")
    experiment.check(params_for(model, layer=3))
    with pytest.raises(ParamsError, match=r"ssl\.layer is 4; .* has the layers 0 to 3, last and weighted"):
        experiment.check(params_for(model, layer=4))


def test_other_backbones_need_no_model():
    experiment.check(dataclasses.replace(PARAMS, ssl=dataclasses.replace(PARAMS.ssl, model="no/such-thing")))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layer": "first"}, r"ssl\.layer is 'first'; it is one of \['last', 'weighted'\]"),
        ({"layer": -1}, r"ssl\.layer is -1; it is at least 0"),
        ({"freeze": "some"}, r"ssl\.freeze is 'some'"),
        ({"learning_rate": 0.0}, r"ssl\.learning_rate is 0\.0; it is above 0"),
    ],
)
def test_settings_out_of_range_are_refused(change, said):
    with pytest.raises(ParamsError, match=said):
        dataclasses.replace(PARAMS.ssl, **change)


def test_equal_seeds_give_equal_vectors_of_the_frozen_variant(corpus, tmp_path):
    model = save_model(tmp_path, "layer")
    params = params_for(model, freeze="all")
    write_features(params, corpus, tmp_path / "features")
    found = []
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "features").symlink_to(tmp_path / "features")
        train(params, corpus, tmp_path / run)
        weights = load_checkpoint(tmp_path / run / "models" / "last").backbone.state_dict()
        found.append(np.concatenate([weight.flatten().numpy() for weight in weights.values()]))
    np.testing.assert_array_equal(found[0], found[1])

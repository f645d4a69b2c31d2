"""The cache of a frozen encoder: what is in it, how it is batched, and whose it is."""

import shutil

import numpy as np
import pytest
import torch
from speechlike import SETTINGS, voice

from encoders_support import save_model
from makermark import encoders, features
from makermark.errors import FeatureCacheError, ParamsError
from makermark.features.cache import FeatureCache, write_cache

LIMITS = {
    "shard_utterances": 4,
    "max_bad_fraction": 0.5,
    "min_seconds": 0.5,
    "max_seconds": 60.0,
    "workers": 2,
}


def front_end_of(model, **changes):
    return features.build("wav2vec2", model=str(model), **{**SETTINGS["wav2vec2"], **changes})


@pytest.mark.parametrize("layer", ["last", 1])
def test_features_are_the_encoders_states_to_float16_rounding(layer, encoder_folder):
    front_end = front_end_of(encoder_folder, layer=layer)
    waveforms = [voice(s, seed=i) for i, s in enumerate([0.6, 2.0, 1.1])]
    encoder = encoders.load(encoder_folder, layer=layer).eval()
    assert front_end.width == encoder.width == 32
    for waveform, made in zip(waveforms, front_end.transform(waveforms), strict=True):
        with torch.no_grad():
            (state,), _ = encoder(torch.from_numpy(waveform)[None])
        assert made.dtype == np.float16
        np.testing.assert_allclose(made, state[0].numpy(), rtol=2**-10, atol=1e-4)


def test_whispers_encoder_makes_the_same_cache_of_its_own(tmp_path, corpus):
    front_end = front_end_of(save_model(tmp_path, "whisper"))
    report = write_cache(corpus, front_end, tmp_path / "out", **LIMITS)
    cache = FeatureCache.open(report.folder, front_end.parameters())
    assert cache.dtype == np.float16
    assert cache.width == 32
    samples = [round((0.6 + 0.15 * number) * 16000) for number in range(11)]
    assert cache.frames.tolist() == [-(-count // 320) for count in samples]


@pytest.mark.parametrize("batch_seconds", [0.1, 2.0, 5.0, 1000.0])
def test_batches_hold_neighbours_in_length_and_no_more_than_allowed(
    batch_seconds, encoder_folder, monkeypatch
):
    front_end = front_end_of(encoder_folder, batch_seconds=batch_seconds)
    waveforms = [voice(s, seed=i) for i, s in enumerate([0.7, 1.5, 0.5, 1.2, 0.9, 0.8])]
    passes, whole = [], front_end._pass
    monkeypatch.setattr(front_end, "_pass", lambda batch: passes.append([*map(len, batch)]) or whole(batch))
    made = front_end.transform(waveforms)
    assert all(len(batch) == 1 or len(batch) * max(batch) <= batch_seconds * 16000 for batch in passes)
    assert [n for batch in passes for n in batch] == sorted(map(len, waveforms))
    assert len(passes) == {0.1: 6, 2.0: 4, 5.0: 2, 1000.0: 1}[batch_seconds]
    for waveform, one in zip(waveforms, made, strict=True):
        np.testing.assert_allclose(one.astype(float), front_end.transform([waveform])[0], atol=2**-8)


@pytest.mark.parametrize("lengths", ["local", "mlaad"])
def test_a_shard_of_whole_utterances_passes_with_little_padding(lengths, encoder_folder):
    """The seconds of the local corpus (about normal, 2.2 to 6.2), and 2 to 8 s evenly as MLAAD's, gathered as
    make_shard does."""
    rng = np.random.default_rng(0)
    drawn = {"local": np.clip(rng.normal(3.76, 0.57, 512), 2.2, 6.2), "mlaad": rng.uniform(2, 8, 512)}[
        lengths
    ]
    front_end = front_end_of(encoder_folder, batch_seconds=60.0)
    counts = np.round(16000 * drawn).astype(int)
    gathered = 1 + np.searchsorted(np.cumsum(counts), front_end.samples_at_once)
    waveforms = [np.empty(count, np.float32) for count in counts[:gathered]]
    batches = list(front_end._by_length(waveforms))
    passed = sum(len(batch) * max(len(waveforms[i]) for i in batch) for batch in batches)
    assert 0 <= 1 - sum(map(len, waveforms)) / passed < 0.05


def test_the_same_model_in_another_folder_reads_the_cache(encoder_folder, corpus, tmp_path):
    write_cache(corpus, front_end_of(encoder_folder), tmp_path / "out", **LIMITS)
    shutil.copytree(encoder_folder, tmp_path / "moved")
    moved = front_end_of(tmp_path / "moved")
    FeatureCache.open(tmp_path / "out" / "wav2vec2", moved.parameters())
    assert write_cache(corpus, moved, tmp_path / "out", **LIMITS).shards_kept == 3


def test_a_cache_of_another_model_or_layer_is_refused_and_the_difference_named(
    encoder_folder, corpus, tmp_path
):
    write_cache(corpus, front_end_of(encoder_folder), tmp_path / "out", **LIMITS)
    here = tmp_path / "out" / "wav2vec2"
    with pytest.raises(FeatureCacheError, match=r"layer is last in the cache, 2 asked for"):
        FeatureCache.open(here, front_end_of(encoder_folder, layer=2).parameters())
    retrained = front_end_of(save_model(tmp_path, "layer", seed=1))
    with pytest.raises(FeatureCacheError, match=r"wav2vec2: weights_sha256 is \w+ in the cache, \w+ asked"):
        FeatureCache.open(here, retrained.parameters())
    whisper = front_end_of(save_model(tmp_path, "whisper"))
    with pytest.raises(
        FeatureCacheError, match="model is wav2vec2, 32 wide in the cache, whisper, 32 wide asked"
    ):
        FeatureCache.open(here, whisper.parameters())


def test_making_one_looks_at_no_model():
    front_end = front_end_of("nowhere/at-all")
    assert front_end.frames_per_second == 50
    assert front_end.name == "wav2vec2"


def test_a_learned_sum_of_layers_cannot_be_cached(encoder_folder):
    with pytest.raises(ParamsError, match=r"ssl\.layer: weighted is learned in training"):
        front_end_of(encoder_folder, layer="weighted")


def test_what_is_too_large_for_float16_is_limited_to_it(encoder_folder):
    front_end = front_end_of(encoder_folder)
    encoder = front_end._loaded()
    with torch.no_grad():
        encoder.model.encoder.layer_norm.bias.fill_(1e6)
    (made,) = front_end.transform([voice(0.5, seed=1)])
    assert made.max() == 65504

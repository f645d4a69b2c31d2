"""Front end of a frozen encoder: features, batches, and the cache parameters."""

import shutil

import numpy as np
import pytest
import torch
from speechlike import SETTINGS, voice

from encoders_support import save_model
from makermark import features
from makermark.features import encoders
from makermark.features.cache import FeatureCache
from makermark.features.cache_writer import write_cache
from makermark.foundation.errors import FeatureCacheError, ParamsError

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
def test_features_equal_encoder_states_up_to_float16_rounding(layer, encoder_folder):
    front_end = front_end_of(encoder_folder, layer=layer)
    waveforms = [voice(s, seed=i) for i, s in enumerate([0.6, 2.0, 1.1])]
    encoder = encoders.load(encoder_folder, layer=layer).eval()
    assert front_end.width == encoder.width == 32
    for waveform, output in zip(waveforms, front_end.transform(waveforms), strict=True):
        with torch.no_grad():
            (state,), _ = encoder(torch.from_numpy(waveform)[None])
        assert output.dtype == np.float16
        np.testing.assert_allclose(output, state[0].numpy(), rtol=2**-10, atol=1e-4)


def test_whisper_encoder_writes_cache(tmp_path, corpus):
    front_end = front_end_of(save_model(tmp_path, "whisper"))
    report = write_cache(corpus, front_end, tmp_path / "out", **LIMITS)
    cache = FeatureCache.open(report.folder, front_end.parameters())
    assert cache.dtype == np.float16
    assert cache.width == 32
    samples = [round((0.6 + 0.15 * number) * 16000) for number in range(11)]
    assert cache.frames.tolist() == [-(-count // 320) for count in samples]


@pytest.mark.parametrize("batch_seconds", [0.1, 2.0, 5.0, 1000.0])
def test_batches_hold_similar_lengths_up_to_batch_seconds(batch_seconds, encoder_folder, monkeypatch):
    front_end = front_end_of(encoder_folder, batch_seconds=batch_seconds)
    waveforms = [voice(s, seed=i) for i, s in enumerate([0.7, 1.5, 0.5, 1.2, 0.9, 0.8])]
    passes, encode = [], front_end._encode
    monkeypatch.setattr(
        front_end, "_encode", lambda batch: passes.append([*map(len, batch)]) or encode(batch)
    )
    output = front_end.transform(waveforms)
    assert all(len(batch) == 1 or len(batch) * max(batch) <= batch_seconds * 16000 for batch in passes)
    assert [n for batch in passes for n in batch] == sorted(map(len, waveforms))
    assert len(passes) == {0.1: 6, 2.0: 4, 5.0: 2, 1000.0: 1}[batch_seconds]
    for waveform, one in zip(waveforms, output, strict=True):
        np.testing.assert_allclose(one.astype(float), front_end.transform([waveform])[0], atol=2**-8)


@pytest.mark.parametrize("lengths", ["local", "mlaad"])
def test_length_batches_of_a_shard_have_little_padding(lengths, encoder_folder):
    """Durations as in the local corpus (about normal, 2.2 to 6.2 s) and in MLAAD (uniform, 2 to 8 s), collected as
    by build_shard."""
    rng = np.random.default_rng(0)
    drawn = {"local": np.clip(rng.normal(3.76, 0.57, 512), 2.2, 6.2), "mlaad": rng.uniform(2, 8, 512)}[
        lengths
    ]
    front_end = front_end_of(encoder_folder, batch_seconds=60.0)
    counts = np.round(16000 * drawn).astype(int)
    collected = 1 + np.searchsorted(np.cumsum(counts), front_end.chunk_samples)
    waveforms = [np.empty(count, np.float32) for count in counts[:collected]]
    batches = list(front_end._length_batches(waveforms))
    passed = sum(len(batch) * max(len(waveforms[i]) for i in batch) for batch in batches)
    assert 0 <= 1 - sum(map(len, waveforms)) / passed < 0.05


def test_cache_does_not_depend_on_folder_of_model(encoder_folder, corpus, tmp_path):
    write_cache(corpus, front_end_of(encoder_folder), tmp_path / "out", **LIMITS)
    shutil.copytree(encoder_folder, tmp_path / "moved")
    moved = front_end_of(tmp_path / "moved")
    FeatureCache.open(tmp_path / "out" / "wav2vec2", moved.parameters())
    assert write_cache(corpus, moved, tmp_path / "out", **LIMITS).shards_reused == 3


def test_cache_open_raises_for_other_model_or_layer(encoder_folder, corpus, tmp_path):
    write_cache(corpus, front_end_of(encoder_folder), tmp_path / "out", **LIMITS)
    folder = tmp_path / "out" / "wav2vec2"
    with pytest.raises(FeatureCacheError, match=r"layer is last in the cache, 2 in the params"):
        FeatureCache.open(folder, front_end_of(encoder_folder, layer=2).parameters())
    retrained = front_end_of(save_model(tmp_path, "layer", seed=1))
    with pytest.raises(
        FeatureCacheError, match=r"wav2vec2: weights_sha256 is \w+ in the cache, \w+ in the params"
    ):
        FeatureCache.open(folder, retrained.parameters())
    whisper = front_end_of(save_model(tmp_path, "whisper"))
    with pytest.raises(
        FeatureCacheError, match="model is wav2vec2, 32 wide in the cache, whisper, 32 wide in the params"
    ):
        FeatureCache.open(folder, whisper.parameters())


def test_constructor_reads_no_model():
    front_end = front_end_of("nowhere/at-all")
    assert front_end.frames_per_second == 50
    assert front_end.name == "wav2vec2"


def test_ssl_features_raise_for_weighted_layers(encoder_folder):
    with pytest.raises(ParamsError, match=r"ssl\.layer: weighted is learned in training"):
        front_end_of(encoder_folder, layer="weighted")


def test_features_are_clamped_to_float16_range(encoder_folder):
    front_end = front_end_of(encoder_folder)
    encoder = front_end._load_encoder()
    with torch.no_grad():
        encoder.model.encoder.layer_norm.bias.fill_(1e6)
    (output,) = front_end.transform([voice(0.5, seed=1)])
    assert output.max() == 65504

"""Features of augmented speech, and a cache read together with its augmented copies."""

import dataclasses

import numpy as np
import pytest

from makermark import features
from makermark.features.augmentation.training_augmentation import AugmentedFrontEnd
from makermark.features.cache import FeatureCache
from makermark.features.cache_writer import remove_unlisted_caches, write_cache
from makermark.foundation.errors import FeatureCacheError, ParamsError
from makermark.training.crops import HostCrops, VariantCrops
from tests_support import FBANK, speech_corpus, tone

CACHE_SETTINGS = {
    "shard_utterances": 10,
    "max_bad_fraction": 0,
    "min_seconds": 0.1,
    "max_seconds": 60,
    "workers": 1,
}


def noisy(copy=0):
    return AugmentedFrontEnd(features.build("fbank", **FBANK), kind="noise", copy=copy)


def test_augmented_features_have_same_length_and_differ_by_copy():
    waveforms = [tone(5.0, np.random.default_rng(n)).astype(np.float32) for n in range(2)]
    clean = features.build("fbank", **FBANK).transform(waveforms)
    first, again, second = (
        noisy().transform(waveforms),
        noisy().transform(waveforms[::-1])[::-1],
        noisy(1).transform(waveforms),
    )
    for plain, one, same, other in zip(clean, first, again, second, strict=True):
        assert plain.shape == one.shape
        assert (one != same).mean() < 0.01  # except for the last bit, which depends on the batch
        assert (one != plain).mean() > 0.5
        assert (one != other).mean() > 0.5
    assert noisy(1).name == "fbank-noise-1"
    assert noisy(1).parameters() != noisy().parameters() != features.build("fbank", **FBANK).parameters()


def test_augmented_waveform_keeps_length_and_dtype():
    waveforms = tone(5.0, np.random.default_rng(0)).astype(np.float32)
    (plain,) = features.build("waveform", sample_rate_hz=16000).transform([waveforms])
    (augmented,) = AugmentedFrontEnd(
        features.build("waveform", sample_rate_hz=16000), kind="codec", copy=0
    ).transform([waveforms])
    assert augmented.shape == plain.shape
    assert augmented.dtype == plain.dtype
    assert 0.4 < np.corrcoef(augmented[:, 0], plain[:, 0])[0, 1] < 1


def test_augmented_front_end_raises_for_other_sample_rate():
    other = features.build("fbank", **{**FBANK, "sample_rate_hz": 8000})
    with pytest.raises(ParamsError, match=r"augment: codec: front end fbank takes 8000 Hz"):
        AugmentedFrontEnd(other, kind="codec", copy=0)


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    """Clean features of all splits and augmented copies of train: (folder, manifest, clean, copies)."""
    folder = tmp_path_factory.mktemp("copies")
    manifest, front_end = speech_corpus(folder)
    train = dataclasses.replace(manifest, rows=manifest.rows[manifest.rows["split"] == "train"])
    write_cache(manifest, front_end, folder / "f", **CACHE_SETTINGS)
    for copy in (0, 1):
        write_cache(train, noisy(copy), folder / "f", **CACHE_SETTINGS)
    clean = FeatureCache.open(folder / "f/fbank", front_end.parameters())
    copies = [FeatureCache.open(folder / "f" / noisy(c).name, noisy(c).parameters()) for c in (0, 1)]
    return folder / "f", train, clean, copies


def test_augmented_view_holds_clean_and_augmented_utterances(caches):
    _, train, clean, copies = caches
    names = train.rows["utterance_id"].tolist()[::-1]
    stacked, rows = clean.stack_augmented(copies, names)
    for number, cache in enumerate([clean, *copies]):
        for index, name in enumerate(names):
            (own,) = cache.find_rows([name])
            np.testing.assert_array_equal(
                stacked.read_utterance(int(rows[number * len(names) + index])),
                cache.read_utterance(int(own)),
            )
    assert len(rows) == 3 * len(names)


def test_augmented_view_without_copies_equals_cache(caches):
    _, train, clean, _ = caches
    stacked, rows = clean.stack_augmented([], train.rows["utterance_id"].tolist())
    np.testing.assert_array_equal(rows, clean.find_rows(train.rows["utterance_id"]))
    assert stacked.fingerprint == clean.fingerprint


@pytest.mark.parametrize("clean_fraction", [0.5, 0.0, 1.0])
def test_variants_are_drawn_with_their_probabilities(caches, clean_fraction):
    _, train, clean, copies = caches
    stacked, rows = clean.stack_augmented(copies, train.rows["utterance_id"].tolist())
    crops = VariantCrops(
        HostCrops(stacked, rows, frames=20),
        utterances=len(train.rows),
        variants=3,
        clean_fraction=clean_fraction,
    )
    batch = np.tile(np.arange(len(train.rows)), 20)
    cut = crops.cut(crops.draw(batch, np.random.default_rng(3))).numpy()
    np.testing.assert_array_equal(cut, crops.cut(crops.draw(batch, np.random.default_rng(3))))
    counts = np.zeros(3)
    for position, crop in zip(batch, cut, strict=True):
        utterances = [stacked.read_utterance(int(rows[position + n * len(train.rows)])) for n in range(3)]
        starts = [
            np.flatnonzero((utterance[: len(utterance) - 19] == crop[0]).all(axis=1))
            for utterance in utterances
        ]
        holds = [
            any((w[s : s + 20] == crop).all() for s in at) for w, at in zip(utterances, starts, strict=True)
        ]
        assert sum(holds) == 1
        counts += holds
    expected = np.array([clean_fraction, *[(1 - clean_fraction) / 2] * 2])
    deviation = np.sqrt(expected * (1 - expected) / len(batch))
    assert (np.abs(counts / len(batch) - expected) <= 4 * deviation).all()


def test_augmented_view_raises_for_missing_utterance(caches):
    _, _, clean, copies = caches
    with pytest.raises(FeatureCacheError, match=r"12 of 36 utterances are not in the feature cache"):
        clean.stack_augmented(copies, clean.utterance_ids.tolist())


def test_augmented_caches_are_reused_and_removed_when_unlisted(caches):
    folder, train, _, _ = caches
    assert write_cache(train, noisy(), folder, **CACHE_SETTINGS).shards_reused == 3
    remove_unlisted_caches(folder, keep=["fbank", noisy().name])
    assert sorted(path.name for path in folder.iterdir()) == ["fbank", "fbank-noise-0"]

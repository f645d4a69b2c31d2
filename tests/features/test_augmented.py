"""Features of degraded speech, and a cache that is read together with its degraded copies."""

import dataclasses

import numpy as np
import pytest

from makermark import features
from makermark.errors import FeatureCacheError, ParamsError
from makermark.features.augmented import Augmented
from makermark.features.cache import FeatureCache, write_cache
from makermark.features.copies import with_copies
from makermark.features.writing import remove_other_caches
from makermark.training.crops import AmongCopies, HostCrops
from tests_support import FBANK, tone, tone_corpus

HOW = {"shard_utterances": 10, "max_bad_fraction": 0, "min_seconds": 0.1, "max_seconds": 60, "workers": 1}


def noisy(copy=0):
    return Augmented(features.build("fbank", **FBANK), kind="noise", copy=copy)


def test_copies_are_as_long_as_the_original_and_differ_from_it_and_one_another():
    given = [tone(5.0, np.random.default_rng(n)).astype(np.float32) for n in range(2)]
    clean = features.build("fbank", **FBANK).transform(given)
    first, again, second = (
        noisy().transform(given),
        noisy().transform(given[::-1])[::-1],
        noisy(1).transform(given),
    )
    for plain, one, same, other in zip(clean, first, again, second, strict=True):
        assert plain.shape == one.shape
        assert (one != same).mean() < 0.01  # but for the last bit, as any batch of fbank
        assert (one != plain).mean() > 0.5
        assert (one != other).mean() > 0.5
    assert noisy(1).name == "fbank-noise-1"
    assert noisy(1).parameters() != noisy().parameters() != features.build("fbank", **FBANK).parameters()


def test_the_waveform_too():
    given = tone(5.0, np.random.default_rng(0)).astype(np.float32)
    (plain,) = features.build("waveform", sample_rate_hz=16000).transform([given])
    (heard,) = Augmented(features.build("waveform", sample_rate_hz=16000), kind="codec", copy=0).transform(
        [given]
    )
    assert heard.shape == plain.shape
    assert heard.dtype == plain.dtype
    assert 0.4 < np.corrcoef(heard[:, 0], plain[:, 0])[0, 1] < 1


def test_another_rate_is_refused():
    other = features.build("fbank", **{**FBANK, "sample_rate_hz": 8000})
    with pytest.raises(ParamsError, match=r"augment: codec: front end fbank takes 8000 Hz"):
        Augmented(other, kind="codec", copy=0)


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    """Clean features of all, degraded copies of train: (folder, manifest, clean, copies)."""
    folder = tmp_path_factory.mktemp("copies")
    manifest, front_end = tone_corpus(folder)
    train = dataclasses.replace(manifest, rows=manifest.rows[manifest.rows["split"] == "train"])
    write_cache(manifest, front_end, folder / "f", **HOW)
    for copy in (0, 1):
        write_cache(train, noisy(copy), folder / "f", **HOW)
    clean = FeatureCache.open(folder / "f/fbank", front_end.parameters())
    copies = [FeatureCache.open(folder / "f" / noisy(c).name, noisy(c).parameters()) for c in (0, 1)]
    return folder / "f", train, clean, copies


def test_together_they_hold_each_utterance_clean_and_as_every_copy_has_it(caches):
    _, train, clean, copies = caches
    names = train.rows["utterance_id"].tolist()[::-1]
    together, rows = with_copies(clean, copies, names)
    for number, cache in enumerate([clean, *copies]):
        for place, name in enumerate(names):
            (own,) = cache.rows_of([name])
            np.testing.assert_array_equal(
                together.whole(int(rows[number * len(names) + place])), cache.whole(int(own))
            )
    assert len(rows) == 3 * len(names)


def test_without_copies_the_cache_is_read_as_ever(caches):
    _, train, clean, _ = caches
    together, rows = with_copies(clean, [], train.rows["utterance_id"].tolist())
    np.testing.assert_array_equal(rows, clean.rows_of(train.rows["utterance_id"]))
    assert together.fingerprint == clean.fingerprint


def test_each_of_them_is_drawn_as_often(caches):
    _, train, clean, copies = caches
    together, rows = with_copies(clean, copies, train.rows["utterance_id"].tolist())
    crops = AmongCopies(HostCrops(together, rows, frames=20), utterances=len(train.rows), variants=3)
    batch = np.tile(np.arange(len(train.rows)), 20)
    found = crops.cut(crops.draw(batch, np.random.default_rng(3))).numpy()
    np.testing.assert_array_equal(found, crops.cut(crops.draw(batch, np.random.default_rng(3))))
    of = np.zeros(3)
    for position, crop in zip(batch, found, strict=True):
        wholes = [together.whole(int(rows[position + n * len(train.rows)])) for n in range(3)]
        starts = [np.flatnonzero((whole[: len(whole) - 19] == crop[0]).all(axis=1)) for whole in wholes]
        holds = [any((w[s : s + 20] == crop).all() for s in at) for w, at in zip(wholes, starts, strict=True)]
        assert sum(holds) == 1
        of += holds
    assert np.abs(of / len(batch) - 1 / 3).max() < 4 * np.sqrt(2 / 9 / len(batch))


def test_what_a_copy_lacks_is_refused(caches):
    _, _, clean, copies = caches
    with pytest.raises(FeatureCacheError, match=r"12 of 36 utterances are not in the feature cache"):
        with_copies(clean, copies, clean.utterance_ids.tolist())


def test_copies_are_kept_when_they_are_there_and_go_when_they_are_no_longer_asked_for(caches):
    folder, train, _, _ = caches
    assert write_cache(train, noisy(), folder, **HOW).shards_kept == 3
    remove_other_caches(folder, keep=["fbank", noisy().name])
    assert sorted(path.name for path in folder.iterdir()) == ["fbank", "fbank-noise-0"]

"""Reading of a feature cache: errors, crops, length batches, memory."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from speechlike import SETTINGS, row, voice

from makermark.features import FRONT_ENDS
from makermark.features.cache import STEPS_PER_OCTAVE, FeatureCache
from makermark.features.cache_writer import write_cache
from makermark.features.shard import Shard
from makermark.foundation.errors import FeatureCacheError
from makermark.foundation.manifest import Manifest


@pytest.fixture
def written(corpus, make_front_end, tmp_path):
    """Caches of all front ends, 11 utterances in 3 shards."""
    for name in FRONT_ENDS:
        write_cache(
            corpus, make_front_end(name), tmp_path / "größe 1", shard_utterances=4, workers=1,
            max_bad_fraction=0, min_seconds=0.5, max_seconds=60,
        )  # fmt: skip
    return tmp_path / "größe 1"


@pytest.fixture
def cache(written, make_front_end):
    return FeatureCache.open(written / "fbank", make_front_end().parameters())


@pytest.fixture(params=FRONT_ENDS)
def any_cache(request, written, make_front_end):
    return FeatureCache.open(written / request.param, make_front_end(request.param).parameters())


def test_open_raises_for_other_parameters(written, make_front_end):
    with pytest.raises(
        FeatureCacheError, match="n_fft is 512 in the cache, 400 in the params; run the features"
    ):
        FeatureCache.open(written / "fbank", make_front_end(n_fft=400).parameters())
    with pytest.raises(
        FeatureCacheError, match=r"n_mels is 40 .*, 80 in the params; log_offset is 1e-06 .*, 1e-09"
    ):
        FeatureCache.open(written / "fbank", make_front_end(n_mels=80, log_offset=1e-9).parameters())


def test_open_raises_for_other_front_end(written, make_front_end):
    with pytest.raises(FeatureCacheError, match="front_end is waveform in the cache, fbank in the params"):
        FeatureCache.open(written / "waveform", make_front_end("fbank").parameters())


def test_open_raises_for_unfinished_cache(tmp_path, written, make_front_end):
    with pytest.raises(FeatureCacheError, match=r"no finished feature cache .* run the features stage"):
        FeatureCache.open(tmp_path / "nowhere", make_front_end().parameters())
    (written / "fbank" / "index.json").unlink()
    with pytest.raises(FeatureCacheError, match="no finished feature cache"):
        FeatureCache.open(written / "fbank", make_front_end().parameters())


def test_open_raises_for_missing_shard(written, make_front_end):
    (written / "fbank" / "shard-00001.arrow").unlink()
    with pytest.raises(FeatureCacheError, match=r"shard-00001\.arrow: missing; run the features stage again"):
        FeatureCache.open(written / "fbank", make_front_end().parameters())


@pytest.mark.parametrize("remaining_bytes", [0, 7, 1000, -1])
def test_open_raises_for_truncated_shard(remaining_bytes, written, make_front_end):
    path = written / "fbank" / "shard-00002.arrow"
    path.write_bytes(path.read_bytes()[:remaining_bytes])
    with pytest.raises(
        FeatureCacheError, match=r"shard-00002\.arrow: damaged .* run the features stage again"
    ):
        FeatureCache.open(written / "fbank", make_front_end().parameters())


def test_open_raises_for_swapped_shard(written, make_front_end):
    shutil.copy(written / "fbank" / "shard-00000.arrow", written / "fbank" / "shard-00001.arrow")
    with pytest.raises(FeatureCacheError, match=r"shard-00001\.arrow: not the shard listed in index\.json"):
        FeatureCache.open(written / "fbank", make_front_end().parameters())


def test_flipped_bits_are_detected(written, make_front_end):
    """`open` or `verify` raises an error that names the shard, or the features are unchanged."""
    parameters = make_front_end().parameters()
    path = written / "fbank" / "shard-00001.arrow"
    utterance = path.read_bytes()
    before = FeatureCache.open(written / "fbank", parameters)
    expected = [before.read_utterance(row).copy() for row in range(11)]
    del before
    rng, caught = np.random.default_rng(0), 0
    for position in rng.integers(len(utterance), size=150):
        content = bytearray(utterance)
        content[position] ^= 1 << int(rng.integers(8))
        path.unlink()
        path.write_bytes(content)
        refusal = error_message(written / "fbank", parameters)
        if refusal:
            assert "shard-00001.arrow: damaged" in refusal or "not the shard listed" in refusal
            caught += 1
            continue
        cache = FeatureCache.open(written / "fbank", parameters)
        for number in range(11):
            np.testing.assert_array_equal(cache.read_utterance(number), expected[number])
    assert caught > 130


def error_message(folder, parameters):
    try:
        FeatureCache.open(folder, parameters).verify()
    except FeatureCacheError as error:
        return str(error)
    return ""


def test_read_utterance_returns_view_without_copy(written, make_front_end):
    before = pa.total_allocated_bytes()
    cache = FeatureCache.open(written / "waveform", make_front_end("waveform").parameters())
    view = cache.read_utterance(3)
    assert pa.total_allocated_bytes() == before
    assert not view.flags.owndata
    assert not view.flags.writeable
    assert np.shares_memory(view, cache.read_utterance(3))


def test_fingerprint_depends_on_parameters_and_contents(corpus, written, make_front_end, tmp_path):
    parameters = make_front_end().parameters()
    first = FeatureCache.open(written / "fbank", parameters).fingerprint
    assert FeatureCache.open(written / "fbank", parameters).fingerprint == first

    def fingerprint(rows, **changes):
        front_end = make_front_end(**changes)
        folder = tmp_path / str(len(rows)) / str(changes)
        write_cache(
            type(corpus)("other", corpus.root, rows), front_end, folder, shard_utterances=4, workers=1,
            max_bad_fraction=0, min_seconds=0.5, max_seconds=60,
        )  # fmt: skip
        return FeatureCache.open(folder / "fbank", front_end.parameters()).fingerprint

    assert fingerprint(corpus.rows) == first
    assert len({first, fingerprint(corpus.rows.head(10)), fingerprint(corpus.rows, n_mels=41)}) == 3


def test_find_rows_returns_rows_in_requested_order(cache, corpus):
    requested = corpus.rows["utterance_id"].sample(frac=1, random_state=1)
    rows = cache.find_rows(requested)
    assert rows.dtype == np.int64
    assert cache.utterance_ids[rows].tolist() == requested.tolist()
    assert cache.find_rows([]).tolist() == []


def test_find_rows_raises_for_missing_utterances(cache):
    with pytest.raises(FeatureCacheError, match=r"2 of 3 utterances .* first 'ghost'.*quarantine"):
        cache.find_rows(pd.Series([cache.utterance_ids[0], "ghost", "spook"]))


@given(
    rows=st.lists(st.integers(0, 10), min_size=1, max_size=30),
    share=st.floats(0.1, 3.0),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_crops_are_parts_of_the_repeated_utterance(opened, rows, share, seed):
    for cache in opened:
        frames = max(1, int(share * np.median(cache.frames)))
        crops = cache.read_crops(np.array(rows), frames=frames, rng=np.random.default_rng(seed))
        assert crops.shape == (len(rows), frames, cache.width)
        assert crops.dtype == cache.dtype
        again = cache.read_crops(np.array(rows), frames=frames, rng=np.random.default_rng(seed))
        np.testing.assert_array_equal(crops, again)
        for crop, position in zip(crops, rows, strict=True):
            assert is_crop_of(crop, cache.read_utterance(position))


def is_crop_of(crop, utterance):
    """Return whether `crop` is a part of the utterance, or of its repetition if it is shorter."""
    length, frames = len(utterance), len(crop)
    choices = length - frames + 1 if length >= frames else length
    starts = np.flatnonzero((utterance[:choices] == crop[0]).all(axis=1))
    return any(np.array_equal(utterance[(start + np.arange(frames)) % length], crop) for start in starts)


@pytest.fixture(scope="module")
def opened(tmp_path_factory, make_front_end):
    """Caches of all front ends, written once for the property test."""
    root = tmp_path_factory.mktemp("audio")
    rows = []
    for number in range(11):
        path = root / f"{number}.wav"
        soundfile.write(path, voice(0.05 + 0.03 * number, seed=number), 16000)
        rows.append(row(path))
    caches = []
    for name in FRONT_ENDS:
        front_end = make_front_end(name)
        report = write_cache(
            Manifest("test", root, pd.DataFrame(rows)), front_end, root / "out", shard_utterances=4,
            workers=1, max_bad_fraction=0, min_seconds=0.05, max_seconds=60,
        )  # fmt: skip
        caches.append(FeatureCache.open(report.folder, front_end.parameters()))
    return caches


def test_crop_starts_are_uniform(cache):
    row = 0
    frames = int(cache.frames[row]) - 4  # five possible starts
    rows = np.full(5000, row)
    crops = cache.read_crops(rows, frames=frames, rng=np.random.default_rng(0))
    utterance = cache.read_utterance(row)
    counts = [np.sum([np.array_equal(c, utterance[s : s + frames]) for c in crops[:1000]]) for s in range(5)]
    assert sum(counts) == 1000
    assert min(counts) > 150  # 200 expected, standard deviation 13


def test_crop_of_full_length_is_the_utterance(any_cache):
    length = int(any_cache.frames[4])
    (crop,) = any_cache.read_crops(np.array([4]), frames=length, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(crop, any_cache.read_utterance(4))


def test_length_batches_hold_every_utterance_once(any_cache):
    rows = np.array([7, 2, 10, 0, 5, 6, 1])
    limit = int(2.5 * any_cache.frames.max())
    seen = []
    for positions, features, lengths in any_cache.length_batches(rows, max_frames=limit):
        batch = rows[positions]
        assert features.dtype == any_cache.dtype
        assert features.shape[::2] == (len(batch), any_cache.width)
        assert lengths.max() <= features.shape[1] <= lengths.max() * (1 + 1 / STEPS_PER_OCTAVE)
        assert len(batch) == 1 or features.shape[0] * features.shape[1] <= limit
        for position, padded, length in zip(batch, features, lengths, strict=True):
            np.testing.assert_array_equal(padded[:length], any_cache.read_utterance(position))
            assert not padded[length:].any()
        seen += batch.tolist()
    assert sorted(seen) == sorted(rows.tolist())
    frame_counts = any_cache.frames[seen]
    assert (np.diff(frame_counts) >= 0).all()


@pytest.mark.parametrize("lengths", ["local", "mlaad"])
def test_length_batches_have_little_padding_and_few_shapes(lengths):
    """Durations as in the local corpus (about normal, 2.2 to 6.2 s) and in MLAAD (uniform, 2 to 8 s)."""
    rng = np.random.default_rng(0)
    drawn = {"local": np.clip(rng.normal(3.76, 0.57, 3000), 2.2, 6.2), "mlaad": rng.uniform(2, 8, 5000)}[
        lengths
    ]
    frames = np.round(100 * drawn).astype(np.int32)
    cache = FeatureCache([silent_shard(frames)], {})
    batches = [
        features.shape[:2] for _, features, _ in cache.length_batches(np.arange(len(frames)), max_frames=6000)
    ]
    assert 0 <= 1 - frames.sum() / sum(size * length for size, length in batches) < 0.05
    assert len({length for _, length in batches}) <= 65
    assert len(set(batches)) < len(batches)


def silent_shard(frames):
    values = np.zeros((int(frames.sum()), 1), np.int16)
    names = [f"{number:05d}" for number in range(len(frames))]
    return Shard(
        path=Path("none"), identity="", checksum=0, quarantine=[], utterance_ids=names, frames=frames, values=values,
    )  # fmt: skip


def test_pages_are_released_after_reading(written, make_front_end, monkeypatch):
    """Views stay valid: their pages are read again on the next access."""
    monkeypatch.setattr("makermark.features.cache.MAX_TOUCHED_BYTES", 1)
    cache = FeatureCache.open(written / "waveform", make_front_end("waveform").parameters())
    view = cache.read_utterance(0)
    before = view.copy()
    assert resident_kb(view) > 0
    cache.read_crops(np.array([1]), frames=10, rng=np.random.default_rng(0))
    cache.read_utterance(10)
    assert resident_kb(view) == 0
    np.testing.assert_array_equal(view, before)
    cache.verify()
    assert resident_kb(view) == 0


def resident_kb(view):
    """Return the resident size in kB of the memory mapping of `view`, from /proc/self/smaps."""
    address, inside = view.__array_interface__["data"][0], False
    smaps = Path("/proc/self/smaps")
    if not smaps.exists():
        pytest.skip("needs /proc/self/smaps")
    for line in smaps.read_text().splitlines():
        name, *rest = line.split()
        if "-" in name and ":" not in name:
            first, last = (int(part, 16) for part in name.split("-"))
            inside = first <= address < last
        elif inside and name == "Rss:":
            return int(rest[0])
    raise AssertionError("the view is in no mapping")


def test_length_batches_repeat_utterances_below_min_frames(any_cache):
    longest = int(any_cache.frames.max())
    for batch, features, lengths in any_cache.length_batches(
        np.arange(11), max_frames=10**6, min_frames=longest + 7
    ):
        assert (lengths == longest + 7).all()
        for position, repeated in zip(batch, features[:, : longest + 7], strict=True):
            utterance = any_cache.read_utterance(position)
            np.testing.assert_array_equal(repeated, utterance[np.arange(longest + 7) % len(utterance)])


def test_length_batches_give_long_utterances_alone(cache):
    sizes = [len(batch) for batch, _, _ in cache.length_batches(np.arange(11), max_frames=1)]
    assert sizes == [1] * 11


def test_cache_opens_without_soundfile_soxr_and_torch(written, make_front_end):
    """Machines that only train need not have the first two; torch is slow to import."""
    script = (
        "import sys\n"
        "for absent in ('soundfile', 'soxr', 'torch', 'torchaudio'): sys.modules[absent] = None\n"
        "from pathlib import Path\n"
        "from makermark import features\n"
        "from makermark.features.cache import FeatureCache\n"
        f"front_end = features.build('fbank', **{SETTINGS['fbank']!r})\n"
        "cache = FeatureCache.open(Path(sys.argv[1]), front_end.parameters())\n"
        "cache.verify()\n"
        "print(len(cache.frames))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(written / "fbank")], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("11", "")

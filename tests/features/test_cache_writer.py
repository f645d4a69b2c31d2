"""Writing of a feature cache: rejected files, repeated runs, interrupted runs."""

import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import soundfile
from speechlike import row, voice

from makermark.features import FRONT_ENDS
from makermark.features.cache import FeatureCache
from makermark.features.cache_writer import QUARANTINE, remove_unlisted_caches, write_cache
from makermark.features.shard import INDEX, ExtractionConfig, Row, build_shard
from makermark.foundation.errors import AudioError
from makermark.foundation.manifest import Manifest

LIMITS = {"max_bad_fraction": 0.5, "min_seconds": 0.5, "max_seconds": 60.0}


def write(manifest, front_end, folder, **changes):
    return write_cache(
        manifest, front_end, folder, **{"shard_utterances": 4, "workers": 2, **LIMITS, **changes}
    )


def shard_bytes(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*/shard-*.arrow"))}


def modification_times(folder):
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("*/shard-*.arrow"))}


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_write_cache_stores_features_of_each_file(name, corpus, make_front_end, tmp_path):
    front_end = make_front_end(name)
    report = write(corpus, front_end, tmp_path / "out")
    cache = FeatureCache.open(report.folder, front_end.parameters())
    assert (report.shards, report.shards_reused, report.utterances, report.quarantined) == (3, 0, 11, 0)
    assert cache.utterance_ids.tolist() == corpus.rows["utterance_id"].tolist()
    seconds = 0.0
    for number, path in enumerate(corpus.rows["path"]):
        samples, _ = soundfile.read(corpus.root / path, dtype="float32")
        (expected,) = front_end.transform([samples])
        np.testing.assert_allclose(cache.read_utterance(number), expected, atol=2**-7)
        seconds += len(samples) / 16000
    assert report.hours * 3600 == pytest.approx(seconds, rel=0.02)


def test_build_shard_is_deterministic(corpus, make_front_end):
    config = ExtractionConfig(front_end=make_front_end(), root=corpus.root, min_seconds=0.5, max_seconds=60)
    rows = [Row(*values) for values in corpus.rows.itertuples(index=False)]
    first, second = build_shard(rows, config), build_shard(rows, config)
    assert first.equals(second, check_metadata=True)
    assert first.schema.field("utterance_id").type == pa.string()
    assert first.schema.field("frames").type == pa.int32()
    assert first.schema.field("features").type == pa.large_list(pa.float16())
    message = json.loads(first.schema.metadata[b"makermark"])
    assert message["parameters"] == config.front_end.parameters()
    assert message["versions"]["torch"].startswith("2.")


def test_shards_do_not_depend_on_number_of_workers(corpus, make_front_end, tmp_path):
    write(corpus, make_front_end(), tmp_path / "one", workers=1)
    write(corpus, make_front_end(), tmp_path / "three", workers=3)
    assert shard_bytes(tmp_path / "one") == shard_bytes(tmp_path / "three")
    assert len(shard_bytes(tmp_path / "one")) == 3


def test_second_run_reuses_all_shards(corpus, make_front_end, tmp_path):
    write(corpus, make_front_end(), tmp_path)
    before, index = modification_times(tmp_path), (tmp_path / "fbank" / INDEX).read_bytes()
    report = write(corpus, make_front_end(), tmp_path)
    assert report.shards_reused == 3
    assert modification_times(tmp_path) == before
    assert (tmp_path / "fbank" / INDEX).read_bytes() == index


@pytest.mark.parametrize(
    "change",
    [{"n_mels": 20}, {"log_offset": 1e-5}, {"hop_length": 80}],
    ids=str,
)
def test_other_parameters_rebuild_all_shards(change, corpus, make_front_end, tmp_path):
    write(corpus, make_front_end(), tmp_path)
    report = write(corpus, make_front_end(**change), tmp_path)
    assert report.shards_reused == 0
    FeatureCache.open(tmp_path / "fbank", make_front_end(**change).parameters())


def test_changed_rows_rebuild_only_their_shards(corpus, make_front_end, tmp_path):
    write(corpus, make_front_end(), tmp_path)
    changed = corpus.root / corpus.rows["path"][5]  # in the second of three shards
    soundfile.write(changed, voice(1.0, seed=77), 16000)
    rows = corpus.rows.copy()
    rows.loc[5] = row(changed)
    report = write(Manifest("test", corpus.root, rows), make_front_end(), tmp_path)
    assert report.shards_reused == 2
    cache = FeatureCache.open(report.folder, make_front_end().parameters())
    assert cache.frames[5] == 101


def test_leftover_shards_and_drafts_are_removed(corpus, make_front_end, tmp_path):
    write(corpus, make_front_end(), tmp_path)
    (tmp_path / "fbank" / ".shard-00001.arrow.abc.draft.arrow").write_bytes(b"half")
    shorter = Manifest("test", corpus.root, corpus.rows.head(4))
    report = write(shorter, make_front_end(), tmp_path)
    assert (report.shards, report.shards_reused) == (1, 1)
    names = sorted(path.name for path in report.folder.iterdir())
    assert names == [INDEX, QUARANTINE, "shard-00000.arrow"]


def test_remove_unlisted_caches_removes_only_caches(corpus, make_front_end, tmp_path):
    for name in ("fbank", "waveform"):
        write(corpus, make_front_end(name), tmp_path / "features")
    (tmp_path / "features/notes").mkdir()
    remove_unlisted_caches(tmp_path / "features", keep=["waveform"])
    assert sorted(path.name for path in (tmp_path / "features").iterdir()) == ["notes", "waveform"]


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_shard_is_rebuilt_identically(damage, corpus, make_front_end, tmp_path):
    write(corpus, make_front_end(), tmp_path)
    before = shard_bytes(tmp_path)
    path = tmp_path / "fbank" / "shard-00001.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content[:-100] if damage == "cut" else content)
    report = write(corpus, make_front_end(), tmp_path)
    assert report.shards_reused == 2
    assert shard_bytes(tmp_path) == before


@pytest.fixture
def bad_corpus(corpus):
    """Eleven usable and five unusable files, with the expected reasons."""
    root = corpus.root
    (root / "empty.wav").write_bytes(b"")
    (root / "text.wav").write_text("This is not audio. " * 50)
    soundfile.write(root / "short.wav", voice(0.01, seed=1), 16000)
    with_nan = voice(1.0, seed=2)
    with_nan[100] = np.nan
    soundfile.write(root / "nan.wav", with_nan, 16000, subtype="FLOAT")
    expected = {
        "empty.wav": "empty: 0 bytes",
        "text.wav": "not audio",
        "short.wav": "too short: 0.010 s, at least 0.5 s are needed",
        "nan.wav": "NaN or infinite samples: 1 of 16000",
        "gone.wav": "missing",
    }
    rows = [row(root / name) for name in expected]
    table = pd.concat([corpus.rows.head(6), pd.DataFrame(rows), corpus.rows.tail(5)], ignore_index=True)
    return Manifest("test", root, table), expected


def quarantine_of(folder):
    with (folder / "fbank" / QUARANTINE).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_unusable_files_are_listed_with_reasons(bad_corpus, make_front_end, tmp_path):
    manifest, expected = bad_corpus
    report = write(manifest, make_front_end(), tmp_path)
    assert (report.utterances, report.quarantined) == (11, 5)
    listed = quarantine_of(tmp_path)
    assert [entry["path"] for entry in listed] == list(expected)
    for entry in listed:
        assert entry["reason"].startswith(expected[entry["path"]])
        assert entry["utterance_id"] == "id-" + entry["path"].removesuffix(".wav")
    cache = FeatureCache.open(report.folder, make_front_end().parameters())
    assert set(cache.utterance_ids) == {i for i in manifest.rows["utterance_id"] if "id-ü" in i}
    assert write(manifest, make_front_end(), tmp_path).shards_reused == 4
    assert quarantine_of(tmp_path) == listed


def test_write_cache_raises_for_too_many_unusable_files(bad_corpus, make_front_end, tmp_path):
    manifest, _ = bad_corpus
    with pytest.raises(AudioError) as failure:
        write(manifest, make_front_end(), tmp_path, max_bad_fraction=0.3)
    message = str(failure.value)
    assert "\n" not in message
    assert "5 of 16" in message
    assert "empty.wav (empty: 0 bytes)" in message
    assert str(tmp_path / "fbank" / QUARANTINE) in message
    assert len(quarantine_of(tmp_path)) == 5
    assert not (tmp_path / "fbank" / INDEX).exists()


def test_write_cache_accepts_max_bad_fraction(bad_corpus, make_front_end, tmp_path):
    manifest, _ = bad_corpus
    assert write(manifest, make_front_end(), tmp_path, max_bad_fraction=5 / 16).quarantined == 5


def test_write_cache_raises_without_usable_files(corpus, make_front_end, tmp_path):
    moved = replace(corpus, root=tmp_path / "moved")
    with pytest.raises(AudioError, match=r"11 of 11 .* \(missing"):
        write(moved, make_front_end(), tmp_path, max_bad_fraction=1.0)


def test_shard_without_usable_files_is_valid(bad_corpus, make_front_end, tmp_path):
    manifest, _ = bad_corpus
    report = write(manifest, make_front_end(), tmp_path, shard_utterances=1)
    assert report.shards == 16
    cache = FeatureCache.open(report.folder, make_front_end().parameters())
    cache.verify()
    assert len(cache.frames) == 11


def test_repaired_file_is_added_by_next_run(bad_corpus, make_front_end, tmp_path):
    manifest, _ = bad_corpus
    path = manifest.root / "short.wav"
    manifest.rows.loc[manifest.rows["path"] == "gone.wav", "sha256"] = ""  # unknown
    manifest.rows.loc[manifest.rows["path"] == "short.wav", "sha256"] = ""
    write(manifest, make_front_end(), tmp_path)
    soundfile.write(manifest.root / "gone.wav", voice(1, seed=4), 16000)
    soundfile.write(path, voice(2, seed=5), 16000)
    report = write(manifest, make_front_end(), tmp_path)
    assert report.quarantined == 3
    assert report.shards_reused < report.shards


def test_changed_audio_is_rejected(corpus, make_front_end, tmp_path):
    path = corpus.rows["path"][2]
    soundfile.write(corpus.root / path, voice(1.0, seed=78), 16000)
    write(corpus, make_front_end(), tmp_path)
    (listed,) = quarantine_of(tmp_path)
    assert listed["path"] == path
    assert "changed since the manifest was made" in listed["reason"]


def test_killed_run_resumes_and_reuses_finished_shards(corpus, make_front_end, tmp_path):
    """A separate process is killed with SIGKILL after three of eleven shards."""
    write(corpus, make_front_end(), tmp_path / "undisturbed", shard_utterances=1)
    corpus.rows.to_pickle(tmp_path / "rows.pickle")
    slowed = textwrap.dedent(f"""
        import time, sys
        from pathlib import Path
        import pandas as pd
        from makermark import features
        from makermark.foundation.manifest import Manifest
        from makermark.features.cache_writer import write_cache

        class Slow(features.Fbank):
            def transform(self, waveforms):
                time.sleep(0.1)
                return super().transform(waveforms)

        settings = dict(sample_rate_hz=16000, n_fft=512, win_length=400, hop_length=160, n_mels=40, log_offset=1e-6)
        manifest = Manifest("test", Path({str(corpus.root)!r}), pd.read_pickle({str(tmp_path / "rows.pickle")!r}))
        write_cache(manifest, Slow(**settings), Path({str(tmp_path / "killed")!r}), shard_utterances=1, workers=2,
                    max_bad_fraction=0.5, min_seconds=0.5, max_seconds=60.0)
    """)
    process = subprocess.Popen([sys.executable, "-c", slowed], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 600
    while len(finished := modification_times(tmp_path / "killed")) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = modification_times(tmp_path / "killed")
    assert 3 <= len(finished) < 11
    assert not (tmp_path / "killed" / "fbank" / INDEX).exists()
    report = write(corpus, make_front_end(), tmp_path / "killed", shard_utterances=1)
    assert report.shards_reused == len(finished)
    assert {name: modification_times(tmp_path / "killed")[name] for name in finished} == finished
    assert shard_bytes(tmp_path / "killed") == shard_bytes(tmp_path / "undisturbed")
    assert not list((tmp_path / "killed" / "fbank").glob(".*"))

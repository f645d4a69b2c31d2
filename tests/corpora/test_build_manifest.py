"""The manifest of a listing: unusable files are rejected, usable files are read once, options take effect."""

import csv
import functools
import hashlib
import struct

import numpy as np
import pandas as pd
import pytest
import soundfile

from makermark import features
from makermark.corpora import build_manifest
from makermark.corpora.listing import Listing
from makermark.corpora.splits import assign_splits
from makermark.features.cache_writer import write_cache
from makermark.foundation import audio
from makermark.foundation.errors import CorpusError
from makermark.foundation.manifest import read_manifest
from tests_support import FBANK

SPLIT = {
    "everything_in": "",
    "seed": 0,
    "dev_unseen_systems": 1,
    "test_unseen_systems": 1,
    "dev_unseen_languages": 0,
    "test_unseen_languages": 0,
    "dev_fraction": 0.2,
    "test_fraction": 0.2,
    "disjoint": ["voice", "text"],
}
SETTINGS = {
    "corpus": "manifest",
    "split": functools.partial(assign_splits, **SPLIT),
    "label": "system",
    "dedupe": True,
    "strata_from": "train",
    "max_bad_fraction": 0.5,
    "workers": 2,
}


def write_noise(path, seconds=1.0, rate_hz=16000, channels=1, seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng([seed, *path.as_posix().encode()]).uniform(
        -0.1, 0.1, int(seconds * rate_hz)
    )
    soundfile.write(path, np.stack([noise] * channels, axis=1), rate_hz, **options)
    return path


@pytest.fixture
def corpus(tmp_path):
    """Two systems, a third in dev only, and their listing."""
    systems = {"train": ("bark", "xtts"), "dev": ("bark", "vits"), "test": ("xtts",)}
    rows = [
        {"path": f"{system}/{name}{n}.flac", "system": system, "split": name, "language": "en"}
        for name, split_systems in systems.items()
        for system in split_systems
        for n in range(2)
    ]
    for row in rows:
        write_noise(tmp_path / "audio" / row["path"])
    return Listing(rows=pd.DataFrame(rows), root=tmp_path / "audio", source="corpus.csv")


def build(folder, listing, **changes):
    build_manifest.build_manifest(folder, listing, **SETTINGS | changes)
    return read_manifest(folder / "manifest.parquet")


def with_rows(listing, *rows, **columns):
    table = pd.concat([listing.rows, pd.DataFrame(rows)], ignore_index=True).assign(**columns)
    return Listing(rows=table, root=listing.root, source=listing.source)


def rejected(folder):
    with (folder / "rejected.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_manifest_has_duration_and_sha256_of_every_file(corpus, tmp_path):
    manifest = build(tmp_path / "corpus", corpus)
    assert manifest.corpus == "manifest"
    assert manifest.root == corpus.root
    assert len(manifest.rows) == len(corpus.rows)
    for row in manifest.rows.itertuples():
        assert row.duration_s == pytest.approx(1.0)
        assert row.sha256 == hashlib.sha256((corpus.root / row.path).read_bytes()).hexdigest()
        assert row.utterance_id == row.path
    assert sorted(file.name for file in (tmp_path / "corpus").iterdir()) == [
        "looked.jsonl", "manifest.parquet", "rejected.csv",
    ]  # fmt: skip


def test_system_in_dev_only_is_unseen(corpus, tmp_path, caplog):
    caplog.set_level("INFO")
    rows = build(tmp_path / "corpus", corpus).rows
    assert not rows["system_seen"][rows["system"] == "vits"].any()
    assert rows["system_seen"][rows["system"] != "vits"].all()
    first = 1 + corpus.rows.index[corpus.rows["system"] == "vits"][0]
    summary = (
        "corpus.csv: train 4 utterances of 2 systems; "
        f"dev 4 utterances of 2 systems, 1 of them not in train: vits (first in row {first}); "
        "test 2 utterances of 1 systems, 0 of them not in train"
    )
    assert summary in caplog.text


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


def overstate_length(path):
    content = bytearray(path.read_bytes())
    offset = content.index(b"data") + 4
    content[offset : offset + 4] = struct.pack("<I", 10**6)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "missing: there is no such file"),
        (lambda path: path.write_bytes(b""), "empty: 0 bytes"),
        (lambda path: path.write_text("no audio"), "not audio"),
    ],
)
def test_unusable_file_is_rejected_with_its_row_and_reason(corpus, tmp_path, caplog, damage, reason):
    damage(write_noise(corpus.root / "bark/new.wav"))
    listing = with_rows(corpus, {"path": "bark/new.wav", "system": "bark", "split": "train"})
    manifest = build(tmp_path / "corpus", listing)
    assert "bark/new.wav" not in set(manifest.rows["path"])
    (bad,) = rejected(tmp_path / "corpus")
    assert (bad["row"], bad["path"]) == ("11", "bark/new.wav")
    assert bad["reason"].startswith(reason)
    assert "corpus.csv, row 11: bark/new.wav is left out: " in caplog.text


@pytest.mark.parametrize(
    ("damage", "stated_s", "present_s"), [(truncate, 1, 0.96875), (overstate_length, 31.25, 1)]
)
def test_samples_that_are_present_are_used_with_a_warning(
    corpus, tmp_path, caplog, damage, stated_s, present_s
):
    path = write_noise(corpus.root / "bark/new.wav")
    damage(path)
    listing = with_rows(corpus, {"path": "bark/new.wav", "system": "bark", "split": "train"})
    manifest = build(tmp_path / "corpus", listing)
    duration_s = manifest.rows.set_index("path")["duration_s"]["bark/new.wav"]
    assert duration_s == pytest.approx(present_s, abs=1e-4)
    note = f"{path}: its header states {stated_s:.2f} s, {present_s:.2f} s are present and used"
    assert note in caplog.messages


def test_too_many_unusable_files_raise_and_name_the_first(corpus, tmp_path):
    for path in corpus.rows["path"][:2]:
        (corpus.root / path).unlink()
    with pytest.raises(CorpusError) as caught:
        build(tmp_path / "corpus", corpus, max_bad_fraction=0.1)
    message = str(caught.value)
    assert message.startswith(
        f"corpus.csv: 2 of 10 files cannot be used, the first in row 1: {corpus.root}/bark/train0"
    )
    assert "\n" not in message
    assert len(rejected(tmp_path / "corpus")) == 2
    assert not (tmp_path / "corpus/manifest.parquet").exists()


def test_no_usable_file_raises_for_any_allowed_fraction(corpus, tmp_path):
    missing_root = Listing(rows=corpus.rows, root=tmp_path / "missing", source="corpus.csv")
    with pytest.raises(CorpusError, match="10 of 10 files cannot be used"):
        build(tmp_path / "corpus", missing_root, max_bad_fraction=1.0)


def test_unusual_intact_audio_is_accepted_and_left_to_the_feature_stage(corpus, tmp_path):
    unusual = {
        "8khz.wav": write_noise(corpus.root / "8khz.wav", rate_hz=8000),
        "stereo.wav": write_noise(corpus.root / "stereo.wav", channels=2, rate_hz=44100),
        "10ms.wav": write_noise(corpus.root / "10ms.wav", seconds=0.01),
        "30min.wav": write_noise(corpus.root / "30min.wav", seconds=1800, rate_hz=8000, subtype="PCM_U8"),
        "nan.wav": write_noise(corpus.root / "nan.wav", subtype="FLOAT"),
    }
    samples, rate_hz = soundfile.read(unusual["nan.wav"])
    samples[5] = np.nan
    soundfile.write(unusual["nan.wav"], samples, rate_hz, subtype="FLOAT")
    listing = with_rows(corpus, *({"path": name, "system": "bark", "split": "train"} for name in unusual))
    manifest = build(tmp_path / "corpus", listing)
    durations = manifest.rows.set_index("path")["duration_s"]
    assert durations[list(unusual)].tolist() == pytest.approx([1, 1, 0.01, 1800, 1])
    write_cache(
        manifest, features.build("fbank", **FBANK), tmp_path / "features",
        shard_utterances=64, max_bad_fraction=0.5, min_seconds=0.5, max_seconds=60.0, workers=1,
    )  # fmt: skip
    with (tmp_path / "features/fbank/quarantine.csv").open(newline="") as file:
        reason_of = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert reason_of.keys() == {"10ms.wav", "30min.wav", "nan.wav"}
    assert reason_of["10ms.wav"].startswith("too short: 0.010 s")
    assert reason_of["30min.wav"].startswith("too long: 1800.0 s")
    assert reason_of["nan.wav"].startswith("NaN or infinite samples: 1 of")


def test_checked_file_is_read_again_only_after_a_change(corpus, tmp_path, monkeypatch):
    read, look = [], audio.probe
    monkeypatch.setattr(audio, "probe", lambda path: (read.append(path.name), look(path))[1])
    build(tmp_path / "corpus", corpus)
    assert len(read) == 10
    read.clear()
    build(tmp_path / "corpus", corpus, dedupe=False)
    assert read == []
    changed = write_noise(corpus.root / "bark/train0.flac", seconds=2.0)
    manifest = build(tmp_path / "corpus", corpus)
    assert read == ["train0.flac"]
    row = manifest.rows.set_index("path").loc["bark/train0.flac"]
    assert row["duration_s"] == pytest.approx(2.0)
    assert row["sha256"] == hashlib.sha256(changed.read_bytes()).hexdigest()


def test_killed_run_continues_with_the_cached_files(corpus, tmp_path, monkeypatch):
    build(tmp_path / "corpus", corpus)
    cache = tmp_path / "corpus/looked.jsonl"
    lines = cache.read_text().splitlines(keepends=True)
    cache.write_text("".join(lines[:7]) + lines[7][:20])  # the first line is empty
    read, look = [], audio.probe
    monkeypatch.setattr(audio, "probe", lambda path: (read.append(path.name), look(path))[1])
    build(tmp_path / "corpus", corpus)
    assert len(read) == 4
    read.clear()
    build(tmp_path / "corpus", corpus)
    assert read == []


def test_repeated_audio_stays_once_in_train(corpus, tmp_path):
    (corpus.root / "bark/dev0.flac").write_bytes((corpus.root / "bark/train0.flac").read_bytes())
    paths = set(build(tmp_path / "corpus", corpus).rows["path"])
    assert "bark/train0.flac" in paths
    assert "bark/dev0.flac" not in paths
    assert "bark/dev0.flac" in set(build(tmp_path / "corpus", corpus, dedupe=False).rows["path"])


def test_repeated_row_is_dropped_or_numbered(corpus, tmp_path):
    repeated = with_rows(corpus, corpus.rows.iloc[0].to_dict())
    assert len(build(tmp_path / "corpus", repeated).rows) == 10
    path_of = build(tmp_path / "corpus", repeated, dedupe=False).rows.set_index("utterance_id")["path"]
    assert len(path_of) == 11
    assert path_of["bark/train0.flac#2"] == path_of["bark/train0.flac"] == "bark/train0.flac"


def test_one_id_for_two_files_raises_without_dedupe_too(corpus, tmp_path):
    named = Listing(corpus.rows.assign(utterance_id="one"), corpus.root, corpus.source)
    first, second = corpus.rows["path"][:2]
    with pytest.raises(CorpusError) as caught:
        build(tmp_path / "corpus", named, dedupe=False)
    assert str(caught.value).startswith(
        f"corpus.csv, row 2: utterance_id 'one' has path '{second}', but '{first}' in row 1; "
    )
    assert not (tmp_path / "corpus").exists()  # raised before any file is read


def test_listing_without_splits_is_split_by_the_given_label(corpus, tmp_path):
    rows = pd.DataFrame(
        [{"path": f"{v}/{n}.flac", "system": f"{v}-{n % 2}", "vocoder": v} for v in "abcd" for n in range(10)]
    )
    for path in rows["path"]:
        write_noise(corpus.root / path)
    listing = Listing(rows=rows, root=corpus.root)
    rows = build(tmp_path / "corpus", listing, label="vocoder").rows
    assert set(rows["system"]) == set("abcd")
    assert rows[rows["split"] == "train"]["system"].nunique() == 2
    with pytest.raises(CorpusError, match="has no acoustic_model"):
        build(tmp_path / "corpus", listing, label="acoustic_model")


def test_other_corpus_is_replaced_on_success_only(corpus, tmp_path):
    folder = tmp_path / "corpus"
    build(folder, corpus)
    before = (folder / "manifest.parquet").read_bytes()
    with build_manifest.replace_other_corpus(folder, corpus="manifest") as same:
        assert same == folder

    def fail_half_way():
        with build_manifest.replace_other_corpus(folder, corpus="local") as new:
            new.mkdir()
            (new / "half.txt").touch()
            raise CorpusError("half way")

    with pytest.raises(CorpusError, match="half way"):
        fail_half_way()
    assert (folder / "manifest.parquet").read_bytes() == before
    with build_manifest.replace_other_corpus(folder, corpus="local") as new:
        assert (new / "half.txt").exists()  # the next run continues
        (new / "new.txt").touch()
    assert sorted(file.name for file in folder.iterdir()) == ["half.txt", "new.txt"]
    assert sorted(file.name for file in tmp_path.iterdir() if "corpus" in file.name) == ["corpus"]
    with build_manifest.replace_other_corpus(folder, corpus="local") as empty:
        assert empty == folder


def test_same_audio_of_two_systems_raises_and_all_rows_are_listed(corpus, tmp_path):
    for n in range(2):
        content = (corpus.root / f"bark/train{n}.flac").read_bytes()
        (corpus.root / f"xtts/train{n}.flac").write_bytes(content)
    (corpus.root / "vits/dev0.flac").unlink()
    row_of = {path: n for n, path in enumerate(corpus.rows["path"], start=1)}
    with pytest.raises(CorpusError) as caught:
        build(tmp_path / "corpus", corpus)
    table = tmp_path / "corpus/rejected.csv"
    assert str(caught.value) == (
        f"corpus.csv, row {row_of['xtts/train0.flac']}: xtts/train0.flac has system 'xtts', but 'bark/train0.flac' in "
        f"row {row_of['bark/train0.flac']} has the same bytes and system 'bark'; 2 such files are listed in {table}; "
        "remove one row of each pair, or set external.dedupe: false to keep both"
    )
    rejected_of = {row["path"]: (int(row["row"]), row["reason"]) for row in rejected(tmp_path / "corpus")}
    assert rejected_of.keys() == {"xtts/train0.flac", "xtts/train1.flac", "vits/dev0.flac"}
    assert rejected_of["xtts/train1.flac"][0] == row_of["xtts/train1.flac"]
    assert "'bark/train1.flac' in row" in rejected_of["xtts/train1.flac"][1]
    assert len(build(tmp_path / "corpus", corpus, dedupe=False).rows) == 9


def test_repeated_file_is_in_one_split_without_dedupe(corpus, tmp_path):
    rows = pd.DataFrame([{"path": f"{s}/{n}.flac", "system": s} for s in "abcd" for n in range(10)])
    for path in rows["path"]:
        write_noise(corpus.root / path)
    repeated = Listing(rows=pd.concat([rows, rows], ignore_index=True), root=corpus.root)
    rows = build(tmp_path / "corpus", repeated, dedupe=False).rows
    assert len(rows) == 80
    assert rows.groupby("path")["split"].nunique().max() == 1


def test_cache_of_another_folder_is_used_and_not_changed(corpus, tmp_path, monkeypatch):
    build(tmp_path / "main", corpus)
    cache = tmp_path / "main" / build_manifest.AUDIO_INFO_CACHE
    cache.write_text(cache.read_text() + "\n5\n[]")  # invalid lines are ignored
    before = cache.read_bytes()
    monkeypatch.setattr(audio, "probe", lambda path: pytest.fail(f"{path} was read"))
    assert len(build(tmp_path / "copy", corpus, read_only_cache=cache).rows) == len(corpus.rows)
    assert cache.read_bytes() == before


def test_changed_table_is_logged_when_the_manifest_is_read(corpus, tmp_path, caplog):
    table = tmp_path / "corpus.csv"
    corpus.rows.to_csv(table, index=False)
    listing = Listing(corpus.rows, corpus.root, str(table), tables=(table,))
    build(tmp_path / "corpus", listing)
    assert "changed since" not in caplog.text
    table.write_text(table.read_text() + "x.wav,bark,train,en\n")
    read_manifest(tmp_path / "corpus/manifest.parquet")
    assert f"{table}: changed since" in caplog.text
    assert "dvc repro -f download" in caplog.text
    caplog.clear()
    table.unlink()  # as on a machine with the manifest only
    read_manifest(tmp_path / "corpus/manifest.parquet")
    assert caplog.text == ""

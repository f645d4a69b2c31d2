"""From a listing to the manifest: bad files are named, good ones looked at once, choices are carried out."""

import csv
import functools
import hashlib
import struct

import numpy as np
import pandas as pd
import pytest
import soundfile

from makermark import audio, features
from makermark.corpora import making
from makermark.corpora.listing import Listing
from makermark.corpora.rows import read_manifest
from makermark.corpora.splitting import split
from makermark.errors import CorpusError
from makermark.features.cache import write_cache
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
    "split": functools.partial(split, **SPLIT),
    "label": "system",
    "dedupe": True,
    "strata_from": "train",
    "max_bad_fraction": 0.5,
    "workers": 2,
}


def sound(path, seconds=1.0, rate_hz=16000, channels=1, seed=0, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng([seed, *path.as_posix().encode()]).uniform(
        -0.1, 0.1, int(seconds * rate_hz)
    )
    soundfile.write(path, np.stack([noise] * channels, axis=1), rate_hz, **how)
    return path


@pytest.fixture
def corpus(tmp_path):
    """Two systems, a third in dev only, and their listing."""
    systems = {"train": ("bark", "xtts"), "dev": ("bark", "vits"), "test": ("xtts",)}
    rows = [
        {"path": f"{system}/{name}{n}.flac", "system": system, "split": name, "language": "en"}
        for name, there in systems.items()
        for system in there
        for n in range(2)
    ]
    for row in rows:
        sound(tmp_path / "audio" / row["path"])
    return Listing(rows=pd.DataFrame(rows), root=tmp_path / "audio", source="corpus.csv")


def make(folder, listing, **changes):
    making.make(folder, listing, **SETTINGS | changes)
    return read_manifest(folder / "manifest.parquet")


def with_rows(listing, *rows, **columns):
    table = pd.concat([listing.rows, pd.DataFrame(rows)], ignore_index=True).assign(**columns)
    return Listing(rows=table, root=listing.root, source=listing.source)


def rejected(folder):
    with (folder / "rejected.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_file_has_its_duration_and_hash_and_stays_where_it_is(corpus, tmp_path):
    manifest = make(tmp_path / "corpus", corpus)
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


def test_a_system_in_dev_only_is_an_unseen_system(corpus, tmp_path, caplog):
    caplog.set_level("INFO")
    rows = make(tmp_path / "corpus", corpus).rows
    assert not rows["system_seen"][rows["system"] == "vits"].any()
    assert rows["system_seen"][rows["system"] != "vits"].all()
    first = 1 + corpus.rows.index[corpus.rows["system"] == "vits"][0]
    said = f"dev 4 utterances of 2 systems, 1 of them not in train: vits (first in row {first}); "
    assert (
        "corpus.csv: train 4 utterances of 2 systems; "
        + said
        + "test 2 utterances of 1 systems, 0 of them not in train"
        in caplog.text
    )


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


def lie_about_length(path):
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", 10**6)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.unlink(), "missing: there is no such file"),
        (lambda path: path.write_bytes(b""), "empty: 0 bytes"),
        (lambda path: path.write_text("hello"), "not audio"),
        (truncate, "truncated: its header says"),
        (lie_about_length, "truncated: its header says"),
    ],
)
def test_a_file_that_cannot_be_used_is_left_out_and_named_with_its_row(
    corpus, tmp_path, caplog, spoil, reason
):
    spoil(sound(corpus.root / "bark/new.wav"))
    listing = with_rows(corpus, {"path": "bark/new.wav", "system": "bark", "split": "train"})
    manifest = make(tmp_path / "corpus", listing)
    assert "bark/new.wav" not in set(manifest.rows["path"])
    (bad,) = rejected(tmp_path / "corpus")
    assert (bad["row"], bad["path"]) == ("11", "bark/new.wav")
    assert bad["reason"].startswith(reason)
    assert "corpus.csv, row 11: bark/new.wav is left out: " in caplog.text


def test_more_bad_files_than_allowed_stop_with_the_first_and_the_table(corpus, tmp_path):
    for path in corpus.rows["path"][:2]:
        (corpus.root / path).unlink()
    with pytest.raises(CorpusError) as caught:
        make(tmp_path / "corpus", corpus, max_bad_fraction=0.1)
    said = str(caught.value)
    assert said.startswith(
        f"corpus.csv: 2 of 10 files cannot be used, the first in row 1: {corpus.root}/bark/train0"
    )
    assert "\n" not in said
    assert len(rejected(tmp_path / "corpus")) == 2
    assert not (tmp_path / "corpus/manifest.parquet").exists()


def test_no_usable_file_stops_whatever_is_allowed(corpus, tmp_path):
    nowhere = Listing(rows=corpus.rows, root=tmp_path / "elsewhere", source="corpus.csv")
    with pytest.raises(CorpusError, match="10 of 10 files cannot be used"):
        make(tmp_path / "corpus", nowhere, max_bad_fraction=1.0)


def test_odd_but_whole_audio_is_taken_and_what_no_model_can_use_is_left_to_the_features(corpus, tmp_path):
    odd = {
        "8khz.wav": sound(corpus.root / "8khz.wav", rate_hz=8000),
        "stereo.wav": sound(corpus.root / "stereo.wav", channels=2, rate_hz=44100),
        "10ms.wav": sound(corpus.root / "10ms.wav", seconds=0.01),
        "30min.wav": sound(corpus.root / "30min.wav", seconds=1800, rate_hz=8000, subtype="PCM_U8"),
        "nan.wav": sound(corpus.root / "nan.wav", subtype="FLOAT"),
    }
    samples, rate_hz = soundfile.read(odd["nan.wav"])
    samples[5] = np.nan
    soundfile.write(odd["nan.wav"], samples, rate_hz, subtype="FLOAT")
    listing = with_rows(corpus, *({"path": name, "system": "bark", "split": "train"} for name in odd))
    manifest = make(tmp_path / "corpus", listing)
    durations = manifest.rows.set_index("path")["duration_s"]
    assert durations[list(odd)].tolist() == pytest.approx([1, 1, 0.01, 1800, 1])
    write_cache(
        manifest, features.build("fbank", **FBANK), tmp_path / "features",
        shard_utterances=64, max_bad_fraction=0.5, min_seconds=0.5, max_seconds=60.0, workers=1,
    )  # fmt: skip
    with (tmp_path / "features/fbank/quarantine.csv").open(newline="") as file:
        said = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert said.keys() == {"10ms.wav", "30min.wav", "nan.wav"}
    assert said["10ms.wav"].startswith("too short: 0.010 s")
    assert said["30min.wav"].startswith("too long: 1800.0 s")
    assert said["nan.wav"].startswith("NaN or infinite samples: 1 of")


def test_what_was_looked_at_is_not_read_again_unless_it_changed(corpus, tmp_path, monkeypatch):
    read, look = [], audio.look
    monkeypatch.setattr(audio, "look", lambda path: (read.append(path.name), look(path))[1])
    make(tmp_path / "corpus", corpus)
    assert len(read) == 10
    read.clear()
    make(tmp_path / "corpus", corpus, dedupe=False)
    assert read == []
    changed = sound(corpus.root / "bark/train0.flac", seconds=2.0)
    manifest = make(tmp_path / "corpus", corpus)
    assert read == ["train0.flac"]
    row = manifest.rows.set_index("path").loc["bark/train0.flac"]
    assert row["duration_s"] == pytest.approx(2.0)
    assert row["sha256"] == hashlib.sha256(changed.read_bytes()).hexdigest()


def test_a_run_killed_while_looking_goes_on_with_what_it_had_seen(corpus, tmp_path, monkeypatch):
    make(tmp_path / "corpus", corpus)
    memory = tmp_path / "corpus/looked.jsonl"
    lines = memory.read_text().splitlines(keepends=True)
    memory.write_text("".join(lines[:7]) + lines[7][:20])  # the first line is empty
    read, look = [], audio.look
    monkeypatch.setattr(audio, "look", lambda path: (read.append(path.name), look(path))[1])
    make(tmp_path / "corpus", corpus)
    assert len(read) == 4
    read.clear()
    make(tmp_path / "corpus", corpus)
    assert read == []


def test_the_same_bytes_twice_stay_once_in_train(corpus, tmp_path):
    (corpus.root / "bark/dev0.flac").write_bytes((corpus.root / "bark/train0.flac").read_bytes())
    paths = set(make(tmp_path / "corpus", corpus).rows["path"])
    assert "bark/train0.flac" in paths
    assert "bark/dev0.flac" not in paths
    assert "bark/dev0.flac" in set(make(tmp_path / "corpus", corpus, dedupe=False).rows["path"])


def test_a_repeated_row_is_dropped_or_named_apart(corpus, tmp_path):
    twice = with_rows(corpus, corpus.rows.iloc[0].to_dict())
    assert len(make(tmp_path / "corpus", twice).rows) == 10
    kept = make(tmp_path / "corpus", twice, dedupe=False).rows.set_index("utterance_id")
    assert len(kept) == 11
    assert kept["path"]["bark/train0.flac#2"] == kept["path"]["bark/train0.flac"] == "bark/train0.flac"


def test_two_files_under_one_name_are_refused_even_where_repetitions_are_kept(corpus, tmp_path):
    named = Listing(corpus.rows.assign(utterance_id="one"), corpus.root, corpus.source)
    first, second = corpus.rows["path"][:2]
    with pytest.raises(CorpusError) as caught:
        make(tmp_path / "corpus", named, dedupe=False)
    assert str(caught.value).startswith(
        f"corpus.csv, row 2: utterance_id 'one' is '{second}', but '{first}' in row 1; "
    )
    assert not (tmp_path / "corpus").exists()  # before any file was looked at


def test_a_listing_without_splits_is_split_and_another_label_is_traced(corpus, tmp_path):
    rows = pd.DataFrame(
        [{"path": f"{v}/{n}.flac", "system": f"{v}-{n % 2}", "vocoder": v} for v in "abcd" for n in range(10)]
    )
    for path in rows["path"]:
        sound(corpus.root / path)
    listing = Listing(rows=rows, root=corpus.root)
    made = make(tmp_path / "corpus", listing, label="vocoder").rows
    assert set(made["system"]) == set("abcd")
    assert made[made["split"] == "train"]["system"].nunique() == 2
    with pytest.raises(CorpusError, match="has no acoustic_model"):
        make(tmp_path / "corpus", listing, label="acoustic_model")


def test_another_corpus_leaves_nothing_behind(corpus, tmp_path):
    make(tmp_path / "corpus", corpus)
    making.clear_other(tmp_path / "corpus", corpus="manifest")
    assert (tmp_path / "corpus/manifest.parquet").exists()
    making.clear_other(tmp_path / "corpus", corpus="local")
    assert not (tmp_path / "corpus").exists()
    making.clear_other(tmp_path / "corpus", corpus="local")
    assert all((corpus.root / path).exists() for path in corpus.rows["path"])


def test_the_same_bytes_under_two_systems_are_all_listed_with_their_rows(corpus, tmp_path):
    for n in range(2):
        content = (corpus.root / f"bark/train{n}.flac").read_bytes()
        (corpus.root / f"xtts/train{n}.flac").write_bytes(content)
    (corpus.root / "vits/dev0.flac").unlink()
    row = {path: n for n, path in enumerate(corpus.rows["path"], start=1)}
    with pytest.raises(CorpusError) as caught:
        make(tmp_path / "corpus", corpus)
    table = tmp_path / "corpus/rejected.csv"
    assert str(caught.value) == (
        f"corpus.csv, row {row['xtts/train0.flac']}: xtts/train0.flac has system 'xtts', but 'bark/train0.flac' in row "
        f"{row['bark/train0.flac']} has the same bytes and system 'bark'; 2 files are filed so, listed in {table}: "
        "remove one row of each, or set external.dedupe: false"
    )
    there = {each["path"]: (int(each["row"]), each["reason"]) for each in rejected(tmp_path / "corpus")}
    assert there.keys() == {"xtts/train0.flac", "xtts/train1.flac", "vits/dev0.flac"}
    assert there["xtts/train1.flac"][0] == row["xtts/train1.flac"]
    assert "'bark/train1.flac' in row" in there["xtts/train1.flac"][1]
    assert len(make(tmp_path / "corpus", corpus, dedupe=False).rows) == 9


def test_without_splits_and_with_repetitions_kept_no_file_stands_in_two_splits(corpus, tmp_path):
    rows = pd.DataFrame([{"path": f"{s}/{n}.flac", "system": s} for s in "abcd" for n in range(10)])
    for path in rows["path"]:
        sound(corpus.root / path)
    twice = Listing(rows=pd.concat([rows, rows], ignore_index=True), root=corpus.root)
    made = make(tmp_path / "corpus", twice, dedupe=False).rows
    assert len(made) == 80
    assert made.groupby("path")["split"].nunique().max() == 1


def test_what_another_folder_has_seen_is_not_read_again_and_not_written_to(corpus, tmp_path, monkeypatch):
    make(tmp_path / "main", corpus)
    memory = tmp_path / "main" / making.LOOKED
    memory.write_text(memory.read_text() + "\n5\n[]")  # what no run of ours writes says nothing
    before = memory.read_bytes()
    monkeypatch.setattr(audio, "look", lambda path: pytest.fail(f"{path} was read"))
    assert len(make(tmp_path / "copy", corpus, seen_before=memory).rows) == len(corpus.rows)
    assert memory.read_bytes() == before


def test_a_table_that_changed_since_the_manifest_was_made_is_told(corpus, tmp_path, caplog):
    table = tmp_path / "corpus.csv"
    corpus.rows.to_csv(table, index=False)
    listing = Listing(corpus.rows, corpus.root, str(table), tables=(table,))
    make(tmp_path / "corpus", listing)
    assert "changed since" not in caplog.text
    table.write_text(table.read_text() + "x.wav,bark,train,en\n")
    read_manifest(tmp_path / "corpus/manifest.parquet")
    assert f"{table}: changed since" in caplog.text
    assert "dvc repro -f download" in caplog.text
    caplog.clear()
    table.unlink()  # as on a machine that has the manifest only
    read_manifest(tmp_path / "corpus/manifest.parquet")
    assert caplog.text == ""

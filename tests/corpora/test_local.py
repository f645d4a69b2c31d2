"""The built-in corpus is made whole, by real worker processes, whatever happens to them."""

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile as sf

from makermark.corpora import local
from makermark.corpora.local import crew
from makermark.corpora.local.crew import Job
from makermark.corpora.rows import STRATA, read_manifest, strata
from makermark.errors import CorpusError, FilesError

CHEAP = ["espeak-ng", "pico", "ru_tts"]

# A worker whose engine speaks noise, and dies, hangs or raises on certain words.
ODD_WORKER = """
import os, sys, time
import numpy as np
from makermark.corpora.local import engines, worker

class Odd:
    def speak(self, text, *, language, voice, seed):
        if text == "abort":
            os.abort()
        if text == "hang":
            time.sleep(60)
        if text == "raise":
            raise RuntimeError("cannot say this")
        if text == "whisper":
            return np.zeros(48000, np.float32), 16000
        print("engines may print", flush=True)
        return np.random.default_rng(seed).standard_normal(48000).astype(np.float32), 16000

def broken():
    raise OSError("no such voice")

engines.ENGINES["odd"] = engines.Source(Odd, ())
engines.ENGINES["broken"] = engines.Source(broken, ())
worker.main()
"""


def request(folder, text):
    audio = [{"path": str(folder / f"{text}.flac"), "resynthesis": None, "draw": 1}]
    return {"text": text, "language": "en", "voice": "-", "seed": 0, "audio": audio}


@pytest.fixture
def speak(tmp_path):
    """Let the odd engine speak the texts; returns the reasons of the failures by file name."""
    script = tmp_path / "odd_worker.py"
    script.write_text(ODD_WORKER)

    def run(*texts, engine="odd", timeout_s=20.0):
        failed = {}
        crew.speak(
            [Job(engine, [request(tmp_path, text) for text in texts], 1.0, {})],
            workers=1,
            timeout_s=timeout_s,
            heard=lambda files, failures: failed.update({f.path.split("/")[-1]: f.reason for f in failures}),
            command=[sys.executable, str(script)],
        )
        return failed

    return run


def make(folder, **changed):
    settings = {
        "seed": 0,
        "train_utterances": 2,
        "dev_utterances": 2,
        "test_utterances": 2,
        "engines": CHEAP,
        "workers": 2,
        "utterance_timeout_s": 60.0,
        "max_failed_fraction": 0.0,
    }
    local.make(folder, **{**settings, **changed})
    return read_manifest(folder / "manifest.parquet")


def test_a_crash_costs_its_sentence_and_the_next_are_still_spoken(speak, tmp_path):
    failed = speak("one", "abort", "two")
    assert set(failed) == {"abort.flac"}
    assert f"status {-signal.SIGABRT}" in failed["abort.flac"]
    assert sf.info(tmp_path / "one.flac").duration == pytest.approx(3.0, abs=0.1)
    assert (tmp_path / "two.flac").exists()


def test_a_hang_costs_its_sentence_and_the_next_are_still_spoken(speak, tmp_path):
    assert speak("hang", "two", timeout_s=2.0) == {"hang.flac": "no answer within 2 s"}
    assert (tmp_path / "two.flac").exists()


def test_an_engine_that_raises_or_says_nothing_costs_its_sentence(speak):
    failed = speak("raise", "whisper", "two")
    assert failed == {
        "raise.flac": "RuntimeError: cannot say this",
        "whisper.flac": "UnusableError: silence",
    }


def test_an_engine_that_does_not_start_is_given_up_after_two_tries_with_its_last_words(speak):
    started = time.monotonic()
    failed = speak(*(f"text {number}" for number in range(20)), engine="broken")
    assert len(failed) == 20
    assert "no such voice" in failed["text 0.flac"]
    assert failed["text 19.flac"] == "the engine does not start"
    assert time.monotonic() - started < 20


def test_what_cannot_be_written_ends_the_work_and_names_the_place(speak, tmp_path):
    (tmp_path / "blocked").write_text("a file where a folder is needed")
    with pytest.raises(FilesError, match="blocked"):
        speak("blocked/one")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A corpus by the three cheapest engines, two utterances per system and split."""
    pytest.importorskip("espeakng_loader")
    folder = tmp_path_factory.mktemp("größer als") / "corpus"
    return folder, make(folder)


@pytest.mark.engines
def test_three_engines_make_every_stratum_and_say_who_spoke(corpus):
    folder, manifest = corpus
    for split in ("dev", "test"):
        rows = manifest.rows[manifest.rows["split"] == split]
        assert set(strata(rows)) == set(STRATA)
    assert set(manifest.rows["acoustic_model"]) == set(CHEAP)
    assert {"griffin-lim", "world", "klatt-pulse"} <= set(manifest.rows["vocoder"])
    assert (folder / "failures.csv").read_text() == "system,utterance,text,reason\n"
    assert not (folder / ".scratch").exists()


@pytest.mark.engines
def test_every_file_is_speech_at_16_khz_of_two_to_eight_seconds(corpus):
    _, manifest = corpus
    for row in manifest.rows.itertuples():
        samples, rate_hz = sf.read(manifest.file(row.path))
        assert rate_hz == 16000
        assert samples.ndim == 1
        assert 2.0 <= len(samples) / rate_hz <= 8.0
        assert row.duration_s == pytest.approx(len(samples) / rate_hz)
        assert loudness_swings(samples) > 6, row.path
        assert strength_of_pitch(samples) > 0.3, row.path


def loudness_swings(samples):
    """Spread (dB) of the power of 20 ms frames: speech has syllables, noise and hum have none."""
    power = np.mean(samples[: len(samples) // 320 * 320].reshape(-1, 320) ** 2, axis=1)
    return float(np.std(10 * np.log10(np.maximum(power, 1e-7))))


def strength_of_pitch(samples):
    """The best autocorrelation of 40 ms frames at lags of 60-400 Hz, in the loudest tenth: near 1 in vowels."""
    frames = samples[: len(samples) // 640 * 640].reshape(-1, 640)
    loudest = frames[np.argsort((frames**2).sum(axis=1))[-max(1, len(frames) // 10) :]]
    strengths = []
    for frame in loudest:
        correlation = np.correlate(frame, frame, "full")[639:]
        strengths.append(correlation[40:267].max() / correlation[0])
    return float(np.mean(strengths))


@pytest.mark.engines
def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_bytes_as_an_undisturbed_run(corpus, tmp_path):
    folder, whole = corpus
    target = tmp_path / "killed"
    script = (
        "from pathlib import Path\nfrom makermark.corpora import local\n"
        f"local.make(Path({str(target)!r}), seed=0, train_utterances=2, dev_utterances=2, test_utterances=2, "
        f"engines={CHEAP}, workers=1, utterance_timeout_s=60.0, max_failed_fraction=0.0)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    audio = target / "audio"
    while process.poll() is None and len(list(audio.rglob("[0-9]*.flac"))) < 5:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in audio.rglob("[0-9]*.flac")}
    assert 5 <= len(done) < len(whole.rows)
    assert not (target / "manifest.parquet").exists()
    resumed = make(target)
    assert resumed.rows.equals(whole.rows)
    assert all(path.stat().st_mtime_ns == written for path, written in done.items())
    assert (target / "manifest.parquet").read_bytes() == (folder / "manifest.parquet").read_bytes()


@pytest.mark.engines
def test_files_of_no_recipe_are_deleted_and_a_finished_corpus_is_left_alone(corpus):
    folder, before = corpus
    stray = folder / "audio" / "train" / "old system" / "en" / "000-0123456789.flac"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"from an older engine")
    started = time.monotonic()
    after = make(folder)
    assert after.rows.equals(before.rows)
    assert not stray.parent.parent.exists()
    assert time.monotonic() - started < 5


# Engines that speak noise at once, but for one that never does.
MUTE_WORKER = """
import numpy as np
from makermark.corpora.local import engines, vocoders, worker

class Noise:
    def speak(self, text, *, language, voice, seed):
        return np.random.default_rng(seed).standard_normal(48000).astype(np.float32), 16000

class Mute:
    def speak(self, text, *, language, voice, seed):
        raise RuntimeError("lost my voice")

engines.ENGINES.update({"espeak-ng": engines.Source(Noise, ()), "pico": engines.Source(Noise, ())})
engines.ENGINES["ru_tts"] = engines.Source(Mute, ())
same = vocoders.Resynthesis(lambda: lambda waveform, rate_hz: (waveform, rate_hz), ())
vocoders.VOCODERS.update({"griffin-lim": same, "world": same})
worker.main()
"""


@pytest.mark.engines
def test_more_failures_than_allowed_end_the_work_with_engine_and_sentence(tmp_path, monkeypatch):
    pytest.importorskip("espeakng_loader")
    script = tmp_path / "mute_worker.py"
    script.write_text(MUTE_WORKER)
    monkeypatch.setattr(crew.speak, "__kwdefaults__", {"command": [sys.executable, str(script)]})
    with pytest.raises(CorpusError, match=r"ru_tts.* could not say '.+': RuntimeError: lost my voice; leave"):
        make(tmp_path / "strict")
    assert not (tmp_path / "strict" / "manifest.parquet").exists()
    manifest = make(tmp_path / "lenient", max_failed_fraction=0.5)
    with (tmp_path / "lenient" / "failures.csv").open(encoding="utf-8") as file:
        failures = list(csv.DictReader(file))
    assert {failure["system"].partition("+")[0] for failure in failures} == {"ru_tts"}
    assert all(failure["reason"] == "RuntimeError: lost my voice" for failure in failures)
    assert "ru_tts" not in set(manifest.rows["acoustic_model"])


def test_a_missing_package_is_named_with_the_way_to_install_it(tmp_path, monkeypatch):
    from makermark.corpora.local import protocol

    protocol.installed.cache_clear()
    known = protocol.version

    def version(package):
        if package == "py-nanotts":
            raise protocol.PackageNotFoundError(package)
        return known(package)

    monkeypatch.setattr(protocol, "version", version)
    with pytest.raises(CorpusError, match=r"package py-nanotts is missing; pip install -e '.\[local\]'"):
        make(tmp_path / "corpus")
    protocol.installed.cache_clear()

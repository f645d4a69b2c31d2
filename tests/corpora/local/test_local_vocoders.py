"""Resynthesis by a vocoder: the spectrum stays, the waveform changes."""

import hashlib
import json
import os
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pytest
import torch

from makermark.corpora.local import ENVIRONMENT
from makermark.corpora.local.vocoders import VOCODERS
from makermark.corpora.local.vocoders.mel import MelSettings, mel_spectrogram

RATE_HZ = 24000
MEL = MelSettings(RATE_HZ, n_fft=2048, window=1200, hop=300, bands=80, low_hz=80.0, high_hz=7600.0)
TELEPHONE_BANDS = 55  # of MEL, up to 3.6 kHz: Codec 2 has nothing above
MAX_DELAY_FRAMES = 4  # 50 ms: Codec 2 is late by two of its frames

PRINT_HASHES = """
import hashlib, json, sys
import numpy as np
from makermark.corpora.local.vocoders import VOCODERS

speech = np.load(sys.argv[1])
hashes = {}
for name in sys.argv[2:]:
    vocoder = VOCODERS[name].build()
    vocoder(speech[:6000], 24000)
    samples, _ = vocoder(speech, 24000)
    hashes[name] = hashlib.sha256(samples.tobytes()).hexdigest()
print(json.dumps(hashes))
"""


def is_installed(name):
    try:
        return all(version(package) for package in VOCODERS[name].packages)
    except PackageNotFoundError:
        return False


INSTALLED = [name for name in VOCODERS if is_installed(name)]


@pytest.fixture(scope="module")
def speech():
    """A short sentence by espeak-ng at 24 kHz."""
    pytest.importorskip("espeakng_loader")
    import soxr

    from makermark.corpora.local.engines import ENGINES

    waveform, rate_hz = (
        ENGINES["espeak-ng"].build().synthesise("A bridge of stones.", language="en", voice="f2", seed=0)
    )
    return np.asarray(soxr.resample(waveform, rate_hz, RATE_HZ))


@pytest.fixture(scope="module")
def resynthesise(speech):
    """A function from the name of a vocoder to its output for the sentence."""

    @cache
    def run(name):
        if name not in INSTALLED:
            pytest.skip(f"{' or '.join(VOCODERS[name].packages)} is not installed")
        return VOCODERS[name].build()(speech, RATE_HZ)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the workers: HiFi-GAN rounds differently with two
    yield run
    torch.set_num_threads(threads)


def log_mel(waveform):
    return np.log10(np.maximum(mel_spectrogram(waveform, MEL), 1e-10))[:TELEPHONE_BANDS]


def highest_correlation(before, after):
    """Return the correlation over the louder half of `before`, both (bands, frames), for the best delay of `after`."""
    frames = min(before.shape[1], after.shape[1]) - MAX_DELAY_FRAMES
    before = before[:, :frames]
    loud = before > np.quantile(before, 0.5)
    return max(
        np.corrcoef(before[loud], after[:, delay : delay + frames][loud])[0, 1]
        for delay in range(MAX_DELAY_FRAMES + 1)
    )


@pytest.mark.engines
@pytest.mark.parametrize("name", VOCODERS)
def test_resynthesis_keeps_the_spectrum_and_changes_the_waveform(name, speech, resynthesise):
    import soxr

    output, rate_hz = resynthesise(name)
    assert output.dtype == np.float32
    output = np.asarray(soxr.resample(output, rate_hz, RATE_HZ), np.float32)
    assert len(output) == pytest.approx(len(speech), rel=0.05)
    level_db = 10 * np.log10(np.mean(output**2) / np.mean(speech**2))
    assert abs(level_db) < 4
    assert not np.allclose(output[: len(speech) // 2], speech[: len(speech) // 2], atol=1e-3)
    before, after = log_mel(speech), log_mel(output)
    assert highest_correlation(before, after) > 0.75
    assert highest_correlation(before, after[:, ::-1]) < 0.6


@pytest.mark.engines
def test_codec2_does_not_continue_the_random_phases_of_earlier_speech(speech):
    pytest.importorskip("pycodec2")  # the import keeps the library of the package loaded
    coded, _ = VOCODERS["codec2-700"].build()(speech, RATE_HZ)
    VOCODERS["codec2-1300"].build()(speech, RATE_HZ)
    np.testing.assert_array_equal(VOCODERS["codec2-700"].build()(speech, RATE_HZ)[0], coded)


@pytest.mark.engines
def test_resynthesis_in_another_process_and_after_other_speech_gives_the_same_samples(
    speech, resynthesise, tmp_path
):
    names = [name for name in INSTALLED if name != "hifigan-lj"]  # the code of hifigan-universal
    np.save(tmp_path / "speech.npy", speech)
    result = subprocess.run(
        [sys.executable, "-c", PRINT_HASHES, str(tmp_path / "speech.npy"), *names],
        capture_output=True, text=True, check=True, env=os.environ | ENVIRONMENT,
    )  # fmt: skip
    here = {name: hashlib.sha256(resynthesise(name)[0].tobytes()).hexdigest() for name in names}
    assert json.loads(result.stdout.splitlines()[-1]) == here


@pytest.mark.engines
@pytest.mark.parametrize("name", ["mlsa", "straight", "codec2-3200"])
def test_noise_of_two_utterances_differs(name, speech, resynthesise):
    """The same noise in every utterance would identify the vocoder."""
    output, _ = resynthesise(name)
    louder, _ = VOCODERS[name].build()(speech * np.float32(1.001), RATE_HZ)
    difference = np.mean((output - louder) ** 2) / np.mean(output**2)
    assert difference > 1e-4


def test_sine_is_in_the_mel_band_of_its_frequency():
    time = np.arange(24000) / 24000
    low, high = (
        mel_spectrogram(np.sin(2 * np.pi * hertz * time).astype(np.float32), MEL) for hertz in (300.0, 4000.0)
    )
    assert low.shape == (80, 24000 // MEL.hop + 1)
    # Slaney's scale: 200/3 Hz per mel to 1 kHz, then log(6.4) / 27 per mel; 82 edges from 80 to 7600 Hz.
    edges = np.linspace(80 * 3 / 200, 15 + np.log(7.6) / np.log(6.4) * 27, 82)
    assert np.abs(low[:, 40].argmax() + 1 - np.interp(4.5, edges, np.arange(82))) <= 1
    assert (
        np.abs(high[:, 40].argmax() + 1 - np.interp(15 + np.log(4) / np.log(6.4) * 27, edges, np.arange(82)))
        <= 1
    )


def test_frames_that_are_not_centred_have_one_frame_per_hop():
    settings = MelSettings(
        22050, n_fft=1024, window=1024, hop=256, bands=80, low_hz=0.0, high_hz=8000.0, is_centred=False
    )
    click = np.zeros(2560, np.float32)
    click[1280] = 1.0
    energy = mel_spectrogram(click, settings).sum(axis=0)
    assert len(energy) == 10
    assert set(energy.argsort()[-2:]) == {4, 5}  # the click is at the border of two hops

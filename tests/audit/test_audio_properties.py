"""The measurements of audio, on signals with known values."""

import numpy as np
import pytest
import soundfile
from scipy.signal import firwin, lfilter

from makermark.audit.audio_properties import MEASUREMENTS, bandwidth_hz, measure_audio, measure_files
from makermark.audit.measurement_format import FORMATS, format_range
from makermark.foundation.errors import AudioError

SAMPLE_RATE_HZ = 16000


def noise(seconds, rng, rate_hz=SAMPLE_RATE_HZ, level=0.1):
    return (level * rng.standard_normal(round(seconds * rate_hz))).astype(np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("cutoff_hz", [2000, 4000, 7000])
def test_bandwidth_is_the_cutoff_of_a_filter(rng, cutoff_hz):
    filtered = lfilter(firwin(1001, cutoff_hz, fs=SAMPLE_RATE_HZ), 1.0, noise(2, rng)).astype(np.float32)
    assert bandwidth_hz(filtered, SAMPLE_RATE_HZ) == pytest.approx(cutoff_hz, abs=150)


def test_bandwidth_at_a_higher_sample_rate(rng):
    assert bandwidth_hz(noise(1, rng, rate_hz=48000), 48000) == pytest.approx(24000, abs=100)


def test_level_of_a_sine_ignores_pauses():
    sine = (0.5 * np.sin(2 * np.pi * 200 * np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ)).astype(np.float32)
    paused = np.concatenate([sine, np.zeros(2 * SAMPLE_RATE_HZ, np.float32)])
    for samples in (sine, paused):
        level = measure_audio(samples, SAMPLE_RATE_HZ)["level_dbfs"]
        assert level == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01)


@pytest.mark.parametrize("rate_hz", [8000, 16000, 22050])
def test_silence_and_duration_of_a_signal_of_known_parts(rng, rate_hz):
    """0.25 s of low noise, 0.6 s of speech, 0.3 s of pause, 0.3 s of speech, 0.15 s of digital silence."""
    parts = [
        noise(0.25, rng, rate_hz, level=1e-5),
        noise(0.6, rng, rate_hz),
        noise(0.3, rng, rate_hz, level=1e-5),
        noise(0.3, rng, rate_hz),
        np.zeros(round(0.15 * rate_hz), np.float32),
    ]
    values = measure_audio(np.concatenate(parts), rate_hz)
    assert values["sample_rate_hz"] == rate_hz
    assert values["leading_silence_s"] == pytest.approx(0.25, abs=0.011)
    assert values["trailing_silence_s"] == pytest.approx(0.15, abs=0.011)
    assert values["pause_percent"] == pytest.approx(100 * 0.3 / 1.2, abs=1.7)
    assert values["duration_s"] == pytest.approx(1.6, abs=1e-3)


def test_speech_throughout_has_no_silence(rng):
    values = measure_audio(noise(1, rng), SAMPLE_RATE_HZ)
    assert (values["leading_silence_s"], values["trailing_silence_s"], values["pause_percent"]) == (0, 0, 0)


def test_measurements_of_very_short_audio_are_finite(rng):
    values = measure_audio(noise(0.004, rng), SAMPLE_RATE_HZ)
    assert list(values) == list(MEASUREMENTS)
    assert np.isfinite(list(values.values())).all()


def test_files_are_measured_as_they_are_stored_and_unusable_ones_have_a_reason(tmp_path, rng):
    soundfile.write(tmp_path / "speech.wav", noise(0.5, rng, 22050), 22050)
    clicks = np.zeros(16100, np.float32)
    clicks[-50] = 0.5  # after the last whole frame: no frame has speech
    soundfile.write(tmp_path / "clicks.wav", clicks, SAMPLE_RATE_HZ)
    with pytest.raises(AudioError, match="silent: no sound in the first 100 frames"):
        measure_audio(clicks, SAMPLE_RATE_HZ)
    files = [tmp_path / name for name in ("absent.wav", "speech.wav", "clicks.wav")]
    measured, reasons = measure_files(files, total=3, workers=2)
    assert [values is None for values in measured] == [True, False, True]
    assert measured[1]["sample_rate_hz"] == 22050
    assert [reason.split(": ")[0] for reason in reasons] == [str(files[0]), str(files[2])]


def test_every_measurement_has_a_format():
    assert tuple(FORMATS) == MEASUREMENTS
    assert format_range("bandwidth_hz", [4000.2, 4000.4]) == "bandwidth 4,000 Hz"
    assert format_range("pause_percent", [0.0, 12.34]) == "pauses 0.0 to 12.3 %"

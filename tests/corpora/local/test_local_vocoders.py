"""Resynthesis by a vocoder: the spectrum stays, the waveform changes."""

import numpy as np
import pytest

from makermark.corpora.local.vocoders import BAKER_MEL, VOCODERS, log_mel, mel_spectrogram


@pytest.fixture(scope="module")
def speech():
    """A sentence by espeak-ng at 24 kHz."""
    pytest.importorskip("espeakng_loader")
    import soxr

    from makermark.corpora.local.engines import ENGINES

    waveform, rate_hz = (
        ENGINES["espeak-ng"]
        .build()
        .synthesise("The children built a bridge of stones.", language="en", voice="f2", seed=0)
    )
    return np.asarray(soxr.resample(waveform, rate_hz, BAKER_MEL.sample_rate_hz))


@pytest.mark.engines
@pytest.mark.parametrize("name", VOCODERS)
def test_resynthesis_keeps_the_spectrum_and_changes_the_waveform(name, speech):
    if name == "mb-melgan":
        pytest.importorskip("ai_edge_litert")
    import soxr

    output, rate_hz = VOCODERS[name].build()(speech, BAKER_MEL.sample_rate_hz)
    output = np.asarray(soxr.resample(output, rate_hz, BAKER_MEL.sample_rate_hz), np.float32)
    assert len(output) == pytest.approx(len(speech), rel=0.05)
    assert not np.allclose(output[: len(speech) // 2], speech[: len(speech) // 2], atol=1e-3)
    before, after = log_mel(speech), log_mel(output)
    frames = min(before.shape[1], after.shape[1])
    loud = before[:, :frames] > np.quantile(before, 0.5)
    assert np.corrcoef(before[:, :frames][loud], after[:, :frames][loud])[0, 1] > 0.75
    backwards = after[:, :frames][:, ::-1]
    assert np.corrcoef(before[:, :frames][loud], backwards[loud])[0, 1] < 0.6


@pytest.mark.engines
@pytest.mark.parametrize("name", ["griffin-lim", "world"])
def test_resynthesis_is_deterministic(name, speech):
    vocoder = VOCODERS[name].build()
    np.testing.assert_array_equal(vocoder(speech, 24000)[0], vocoder(speech, 24000)[0])


def test_sine_is_in_the_mel_band_of_its_frequency():
    time = np.arange(24000) / 24000
    low, high = (
        mel_spectrogram(np.sin(2 * np.pi * hertz * time).astype(np.float32), BAKER_MEL)
        for hertz in (300.0, 4000.0)
    )
    assert low.shape == (80, 24000 // BAKER_MEL.hop + 1)
    # Slaney's scale: 200/3 Hz per mel to 1 kHz, then log(6.4) / 27 per mel; 82 edges from 80 to 7600 Hz.
    edges = np.linspace(80 * 3 / 200, 15 + np.log(7.6) / np.log(6.4) * 27, 82)
    assert np.abs(low[:, 40].argmax() + 1 - np.interp(4.5, edges, np.arange(82))) <= 1
    assert (
        np.abs(high[:, 40].argmax() + 1 - np.interp(15 + np.log(4) / np.log(6.4) * 27, edges, np.arange(82)))
        <= 1
    )

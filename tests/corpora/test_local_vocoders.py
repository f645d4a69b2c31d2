"""A vocoder says the same words again: the spectrum stays, the waveform is new."""

import numpy as np
import pytest

from makermark.corpora.local.vocoders import BAKER_FRAMES, VOCODERS, log_mel, mel_spectrogram


@pytest.fixture(scope="module")
def spoken():
    """A sentence by espeak-ng at 24 kHz."""
    pytest.importorskip("espeakng_loader")
    import soxr

    from makermark.corpora.local.engines import ENGINES

    waveform, rate_hz = (
        ENGINES["espeak-ng"]
        .build()
        .speak("The children built a bridge of stones.", language="en", voice="f2", seed=0)
    )
    return np.asarray(soxr.resample(waveform, rate_hz, BAKER_FRAMES.rate_hz))


@pytest.mark.engines
@pytest.mark.parametrize("name", VOCODERS)
def test_what_is_said_stays_and_the_waveform_is_new(name, spoken):
    if name == "mb-melgan":
        pytest.importorskip("ai_edge_litert")
    import soxr

    again, rate_hz = VOCODERS[name].build()(spoken, BAKER_FRAMES.rate_hz)
    again = np.asarray(soxr.resample(again, rate_hz, BAKER_FRAMES.rate_hz), np.float32)
    assert len(again) == pytest.approx(len(spoken), rel=0.05)
    assert not np.allclose(again[: len(spoken) // 2], spoken[: len(spoken) // 2], atol=1e-3)
    before, after = log_mel(spoken), log_mel(again)
    frames = min(before.shape[1], after.shape[1])
    loud = before[:, :frames] > np.quantile(before, 0.5)
    assert np.corrcoef(before[:, :frames][loud], after[:, :frames][loud])[0, 1] > 0.75
    backwards = after[:, :frames][:, ::-1]
    assert np.corrcoef(before[:, :frames][loud], backwards[loud])[0, 1] < 0.6


@pytest.mark.engines
@pytest.mark.parametrize("name", ["griffin-lim", "world"])
def test_saying_it_again_twice_gives_the_same_samples(name, spoken):
    vocoder = VOCODERS[name].build()
    np.testing.assert_array_equal(vocoder(spoken, 24000)[0], vocoder(spoken, 24000)[0])


def test_a_tone_stands_in_the_mel_band_of_its_frequency():
    time = np.arange(24000) / 24000
    low, high = (
        mel_spectrogram(np.sin(2 * np.pi * hertz * time).astype(np.float32), BAKER_FRAMES)
        for hertz in (300.0, 4000.0)
    )
    assert low.shape == (80, 24000 // BAKER_FRAMES.hop + 1)
    # Slaney's scale: 200/3 Hz per mel to 1 kHz, then log(6.4) / 27 per mel; 82 edges from 80 to 7600 Hz.
    edges = np.linspace(80 * 3 / 200, 15 + np.log(7.6) / np.log(6.4) * 27, 82)
    assert np.abs(low[:, 40].argmax() + 1 - np.interp(4.5, edges, np.arange(82))) <= 1
    assert (
        np.abs(high[:, 40].argmax() + 1 - np.interp(15 + np.log(4) / np.log(6.4) * 27, edges, np.arange(82)))
        <= 1
    )

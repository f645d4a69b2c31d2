"""Normalised utterances have the same level, length and silence at the ends, whatever the input is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from makermark.corpora.normalise_audio import (
    LEVEL_DBFS,
    LEVEL_SPREAD_DB,
    MAX_PEAK,
    SAMPLE_RATE_HZ,
    UnusableError,
    active_rms,
    normalise_utterance,
)


def speech(rate_hz, seconds, *, level=0.1, offset=0.0, silence_s=0.5):
    """Noise in syllables, with silence before and after."""
    rng = np.random.default_rng(5)
    time = np.arange(int(seconds * rate_hz)) / rate_hz
    voiced = rng.standard_normal(time.size) * level * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time))
    silence = np.zeros(int(silence_s * rate_hz))
    return (np.concatenate([silence, voiced, silence]) + offset).astype(np.float32)


def level_dbfs(samples):
    return 20 * np.log10(active_rms(samples / 32767.0))


@settings(max_examples=30, deadline=None)
@given(
    rate_hz=st.sampled_from([10000, 16000, 22050, 24000, 48000]),
    level=st.floats(1e-3, 0.5),
    offset=st.floats(-0.2, 0.2),
    silence_s=st.floats(0.05, 1.0),
    seed=st.integers(0, 1000),
)
def test_level_length_and_offset_do_not_depend_on_the_input(rate_hz, level, offset, silence_s, seed):
    samples = normalise_utterance(
        speech(rate_hz, 3.0, level=level, offset=offset, silence_s=silence_s),
        rate_hz,
        rng=np.random.default_rng(seed),
    )
    assert samples.dtype == np.int16
    assert abs(level_dbfs(samples) - LEVEL_DBFS) <= LEVEL_SPREAD_DB + 0.3
    assert abs(samples.astype(float).mean()) < 0.05 * samples.std()
    assert 3.0 - 0.03 <= len(samples) / SAMPLE_RATE_HZ <= 3.0 + 0.03


@settings(max_examples=20, deadline=None)
@given(before_s=st.floats(0.0, 1.0), after_s=st.floats(0.0, 1.0), offset=st.floats(-0.2, 0.2))
def test_nothing_of_the_silence_at_the_ends_stays(before_s, after_s, offset):
    rng = np.random.default_rng(2)
    voiced = rng.choice([-0.1, 0.1], 3 * SAMPLE_RATE_HZ)
    before, after = np.zeros(round(before_s * SAMPLE_RATE_HZ)), np.zeros(round(after_s * SAMPLE_RATE_HZ))
    waveform = (np.concatenate([before, voiced, after]) + offset).astype(np.float32)
    samples = normalise_utterance(waveform, SAMPLE_RATE_HZ, rng=rng)
    power = (samples.reshape(-1, 160).astype(float) ** 2).mean(axis=1)  # frames of 10 ms
    assert power[[0, -1]].min() >= 1e-4 * power.max()  # 40 dB below the loudest
    assert abs(len(samples) - len(voiced)) <= 2 * 160


def test_level_is_random_and_depends_on_the_seed_only():
    waveform = speech(22050, 3.0)
    levels = [
        level_dbfs(normalise_utterance(waveform, 22050, rng=np.random.default_rng(seed)))
        for seed in range(40)
    ]
    assert np.ptp(levels) > LEVEL_SPREAD_DB
    assert levels[7] == level_dbfs(normalise_utterance(waveform, 22050, rng=np.random.default_rng(7)))


def test_peaks_are_not_clipped():
    waveform = speech(16000, 3.0, level=0.01)
    waveform[16000::4000] = 1.0  # far above the level of the speech
    samples = normalise_utterance(waveform, 16000, rng=np.random.default_rng(0))
    assert np.abs(samples.astype(int)).max() <= int(np.ceil(MAX_PEAK * 32767))


def test_peaks_above_the_limit_scale_the_whole_utterance():
    """Without the limit the peaks would be 3 times full scale; scaled, they are at MAX_PEAK and the waveform keeps
    its shape."""
    waveform = speech(16000, 3.0, level=0.01, silence_s=0.0)
    waveform[4000::8000] = 1.0
    samples = normalise_utterance(waveform, 16000, rng=np.random.default_rng(0)).astype(float)
    unlimited = 10 ** ((LEVEL_DBFS + LEVEL_SPREAD_DB) / 20)  # the highest level of speech
    assert samples.max() == round(MAX_PEAK * 32767)
    assert level_dbfs(samples) < 20 * np.log10(unlimited) - 2 * LEVEL_SPREAD_DB
    start = int(np.argmax(samples)) - int(np.argmax(waveform))
    source = waveform[-start : -start + len(samples)] - waveform.mean()
    scale = samples.max() / source.max()
    np.testing.assert_allclose(samples, source * scale, atol=1.0)


def test_peaks_below_the_limit_leave_the_level_alone():
    quiet = speech(16000, 3.0, level=0.01)
    loud = speech(16000, 3.0, level=0.5)
    levels = [level_dbfs(normalise_utterance(x, 16000, rng=np.random.default_rng(3))) for x in (quiet, loud)]
    assert levels[0] == pytest.approx(levels[1], abs=0.01)


def test_long_speech_is_cut_to_eight_seconds_at_a_random_position():
    waveform = speech(16000, 20.0)
    one, other = (normalise_utterance(waveform, 16000, rng=np.random.default_rng(seed)) for seed in (1, 2))
    assert len(one) == len(other) == 8 * SAMPLE_RATE_HZ
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("waveform", "reason"),
    [
        (np.zeros(40000, np.float32), "silence"),
        (np.zeros(10, np.float32), "10 samples"),
        (np.full(40000, np.nan, np.float32), "not finite"),
        (speech(16000, 1.0), "fewer than 2"),
    ],
)
def test_unusable_audio_raises_with_the_reason(waveform, reason):
    with pytest.raises(UnusableError, match=reason):
        normalise_utterance(waveform, 16000, rng=np.random.default_rng(0))

"""Whoever spoke, level, margins and length come out alike."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from makermark.corpora.finishing import (
    LEVEL_DBFS,
    LEVEL_SPREAD_DB,
    MARGIN_S,
    PEAK,
    RATE_HZ,
    UnusableError,
    active_rms,
    finish,
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
def test_level_length_and_offset_do_not_depend_on_who_spoke(rate_hz, level, offset, silence_s, seed):
    samples = finish(
        speech(rate_hz, 3.0, level=level, offset=offset, silence_s=silence_s),
        rate_hz,
        rng=np.random.default_rng(seed),
    )
    assert samples.dtype == np.int16
    assert abs(level_dbfs(samples) - LEVEL_DBFS) <= LEVEL_SPREAD_DB + 0.3
    assert abs(samples.astype(float).mean()) < 0.05 * samples.std()
    assert 3.0 - 0.03 <= len(samples) / RATE_HZ <= 3.0 + 2 * MARGIN_S[1] + 0.03


def test_the_level_is_drawn_and_the_draw_depends_on_the_seed_alone():
    spoken = speech(22050, 3.0)
    levels = [level_dbfs(finish(spoken, 22050, rng=np.random.default_rng(seed))) for seed in range(40)]
    assert np.ptp(levels) > LEVEL_SPREAD_DB
    assert levels[7] == level_dbfs(finish(spoken, 22050, rng=np.random.default_rng(7)))


def test_peaks_are_never_clipped():
    spoken = speech(16000, 3.0, level=0.01)
    spoken[16000::4000] = 1.0  # far above the level of the speech
    samples = finish(spoken, 16000, rng=np.random.default_rng(0))
    assert np.abs(samples.astype(int)).max() <= int(np.ceil(PEAK * 32767))


def test_long_speech_is_cut_to_eight_seconds_at_a_place_that_the_seed_decides():
    ramp = speech(16000, 20.0)
    one, other = (finish(ramp, 16000, rng=np.random.default_rng(seed)) for seed in (1, 2))
    assert len(one) == len(other) == 8 * RATE_HZ
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("spoken", "reason"),
    [
        (np.zeros(40000, np.float32), "silence"),
        (np.zeros(10, np.float32), "10 samples"),
        (np.full(40000, np.nan, np.float32), "not finite"),
        (speech(16000, 1.0), "fewer than 2"),
    ],
)
def test_what_is_no_utterance_is_refused_with_the_reason(spoken, reason):
    with pytest.raises(UnusableError, match=reason):
        finish(spoken, 16000, rng=np.random.default_rng(0))

"""Contract tests over all CONDITIONS, and single conditions against known properties."""

import importlib.util
from fractions import Fraction

import numpy as np
import pytest
import soxr
from scipy.signal import welch

from makermark.features.augmentation import base, codecs, levels, noise, reverberation, training_augmentation
from makermark.features.augmentation.base import AugmentationContext
from makermark.features.augmentation.conditions import CONDITIONS, apply_condition, check_conditions
from makermark.features.augmentation.training_augmentation import (
    AUGMENT_CHOICES,
    AUGMENTATIONS,
    augmentation_kinds,
)
from makermark.foundation.errors import ParamsError
from tests_support import tone

RATE = 16000
ONE_ROOM = reverberation.RoomKind(
    (3.5, 3.0, 2.5), (4.5, 4.0, 3.0), (0.2, 0.3)
)  # small and dry, so fast to simulate


def speech(seed=0, seconds=1.2):
    """Return harmonics (T,) float32 below 4 kHz with varying level in faint noise."""
    rng = np.random.default_rng(seed)
    voiced = np.resize(tone(5.0, rng), int(seconds * RATE))
    syllables = 0.6 + 0.4 * np.sin(2 * np.pi * 3 * np.arange(len(voiced)) / RATE)
    return (voiced * syllables).astype(np.float32)


def context(seed=0, voices=()):
    return AugmentationContext(np.random.default_rng(seed), voices)


def power(waveform):
    return float(np.mean(np.square(waveform.astype(np.float64))))


def response_db(change, low_hz, high_hz):
    """Return the lowest and highest gain between two frequencies, measured with ten seconds of white noise."""
    waveform = (0.05 * np.random.default_rng(0).standard_normal(10 * RATE)).astype(np.float32)
    frequencies, before = welch(waveform, RATE, nperseg=1024)
    _, after = welch(change(waveform, context()), RATE, nperseg=1024)
    inside = (frequencies >= low_hz) & (frequencies <= high_hz)
    gains = 10 * np.log10(np.maximum(after[inside], 1e-20) / before[inside])
    return gains.min(), gains.max()


def lag(waveform, changed):
    """Return the delay of `changed` in samples, and the correlation at that delay."""
    correlation = np.correlate(changed.astype(np.float64), waveform.astype(np.float64), mode="full")
    near = correlation[
        len(waveform) - 1 - 75 : len(waveform) + 75
    ]  # beyond it is another period of the pitch
    index = int(np.argmax(near)) + len(waveform) - 1 - 75
    return index - len(waveform) + 1, correlation[index] / len(waveform) / np.sqrt(
        power(waveform) * power(changed)
    )


@pytest.mark.parametrize("name", CONDITIONS)
def test_condition_is_deterministic_for_seed(name):
    waveform, voices = speech(), [speech(1), speech(2, 0.7)]
    before = waveform.copy()
    first, second = (
        apply_condition(name, waveform, rng=np.random.default_rng(5), voices=voices) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(waveform, before)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert np.abs(first).max() <= (1.5 if CONDITIONS[name].group == "codec" else 1)
    assert len(first) == len(waveform) or CONDITIONS[name].changes_duration
    assert power(first) > 1e-3 * power(waveform)
    if CONDITIONS[name].group in ("noise", "room"):
        assert not np.array_equal(
            first, apply_condition(name, waveform, rng=np.random.default_rng(6), voices=voices)
        )


def test_check_conditions_raises_for_unknown_condition():
    with pytest.raises(
        ParamsError, match=r"unknown condition 'mp4'; it must be one of \['clean', "
    ) as refused:
        check_conditions(["mulaw", "mp4"])
    assert "\n" not in str(refused.value)


def test_check_conditions_raises_for_missing_packages(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "av" else object())
    with pytest.raises(ParamsError, match=r"need av, not installed.*pip install -e '.\[robustness\]'"):
        check_conditions(["mulaw"])


@pytest.mark.parametrize("source", noise.SOURCES)
@pytest.mark.parametrize("snr_db", [20, 0])
def test_add_noise_has_given_snr(source, snr_db):
    waveform = 0.1 * speech()
    mixed = noise.add_noise(source, snr_db)(waveform, context(voices=[speech(1)]))
    assert 10 * np.log10(power(waveform) / power(mixed - waveform)) == pytest.approx(snr_db, abs=0.01)


def test_add_noise_limits_peak_and_keeps_snr():
    loud = speech() * (0.95 / np.abs(speech()).max())
    mixed = noise.add_noise("white", 0)(loud, context())
    share = np.dot(mixed, loud) / np.dot(loud, loud)
    assert np.abs(mixed).max() == pytest.approx(base.MAX_PEAK)
    assert power(share * loud) / power(mixed - share * loud) == pytest.approx(1, rel=0.1)


def test_speech_shaped_noise_has_spectrum_of_speech():
    waveform = speech(seconds=8)
    _, speech_power = welch(waveform, RATE, nperseg=512)
    noises = {
        name: noise.SOURCES[name](len(waveform), waveform, context()) for name in ("speech-shaped", "white")
    }
    db = {name: 10 * np.log10(welch(samples, RATE, nperseg=512)[1]) for name, samples in noises.items()}
    assert np.corrcoef(db["speech-shaped"], 10 * np.log10(speech_power))[0, 1] > 0.99
    assert np.ptp(db["white"][2:-2]) < 4


def test_babble_noise_consists_of_other_utterances():
    whistle = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    babble = noise.babble_noise(2 * RATE, speech(), context(voices=[whistle]))
    frequencies, babble_power = welch(babble, RATE, nperseg=4096)
    assert frequencies[babble_power.argmax()] == pytest.approx(1000, abs=8)
    with pytest.raises(ValueError, match="needs other utterances"):
        noise.babble_noise(RATE, speech(), context())


def test_telephone_passes_300_to_3400_hz():
    change = CONDITIONS["telephone"].transform
    lowest, highest = response_db(change, 400, 3200)
    assert -1 < lowest <= highest < 0.5
    assert response_db(change, 20, 150)[1] < -40
    assert response_db(change, 4000, 8000)[1] < -60


@pytest.mark.parametrize(("name", "edge_hz"), [("by-8k", 4000), ("band-4k", 4000)])
def test_band_limit_removes_frequencies_above_it(name, edge_hz):
    change = CONDITIONS[name].transform
    assert response_db(change, edge_hz + 150, 8000)[1] < -55
    lowest, highest = response_db(change, 100, edge_hz - 400)
    assert -0.3 < lowest <= highest < 0.3


@pytest.mark.parametrize("name", ["by-22k", "by-44k"])
def test_resampling_to_higher_rate_preserves_speech(name):
    waveform = speech()
    assert power(apply_condition(name, waveform, rng=np.random.default_rng(0)) - waveform) < 1e-3 * power(
        waveform
    )


def mu_law(samples):
    """Encode and decode by ITU-T G.711, table 2a: 14 bits, eight segments of sixteen steps."""
    pcm = np.clip(np.round(samples * 32768), -32768, 32767).astype(int)
    magnitude = np.minimum(np.where(pcm < 0, -pcm, pcm), 32635) + 132
    segment = np.floor(np.log2(magnitude)).astype(int) - 7
    step = magnitude >> (segment + 3) & 15
    decoded = ((2 * step + 33) << (segment + 2)) - 132
    return np.where(pcm < 0, -decoded, decoded) / 32768


def test_mu_law_equals_g711():
    narrow = soxr.resample(speech(), RATE, 8000, quality="HQ")
    samples, rate_hz = codecs.decode(codecs.encode(speech(), codecs.CODECS["mulaw"], 0))
    expected, code_levels = mu_law(narrow), np.unique(mu_law(np.arange(-32768, 32768) / 32768))
    assert rate_hz == 8000
    assert len(code_levels) == 255  # 256 codes, two of which are zero
    index, expected_index = np.searchsorted(code_levels, samples), np.searchsorted(code_levels, expected)
    np.testing.assert_array_equal(code_levels[index], samples)
    assert (
        np.abs(index - expected_index).max() <= 1
    )  # FFmpeg uses a table, which may resolve ties to the neighbour
    assert (index == expected_index).mean() > 0.85
    assert power(samples - narrow) == pytest.approx(power(expected - narrow), rel=0.1)


@pytest.mark.parametrize(
    ("name", "bits", "correlation"),
    [
        ("mulaw", 0, 0.98), ("g722", 0, 0.98), ("g726", 16000, 0.9), ("amr", 12200, 0.4), ("amr", 4750, 0.4),
        ("mp3", 64000, 0.98), ("mp3", 16000, 0.9), ("opus", 24000, 0.95), ("opus", 12000, 0.8), ("aac", 32000, 0.95),
    ],
)  # fmt: skip
def test_codec_changes_speech_but_not_length_or_timing(name, bits, correlation):
    waveform = speech()
    changed = codecs.encode_decode(waveform, name, bits)
    delay, similarity = lag(waveform, changed)
    assert len(changed) == len(waveform)
    assert abs(delay) <= 2  # an eighth of a millisecond
    assert correlation < similarity < 1
    assert power(changed - waveform) > 1e-7


@pytest.mark.parametrize(("name", "bits"), [("mp3", 32000), ("opus", 12000), ("aac", 32000), ("g726", 16000)])
def test_encoded_size_matches_bit_rate(name, bits):
    seconds = 8
    size = len(codecs.encode(speech(seconds=seconds), codecs.CODECS[name], bits))
    assert size * 8 / seconds == pytest.approx(bits, rel=0.25)


def test_amr_file_has_frames_of_its_mode():
    file = codecs.encode(speech(seconds=1.0), codecs.CODECS["amr"], 12200)
    assert file.startswith(b"#!AMR\n")
    frames, rest = divmod(len(file) - 6, 32)  # RFC 4867: every 20 ms one byte of mode and 31 of speech
    assert (frames, rest) == (51, 0)
    assert {file[6 + 32 * frame] for frame in range(frames)} == {0x3C}  # mode 7: 12.2 kbit/s
    assert codecs.AMR_BITS_PER_SECOND[7] == 12200
    samples, rate_hz = codecs.decode(file)
    assert Fraction(len(samples), rate_hz) == Fraction(51, 50)


def test_room_impulse_response_has_direct_sound_and_decay():
    response, direct = reverberation.room_impulse_response(3, ONE_ROOM)
    _, talker, microphone = reverberation.draw_room(ONE_ROOM, np.random.default_rng(3))
    metres = np.linalg.norm(np.subtract(talker, microphone))
    assert direct - 40 == pytest.approx(
        metres / 343 * RATE, abs=1
    )  # 40: half of a fractional delay of 81 taps
    assert np.abs(response[: direct - 42]).max(initial=0) < 0.05 * response.max()  # leakage of the high-pass
    assert np.abs(response[direct - 2 : direct + 3]).max() == pytest.approx(1 / metres, rel=0.5)
    left_db = 10 * np.log10(
        np.cumsum(response[::-1].astype(float) ** 2)[::-1] / (response.astype(float) ** 2).sum()
    )
    decay = [np.flatnonzero(left_db < db)[0] / RATE for db in (-5, -25)]
    assert 0.1 < 3 * (decay[1] - decay[0]) < 0.6  # a slope of 60 dB, from 20


def test_reverberate_keeps_level_and_timing():
    waveform = speech()
    output = reverberation.reverberate(ONE_ROOM)(waveform, context())
    assert power(output) == pytest.approx(power(waveform), rel=0.01)
    click = np.zeros(RATE, dtype=np.float32)
    click[4000] = 0.5
    output = reverberation.reverberate(ONE_ROOM, first=3, count=1)(click, context())
    response, direct = reverberation.room_impulse_response(3, ONE_ROOM)
    np.testing.assert_allclose(
        output[4000:8000] / output[4000], response[direct:][:4000] / response[direct], atol=1e-3
    )


def test_device_response_attenuates_below_band():
    waveform = (0.1 * np.random.default_rng(0).standard_normal(2 * RATE)).astype(np.float32)
    played = reverberation.device_response(waveform, (500.0, 6000.0), np.random.default_rng(0))
    frequencies, before = welch(waveform, RATE, nperseg=512)
    gains = 10 * np.log10(welch(played, RATE, nperseg=512)[1] / before)
    assert gains[(frequencies > 20) & (frequencies < 200)].max() < -20
    inside = (frequencies > 700) & (frequencies < 5500)
    assert np.abs(gains[inside]).max() < reverberation.DEVICE_RIPPLE_DB + 1.5
    assert lag(waveform, played)[0] == 0


def test_gain_and_clip_peaks_equal_hand_computed_values():
    waveform = np.array([0.5, -0.25, 1 / 32768, 0.0], dtype=np.float32)
    quiet = levels.gain(-20)(waveform, context())
    np.testing.assert_array_equal(quiet * 32768, [1638, -819, 0, 0])
    np.testing.assert_allclose(
        levels.clip_peaks(20 * np.log10(2))(waveform, context()), [1, -1, 1 / 8192, 0], atol=1e-6
    )


def test_normalise_speech_level_ignores_silence():
    waveform = np.concatenate(
        [np.zeros(8000, dtype=np.float32), 0.3 * np.sin(np.arange(16000) / 5).astype(np.float32)]
    )
    samples = levels.normalise_speech_level(waveform, context())
    assert 10 * np.log10(power(samples[8000:])) == pytest.approx(-26, abs=0.1)
    np.testing.assert_allclose(levels.normalise_speech_level(0.01 * waveform, context()), samples, atol=1e-6)


def test_normalise_speech_level_limits_the_peak_and_keeps_the_shape():
    """A click in noise: with the noise at -26 dBFS, its peak would be clipped."""
    waveform = np.random.default_rng(0).normal(0, 0.01, RATE).astype(np.float32)
    waveform[RATE // 2] = 0.5
    samples = levels.normalise_speech_level(waveform, context())
    assert np.abs(samples).max() == pytest.approx(0.99, abs=1e-6)
    np.testing.assert_allclose(samples, waveform * (0.99 / 0.5), atol=1e-6)


def test_trim_silence_and_remove_pauses_keep_speech():
    voiced = (0.3 * np.sin(np.arange(3200) / 5)).astype(np.float32)
    faint = (1e-4 * np.random.default_rng(0).standard_normal(1600)).astype(np.float32)
    waveform = np.concatenate([faint, voiced, faint, voiced, faint])
    np.testing.assert_array_equal(levels.trim_silence(waveform, context()), waveform[1600:9600])
    np.testing.assert_array_equal(levels.remove_pauses(waveform, context()), np.concatenate([voiced, voiced]))


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_augmentation_differs_by_seed_and_keeps_length(kind, monkeypatch):
    monkeypatch.setitem(
        training_augmentation.AUGMENTATIONS, "rir", reverberation.reverberate(ONE_ROOM, first=1000, count=3)
    )
    waveform = speech(seconds=0.6)
    output = [AUGMENTATIONS[kind](waveform, context(seed)) for seed in (0, 0, 1, 2)]
    np.testing.assert_array_equal(output[0], output[1])
    assert not np.array_equal(output[0], output[2])
    assert not np.array_equal(output[2], output[3])
    assert all(len(augmented) == len(waveform) for augmented in output)


def test_training_rooms_differ_from_condition_rooms():
    assert training_augmentation.FIRST_ROOM >= reverberation.ROOMS_PER_KIND


def test_augmentation_kinds_of_each_choice():
    assert [augmentation_kinds(name) for name in AUGMENT_CHOICES] == [
        (),
        ("codec",),
        ("noise",),
        ("rir",),
        ("codec", "noise", "rir"),
    ]
    with pytest.raises(ParamsError, match=r"augment is 'codecs'; it must be one of \['none', 'codec'"):
        augmentation_kinds("codecs")

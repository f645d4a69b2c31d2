"""The contract that every front end keeps, and the log-mels against their formula."""

import pickle

import numpy as np
import pytest
import scipy.fft
import scipy.signal
import soundfile
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from speechlike import SETTINGS, voice

from makermark import audio, features
from makermark.errors import ParamsError
from makermark.features import FRONT_ENDS

ASIDE = {"batch_seconds": 0, "device": 0}  # where and how fast, not what: no parameter of a cache


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_every_front_end_says_what_it_makes(name, make_front_end):
    front_end = make_front_end(name)
    (made,) = front_end.transform([voice(1.0, seed=1)])
    assert front_end.name == name
    assert made.dtype == front_end.dtype
    assert made.shape[1] == front_end.width
    assert abs(len(made) - front_end.frames_per_second) <= 1
    assert front_end.parameters()["front_end"] == name
    assert {**SETTINGS[name], **ASIDE}.items() <= {**front_end.parameters(), **ASIDE}.items()
    assert front_end.transform([]) == []
    assert front_end.samples_at_once >= front_end.min_samples


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_the_features_of_an_utterance_do_not_depend_on_its_batch(name, make_front_end):
    front_end = make_front_end(name)
    waveforms = [voice(s, seed=i) for i, s in enumerate([0.7, 14.3, 2.0, 0.5, 1.11113, 0.6])]
    together = front_end.transform(waveforms)
    turned = front_end.transform(waveforms[::-1])[::-1]
    for waveform, one, other in zip(waveforms, together, turned, strict=True):
        (alone,) = front_end.transform([waveform])
        assert alone.shape == one.shape == other.shape
        # equal but for the last bit of float16 (spacing 2^-7 at 8 to 16)
        np.testing.assert_allclose(one.astype(float), alone.astype(float), rtol=0, atol=2**-7)
        np.testing.assert_allclose(other.astype(float), alone.astype(float), rtol=0, atol=2**-7)
        # an encoder's values come near 0, where float16 is finer than the rounding of its many float32 sums
        assert (one != alone).mean() < (0.02 if name == "wav2vec2" else 0.001)


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_every_front_end_takes_exactly_the_shortest_it_states(name, make_front_end):
    front_end = make_front_end(name)
    (made,) = front_end.transform([voice(1.0, seed=1)[: front_end.min_samples]])
    assert len(made) >= 1
    assert np.isfinite(made.astype(float)).all()


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_every_front_end_travels_to_another_process(name, make_front_end):
    front_end, waveform = make_front_end(name), voice(0.5, seed=3)
    front_end.transform([waveform])
    copy = pickle.loads(pickle.dumps(front_end))
    np.testing.assert_array_equal(copy.transform([waveform])[0], front_end.transform([waveform])[0])


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_a_misspelt_or_missing_setting_is_refused_with_the_choices(name):
    first, *_ = SETTINGS[name]
    with pytest.raises(ParamsError, match=rf"unknown settings \['rate'\].*{first}"):
        features.build(name, **SETTINGS[name], rate=1)
    with pytest.raises(ParamsError, match=rf"missing settings \['{first}'\]"):
        features.build(name, **{k: v for k, v in SETTINGS[name].items() if k != first})
    with pytest.raises(ParamsError, match=rf"{first} is 0"):
        features.build(name, **{**SETTINGS[name], first: 0})


def test_an_unknown_front_end_is_refused_with_the_list():
    with pytest.raises(ParamsError, match=r"'fbanks'; it is one of \['fbank', 'waveform', 'wav2vec2'\]"):
        features.build("fbanks")


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("n_mels", 0, "n_mels is 0"),
        ("hop_length", -1, "hop_length is -1"),
        ("n_fft", 511, "even"),
        ("win_length", 513, r"win_length \(513\) is above n_fft \(512\)"),
        ("log_offset", 0.0, "log_offset is 0.0"),
        ("n_fft", "512", "whole number"),
    ],
)
def test_settings_that_no_filterbank_can_have_are_refused(setting, value, said, make_front_end):
    with pytest.raises(ParamsError, match=said):
        make_front_end("fbank", **{setting: value})


def log_mels_by_the_formula(waveform, *, rate_hz=16000, n_fft=512, win=400, hop=160, bands=40, offset=1e-6):
    """Frame by frame in double precision, filters drawn as triangles over frequency: (T, F)."""
    window = np.zeros(n_fft)
    start = (n_fft - win) // 2
    window[start : start + win] = scipy.signal.get_window("hamming", win, fftbins=True)
    padded = np.pad(waveform.astype(np.float64), n_fft // 2, mode="reflect")
    count = 1 + len(waveform) // hop
    frames = np.stack([padded[t * hop : t * hop + n_fft] * window for t in range(count)])
    power = np.abs(scipy.fft.rfft(frames, axis=1)) ** 2
    mel = np.linspace(0, 2595 * np.log10(1 + rate_hz / 2 / 700), bands + 2)
    corner_hz = 700 * (10 ** (mel / 2595) - 1)
    bin_hz = np.linspace(0, rate_hz / 2, n_fft // 2 + 1)
    filters = np.stack(
        [np.interp(bin_hz, corner_hz[m : m + 3], [0, 1, 0], left=0, right=0) for m in range(bands)]
    )
    return np.log(power @ filters.T + offset)


def half_a_float16_step(values):
    """The rounding error that float16 may make at `values`, with a little for float32 arithmetic."""
    return np.spacing(np.abs(values).astype(np.float16)).astype(float) / 2 + 3e-4


@given(samples=st.integers(257, 9000), seed=st.integers(0, 1000), loud=st.sampled_from([1.0, 0.01]))
@settings(max_examples=40, deadline=None)
def test_log_mels_are_those_of_the_formula_to_float16_rounding(samples, seed, loud):
    waveform = loud * voice(samples / 16000, seed=seed)
    (made,) = features.build("fbank", **SETTINGS["fbank"]).transform([waveform])
    expected = log_mels_by_the_formula(waveform)
    assert made.shape == expected.shape == (1 + samples // 160, 40)
    assert (np.abs(made.astype(float) - expected) <= half_a_float16_step(expected)).all()


def test_log_mels_are_torchaudios_with_its_defaults(make_front_end):
    waveform = voice(3.21, seed=5)
    transform = torchaudio.transforms.MelSpectrogram(
        16000, n_fft=512, win_length=400, hop_length=160, n_mels=40, window_fn=torch.hamming_window
    )
    expected = (transform(torch.from_numpy(waveform)) + 1e-6).log().T.numpy()
    (made,) = make_front_end().transform([waveform])
    assert (np.abs(made - expected) <= half_a_float16_step(expected)).all()


def test_float16_moves_no_log_mel_by_more_than_a_half_per_cent_of_its_bands_spread(make_front_end):
    waveform = voice(4.0, seed=9)
    exact = log_mels_by_the_formula(waveform)
    (stored,) = make_front_end().transform([waveform])
    error, spread = stored.astype(float) - exact, exact.std(axis=0)
    assert (np.sqrt((error**2).mean(axis=0)) < 0.005 * spread).all()
    assert (np.abs(error.mean(axis=0)) < 0.001 * spread).all()


def test_the_waveform_of_a_16_bit_file_is_kept_to_the_bit(make_front_end, tmp_path):
    values = np.random.default_rng(0).integers(-32768, 32768, 8000).astype(np.int16)
    values[:2] = [-32768, 32767]
    soundfile.write(tmp_path / "a.wav", values, 16000, subtype="PCM_16")
    (made,) = make_front_end("waveform").transform([audio.read(tmp_path / "a.wav")])
    np.testing.assert_array_equal(made[:, 0], values)


def test_what_passes_full_scale_is_limited_not_wrapped(make_front_end):
    (made,) = make_front_end("waveform").transform([np.float32([1.0, 1.5, -1.0, -1.5, 0.5])])
    assert made[:, 0].tolist() == [32767, 32767, -32768, -32768, 16384]

"""Contract tests over all FRONT_ENDS, and log-mels against their formula."""

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

from makermark import features
from makermark.features import FRONT_ENDS
from makermark.foundation import audio
from makermark.foundation.errors import ParamsError

SPEED_SETTINGS = {"batch_seconds": 0, "device": 0}  # not parameters of a cache


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_front_end_properties_describe_its_features(name, make_front_end):
    front_end = make_front_end(name)
    (output,) = front_end.transform([voice(1.0, seed=1)])
    assert front_end.name == name
    assert output.dtype == front_end.dtype
    assert output.shape[1] == front_end.width
    assert abs(len(output) - front_end.frames_per_second) <= 1
    assert front_end.parameters()["front_end"] == name
    assert {**SETTINGS[name], **SPEED_SETTINGS}.items() <= {
        **front_end.parameters(),
        **SPEED_SETTINGS,
    }.items()
    assert front_end.transform([]) == []
    assert front_end.chunk_samples >= front_end.min_samples


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_features_do_not_depend_on_batch(name, make_front_end):
    front_end = make_front_end(name)
    waveforms = [voice(s, seed=i) for i, s in enumerate([0.7, 14.3, 2.0, 0.5, 1.11113, 0.6])]
    together = front_end.transform(waveforms)
    reversed_batch = front_end.transform(waveforms[::-1])[::-1]
    for waveform, one, other in zip(waveforms, together, reversed_batch, strict=True):
        (alone,) = front_end.transform([waveform])
        assert alone.shape == one.shape == other.shape
        # equal except for the last bit of float16 (spacing 2^-7 at 8 to 16)
        np.testing.assert_allclose(one.astype(float), alone.astype(float), rtol=0, atol=2**-7)
        np.testing.assert_allclose(other.astype(float), alone.astype(float), rtol=0, atol=2**-7)
        # hidden states are near 0, where float16 is finer than the rounding errors of the encoder
        assert (one != alone).mean() < (0.02 if name == "wav2vec2" else 0.001)


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_front_end_transforms_min_samples(name, make_front_end):
    front_end = make_front_end(name)
    (output,) = front_end.transform([voice(1.0, seed=1)[: front_end.min_samples]])
    assert len(output) >= 1
    assert np.isfinite(output.astype(float)).all()


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_front_end_can_be_pickled(name, make_front_end):
    front_end, waveform = make_front_end(name), voice(0.5, seed=3)
    front_end.transform([waveform])
    copy = pickle.loads(pickle.dumps(front_end))
    np.testing.assert_array_equal(copy.transform([waveform])[0], front_end.transform([waveform])[0])


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_build_raises_for_unknown_missing_or_invalid_setting(name):
    first, *_ = SETTINGS[name]
    with pytest.raises(ParamsError, match=rf"unknown settings \['rate'\].*{first}"):
        features.build(name, **SETTINGS[name], rate=1)
    with pytest.raises(ParamsError, match=rf"missing settings \['{first}'\]"):
        features.build(name, **{k: v for k, v in SETTINGS[name].items() if k != first})
    with pytest.raises(ParamsError, match=rf"{first} is 0"):
        features.build(name, **{**SETTINGS[name], first: 0})


def test_build_raises_for_unknown_front_end():
    with pytest.raises(
        ParamsError,
        match=r"'fbanks'; .*one of \['fbank', 'linear-fbank', 'linear-fbank-changes', 'waveform', 'wav2vec2'\]",
    ):
        features.build("fbanks")


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("n_mels", 0, "n_mels is 0"),
        ("hop_length", -1, "hop_length is -1"),
        ("n_fft", 511, "even"),
        ("win_length", 513, r"win_length is 513; it must be at most n_fft \(512\)"),
        ("log_offset", 0.0, "log_offset is 0.0"),
        ("n_fft", "512", "whole number"),
    ],
)
def test_fbank_raises_for_setting_out_of_range(setting, value, message, make_front_end):
    with pytest.raises(ParamsError, match=message):
        make_front_end("fbank", **{setting: value})


def mel_corners_hz(bands, rate_hz):
    mel = np.linspace(0, 2595 * np.log10(1 + rate_hz / 2 / 700), bands + 2)
    return 700 * (10 ** (mel / 2595) - 1)


def linear_corners_hz(bands, rate_hz):
    return np.arange(bands + 2) * rate_hz / 2 / (bands + 1)


def log_energies_by_formula(
    waveform, *, corners=mel_corners_hz, rate_hz=16000, n_fft=512, win=400, hop=160, bands=40, offset=1e-6
):
    """Compute log energies (T, F) frame by frame in float64, with filters as triangles over frequency."""
    window = np.zeros(n_fft)
    start = (n_fft - win) // 2
    window[start : start + win] = scipy.signal.get_window("hamming", win, fftbins=True)
    padded = np.pad(waveform.astype(np.float64), n_fft // 2, mode="reflect")
    count = 1 + len(waveform) // hop
    frames = np.stack([padded[t * hop : t * hop + n_fft] * window for t in range(count)])
    power = np.abs(scipy.fft.rfft(frames, axis=1)) ** 2
    corner_hz = corners(bands, rate_hz)
    bin_hz = np.linspace(0, rate_hz / 2, n_fft // 2 + 1)
    filters = np.stack(
        [np.interp(bin_hz, corner_hz[m : m + 3], [0, 1, 0], left=0, right=0) for m in range(bands)]
    )
    return np.log(power @ filters.T + offset)


def white_noise(samples):
    return np.random.default_rng(0).standard_normal(samples).astype(np.float32)


def float16_rounding_error(values):
    """Return the largest rounding error of float16 at `values`, plus a margin for float32 arithmetic."""
    return np.spacing(np.abs(values).astype(np.float16)).astype(float) / 2 + 3e-4


@given(samples=st.integers(257, 9000), seed=st.integers(0, 1000), level=st.sampled_from([1.0, 0.01]))
@settings(max_examples=40, deadline=None)
def test_log_mels_equal_formula_up_to_float16_rounding(samples, seed, level):
    waveform = level * voice(samples / 16000, seed=seed)
    (output,) = features.build("fbank", **SETTINGS["fbank"]).transform([waveform])
    expected = log_energies_by_formula(waveform)
    assert output.shape == expected.shape == (1 + samples // 160, 40)
    assert (np.abs(output.astype(float) - expected) <= float16_rounding_error(expected)).all()


@given(samples=st.integers(513, 9000), seed=st.integers(0, 1000), level=st.sampled_from([1.0, 0.01]))
@settings(max_examples=40, deadline=None)
def test_linear_bands_equal_formula_up_to_float16_rounding(samples, seed, level):
    waveform = level * voice(samples / 16000, seed=seed)
    (output,) = features.build("linear-fbank", **SETTINGS["linear-fbank"]).transform([waveform])
    expected = log_energies_by_formula(
        waveform, corners=linear_corners_hz, n_fft=1024, win=1024, hop=256, bands=80
    )
    assert output.shape == expected.shape == (1 + samples // 256, 80)
    assert (np.abs(output.astype(float) - expected) <= float16_rounding_error(expected)).all()


@given(samples=st.integers(513, 9000), seed=st.integers(0, 1000), level=st.sampled_from([1.0, 0.01]))
@settings(max_examples=20, deadline=None)
def test_changes_within_frames_equal_formula(samples, seed, level):
    waveform = level * voice(samples / 16000, seed=seed)
    (output,) = features.build("linear-fbank-changes", **SETTINGS["linear-fbank-changes"]).transform(
        [waveform]
    )
    frames = samples // 256
    (bands,) = features.build("linear-fbank", **SETTINGS["linear-fbank"]).transform([waveform])
    np.testing.assert_array_equal(output[:, :80], bands[:frames])
    first = 80
    for window, count in ((64, 8), (128, 20)):
        levels = log_energies_by_formula(
            waveform, corners=linear_corners_hz, n_fft=window, win=window, hop=window // 4, bands=count
        )
        steps = 1024 // window
        for t in range(frames):
            z = levels[t * steps : (t + 1) * steps + 1]
            change = ((z[1:] - z[:-1]) ** 2).mean(axis=0)
            curvature = ((z[2:] - 2 * z[1:-1] + z[:-2]) ** 2).mean(axis=0)
            expected = np.concatenate([change, curvature]) + 1e-3
            measured = np.exp(output[t, first : first + 2 * count].astype(float))
            # log energies stored as float16 have errors of up to 0.004, second differences of up to 0.016
            np.testing.assert_allclose(measured, expected, rtol=0.05, atol=5e-3)
        first += 2 * count
    assert output.shape == (frames, first)


def test_changes_do_not_depend_on_the_gain(make_front_end):
    waveform = voice(1.0, seed=2) + np.float32(0.05) * white_noise(
        16000
    )  # far above log_offset in every band
    loud, quiet = make_front_end("linear-fbank-changes").transform([waveform, waveform / 4])
    np.testing.assert_allclose(loud[:, 80:].astype(float), quiet[:, 80:].astype(float), atol=0.05)


def test_changes_tell_speech_from_its_griffin_lim_resynthesis(make_front_end):
    """The band energies of a long window hardly differ; the pulses, which the estimated phases spread, do."""
    spectrogram = torchaudio.transforms.Spectrogram(1024, hop_length=256, power=1)
    waveform = torch.from_numpy(voice(2.0, seed=3))
    torch.manual_seed(0)
    resynthesis = torchaudio.transforms.GriffinLim(1024, hop_length=256, power=1, n_iter=32)(
        spectrogram(waveform)
    )
    front_end = make_front_end("linear-fbank-changes")
    before, after = front_end.transform([waveform.numpy(), resynthesis.numpy()])
    frames = min(len(before), len(after)) - 4
    difference = (after[4:frames].astype(float) - before[4:frames].astype(float)).mean(axis=0)
    spread = before[4:frames].astype(float).std(axis=0)
    assert np.abs(difference[:80] / spread[:80]).mean() < 0.5
    assert np.abs(difference[80:96] / spread[80:96]).mean() > 1


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("short_bands", [8], "short_windows has 2 values, short_bands 1"),
        ("short_windows", [64, 130], "contains 130; a quarter of it must be a divisor of hop_length"),
        ("short_windows", [64, 96], "contains 96; a quarter of it"),
        ("short_windows", [64, 1024], "contains 1024; a quarter of it .* at most half of it"),
        ("short_windows", "64", "short_windows is '64'; it takes a list"),
        ("short_bands", [8, 0], "n_bands is 0"),
        ("short_bands", [32, 20], "contains 32 for a window of 64 samples; it must be at most 31"),
    ],
)
def test_changes_raise_for_setting_out_of_range(setting, value, message, make_front_end):
    with pytest.raises(ParamsError, match=message):
        make_front_end("linear-fbank-changes", **{setting: value})


@pytest.mark.parametrize(
    ("name", "corners"), [("fbank", mel_corners_hz), ("linear-fbank", linear_corners_hz)]
)
def test_band_centres_are_the_peaks_of_the_filters(name, corners, make_front_end):
    """A tone at the centre of a band has its largest energy there."""
    front_end = make_front_end(name)
    centres = front_end.band_centres_hz()
    np.testing.assert_allclose(centres, corners(front_end.width, 16000)[1:-1])
    for band in (front_end.width // 2, front_end.width - 3):
        tone = 0.1 * np.sin(2 * np.pi * centres[band] * np.arange(16000) / 16000)
        assert front_end.transform([tone.astype(np.float32)])[0][20].argmax() == band


def test_log_mels_equal_torchaudio(make_front_end):
    waveform = voice(3.21, seed=5)
    transform = torchaudio.transforms.MelSpectrogram(
        16000, n_fft=512, win_length=400, hop_length=160, n_mels=40, window_fn=torch.hamming_window
    )
    expected = (transform(torch.from_numpy(waveform)) + 1e-6).log().T.numpy()
    (output,) = make_front_end().transform([waveform])
    assert (np.abs(output - expected) <= float16_rounding_error(expected)).all()


def test_float16_error_is_below_half_a_percent_of_band_deviation(make_front_end):
    waveform = voice(4.0, seed=9)
    exact = log_energies_by_formula(waveform)
    (stored,) = make_front_end().transform([waveform])
    error, spread = stored.astype(float) - exact, exact.std(axis=0)
    assert (np.sqrt((error**2).mean(axis=0)) < 0.005 * spread).all()
    assert (np.abs(error.mean(axis=0)) < 0.001 * spread).all()


def test_waveform_of_16_bit_file_is_lossless(make_front_end, tmp_path):
    values = np.random.default_rng(0).integers(-32768, 32768, 8000).astype(np.int16)
    values[:2] = [-32768, 32767]
    soundfile.write(tmp_path / "a.wav", values, 16000, subtype="PCM_16")
    (output,) = make_front_end("waveform").transform([audio.read(tmp_path / "a.wav")])
    np.testing.assert_array_equal(output[:, 0], values)


def test_waveform_clips_above_full_scale(make_front_end):
    (output,) = make_front_end("waveform").transform([np.float32([1.0, 1.5, -1.0, -1.5, 0.5])])
    assert output[:, 0].tolist() == [32767, 32767, -32768, -32768, 16384]

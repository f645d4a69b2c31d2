"""Voice activity: what counts as speech, at which level and sample rate, and the detector's side effects."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soxr
import torch

from makermark.features.augmentation.bandwidth import telephone
from makermark.features.augmentation.base import AugmentationContext
from makermark.foundation.errors import MakermarkError
from makermark.tracing import voice_activity
from makermark.tracing.voice_activity import (
    MAX_GAIN_DB,
    amplify,
    speech_between,
    speech_frames,
    speech_frames_of_clips,
    speech_seconds,
    speech_seconds_of_clips,
)
from tests_support import VOICES, speak

RATE_HZ = 16000
TIME = np.arange(5 * RATE_HZ) / RATE_HZ
RNG = np.random.default_rng(0)


def sine(hz):
    return np.sin(2 * np.pi * hz * TIME)


NOT_SPEECH = {
    "tone": 0.5 * sine(440),
    "quiet tone": 0.001 * sine(440),
    "chord": 0.2 * (sine(220) + sine(277.2) + sine(329.6)),
    "dial tone": 0.3 * (sine(697) + sine(1209)),
    "hum": 0.3 * np.sign(sine(50)),
    "sweep": 0.5 * np.sin(2 * np.pi * (100 * TIME + 200 * TIME**2)),
    "white noise": 0.1 * RNG.standard_normal(len(TIME)),
    "noise in beats": 0.1 * RNG.standard_normal(len(TIME)) * (1 + sine(3)),
    "digital silence": np.zeros(len(TIME)),
    "noise of the last bit": np.round(0.6 * RNG.standard_normal(len(TIME))) / 32768,
}


def vowels(seconds, *, system="middle", seed=0):
    return speak(system, np.random.default_rng(seed), seconds).astype(np.float32)


def test_clips_in_one_call_do_not_affect_each_other():
    half = RATE_HZ // 2
    with_pause = np.concatenate([vowels(1.0), np.zeros(half, np.float32), vowels(0.7, system="fast")])
    clips = [
        vowels(1.0),
        NOT_SPEECH["white noise"].astype(np.float32),
        np.zeros(0, np.float32),
        with_pause,
        vowels(0.3),
    ]
    alone = [speech_frames(clip, RATE_HZ) for clip in clips]
    assert [frames.sum() > 0 for frames in alone] == [True, False, False, True, True]
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [3, 3, 0]):
        together = speech_frames_of_clips([clips[number] for number in order], RATE_HZ)
        for frames, number in zip(together, order, strict=True):
            np.testing.assert_array_equal(frames, alone[number])
    assert speech_seconds_of_clips(clips, RATE_HZ) == [speech_seconds(clip, RATE_HZ) for clip in clips]
    assert speech_frames_of_clips([], RATE_HZ) == []


@pytest.mark.parametrize("name", NOT_SPEECH)
def test_what_is_no_voice_is_no_speech(name):
    assert speech_seconds(NOT_SPEECH[name].astype(np.float32), RATE_HZ) == 0


@pytest.mark.parametrize("system", VOICES)
@pytest.mark.parametrize("seconds", [1.0, 3.0])
def test_vowels_are_speech(system, seconds):
    amounts = [speech_seconds(vowels(seconds, system=system, seed=seed), RATE_HZ) for seed in range(5)]
    assert min(amounts) > 0.9 * seconds
    assert max(amounts) <= seconds


@pytest.mark.parametrize("other", ["tone", "white noise", "digital silence"])
def test_only_the_vowels_of_a_mixed_clip_count(other):
    clip = np.concatenate([vowels(2.0), NOT_SPEECH[other][: 3 * RATE_HZ], vowels(1.5, seed=1)])
    frames = speech_frames(clip.astype(np.float32), RATE_HZ)
    for start, end, speech in ((0, 2, 2), (2, 5, 0), (5, 6.5, 1.5)):
        assert speech_between(frames, start, end) == pytest.approx(speech, abs=0.35)  # it lags
    assert speech_seconds(clip, RATE_HZ) == pytest.approx(3.5, abs=0.35)


@pytest.mark.parametrize("rate_hz", [8000, 11025, 22050, 24000, 44100, 48000])
def test_amount_is_about_the_same_at_other_sample_rates(rate_hz):
    clip = np.concatenate([vowels(2.0), np.zeros(RATE_HZ, dtype=np.float32)])
    other = soxr.resample(clip, RATE_HZ, rate_hz, quality="HQ")
    assert speech_seconds(other, rate_hz) == pytest.approx(speech_seconds(clip, RATE_HZ), abs=0.15)


def test_telephone_speech_is_speech():
    clip = vowels(3.0)
    narrow = telephone(clip, AugmentationContext(np.random.default_rng(0), []))
    assert speech_seconds(narrow, RATE_HZ) > 0.9 * 3


@pytest.mark.parametrize("gain_db", [-50, -30, -10, 10])
def test_amount_does_not_depend_on_the_level(gain_db):
    clip = vowels(3.0)
    changed = clip * np.float32(10 ** (gain_db / 20))
    assert speech_seconds(changed, RATE_HZ) == pytest.approx(speech_seconds(clip, RATE_HZ), abs=0.1)


def test_amplification_worked_by_hand():
    quiet = np.tile([0.001, -0.001], 256).astype(np.float32)  # -60 dBFS
    np.testing.assert_allclose(amplify(quiet), 100 * quiet, rtol=1e-5)
    np.testing.assert_allclose(amplify(quiet / 10), 10 ** (MAX_GAIN_DB / 20) * quiet / 10, rtol=1e-5)
    np.testing.assert_array_equal(amplify(500 * quiet), 500 * quiet)  # loud: unchanged


@pytest.mark.parametrize("length", [1, 100, 511, 513, 16_001])
def test_amount_does_not_exceed_the_duration(length, monkeypatch):
    monkeypatch.setattr(voice_activity, "THRESHOLD", 0.0)  # every frame is speech
    for rate_hz in (8000, 16000, 44100):
        amount = speech_seconds(vowels(2.0)[:length], rate_hz)
        assert amount == pytest.approx(length / rate_hz, abs=1 / 8000)
        assert amount <= length / rate_hz


def test_no_samples_have_no_speech():
    assert speech_seconds(np.zeros(0, dtype=np.float32), RATE_HZ) == 0


def test_speech_between_two_times_worked_by_hand():
    frames = np.array([True, False, True, True])  # 0 to 32, 64 to 128 ms
    assert speech_between(frames, 0, 0.128) == pytest.approx(0.096)
    assert speech_between(frames, 0.016, 0.080) == pytest.approx(0.032)
    assert speech_between(frames, 0.100, 9.0) == pytest.approx(0.028)
    assert speech_between(frames, 0.032, 0.064) == 0


def test_frames_equal_those_of_the_streaming_network_of_the_package():
    """The package's TorchScript network, frame by frame; it is another export of the same weights."""
    clip = np.concatenate([vowels(1.0), NOT_SPEECH["tone"][:RATE_HZ], vowels(1.0, seed=1)]).astype(np.float32)
    clip = amplify(soxr.resample(clip, RATE_HZ, 8000, quality="HQ"))
    clip = clip[: len(clip) // 256 * 256]
    frames = speech_frames(clip, 8000)
    from silero_vad import load_silero_vad  # after the first use, which keeps torch's number of threads

    network = load_silero_vad()
    expected = [network(torch.from_numpy(part), 8000).item() >= 0.5 for part in clip.reshape(-1, 256)]
    np.testing.assert_array_equal(frames, expected)


def test_first_use_in_several_threads_loads_the_detector_once(monkeypatch):
    voice_activity._load_session_once()
    import silero_vad  # after the first use, which keeps torch's number of threads

    loaded, original = [], silero_vad.load_silero_vad

    def load(**options):
        loaded.append(options)
        return original(**options)

    monkeypatch.setattr(silero_vad, "load_silero_vad", load)
    voice_activity._load_session_once.cache_clear()
    clips = [vowels(1.0, seed=seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        amounts = list(pool.map(lambda clip: speech_seconds(clip, RATE_HZ), clips))
    assert len(loaded) == 1
    assert amounts == [speech_seconds(clip, RATE_HZ) for clip in clips]


def test_first_use_leaves_the_thread_count_of_torch():
    program = """
import sys, numpy, torch
from makermark.tracing import voice_activity
torch.set_num_threads(3)
assert not {"silero_vad", "onnxruntime"} & set(sys.modules)
voice_activity.speech_seconds(numpy.zeros(16000, dtype=numpy.float32), 16000)
assert "silero_vad" in sys.modules
print(torch.get_num_threads())
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "3\n"


@pytest.mark.parametrize("package", ["silero_vad", "onnxruntime"])
def test_missing_package_is_one_line_with_the_remedy(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    voice_activity._load_session_once.cache_clear()
    with pytest.raises(MakermarkError, match=r"pip install 'silero-vad>=6.2,<7' onnxruntime") as error:
        speech_seconds(vowels(1.0), RATE_HZ)
    assert package in str(error.value)
    assert "\n" not in str(error.value)

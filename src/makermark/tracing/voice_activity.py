"""Voice activity detection: how much of a clip is speech.

The detector is the network of Silero VAD 6 (https://github.com/snakers4/silero-vad, MIT), run by ONNX Runtime. It does
not count tones, chords, hum or noise as speech. It misses speech that is much quieter than normal, so quiet clips are
amplified first. Of its two networks, for 8 and for 16 kHz, the first serves for all clips: the second misses half of
telephone-band speech, and on other speech they are equal.

Legend of axes: N clips, T samples, F frames of 32 ms.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from makermark.foundation.arrays import BoolArray
from makermark.foundation.audio import Samples
from makermark.foundation.errors import MakermarkError
from makermark.foundation.signal_power import SMALLEST_POWER, frame_power

DETECTOR = "Silero VAD"
RATE_HZ = 8_000  # sample rate that the network takes
FRAME_SAMPLES = 256
CONTEXT_SAMPLES = 32  # the end of the previous frame, which precedes each frame in the network's input
FRAME_SECONDS = FRAME_SAMPLES / RATE_HZ
THRESHOLD = 0.5  # smallest probability of speech
LEVEL_DBFS = -20.0  # power that the loudest frame of a quiet clip is amplified to
MAX_GAIN_DB = 40.0
INSTALL_COMMAND = "pip install 'silero-vad>=6.2,<7' onnxruntime"

_loading = threading.Lock()


def speech_seconds(waveform: Samples, rate_hz: int) -> float:
    """Return the amount of speech in `waveform` (T,), at most its duration; raises MakermarkError.

    A short clip has no context for the network, which can miss its first frames.
    """
    return speech_between(speech_frames(waveform, rate_hz), 0.0, len(waveform) / rate_hz)


def speech_between(frames: BoolArray, start_s: float, end_s: float) -> float:
    """Return the amount of speech between two times of a clip, in seconds, given which `frames` (F,) are speech."""
    edges = np.clip(np.arange(len(frames) + 1) * FRAME_SECONDS, start_s, end_s)
    return float(np.diff(edges)[frames].sum())


def speech_frames(waveform: Samples, rate_hz: int) -> BoolArray:
    """Return which frames (F,) of `waveform` (T,) are speech; the last frame can extend beyond the waveform.

    Raises MakermarkError if the detector is not installed.
    """
    return speech_frames_of_clips([waveform], rate_hz)[0]


def speech_seconds_of_clips(waveforms: Sequence[Samples], rate_hz: int) -> list[float]:
    """Return the amount of speech in each of N clips; one call is faster than N of `speech_seconds`."""
    return [
        speech_between(frames, 0.0, len(waveform) / rate_hz)
        for frames, waveform in zip(speech_frames_of_clips(waveforms, rate_hz), waveforms, strict=True)
    ]


def speech_frames_of_clips(waveforms: Sequence[Samples], rate_hz: int) -> list[BoolArray]:
    """Return which frames of each of N clips are speech, as `speech_frames` does.

    The network takes the same frame of all clips at once. Each clip has its own state, so that they do not affect each
    other.
    """
    blocks = [_frame_blocks(waveform, rate_hz) for waveform in waveforms]
    counts = np.array([len(of_clip) for of_clip in blocks], dtype=np.intp)
    probabilities = np.zeros((len(blocks), counts.max(initial=0)))
    # the package's loop over the frames has its state in the detector, which threads cannot share, and is slower
    session, rate, state = (
        _load_session(),
        np.array(RATE_HZ),
        np.zeros((2, len(blocks), 128), dtype=np.float32),
    )
    for number in range(probabilities.shape[1]):
        active = np.flatnonzero(counts > number)  # clips that have this frame
        inputs = np.stack([blocks[clip][number] for clip in active])
        probability, state[:, active] = session.run(
            None, {"input": inputs, "state": state[:, active], "sr": rate}
        )
        probabilities[active, number] = probability[:, 0]
    return [row[:count] >= THRESHOLD for row, count in zip(probabilities, counts, strict=True)]


def _frame_blocks(waveform: Samples, rate_hz: int) -> Samples:
    """Return the inputs of the network (F, CONTEXT_SAMPLES + FRAME_SAMPLES): overlapping blocks, one for each frame."""
    if rate_hz != RATE_HZ:
        import soxr

        waveform = soxr.resample(waveform, rate_hz, RATE_HZ, quality="HQ")
    if not len(waveform):
        return np.zeros((0, CONTEXT_SAMPLES + FRAME_SAMPLES), dtype=np.float32)
    padded = np.pad(amplify(waveform), (CONTEXT_SAMPLES, -len(waveform) % FRAME_SAMPLES))
    return sliding_window_view(padded, CONTEXT_SAMPLES + FRAME_SAMPLES)[::FRAME_SAMPLES]


def amplify(waveform: Samples) -> Samples:
    """Amplify a quiet `waveform` (T,) so that its loudest frame has LEVEL_DBFS, by at most MAX_GAIN_DB."""
    loudest = max(float(frame_power(waveform, FRAME_SAMPLES).max()), SMALLEST_POWER)
    gain_db = np.clip(LEVEL_DBFS - 10 * np.log10(loudest), 0.0, MAX_GAIN_DB)
    return np.asarray(waveform * 10 ** (gain_db / 20), dtype=np.float32)


def _load_session() -> Any:
    """Return the ONNX Runtime session of the network, which threads share; the first call loads it."""
    with _loading:
        return _load_session_once()


@functools.cache
def _load_session_once() -> Any:
    threads = torch.get_num_threads()
    try:
        from silero_vad import load_silero_vad

        return load_silero_vad(onnx=True).session
    except ImportError as error:
        raise MakermarkError(f"speech cannot be detected: {error}; {INSTALL_COMMAND}") from error
    finally:
        torch.set_num_threads(threads)  # the package sets it to 1 when it is imported

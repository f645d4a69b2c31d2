"""Audio in: one float32 channel at the wanted rate, or one line saying why not.

soundfile and soxr are imported where they are used, so that a machine which only trains from a feature
cache needs neither. Legend of axes: T samples.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from makermark.errors import AudioError

Samples = NDArray[np.float32]  # (T,), full scale is 1

RESAMPLER = "soxr HQ"  # its name in what a feature cache records
BYTE_ORDER = {b"RIFF": "little", b"FORM": "big"}  # WAV, AIFF: files made of chunks
SAMPLES_IN = (b"data", b"SSND")


class Look(NamedTuple):
    """What `look` finds."""

    duration_s: float
    sha256: str  # of the file's bytes


def read(
    path: Path,
    *,
    sample_rate_hz: int = 16000,
    min_seconds: float = 0.0,
    max_seconds: float = math.inf,
    sha256: str = "",
) -> Samples:
    """The waveform (T,) of any file that libsndfile reads, channels averaged, resampled by soxr.

    Raises AudioError, `path: reason`, for a file that is missing, empty, not audio, shorter than its
    header says, damaged, silent (one value throughout), outside `min_seconds` to `max_seconds`, with
    samples that are NaN or infinite, or whose bytes have another SHA-256 than `sha256`, where given.
    """
    with _opened(path) as file:
        waveform, rate_hz = _decode(file, min_seconds=min_seconds, max_seconds=max_seconds)
        if sha256 and hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise AudioError("changed since the manifest was made (other bytes than its sha256 says)")
    if rate_hz == sample_rate_hz:
        return waveform
    import soxr

    resampled: Samples = soxr.resample(waveform, rate_hz, sample_rate_hz, quality="HQ")
    return resampled


def look(path: Path) -> Look:
    """What a file says of itself, without decoding its samples. Raises AudioError, as `read` does, for a file that is
    missing, empty, not audio, or shorter than its header says."""
    import soundfile

    with _opened(path) as file:
        _refuse_missing_bytes(file)
        try:
            with soundfile.SoundFile(file.fileno(), closefd=False) as sound:
                duration_s = sound.frames / sound.samplerate
        except soundfile.LibsndfileError as error:
            raise AudioError(f"not audio, or damaged ({error.error_string.strip()})") from error
        file.seek(0)
        return Look(duration_s=duration_s, sha256=hashlib.file_digest(file, "sha256").hexdigest())


@contextmanager
def _opened(path: Path) -> Iterator[FileIO]:
    """The file, not empty; what is wrong with it is raised as AudioError with its path."""
    try:
        with Path(path).open("rb", buffering=0) as file:  # libsndfile shares its position
            if os.fstat(file.fileno()).st_size == 0:
                raise AudioError("empty: 0 bytes")
            yield file
    except FileNotFoundError:
        raise AudioError(f"{path}: missing: there is no such file") from None
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror or error})") from error
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from error.__cause__


def repeat_to(waveform: Samples, length: int) -> Samples:
    """Exactly `length` samples: cut, or repeated from its start as often as needed."""
    if waveform.size == 0:
        raise ValueError("nothing to repeat: the waveform has no samples")
    return np.resize(waveform, length)


def crop(waveform: Samples, *, length: int, rng: np.random.Generator) -> Samples:
    """`length` samples from a random place; a shorter waveform is repeated, not padded with silence."""
    if waveform.size < length:
        return repeat_to(np.roll(waveform, -int(rng.integers(waveform.size))), length)
    start = int(rng.integers(waveform.size - length + 1))
    return waveform[start : start + length]


def _decode(file: BinaryIO, *, min_seconds: float, max_seconds: float) -> tuple[Samples, int]:
    """The averaged channels and their rate; leaves `file` at its start. Raises AudioError(reason)."""
    import soundfile

    _refuse_missing_bytes(file)
    try:
        with soundfile.SoundFile(file.fileno(), closefd=False) as sound:
            rate_hz, frames = int(sound.samplerate), int(sound.frames)
            _refuse_duration(frames / rate_hz, min_seconds, max_seconds)
            whole = sound.subtype == "PCM_16"  # thrice as fast as libsndfile's float32, which is the same
            samples = sound.read(dtype="int16" if whole else "float32", always_2d=True)  # (T, channels)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"not audio, or damaged ({error.error_string.strip()})") from error
    finally:
        file.seek(0)
    if len(samples) < frames:
        raise AudioError(f"truncated: its header says {frames} samples, {len(samples)} can be read")
    samples = samples * np.float32(1 / 32768) if whole else samples
    waveform: Samples = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    finite = np.True_ if whole else np.isfinite(waveform)
    if not finite.all():
        raise AudioError(f"NaN or infinite samples: {np.count_nonzero(~finite)} of {len(waveform)}")
    if not waveform.size or waveform.min() == waveform.max():
        raise AudioError("silent: all samples are the same")
    return waveform, rate_hz


def _refuse_duration(seconds: float, min_seconds: float, max_seconds: float) -> None:
    if seconds < min_seconds:
        raise AudioError(f"too short: {seconds:.3f} s, at least {min_seconds:g} s are needed")
    if seconds > max_seconds:
        raise AudioError(f"too long: {seconds:.1f} s, at most {max_seconds:g} s are taken")


def _refuse_missing_bytes(file: BinaryIO) -> None:
    """WAV and AIFF say how many bytes of samples follow; libsndfile silently takes what there is."""
    size = os.fstat(file.fileno()).st_size
    order = BYTE_ORDER.get(file.read(4))
    position = 12  # past the container's name, size and kind
    while order and position + 8 <= size:
        file.seek(position)
        chunk, promised = file.read(4), int.from_bytes(file.read(4), order)  # type: ignore[arg-type]
        there = size - position - 8
        if promised > there and chunk in SAMPLES_IN:
            raise AudioError(f"truncated: its header says {promised} bytes of samples, {there} are there")
        position += 8 + promised + promised % 2
    file.seek(0)

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
from struct import Struct
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from makermark.errors import AudioError

Samples = NDArray[np.float32]  # (T,), full scale is 1
Coded = NDArray[Any]  # (T, channels), as a file holds them: int16, or float32

RESAMPLER = "soxr HQ"  # its name in what a feature cache records
BYTE_ORDER = {b"RIFF": "little", b"FORM": "big"}  # WAV, AIFF: files made of chunks
SAMPLES_IN = (b"data", b"SSND")
AT_ONCE = 1 << 20  # bytes: half a minute of 16-bit sound at 16 kHz
PLAIN = Struct("<4sI4s4sIHHIIHH4sI")  # RIFF, fmt and data: their fields in the order of the format


class PlainHeader(NamedTuple):
    """Of a WAV that is 44 bytes and then 16-bit samples to its end, as most programs write it."""

    channels: int
    rate_hz: int
    frames: int


class Look(NamedTuple):
    """What `look` finds."""

    duration_s: float
    sha256: str  # of the file's bytes


def read(
    path: Path | str,
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
    with _opened(path) as (file, size):
        content = file.read(min(size, AT_ONCE))
        header = _plain_header(content, size)
        if header:  # half of libsndfile's time
            _refuse_duration(header.frames / header.rate_hz, min_seconds, max_seconds)
            content += file.readall() if len(content) < size else b""
            samples, rate_hz = _plain_samples(content, header), header.rate_hz
        else:
            file.seek(0)
            samples, rate_hz = _decode(file, min_seconds=min_seconds, max_seconds=max_seconds)
        waveform = _waveform(samples)
        if sha256:
            found = hashlib.sha256(content) if len(content) == size else hashlib.file_digest(file, "sha256")
            if found.hexdigest() != sha256:
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

    with _opened(path) as (file, _):
        _refuse_missing_bytes(file)
        try:
            with soundfile.SoundFile(file.fileno(), closefd=False) as sound:
                duration_s = sound.frames / sound.samplerate
        except soundfile.LibsndfileError as error:
            raise AudioError(f"not audio, or damaged ({error.error_string.strip()})") from error
        file.seek(0)
        return Look(duration_s=duration_s, sha256=hashlib.file_digest(file, "sha256").hexdigest())


@contextmanager
def _opened(path: Path | str) -> Iterator[tuple[FileIO, int]]:
    """The file, not empty, and its size; what is wrong with it is raised as AudioError with its path."""
    try:
        with open(path, "rb", buffering=0) as file:  # libsndfile shares its position
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise AudioError("empty: 0 bytes")
            yield file, size
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


def _plain_header(content: bytes, size: int) -> PlainHeader | None:
    """Of a file of `size` bytes that begins with `content`; None if it is no plain WAV."""
    if len(content) < PLAIN.size:
        return None
    riff, _, wave, fmt, fmt_bytes, code, channels, rate_hz, _, align, bits, data, promised = (
        PLAIN.unpack_from(content)
    )
    if (riff, wave, fmt, data) != (b"RIFF", b"WAVE", b"fmt ", b"data"):
        return None
    if (fmt_bytes, code, bits, align) != (16, 1, 16, 2 * channels):  # code 1: integers
        return None
    there = size - PLAIN.size
    if not (0 < channels <= 8 and 0 < rate_hz < 2**31 and promised == there > 0 and there % align == 0):
        return None
    return PlainHeader(channels=channels, rate_hz=rate_hz, frames=there // align)


def _plain_samples(content: bytes, header: PlainHeader) -> Coded:
    """(T, channels), a view of `content`."""
    if len(content) != PLAIN.size + 2 * header.frames * header.channels:
        raise AudioError("changed while it was read; run again when nothing writes to it")
    return np.frombuffer(content, "<i2", offset=PLAIN.size).reshape(header.frames, header.channels)


def _decode(file: FileIO, *, min_seconds: float, max_seconds: float) -> tuple[Coded, int]:
    """What libsndfile reads, (T, channels), and its rate; leaves `file` at its start. Raises AudioError(reason)."""
    import soundfile

    _refuse_missing_bytes(file)
    try:
        with soundfile.SoundFile(file.fileno(), closefd=False) as sound:
            rate_hz, frames = int(sound.samplerate), int(sound.frames)
            _refuse_duration(frames / rate_hz, min_seconds, max_seconds)
            whole = sound.subtype == "PCM_16"  # thrice as fast as libsndfile's float32, which is the same
            samples: Coded = sound.read(dtype="int16" if whole else "float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"not audio, or damaged ({error.error_string.strip()})") from error
    finally:
        file.seek(0)
    if len(samples) < frames:
        raise AudioError(f"truncated: its header says {frames} samples, {len(samples)} can be read")
    return samples, rate_hz


def _waveform(samples: Coded) -> Samples:
    """The channels' average; raises AudioError(reason) for what is no sound."""
    whole = samples.dtype.kind == "i"
    scaled: Samples = samples * np.float32(1 / 32768) if whole else samples
    waveform: Samples = scaled[:, 0] if scaled.shape[1] == 1 else scaled.mean(axis=1)
    finite = np.True_ if whole else np.isfinite(waveform)
    if not finite.all():
        raise AudioError(f"NaN or infinite samples: {np.count_nonzero(~finite)} of {len(waveform)}")
    if _constant(waveform[:: 1 + waveform.size // 64]) and _constant(waveform):
        raise AudioError("silent: all samples are the same")
    return waveform


def _constant(waveform: Samples) -> bool:
    return not waveform.size or bool(waveform.min() == waveform.max())


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

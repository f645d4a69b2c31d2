"""Waveforms of audio files: decoded, mixed to one channel and resampled.

soxr is imported in the function that uses it, so that training from a feature cache does not need it. The header of a
plain 16-bit WAV is parsed here, since soundfile takes twice the time for such a file (benchmarks/features.py).

Legend of axes: T samples.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from struct import Struct
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from makermark.foundation.arrays import FloatArray
from makermark.foundation.audio.containers import joined_recordings
from makermark.foundation.audio.decoders import (
    Decoded,
    DecodedSamples,
    Segment,
    check_format,
    decode,
    header_seconds,
)
from makermark.foundation.errors import AudioError

Samples = NDArray[np.float32]  # (T,), full scale is 1

RESAMPLER = "soxr HQ"  # as recorded in a feature cache
READ_BYTES = 1 << 20  # of the first read: half a minute of 16-bit audio at 16 kHz
MAX_PIPE_BYTES = 1 << 30
# The mixed energy, as a share of that of uncorrelated channels, below which channels cancel out: a correlation of -0.4
# of equally loud channels, such as speech of opposite signs in as much noise.
CANCELLED = 0.6
CANCELLED_SHARE = 0.1  # of the energy of a file; less is not relevant
CANCELLED_BLOCK_S = 0.5  # channels may cancel in a part of a file only
PLAIN_WAV = Struct("<4sI4s4sIHHIIHH4sI")  # the RIFF header, the fmt chunk and the header of the data chunk

log = logging.getLogger(__name__)


class PlainHeader(NamedTuple):
    """The header of a WAV file with 44 bytes before its 16-bit samples, the form that most programs write."""

    channels: int
    rate_hz: int
    frames: int


class AudioInfo(NamedTuple):
    """Duration and checksum of a file."""

    duration_s: float
    sha256: str  # of the file's bytes


class Recording(NamedTuple):
    """The audio of a file."""

    waveform: Samples  # (T,)
    rate_hz: int  # of the file, before resampling
    channels: int  # of the file
    decoder: str  # its name and version, and the format of the file
    sha256: str  # of the file
    notes: tuple[str, ...]  # what a reader of the result should know about the file


def read(
    path: Path | str,
    *,
    sample_rate_hz: int = 16000,
    min_seconds: float = 0.0,
    max_seconds: float = math.inf,
    sha256: str = "",
) -> Samples:
    """Return the waveform (T,) of a file and log its notes as warnings; parameters and errors are those of `load`."""
    recording = load(
        path,
        sample_rate_hz=sample_rate_hz,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        sha256=sha256,
    )
    for note in recording.notes:
        log.warning("%s: %s", path, note)
    return recording.waveform


def load(
    path: Path | str,
    *,
    sample_rate_hz: int | None = 16000,
    min_seconds: float = 0.0,
    max_seconds: float = math.inf,
    sha256: str = "",
) -> Recording:
    """Return the audio of a file that libsndfile or FFmpeg decodes: the mean of its channels, resampled by soxr.

    All samples that are present are used, whatever length the header states; a difference becomes a note. If the
    channels cancel each other out, the loudest one is used, with a note. A pipe is read to its end.
    `sample_rate_hz=None` keeps the rate of the file.

    Raises AudioError, `path: reason`, for a file that is missing, empty, not audio, damaged, silent (one value
    throughout), outside `min_seconds` to `max_seconds`, with samples that are NaN or infinite, or whose bytes have
    another SHA-256 than `sha256`, where given.
    """
    with _open_audio(path) as (file, size):
        content = file.read(min(size, READ_BYTES))
        header = _plain_header(content, size)
        if header:
            check_format(header.frames, header.rate_hz, header.channels, max_seconds)
            content += file.readall() if len(content) < size else b""
            samples = _plain_samples(content, header)
            decoded = Decoded([Segment(samples, header.rate_hz)], "makermark, WAV PCM_16", None, [])
        else:
            file.seek(0)
            decoded = decode(file, size, max_seconds=max_seconds)
        if decoded.seconds < min_seconds:
            raise AudioError(f"too short: {decoded.seconds:.3f} s, at least {min_seconds:g} s are needed")
        notes = list(decoded.notes)
        parts = [
            (mix_channels(segment.samples, segment.rate_hz, notes), segment.rate_hz)
            for segment in decoded.segments
        ]
        _check_samples([part for part, _ in parts])
        digest = hashlib.sha256(content) if len(content) == size else hashlib.file_digest(file, "sha256")
        checksum = digest.hexdigest()
        if sha256 and checksum != sha256:
            raise AudioError("changed since the manifest was made: its SHA-256 differs")
        target_hz = sample_rate_hz or decoded.segments[0].rate_hz
        resampled = [_resample(part, rate_hz, target_hz) for part, rate_hz in parts]
        waveform = resampled[0] if len(resampled) == 1 else np.concatenate(resampled)
        if not waveform.size:
            raise AudioError(f"too short: {decoded.seconds:.6f} s")
    first = decoded.segments[0]
    return Recording(
        waveform,
        rate_hz=first.rate_hz,
        channels=first.samples.shape[1],
        decoder=decoded.decoder,
        sha256=checksum,
        notes=tuple(dict.fromkeys(notes)),
    )


def probe(path: Path) -> AudioInfo:
    """Return duration and checksum of a file; decode its samples only if the header does not give the duration.

    Notes on a decoded file are logged as warnings.
    Raises AudioError, as `load` does, for a file that is missing, empty, not audio, or damaged.
    """
    with _open_audio(path) as (file, size):
        recordings = joined_recordings(file, size)
        duration_s = header_seconds(file, size) if len(recordings) == 1 else None
        if duration_s is None:
            decoded = decode(file, size, recordings=recordings)
            duration_s = decoded.seconds
            for note in decoded.notes:
                log.warning("%s: %s", path, note)
        return AudioInfo(duration_s=duration_s, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def mix_channels(samples: DecodedSamples, rate_hz: int, notes: list[str]) -> Samples:
    """Return the mean (T,) of the channels of samples (T, channels); the loudest channel if they cancel each other out.

    Two channels with opposite signs have a mean of zero, be it in a part of the file only. A note is appended if the
    mean is not used.
    """
    is_integer = samples.dtype.kind == "i"
    scaled: Samples = samples * np.float32(1 / 32768) if is_integer else samples
    if scaled.shape[1] == 1 or (samples == samples[:, :1]).all():  # one channel, or copies of it
        return np.ascontiguousarray(scaled[:, 0])
    with np.errstate(over="ignore", invalid="ignore"):  # samples that are not finite are refused later
        mixed: Samples = scaled.mean(axis=1)
        is_cancelled = _are_cancelled(scaled, max(1, round(CANCELLED_BLOCK_S * rate_hz)))
    if is_cancelled:
        loudest = int(scaled.var(axis=0, dtype=np.float64).argmax())
        notes.append(f"the channels cancel each other out in their mean; only channel {loudest + 1} is used")
        return np.ascontiguousarray(scaled[:, loudest])
    return mixed


def _are_cancelled(samples: Samples, block: int) -> bool:
    """Return whether the mean of channels, samples (T, channels), lacks a relevant part of what they contain.

    Energies are compared in blocks of `block` samples. They are those of the samples without their mean and of their
    differences, because an offset or hum that the channels share remains where speech cancels out.
    """
    totals, cancelled = np.zeros(2), np.zeros(2)
    for start in range(0, len(samples), block):
        part = samples[start : start + block].T.astype(np.float64)
        energies, mixed = np.transpose([_energies(part), _energies(np.diff(part))])
        totals += energies
        cancelled += np.where(mixed < CANCELLED * energies / samples.shape[1], energies, 0)
    return bool((cancelled > CANCELLED_SHARE * totals).any())


def _energies(channels: FloatArray) -> tuple[float, float]:
    """Return the energy of channels (channels, T) without their mean, averaged over the channels, and of their mean."""
    if not channels.size:
        return 0.0, 0.0
    varying = channels - channels.mean(axis=1, keepdims=True)
    mixed = varying.mean(axis=0)
    return float(np.vdot(varying, varying)) / len(varying), float(np.vdot(mixed, mixed))


def _resample(waveform: Samples, rate_hz: int, sample_rate_hz: int) -> Samples:
    if rate_hz == sample_rate_hz:
        return waveform
    import soxr

    return cast(Samples, soxr.resample(waveform, rate_hz, sample_rate_hz, quality="HQ"))


@contextmanager
def _open_audio(path: Path | str) -> Iterator[tuple[FileIO, int]]:
    """Open a file and yield it with its size in bytes. An error inside becomes AudioError with the path of the file."""
    try:
        with open(path, "rb", buffering=0) as file:  # libsndfile shares its position
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                size = os.fstat(file.fileno()).st_size
                if size == 0:
                    raise AudioError("empty: 0 bytes")
                yield file, size
            else:
                with _spooled(file) as (copy, size):
                    yield copy, size
    except FileNotFoundError:
        raise AudioError(f"{path}: missing: there is no such file") from None
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # of open(), for a name with a null character
        raise AudioError(f"{str(path)!r}: not a file name ({error})") from error
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from error.__cause__


@contextmanager
def _spooled(pipe: FileIO) -> Iterator[tuple[FileIO, int]]:
    """Copy a pipe into a temporary file, which can be rewound, and yield that file with its size in bytes."""
    folder = tempfile.gettempdir()
    with ExitStack() as stack:
        try:
            copy = stack.enter_context(tempfile.TemporaryFile(buffering=0, dir=folder))
            size = _copy(pipe, copy)
            copy.seek(0)
        except OSError as error:
            raise AudioError(
                f"a pipe, which cannot be copied to {folder} ({error.strerror}); set TMPDIR"
            ) from error
        if size == 0:
            raise AudioError("a pipe from which nothing came")
        yield copy, size


def _copy(source: FileIO, target: BinaryIO) -> int:
    size = 0
    while block := source.read(READ_BYTES):
        size += len(block)
        if size > MAX_PIPE_BYTES:
            raise AudioError(f"a pipe with more than {MAX_PIPE_BYTES >> 20} MiB; save it as a file")
        target.write(block)
    return size


def _plain_header(content: bytes, size: int) -> PlainHeader | None:
    """Return the header of a file of `size` bytes that begins with `content`; None if it is not a plain WAV."""
    if len(content) < PLAIN_WAV.size:
        return None
    riff, _, wave, fmt, fmt_bytes, code, channels, rate_hz, _, align, bits, data, stated = (
        PLAIN_WAV.unpack_from(content)
    )
    if (riff, wave, fmt, data) != (b"RIFF", b"WAVE", b"fmt ", b"data"):
        return None
    if (fmt_bytes, code, bits, align) != (16, 1, 16, 2 * channels):  # code 1: integers
        return None
    available = size - PLAIN_WAV.size
    if not (0 < channels <= 8 and 0 < rate_hz < 2**31 and stated == available > 0 and available % align == 0):
        return None
    return PlainHeader(channels=channels, rate_hz=rate_hz, frames=available // align)


def _plain_samples(content: bytes, header: PlainHeader) -> DecodedSamples:
    """Return the samples (T, channels) as a view of `content`."""
    if len(content) != PLAIN_WAV.size + 2 * header.frames * header.channels:
        raise AudioError("changed while it was read; run again when nothing writes to it")
    return np.frombuffer(content, "<i2", offset=PLAIN_WAV.size).reshape(header.frames, header.channels)


def _check_samples(parts: list[Samples]) -> None:
    """Raise AudioError for samples that are not finite or are all equal."""
    count = sum(len(part) for part in parts)
    invalid = sum(int(np.count_nonzero(~np.isfinite(part))) for part in parts)
    if invalid:
        raise AudioError(f"NaN or infinite samples: {invalid} of {count}")
    if all(_is_constant(part[:: 1 + part.size // 64]) and _is_constant(part) for part in parts):
        raise AudioError("silent: all samples are the same")


def _is_constant(waveform: Samples) -> bool:
    return not waveform.size or bool(waveform.min() == waveform.max())

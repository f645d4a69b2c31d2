"""Decoding of audio files: libsndfile for uncompressed and lossless files, FFmpeg for all others.

A file is decoded to its end in blocks and its samples are counted: the length that a header states is an estimate for
some formats, a placeholder in files that were streamed, and too small where recordings were joined. libsndfile stops
after the first of several joined MP3 or Ogg files, so FFmpeg decodes these. Both stop after the first of several joined
WAV, FLAC, MP4 or similar files, which are decoded one by one. soundfile and av are imported in the functions that use
them.

Legend of axes: T samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from io import FileIO
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from makermark.foundation.audio.containers import (
    ID3_BYTES,
    DataSize,
    data_size,
    id3_bytes,
    joined_recordings,
    missing_end,
    ogg_streams,
    open_slice,
)
from makermark.foundation.errors import AudioError

if TYPE_CHECKING:
    import soundfile

DecodedSamples = NDArray[Any]  # (T, channels), as a file holds them: int16, or float32

BLOCK_FRAMES = 1 << 20
SAMPLE_RATE_RANGE_HZ = (4_000, 768_000)  # a rate outside is that of a damaged header
MAX_SAMPLES_PER_SECOND = 2 * 48_000  # over all channels, times the maximum duration: bounds the memory
MAX_FRAMES = 1 << 40  # of a header; a FLAC from a stream states more
MAX_NOTES = 20  # about single recordings of a file
STATED_TOLERANCE_S = 0.1  # encoders pad; a smaller difference to the header is no finding
MAX_DAMAGED_SHARE = 0.5  # of the packets; above it the content is not of the format that FFmpeg detected
SNDFILE_SUBTYPES = ("PCM", "FLOAT", "DOUBLE", "ULAW", "ALAW")  # whose number of frames follows from the size
JOINABLE = (b"ID3", b"OggS")
FFMPEG_FORMATS = (  # audio containers; no playlist, which would open other files or addresses
    "mp3,ogg,wav,w64,flac,aiff,aac,ac3,eac3,dts,amr,amrnb,amrwb,ape,asf,au,avi,caf,flv,gsm,matroska,webm,"
    "mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,mpc,mpc8,nistsphere,rm,shn,tak,tta,voc,wv"
)
HEADERLESS = ("mp3", "aac", "ac3", "eac3", "dts")  # without a container; FFmpeg estimates their duration
STREAM_TAGS = (b"Xing", b"Info", b"VBRI")  # of the MP3 frame that states the number of frames


class Segment(NamedTuple):
    """Consecutive samples with one format."""

    samples: DecodedSamples  # (T, channels)
    rate_hz: int


class Decoded(NamedTuple):
    """The content of a file."""

    segments: list[Segment]  # several if the sample rate or the number of channels changes
    decoder: str  # its name and version, and the format of the file
    stated_s: float | None  # duration that the header states; None if it is an estimate or absent
    notes: list[str]  # what is wrong with the file

    @property
    def seconds(self) -> float:
        """Duration of all segments."""
        return sum(len(segment.samples) / segment.rate_hz for segment in self.segments)


def decode(
    file: FileIO,
    size: int,
    *,
    max_seconds: float = math.inf,
    recordings: Sequence[tuple[int, int]] | None = None,
) -> Decoded:
    """Decode a file of `size` bytes to its end; `file` is at position 0 before and after the call.

    `recordings` is the result of `joined_recordings`, if it is known. Raises AudioError if neither decoder reads the
    file, or as soon as more than `max_seconds` are decoded.
    """
    recordings = joined_recordings(file, size) if recordings is None else recordings
    if len(recordings) > 1:
        try:
            return _decode_joined(file, recordings, max_seconds)
        except _UndecodableError as error:
            try:  # the samples may contain what looks like a header
                return _decode_recording(file, size, max_seconds)
            except _UndecodableError:
                raise error from None
    return _decode_recording(file, size, max_seconds)


def _decode_joined(file: BinaryIO, recordings: Sequence[tuple[int, int]], max_seconds: float) -> Decoded:
    """Decode recordings that follow each other; one that cannot be decoded is left out with a note."""
    count = len(recordings)
    parts: list[Decoded] = []
    notes = [f"{count} recordings follow each other in the file, of which players may play only the first"]
    seconds, left_out = 0.0, []
    for number, (start, end) in enumerate(recordings, start=1):
        try:
            parts.append(_decode_recording(open_slice(file, start, end), end - start, max_seconds))
        except _UndecodableError as error:
            left_out.append(f"recording {number} of {count} is left out ({error})")
            continue
        seconds += parts[-1].seconds
        if seconds > max_seconds:
            file.seek(0)
            raise AudioError(f"too long: {seconds:.1f} s or more, the maximum is {max_seconds:g} s")
    file.seek(0)
    if not parts:
        raise _UndecodableError(f"not audio, or damaged: none of {count} recordings in it can be decoded")
    notes += left_out[:MAX_NOTES]
    if len(left_out) > MAX_NOTES:
        notes.append(f"{len(left_out) - MAX_NOTES} more recordings are left out")
    segments = [segment for part in parts for segment in part.segments]
    return Decoded(
        segments, parts[0].decoder, None, [*notes, *(note for part in parts for note in part.notes)]
    )


def _decode_recording(file: BinaryIO, size: int, max_seconds: float) -> Decoded:
    decoders = [_decode_with_sndfile, _decode_with_ffmpeg]
    is_joinable = _is_joinable(file)
    errors = []
    for function in reversed(decoders) if is_joinable else decoders:
        try:
            decoded = function(file, size, max_seconds)
        except _NotDecodedError as error:
            errors.append(error)
            file.seek(0)
        else:
            file.seek(0)
            if is_joinable and errors:
                decoded.notes.append(
                    f"decoded without FFmpeg ({errors[0]}): joined recordings after the first are ignored"
                )
            decoded.notes.extend(filter(None, [missing_end(file, size)]))
            return _compare_with_header(decoded, data_size(file, size))
    if any(isinstance(error, _NoSamplesError) for error in errors):
        raise _UndecodableError("too short: no samples follow its header")
    raise _UndecodableError(
        f"not audio, or damaged ({'; '.join(map(str, errors))}); convert it to WAV or FLAC"
    )


def header_seconds(file: FileIO, size: int) -> float | None:
    """Return the duration that the header of a file with one recording states; None if only decoding gives it.

    `file` is at position 0 before and after the call.
    """
    import soundfile

    if _is_joinable(file):
        return None
    data = data_size(file, size)
    try:
        with soundfile.SoundFile(file.fileno(), closefd=False) as sound:
            is_known = not (data and (data.is_placeholder or data.is_incomplete))
            return sound.frames / sound.samplerate if is_known and _is_exact(sound) else None
    except Exception:
        return None
    finally:
        file.seek(0)


def _is_exact(sound: soundfile.SoundFile) -> bool:
    """Return whether the number of frames of an open file is no estimate and no placeholder."""
    follows_from_size = sound.format == "FLAC" or sound.subtype.startswith(SNDFILE_SUBTYPES)
    return bool(follows_from_size and 0 < sound.frames < MAX_FRAMES)


def _is_joinable(file: BinaryIO) -> bool:
    """Return whether a file begins as MP3 or Ogg, of which libsndfile decodes the first of several streams only."""
    head = file.read(4)
    file.seek(0)
    is_frame = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0  # of MP3
    return is_frame or head.startswith(JOINABLE)


class _NotDecodedError(Exception):
    """One of the decoders cannot decode the file."""


class _UndecodableError(AudioError):
    """No decoder can decode the recording."""


class _NoSamplesError(_NotDecodedError):
    """A decoder reads the header, but no samples follow it."""


def _decode_with_sndfile(file: BinaryIO, size: int, max_seconds: float) -> Decoded:
    import soundfile

    blocks, count, version = [], 0, f"libsndfile {soundfile.__libsndfile_version__}"
    try:
        source = file.fileno() if isinstance(file, FileIO) else file
        with soundfile.SoundFile(source, closefd=False) as sound:
            rate_hz, frames = int(sound.samplerate), int(sound.frames)
            if _is_exact(sound) and sound.format != "FLAC":  # a FLAC may hold less than its header states
                check_format(frames, rate_hz, sound.channels, max_seconds)
            # int16 takes a third of the time and gives equal values
            dtype = "int16" if sound.subtype == "PCM_16" else "float32"
            while True:
                block = sound.read(min(BLOCK_FRAMES, max(1, frames - count)), dtype=dtype, always_2d=True)
                if not len(block):
                    break
                blocks.append(block)
                count += len(block)
                check_format(count, rate_hz, sound.channels, max_seconds)
            decoder = f"{version}, {sound.format} {sound.subtype}"
            stated = frames / rate_hz if _is_exact(sound) else None
    except AudioError:
        raise
    except Exception as error:  # soundfile raises errors of many kinds for damaged and non-seekable files
        raise _NotDecodedError(f"{version}: {_first_line(error)}") from error
    if count == 0:
        raise _NoSamplesError(f"{version}: no samples")
    samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    return Decoded([Segment(samples, rate_hz)], decoder, stated, [])


def _decode_with_ffmpeg(file: BinaryIO, size: int, max_seconds: float) -> Decoded:
    """Decode a file; FFmpeg ends an Ogg file at a stream with another format, so every stream is decoded by itself."""
    streams = ogg_streams(file, size) if file.read(4) == b"OggS" else []
    file.seek(0)
    if len(streams) < 2:
        return _decode_stream(file, max_seconds)
    segments: list[Segment] = []
    notes: list[str] = []
    decoder = ""
    for number, (start, end) in enumerate(streams, start=1):
        seconds = sum(len(segment.samples) / segment.rate_hz for segment in segments)
        try:
            decoded = _decode_stream(open_slice(file, start, end), max_seconds - seconds)
        except _NotDecodedError as error:
            notes.append(f"stream {number} of {len(streams)} is left out ({error})")
            continue
        segments += decoded.segments
        notes += decoded.notes
        decoder = decoded.decoder
    if not segments:
        raise _NotDecodedError(f"none of {len(streams)} streams can be decoded")
    return Decoded(segments, decoder, None, notes)


def _decode_stream(file: BinaryIO, max_seconds: float) -> Decoded:
    """Decode the first audio stream of a file by FFmpeg, without the packets that cannot be decoded."""
    try:
        import av
    except ImportError as error:
        raise _NotDecodedError("FFmpeg is not installed: pip install av") from error
    version = f"FFmpeg (PyAV {av.__version__})"
    options = {"format_whitelist": FFMPEG_FORMATS}
    try:
        with av.open(_Source(file), options=options, metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise _NotDecodedError(f"{version}: no audio in {container.format.name}")
            stream = container.streams.audio[0]
            packets = _Packets(container, stream)
            segments = _collect(packets, max_seconds)
            name = container.format.name
            codec = stream.codec_context.name
            stated = (
                float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
            )
    except (AudioError, _NotDecodedError):
        raise
    except av.error.ArgumentError as error:  # none of FFMPEG_FORMATS
        raise _NotDecodedError(f"{version}: format not recognised") from error
    except Exception as error:  # av raises FFmpegError, and others for damaged files
        raise _NotDecodedError(f"{version}: {_first_line(error)}") from error
    if not segments or packets.damaged > MAX_DAMAGED_SHARE * packets.count:
        raise _NotDecodedError(f"{version}: {packets.damaged} of {packets.count} packets cannot be decoded")
    if name in HEADERLESS and not _has_stream_tag(file):
        stated = None
    notes = (
        [f"{packets.damaged} of {packets.count} packets are damaged and were left out"]
        if packets.damaged
        else []
    )
    return Decoded(segments, f"{version}, {name} {codec}", stated, notes)


def _compare_with_header(decoded: Decoded, data: DataSize | None) -> Decoded:
    """Add a note if the header states another duration than was decoded."""
    seconds, stated_s, tolerance_s = decoded.seconds, decoded.stated_s, STATED_TOLERANCE_S
    if data and data.is_incomplete and data.present > 0:
        stated_s, tolerance_s = data.stated / data.present * seconds, 0.0
    if stated_s and abs(stated_s - seconds) > tolerance_s:
        note = f"its header states {stated_s:.2f} s, {seconds:.2f} s are present and used"
        return decoded._replace(notes=[note, *decoded.notes])
    if data and not data.is_placeholder and data.uncounted * seconds > STATED_TOLERANCE_S * data.stated:
        note = f"{data.uncounted} bytes after the {seconds:.2f} s that its header states are not used"
        return decoded._replace(notes=[note, *decoded.notes])
    return decoded


class _Source:
    """A file for PyAV, which prints a traceback if `seek` raises; -1 tells FFmpeg that the position does not exist."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.tell, self._seek = file.read, file.tell, file.seek

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._seek(offset, whence)
        except (OSError, ValueError):
            return -1


class _Packets:
    """The decoded frames of a stream, with the number of packets and of those that cannot be decoded."""

    def __init__(self, container: Any, stream: Any) -> None:
        self._container, self._stream = container, stream
        self.count = self.damaged = 0

    def __iter__(self) -> Iterator[Any]:
        import av

        for packet in self._container.demux(self._stream):
            self.count += packet.size > 0
            try:
                yield from packet.decode()
            except av.error.InvalidDataError:  # players go on after a damaged packet too
                self.damaged += 1


def _collect(frames: _Packets, max_seconds: float) -> list[Segment]:
    """Return the frames as segments. Raises AudioError if they are longer than `max_seconds`."""
    segments: list[Segment] = []
    blocks: list[DecodedSamples] = []
    layout, before_s, count = None, 0.0, 0  # of the current segment: format, start, frames

    for frame in frames:
        samples = _frame_samples(frame)
        if layout and layout != (frame.sample_rate, samples.shape[1], samples.dtype):
            segments.append(Segment(np.concatenate(blocks), layout[0]))
            before_s, count = before_s + count / layout[0], 0
            blocks.clear()
        layout = frame.sample_rate, samples.shape[1], samples.dtype
        blocks.append(samples)
        count += len(samples)
        check_format(count, frame.sample_rate, samples.shape[1], max_seconds - before_s)
    if layout:
        segments.append(Segment(np.concatenate(blocks), layout[0]))
    return segments


def _frame_samples(frame: Any) -> DecodedSamples:
    """Return the samples (T, channels) of a frame as int16 or as float32 with full scale 1."""
    values: DecodedSamples = frame.to_ndarray()  # (channels, T) if planar, else (1, T * channels)
    values = values.T if frame.format.is_planar else values.reshape(-1, len(frame.layout.channels))
    if values.dtype == np.int16:
        return values
    if values.dtype == np.uint8:
        return ((values.astype(np.float32) - 128) / 128).astype(np.float32)
    if values.dtype.kind == "i":
        return (values / -float(np.iinfo(values.dtype).min)).astype(np.float32)
    return values.astype(np.float32)


def check_format(frames: int, rate_hz: int, channels: int, max_seconds: float) -> None:
    """Raise AudioError for an implausible sample rate, and for a recording that is too long or needs much memory."""
    lowest_hz, highest_hz = SAMPLE_RATE_RANGE_HZ
    if not lowest_hz <= rate_hz <= highest_hz:
        raise _UndecodableError(f"sample rate {rate_hz} Hz: the limits are {lowest_hz} and {highest_hz} Hz")
    if frames > max_seconds * rate_hz:
        raise AudioError(f"too long: {frames / rate_hz:.1f} s or more, the maximum is {max_seconds:g} s")
    if frames * channels > max_seconds * MAX_SAMPLES_PER_SECOND:
        raise AudioError(
            f"too many samples: {channels} channels at {rate_hz} Hz for {frames / rate_hz:.1f} s or more; convert "
            "it to fewer channels or a lower rate"
        )


def _has_stream_tag(file: BinaryIO) -> bool:
    """Return whether an MP3 states its number of frames; the tag follows the ID3 block, if there is one."""
    file.seek(0)
    file.seek(id3_bytes(file.read(ID3_BYTES)))
    frame = file.read(2048)
    return any(tag in frame for tag in STREAM_TAGS)


def _first_line(error: Exception) -> str:
    message = getattr(error, "error_string", "") or getattr(error, "strerror", "") or str(error)
    return (str(message).strip().splitlines() or [type(error).__name__])[0].rstrip(".")

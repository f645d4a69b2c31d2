"""Real codecs: what FFmpeg's encoders write into a file in memory, and what its decoders read from it.

PyAV's wheels bring LAME (MP3), libopus, opencore-amr (AMR narrowband), FFmpeg's own G.711, G.722, G.726 and AAC.
Legend of axes: T samples.
"""

from __future__ import annotations

import io
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from makermark.audio import Samples
from makermark.degrading.base import RATE_HZ, Change, Draw, fitted

FULL_SCALE = 32768
AMR_BITS = (4750, 5150, 5900, 6700, 7400, 7950, 10200, 12200)  # the modes of 3GPP TS 26.071, bits per second


class Codec(NamedTuple):
    """An encoder of FFmpeg, the container that holds its packets, and the rate that it takes.

    `late` are samples (at that rate) by which the decoder's output comes late and of which the container says nothing:
    AMR looks ahead by 5 ms (3GPP TS 26.090, section 4.4), G.722 delays in its two filter banks.
    """

    encoder: str
    container: str
    rate_hz: int
    late: int = 0


CODECS = {
    "mulaw": Codec("pcm_mulaw", "wav", 8000),
    "g722": Codec("g722", "wav", 16000, late=22),
    "g726": Codec("g726", "wav", 8000),
    "amr": Codec("libopencore_amrnb", "amr", 8000, late=40),
    "mp3": Codec("libmp3lame", "mp3", 16000),
    "opus": Codec("libopus", "ogg", 16000),
    "aac": Codec("aac", "mp4", 16000),
}


def coded(name: str, bits_per_second: int = 0) -> Change:
    """Encoded and decoded by CODECS[name]; no rate for those that have only one."""

    def change(waveform: Samples, draw: Draw) -> Samples:
        return through(waveform, name, bits_per_second)

    return change


def through(waveform: Samples, name: str, bits_per_second: int = 0) -> Samples:
    """The waveform (T,) after encoding and decoding, as long as before and not later."""
    codec = CODECS[name]
    file = encode(waveform, codec, bits_per_second)
    decoded, rate_hz = decode(file)
    decoded = decoded[codec.late * rate_hz // codec.rate_hz :]
    return fitted(resampled(decoded, rate_hz, RATE_HZ), len(waveform))


def encode(waveform: Samples, codec: Codec, bits_per_second: int) -> bytes:
    """The bytes of a file: the codec's packets in its container."""
    import av

    given = resampled(waveform, RATE_HZ, codec.rate_hz)
    given = np.append(given, np.zeros(codec.late, dtype=np.float32))  # so that the end comes out, too
    whole = np.clip(np.round(given * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    file = io.BytesIO()
    with av.open(file, mode="w", format=codec.container) as container:
        stream = container.add_stream(codec.encoder, rate=codec.rate_hz, layout="mono")
        assert isinstance(stream, av.AudioStream)  # every one of CODECS encodes audio
        if bits_per_second:
            stream.bit_rate = bits_per_second
        frame = av.AudioFrame.from_ndarray(whole[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = codec.rate_hz, 0, Fraction(1, codec.rate_hz)
        for given_frame in (frame, None):  # None: what the encoder still holds
            container.mux(stream.encode(given_frame))
    return file.getvalue()


def decode(file: bytes) -> tuple[Samples, int]:
    """(T,) and their rate in Hz."""
    import av

    parts = []
    with av.open(io.BytesIO(file), mode="r") as container:
        for frame in container.decode(audio=0):
            samples = frame.to_ndarray().reshape(-1)
            parts.append(samples / FULL_SCALE if samples.dtype == np.int16 else samples)
            rate_hz = frame.sample_rate
    return np.concatenate(parts).astype(np.float32), rate_hz


def resampled(waveform: Samples, from_hz: int, to_hz: int) -> Samples:
    """By soxr, as audio.read does."""
    if from_hz == to_hz:
        return waveform
    import soxr

    out: Samples = soxr.resample(waveform, from_hz, to_hz, quality="HQ")
    return out

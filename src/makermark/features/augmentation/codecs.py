"""Codecs: speech encoded by FFmpeg into a file in memory, and decoded from it.

PyAV's wheels contain LAME (MP3), libopus, opencore-amr (AMR narrowband), and FFmpeg's own G.711, G.722, G.726 and AAC.

Axes: T samples.
"""

from __future__ import annotations

import io
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from makermark.features.augmentation.base import SAMPLE_RATE_HZ, AugmentationContext, Transform, fit_length
from makermark.foundation.audio import Samples

FULL_SCALE = 32768
AMR_BITS_PER_SECOND = (4750, 5150, 5900, 6700, 7400, 7950, 10200, 12200)  # modes of 3GPP TS 26.071


class Codec(NamedTuple):
    """An FFmpeg encoder, the container of its packets, and its sample rate.

    `delay_samples` (at that rate) is the delay of the decoder's output that the container does not record: AMR has
    5 ms of look-ahead (3GPP TS 26.090, section 4.4), and the two filter banks of G.722 have a delay.
    """

    encoder: str
    container: str
    rate_hz: int
    delay_samples: int = 0


CODECS = {
    "mulaw": Codec("pcm_mulaw", "wav", 8000),
    "g722": Codec("g722", "wav", 16000, delay_samples=22),
    "g726": Codec("g726", "wav", 8000),
    "amr": Codec("libopencore_amrnb", "amr", 8000, delay_samples=40),
    "mp3": Codec("libmp3lame", "mp3", 16000),
    "opus": Codec("libopus", "ogg", 16000),
    "aac": Codec("aac", "mp4", 16000),
}


def codec_roundtrip(name: str, bits_per_second: int = 0) -> Transform:
    """Return a transform that encodes and decodes with CODECS[name]; 0 means the encoder's default bit rate."""

    def transform(waveform: Samples, context: AugmentationContext) -> Samples:
        return encode_decode(waveform, name, bits_per_second)

    return transform


def encode_decode(waveform: Samples, name: str, bits_per_second: int = 0) -> Samples:
    """Encode and decode a waveform (T,) with CODECS[name]; length and timing stay."""
    codec = CODECS[name]
    decoded, rate_hz = decode(encode(waveform, codec, bits_per_second))
    decoded = decoded[codec.delay_samples * rate_hz // codec.rate_hz :]
    return fit_length(resample(decoded, rate_hz, SAMPLE_RATE_HZ), len(waveform))


def encode(waveform: Samples, codec: Codec, bits_per_second: int) -> bytes:
    """Return the bytes of a file: the codec's packets in its container."""
    import av

    samples = resample(waveform, SAMPLE_RATE_HZ, codec.rate_hz)
    samples = np.append(
        samples, np.zeros(codec.delay_samples, dtype=np.float32)
    )  # so that the end is decoded too
    pcm = np.clip(np.round(samples * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    file = io.BytesIO()
    with av.open(file, mode="w", format=codec.container) as container:
        stream = container.add_stream(codec.encoder, rate=codec.rate_hz, layout="mono")
        assert isinstance(stream, av.AudioStream)  # for mypy: all CODECS are audio codecs
        if bits_per_second:
            stream.bit_rate = bits_per_second
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = codec.rate_hz, 0, Fraction(1, codec.rate_hz)
        for input_frame in (frame, None):  # None flushes the encoder
            container.mux(stream.encode(input_frame))
    return file.getvalue()


def decode(file: bytes) -> tuple[Samples, int]:
    """Return the samples (T,) of an encoded file and their rate in Hz."""
    import av

    frames = []
    with av.open(io.BytesIO(file), mode="r") as container:
        for frame in container.decode(audio=0):
            samples = frame.to_ndarray().reshape(-1)
            frames.append(samples / FULL_SCALE if samples.dtype == np.int16 else samples)
            rate_hz = frame.sample_rate
    return np.concatenate(frames).astype(np.float32), rate_hz


def resample(waveform: Samples, from_hz: int, to_hz: int) -> Samples:
    """Resample with soxr, in the quality of `audio.read`."""
    if from_hz == to_hz:
        return waveform
    import soxr

    resampled: Samples = soxr.resample(waveform, from_hz, to_hz, quality="HQ")
    return resampled

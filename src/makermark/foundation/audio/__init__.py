"""Audio files as one float32 channel at a sample rate; an unusable file raises AudioError with the reason."""

from makermark.foundation.audio.decoders import Decoded, DecodedSamples
from makermark.foundation.audio.reader import (
    RESAMPLER,
    AudioInfo,
    Recording,
    Samples,
    load,
    mix_channels,
    probe,
    read,
)

__all__ = [
    "RESAMPLER",
    "AudioInfo",
    "Decoded",
    "DecodedSamples",
    "Recording",
    "Samples",
    "load",
    "mix_channels",
    "probe",
    "read",
]

"""Pretrained speech encoders (wav2vec 2.0, HuBERT, WavLM, Whisper); contract: `base.Encoder`."""

from makermark.features.encoders.base import HOP_SAMPLES, SAMPLE_RATE_HZ, Architecture, Encoder
from makermark.features.encoders.loading import (
    LAST,
    WEIGHTED,
    build,
    config_sha256,
    describe,
    load,
    weights_sha256,
)

__all__ = [
    "HOP_SAMPLES",
    "LAST",
    "SAMPLE_RATE_HZ",
    "WEIGHTED",
    "Architecture",
    "Encoder",
    "build",
    "config_sha256",
    "describe",
    "load",
    "weights_sha256",
]

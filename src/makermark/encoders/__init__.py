"""Pretrained speech encoders (wav2vec 2.0, HuBERT, WavLM, Whisper) behind one small interface: base.Encoder."""

from makermark.encoders.base import HOP_SAMPLES, SAMPLE_RATE_HZ, Architecture, Encoder
from makermark.encoders.loading import LAST, WEIGHTED, build, config_sha256, describe, load, weights_sha256

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

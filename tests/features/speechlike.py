"""Synthetic speech-like waveforms, and manifest rows of their files."""

import hashlib
from pathlib import Path

import numpy as np

from makermark.foundation.params import read_params

PARAMS = read_params(Path(__file__).parents[2] / "params.yaml")
SETTINGS = {name: dict(settings) for name, settings in PARAMS.front_ends.items()} | {
    "wav2vec2": {"batch_seconds": 60.0, "device": "cpu"}
}


def voice(seconds, *, seed, rate_hz=16000):
    """Return a harmonic tone (T,) float32 with varying pitch and level in faint noise, peak 0.5."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    phase = 2 * np.pi * np.cumsum(110 + 60 * rng.random() + 20 * np.sin(2 * np.pi * 3 * t)) / rate_hz
    tone = sum(np.sin(k * phase) / k for k in range(1, 12)) * (1 + np.sin(2 * np.pi * 4 * t))
    noisy = tone + 0.01 * rng.standard_normal(t.size)
    return (0.5 * noisy / np.abs(noisy).max()).astype(np.float32)


def row(path, **changes):
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "0" * 64
    return {"utterance_id": f"id-{path.stem}", "path": path.name, "sha256": digest, **changes}

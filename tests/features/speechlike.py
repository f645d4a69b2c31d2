"""Sounds made of numbers, and the manifest rows of their files."""

import hashlib

import numpy as np

SETTINGS = {
    "fbank": {
        "sample_rate_hz": 16000,
        "n_fft": 512,
        "win_length": 400,
        "hop_length": 160,
        "n_mels": 40,
        "log_offset": 1e-6,
    },
    "waveform": {"sample_rate_hz": 16000},
    "wav2vec2": {"batch_seconds": 60.0, "device": "cpu"},
}


def voice(seconds, *, seed, rate_hz=16000):
    """A harmonic tone with moving pitch and level over faint noise, peak 0.5: (T,) float32."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    phase = 2 * np.pi * np.cumsum(110 + 60 * rng.random() + 20 * np.sin(2 * np.pi * 3 * t)) / rate_hz
    tone = sum(np.sin(k * phase) / k for k in range(1, 12)) * (1 + np.sin(2 * np.pi * 4 * t))
    noisy = tone + 0.01 * rng.standard_normal(t.size)
    return (0.5 * noisy / np.abs(noisy).max()).astype(np.float32)


def row(path, **changes):
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "0" * 64
    return {"utterance_id": f"id-{path.stem}", "path": path.name, "sha256": digest, **changes}

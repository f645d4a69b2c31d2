"""A small real corpus for tests: tones of three "systems" that differ in their vibrato, as FLAC files."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from makermark import features
from makermark.features.front_end import FrontEnd
from makermark.foundation.manifest import Manifest, add_seen_columns

FBANK = {
    "sample_rate_hz": 16000, "n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 40, "log_offset": 1e-6
}  # fmt: skip
VIBRATO_HZ = {"slow": 1.5, "middle": 5.0, "fast": 14.0}


def tone(vibrato_hz: float, rng: np.random.Generator) -> np.ndarray:
    """About a second of a harmonic tone, its pitch swinging `vibrato_hz` times a second, with a little noise."""
    time = np.arange(int(16000 * rng.uniform(0.9, 1.6))) / 16000
    swing = np.sin(2 * np.pi * (vibrato_hz * time + rng.uniform()))
    phase = 2 * np.pi * np.cumsum(rng.uniform(150, 200) * (1 + 0.2 * swing)) / 16000
    voiced = sum(np.cos(k * phase) / k for k in range(1, 20))
    return 0.05 * (voiced + 0.05 * rng.standard_normal(len(time)))


def tone_corpus(folder: Path) -> tuple[Manifest, FrontEnd]:
    """A manifest of 3 systems x 8 utterances in train and 4 in dev, their audio in `folder`, and fbank."""
    rng, rows = np.random.default_rng(0), []
    (folder / "audio").mkdir()
    for split, count in (("train", 8), ("dev", 4)):
        for system, vibrato_hz in VIBRATO_HZ.items():
            for number in range(count):
                path = folder / "audio" / f"{split}-{system}-{number}.flac"
                soundfile.write(path, tone(vibrato_hz, rng), 16000, subtype="PCM_16")
                rows.append(
                    [path.stem, path.name, split, system, hashlib.sha256(path.read_bytes()).hexdigest()]
                )
    table = pd.DataFrame(rows, columns=["utterance_id", "path", "split", "system", "sha256"])
    table = table.assign(
        language="en", family="", acoustic_model="", vocoder="", voice="", text="", duration_s=1.0
    )
    return Manifest("test", folder / "audio", add_seen_columns(table)), features.build("fbank", **FBANK)


def recorded_speech(seconds: float, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """Noise that comes and goes like syllables, three a second: stands for a recording of a person."""
    time = np.arange(int(seconds * rate_hz)) / rate_hz
    syllables = 0.55 + 0.45 * np.sin(2 * np.pi * (3 * time + rng.uniform()))
    return 0.1 * syllables * rng.standard_normal(len(time))

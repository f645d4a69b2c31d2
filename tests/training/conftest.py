"""A small real corpus: harmonic tones of three "systems" that differ in their vibrato, through the real feature cache."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import soundfile

from makermark import features
from makermark.corpora.rows import Manifest, derive_seen
from makermark.features.cache import FeatureCache, write_cache

FBANK = {"sample_rate_hz": 16000, "n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 40}
VIBRATO_HZ = {"slow": 1.5, "middle": 5.0, "fast": 14.0}


def tone(vibrato_hz: float, rng: np.random.Generator) -> np.ndarray:
    """About a second of a harmonic tone, its pitch swinging `vibrato_hz` times a second, with a little noise."""
    time = np.arange(int(16000 * rng.uniform(0.9, 1.6))) / 16000
    swing = np.sin(2 * np.pi * (vibrato_hz * time + rng.uniform()))
    phase = 2 * np.pi * np.cumsum(rng.uniform(150, 200) * (1 + 0.2 * swing)) / 16000
    voiced = sum(np.cos(k * phase) / k for k in range(1, 20))
    return 0.05 * (voiced + 0.05 * rng.standard_normal(len(time)))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """(manifest, cache of fbank) with 3 systems x 8 utterances in train and 4 in dev."""
    folder = tmp_path_factory.mktemp("corpus")
    rng, rows = np.random.default_rng(0), []
    for split, count in (("train", 8), ("dev", 4)):
        for system, vibrato_hz in VIBRATO_HZ.items():
            for number in range(count):
                name = f"{split}-{system}-{number}"
                path = folder / "audio" / f"{name}.flac"
                path.parent.mkdir(exist_ok=True)
                soundfile.write(path, tone(vibrato_hz, rng), 16000, subtype="PCM_16")
                rows.append([name, path.name, split, system, hashlib.sha256(path.read_bytes()).hexdigest()])
    table = pd.DataFrame(rows, columns=["utterance_id", "path", "split", "system", "sha256"])
    table = table.assign(
        language="en", family="", acoustic_model="", vocoder="", voice="", text="", duration_s=1.0
    )
    manifest = Manifest("test", folder / "audio", derive_seen(table))
    front_end = features.build("fbank", **FBANK, log_offset=1e-6)
    write_cache(
        manifest,
        front_end,
        folder / "features",
        shard_utterances=10,
        max_bad_fraction=0,
        min_seconds=0.1,
        max_seconds=10,
        workers=1,
    )
    return manifest, FeatureCache.open(folder / "features" / "fbank", front_end.parameters())

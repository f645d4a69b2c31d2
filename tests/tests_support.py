"""A small real corpus for tests: speech-like audio by three formant synthesizers ("systems"), as FLAC files."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from scipy.signal import lfilter

from makermark import features
from makermark.features.front_end import FrontEnd
from makermark.foundation.manifest import Manifest, add_seen_columns

FBANK = {
    "sample_rate_hz": 16000, "n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 40, "log_offset": 1e-6
}  # fmt: skip
LOG_MELS = {"front_end": "fbank", "normalise": "mean-variance"}  # settings of backbones over filter banks
VOICES = {  # syllables per second, factor for the formants, frequency of the vibrato in Hz
    "slow": (8, 0.87, 1.5),
    "middle": (9, 1.0, 5.0),
    "fast": (10, 1.15, 14.0),
}
VOWELS_HZ = np.array(
    [
        [730, 1090, 2440, 3400],
        [270, 2290, 3010, 3600],
        [300, 870, 2240, 3300],
        [530, 1840, 2480, 3500],
        [570, 840, 2410, 3300],
    ]
)  # first four formants
FORMANTS = ((80, 1.0), (100, -0.6), (120, 0.4), (200, -0.2))  # bandwidth in Hz, amplitude


def speak(system: str, rng: np.random.Generator, seconds: float | None = None) -> np.ndarray:
    """Vowels by a parallel formant synthesizer, which the voice activity detector accepts; 0.9 to 1.6 s by default."""
    syllables_hz, shift, vibrato_hz = VOICES[system]
    length = round(16000 * (seconds or rng.uniform(0.9, 1.6)))
    size = round(16000 / syllables_hz)
    count = length // size + 2  # cut to `length` from a point in the first syllable
    pitch_hz = 180 * np.exp(rng.uniform(-0.15, 0.15, count + 1))
    samples = np.arange(count * size)
    vibrato = 1 + 0.2 * np.sin(2 * np.pi * (vibrato_hz * samples / 16000 + rng.uniform()))
    cycles = np.cumsum(np.interp(samples / size, np.arange(count + 1), pitch_hz) * vibrato) / 16000
    source = lfilter([1], [1, -0.9], np.diff(np.floor(cycles), prepend=0))  # glottal pulses
    source += 0.02 * rng.standard_normal(len(source))
    envelope = np.sin(np.pi * np.arange(size) / size) ** 0.7
    order, syllables = rng.permutation(len(VOWELS_HZ)), []
    for number, part in enumerate(source.reshape(count, size)):
        vowel = np.zeros(size)
        for hz, (bandwidth_hz, amplitude) in zip(VOWELS_HZ[order[number % 5]], FORMANTS, strict=True):
            r = np.exp(-np.pi * bandwidth_hz / 16000)
            poles = [1, -2 * r * np.cos(2 * np.pi * shift * hz / 16000), r**2]
            vowel += amplitude * lfilter([1 - r], poles, part)
        syllables.append(envelope * vowel / np.abs(vowel).max())
    start = rng.integers(size)
    return 0.3 * np.concatenate(syllables)[start : start + length]


def tone(vibrato_hz: float, rng: np.random.Generator) -> np.ndarray:
    """About a second of a harmonic tone, its pitch swinging `vibrato_hz` times a second, with a little noise."""
    time = np.arange(int(16000 * rng.uniform(0.9, 1.6))) / 16000
    swing = np.sin(2 * np.pi * (vibrato_hz * time + rng.uniform()))
    phase = 2 * np.pi * np.cumsum(rng.uniform(150, 200) * (1 + 0.2 * swing)) / 16000
    voiced = sum(np.cos(k * phase) / k for k in range(1, 20))
    return 0.05 * (voiced + 0.05 * rng.standard_normal(len(time)))


def speech_corpus(folder: Path) -> tuple[Manifest, FrontEnd]:
    """A manifest of 3 systems x 8 utterances in train and 4 in dev, their audio in `folder`, and fbank."""
    rng, rows = np.random.default_rng(0), []
    (folder / "audio").mkdir()
    for split, count in (("train", 8), ("dev", 4)):
        for system in VOICES:
            for number in range(count):
                path = folder / "audio" / f"{split}-{system}-{number}.flac"
                soundfile.write(path, speak(system, rng), 16000, subtype="PCM_16")
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

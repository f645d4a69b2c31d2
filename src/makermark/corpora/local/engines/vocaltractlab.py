"""VocalTractLab: articulatory synthesis, which simulates the air in a moving vocal tract; German. Licence GPL-3.

Phonemes by espeak-ng; their durations and gestures by rule. It runs at a quarter of real time.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import vocaltractlab_cython

from makermark.corpora.local.engines.espeak import Espeak
from makermark.foundation.arrays import Float32Array

SAMPLE_RATE_HZ = 44100
# IPA of espeak-ng -> names of the speaker file JD3, in SAMPA.
NAMES = {
    "aɪ": "aI", "aʊ": "aU", "ɔø": "OY", "ɔɪ": "OY", "pf": "pf", "ts": "ts", "tʃ": "tS", "ɪɾ": "i6", "ɛɾ": "E6",
    "aː": "a:", "ɑː": "a:", "eː": "e:", "ɛː": "E:", "iː": "i:", "oː": "o:", "uː": "u:", "øː": "2:", "yː": "y:",
    "a": "a", "ɑ": "a", "e": "e:", "ɛ": "E", "i": "i:", "ɪ": "I", "o": "o:", "ɔ": "O", "u": "u:", "ʊ": "U",
    "ø": "2:", "œ": "9", "y": "y:", "ʏ": "Y", "ə": "@", "ɐ": "6", "ɜ": "6", "ɾ": "R", "r": "R", "ʁ": "R",
    "p": "p", "b": "b", "t": "t", "d": "d", "k": "k", "ɡ": "g", "g": "g", "f": "f", "v": "v", "s": "s", "z": "z",
    "ʃ": "S", "ʒ": "Z", "ç": "C", "x": "x", "h": "h", "l": "l", "m": "m", "n": "n", "ŋ": "N", "j": "j",
}  # fmt: skip
LONGEST_FIRST = "|".join(sorted(NAMES, key=len, reverse=True))
TOKEN = re.compile(rf"(?P<stress>ˈ?)(?P<phoneme>{LONGEST_FIRST})|(?P<pause>,)")
VOWEL_S, LONG_VOWEL_S, CONSONANT_S, PAUSE_S = 0.075, 0.125, 0.065, 0.2
STRESS_FACTOR = 1.3
SILENCE_S = 0.05  # at both ends


class VocalTractLab:
    """VocalTractLab with the speaker in the package. A voice is a factor of all durations, such as `jd3*1.0`."""

    def __init__(self) -> None:
        self._espeak = Espeak()

    def synthesise(self, text: str, *, language: str, voice: str, seed: int) -> tuple[Float32Array, int]:
        ipa = self._espeak.phonemes(text, language=language)
        factor = float(voice.removeprefix("jd3*"))
        lines = [
            f"name = {name}; duration_s = {seconds * factor:.4f};\n" for name, seconds in _durations(ipa)
        ]
        with tempfile.TemporaryDirectory() as folder:
            phonemes, gestures = Path(folder, "phonemes.seg"), Path(folder, "score.ges")
            phonemes.write_text("".join(lines), encoding="utf-8")
            vocaltractlab_cython.phoneme_file_to_gesture_file(str(phonemes), str(gestures))
            samples = vocaltractlab_cython.gesture_file_to_audio(str(gestures))
        return np.asarray(samples, np.float32), SAMPLE_RATE_HZ


def _durations(ipa: str) -> Iterator[tuple[str, float]]:
    """Yield the name and the duration in seconds of every phoneme; an empty name is silence."""
    yield "", SILENCE_S
    for token in TOKEN.finditer(ipa):
        if token["pause"]:
            yield "", PAUSE_S
            continue
        name = NAMES[token["phoneme"]]
        is_long = name.endswith(":") or name in ("aI", "aU", "OY", "i6", "E6")
        seconds = LONG_VOWEL_S if is_long else VOWEL_S if name in "aEIOU9Y@6" else CONSONANT_S
        yield name, seconds * (STRESS_FACTOR if token["stress"] else 1.0)
    yield "", SILENCE_S

"""hibari: a small network (distilled from Kokoro) that drives a harmonic-plus-noise synthesizer, English."""

from __future__ import annotations

import hibari
import numpy as np
from numpy.typing import NDArray


class Hibari:
    """Voices are the pace of the one speaker that lies in the package, such as `heart*1.0`."""

    def __init__(self) -> None:
        self._tts = hibari.Hibari(voice="heart", threads=1)

    def speak(self, text: str, *, language: str, voice: str, seed: int) -> tuple[NDArray[np.float32], int]:
        pace = float(voice.removeprefix("heart*"))
        return np.asarray(self._tts(text, speed=pace, seed=seed), np.float32), self._tts.sample_rate

"""hibari: a small network, distilled from Kokoro, with a harmonic-plus-noise synthesiser; English."""

from __future__ import annotations

import hibari
import numpy as np

from makermark.foundation.arrays import Float32Array


class Hibari:
    """hibari. A voice is the pace factor of the one speaker in the package, such as `heart*1.0`."""

    def __init__(self) -> None:
        self._tts = hibari.Hibari(voice="heart", threads=1)

    def synthesise(self, text: str, *, language: str, voice: str, seed: int) -> tuple[Float32Array, int]:
        pace = float(voice.removeprefix("heart*"))
        return np.asarray(self._tts(text, speed=pace, seed=seed), np.float32), self._tts.sample_rate

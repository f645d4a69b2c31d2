"""Open JTalk: HMM synthesis (HTS with the MLSA filter), Japanese."""

from __future__ import annotations

import numpy as np
import pyopenjtalk
from numpy.typing import NDArray


class OpenJTalk:
    """Voices are the half-tone shift of the one speaker, Mei, such as `mei-3`."""

    def speak(self, text: str, *, language: str, voice: str, seed: int) -> tuple[NDArray[np.float32], int]:
        # The Sudachi dictionary is a package of 193 MB that changes few readings: not used.
        shift = float(voice.removeprefix("mei"))
        samples, rate_hz = pyopenjtalk.tts(text, half_tone=shift, use_sudachi_kanji_yomi=False)
        return np.asarray(samples, np.float32) / np.float32(32768), rate_hz

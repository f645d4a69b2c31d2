"""Open JTalk: HMM synthesis (HTS with the MLSA filter); Japanese."""

from __future__ import annotations

import numpy as np
import pyopenjtalk

from makermark.foundation.arrays import Float32Array


class OpenJTalk:
    """Open JTalk. A voice is the pitch shift in half-tones of the one speaker, Mei, such as `mei-3`."""

    def synthesise(self, text: str, *, language: str, voice: str, seed: int) -> tuple[Float32Array, int]:
        shift = float(voice.removeprefix("mei"))
        # The Sudachi dictionary is not used: its package has 193 MB and changes few readings.
        samples, sample_rate_hz = pyopenjtalk.tts(text, half_tone=shift, use_sudachi_kanji_yomi=False)
        return np.asarray(samples, np.float32) / np.float32(32768), sample_rate_hz

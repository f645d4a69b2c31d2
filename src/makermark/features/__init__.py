"""Front ends by name, and the Arrow cache of what they compute (cache.py)."""

from __future__ import annotations

from collections.abc import Callable

from makermark.features.base import FrontEnd, Scalar
from makermark.features.fbank import Fbank
from makermark.features.ssl import SslFeatures
from makermark.features.waveform import Waveform
from makermark.registry import build_from

FRONT_ENDS: dict[str, Callable[..., FrontEnd]] = {
    "fbank": Fbank,
    "waveform": Waveform,
    "wav2vec2": SslFeatures,
}


def build(name: str, *, model: str = "", layer: int | str = "last", **settings: Scalar | bool) -> FrontEnd:
    """The front end `name` with the settings that params.yaml gives it; raises ParamsError.

    `model` and `layer` name the pretrained encoder for those that run one.
    """
    facts = {"model": model, "layer": layer}
    return build_from(FRONT_ENDS, name, what="front end", facts=facts, settings=settings)

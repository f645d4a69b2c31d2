"""Front ends by name, and the Arrow cache of what they compute (cache.py)."""

from __future__ import annotations

from collections.abc import Callable

from makermark.features.base import FrontEnd, Scalar
from makermark.features.fbank import Fbank
from makermark.features.waveform import Waveform
from makermark.registry import build_from

FRONT_ENDS: dict[str, Callable[..., FrontEnd]] = {
    "fbank": Fbank,
    "waveform": Waveform,
}


def build(name: str, **settings: Scalar | bool) -> FrontEnd:
    """The front end `name` with the settings that params.yaml gives it; raises ParamsError."""
    return build_from(FRONT_ENDS, name, what="front end", facts={}, settings=settings)

"""Registry of front ends; `cache` stores the features they compute."""

from __future__ import annotations

from collections.abc import Callable

from makermark.features.fbank import Fbank, LinearFbank
from makermark.features.front_end import FrontEnd, Scalar
from makermark.features.linear_fbank_changes import LinearFbankChanges
from makermark.features.ssl import SslFeatures
from makermark.features.waveform import Waveform
from makermark.foundation.settings import build_registered

FRONT_ENDS: dict[str, Callable[..., FrontEnd]] = {
    "fbank": Fbank,
    "linear-fbank": LinearFbank,
    "linear-fbank-changes": LinearFbankChanges,
    "waveform": Waveform,
    "wav2vec2": SslFeatures,
}


def build(name: str, *, model: str = "", layer: int | str = "last", **settings: Scalar | bool) -> FrontEnd:
    """Build the front end `name` with the settings of params.yaml.

    `model` and `layer` are those of `ssl:`, for front ends with a pretrained encoder. Raises ParamsError for an
    unknown name, and for unknown, missing or invalid settings.
    """
    facts = {"model": model, "layer": layer}
    return build_registered(FRONT_ENDS, name, kind="front end", facts=facts, settings=settings)

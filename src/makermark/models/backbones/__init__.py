"""Registry of backbones, networks that compute one embedding per utterance; contract: `base.Backbone`."""

from __future__ import annotations

from torch import nn

from makermark.foundation.errors import ParamsError
from makermark.foundation.settings import build_registered, check_settings
from makermark.models.backbones.aasist import Aasist
from makermark.models.backbones.base import Backbone
from makermark.models.backbones.conformer import Conformer
from makermark.models.backbones.ecapa import Ecapa
from makermark.models.backbones.resnet import ResNet34
from makermark.models.backbones.spectral_statistics import SpectralStatistics
from makermark.models.backbones.wav2vec2_aasist import Wav2Vec2Aasist

__all__ = ["BACKBONES", "Backbone", "build", "check"]

BACKBONES: dict[str, type[Backbone]] = {
    "resnet34": ResNet34,
    "aasist": Aasist,
    "wav2vec2-aasist": Wav2Vec2Aasist,
    "conformer": Conformer,
    "ecapa": Ecapa,
    "spectral-statistics": SpectralStatistics,
}


def build(
    name: str,
    *,
    dim: int,
    width: int,
    bands: int | None = None,
    encoder: nn.Module | None = None,
    **settings: str | int | float | bool,
) -> Backbone:
    """Build the backbone `name` for features of `width` values per frame and embeddings of `dim` dimensions.

    The first `bands` values of a frame are log energies of bands; None: all of them. `settings` are exactly the other
    keyword arguments of the backbone's constructor; `encoder` is the SSL encoder for backbones that contain one.
    Initial weights come from torch's global generator. Raises ParamsError for an unknown name, for unknown, missing
    or invalid settings, and for `dim` below 1.
    """
    if dim < 1:
        raise ParamsError(f"backbone {name}: dim is {dim}; it must be at least 1")
    return build_registered(
        BACKBONES,
        name,
        kind="backbone",
        facts={"dim": dim, "width": width, "bands": bands or width, "encoder": encoder},
        settings=settings,
    )


def check(name: str, **settings: str | int | float | bool) -> None:
    """Raise ParamsError for an unknown name, and for unknown, missing or wrongly typed settings."""
    facts = dict.fromkeys(("dim", "width", "bands", "encoder"))
    check_settings(BACKBONES, name, kind="backbone", facts=facts, settings=settings)

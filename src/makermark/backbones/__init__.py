"""Backbones: networks that make one vector of an utterance, one file each; contract: base.Backbone."""

from __future__ import annotations

from torch import nn

from makermark.backbones.aasist import Aasist
from makermark.backbones.base import Backbone
from makermark.backbones.conformer import Conformer
from makermark.backbones.ecapa import Ecapa
from makermark.backbones.resnet import ResNet34
from makermark.backbones.wav2vec2_aasist import Wav2Vec2Aasist
from makermark.errors import ParamsError
from makermark.registry import build_from, check_settings

__all__ = ["BACKBONES", "Backbone", "build", "check"]

BACKBONES: dict[str, type[Backbone]] = {
    "resnet34": ResNet34,
    "aasist": Aasist,
    "wav2vec2-aasist": Wav2Vec2Aasist,
    "conformer": Conformer,
    "ecapa": Ecapa,
}


def build(
    name: str, *, dim: int, width: int, encoder: nn.Module | None = None, **settings: str | int | float | bool
) -> Backbone:
    """The backbone called `name` for features of `width` numbers per frame and embeddings of `dim` numbers.

    It takes exactly the settings of its constructor; `encoder` is the SSL encoder for those that begin with
    one. Raises ParamsError for an unknown name, unknown or missing settings, or a `dim` below 1.
    """
    if dim < 1:
        raise ParamsError(f"backbone {name}: dim is {dim}; an embedding has at least 1 number")
    return build_from(
        BACKBONES,
        name,
        what="backbone",
        facts={"dim": dim, "width": width, "encoder": encoder},
        settings=settings,
    )


def check(name: str, **settings: str | int | float | bool) -> None:
    """Raise ParamsError for an unknown name, and for unknown, missing or wrongly typed settings."""
    facts = dict.fromkeys(("dim", "width", "encoder"))
    check_settings(BACKBONES, name, what="backbone", facts=facts, settings=settings)

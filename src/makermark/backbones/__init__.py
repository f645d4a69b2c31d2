"""Backbones: networks that make one vector of an utterance, one file each; contract: base.Backbone."""

from __future__ import annotations

from makermark.backbones.base import Backbone
from makermark.backbones.resnet import ResNet34
from makermark.errors import ParamsError
from makermark.registry import build_from

__all__ = ["BACKBONES", "Backbone", "build"]

BACKBONES: dict[str, type[Backbone]] = {
    "resnet34": ResNet34,
}


def build(name: str, *, dim: int, **settings: str | int | float | bool) -> Backbone:
    """The backbone called `name` for embeddings of `dim` numbers, with exactly the settings it takes.

    Raises ParamsError for an unknown name, unknown or missing settings, or a `dim` below 1.
    """
    if dim < 1:
        raise ParamsError(f"backbone {name}: dim is {dim}; an embedding has at least 1 number")
    return build_from(BACKBONES, name, what="backbone", facts={"dim": dim}, settings=settings)

"""Which features an experiment reads: what params.yaml lists, and what its backbone and its baseline need."""

from __future__ import annotations

from makermark import backbones, features
from makermark.features.base import FrontEnd
from makermark.params import Params

BASELINE = "fbank"  # the log-mel statistics that every model is measured against


def front_end_of(params: Params) -> str:
    """The name of the front end whose features the backbone reads; raises ParamsError."""
    settings = params.settings("backbones", params.backbone)
    backbones.check(params.backbone, **settings)
    return backbones.BACKBONES[params.backbone].reads(**settings)


def front_ends_of(params: Params) -> list[str]:
    """All front ends whose caches are to be written: the baseline's, those that params.yaml lists, the backbone's."""
    return list(dict.fromkeys([BASELINE, *params.features.front_ends, front_end_of(params)]))


def build_front_end(params: Params, name: str) -> FrontEnd:
    """The front end called `name` with the settings that params.yaml gives it; raises ParamsError."""
    return features.build(name, **params.settings("front_ends", name))

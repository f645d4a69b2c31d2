"""Which features an experiment reads: what params.yaml lists, and what its backbone and its baseline need."""

from __future__ import annotations

import pandas as pd

from makermark import backbones, encoders, features
from makermark.corpora.rows import Manifest
from makermark.degrading.augmenting import kinds_of
from makermark.degrading.base import check_packages
from makermark.errors import ManifestError
from makermark.features.augmented import Augmented
from makermark.features.base import FrontEnd
from makermark.features.cache import FeatureCache
from makermark.params import Params, Scalar

WAVEFORM = "waveform"
BASELINE = "fbank"  # the log-mel statistics that every model is measured against
BONAFIDE = "bonafide"  # the folder of the caches of real human speech, beside those of the corpus


def front_end_of(params: Params) -> str:
    """The name of the front end whose features the backbone reads; raises ParamsError."""
    settings = backbone_settings(params)
    backbones.check(params.backbone, **settings)
    return backbones.BACKBONES[params.backbone].reads(**settings)


def backbone_settings(params: Params) -> dict[str, Scalar]:
    """What params.yaml says of the backbone; for one that starts pretrained also what it says under `ssl:`."""
    settings = dict(params.settings("backbones", params.backbone))
    if not _starts_pretrained(params):
        return settings
    return settings | {
        "freeze": params.ssl.freeze,
        "weighted": params.ssl.layer == encoders.WEIGHTED,
        "learning_rate": params.ssl.learning_rate,
        "gradient_checkpointing": params.ssl.gradient_checkpointing,
    }


def encoder_of(params: Params) -> encoders.Architecture | None:
    """The encoder inside the backbone; None where there is none, or where its features are cached.

    Raises EncoderError where `ssl.model` is not to be had.
    """
    if not _starts_pretrained(params) or front_end_of(params) != WAVEFORM:
        return None
    return encoders.describe(params.ssl.model, layer=params.ssl.layer)


def _starts_pretrained(params: Params) -> bool:
    backbone = backbones.BACKBONES.get(params.backbone)
    return backbone is not None and backbone.starts_pretrained


def front_ends_of(params: Params) -> list[str]:
    """All front ends whose caches are to be written: the baseline's, those that params.yaml lists, the backbone's."""
    return list(dict.fromkeys([BASELINE, *params.features.front_ends, front_end_of(params)]))


def usable(manifest: Manifest, cache: FeatureCache, split: str) -> pd.DataFrame:
    """The rows of a split that have features (the rest is in quarantine); raises ManifestError if none has."""
    rows = manifest.rows[manifest.rows["split"] == split]
    rows = rows[rows["utterance_id"].isin(cache.utterance_ids)]
    if rows.empty:
        raise ManifestError(
            f"corpus {manifest.corpus} has no usable utterance in split {split}; it needs some"
        )
    return rows


def copies_of(params: Params) -> list[Augmented]:
    """What the backbone reads, degraded as `augment` says, once for each copy of each kind; raises ParamsError."""
    kinds = kinds_of(params.augment)
    if kinds:
        check_packages()
    return [
        Augmented(build_front_end(params, front_end_of(params)), kind=kind, copy=copy)
        for kind in kinds
        for copy in range(params.features.augmented_copies)
    ]


def build_front_end(params: Params, name: str) -> FrontEnd:
    """The front end called `name` with the settings that params.yaml gives it; raises ParamsError."""
    settings = params.settings("front_ends", name)
    return features.build(name, model=params.ssl.model, layer=params.ssl.layer, **settings)

"""Front ends and feature caches of an experiment: those that params.yaml lists, and those that its backbone and its
baseline read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from makermark import features
from makermark.features import encoders
from makermark.features.augmentation.base import check_packages
from makermark.features.augmentation.training_augmentation import AugmentedFrontEnd, augmentation_kinds
from makermark.features.cache import FeatureCache
from makermark.features.front_end import FrontEnd
from makermark.features.linear_fbank_changes import LinearFbankChanges
from makermark.foundation.errors import ManifestError, ParamsError
from makermark.foundation.manifest import Manifest
from makermark.foundation.params import Params
from makermark.foundation.settings import Scalar
from makermark.models import backbones

WAVEFORM = "waveform"
BASELINE_FRONT_END = "fbank"  # of the log-mel statistics
BONAFIDE_FOLDER = "bonafide"  # holds the caches of bona fide speech, inside the folder of the corpus's caches


def build_front_end(params: Params | Mapping[str, Any], name: str) -> FrontEnd:
    """Build the front end `name` with its settings in `params`: params.yaml, or the copy that a checkpoint stores.

    Raises ParamsError if `params` has no settings for it, or if they do not fit.
    """
    content = params if isinstance(params, Mapping) else params.model_dump()
    if "ssl" not in content or name not in content.get("front_ends", {}):
        raise ParamsError(
            f"params.yaml has no settings for {name!r} under `front_ends:`; it has "
            f"{sorted(content.get('front_ends', {}))}. Correct the name, or add `{name}: {{}}` there if it takes none"
        )
    ssl = content["ssl"]
    return features.build(name, model=ssl["model"], layer=ssl["layer"], **content["front_ends"][name])


def front_end_name(params: Params) -> str:
    """Return the name of the front end whose features the backbone reads; raises ParamsError."""
    settings = backbone_settings(params)
    backbones.check(params.backbone, **settings)
    return backbones.BACKBONES[params.backbone].front_end_name(**settings)


def front_end_names(params: Params) -> list[str]:
    """Return all front ends that need a cache: the baseline's, those that params.yaml lists, the backbone's."""
    return list(dict.fromkeys([BASELINE_FRONT_END, *params.features.front_ends, front_end_name(params)]))


def log_energy_bands(front_end: FrontEnd) -> int | None:
    """Return how many of the first values of a frame are log energies of bands; None if the front end has no others."""
    return front_end.bands if isinstance(front_end, LinearFbankChanges) else None


def augmented_front_ends(params: Params) -> list[AugmentedFrontEnd]:
    """Return the backbone's front end after each kind of augmentation, once per copy; raises ParamsError."""
    kinds = augmentation_kinds(params.augment)
    if kinds:
        check_packages()
    return [
        AugmentedFrontEnd(build_front_end(params, front_end_name(params)), kind=kind, copy=copy)
        for kind in kinds
        for copy in range(params.features.augmented_copies)
    ]


def backbone_settings(params: Params) -> dict[str, Scalar]:
    """Return the keyword arguments of the backbone; a pretrained one also gets those of section `ssl`."""
    settings = dict(params.settings("backbones", params.backbone))
    if not _is_pretrained(params):
        return settings
    return settings | {
        "freeze": params.ssl.freeze,
        "weighted": params.ssl.layer == encoders.WEIGHTED,
        "learning_rate": params.ssl.learning_rate,
        "gradient_checkpointing": params.ssl.gradient_checkpointing,
    }


def encoder_architecture(params: Params) -> encoders.Architecture | None:
    """Return the architecture of the encoder inside the backbone; None if there is none, or its output is cached.

    Raises EncoderError if `ssl.model` cannot be loaded.
    """
    if not _is_pretrained(params) or front_end_name(params) != WAVEFORM:
        return None
    return encoders.describe(params.ssl.model, layer=params.ssl.layer)


def _is_pretrained(params: Params) -> bool:
    backbone = backbones.BACKBONES.get(params.backbone)
    return backbone is not None and backbone.uses_ssl_encoder


def select_cached_rows(manifest: Manifest, cache: FeatureCache, split: str) -> pd.DataFrame:
    """Return the rows of a split that have features; quarantined ones have none.

    Raises ManifestError if no row is left.
    """
    rows = manifest.rows[manifest.rows["split"] == split]
    rows = rows[rows["utterance_id"].isin(cache.utterance_ids)]
    if rows.empty:
        raise ManifestError(
            f"corpus {manifest.corpus}: no utterance of split {split} has features; look at quarantine.csv, or add "
            "utterances to that split"
        )
    return rows

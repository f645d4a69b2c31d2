"""The parts of a training, built from params.yaml, and checks of params.yaml before any work; they need no data."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from makermark.features import encoders
from makermark.features.front_end import FrontEnd
from makermark.foundation.device import choose_device
from makermark.foundation.errors import CorpusError, ParamsError
from makermark.foundation.manifest import NO_SOURCE, bonafide_unavailable_reason
from makermark.foundation.params import Params
from makermark.models import backbones, losses
from makermark.models.backbones import Backbone
from makermark.models.embed_corpus import check_baselines
from makermark.models.feature_spec import (
    augmented_front_ends,
    backbone_settings,
    build_front_end,
    encoder_architecture,
    front_end_name,
    front_end_names,
    log_energy_bands,
)
from makermark.models.losses import Loss
from makermark.training import samplers
from makermark.training.samplers import Sampler

log = logging.getLogger(__name__)


def build_backbone(
    params: Params, *, width: int, bands: int | None = None, encoder: nn.Module | None
) -> Backbone:
    """Build the backbone for features of `width` numbers per frame, of which the first `bands` (None: all) are bands.

    Its initial weights follow from `params.seed`, or from the file that its settings name.
    """
    torch.manual_seed(params.seed)
    settings = backbone_settings(params)
    backbone = backbones.build(
        params.backbone, dim=params.dim, width=width, bands=bands, encoder=encoder, **settings
    )
    backbone.load_pretrained()
    return backbone


def build_loss(params: Params, *, num_systems: int) -> Loss:
    """Build the loss over `num_systems` training systems; raises ParamsError."""
    settings = params.settings("losses", params.loss)
    return losses.build(params.loss, num_systems=num_systems, dim=params.dim, **settings)


def build_sampler(params: Params, loss: Loss, labels: Sequence[int]) -> Sampler:
    """Build the sampler over utterances of the systems `labels` (N,).

    Groups that are larger than the corpus are made smaller, which is logged. Raises ParamsError if it cannot serve
    `loss`, TrainingError if it cannot serve the utterances.
    """
    check_sampler(params, loss)
    settings = params.settings("samplers", params.sampler)
    if samplers.SAMPLERS[params.sampler].makes_groups:
        settings = fit_groups(settings, labels, sampler=params.sampler)
    return samplers.build(params.sampler, labels, seed=params.seed, **settings)


def fit_groups(settings: Mapping[str, Any], labels: Sequence[int], *, sampler: str) -> dict[str, Any]:
    """Return the settings of a sampler of groups with groups that the utterances of the systems `labels` (N,) can fill.

    A system gives 2 utterances to a batch or more, because losses compare them.
    """
    counts = Counter(labels)
    smallest = min(counts.values(), default=0)
    limits = {"batch_systems": len(counts), "utterances_per_system": max(2, smallest)}
    fitted = dict(settings)
    for name, limit in limits.items():
        if 0 < limit < settings[name]:
            fitted[name] = limit
            log.warning(
                "samplers.%s.%s is %s; split train has %d systems, the smallest of %d utterances: %d is used",
                sampler, name, settings[name], len(counts), smallest, limit,
            )  # fmt: skip
    return fitted


def check_sampler(params: Params, loss: Loss) -> None:
    """Raise ParamsError for an unknown sampler, wrong settings, or a sampler that cannot serve `loss`."""
    settings = params.settings("samplers", params.sampler)
    samplers.check(params.sampler, **settings)
    if loss.needs_groups:
        samplers.check_groups(params.sampler, loss=params.loss, **settings)


def crop_frames(params: Params, front_end: FrontEnd, backbone: Backbone) -> int:
    """Return the number of frames of a training crop; raises ParamsError if the backbone needs more."""
    frames = round(params.train.crop_seconds * front_end.frames_per_second)
    if frames < backbone.min_frames:
        raise ParamsError(
            f"train.crop_seconds is {params.train.crop_seconds}, which is {frames} frames of {front_end.name}, but "
            f"backbone {params.backbone!r} needs {backbone.min_frames} or more; raise it"
        )
    return frames


def check_params(params: Params) -> None:
    """Raise an error for params that a later stage could not carry out.

    ParamsError: an unknown name, wrong settings, a loss that the sampler cannot serve, a crop or a clip that is too
    short. CorpusError: no bona fide speech for a loss that needs it. EncoderError: a package or a pretrained encoder
    is absent.
    """
    loss = build_loss(params, num_systems=2)
    check_bonafide_source(params, loss)
    check_sampler(params, loss)
    for name in front_end_names(params):
        build_front_end(params, name)
    augmented_front_ends(params)
    architecture = encoder_architecture(params)
    front_end = build_front_end(params, front_end_name(params))
    # The meta device takes no memory, but its first initialisation imports the compiler: half of the time of `check`.
    with nullcontext() if architecture is None else torch.device("meta"):
        encoder = None if architecture is None else encoders.build(architecture)
        backbone = build_backbone(
            params, width=front_end.width, bands=log_energy_bands(front_end), encoder=encoder
        )
    crop_frames(params, front_end, backbone)
    check_clip_lengths(params, front_end)
    check_baselines(params.embed.baselines)
    choose_device(params.train.device)
    choose_device(params.embed.device)


def check_bonafide_source(params: Params, loss: Loss) -> None:
    """Raise an error if `loss` needs bona fide speech and `bonafide.source` gives none.

    ParamsError if the source is `none`, CorpusError if its package is not installed.
    """
    reason = bonafide_unavailable_reason(params.bonafide.source)
    if loss.pretraining_loss() is not None and reason:
        kind = ParamsError if params.bonafide.source == NO_SOURCE else CorpusError
        raise kind(f"loss {params.loss!r} needs bona fide speech: {reason}")


def check_clip_lengths(params: Params, front_end: FrontEnd) -> None:
    """Raise ParamsError if the shortest clips of section `trace` are too short for the front end."""
    min_seconds = front_end.min_samples / front_end.sample_rate_hz
    lengths = {
        "clip_seconds": params.trace.clip_seconds[0],
        "window_seconds": params.trace.window_seconds,
    }
    for name, seconds in lengths.items():
        if seconds < min_seconds:
            raise ParamsError(
                f"params.yaml: trace.{name} is {seconds}; front end {front_end.name} needs {min_seconds:.3f} or more"
            )

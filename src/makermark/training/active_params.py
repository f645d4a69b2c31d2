"""The part of params.yaml that an experiment uses: what its run in MLflow records."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from makermark.foundation.params import Params
from makermark.models import backbones, losses
from makermark.models.feature_spec import front_end_names

CORPUS_SECTIONS = ("local", "external", "split", "manifest", "mlaad")
SSL_FRONT_END = "wav2vec2"


def active_params(params: Params) -> dict[str, Any]:
    """Return params.yaml without what this experiment does not use.

    That is: the sections of other corpora, the entries of other backbones, losses, samplers and front ends, the
    pretrained encoder, bona fide speech and fusion if they have no part in it, and the settings of commands that are
    not part of the pipeline. Raises ParamsError for an unknown backbone or loss.
    """
    front_ends = front_end_names(params)
    selected = {
        "front_ends": front_ends,
        "backbones": [params.backbone],
        "losses": [params.loss],
        "samplers": [params.sampler],
    }
    unused = set(_unused_sections(params, front_ends))
    active = {name: value for name, value in params.model_dump().items() if name not in unused}
    for section, names in selected.items():
        active[section] = {name: value for name, value in active[section].items() if name in names}
    return active


def _unused_sections(params: Params, front_ends: Collection[str]) -> Iterator[str]:
    own = {"mlaad-v5": "mlaad"}.get(params.corpus, params.corpus)
    shared = () if params.corpus == "local" else ("external", "split")
    yield from (section for section in CORPUS_SECTIONS if section not in (own, *shared))
    uses_encoder = backbones.BACKBONES[params.backbone].uses_ssl_encoder
    if not uses_encoder and SSL_FRONT_END not in front_ends:
        yield "ssl"
    if losses.LOSSES[params.loss].pretraining_loss is losses.Loss.pretraining_loss:
        yield "bonafide"
    if not params.fuse.systems:
        yield "fuse"
    if not params.robustness.stage:
        yield "robustness"
    if not params.foreign.stage:
        yield "foreign"
    yield "explain"

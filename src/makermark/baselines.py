"""Vectors that a trained model is measured against: they cost no training.

A baseline takes the params, the manifest of the utterances to embed, the folder of their feature caches, the
description of the trained model and the device, and gives their vectors (N, D) in the order of the manifest.

Legend of axes: N utterances, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from makermark import backbones, encoders, speaker_encoder
from makermark.checkpoint import Description
from makermark.corpora.rows import Manifest
from makermark.device import choose_precision
from makermark.embedding import embed, log_mel_statistics, standardise
from makermark.errors import ParamsError
from makermark.features.cache import FeatureCache
from makermark.inputs import BASELINE, build_front_end
from makermark.params import Params

Vectors = NDArray[np.float32]


def logmel_stats(
    params: Params, manifest: Manifest, features: Path, model: Description, device: torch.device
) -> Vectors:
    """Without a network: mean and deviation over time of each log-mel band, standardised on train."""
    cache = FeatureCache.open(features / BASELINE, build_front_end(params, BASELINE).parameters())
    statistics = log_mel_statistics(cache, cache.rows_of(manifest.rows["utterance_id"]))
    return standardise(statistics, reference=statistics[(manifest.rows["split"] == "train").to_numpy()])


def untrained(
    params: Params, manifest: Manifest, features: Path, model: Description, device: torch.device
) -> Vectors:
    """The model's own network with the weights it began with, pretrained parts included."""
    encoder = None
    if model.encoder:
        encoder = encoders.load(model.params["ssl"]["model"], layer=model.params["ssl"]["layer"])
    torch.manual_seed(model.params["seed"])
    network = backbones.build(
        model.backbone, dim=model.dim, width=model.width, encoder=encoder, **model.backbone_settings
    )
    network.begin()
    cache = FeatureCache.open(features / model.front_end, model.front_end_parameters)
    return embed(
        network,
        cache,
        cache.rows_of(manifest.rows["utterance_id"]),
        batch_frames=batch_frames(params, model.front_end),
        device=device,
        precision=choose_precision(params.embed.precision, device),
    )


def resemblyzer(
    params: Params, manifest: Manifest, features: Path, model: Description, device: torch.device
) -> Vectors:
    """A speaker encoder off the shelf, trained on who is speaking; reads the audio files."""
    network = speaker_encoder.load_speaker_encoder(speaker_encoder.weights_file())
    files = [manifest.file(path) for path in manifest.rows["path"]]
    return speaker_encoder.speaker_vectors(network, files, device=device)


BASELINES: dict[str, Callable[[Params, Manifest, Path, Description, torch.device], Vectors]] = {
    "logmel_stats": logmel_stats,
    "untrained": untrained,
    "resemblyzer": resemblyzer,
}


def check_baselines(params: Params) -> None:
    """Raise ParamsError for a baseline that there is not, EncoderError for one that is not installed."""
    for name in params.embed.baselines:
        if name not in BASELINES:
            raise ParamsError(f"params.yaml: embed.baselines: unknown {name!r}; there are {list(BASELINES)}")
    if "resemblyzer" in params.embed.baselines:
        speaker_encoder.weights_file()


def batch_frames(params: Params, front_end: str) -> int:
    """How many frames of a front end the batches of whole utterances hold."""
    return round(params.embed.batch_seconds * build_front_end(params, front_end).frames_per_second)

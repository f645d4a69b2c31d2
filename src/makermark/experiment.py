"""From params.yaml to the parts of an experiment: checked together, built, trained."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import makermark
from makermark import backbones, features, losses, sampling
from makermark.checkpoint import Description, save_checkpoint
from makermark.corpora.rows import Manifest
from makermark.device import choose_device, choose_precision
from makermark.embedding import embed
from makermark.errors import ManifestError, ParamsError
from makermark.features.cache import FeatureCache
from makermark.params import Params
from makermark.scoring import score_set
from makermark.training import ResumeFile, Trained, train

CORPORA = ("local",)


def check(params: Params) -> None:
    """Raise ParamsError for whatever could not be carried out: unknown names, settings that do not fit,
    a loss that the sampler cannot serve, a backbone without its features. Needs no data."""
    if params.corpus not in CORPORA:
        raise ParamsError(f"unknown corpus {params.corpus!r}; it is one of {list(CORPORA)}")
    loss = losses.build(params.loss, num_systems=2, dim=params.dim, **params.settings("losses", params.loss))
    needs_groups = bool(loss.needs_groups)
    sampler = params.settings("samplers", params.sampler)
    sampling.check_settings(
        sampling.SAMPLERS,
        params.sampler,
        what="sampler",
        facts={"systems": None, "seed": None},
        settings=sampler,
    )
    if needs_groups:
        sampling.check_groups(params.sampler, loss=params.loss, **sampler)
    with torch.device("meta"):
        backbone = build_backbone(params)
    for name in params.features.front_ends:
        features.build(name, **params.settings("front_ends", name))
    if backbone.front_end not in params.features.front_ends:
        raise ParamsError(
            f"backbone {params.backbone!r} reads {backbone.front_end!r} features, but features.front_ends is "
            f"{params.features.front_ends}; add it there"
        )
    choose_device(params.train.device)


def build_backbone(params: Params) -> nn.Module:
    """The backbone that `params` name, with the initial weights that `params.seed` gives."""
    torch.manual_seed(params.seed)
    return backbones.build(params.backbone, dim=params.dim, **params.settings("backbones", params.backbone))


def open_features(params: Params, folder: Path, front_end: str) -> FeatureCache:
    """The cache of `front_end` under `folder`, made as params.yaml says, or FeatureCacheError."""
    made = features.build(front_end, **params.settings("front_ends", front_end))
    return FeatureCache.open(folder / front_end, made.parameters())


def train_experiment(
    params: Params,
    manifest: Manifest,
    features_folder: Path,
    *,
    models: Path,
    git_commit: str,
    report: Callable[[dict[str, float]], None],
) -> tuple[Trained, str]:
    """Train what `params` name and write best, last and history into `models`.

    A run that was killed goes on from `models/resume.safetensors`. Returns the outcome and the SHA-256
    of the best weights.
    """
    check(params)
    device = choose_device(params.train.device)
    precision = choose_precision(params.train.precision, device)
    backbone = build_backbone(params)
    cache = open_features(params, features_folder, str(backbone.front_end))
    cache.verify()
    kept = manifest.rows[manifest.rows["utterance_id"].isin(cache.utterance_ids)]
    learn, dev = (kept[kept["split"] == split] for split in ("train", "dev"))
    for split, rows in (("train", learn), ("dev", dev)):
        if rows.empty:
            raise ManifestError(f"the manifest has no usable utterance in split {split}; training needs some")
    systems, labels = np.unique(learn["system"].to_numpy(dtype=str), return_inverse=True)
    loss = losses.build(
        params.loss, num_systems=len(systems), dim=params.dim, **params.settings("losses", params.loss)
    )
    sampler = sampling.build(
        params.sampler,
        labels.tolist(),
        seed=params.seed,
        **params.settings("samplers", params.sampler),
    )
    made = features.build(str(backbone.front_end), **params.settings("front_ends", str(backbone.front_end)))
    frames_per_second = made.frames_per_second
    dev_rows, dev_systems = cache.rows_of(dev["utterance_id"]), dev["system"].to_numpy(dtype=str)

    def dev_eer(network: nn.Module) -> float:
        vectors = embed(
            network,
            cache,
            dev_rows,
            batch_frames=round(params.embed.batch_seconds * frames_per_second),
            device=device,
            precision=precision,
        )
        return eer_percent(vectors, dev_systems)

    identity = {
        "train": dataclasses.asdict(params.train),
        "names": [params.backbone, params.loss, params.sampler, params.dim, params.seed],
        "settings": [
            dict(params.settings("backbones", params.backbone)),
            dict(params.settings("losses", params.loss)),
            dict(params.settings("samplers", params.sampler)),
        ],
        "features": cache.fingerprint,
        "rows": [len(learn), len(dev), len(systems)],
        "device": device.type,
        "torch": torch.__version__,
        "makermark": makermark.__version__,
    }
    resume = ResumeFile(models / "resume.safetensors", identity=identity)
    trained = train(
        backbone,
        loss,
        sampler,
        cache=cache,
        rows=cache.rows_of(learn["utterance_id"]),
        labels=labels.astype(np.int64),
        crop_frames=round(params.train.crop_seconds * frames_per_second),
        epochs=params.train.epochs,
        warmup_epochs=params.train.warmup_epochs,
        peak_learning_rate=params.train.learning_rate,
        weight_decay=params.train.weight_decay,
        evaluate=dev_eer,
        evaluate_every_epochs=params.train.evaluate_every_epochs,
        seed=params.seed,
        device=device,
        precision=precision,
        resume=resume,
        report=report,
    )
    description = Description(
        backbone=params.backbone,
        backbone_settings=dict(params.settings("backbones", params.backbone)),
        dim=params.dim,
        systems=systems.tolist(),
        front_end=made.name,
        front_end_parameters=made.parameters(),
        feature_fingerprint=cache.fingerprint,
        params=dataclasses.asdict(params),
        epoch=params.train.epochs,
        dev_eer_percent=trained.history[-1]["dev_eer_percent"],
        git_commit=git_commit,
        versions=versions(),
    )
    save_checkpoint(models / "last", backbone, description)
    backbone.load_state_dict(trained.best.weights)
    description = dataclasses.replace(
        description, epoch=trained.best.epoch, dev_eer_percent=trained.best.eer_percent
    )
    return trained, save_checkpoint(models / "best", backbone, description)


def eer_percent(vectors: Any, systems: Any) -> float:
    """The pooled EER over all pairs, in percent."""
    scores = score_set(vectors, systems, None, bootstrap_samples=0, seed=0)
    return float(scores.eer_micro_percent)


def versions() -> dict[str, str]:
    """What computed: for the checkpoint and the run's tags."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "makermark": makermark.__version__,
    }

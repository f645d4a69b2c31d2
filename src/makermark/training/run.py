"""A training from params.yaml to checkpoints: data, loop, tracking, files."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from makermark.features import encoders
from makermark.features.cache import FeatureCache
from makermark.features.front_end import FrontEnd
from makermark.foundation import tracking
from makermark.foundation.arrays import Float32Array, IntArray, StrArray
from makermark.foundation.device import choose_device, choose_precision, keep_freed_memory
from makermark.foundation.files import write_json
from makermark.foundation.manifest import Manifest
from makermark.foundation.params import Params
from makermark.foundation.progress import progress_bar
from makermark.foundation.tracking import Tracker
from makermark.models.backbones import Backbone
from makermark.models.checkpoint import CheckpointMetadata, copy_weights, library_versions, save_checkpoint
from makermark.models.extraction import embed_rows
from makermark.models.feature_spec import (
    BONAFIDE_FOLDER,
    augmented_front_ends,
    backbone_settings,
    build_front_end,
    encoder_architecture,
    front_end_name,
    log_energy_bands,
    select_cached_rows,
)
from makermark.scoring.pairs import score_all_pairs
from makermark.training.active_params import active_params
from makermark.training.bonafide_pretraining import PretrainingData, pretrain, read_pretraining_data
from makermark.training.components import (
    build_backbone,
    build_loss,
    build_sampler,
    crop_frames,
)
from makermark.training.loop import EpochMetrics, TrainingResult, train
from makermark.training.resume import ResumeFile

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """The training and dev utterances of a corpus, and their features."""

    cache: FeatureCache
    augmented: Sequence[FeatureCache]  # augmented copies of the training utterances
    train: pd.DataFrame  # manifest rows with features
    dev: pd.DataFrame
    systems: StrArray  # (C,) of train, sorted
    labels: IntArray  # (N,) the position of each training utterance's system in `systems`


def train_experiment(
    params: Params, manifest: Manifest, features_folder: Path, *, bonafide_folder: Path, models: Path
) -> None:
    """Train what `params` name; write the best and the last checkpoint and the history into `models`; record the run.

    For a two-stage loss, the backbone is first pre-trained on the bona fide speech of `bonafide_folder` against the
    synthetic speech. A killed run continues from `models/resume.safetensors`, or from `models/emphasis.safetensors` if
    it was killed during the pre-training, in the same run of the tracker.
    """
    device = choose_device(params.train.device)
    if device.type == "cpu":
        keep_freed_memory()
    front_end = build_front_end(params, front_end_name(params))
    architecture = encoder_architecture(params)
    encoder = None if architecture is None else encoders.load(params.ssl.model, layer=params.ssl.layer)
    bands = log_energy_bands(front_end)
    backbone = build_backbone(params, width=front_end.width, bands=bands, encoder=encoder)
    frames = crop_frames(params, front_end, backbone)
    precision = choose_precision(params.train.precision, device)
    run_loop = partial(
        train,
        crop_frames=frames,
        peak_learning_rate=params.train.learning_rate,
        weight_decay=params.train.weight_decay,
        evaluate_every_epochs=params.train.evaluate_every_epochs,
        seed=params.seed,
        device=device,
        precision=precision,
        features_on=params.train.features_on,
        clean_fraction=params.train.clean_fraction,
        deterministic=params.train.deterministic,
    )
    batch_frames = round(params.embed.batch_seconds * front_end.frames_per_second)
    embed = partial(embed_rows, batch_frames=batch_frames, device=device, precision=precision)
    data = read_training_data(params, manifest, features_folder, front_end)
    loss = build_loss(params, num_systems=len(data.systems))
    sampler = build_sampler(params, loss, data.labels.tolist())
    pretraining_loss, pretraining_data = loss.pretraining_loss(), None
    if pretraining_loss is not None:
        pretraining_data = read_pretraining_data(
            data.cache,
            {"train": data.train, "dev": data.dev},
            bonafide_folder=bonafide_folder,
            bonafide_features=features_folder / BONAFIDE_FOLDER,
            front_end=front_end,
        )
    variant_cache, variant_rows = data.cache.stack_augmented(
        data.augmented, data.train["utterance_id"].tolist()
    )
    identity = training_identity(params, data, pretraining_data, device)
    resume = ResumeFile(models / "resume.safetensors", identity=identity)
    pretraining_resume = ResumeFile(
        models / "emphasis.safetensors", identity=identity | {"stage": "emphasis"}
    )
    start = Path.cwd()
    run_id = resume.run_id or pretraining_resume.run_id
    with tracking.open_run(params.experiment, start=start, resume_run_id=run_id) as tracker:
        resume.run_id = pretraining_resume.run_id = tracker.run_id
        provenance = tracking.provenance_tags(
            start, device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        )
        tracker.log_params(active_params(params))
        tracker.log_datasets(tracking.dataset_records(manifest, start))
        tracker.set_tags(
            provenance
            | {
                "features.fingerprint": data.cache.fingerprint,
                "torch.threads": str(torch.get_num_threads()),
            }
        )
        pretraining_history: list[EpochMetrics] = []
        if pretraining_loss is not None and pretraining_data is not None:
            with report_epochs(
                tracker, "pre-training", epochs=pretraining_loss.epochs, prefix="emphasis."
            ) as report:
                pretraining_history = pretrain(
                    params,
                    backbone,
                    pretraining_loss,
                    pretraining_data,
                    run_loop=run_loop,
                    embed=embed,
                    resume=pretraining_resume,
                    report=report,
                )
        with report_epochs(tracker, "training", epochs=params.train.epochs) as report:
            result = run_loop(
                backbone,
                loss,
                sampler,
                cache=variant_cache,
                rows=variant_rows,
                labels=data.labels,
                epochs=params.train.epochs,
                warmup_epochs=params.train.warmup_epochs,
                evaluate=dev_evaluation(data, embed),
                resume=resume,
                report=report,
            )
        metadata = CheckpointMetadata(
            backbone=params.backbone,
            backbone_settings=backbone_settings(params),
            dim=params.dim,
            loss=params.loss,
            loss_settings=dict(params.settings("losses", params.loss)),
            systems=data.systems.tolist(),
            languages=sorted(set(data.train["language"].fillna(""))),
            encoder=None if architecture is None else dataclasses.asdict(architecture),
            front_end=front_end.name,
            width=front_end.width,
            bands=bands,
            front_end_parameters=dict(front_end.parameters()),
            feature_fingerprint=data.cache.fingerprint,
            params=params.model_dump(),
            epoch=params.train.epochs,
            dev_eer_percent=result.history[-1]["dev_eer_percent"],
            git_commit=provenance["git.commit"],
            versions=library_versions(),
            threads=torch.get_num_threads(),
            emphasis=pretraining_history,
        )
        write_results(models, result, metadata, {"backbone": backbone, "loss": loss}, tracker)
    resume.remove()
    pretraining_resume.remove()


def read_training_data(
    params: Params, manifest: Manifest, features_folder: Path, front_end: FrontEnd
) -> TrainingData:
    """Open the caches of `front_end`, augmented copies included, and select the training and dev utterances.

    Raises FeatureCacheError for a cache that is absent, damaged or made with other settings; ManifestError for a split
    without features.
    """
    cache = open_cache(features_folder, front_end)
    train_rows = select_cached_rows(manifest, cache, "train")
    dev_rows = select_cached_rows(manifest, cache, "dev")
    systems, labels = np.unique(train_rows["system"].to_numpy(dtype=str), return_inverse=True)
    return TrainingData(
        cache=cache,
        augmented=[open_cache(features_folder, augmented) for augmented in augmented_front_ends(params)],
        train=train_rows,
        dev=dev_rows,
        systems=systems,
        labels=labels.astype(np.int64),
    )


def open_cache(features_folder: Path, front_end: FrontEnd) -> FeatureCache:
    """Open the cache of a front end and verify its checksums; raises FeatureCacheError."""
    cache = FeatureCache.open(features_folder / front_end.name, front_end.parameters())
    cache.verify()
    return cache


def dev_evaluation(
    data: TrainingData, embed: Callable[[Backbone, FeatureCache, IntArray], Float32Array]
) -> Callable[[Backbone], float]:
    """Return a function that computes the EER in percent over all pairs of dev utterances, which `embed` embeds."""
    rows = data.cache.find_rows(data.dev["utterance_id"])
    systems = data.dev["system"].to_numpy(dtype=str)

    def dev_eer(network: Backbone) -> float:
        embeddings = embed(network, data.cache, rows)
        eer = score_all_pairs(embeddings, systems, bootstrap_samples=0, seed=0).eer_micro_percent
        assert eer is not None  # score_all_pairs raises ScoringError for a set without both kinds of trial
        return eer

    return dev_eer


@contextmanager
def report_epochs(
    tracker: Tracker, stage: str, *, epochs: int, prefix: str = ""
) -> Iterator[Callable[[EpochMetrics], None]]:
    """Yield a function that records the metrics of an epoch, named PREFIXname, and shows them.

    It draws a progress bar over the epochs of `stage`; every evaluation on dev is also logged.
    """
    with progress_bar(stage, total=epochs) as bar:

        def report(metrics: EpochMetrics) -> None:
            tracking.log_epoch(tracker, metrics, prefix=prefix)
            note = f"loss {metrics['loss']:.3f}, {metrics['utterances_per_s']:.0f} utterances/s"
            if "dev_eer_percent" in metrics:
                note = f"dev EER {metrics['dev_eer_percent']:.2f} %, {note}"
                log.info("%s, epoch %d of %d: %s", stage, metrics["epoch"], epochs, note)
            bar.update(int(metrics["epoch"]), note=note)

        yield report


def write_results(
    models: Path,
    result: TrainingResult,
    last: CheckpointMetadata,
    modules: Mapping[str, nn.Module],
    tracker: Tracker,
) -> None:
    """Write the last and the best checkpoint and the history into `models`, and record the best in the run."""
    save_checkpoint(models / "last", copy_weights(modules), last)
    best = dataclasses.replace(last, epoch=result.best.epoch, dev_eer_percent=result.best.eer_percent)
    digest = save_checkpoint(models / "best", result.best.weights, best)
    write_json(models / "history.json", list(result.history))
    tracker.log_metrics({"best.dev_eer_percent": best.dev_eer_percent, "best.epoch": best.epoch})
    tracker.set_tags({tracking.MODEL_TAG: digest})
    for name in ("best.safetensors", "best.json", "history.json"):
        tracker.log_artifact(models / name, "checkpoint")


def training_identity(
    params: Params, data: TrainingData, pretraining: PretrainingData | None, device: torch.device
) -> dict[str, Any]:
    """Return everything that must be unchanged for a killed training to be resumed."""
    sections = {"backbones": params.backbone, "losses": params.loss, "samplers": params.sampler}
    identifiers = [*data.train["utterance_id"], *data.dev["utterance_id"]]
    identity = {
        "names": [params.backbone, params.loss, params.sampler, params.dim, params.seed],
        "settings": {section: dict(params.settings(section, name)) for section, name in sections.items()},
        "train": params.train.model_dump(),
        "ssl": params.ssl.model_dump(),
        "features": data.cache.fingerprint,
        "utterances": hashlib.sha256("\n".join(identifiers).encode()).hexdigest(),
        "device": device.type,
        "threads": torch.get_num_threads(),  # they change the rounding of sums, and so the weights
        "versions": library_versions(),
    }
    if data.augmented:
        identity["copies"] = [cache.fingerprint for cache in data.augmented]
    if pretraining is not None:
        identity["bonafide"] = pretraining.digest
    return identity

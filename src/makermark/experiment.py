"""From params.yaml to the parts of an experiment: checked together, built, trained."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import platform
import sys
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import rich.console
import rich.progress
import torch
from torch import nn

import makermark
from makermark import backbones, encoders, losses, sampling, tracking
from makermark.backbones import Backbone
from makermark.baselines import BASELINES, batch_frames, check_baselines
from makermark.checkpoint import Description, load_checkpoint, save_checkpoint
from makermark.corpora import bonafide
from makermark.corpora.names import check_corpus
from makermark.corpora.rows import Manifest
from makermark.device import choose_device, choose_precision, keep_freed_memory
from makermark.embedding import embed
from makermark.emphasis import emphasise, first_stage
from makermark.errors import CorpusError, ParamsError
from makermark.features.cache import FeatureCache
from makermark.features.copies import with_copies
from makermark.files import replacing_folder, write_json
from makermark.inputs import (
    BONAFIDE,
    backbone_settings,
    build_front_end,
    copies_of,
    encoder_of,
    front_end_of,
    front_ends_of,
    usable,
)
from makermark.params import Params
from makermark.scoring import score_set
from makermark.training import Epoch, ResumeFile, train, weights_of
from makermark.vectors import write_embeddings

log = logging.getLogger(__name__)


def check(params: Params) -> None:
    """Raise ParamsError for whatever could not be carried out: unknown names, settings that do not fit,
    a loss that the sampler cannot serve, a backbone without its features. Needs no data."""
    check_corpus(params)
    loss = losses.build(params.loss, num_systems=2, dim=params.dim, **params.settings("losses", params.loss))
    if loss.emphasis() is not None and params.bonafide.source == bonafide.NONE:
        raise ParamsError(f"loss {params.loss!r} needs bona fide speech: {bonafide.why_none(bonafide.NONE)}")
    needs_groups = bool(loss.needs_groups)
    sampler = params.settings("samplers", params.sampler)
    sampling.check(params.sampler, **sampler)
    if needs_groups:
        sampling.check_groups(params.sampler, loss=params.loss, **sampler)
    for name in front_ends_of(params):
        build_front_end(params, name)
    copies_of(params)
    architecture = encoder_of(params)
    front_end = build_front_end(params, front_end_of(params))
    with torch.device("meta"):
        encoder = None if architecture is None else encoders.build(architecture)
        backbone = build_backbone(params, width=front_end.width, encoder=encoder)
    crop_frames = round(params.train.crop_seconds * front_end.frames_per_second)
    if crop_frames < backbone.min_frames:
        raise ParamsError(
            f"train.crop_seconds is {params.train.crop_seconds}: {crop_frames} frames of {front_end.name}, but "
            f"backbone {params.backbone!r} takes {backbone.min_frames} or more"
        )
    least_seconds = front_end.min_samples / front_end.sample_rate_hz
    for name, seconds in {
        "clip_seconds": params.trace.clip_seconds[0],
        "window_seconds": params.trace.window_seconds,
    }.items():
        if seconds < least_seconds:
            raise ParamsError(
                f"params.yaml: trace.{name} is {seconds}; front end {front_end.name} takes {least_seconds:.3f} or more"
            )
    check_baselines(params)
    choose_device(params.train.device)
    choose_device(params.embed.device)


def check_speech(params: Params) -> None:
    """Raise CorpusError where the loss needs bona fide speech and the download stage would find none."""
    loss = losses.build(params.loss, num_systems=2, dim=params.dim, **params.settings("losses", params.loss))
    reason = bonafide.why_none(params.bonafide.source)
    if loss.emphasis() is not None and reason:
        raise CorpusError(f"loss {params.loss!r} needs bona fide speech: {reason}")


def build_backbone(params: Params, *, width: int, encoder: nn.Module | None) -> Backbone:
    """The backbone that `params` name, for features of `width`, with the initial weights of `params.seed`, or those
    that its settings name."""
    torch.manual_seed(params.seed)
    settings = backbone_settings(params)
    backbone = backbones.build(params.backbone, dim=params.dim, width=width, encoder=encoder, **settings)
    backbone.begin()
    return backbone


def train_experiment(
    params: Params, manifest: Manifest, features_folder: Path, *, human: Path, models: Path
) -> None:
    """Train what `params` name; write best, last and history into `models`; record the run.

    A loss of two stages first trains the backbone on bona fide speech, of the folder `human`, against synthetic.
    A run that was killed goes on from `models/resume.safetensors` (in the first stage from
    `models/emphasis.safetensors`), in the same run of the tracker.
    """
    check(params)
    device = choose_device(params.train.device)
    if device.type == "cpu":
        keep_freed_memory()
    precision = choose_precision(params.train.precision, device)
    front_end = build_front_end(params, front_end_of(params))
    architecture = encoder_of(params)
    encoder = None if architecture is None else encoders.load(params.ssl.model, layer=params.ssl.layer)
    backbone = build_backbone(params, width=front_end.width, encoder=encoder)
    cache = FeatureCache.open(features_folder / front_end.name, front_end.parameters())
    cache.verify()
    learn, dev = usable(manifest, cache, "train"), usable(manifest, cache, "dev")
    systems, labels = np.unique(learn["system"].to_numpy(dtype=str), return_inverse=True)
    loss = losses.build(
        params.loss, num_systems=len(systems), dim=params.dim, **params.settings("losses", params.loss)
    )
    sampler = sampling.build(
        params.sampler, labels.tolist(), seed=params.seed, **params.settings("samplers", params.sampler)
    )
    dev_rows, dev_systems = cache.rows_of(dev["utterance_id"]), dev["system"].to_numpy(dtype=str)

    def dev_eer(network: Backbone) -> float:
        frames = round(params.embed.batch_seconds * front_end.frames_per_second)
        vectors = embed(network, cache, dev_rows, batch_frames=frames, device=device, precision=precision)
        found = score_set(vectors, dev_systems, bootstrap_samples=0, seed=0).eer_micro_percent
        assert found is not None  # score_set refuses a set without both kinds of trial
        return found

    copies = open_copies(params, features_folder)
    heard, learn_rows = with_copies(cache, copies, learn["utterance_id"].tolist())
    told, stage = identity(params, cache, device, learn, dev), None
    if copies:
        told |= {"copies": [copy.fingerprint for copy in copies]}
    if (emphasis := loss.emphasis()) is not None:
        stage = first_stage(
            emphasis,
            cache,
            {"train": learn, "dev": dev},
            human=human,
            human_features=features_folder / BONAFIDE,
            front_end=front_end,
        )
        told |= stage.identity
    before = ResumeFile(models / "emphasis.safetensors", identity=told | {"stage": "emphasis"})
    resume = ResumeFile(models / "resume.safetensors", identity=told)
    here = Path.cwd()
    run_id = resume.run_id or before.run_id
    with tracking.open_run(params.experiment, start=here, resume_run_id=run_id) as tracker:
        before.run_id = resume.run_id = tracker.run_id
        provenance = tracking.provenance(here, device=device_name(device))
        tracker.params(dataclasses.asdict(params))
        tracker.tags(provenance | {"features.fingerprint": cache.fingerprint})

        def report(epoch: Epoch) -> None:
            tracking.log_epoch(tracker, epoch)
            progress.advance(epoch)

        emphasised: list[Epoch] = []
        if stage is not None:
            with Progress(stage.loss.epochs, "emphasis") as first_progress:

                def report_first(epoch: Epoch) -> None:
                    tracking.log_epoch(tracker, epoch, prefix="emphasis.")
                    first_progress.advance(epoch)

                emphasised = emphasise(
                    params,
                    backbone,
                    stage,
                    front_end=front_end,
                    device=device,
                    precision=precision,
                    resume=before,
                    report=report_first,
                )
        with Progress(params.train.epochs, "training") as progress:
            trained = train(
                backbone,
                loss,
                sampler,
                cache=heard,
                rows=learn_rows,
                labels=labels.astype(np.int64),
                crop_frames=round(params.train.crop_seconds * front_end.frames_per_second),
                epochs=params.train.epochs,
                warmup_epochs=params.train.warmup_epochs,
                peak_learning_rate=params.train.learning_rate,
                weight_decay=params.train.weight_decay,
                evaluate=dev_eer,
                evaluate_every_epochs=params.train.evaluate_every_epochs,
                seed=params.seed,
                device=device,
                precision=precision,
                features_on=params.train.features_on,
                deterministic=params.train.deterministic,
                resume=resume,
                report=report,
            )
        last = Description(
            backbone=params.backbone,
            backbone_settings=backbone_settings(params),
            dim=params.dim,
            loss=params.loss,
            loss_settings=dict(params.settings("losses", params.loss)),
            systems=systems.tolist(),
            languages=sorted(set(learn["language"].fillna(""))),
            encoder=None if architecture is None else dataclasses.asdict(architecture),
            front_end=front_end.name,
            width=front_end.width,
            front_end_parameters=dict(front_end.parameters()),
            feature_fingerprint=cache.fingerprint,
            params=dataclasses.asdict(params),
            epoch=params.train.epochs,
            dev_eer_percent=trained.history[-1]["dev_eer_percent"],
            git_commit=provenance["git.commit"],
            versions=versions(),
            emphasis=emphasised,
        )
        save_checkpoint(models / "last", weights_of({"backbone": backbone, "loss": loss}), last)
        best = dataclasses.replace(last, epoch=trained.best.epoch, dev_eer_percent=trained.best.eer_percent)
        digest = save_checkpoint(models / "best", trained.best.weights, best)
        write_json(models / "history.json", list(trained.history))
        tracker.metrics({"best.dev_eer_percent": best.dev_eer_percent, "best.epoch": best.epoch})
        tracker.tags({tracking.MODEL_TAG: digest})
        for name in ("best.safetensors", "best.json", "history.json"):
            tracker.artefact(models / name, "checkpoint")
    resume.remove()
    before.remove()


def open_copies(params: Params, features_folder: Path) -> list[FeatureCache]:
    """The caches of the training utterances degraded as `augment` says, none for `none`; raises FeatureCacheError."""
    caches = []
    for front_end in copies_of(params):
        caches.append(FeatureCache.open(features_folder / front_end.name, front_end.parameters()))
        caches[-1].verify()
    return caches


def embed_experiment(
    params: Params, manifest: Manifest, features_folder: Path, *, model: Path, folder: Path
) -> None:
    """Embed every usable utterance with the checkpoint `model`, and as the baselines of `params` do, into `folder`.

    What the model's classifier says is kept beside its vectors, if it has one and was trained on the systems that
    the manifest has in train. Raises FeatureCacheError where the cache is not the kind that the checkpoint was
    trained on.
    """
    device = choose_device(params.embed.device)
    precision = choose_precision(params.embed.precision, device)
    checkpoint = load_checkpoint(model)
    description = checkpoint.description
    cache = FeatureCache.open(features_folder / description.front_end, description.front_end_parameters)
    cache.verify()
    manifest_rows = manifest.rows[manifest.rows["utterance_id"].isin(cache.utterance_ids)]
    rows = cache.rows_of(manifest_rows["utterance_id"])
    embedded = dataclasses.replace(manifest, rows=manifest_rows)
    frames = batch_frames(params, description.front_end)
    model_vectors = embed(
        checkpoint.backbone, cache, rows, batch_frames=frames, device=device, precision=precision
    )
    vectors = {"model": model_vectors} | {
        name: BASELINES[name](params, embedded, features_folder, description, device)
        for name in params.embed.baselines
    }
    told = {
        "corpus": manifest.corpus,
        "model_sha256": checkpoint.digest,
        "feature_fingerprint": cache.fingerprint,
    }
    with torch.inference_mode():
        said = checkpoint.loss.cpu().logits(torch.from_numpy(model_vectors))
    here = sorted(set(manifest_rows["system"][manifest_rows["split"] == "train"]))
    logits = {"model": said.numpy()} if said is not None and description.systems == here else {}
    with replacing_folder(folder) as draft:
        for name, found in vectors.items():
            write_embeddings(
                draft / f"{name}.arrow",
                manifest_rows,
                found,
                logits=logits.get(name),
                metadata=told | {"vectors": name},
            )


def identity(
    params: Params, cache: FeatureCache, device: torch.device, learn: pd.DataFrame, dev: pd.DataFrame
) -> dict[str, Any]:
    """What must be the same for one training to go on where another was killed."""
    sections = {"backbones": params.backbone, "losses": params.loss, "samplers": params.sampler}
    return {
        "names": [params.backbone, params.loss, params.sampler, params.dim, params.seed],
        "settings": {section: dict(params.settings(section, name)) for section, name in sections.items()},
        "train": dataclasses.asdict(params.train),
        "ssl": dataclasses.asdict(params.ssl),
        "features": cache.fingerprint,
        "utterances": hashlib.sha256(
            "\n".join([*learn["utterance_id"], *dev["utterance_id"]]).encode()
        ).hexdigest(),
        "device": device.type,
        "versions": versions(),
    }


class Progress:
    """A bar on a terminal; otherwise a line in the log whenever dev was scored."""

    def __init__(self, epochs: int, what: str) -> None:
        self._epochs, self._what = epochs, what
        self._bar = rich.progress.Progress(
            *rich.progress.Progress.get_default_columns(),
            rich.progress.TextColumn("{task.fields[told]}"),
            console=rich.console.Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(what, total=epochs, told="")

    def advance(self, epoch: Epoch) -> None:
        """Tell one entry of the history."""
        told = f"loss {epoch['loss']:.3f}, {epoch['utterances_per_s']:.0f} utterances/s"
        if "dev_eer_percent" in epoch:
            told = f"dev EER {epoch['dev_eer_percent']:.2f} %, {told}"
            log.info("%s, epoch %d of %d: %s", self._what, epoch["epoch"], self._epochs, told)
        self._bar.update(self._task, completed=epoch["epoch"], told=told)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def device_name(device: torch.device) -> str:
    """The device as a tag: `cpu`, or the accelerator's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def versions() -> dict[str, str]:
    """What computed: for the checkpoint and the run's tags."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "makermark": makermark.__version__,
    }

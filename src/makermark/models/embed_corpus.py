"""Embeddings of a whole corpus as files: by a checkpoint, and by baselines, which need no training.

Legend of axes: N utterances, T frames, F bands, D dimensions.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from makermark.features import encoders
from makermark.features.cache import FeatureCache
from makermark.foundation.arrays import Float32Array, IntArray
from makermark.foundation.device import choose_device, choose_precision
from makermark.foundation.embeddings import write_embeddings
from makermark.foundation.errors import EncoderError, ParamsError
from makermark.foundation.files import atomic_folder
from makermark.foundation.manifest import Manifest
from makermark.foundation.params import Params
from makermark.models import backbones, early_whisper, speaker_encoder
from makermark.models.backbones import Backbone
from makermark.models.checkpoint import Checkpoint, CheckpointMetadata, load_checkpoint
from makermark.models.extraction import embed_rows
from makermark.models.feature_spec import BASELINE_FRONT_END, build_front_end

log = logging.getLogger(__name__)

MODEL = "model"  # the name of the checkpoint's own embeddings


@dataclass(frozen=True)
class EmbeddingTask:
    """The utterances to embed, their features, and how to compute the embeddings."""

    manifest: Manifest  # all its utterances have features
    features: Path  # the folder of the feature caches
    model: CheckpointMetadata
    params: Params | Mapping[str, Any]  # settings of the front ends
    batch_seconds: float  # of audio in a batch
    device: torch.device
    precision: torch.dtype
    reference_split: str | None = "train"  # fits the standardisation of statistics; None: all utterances

    def embed(self, backbone: Backbone, cache: FeatureCache) -> Float32Array:
        """Return the embeddings (N, D) by `backbone`, which reads the model's front end, in the manifest's order."""
        front_end = build_front_end(self.params, self.model.front_end)
        return embed_rows(
            backbone,
            cache,
            cache.find_rows(self.manifest.rows["utterance_id"]),
            batch_frames=round(self.batch_seconds * front_end.frames_per_second),
            device=self.device,
            precision=self.precision,
        )


def logmel_stats(task: EmbeddingTask) -> Float32Array:
    """Return the mean and the standard deviation over time of each log-mel band, standardised."""
    rows = task.manifest.rows
    front_end = build_front_end(task.params, BASELINE_FRONT_END)
    cache = FeatureCache.open(task.features / BASELINE_FRONT_END, front_end.parameters())
    return standardise_on_reference(task, log_mel_statistics(cache, cache.find_rows(rows["utterance_id"])))


def log_mel_statistics(cache: FeatureCache, rows: IntArray) -> Float32Array:
    """Return the mean and the standard deviation over time of each band, (N, 2 F)."""
    statistics = np.empty((len(rows), 2 * cache.width), dtype=np.float32)
    for position, row in enumerate(rows):
        bands = cache.read_utterance(int(row)).astype(np.float32)  # (T, F)
        statistics[position] = np.concatenate([bands.mean(axis=0), bands.std(axis=0)])
    return statistics


def standardise_on_reference(task: EmbeddingTask, embeddings: Float32Array) -> Float32Array:
    """Standardise embeddings (N, D) on the utterances of the task's reference split, or on all of them."""
    if task.reference_split is None:
        return standardise(embeddings, reference=embeddings)
    is_reference = (task.manifest.rows["split"] == task.reference_split).to_numpy()
    return standardise(embeddings, reference=embeddings[is_reference])


def standardise(embeddings: Float32Array, *, reference: Float32Array) -> Float32Array:
    """Scale every dimension to mean 0 and standard deviation 1 on `reference`, the training set.

    A dimension that is constant on `reference` is only shifted.
    """
    deviation = reference.std(axis=0)
    scaled: Float32Array = (embeddings - reference.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    return scaled


def untrained(task: EmbeddingTask) -> Float32Array:
    """Return the embeddings by the model's backbone with its initial weights, pretrained parts included."""
    model, encoder = task.model, None
    if model.encoder:
        encoder = encoders.load(model.params["ssl"]["model"], layer=model.params["ssl"]["layer"])
    torch.manual_seed(model.params["seed"])
    backbone = backbones.build(
        model.backbone,
        dim=model.dim,
        width=model.width,
        bands=model.bands,
        encoder=encoder,
        **model.backbone_settings,
    )
    backbone.load_pretrained()
    return task.embed(
        backbone, FeatureCache.open(task.features / model.front_end, model.front_end_parameters)
    )


def resemblyzer(task: EmbeddingTask) -> Float32Array:
    """Return the embeddings by a published speaker encoder, computed from the audio files."""
    network = speaker_encoder.load_speaker_encoder(speaker_encoder.find_weights())
    return speaker_encoder.speaker_embeddings(network, audio_files(task), device=task.device)


def whisper_early(task: EmbeddingTask) -> Float32Array:
    """Return statistics over time of the first layers of a Whisper encoder, standardised, from the audio files."""
    session = early_whisper.load_session(early_whisper.find_weights())
    return standardise_on_reference(task, early_whisper.early_embeddings(session, audio_files(task)))


def audio_files(task: EmbeddingTask) -> list[Path]:
    """Return the audio file of every utterance."""
    return [task.manifest.audio_path(path) for path in task.manifest.rows["path"]]


BASELINES: dict[str, Callable[[EmbeddingTask], Float32Array]] = {
    "logmel_stats": logmel_stats,
    "untrained": untrained,
    "resemblyzer": resemblyzer,
    "whisper-early": whisper_early,
}
INSTALLED: dict[str, Callable[[], Path]] = {  # raise EncoderError if the package of a baseline is absent
    "resemblyzer": speaker_encoder.find_weights,
    "whisper-early": early_whisper.find_weights,
}


def check_baselines(names: Sequence[str]) -> None:
    """Raise ParamsError for an unknown baseline, EncoderError for one whose package is not installed."""
    for name in names:
        if name not in BASELINES:
            raise ParamsError(f"unknown baseline {name!r}; it is one of {list(BASELINES)}")
        if name in INSTALLED:
            INSTALLED[name]()


def installed_baselines(names: Sequence[str]) -> list[str]:
    """Return the names without those whose packages are not installed; a warning says how to install these.

    Raises ParamsError for an unknown baseline.
    """
    usable = []
    for name in names:
        try:
            check_baselines([name])
        except EncoderError as error:
            log.warning("%s; it is left out", error)
        else:
            usable.append(name)
    return usable


def embed_corpus(
    params: Params, manifest: Manifest, features_folder: Path, *, model: Path, folder: Path
) -> None:
    """Embed every utterance that has features, with the checkpoint `model` and the baselines of `params`.

    `folder` gets one file for each. Logits are stored if the checkpoint was trained on the systems of the manifest's
    training set. Raises FeatureCacheError if the cache is not the kind that the checkpoint was trained on.
    """
    device = choose_device(params.embed.device)
    checkpoint = load_checkpoint(model)
    metadata = checkpoint.metadata
    cache = FeatureCache.open(features_folder / metadata.front_end, metadata.front_end_parameters)
    cache.verify()
    rows = manifest.rows[manifest.rows["utterance_id"].isin(cache.utterance_ids)]
    task = EmbeddingTask(
        manifest=dataclasses.replace(manifest, rows=rows),
        features=features_folder,
        model=metadata,
        params=params,
        batch_seconds=params.embed.batch_seconds,
        device=device,
        precision=choose_precision(params.embed.precision, device),
    )
    training_systems = sorted(set(rows["system"][rows["split"] == "train"]))
    write_embedding_files(
        folder,
        task,
        checkpoint,
        cache,
        baselines=params.embed.baselines,
        with_logits=metadata.systems == training_systems,
    )


def write_embedding_files(
    folder: Path,
    task: EmbeddingTask,
    checkpoint: Checkpoint,
    cache: FeatureCache,
    *,
    baselines: Sequence[str],
    with_logits: bool,
) -> None:
    """Write `folder` anew: model.arrow by the checkpoint, from `cache`, and BASELINE.arrow for each baseline.

    `with_logits` stores the logits of the checkpoint's classifier, if it has one, beside its embeddings.
    """
    embeddings = {MODEL: task.embed(checkpoint.backbone, cache)}
    embeddings |= {name: BASELINES[name](task) for name in baselines}
    with torch.inference_mode():
        logits = checkpoint.loss.cpu().logits(torch.from_numpy(embeddings[MODEL]))
    metadata = {
        "corpus": task.manifest.corpus,
        "model_sha256": checkpoint.digest,
        "feature_fingerprint": cache.fingerprint,
    }
    with atomic_folder(folder) as draft:
        for name, array in embeddings.items():
            write_embeddings(
                draft / f"{name}.arrow",
                task.manifest.rows,
                array,
                logits=logits.numpy() if logits is not None and with_logits and name == MODEL else None,
                metadata=metadata | {"vectors": name},
            )

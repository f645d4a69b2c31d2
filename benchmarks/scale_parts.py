"""Work of benchmarks/scale.py between the stages. It runs in separate processes, because its imports are large."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np


def manifest_size(folder: Path) -> tuple[int, float]:
    """Return the number of rows of the manifest and the hours of their audio."""
    from makermark.foundation.manifest import read_manifest

    rows = read_manifest(folder / "data/corpus/manifest.parquet").rows
    return len(rows), float(rows["duration_s"].sum()) / 3600


def time_opening(folder: Path) -> tuple[float, int]:
    """Return the seconds to open the cache of log-mels, without imports, and its number of utterances."""
    from makermark.features.cache import FeatureCache
    from makermark.foundation.params import read_params
    from makermark.models.feature_spec import build_front_end

    parameters = build_front_end(read_params(folder / "params.yaml"), "fbank").parameters()
    start = time.perf_counter()
    cache = FeatureCache.open(folder / "data/features/fbank", parameters)
    return time.perf_counter() - start, len(cache.frames)


def write_model(folder: Path) -> None:
    """Write models/best: the network and the loss of params.yaml with initial weights, for the systems of train."""

    from makermark.foundation.manifest import read_manifest
    from makermark.foundation.params import read_params
    from makermark.models import losses
    from makermark.models.checkpoint import (
        CheckpointMetadata,
        copy_weights,
        library_versions,
        save_checkpoint,
    )
    from makermark.models.feature_spec import (
        backbone_settings,
        build_front_end,
        front_end_name,
        log_energy_bands,
    )
    from makermark.training.components import build_backbone

    params = read_params(folder / "params.yaml")
    rows = read_manifest(folder / "data/corpus/manifest.parquet").rows
    systems = sorted(set(rows["system"][rows["split"] == "train"]))
    front_end = build_front_end(params, front_end_name(params))
    backbone = build_backbone(params, width=front_end.width, bands=log_energy_bands(front_end), encoder=None)
    settings = dict(params.settings("losses", params.loss))
    loss = losses.build(params.loss, num_systems=len(systems), dim=params.dim, **settings)
    metadata = CheckpointMetadata(
        backbone=params.backbone,
        backbone_settings=backbone_settings(params),
        dim=params.dim,
        loss=params.loss,
        loss_settings=settings,
        systems=systems,
        front_end=front_end.name,
        width=front_end.width,
        bands=log_energy_bands(front_end),
        front_end_parameters=dict(front_end.parameters()),
        feature_fingerprint="",
        params=params.model_dump(),
        epoch=0,
        dev_eer_percent=50.0,
        git_commit="none",
        versions=library_versions(),
    )
    save_checkpoint(folder / "models/best", copy_weights({"backbone": backbone, "loss": loss}), metadata)


def write_part(folder: Path, share: float) -> int:
    """Write data/part/manifest.parquet with this share of the rows, evenly spaced; return their number."""
    from makermark.foundation.manifest import read_manifest, write_manifest

    manifest = read_manifest(folder / "data/corpus/manifest.parquet")
    count = max(2, round(share * len(manifest.rows)))
    rows = manifest.rows.iloc[np.linspace(0, len(manifest.rows) - 1, count).astype(int)]
    write_manifest(
        folder / "data/part/manifest.parquet", rows, corpus=manifest.corpus, root=str(manifest.root)
    )
    return count


def draw_embeddings(folder: Path) -> None:
    """Write data/embeddings of all rows, drawn at random: a Gaussian cloud per system in the dimension of each file."""
    from makermark.foundation.embeddings import read_embeddings, write_embeddings
    from makermark.foundation.manifest import read_manifest
    from makermark.models.checkpoint import load_checkpoint

    rng = np.random.default_rng(0)
    rows = read_manifest(folder / "data/corpus/manifest.parquet").rows
    checkpoint = load_checkpoint(folder / "models/best")
    _, system = np.unique(rows["system"].to_numpy(dtype=str), return_inverse=True)
    for file in sorted((folder / "data/part/embeddings").glob("*.arrow")):
        part = read_embeddings(file)
        dim = part.embeddings.shape[1]
        centres = rng.normal(size=(system.max() + 1, dim))
        embeddings = (centres[system] + 1.1 * rng.normal(size=(len(rows), dim))).astype(np.float32)
        logits = None
        if part.logits is not None:
            logits = rng.normal(size=(len(rows), len(checkpoint.metadata.systems))).astype(np.float32)
        metadata = {"corpus": "drawn", "model_sha256": checkpoint.digest, "vectors": file.stem}
        write_embeddings(
            folder / "data/embeddings" / file.name, rows, embeddings, logits=logits, metadata=metadata
        )


def preset_text(name: str) -> str:
    """Return the params.yaml that `makermark preset NAME` prints."""
    from makermark.experiments.presets import preset

    return preset(name)

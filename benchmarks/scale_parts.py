"""What benchmarks/scale.py does between the stages, each in a process of its own: makermark and torch are heavy."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np


def manifest_size(folder: Path) -> tuple[int, float]:
    """Rows of the manifest and the hours of their audio."""
    from makermark.corpora.rows import read_manifest

    rows = read_manifest(folder / "data/corpus/manifest.parquet").rows
    return len(rows), float(rows["duration_s"].sum()) / 3600


def opened(folder: Path) -> tuple[float, int]:
    """Seconds that it takes to open the cache of log-mels, imports aside, and the utterances in it."""
    from makermark.features.cache import FeatureCache
    from makermark.inputs import build_front_end
    from makermark.params import read_params

    parameters = build_front_end(read_params(folder / "params.yaml"), "fbank").parameters()
    start = time.perf_counter()
    cache = FeatureCache.open(folder / "data/features/fbank", parameters)
    return time.perf_counter() - start, len(cache.frames)


def write_model(folder: Path) -> None:
    """models/best: the network and the loss of params.yaml with their first weights, for the systems of train."""
    from dataclasses import asdict

    from makermark import losses
    from makermark.checkpoint import Description, save_checkpoint
    from makermark.corpora.rows import read_manifest
    from makermark.experiment import build_backbone, versions
    from makermark.inputs import backbone_settings, build_front_end, front_end_of
    from makermark.params import read_params
    from makermark.training import weights_of

    params = read_params(folder / "params.yaml")
    rows = read_manifest(folder / "data/corpus/manifest.parquet").rows
    systems = sorted(set(rows["system"][rows["split"] == "train"]))
    front_end = build_front_end(params, front_end_of(params))
    backbone = build_backbone(params, width=front_end.width, encoder=None)
    settings = dict(params.settings("losses", params.loss))
    loss = losses.build(params.loss, num_systems=len(systems), dim=params.dim, **settings)
    description = Description(
        backbone=params.backbone,
        backbone_settings=backbone_settings(params),
        dim=params.dim,
        loss=params.loss,
        loss_settings=settings,
        systems=systems,
        front_end=front_end.name,
        width=front_end.width,
        front_end_parameters=dict(front_end.parameters()),
        feature_fingerprint="",
        params=asdict(params),
        epoch=0,
        dev_eer_percent=50.0,
        git_commit="none",
        versions=versions(),
    )
    save_checkpoint(folder / "models/best", weights_of({"backbone": backbone, "loss": loss}), description)


def write_part(folder: Path, share: float) -> int:
    """data/part/manifest.parquet: this share of the manifest's rows, evenly picked; returns how many."""
    from makermark.corpora.rows import read_manifest, write_manifest

    manifest = read_manifest(folder / "data/corpus/manifest.parquet")
    count = max(2, round(share * len(manifest.rows)))
    rows = manifest.rows.iloc[np.linspace(0, len(manifest.rows) - 1, count).astype(int)]
    write_manifest(
        folder / "data/part/manifest.parquet", rows, corpus=manifest.corpus, root=str(manifest.root)
    )
    return count


def draw_embeddings(folder: Path) -> None:
    """data/embeddings of all rows, not embedded but drawn: a Gaussian cloud for each system, in each file's width."""
    from makermark.checkpoint import load_checkpoint
    from makermark.corpora.rows import read_manifest
    from makermark.vectors import read_embeddings, write_embeddings

    rng = np.random.default_rng(0)
    rows = read_manifest(folder / "data/corpus/manifest.parquet").rows
    checkpoint = load_checkpoint(folder / "models/best")
    _, system = np.unique(rows["system"].to_numpy(dtype=str), return_inverse=True)
    for file in sorted((folder / "data/part/embeddings").glob("*.arrow")):
        part = read_embeddings(file)
        dim = part.vectors.shape[1]
        centres = rng.normal(size=(system.max() + 1, dim))
        vectors = (centres[system] + 1.1 * rng.normal(size=(len(rows), dim))).astype(np.float32)
        logits = None
        if part.logits is not None:
            logits = rng.normal(size=(len(rows), len(checkpoint.description.systems))).astype(np.float32)
        told = {"corpus": "drawn", "model_sha256": checkpoint.digest, "vectors": file.stem}
        write_embeddings(folder / "data/embeddings" / file.name, rows, vectors, logits=logits, metadata=told)


def preset_text(name: str) -> str:
    """The params.yaml that `makermark preset NAME` prints."""
    from makermark.presets import preset

    return preset(name)

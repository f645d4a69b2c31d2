"""Make a tracer from what the pipeline leaves: the model, the embeddings, the corpus."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from makermark.checkpoint import load_checkpoint
from makermark.corpora.rows import Manifest
from makermark.params import Params
from makermark.scoring.fusion import unit
from makermark.tracing.calibrating import Clips, Lines
from makermark.tracing.clips import cut
from makermark.tracing.gallery import TRAINED, Gallery, refuse_other_model
from makermark.tracing.hearing import Hearing
from makermark.tracing.kept import Kept, Settings
from makermark.tracing.tracer import Tracer
from makermark.vectors import Embeddings, read_embeddings


@dataclass(frozen=True)
class Made:
    """A tracer calibrated on dev, what of it is kept, and test cut in the same way to judge it by."""

    tracer: Tracer
    kept: Kept
    test: Clips


def make_tracer(params: Params, manifest: Manifest, embeddings: Path, model: Path) -> Made:
    """A gallery of train, dev's clips and test's, with the checkpoint `model` (a path without suffix).

    Raises TracerError where the embeddings are not by this model, CalibrationError where dev cannot teach a tracer.
    """
    p = params.trace
    checkpoint = load_checkpoint(model)
    hearing = Hearing(checkpoint, device=params.embed.device)
    found = read_embeddings(embeddings)
    refuse_other_model(found.metadata["model_sha256"], checkpoint.digest, what=str(embeddings))
    held_out = manifest.rows[manifest.rows["split"] != "train"]
    files = {
        str(name): manifest.file(str(path))
        for name, path in zip(held_out["utterance_id"], held_out["path"], strict=True)
    }
    dev, test = (
        cut(
            hearing,
            found.of_split(split),
            files,
            clip_seconds=p.clip_seconds,
            clips_per_system=p.clips_per_system,
            seed=p.seed,
        )
        for split in ("dev", "test")
    )
    gallery = gallery_of(found.of_split("train"), checkpoint.digest)
    settings = Settings(
        prior_known=p.prior_known,
        prior_same=p.prior_same,
        calibration_prior=p.calibration_prior,
        false_accept_rate=p.false_accept_rate,
        conformal_coverage=p.conformal_coverage,
        min_speech_seconds=p.min_speech_seconds,
        window_seconds=p.window_seconds,
        hop_seconds=p.hop_seconds,
        max_seconds=params.features.max_seconds,
        seed=p.seed,
    )
    lines = Lines(dev, gallery, prior=p.calibration_prior, seed=p.seed)
    tracer = Tracer(hearing, gallery, lines, settings)
    _ = tracer.calibrated, lines.pairs  # nothing is kept that could not be used
    return Made(tracer, Kept(gallery, dev, settings), test)


def gallery_of(train: Embeddings, model_sha256: str) -> Gallery:
    """The systems of the training set, with every vector they have there."""
    clips = pd.DataFrame(
        {
            "system": train.labels["system"].astype(str),
            "family": train.labels["family"].fillna("").astype(str),
            "origin": TRAINED,
            "clip": train.labels["utterance_id"].astype(str),
        }
    )
    return Gallery(clips, unit(train.vectors).astype("float32"), model_sha256)

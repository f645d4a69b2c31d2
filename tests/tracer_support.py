"""A small tracer on vowels with its corpus, as the pipeline writes them; shared by several test modules."""

import atexit
import copy
import dataclasses
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from makermark.features.cache import FeatureCache
from makermark.features.cache_writer import write_cache
from makermark.foundation.embeddings import write_embeddings
from makermark.foundation.manifest import add_seen_columns, write_manifest
from makermark.foundation.params import parse_params
from makermark.models import backbones, losses
from makermark.models.checkpoint import CheckpointMetadata, copy_weights, load_checkpoint, save_checkpoint
from makermark.models.extraction import embed_rows
from makermark.tracing.build import BuiltTracer, build_tracer
from makermark.tracing.bundle import write_bundle
from tests_support import LOG_MELS, speech_corpus

CONTENT: dict[str, Any] = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text())
CONTENT["trace"] |= {"clip_seconds": [0.5, 1.0], "clips_per_system": 4, "min_speech_seconds": 0.3}
CONTENT["trace"] |= {"window_seconds": 0.8, "hop_seconds": 0.4, "enrol_clips": 3, "enrol_draws": 2}


@dataclasses.dataclass(frozen=True)
class World:
    """`corpus/`, `models/` and `model.arrow` in `folder`; audio files and stage embeddings by utterance."""

    folder: Path
    built: BuiltTracer
    files: dict[str, Path]
    stage_embeddings: dict[str, np.ndarray]

    def of(self, system: str) -> list[Path]:
        """Return the clips of a system: first those of dev, then those of train, last those of test."""
        return [path for name, path in sorted(self.files.items()) if f"-{system}-" in name]


def make_world(folder: Path, content: dict[str, Any] = CONTENT) -> World:
    """Write a model of the systems slow and middle; the system fast is unknown, in dev and test.

    `content` is the content of params.yaml. A corpus `bonafide/` in `folder` is part of the reference population.
    Without both, the world is a copy of one that is built once per process.
    """
    if content != CONTENT or (folder / "bonafide").exists():
        return _build_world(folder, content)
    original = _default_world()
    shutil.copytree(original.folder, folder, dirs_exist_ok=True)
    files = {name: folder / path.relative_to(original.folder) for name, path in original.files.items()}
    return dataclasses.replace(original, folder=folder, files=files)


@cache
def _default_world() -> World:
    folder = Path(tempfile.mkdtemp(prefix="makermark-world-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return _build_world(folder, CONTENT)


def _build_world(folder: Path, content: dict[str, Any]) -> World:
    content = copy.deepcopy(content)
    corpus = folder / "corpus"
    corpus.mkdir()
    manifest, front_end = speech_corpus(corpus)
    rows = manifest.rows
    late = rows["utterance_id"].str.extract(r"(\d+)$")[0].astype(int) >= 5
    to_test = (rows["split"] == "train") & (late | (rows["system"] == "fast"))
    rows = rows.assign(split=rows["split"].where(~to_test, "test"), family="vowel", text="la la")
    manifest = dataclasses.replace(manifest, rows=add_seen_columns(rows))
    rows = manifest.rows
    write_manifest(corpus / "manifest.parquet", rows, corpus="vowels", root="audio")
    torch.manual_seed(
        4
    )  # untrained weights with which embeddings of one system are closer, also for clips of 0.5 s
    settings = {"scale": 10.0, "bias": -5.0, "variant": "wan2018"}
    parts = {
        "backbone": backbones.build(
            "resnet34",
            dim=8,
            width=40,
            **LOG_MELS,
            pooling="sap",
            stem_order="norm-relu",
        ),
        "loss": losses.build("ge2e", num_systems=2, dim=8, **settings),
    }
    metadata = CheckpointMetadata(
        backbone="resnet34", backbone_settings={**LOG_MELS, "pooling": "sap", "stem_order": "norm-relu"}, dim=8,
        loss="ge2e", loss_settings=settings,
        systems=["middle", "slow"], languages=["en"], front_end="fbank", width=40,
        front_end_parameters=dict(front_end.parameters()), feature_fingerprint="f" * 64, params=content, epoch=1,
        dev_eer_percent=50.0, git_commit="c" * 40, versions={"torch": "2"},
    )  # fmt: skip
    (folder / "models").mkdir()
    digest = save_checkpoint(folder / "models/best", copy_weights(parts), metadata)
    write_cache(manifest, front_end, folder / "features", shard_utterances=8, max_bad_fraction=0,
                min_seconds=0.1, max_seconds=60, workers=1)  # fmt: skip
    cache = FeatureCache.open(folder / "features/fbank", front_end.parameters())
    vectors = embed_rows(load_checkpoint(folder / "models/best").backbone, cache, cache.find_rows(rows["utterance_id"]),
                    batch_frames=6000, device=torch.device("cpu"))  # fmt: skip
    write_embeddings(folder / "model.arrow", rows, vectors, metadata={"model_sha256": digest})
    made = build_tracer(
        parse_params(content), manifest, folder / "model.arrow", folder / "models/best",
        bonafide_folder=folder / "bonafide",
    )  # fmt: skip
    write_bundle(folder / "models/tracer", made.bundle)
    files = {
        name: manifest.audio_path(path) for name, path in zip(rows["utterance_id"], rows["path"], strict=True)
    }
    return World(folder, made, files, dict(zip(rows["utterance_id"], vectors, strict=True)))

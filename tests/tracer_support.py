"""A small tracer of tones as the pipeline leaves one, with its corpus: for all tests of the examiner's side."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from makermark import backbones, losses
from makermark.checkpoint import Description, load_checkpoint, save_checkpoint
from makermark.corpora.rows import derive_seen, write_manifest
from makermark.embedding import embed
from makermark.features.cache import FeatureCache, write_cache
from makermark.params import from_mapping
from makermark.tracing.kept import write_kept
from makermark.tracing.making import Made, make_tracer
from makermark.training import weights_of
from makermark.vectors import write_embeddings
from tests_support import tone_corpus

CONTENT: dict[str, Any] = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text())
CONTENT["trace"] |= {"clip_seconds": [0.5, 1.0], "clips_per_system": 4, "min_speech_seconds": 0.3}
CONTENT["trace"] |= {"window_seconds": 0.8, "hop_seconds": 0.4, "enrol_clips": 3, "enrol_draws": 2}


@dataclasses.dataclass(frozen=True)
class World:
    """`corpus/` and `models/` in `folder`, `model.arrow` beside them; `files` and `stage_vectors` by utterance."""

    folder: Path
    made: Made
    files: dict[str, Path]
    stage_vectors: dict[str, np.ndarray]

    def of(self, system: str) -> list[Path]:
        """The clips of a system: those of dev first, then the others, of which test has the last."""
        return [path for name, path in sorted(self.files.items()) if f"-{system}-" in name]


def make_world(folder: Path, content: dict[str, Any] = CONTENT) -> World:
    """Trained on slow and middle by params `content`; fast is unknown in dev and test."""
    content = copy.deepcopy(content)
    corpus = folder / "corpus"
    corpus.mkdir()
    manifest, front_end = tone_corpus(corpus)
    rows = manifest.rows
    late = rows["utterance_id"].str.extract(r"(\d+)$")[0].astype(int) >= 5
    to_test = (rows["split"] == "train") & (late | (rows["system"] == "fast"))
    rows = rows.assign(split=rows["split"].where(~to_test, "test"), family="tone", text="la la")
    manifest = dataclasses.replace(manifest, rows=derive_seen(rows))
    rows = manifest.rows
    write_manifest(corpus / "manifest.parquet", rows, corpus="tones", root="audio")
    torch.manual_seed(0)
    settings = {"scale": 10.0, "bias": -5.0}
    parts = {
        "backbone": backbones.build("resnet34", dim=8, width=40, pooling="sap"),
        "loss": losses.build("ge2e", num_systems=2, dim=8, **settings),
    }
    description = Description(
        backbone="resnet34", backbone_settings={"pooling": "sap"}, dim=8, loss="ge2e", loss_settings=settings,
        systems=["middle", "slow"], languages=["en"], front_end="fbank", width=40,
        front_end_parameters=dict(front_end.parameters()), feature_fingerprint="f" * 64, params=content, epoch=1,
        dev_eer_percent=50.0, git_commit="c" * 40, versions={"torch": "2"},
    )  # fmt: skip
    (folder / "models").mkdir()
    digest = save_checkpoint(folder / "models/best", weights_of(parts), description)
    write_cache(manifest, front_end, folder / "features", shard_utterances=8, max_bad_fraction=0,
                min_seconds=0.1, max_seconds=60, workers=1)  # fmt: skip
    cache = FeatureCache.open(folder / "features/fbank", front_end.parameters())
    vectors = embed(load_checkpoint(folder / "models/best").backbone, cache, cache.rows_of(rows["utterance_id"]),
                    batch_frames=6000, device=torch.device("cpu"))  # fmt: skip
    write_embeddings(folder / "model.arrow", rows, vectors, metadata={"model_sha256": digest})
    made = make_tracer(from_mapping(content), manifest, folder / "model.arrow", folder / "models/best")
    write_kept(folder / "models/tracer", made.kept)
    files = {name: manifest.file(path) for name, path in zip(rows["utterance_id"], rows["path"], strict=True)}
    return World(folder, made, files, dict(zip(rows["utterance_id"], vectors, strict=True)))

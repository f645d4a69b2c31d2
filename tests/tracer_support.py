"""A small tracer of tones as `makermark calibrate` leaves one, with its corpus."""

import dataclasses
from pathlib import Path

import torch
import yaml

from makermark import backbones, losses
from makermark.checkpoint import Description, load_checkpoint, save_checkpoint
from makermark.corpora.rows import derive_seen, write_manifest
from makermark.params import from_mapping
from makermark.tracing.hearing import Hearing
from makermark.tracing.kept import write_kept
from makermark.tracing.making import make_tracer
from makermark.training import weights_of
from makermark.vectors import write_embeddings
from tests_support import tone_corpus


def leave_tracer(folder: Path) -> dict[str, list[Path]]:
    """`models/` and `corpus/` in `folder`; a model of slow and middle tones, to which fast ones are unknown. The files
    of every system, those of train last."""
    corpus = folder / "corpus"
    corpus.mkdir()
    manifest, front_end = tone_corpus(corpus)
    rows = manifest.rows
    split = rows["split"].mask((rows["split"] == "train") & (rows["system"] == "fast"), "test")
    rows = rows.assign(split=split, family="tone", text="la la")
    manifest = dataclasses.replace(manifest, rows=derive_seen(rows))
    write_manifest(corpus / "manifest.parquet", manifest.rows, corpus="tones", root="audio")
    content = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text())
    content["trace"] |= {"clip_seconds": [0.5, 1.0], "clips_per_system": 4, "min_speech_seconds": 0.3}
    content["trace"] |= {"window_seconds": 0.8, "hop_seconds": 0.4}
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
    hearing = Hearing(load_checkpoint(folder / "models/best"), device="cpu")
    files = [manifest.file(path) for path in manifest.rows["path"]]
    vectors = hearing.vectors([hearing.read(path) for path in files])
    write_embeddings(folder / "model.arrow", manifest.rows, vectors, metadata={"model_sha256": digest})
    made = make_tracer(from_mapping(content), manifest, folder / "model.arrow", folder / "models/best")
    write_kept(folder / "models/tracer", made.kept)
    return {system: sorted(f for f in files if f"-{system}-" in f.name) for system in set(rows["system"])}

"""A small tracer of tones to serve, and a real server in a thread."""

import dataclasses
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml

from makermark import backbones, losses
from makermark.checkpoint import Description, load_checkpoint, save_checkpoint
from makermark.corpora.rows import derive_seen
from makermark.embedding import embed
from makermark.features.cache import FeatureCache, write_cache
from makermark.params import from_mapping
from makermark.serving import Desk, application
from makermark.serving.listening import bound, server
from makermark.tracing import Tracer
from makermark.tracing.kept import write_kept
from makermark.tracing.making import make_tracer
from makermark.training import weights_of
from makermark.vectors import write_embeddings
from tests_support import tone_corpus

LIMITS = {
    "hosts": ["testserver", "127.0.0.1"], "threads": 2, "waiting": 64, "max_seconds": 5.0, "max_bytes": 1 << 20,
    "max_bytes_at_once": 1 << 24, "per_minute": 6000, "burst": 1000, "body_seconds": 1.0, "answer_seconds": 60.0,
    "changeable": True,
}  # fmt: skip


def make_models(folder: Path) -> dict[str, list[Path]]:
    """A model of slow and middle tones with its tracer in `folder`/models; the files of every system."""
    content = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
    content["trace"] |= {"clip_seconds": [0.5, 1.0], "clips_per_system": 4, "min_speech_seconds": 0.3}
    content["trace"] |= {"window_seconds": 0.8, "hop_seconds": 0.4}
    manifest, front_end = tone_corpus(folder)
    rows = manifest.rows
    late = rows["utterance_id"].str.extract(r"(\d+)$")[0].astype(int) >= 5
    to_test = (rows["split"] == "train") & (late | (rows["system"] == "fast"))
    split = rows["split"].where(~to_test, "test")
    manifest = dataclasses.replace(manifest, rows=derive_seen(rows.assign(split=split, family="tone")))
    torch.manual_seed(0)
    settings = {"scale": 10.0, "bias": -5.0}
    parts = {
        "backbone": backbones.build("resnet34", dim=8, width=40, pooling="sap"),
        "loss": losses.build("ge2e", num_systems=2, dim=8, **settings),
    }
    description = Description(
        backbone="resnet34", backbone_settings={"pooling": "sap"}, dim=8, loss="ge2e", loss_settings=settings,
        systems=["middle", "slow"], languages=["en"], front_end="fbank", width=40,
        front_end_parameters=dict(front_end.parameters()), feature_fingerprint="", params=content, epoch=1,
        dev_eer_percent=50.0, git_commit="c" * 40, versions={},
    )  # fmt: skip
    (folder / "models").mkdir()
    digest = save_checkpoint(folder / "models/best", weights_of(parts), description)
    write_cache(manifest, front_end, folder / "features", shard_utterances=64, max_bad_fraction=0,
                min_seconds=0.1, max_seconds=60, workers=1)  # fmt: skip
    cache = FeatureCache.open(folder / "features/fbank", front_end.parameters())
    vectors = embed(load_checkpoint(folder / "models/best").backbone, cache,
                    cache.rows_of(manifest.rows["utterance_id"]), batch_frames=6000,
                    device=torch.device("cpu"))  # fmt: skip
    write_embeddings(folder / "model.arrow", manifest.rows, vectors, metadata={"model_sha256": digest})
    made = make_tracer(from_mapping(content), manifest, folder / "model.arrow", folder / "models/best")
    write_kept(folder / "models/tracer", made.kept)
    systems = sorted(set(rows["system"]))
    return {system: sorted((folder / "audio").glob(f"*-{system}-*.flac")) for system in systems}


def app_of(models: Path, gallery: Path, **limits):
    """An application with LIMITS, some of them replaced."""
    chosen = LIMITS | limits
    tracer = Tracer.load(models, device="cpu")
    desk = Desk(tracer, gallery, corpus=None, max_seconds=chosen["max_seconds"])
    return application(desk, **chosen)


@contextmanager
def running(app) -> Iterator[tuple[str, int]]:
    """A real uvicorn with `app` in a thread, at this address; it ends gracefully."""
    listener = bound("127.0.0.1", 0)
    serving = server(app)
    thread = threading.Thread(target=serving.run, kwargs={"sockets": [listener]})
    thread.start()
    until = time.monotonic() + 30
    while not serving.started and time.monotonic() < until:
        time.sleep(0.02)
    try:
        yield listener.getsockname()
    finally:
        serving.should_exit = True
        thread.join(30)
        assert not thread.is_alive()

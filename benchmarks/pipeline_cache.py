"""A large feature cache for benchmarks/pipeline.py, and the ways in which stages read a cache.

    python benchmarks/pipeline_cache.py FOLDER WAY ...

reads the cache that `write` wrote. It is a process of its own, so that its memory is that of the reading alone.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np

from makermark import features
from makermark.features.cache import FeatureCache
from makermark.features.cache_writer import write_cache
from makermark.foundation.params import read_params

PARAMS = read_params(Path(__file__).parents[1] / "params.yaml")
FILES = 200  # of noise; every utterance refers to one of them
BATCH, CROP_FRAMES = 128, 200


def write(folder: Path, utterances: int) -> tuple[float, int]:
    """Write log-mels of noise, 2 to 8 s per utterance, to `folder`/fbank; return their hours and bytes."""
    import pandas as pd
    import soundfile

    from makermark.foundation.manifest import Manifest

    rng, digests = np.random.default_rng(0), []
    for number, seconds in enumerate(np.linspace(2, 8, FILES)):
        path = folder / f"{number}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(int(16000 * seconds)), 16000, subtype="PCM_16")
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    turns = rng.integers(FILES, size=utterances)
    rows = {
        "utterance_id": [f"{number:06d}" for number in range(utterances)],
        "path": [f"{turn}.wav" for turn in turns],
        "sha256": [digests[turn] for turn in turns],
    }
    report = write_cache(
        Manifest("noise", folder, pd.DataFrame(rows)), fbank(), folder,
        shard_utterances=PARAMS.features.shard_utterances, max_bad_fraction=0, min_seconds=0.5, max_seconds=60,
        workers=2,
    )  # fmt: skip
    return report.hours, sum(path.stat().st_size for path in report.folder.iterdir())


def fbank() -> features.FrontEnd:
    return features.build("fbank", **PARAMS.settings("front_ends", "fbank"))


def verify(cache: FeatureCache) -> None:
    """Check every byte against its checksum."""
    cache.verify()


def batches(cache: FeatureCache) -> None:
    """Read whole utterances in batches of 20 s, as the embed stage does."""
    for _ in cache.length_batches(np.arange(len(cache.frames)), max_frames=2000):
        pass


def statistics(cache: FeatureCache) -> None:
    """Compute mean and deviation of every band of every utterance: the baseline without a network."""
    from makermark.models.embed_corpus import log_mel_statistics

    log_mel_statistics(cache, np.arange(len(cache.frames)))


def crops(cache: FeatureCache) -> None:
    """Read an epoch of training: a crop of 2 s of every utterance, in batches of 128."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(cache.frames))
    for first in range(0, len(order), BATCH):
        cache.read_crops(order[first : first + BATCH], frames=CROP_FRAMES, rng=rng)


WAYS = {way.__name__: way for way in (verify, batches, statistics, crops)}

if __name__ == "__main__":
    opened = FeatureCache.open(Path(sys.argv[1], "fbank"), fbank().parameters())
    for name in sys.argv[2:]:
        WAYS[name](opened)

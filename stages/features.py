"""Compute the feature caches: audio and manifest -> Arrow shards."""

from pathlib import Path

from makermark import door, features
from makermark.corpora.rows import read_manifest
from makermark.features.cache import write_cache
from makermark.params import read_params


def main(manifest: Path, folder: Path, params: Path = Path("params.yaml")) -> None:
    """Write one cache for each of features.front_ends into FOLDER."""
    p = read_params(params)
    rows = read_manifest(manifest)
    for name in p.features.front_ends:
        write_cache(
            rows,
            features.build(name, **p.settings("front_ends", name)),
            folder,
            shard_utterances=p.features.shard_utterances,
            max_bad_fraction=p.features.max_bad_fraction,
            min_seconds=p.features.min_seconds,
            max_seconds=p.features.max_seconds,
            workers=p.features.workers,
        )


if __name__ == "__main__":
    door.run(main)

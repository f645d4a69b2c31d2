"""Compute the feature caches: audio and manifest -> Arrow shards."""

import dataclasses
import shutil
from pathlib import Path

from makermark.foundation import entrypoint


def main(manifest: Path, bonafide: Path, folder: Path, params: Path = Path("params.yaml")) -> None:
    """Write the caches of features.front_ends and of the backbone's front end into FOLDER; delete other caches.

    The caches of the bona fide speech in BONAFIDE, if there is any, go to FOLDER/bonafide. With `augment`, the caches
    of the augmented copies of split train are written, too.
    """
    from makermark.features.cache_writer import remove_unlisted_caches, write_cache
    from makermark.foundation.manifest import has_bonafide, read_bonafide_manifest, read_manifest
    from makermark.foundation.params import read_params
    from makermark.models.feature_spec import (
        BONAFIDE_FOLDER,
        augmented_front_ends,
        build_front_end,
        front_end_names,
    )

    p = read_params(params)
    corpus = read_manifest(manifest)
    manifests = {folder: corpus}
    if has_bonafide(bonafide):
        manifests[folder / BONAFIDE_FOLDER] = read_bonafide_manifest(bonafide)
    else:
        shutil.rmtree(folder / BONAFIDE_FOLDER, ignore_errors=True)
    front_ends = [build_front_end(p, name) for name in front_end_names(p)]
    augmented = augmented_front_ends(p)
    train = dataclasses.replace(corpus, rows=corpus.rows[corpus.rows["split"] == "train"])
    for cache_folder in manifests:
        remove_unlisted_caches(cache_folder, keep=[front_end.name for front_end in (*front_ends, *augmented)])
    tasks = [(path, rows, front_end) for path, rows in manifests.items() for front_end in front_ends]
    for path, rows, front_end in [*tasks, *((folder, train, front_end) for front_end in augmented)]:
        write_cache(
            rows,
            front_end,
            path,
            shard_utterances=p.features.shard_utterances,
            max_bad_fraction=1.0 if front_end in augmented else p.features.max_bad_fraction,
            min_seconds=p.features.min_seconds,
            max_seconds=p.features.max_seconds,
            workers=p.features.workers,
        )


if __name__ == "__main__":
    entrypoint.run_stage(main)

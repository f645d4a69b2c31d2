"""Compute the feature caches: audio and manifest -> Arrow shards."""

import shutil
from itertools import product
from pathlib import Path

from makermark import door


def main(manifest: Path, bonafide: Path, folder: Path, params: Path = Path("params.yaml")) -> None:
    """Write the caches of features.front_ends, and the one that the backbone reads, into FOLDER, and no others.

    Those of the speech in BONAFIDE, if there is some, into FOLDER/bonafide.
    """
    from makermark.corpora.bonafide import is_there, read
    from makermark.corpora.rows import read_manifest
    from makermark.features.cache import write_cache
    from makermark.features.writing import remove_other_caches
    from makermark.inputs import BONAFIDE, build_front_end, front_ends_of
    from makermark.params import read_params

    p = read_params(params)
    corpora = {folder: read_manifest(manifest)}
    if is_there(bonafide):
        corpora[folder / BONAFIDE] = read(bonafide)
    else:
        shutil.rmtree(folder / BONAFIDE, ignore_errors=True)
    front_ends = front_ends_of(p)
    for place in corpora:
        remove_other_caches(place, keep=front_ends)
    for (place, rows), name in product(corpora.items(), front_ends):
        write_cache(
            rows,
            build_front_end(p, name),
            place,
            shard_utterances=p.features.shard_utterances,
            max_bad_fraction=p.features.max_bad_fraction,
            min_seconds=p.features.min_seconds,
            max_seconds=p.features.max_seconds,
            workers=p.features.workers,
        )


if __name__ == "__main__":
    door.run(main)

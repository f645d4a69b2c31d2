"""Compute the feature caches: audio and manifest -> Arrow shards."""

import dataclasses
import shutil
from itertools import product
from pathlib import Path

from makermark import door


def main(manifest: Path, bonafide: Path, folder: Path, params: Path = Path("params.yaml")) -> None:
    """Write the caches of features.front_ends, and the one that the backbone reads, into FOLDER, and no others.

    Those of the speech in BONAFIDE, if there is some, into FOLDER/bonafide. Where `augment` asks for degraded copies,
    those of split train, too.
    """
    from makermark.corpora.bonafide import is_there, read
    from makermark.corpora.rows import read_manifest
    from makermark.features.cache import write_cache
    from makermark.features.writing import remove_other_caches
    from makermark.inputs import BONAFIDE, build_front_end, copies_of, front_ends_of
    from makermark.params import read_params

    p = read_params(params)
    corpora = {folder: read_manifest(manifest)}
    if is_there(bonafide):
        corpora[folder / BONAFIDE] = read(bonafide)
    else:
        shutil.rmtree(folder / BONAFIDE, ignore_errors=True)
    front_ends, copies = front_ends_of(p), copies_of(p)
    for place in corpora:
        remove_other_caches(place, keep=[*front_ends, *(copy.name for copy in copies)])
    whole = corpora[folder]
    train = dataclasses.replace(whole, rows=whole.rows[whole.rows["split"] == "train"])
    wanted = [
        (place, rows, build_front_end(p, name))
        for (place, rows), name in product(corpora.items(), front_ends)
    ]
    for place, rows, front_end in [*wanted, *((folder, train, copy) for copy in copies)]:
        write_cache(
            rows,
            front_end,
            place,
            shard_utterances=p.features.shard_utterances,
            max_bad_fraction=1.0 if front_end in copies else p.features.max_bad_fraction,
            min_seconds=p.features.min_seconds,
            max_seconds=p.features.max_seconds,
            workers=p.features.workers,
        )


if __name__ == "__main__":
    door.run(main)

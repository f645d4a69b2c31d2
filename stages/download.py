"""Build or download the corpus, and bona fide speech: folders with audio and manifest.parquet."""

from functools import partial
from pathlib import Path

from makermark.foundation import entrypoint


def main(corpus: Path, bonafide: Path, params: Path = Path("params.yaml")) -> None:
    """Write the corpus that PARAMS name into the folder CORPUS, and bona fide speech into BONAFIDE."""
    from makermark.corpora import bonafide_recordings, corpus_registry, local
    from makermark.corpora.build_manifest import AUDIO_INFO_CACHE, build_manifest, replace_other_corpus
    from makermark.corpora.splits import assign_splits
    from makermark.foundation.params import read_params
    from makermark.foundation.tracking.provenance import find_main_repository

    # A DVC experiment in a temporary copy has neither the user's audio nor the cache of measured files.
    home = find_main_repository(Path.cwd())
    p = corpus_registry.resolve_paths(read_params(params), home)
    corpus_registry.check_paths_outside(corpus, p)
    listing = corpus_registry.read_listing(p)
    if listing is not None:
        corpus_registry.check_files_outside(corpus, listing)
    # What exists is replaced last: an error leaves the corpus and the bona fide speech as they were.
    with replace_other_corpus(corpus, corpus=p.corpus) as folder:
        if listing is None:
            local.build_local_corpus(folder, **p.local.model_dump())
        else:
            build_manifest(
                folder,
                listing,
                corpus=p.corpus,
                read_only_cache=home / corpus / AUDIO_INFO_CACHE,
                split=partial(assign_splits, **p.split.model_dump()),
                **{name: value for name, value in p.external.model_dump().items() if name != "root"},
            )
        bonafide_recordings.build_bonafide_corpus(bonafide, **p.bonafide.model_dump())


if __name__ == "__main__":
    entrypoint.run_stage(main)

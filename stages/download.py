"""Make or fetch the corpus, and bona fide speech beside it: folders with audio and manifest.parquet."""

from dataclasses import asdict
from functools import partial
from pathlib import Path

from makermark import door


def main(corpus: Path, bonafide: Path, params: Path = Path("params.yaml")) -> None:
    """Write the corpus that PARAMS name into the folder CORPUS, real human speech into BONAFIDE."""
    from makermark.corpora import local, reading, recordings
    from makermark.corpora.making import LOOKED, clear_other, make
    from makermark.corpora.splitting import split
    from makermark.params import read_params
    from makermark.tracking.repository import main_repository

    home = main_repository(
        Path.cwd()
    )  # an experiment in a copy has neither the user's audio nor what was seen of it
    p = reading.from_home(read_params(params), home)
    reading.refuse_inside(corpus, p)
    listing = None if p.corpus == "local" else reading.read(p)
    if listing:
        reading.refuse_files_inside(corpus, listing)
    recordings.make(
        bonafide,
        source=p.bonafide.source,
        seed=p.bonafide.seed,
        dev_fraction=p.bonafide.dev_fraction,
        test_fraction=p.bonafide.test_fraction,
    )
    clear_other(corpus, corpus=p.corpus)
    if listing:
        make(
            corpus,
            listing,
            corpus=p.corpus,
            seen_before=home / corpus / LOOKED,
            split=partial(split, **asdict(p.split)),
            **{name: value for name, value in asdict(p.external).items() if name != "root"},
        )
        return
    local.make(
        corpus,
        seed=p.local.seed,
        train_utterances=p.local.train_utterances,
        dev_utterances=p.local.dev_utterances,
        test_utterances=p.local.test_utterances,
        engines=p.local.engines,
        workers=p.local.workers,
        utterance_timeout_s=p.local.utterance_timeout_s,
        max_failed_fraction=p.local.max_failed_fraction,
    )


if __name__ == "__main__":
    door.run(main)

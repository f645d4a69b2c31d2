"""Make or fetch the corpus, and bona fide speech beside it: folders with audio and manifest.parquet."""

from pathlib import Path

from makermark import door
from makermark.corpora import local, recordings
from makermark.params import read_params


def main(corpus: Path, bonafide: Path, params: Path = Path("params.yaml")) -> None:
    """Write the corpus that PARAMS name into the folder CORPUS, real human speech into BONAFIDE."""
    p = read_params(params)
    recordings.make(
        bonafide,
        source=p.bonafide.source,
        seed=p.bonafide.seed,
        dev_fraction=p.bonafide.dev_fraction,
        test_fraction=p.bonafide.test_fraction,
    )
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

"""Make or fetch the corpus: a folder with audio and manifest.parquet."""

from pathlib import Path

from makermark import door
from makermark.corpora import local
from makermark.params import read_params


def main(corpus: Path, params: Path = Path("params.yaml")) -> None:
    """Write the corpus that PARAMS name into the folder CORPUS."""
    p = read_params(params)
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

"""Refuse params.yaml at once if no later stage could carry it out."""

from pathlib import Path

from makermark.foundation import entrypoint


def main(params: Path = Path("params.yaml")) -> None:
    """Check that the names, settings and combinations in PARAMS exist and fit together."""
    from makermark.corpora.corpus_registry import check_corpus
    from makermark.foundation.params import read_params
    from makermark.training.components import check_params

    p = read_params(params)
    check_corpus(p)
    check_params(p)


if __name__ == "__main__":
    entrypoint.run_stage(main)

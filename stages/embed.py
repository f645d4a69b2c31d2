"""Embed every utterance: with the trained model, and as the baselines do that it is measured against."""

from pathlib import Path

from makermark import door


def main(
    manifest: Path, features: Path, model: Path, folder: Path, params: Path = Path("params.yaml")
) -> None:
    """Write model.arrow, and one file for each of embed.baselines, into FOLDER; MODEL is a path without suffix."""
    from makermark.corpora.rows import read_manifest
    from makermark.experiment import embed_experiment
    from makermark.params import read_params

    embed_experiment(read_params(params), read_manifest(manifest), features, model=model, folder=folder)


if __name__ == "__main__":
    door.run(main)

"""Train the source tracer: manifest and feature cache -> checkpoints and history."""

from pathlib import Path

from makermark import door


def main(
    manifest: Path, bonafide: Path, features: Path, models: Path, params: Path = Path("params.yaml")
) -> None:
    """Write best and last checkpoints and history.json into MODELS; log the run."""
    from makermark.corpora.rows import read_manifest
    from makermark.experiment import train_experiment
    from makermark.params import read_params

    train_experiment(read_params(params), read_manifest(manifest), features, human=bonafide, models=models)


if __name__ == "__main__":
    door.run(main)

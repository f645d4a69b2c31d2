"""Train a model: manifest and feature caches -> checkpoints, history and training curves."""

from pathlib import Path

from makermark.foundation import entrypoint


def main(
    manifest: Path,
    bonafide: Path,
    features: Path,
    models: Path,
    plots: Path,
    params: Path = Path("params.yaml"),
) -> None:
    """Write the best and the last checkpoint and history.json into MODELS, and curves into PLOTS; record the run."""
    from makermark.foundation.files import read_json
    from makermark.foundation.manifest import read_manifest
    from makermark.foundation.params import read_params
    from makermark.training.curves import write_curves
    from makermark.training.run import train_experiment

    train_experiment(
        read_params(params), read_manifest(manifest), features, bonafide_folder=bonafide, models=models
    )
    write_curves(plots, read_json(models / "history.json"))


if __name__ == "__main__":
    entrypoint.run_stage(main)

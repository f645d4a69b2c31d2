"""Score the trained model on a foreign corpus, which it is never trained on."""

from pathlib import Path

from makermark.foundation import entrypoint


def main(model: Path, folder: Path, metrics: Path, params: Path = Path("params.yaml")) -> None:
    """Write METRICS for the checkpoint MODEL, a path without suffix; features, embeddings and plots into FOLDER."""
    from makermark.experiments.foreign import evaluate_foreign
    from makermark.foundation import tracking
    from makermark.foundation.files import write_json
    from makermark.foundation.params import read_params

    p = read_params(params)
    settings = p.foreign.model_dump(exclude={"stage"})
    results = evaluate_foreign(model, folder, **settings, device=p.embed.device)
    write_json(metrics, results)
    with tracking.open_model_run(results["evaluated"]["model_sha256"], start=Path.cwd()) as run:
        run.log_artifact(folder / "plots", "plots/foreign")
        run.log_artifact(metrics, "metrics")


if __name__ == "__main__":
    entrypoint.run_stage(main)

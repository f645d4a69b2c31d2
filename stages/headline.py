"""Select the figures that compare experiments: metrics of `score` and `calibrate` -> metrics/headline.json."""

from pathlib import Path

from makermark.foundation import entrypoint


def main(score: Path, trace: Path, checkpoint: Path, metrics: Path) -> None:
    """Write METRICS from the metrics SCORE and TRACE; add them to the run of the model that CHECKPOINT describes."""
    from makermark.foundation import tracking
    from makermark.foundation.files import read_json, write_json
    from makermark.reporting.headline import headline_metrics

    headline = headline_metrics(read_json(score), read_json(trace))
    write_json(metrics, headline)
    with tracking.open_model_run(read_json(checkpoint)["weights_sha256"], start=Path.cwd()) as run:
        run.log_metrics(tracking.flatten_metrics(headline))
        run.log_artifact(metrics, "metrics")


if __name__ == "__main__":
    entrypoint.run_stage(main)

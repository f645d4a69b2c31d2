"""Calibrate a tracer on dev and judge it on test: likelihood ratios, verdicts, enrolment."""

from pathlib import Path

from makermark import door


def main(
    manifest: Path,
    embeddings: Path,
    model: Path,
    folder: Path,
    metrics: Path,
    plots: Path,
    params: Path = Path("params.yaml"),
) -> None:
    """Write the tracer of MODEL (a path without suffix) into FOLDER, METRICS, and pictures into PLOTS; add them to the
    model's run."""
    from makermark import tracking
    from makermark.corpora.rows import read_manifest
    from makermark.files import write_json
    from makermark.params import read_params
    from makermark.reporting.tracing import plot_reliability, plot_tippett
    from makermark.tracing.kept import write_kept
    from makermark.tracing.making import make_tracer
    from makermark.tracing.measuring import (
        measure,
        measure_enrolment,
        measure_pairs,
        reliability_of,
        trials_of,
    )

    p = read_params(params)
    made = make_tracer(p, read_manifest(manifest), embeddings, model)
    tracer, test = made.tracer, made.test
    draws = {"bootstrap_samples": p.trace.bootstrap_samples, "seed": p.trace.seed}
    told = {
        "thresholds_from": tracer.calibrated.rejected_by,
        "test": measure(tracer, test, **draws),
        "compare": measure_pairs(tracer, test, **draws),
        "enrolment": measure_enrolment(
            tracer, test, clips=p.trace.enrol_clips, draws=p.trace.enrol_draws, **draws
        ),
    }
    plot_tippett(
        plots / "tippett.png", *trials_of(tracer, test), title="Likelihood ratios on test, whole utterances"
    )
    plot_reliability(plots / "reliability.png", reliability_of(tracer, test), title="Probabilities on test")
    write_kept(folder, made.kept)
    write_json(metrics, told)
    with tracking.open_model_run(tracer.model_sha256, start=Path.cwd()) as run:
        run.metrics({f"trace.{name}": value for name, value in tracking.numbers(told).items()})
        run.artefact(folder, "checkpoint/tracer")
        run.artefact(plots, "plots/trace")
        run.artefact(metrics, "metrics")


if __name__ == "__main__":
    door.run(main)

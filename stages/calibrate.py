"""Calibrate a tracer on dev and evaluate it on test: likelihood ratios, conclusions, enrolment."""

import dataclasses
import logging
from pathlib import Path

from makermark.foundation import entrypoint

log = logging.getLogger(__name__)


def main(
    manifest: Path,
    bonafide: Path,
    embeddings: Path,
    model: Path,
    folder: Path,
    metrics: Path,
    plots: Path,
    params: Path = Path("params.yaml"),
) -> None:
    """Write the tracer of MODEL (a path without suffix) into FOLDER, METRICS, and plots into PLOTS; add them to the
    model's run."""
    from makermark.foundation import tracking
    from makermark.foundation.errors import CalibrationError
    from makermark.foundation.files import atomic_folder, write_json
    from makermark.foundation.manifest import read_manifest
    from makermark.foundation.params import read_params
    from makermark.tracing.build import build_tracer
    from makermark.tracing.bundle import write_bundle, write_unavailable
    from makermark.tracing.enrolment_evaluation import evaluate_enrolment
    from makermark.tracing.evaluation import (
        evaluate_bonafide,
        evaluate_comparison,
        evaluate_tracer,
        reliability_curves,
        system_trials,
    )
    from makermark.tracing.plots import plot_reliability, plot_tippett

    p = read_params(params)
    try:
        build = build_tracer(p, read_manifest(manifest), embeddings, model, bonafide_folder=bonafide)
    except CalibrationError as error:  # the other metrics of the experiment remain valid
        log.warning("no tracer: %s", error)
        write_unavailable(folder, str(error))
        write_json(metrics, {"reason": str(error)})
        with atomic_folder(plots):
            pass  # an empty folder
        return
    tracer, test = build.tracer, build.test
    bootstrap = {"bootstrap_samples": p.trace.bootstrap_samples, "seed": p.trace.seed}
    results = {
        "model_sha256": tracer.model_sha256,
        "thresholds_from": tracer.calibration.thresholds_from,
        "test": evaluate_tracer(tracer, test, **bootstrap),
        "bonafide": evaluate_bonafide(tracer, build.bonafide_test),
        "compare": evaluate_comparison(tracer, test, **bootstrap),
        "enrolment": evaluate_enrolment(
            tracer, test, clips=p.trace.enrol_clips, draws=p.trace.enrol_draws, **bootstrap
        ),
    }
    with atomic_folder(plots) as draft:
        plot_tippett(
            draft / "tippett.png",
            *system_trials(tracer, test),
            title="Likelihood ratios on test, whole utterances",
        )
        plot_reliability(
            draft / "reliability.png",
            reliability_curves(tracer, test, **bootstrap),
            title="Top posterior of test clips, and how often it is right, by clip length",
        )
    write_bundle(folder, dataclasses.replace(build.bundle, test_metrics=results["test"]))
    write_json(metrics, results)
    with tracking.open_model_run(tracer.model_sha256, start=Path.cwd()) as run:
        run.log_artifact(folder, "checkpoint/tracer")
        run.log_artifact(plots, "plots/trace")
        run.log_artifact(metrics, "metrics")


if __name__ == "__main__":
    entrypoint.run_stage(main)

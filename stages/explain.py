"""Explain test clips: which bands and times support each system, and the effect of deleting them."""

from __future__ import annotations

from pathlib import Path

from makermark.foundation import entrypoint


def main(
    manifest: Path, models: Path, metrics: Path, plots: Path, params: Path = Path("params.yaml")
) -> None:
    """Write METRICS, and plots into PLOTS, for the tracer in MODELS; add them to the model's run."""
    from makermark.examination.attribution import explanation_study as study
    from makermark.foundation import tracking
    from makermark.foundation.files import write_json
    from makermark.foundation.manifest import read_manifest
    from makermark.foundation.params import read_params
    from makermark.tracing.tracer import Tracer

    p = read_params(params)
    tracer = Tracer.load(models, device=p.embed.device)
    explanation = study.explain_test(
        tracer,
        read_manifest(manifest),
        clips_per_system=p.explain.clips_per_system,
        longest_seconds=p.explain.longest_seconds,
        draws=p.explain.draws,
        seed=p.explain.seed,
    )
    systems, bands = study.mean_system_profiles(explanation.systems, explanation.band_profiles)
    study.plot_band_profiles(
        plots / "bands.png",
        systems,
        bands,
        study.mean_by_system(explanation.systems, study.support_outside_telephone_band(explanation)),
        bands_hz=explanation.bands_hz,
        title="Bands that support each system",
    )
    study.write_band_profiles(plots / "bands.csv", systems, bands, explanation.bands_hz)
    study.plot_time_profiles(
        plots / "time.png",
        *study.mean_system_profiles(explanation.systems, explanation.time_profiles),
        study.mean_by_system(explanation.systems, study.support_at_ends(explanation)),
        title="Times that support each system",
    )
    study.plot_deletion(
        plots / "deletion.png",
        study.deletion_curves(explanation),
        title="Fall of the cosine: highest attributions deleted, and controls",
    )
    results = study.explanation_metrics(
        explanation, bootstrap_samples=p.explain.bootstrap_samples, seed=p.explain.seed
    )
    write_json(metrics, results)
    with tracking.open_model_run(tracer.model_sha256, start=Path.cwd()) as run:
        run.log_artifact(plots, "plots/explain")
        run.log_artifact(metrics, "metrics")


if __name__ == "__main__":
    entrypoint.run_stage(main)

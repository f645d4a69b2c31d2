"""Explain clips of test: which bands and moments speak for each system, and whether deleting them matters."""

from __future__ import annotations

from pathlib import Path

from makermark import door


def main(
    manifest: Path, models: Path, metrics: Path, plots: Path, params: Path = Path("params.yaml")
) -> None:
    """Write METRICS and pictures into PLOTS for the tracer in MODELS; add them to the model's run."""
    from makermark import tracking
    from makermark.corpora.rows import read_manifest
    from makermark.files import write_json
    from makermark.params import read_params
    from makermark.reporting.attribution import (
        plot_band_profiles,
        plot_deletion,
        plot_time_profiles,
        write_band_profiles,
    )
    from makermark.tracing.explained import curves_of, explain_test, figures_of, of_systems
    from makermark.tracing.tracer import Tracer

    p = read_params(params)
    tracer = Tracer.load(models, device=p.embed.device)
    explained = explain_test(
        tracer,
        read_manifest(manifest),
        clips_per_system=p.explain.clips_per_system,
        longest_seconds=p.explain.longest_seconds,
        draws=p.explain.draws,
        seed=p.explain.seed,
    )
    systems, bands = of_systems(explained, explained.bands)
    plot_band_profiles(
        plots / "bands.png", systems, bands, bands_hz=explained.bands_hz, title="What speaks for each system"
    )
    write_band_profiles(plots / "bands.csv", systems, bands, explained.bands_hz)
    plot_time_profiles(
        plots / "time.png", *of_systems(explained, explained.times), title="When it speaks for each system"
    )
    plot_deletion(
        plots / "deletion.png", curves_of(explained), title="With the highlighted part deleted, and others"
    )
    told = figures_of(explained, bootstrap_samples=p.explain.bootstrap_samples, seed=p.explain.seed)
    write_json(metrics, told)
    with tracking.open_model_run(tracer.model_sha256, start=Path.cwd()) as run:
        run.metrics({f"explain.{name}": value for name, value in tracking.numbers(told).items()})
        run.artefact(plots, "plots/explain")
        run.artefact(metrics, "metrics")


if __name__ == "__main__":
    door.run(main)

"""Judge the tracer on a part of test that went through codecs, noise, rooms and the like."""

from pathlib import Path

from makermark import door


def main(
    manifest: Path,
    embeddings: Path,
    models: Path,
    metrics: Path,
    plots: Path,
    params: Path = Path("params.yaml"),
) -> None:
    """Write METRICS, and a table and a picture into PLOTS, from the model and the tracer in MODELS; add them to the
    model's run."""
    from makermark import tracking
    from makermark.degrading.conditions import CONDITIONS, check_conditions
    from makermark.files import replacing, write_json
    from makermark.params import read_params

    p = read_params(params)
    check_conditions(p.robustness.conditions)
    from makermark.checkpoint import load_checkpoint
    from makermark.corpora.rows import read_manifest
    from makermark.reporting.robustness import plot_robustness, robustness_markdown
    from makermark.robustness import measure_robustness
    from makermark.tracing import Tracer
    from makermark.tracing.gallery import refuse_other_model
    from makermark.tracing.hearing import Hearing
    from makermark.vectors import read_embeddings

    tracer = Tracer.load(models, device=p.embed.device)
    found = read_embeddings(embeddings)
    refuse_other_model(found.metadata["model_sha256"], tracer.model_sha256, what=str(embeddings))
    told = measure_robustness(
        tracer,
        Hearing(load_checkpoint(models / "best"), device=p.embed.device),
        found,
        read_manifest(manifest),
        conditions=p.robustness.conditions,
        utterances_per_system=p.robustness.utterances_per_system,
        gallery_utterances=p.robustness.gallery_utterances,
        bootstrap_samples=p.robustness.bootstrap_samples,
        seed=p.robustness.seed,
        workers=p.robustness.workers,
    )
    write_json(metrics, told)
    meanings = {name: condition.what for name, condition in CONDITIONS.items()}
    with replacing(plots / "robustness.md") as draft:
        draft.write_text(robustness_markdown(told, meanings), encoding="utf-8")
    plot_robustness(plots / "robustness.png", told, title=f"Test under other circumstances ({p.experiment})")
    with tracking.open_model_run(tracer.model_sha256, start=Path.cwd()) as run:
        run.metrics({f"robustness.{name}": value for name, value in tracking.numbers(told).items()})
        run.artefact(plots, "plots/robustness")
        run.artefact(metrics, "metrics")


if __name__ == "__main__":
    door.run(main)

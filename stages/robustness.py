"""Evaluate the tracer on a part of test after codecs, noise, rooms and other conditions."""

from pathlib import Path

from makermark.foundation import entrypoint


def main(
    manifest: Path,
    embeddings: Path,
    models: Path,
    metrics: Path,
    plots: Path,
    params: Path = Path("params.yaml"),
) -> None:
    """Write METRICS, and a table and a plot into PLOTS, for the model and the tracer in MODELS; add them to the
    model's run."""
    from makermark.features.augmentation.conditions import CONDITIONS, check_conditions
    from makermark.foundation import tracking
    from makermark.foundation.files import atomic_write, write_json
    from makermark.foundation.params import read_params

    p = read_params(params)
    check_conditions(p.robustness.conditions)
    from makermark.foundation.embeddings import read_embeddings
    from makermark.foundation.manifest import read_manifest
    from makermark.tracing import Tracer
    from makermark.tracing.gallery import check_same_model
    from makermark.tracing.plots import plot_robustness, robustness_csv, robustness_markdown
    from makermark.tracing.robustness import evaluate_robustness

    tracer = Tracer.load(models, device=p.embed.device)
    test_embeddings = read_embeddings(embeddings)
    check_same_model(test_embeddings.metadata["model_sha256"], tracer.model_sha256, what=str(embeddings))
    results = evaluate_robustness(
        tracer,
        test_embeddings,
        read_manifest(manifest),
        **p.robustness.model_dump(exclude={"stage"}),
    )
    write_json(metrics, results)
    descriptions = {name: condition.description for name, condition in CONDITIONS.items()}
    with atomic_write(plots / "robustness.md") as draft:
        draft.write_text(robustness_markdown(results, descriptions), encoding="utf-8")
    with atomic_write(plots / "robustness.csv") as draft:
        draft.write_text(robustness_csv(results, descriptions), encoding="utf-8")
    plot_robustness(plots / "robustness.png", results, title=f"Fall from clean speech, test ({p.experiment})")
    with tracking.open_model_run(tracer.model_sha256, start=Path.cwd()) as run:
        run.log_artifact(plots, "plots/robustness")
        run.log_artifact(metrics, "metrics")


if __name__ == "__main__":
    entrypoint.run_stage(main)

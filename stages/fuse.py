"""Fuse the models that fuse.systems names, and score them and their fusion."""

from pathlib import Path

from makermark.foundation import entrypoint

NOTE = (
    "The weights were learned on dev, so that its figures for `score_fusion` and `both` are optimistic. A projection "
    "was fitted on train. Nothing was learned on test."
)


def main(embeddings: Path, metrics: Path, table: Path, params: Path = Path("params.yaml")) -> None:
    """Write METRICS, and a Markdown TABLE with a plot beside it; EMBEDDINGS are those of the name `this`."""
    from makermark.experiments.fusion import fuse, gather
    from makermark.foundation.files import atomic_write, write_json
    from makermark.foundation.params import read_params
    from makermark.foundation.tracking.provenance import find_main_repository
    from makermark.reporting.grid import GridResult, grid_markdown, plot_grid
    from makermark.scoring.evaluation import evaluate_embeddings

    p = read_params(params)
    if not p.fuse.systems:
        write_json(metrics, {"systems": [], "weights": {}, "results": {}})
        with atomic_write(table) as draft:
            draft.write_text("No fusion: fuse.systems in params.yaml is empty.\n", encoding="utf-8")
        table.with_suffix(".png").unlink(missing_ok=True)
        return
    fusion = fuse(
        gather(p.fuse.systems, workspace=embeddings, folder=find_main_repository(Path.cwd())),
        projection=p.fuse.projection,
        dim=p.fuse.dim,
        max_utterances=p.fuse.max_utterances,
        seed=p.fuse.seed,
    )
    results = {
        name: evaluate_embeddings(
            embeddings_of_model,
            bootstrap_samples=p.score.bootstrap_samples,
            seed=p.score.seed,
            p_target=p.score.p_target,
        ).metrics
        for name, embeddings_of_model in {**fusion.parts, **fusion.fused}.items()
    }
    rows = [GridResult(name, scores, None) for name, scores in results.items()]
    plot_grid(table.with_suffix(".png"), rows)
    with atomic_write(table) as draft:
        draft.write_text(f"{grid_markdown(rows)}\n{NOTE}\n", encoding="utf-8")
    write_json(metrics, {"systems": list(fusion.parts), "weights": fusion.weights, "results": results})


if __name__ == "__main__":
    entrypoint.run_stage(main)

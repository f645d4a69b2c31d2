"""Fuse the systems that fuse.systems names, and score the parts beside the whole."""

from pathlib import Path

from makermark import door

LEARNED = (
    "Weights were learned on dev: its figures flatter `score_fusion` and `both`. A projection was fitted on train. "
    "Nothing was learned on test."
)


def main(embeddings: Path, metrics: Path, table: Path, params: Path = Path("params.yaml")) -> None:
    """Write METRICS, and a Markdown TABLE with a picture beside it; EMBEDDINGS are those called `this`."""
    from makermark.files import replacing, write_json
    from makermark.fusing import fuse, gather
    from makermark.judging import judge
    from makermark.params import read_params
    from makermark.reporting.grid import Result, grid_markdown, plot_grid
    from makermark.tracking.repository import main_repository

    p = read_params(params)
    if not p.fuse.systems:
        write_json(metrics, {"systems": [], "weights": {}, "results": {}})
        with replacing(table) as draft:
            draft.write_text("Nothing is fused: fuse.systems in params.yaml names none.\n", encoding="utf-8")
        table.with_suffix(".png").unlink(missing_ok=True)
        return
    fusion = fuse(
        gather(p.fuse.systems, workspace=embeddings, folder=main_repository(Path.cwd())),
        projection=p.fuse.projection,
        dim=p.fuse.dim,
        max_utterances=p.fuse.max_utterances,
        seed=p.fuse.seed,
    )
    results = {
        name: judge(
            found,
            bootstrap_samples=p.score.bootstrap_samples,
            seed=p.score.seed,
            p_target=p.score.p_target,
        ).figures
        for name, found in {**fusion.parts, **fusion.fused}.items()
    }
    rows = [Result(name, figures, None) for name, figures in results.items()]
    plot_grid(table.with_suffix(".png"), rows)
    with replacing(table) as draft:
        draft.write_text(f"{grid_markdown(rows)}\n{LEARNED}\n", encoding="utf-8")
    write_json(metrics, {"systems": list(fusion.parts), "weights": fusion.weights, "results": results})


if __name__ == "__main__":
    door.run(main)

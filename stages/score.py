"""Score the embeddings of the model and of the baselines: all pairs of dev and of test."""

from pathlib import Path

from makermark.foundation import entrypoint


def main(embeddings: Path, metrics: Path, plots: Path, params: Path = Path("params.yaml")) -> None:
    """Write METRICS, and plots into PLOTS, from all Arrow files in EMBEDDINGS; add them to the model's run."""
    from makermark.foundation import tracking
    from makermark.foundation.embeddings import read_embeddings
    from makermark.foundation.files import write_json
    from makermark.foundation.params import read_params
    from makermark.reporting.score_plots import MODEL, plot_detector_rocs, plot_pair_scores
    from makermark.scoring.evaluation import EVALUATION_SPLITS, evaluate_embeddings

    p = read_params(params).score
    baselines = sorted(file.stem for file in embeddings.glob("*.arrow") if file.stem != MODEL)
    results = {
        name: evaluate_embeddings(
            read_embeddings(embeddings / f"{name}.arrow"),
            bootstrap_samples=p.bootstrap_samples,
            seed=p.seed,
            p_target=p.p_target,
        )
        for name in (MODEL, *baselines)
    }
    plot_pair_scores(plots, results)
    for split in EVALUATION_SPLITS:
        plot_detector_rocs(plots, results[MODEL], split)
    score = results[MODEL].metrics | {"baselines": {name: results[name].metrics for name in baselines}}
    write_json(metrics, score)
    digest = read_embeddings(embeddings / f"{MODEL}.arrow").metadata["model_sha256"]
    with tracking.open_model_run(digest, start=Path.cwd()) as run:
        run.log_artifact(plots, "plots/score")
        run.log_artifact(metrics, "metrics")
        run.log_artifact(params)


if __name__ == "__main__":
    entrypoint.run_stage(main)

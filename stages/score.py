"""Score the embeddings: every pair of dev and of test, the model beside its baselines."""

from pathlib import Path

from makermark import door


def main(embeddings: Path, metrics: Path, plots: Path, params: Path = Path("params.yaml")) -> None:
    """Write METRICS and pictures into PLOTS, from all Arrow files in EMBEDDINGS (model.arrow and baselines); add
    them to the model's run."""
    from makermark import tracking
    from makermark.files import write_json
    from makermark.judging import SPLITS, judge
    from makermark.params import read_params
    from makermark.reporting import draw_detectors, draw_pairs
    from makermark.reporting.scores import MODEL
    from makermark.vectors import read_embeddings

    p = read_params(params).score
    baselines = sorted(file.stem for file in embeddings.glob("*.arrow") if file.stem != MODEL)
    judged = {
        name: judge(
            read_embeddings(embeddings / f"{name}.arrow"),
            bootstrap_samples=p.bootstrap_samples,
            seed=p.seed,
            p_target=p.p_target,
        )
        for name in (MODEL, *baselines)
    }
    draw_pairs(plots, judged)
    for split in SPLITS:
        draw_detectors(plots, judged[MODEL], split)
    told = judged[MODEL].figures | {"baselines": {name: judged[name].figures for name in baselines}}
    write_json(metrics, told)
    digest = read_embeddings(embeddings / f"{MODEL}.arrow").metadata["model_sha256"]
    with tracking.open_model_run(digest, start=Path.cwd()) as run:
        run.metrics(tracking.numbers(told))
        run.artefact(plots, "plots/score")
        run.artefact(metrics, "metrics")
        run.artefact(params)


if __name__ == "__main__":
    door.run(main)

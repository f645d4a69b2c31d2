"""Score the embeddings: every pair of dev and of test, the model beside its baselines."""

from collections.abc import Mapping
from pathlib import Path

from makermark import door, tracking
from makermark.files import write_json
from makermark.judging import SPLITS, Judged, judge
from makermark.params import read_params
from makermark.reporting import plot_det, plot_detectors, plot_histograms, write_det
from makermark.vectors import read_embeddings

MODEL = "model"


def main(embeddings: Path, metrics: Path, plots: Path, params: Path = Path("params.yaml")) -> None:
    """Write METRICS and pictures into PLOTS, from all Arrow files in EMBEDDINGS (model.arrow and baselines); add
    them to the model's run."""
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
    draw(plots, judged)
    told = judged[MODEL].figures | {"baselines": {name: judged[name].figures for name in baselines}}
    write_json(metrics, told)
    digest = read_embeddings(embeddings / f"{MODEL}.arrow").metadata["model_sha256"]
    with tracking.open_model_run(digest, start=Path.cwd()) as run:
        run.metrics(tracking.numbers(told))
        run.artefact(plots, "plots/score")
        run.artefact(metrics, "metrics")
        run.artefact(params)


def draw(plots: Path, judged: Mapping[str, Judged]) -> None:
    """DET curves and score histograms of dev and test as pictures, the DET points as a table too."""
    curves = {
        (split, name): (det.false_accept_rate, det.miss_rate)
        for name, each in judged.items()
        for split, pairs in each.pairs.items()
        if (det := pairs.det)
    }
    write_det(plots / "det.csv", curves)
    for split in SPLITS:
        of_split = {name: points for (of, name), points in curves.items() if of == split}
        plot_det(plots / f"det_{split}.png", of_split, title=f"Detection error trade-off, {split}, all pairs")
        model, told = judged[MODEL].pairs[split], judged[MODEL].figures[split]["out_of_domain"]
        plot_detectors(
            plots / f"detectors_{split}.png",
            {name: (r.unknown, r.known) for name, r in judged[MODEL].rates[split].items()},
            chosen=told["chosen_on_dev"],
            title=f"Unseen against seen systems, {split}",
        )
        if model.histogram:
            plot_histograms(
                plots / f"scores_{split}.png",
                edges=model.histogram.edges,
                targets=model.histogram.targets,
                nontargets=model.histogram.nontargets,
                threshold=model.eer_threshold,
                title=f"Cosine of every pair, {split}",
            )


if __name__ == "__main__":
    door.run(main)

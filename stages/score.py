"""Score the embeddings: every pair of dev and of test, the model beside its baselines."""

from collections.abc import Mapping
from pathlib import Path

from makermark import door, tracking
from makermark.files import write_json
from makermark.params import read_params
from makermark.reporting import plot_det, plot_histograms, write_det
from makermark.scoring import SetScores, as_metrics, score_set
from makermark.vectors import read_embeddings

BASELINES = ("logmel_stats", "untrained")


def main(embeddings: Path, metrics: Path, plots: Path, params: Path = Path("params.yaml")) -> None:
    """Write METRICS and pictures into PLOTS, from the Arrow files in EMBEDDINGS; add them to the model's run."""
    p = read_params(params)
    scores = {}
    for name in ("model", *BASELINES):
        vectors = read_embeddings(embeddings / f"{name}.arrow")
        for split in ("dev", "test"):
            part = vectors.of_split(split)
            scores[name, split] = score_set(
                part.vectors,
                part.labels["system"].to_numpy(dtype=str),
                part.labels["stratum"].to_numpy(dtype=str),
                bootstrap_samples=p.score.bootstrap_samples,
                seed=p.score.seed,
                p_target=p.score.p_target,
            )
    told = {split: as_metrics(scores["model", split]) for split in ("dev", "test")}
    told["baselines"] = {
        name: {split: as_metrics(scores[name, split]) for split in ("dev", "test")} for name in BASELINES
    }
    draw(plots, scores)
    write_json(metrics, told)
    digest = read_embeddings(embeddings / "model.arrow").metadata["model_sha256"]
    with tracking.open_model_run(digest, start=Path.cwd()) as run:
        run.metrics(tracking.numbers(told))
        run.artefact(plots, "plots/score")
        run.artefact(metrics, "metrics")
        run.artefact(params)


def draw(plots: Path, scores: Mapping[tuple[str, str], SetScores]) -> None:
    """DET curves and score histograms of dev and test as pictures, the DET points as a table too."""
    curves = {
        (split, name): (s.det.false_accept_rate, s.det.miss_rate)
        for (name, split), s in scores.items()
        if s.det
    }
    write_det(plots / "det.csv", curves)
    for split in ("dev", "test"):
        of_split = {name: points for (of, name), points in curves.items() if of == split}
        plot_det(plots / f"det_{split}.png", of_split, title=f"Detection error trade-off, {split}, all pairs")
        model = scores["model", split]
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

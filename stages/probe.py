"""Probe the embeddings: what one linear layer reads from them, and a map of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from makermark import door

if TYPE_CHECKING:
    from makermark.vectors import Embeddings


def main(
    embeddings: Path, history: Path, metrics: Path, plots: Path, params: Path = Path("params.yaml")
) -> None:
    """Write METRICS and pictures into PLOTS, from EMBEDDINGS/model.arrow; add them to the model's run."""
    from makermark import tracking
    from makermark.confounds import language_held, readable
    from makermark.distances import as_json, distances_between
    from makermark.files import read_json, write_json
    from makermark.params import read_params
    from makermark.probing import linear_probe
    from makermark.reporting import plot_confusion, plot_distances, plot_training, write_confusion
    from makermark.vectors import read_embeddings

    p = read_params(params).probe
    model = read_embeddings(embeddings / "model.arrow")
    part = model.of_split(p.split)
    settings = {
        "epochs": p.epochs,
        "learning_rate": p.learning_rate,
        "batch_utterances": p.batch_utterances,
        "test_fraction": p.test_fraction,
        "max_per_class": p.max_per_class,
        "min_per_class": p.min_per_class,
        "seed": p.seed,
    }
    result = linear_probe(part.vectors, part.systems, **settings)
    title = (
        f"Linear probe on {p.split}: {result.accuracy_percent:.1f} % (chance {result.chance_percent:.1f} %)"
    )
    plot_confusion(plots / "confusion.png", result.confusion, result.classes, title=title)
    write_confusion(plots / "confusion.csv", result.confusion, result.classes)
    draw_maps(plots, part, neighbours=p.umap_neighbours, min_dist=p.umap_min_dist, seed=p.seed)
    plot_training(plots / "training.png", read_json(history), title="Training")
    distances = distances_between(model, split=p.split, halvings=p.frechet_halvings, seed=p.seed)
    plot_distances(
        plots / "frechet.png", distances.systems, title=f"Frechet distance between systems, {p.split}"
    )
    write_json(
        metrics,
        {
            "split": p.split,
            "accuracy_percent": result.accuracy_percent,
            "balanced_accuracy_percent": result.balanced_accuracy_percent,
            "chance_percent": result.chance_percent,
            "systems": len(result.classes),
            "utterances_per_system": result.per_class,
            "train_utterances": result.train_utterances,
            "test_utterances": result.test_utterances,
            "left_out": result.left_out,
            "readable": readable(part, **settings),
            "same_language": language_held(part, seed=p.seed),
            "frechet": as_json(distances.sets),
        },
    )
    with tracking.open_model_run(model.metadata["model_sha256"], start=Path.cwd()) as run:
        run.metrics({f"probe.{name}": value for name, value in tracking.numbers(read_json(metrics)).items()})
        run.artefact(plots, "plots/probe")
        run.artefact(metrics, "metrics")


def draw_maps(plots: Path, part: Embeddings, *, neighbours: int, min_dist: float, seed: int) -> None:
    """The map of a split's embeddings, coloured by system and by language."""
    from makermark.probing import umap_map
    from makermark.reporting import plot_map

    places = umap_map(part.vectors, seed=seed, neighbours=neighbours, min_dist=min_dist)
    for what in ("system", "language"):
        unseen = part.labels.loc[~part.labels[f"{what}_seen"], what].unique()
        plot_map(
            plots / f"umap_{what}.png",
            places,
            part.labels[what].to_numpy(dtype=str),
            unseen=set(unseen),
            what=what,
            title=f"Embeddings by {what} (UMAP)",
        )


if __name__ == "__main__":
    door.run(main)

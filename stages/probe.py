"""Probe the embeddings with linear classifiers, and project them with UMAP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from makermark.foundation import entrypoint

if TYPE_CHECKING:
    from makermark.foundation.embeddings import EmbeddingTable


def main(
    embeddings: Path, history: Path, metrics: Path, plots: Path, params: Path = Path("params.yaml")
) -> None:
    """Write METRICS, and plots into PLOTS, from EMBEDDINGS/model.arrow; add them to the model's run."""
    from makermark.foundation import tracking
    from makermark.foundation.embeddings import read_embeddings
    from makermark.foundation.files import read_json, write_json
    from makermark.foundation.params import read_params
    from makermark.reporting.probe_plots import (
        plot_confusion,
        plot_frechet,
        plot_training,
        write_confusion_csv,
    )
    from makermark.scoring.frechet import corpus_frechet_distances, frechet_table_to_json
    from makermark.scoring.probes.attribute_probes import probe_attributes, same_language_eer
    from makermark.scoring.probes.linear import linear_probe

    p = read_params(params).probe
    model = read_embeddings(embeddings / "model.arrow")
    part = model.select_split(p.split)
    settings = p.model_dump(exclude={"split", "umap_neighbours", "umap_min_dist", "frechet_halvings"})
    result = linear_probe(part.embeddings, part.systems, **settings)
    title = (
        f"Linear probe on {p.split}: {result.accuracy_percent:.1f} % (chance {result.chance_percent:.1f} %)"
    )
    plot_confusion(plots / "confusion.png", result.confusion, result.classes, title=title)
    write_confusion_csv(plots / "confusion.csv", result.confusion, result.classes)
    plot_maps(plots, part, split=p.split, neighbours=p.umap_neighbours, min_dist=p.umap_min_dist, seed=p.seed)
    plot_training(plots / "training.png", read_json(history), title="Training")
    distances = corpus_frechet_distances(model, split=p.split, halvings=p.frechet_halvings, seed=p.seed)
    plot_frechet(
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
            "readable": probe_attributes(part, **settings),
            "same_language": same_language_eer(part, seed=p.seed),
            "frechet": frechet_table_to_json(distances.sets),
        },
    )
    with tracking.open_model_run(model.metadata["model_sha256"], start=Path.cwd()) as run:
        run.log_artifact(plots, "plots/probe")
        run.log_artifact(metrics, "metrics")


def plot_maps(
    plots: Path, part: EmbeddingTable, *, split: str, neighbours: int, min_dist: float, seed: int
) -> None:
    """Plot the UMAP projection of the embeddings of a split, by system and by language."""
    from makermark.reporting.probe_plots import plot_label_panels, plot_system_map, project_umap

    positions = project_umap(part.embeddings, seed=seed, neighbours=neighbours, min_dist=min_dist)
    labels = part.labels
    families = labels["family"].where(labels["family"].fillna("") != "", labels["system"])
    plot_system_map(
        plots / "umap_system.png",
        positions,
        part.systems,
        families.to_numpy(dtype=str),
        unseen=set(labels.loc[~labels["system_seen"], "system"]),
        title=f"Embeddings of {split}: each system, coloured by its family",
    )
    plot_label_panels(
        plots / "umap_language.png",
        positions,
        labels["language"].to_numpy(dtype=str),
        unseen=set(labels.loc[~labels["language_seen"], "language"]),
        title=f"Embeddings of {split}: one language in each panel, the others in grey",
    )


if __name__ == "__main__":
    entrypoint.run_stage(main)

"""The pictures of scored embeddings: errors and scores of all pairs, and detectors of unknown systems."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from makermark.reporting.curves import plot_det, plot_histograms
from makermark.reporting.detectors import plot_detectors
from makermark.reporting.dvc_plots import write_det

if TYPE_CHECKING:
    from makermark.judging import Judged

MODEL = "model"


def draw_pairs(plots: Path, judged: Mapping[str, Judged]) -> None:
    """DET curves of every split by all of `judged`, as pictures and as det.csv; score histograms of the model."""
    curves = {
        (split, name): (det.false_accept_rate, det.miss_rate)
        for name, each in judged.items()
        for split, pairs in each.pairs.items()
        if (det := pairs.det)
    }
    write_det(plots / "det.csv", curves)
    for split, model in judged[MODEL].pairs.items():
        of_split = {name: points for (of, name), points in curves.items() if of == split}
        plot_det(plots / f"det_{split}.png", of_split, title=f"Detection error trade-off, {split}, all pairs")
        if model.histogram:
            plot_histograms(
                plots / f"scores_{split}.png",
                edges=model.histogram.edges,
                targets=model.histogram.targets,
                nontargets=model.histogram.nontargets,
                threshold=model.eer_threshold,
                title=f"Cosine of every pair, {split}",
            )


def draw_detectors(plots: Path, judged: Judged, split: str) -> None:
    """ROC of every detector on one split, the one that dev chose drawn bold."""
    plot_detectors(
        plots / f"detectors_{split}.png",
        {name: (rates.unknown, rates.known) for name, rates in judged.rates[split].items()},
        chosen=judged.figures[split]["out_of_domain"]["chosen_on_dev"],
        title=f"Unseen against seen systems, {split}",
    )

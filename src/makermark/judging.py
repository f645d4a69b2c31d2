"""What one set of embeddings is worth, on dev and on test: every figure that metrics/score.json holds of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from makermark.scoring import Evidence, Rates, SetScores, as_metrics, choose_on_dev, open_set, score_set
from makermark.vectors import Embeddings

SPLITS = ("dev", "test")


@dataclass(frozen=True)
class Judged:
    """By split: the figures as JSON values, the scores of all pairs with their curves, and the detectors' rates."""

    figures: dict[str, dict[str, Any]]
    pairs: dict[str, SetScores]
    rates: dict[str, dict[str, Rates]]  # by detector


def judge(embeddings: Embeddings, *, bootstrap_samples: int, seed: int, p_target: float) -> Judged:
    """Score every pair of dev and of test; identify their known systems and detect the unknown, from train."""
    train = evidence(embeddings.of_split("train"))
    pairs, figures, rates = {}, {}, {}
    for split in SPLITS:
        part = embeddings.of_split(split)
        strata = part.labels["stratum"].to_numpy(dtype=str)
        pairs[split] = score_set(
            part.vectors,
            part.systems,
            strata,
            bootstrap_samples=bootstrap_samples,
            seed=seed,
            p_target=p_target,
        )
        known, rates[split] = open_set(train, evidence(part), bootstrap_samples=bootstrap_samples, seed=seed)
        figures[split] = as_metrics(pairs[split]) | known
    choose_on_dev(figures["dev"], figures["test"])
    return Judged(figures, pairs, rates)


def evidence(embeddings: Embeddings) -> Evidence:
    """The embeddings as scoring takes them."""
    return Evidence(embeddings.vectors, embeddings.systems, embeddings.logits)

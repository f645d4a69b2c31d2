"""What one set of embeddings is worth: every figure that metrics/score.json holds of it, split by split.

Where systems are aliases of one another, the block `families` of a split holds the figures of all pairs once more, with
the family as the maker: a target trial is two utterances of one family, and its strata go by whether any system of the
family was seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from makermark.corpora.rows import strata
from makermark.errors import ScoringError
from makermark.scoring import (
    Evidence,
    Rates,
    SetScores,
    as_metrics,
    choose_on_dev,
    open_set,
    open_set_by_head,
    score_set,
)
from makermark.vectors import Embeddings

SPLITS = ("dev", "test")
WITHOUT_ALIASES = ("local",)


@dataclass(frozen=True)
class Judged:
    """By split: the figures as JSON values, the scores of all pairs with their curves, and the detectors' rates."""

    figures: dict[str, dict[str, Any]]
    pairs: dict[str, SetScores]
    rates: dict[str, dict[str, Rates]]  # by detector


def judge(embeddings: Embeddings, *, bootstrap_samples: int, seed: int, p_target: float) -> Judged:
    """Score every pair of dev and of test; identify their known systems and detect the unknown, from train."""
    train = evidence(embeddings.of_split("train"))
    merged = by_family(embeddings)
    pairs, figures, rates = {}, {}, {}
    for split in SPLITS:
        part = embeddings.of_split(split)
        pairs[split] = score_pairs(part, bootstrap_samples=bootstrap_samples, seed=seed, p_target=p_target)
        known, rates[split] = open_set(train, evidence(part), bootstrap_samples=bootstrap_samples, seed=seed)
        families = family_figures(
            merged, split, bootstrap_samples=bootstrap_samples, seed=seed, p_target=p_target
        )
        figures[split] = as_metrics(pairs[split]) | families | known
    choose_on_dev(figures["dev"], figures["test"])
    return Judged(figures, pairs, rates)


def judge_elsewhere(
    embeddings: Embeddings,
    *,
    systems: Sequence[str],
    splits: Sequence[str],
    bootstrap_samples: int,
    seed: int,
    p_target: float,
) -> Judged:
    """Score every pair of each split of a corpus that the model was not trained on.

    Its training set is not at hand, so that known systems are identified and unknown ones detected by the model's
    classifier alone, over the `systems` (C,) it was trained on. Raises ScoringError, naming the split, for one that
    cannot be scored.
    """
    merged = by_family(embeddings)
    pairs, figures, rates = {}, {}, {}
    for split in splits:
        part = embeddings.of_split(split)
        try:
            pairs[split] = score_pairs(
                part, bootstrap_samples=bootstrap_samples, seed=seed, p_target=p_target
            )
        except ScoringError as error:
            raise ScoringError(f"split {split}: {error}") from error
        told, rates[split] = open_set_by_head(
            evidence(part), systems, bootstrap_samples=bootstrap_samples, seed=seed
        )
        families = family_figures(
            merged, split, bootstrap_samples=bootstrap_samples, seed=seed, p_target=p_target
        )
        figures[split] = as_metrics(pairs[split]) | families | told
    return Judged(figures, pairs, rates)


def score_pairs(part: Embeddings, *, bootstrap_samples: int, seed: int, p_target: float) -> SetScores:
    """Every pair of the utterances, and every pair inside each of their strata."""
    return score_set(
        part.vectors,
        part.systems,
        part.labels["stratum"].to_numpy(dtype=str),
        bootstrap_samples=bootstrap_samples,
        seed=seed,
        p_target=p_target,
    )


def by_family(embeddings: Embeddings) -> Embeddings | None:
    """The embeddings with the family as the system, and strata that go by it; None where each family is one system.

    A system without a family is its own. A family is seen where any of its systems is. None as well for a corpus whose
    families are kinds of synthesis, not aliases of one system.
    """
    if embeddings.metadata.get("corpus") in WITHOUT_ALIASES:
        return None
    labels = embeddings.labels
    family = labels["family"].fillna("")
    family = family.where(family != "", labels["system"])
    if labels["system"].groupby(family.to_numpy()).nunique().max() < 2:
        return None
    seen = family.isin(family[labels["system_seen"].astype(bool)].unique())
    labels = labels.assign(system=family, system_seen=seen)
    return replace(embeddings, labels=labels.assign(stratum=strata(labels)))


def family_figures(
    merged: Embeddings | None, split: str, *, bootstrap_samples: int, seed: int, p_target: float
) -> dict[str, Any]:
    """The block `families` of a split, from what `by_family` gave; empty where it has fewer than two families."""
    if merged is None or len(set((part := merged.of_split(split)).systems)) < 2:
        return {}
    scores = score_pairs(part, bootstrap_samples=bootstrap_samples, seed=seed, p_target=p_target)
    return {"families": as_metrics(scores)}


def evidence(embeddings: Embeddings) -> Evidence:
    """The embeddings as scoring takes them."""
    return Evidence(embeddings.vectors, embeddings.systems, embeddings.logits)

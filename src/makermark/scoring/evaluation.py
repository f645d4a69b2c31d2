"""Evaluation of one set of embeddings: all metrics of metrics/score.json, split by split.

If some systems are aliases of one another, the block `families` of a split repeats the metrics over all pairs with the
family in the role of the system. A target trial is then a pair of utterances of one family. A family is seen if any of
its systems is seen.

If some systems are in dev and test but not in train, the detector, thresholds and checkpoint chosen on dev have met
them. The block `new_in_test` of test then repeats the metrics over the pairs of utterances whose systems are in
neither.

The block `within` of a split repeats the metrics over the pairs that share their language, and over those that share
their voice (see `within`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from makermark.foundation.arrays import StrArray
from makermark.foundation.embeddings import EmbeddingTable
from makermark.foundation.errors import ScoringError
from makermark.foundation.manifest import SPLITS, compute_strata
from makermark.scoring.detectors import DETECTORS, LOGIT_DETECTORS, DetectorInput
from makermark.scoring.open_set_metrics import (
    AcceptanceRates,
    centroid_logits,
    compute_identification_metrics,
    evaluate_detectors,
    system_centroids,
)
from makermark.scoring.pairs import PairMetrics, metrics_to_json, score_all_pairs
from makermark.scoring.within import score_within, within_to_json

EVALUATION_SPLITS = tuple(split for split in SPLITS if split != "train")
CHOSEN_KEY = "chosen_on_dev"
NEW_IN_TEST_KEY = "new_in_test"
WITHIN_COLUMNS = ("language", "voice")
CORPORA_WITHOUT_ALIASES = ("local",)  # their families are kinds of synthesis, not aliases of one system


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics as JSON values, metrics over all pairs with their curves, and detector rates, by split."""

    metrics: dict[str, dict[str, Any]]
    pairs: dict[str, PairMetrics]
    rates: dict[str, dict[str, AcceptanceRates]]  # by detector


def evaluate_embeddings(
    embeddings: EmbeddingTable, *, bootstrap_samples: int, seed: int, p_target: float
) -> EvaluationResult:
    """Evaluate dev and test: all pairs, identification of known systems, and detection of unknown systems.

    Known systems are those of the split train. `test.new_in_test` exists if `select_new_in_test` selects utterances; it
    is None if they do not have both target and non-target trials.
    """
    result = _evaluate_splits(
        embeddings,
        EVALUATION_SPLITS,
        partial(score_strata, bootstrap_samples=bootstrap_samples, seed=seed, p_target=p_target),
        partial(
            evaluate_open_set,
            embeddings.select_split("train"),
            bootstrap_samples=bootstrap_samples,
            seed=seed,
        ),
        partial(evaluate_within, columns=WITHIN_COLUMNS, bootstrap_samples=bootstrap_samples, seed=seed),
    )
    choose_detector_on_dev(result.metrics["dev"], result.metrics["test"])
    new = select_new_in_test(embeddings)
    if new is not None and not has_both_trials(new.systems):
        result.metrics["test"][NEW_IN_TEST_KEY] = None
    elif new is not None:
        pairs = score_all_pairs(
            new.embeddings, new.systems, bootstrap_samples=bootstrap_samples, seed=seed, p_target=p_target
        )
        result.metrics["test"][NEW_IN_TEST_KEY] = metrics_to_json(pairs)
    return result


def select_new_in_test(embeddings: EmbeddingTable) -> EmbeddingTable | None:
    """Return the utterances of test whose systems are in neither train nor dev.

    Returns None if no system is in both dev and test but not in train: these are then all utterances of unseen systems,
    which the strata cover.
    """
    train, dev, test = (set(embeddings.select_split(split).systems) for split in ("train", "dev", "test"))
    if not (dev & test) - train:
        return None
    is_new = embeddings.labels["system"].isin(test - train - dev) & (embeddings.labels["split"] == "test")
    return embeddings.take(np.flatnonzero(is_new))


def has_both_trials(systems: StrArray) -> bool:
    """Return whether the pairs of utterances of these systems (N,) include target and non-target trials."""
    _, utterances = np.unique(systems, return_counts=True)
    return len(utterances) > 1 and bool(utterances.max() > 1)


def evaluate_external_embeddings(
    embeddings: EmbeddingTable,
    *,
    systems: Sequence[str],
    splits: Sequence[str],
    within: Sequence[str] = (),
    min_utterances: int = 1,
    bootstrap_samples: int,
    seed: int,
    p_target: float,
) -> EvaluationResult:
    """Evaluate every split of a corpus that the model was not trained on.

    The training set of the model is not available. Known systems are identified and unknown systems are detected by the
    classifier of the model alone, over the `systems` (C,) it was trained on. `within` names columns of the labels, in
    whose values pairs are scored too, without systems that have fewer than `min_utterances` in a value. The block
    `per_label` of a split has the EER of every system. Raises ScoringError, with the split, for a split that cannot be
    scored.
    """

    def score(part: EmbeddingTable) -> PairMetrics:
        try:
            return score_strata(part, bootstrap_samples=bootstrap_samples, seed=seed, p_target=p_target)
        except ScoringError as error:
            raise ScoringError(f"split {part.labels['split'].iloc[0]}: {error}") from error

    by_head = partial(
        evaluate_open_set_by_head, systems=systems, bootstrap_samples=bootstrap_samples, seed=seed
    )
    in_columns = partial(
        evaluate_within,
        columns=within,
        min_utterances=min_utterances,
        bootstrap_samples=bootstrap_samples,
        seed=seed,
    )
    result = _evaluate_splits(embeddings, splits, score, by_head, in_columns)
    for split in splits:
        result.metrics[split]["per_label"] = per_label_to_json(result.pairs[split])
    return result


def per_label_to_json(metrics: PairMetrics) -> dict[str, dict[str, Any]]:
    """Return the EER and the counts of every system, by its name."""
    return {(values := asdict(system)).pop("system"): values for system in metrics.per_system}


def evaluate_within(
    part: EmbeddingTable,
    *,
    columns: Sequence[str],
    min_utterances: int = 1,
    bootstrap_samples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Return the metrics within every one of `columns` as JSON values; a column without any value is left out."""
    values = {column: part.labels[column].fillna("").to_numpy(dtype=str) for column in columns}
    return {
        column: within_to_json(
            score_within(
                part.embeddings,
                part.systems,
                values[column],
                min_utterances=min_utterances,
                bootstrap_samples=bootstrap_samples,
                seed=seed,
            )
        )
        for column in columns
        if (values[column] != "").any()
    }


def _evaluate_splits(
    embeddings: EmbeddingTable,
    splits: Sequence[str],
    score: Callable[[EmbeddingTable], PairMetrics],
    open_set: Callable[[EmbeddingTable], tuple[dict[str, Any], dict[str, AcceptanceRates]]],
    within: Callable[[EmbeddingTable], dict[str, dict[str, Any]]],
) -> EvaluationResult:
    """Evaluate every split; the block `families` needs two families or more, `within` a column with values."""
    merged = merge_families(embeddings)
    result = EvaluationResult({}, {}, {})
    for split in splits:
        part = embeddings.select_split(split)
        result.pairs[split] = score(part)
        metrics = metrics_to_json(result.pairs[split])
        if merged is not None and len(set((families := merged.select_split(split)).systems)) > 1:
            metrics["families"] = metrics_to_json(score(families))
        if by_column := within(part):
            metrics["within"] = by_column
        open_set_metrics, result.rates[split] = open_set(part)
        result.metrics[split] = metrics | open_set_metrics
    return result


def score_strata(part: EmbeddingTable, *, bootstrap_samples: int, seed: int, p_target: float) -> PairMetrics:
    """Score all pairs of the utterances, and all pairs inside every stratum."""
    return score_all_pairs(
        part.embeddings,
        part.systems,
        part.labels["stratum"].to_numpy(dtype=str),
        bootstrap_samples=bootstrap_samples,
        seed=seed,
        p_target=p_target,
    )


def merge_families(embeddings: EmbeddingTable) -> EmbeddingTable | None:
    """Return the embeddings with the family in the role of the system, and strata that follow it.

    A system without a family is its own family. A family is seen if any of its systems is seen. Returns None if every
    family has one system, and for CORPORA_WITHOUT_ALIASES.
    """
    if embeddings.metadata.get("corpus") in CORPORA_WITHOUT_ALIASES:
        return None
    labels = embeddings.labels
    family = labels["family"].fillna("")
    family = family.where(family != "", labels["system"])
    if labels["system"].groupby(family.to_numpy()).nunique().max() < 2:
        return None
    seen = family.isin(family[labels["system_seen"].astype(bool)].unique())
    labels = labels.assign(system=family, system_seen=seen)
    return replace(embeddings, labels=labels.assign(stratum=compute_strata(labels)))


def evaluate_open_set(
    train: EmbeddingTable, evaluated: EmbeddingTable, *, bootstrap_samples: int, seed: int
) -> tuple[dict[str, Any], dict[str, AcceptanceRates]]:
    """Return `identification` and `out_of_domain` as JSON values, and the acceptance rates of every detector.

    `identification` holds `head` (for a model with a classifier) and `centroid`. Detectors that use logits take those
    of the classifier. Without a classifier they take scaled cosines to the centroids of the training systems.
    `out_of_domain.logits` states which: head or centroid.
    """
    names, centroids = system_centroids(train.embeddings, train.systems)
    logits_by_method = {
        "head": evaluated.logits,
        "centroid": centroid_logits(evaluated.embeddings, centroids),
    }
    identification = {
        method: asdict(identified)
        for method, logits in logits_by_method.items()
        if logits is not None
        and (identified := compute_identification_metrics(logits, names, evaluated.systems))
    }
    has_head = train.logits is not None and evaluated.logits is not None
    train_input, evaluated_input = (
        DetectorInput(
            part.embeddings,
            part.logits
            if has_head and part.logits is not None
            else centroid_logits(part.embeddings, centroids),
            part.systems,
        )
        for part in (train, evaluated)
    )
    metrics, rates = evaluate_detectors(
        train_input, evaluated_input, bootstrap_samples=bootstrap_samples, seed=seed
    )
    return {
        "identification": identification,
        "out_of_domain": {"logits": "head" if has_head else "centroid", **metrics},
    }, rates


def evaluate_open_set_by_head(
    evaluated: EmbeddingTable, systems: Sequence[str], *, bootstrap_samples: int, seed: int
) -> tuple[dict[str, Any], dict[str, AcceptanceRates]]:
    """Return the values of `evaluate_open_set` from the classifier over `systems` (C,) alone, without a training set.

    `systems` are sorted by name. Without a classifier (`evaluated.logits` is None), only the counts of known and
    unknown utterances are returned.
    """
    names = np.asarray(systems, dtype=str)
    if evaluated.logits is None:
        known = int(np.isin(evaluated.systems, names).sum())
        counts = {"known_utterances": known, "unknown_utterances": len(evaluated.systems) - known}
        return {"identification": {}, "out_of_domain": {"logits": None, **counts, CHOSEN_KEY: None}}, {}
    identification = compute_identification_metrics(evaluated.logits, names, evaluated.systems)
    no_train = DetectorInput(np.empty((0, evaluated.embeddings.shape[1])), np.empty((0, len(names))), names)
    metrics, rates = evaluate_detectors(
        no_train,
        DetectorInput(evaluated.embeddings, evaluated.logits, evaluated.systems),
        bootstrap_samples=bootstrap_samples,
        seed=seed,
        detectors={name: DETECTORS[name] for name in LOGIT_DETECTORS},
    )
    return {
        "identification": {"head": asdict(identification)} if identification else {},
        "out_of_domain": {"logits": "head", **metrics, CHOSEN_KEY: None},
    }, rates


def choose_detector_on_dev(dev: dict[str, Any], test: dict[str, Any]) -> None:
    """Write the detector with the best AUROC on dev into `out_of_domain` of both splits.

    The detector is chosen on dev, so that the test metrics of the chosen detector are unbiased.
    """
    aurocs = {name: dev["out_of_domain"][name]["auroc_percent"] for name in DETECTORS}
    best = max(aurocs, key=lambda name: -1.0 if aurocs[name] is None else aurocs[name])
    for part in (dev, test):
        part["out_of_domain"][CHOSEN_KEY] = None if aurocs[best] is None else best

"""Shortcuts: how well simple properties of the audio predict the system.

A decision tree predicts the system from a property alone, from each of its measurements alone, and from all properties
together. Its recall of a system is the share of the system's files that it names correctly when they are in the test
fold. The balanced accuracy, the mean recall over the systems, is compared with chance, 1 / C. A tree needs no order: a
property may separate systems by two sample rates or several levels. Eta squared, the share of the variance of a
measurement that is between systems, detects differences of means only. Axes: N files, C systems.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from makermark.audit.audio_properties import MEASUREMENTS, PROPERTIES, measure_files
from makermark.audit.recognition import exceeds_goal, find_groups, find_recognised
from makermark.corpora.splits import normalise_sentences
from makermark.foundation.arrays import FloatArray, IntArray, StrArray
from makermark.foundation.errors import CorpusError
from makermark.scoring.pairs.intervals import quantile_levels

FOLDS = 5
MIN_LEAF_FILES = 3
EXTRA_DEPTH = 3  # levels of a tree beyond those that separate the systems by halving
FOREST_TREES = 100
BOOTSTRAP_SAMPLES = 1000
MAX_NAMED_FILES = 5

Folds = Sequence[tuple[IntArray, IntArray]]  # rows of training, rows of test


def measure_shortcuts(
    rows: pd.DataFrame, root: Path, *, per_system: int, seed: int, workers: int
) -> dict[str, Any]:
    """Measure up to `per_system` random files of each system, and predict the system from the measurements.

    `rows` have path and system, and may have text. Files with the same text are in one fold. Systems with usable files
    of fewer than FOLDS texts are measured but not predicted; each file without text counts as a text. Raises
    CorpusError if no file is usable, or if fewer than two systems can be predicted.
    """
    rng = np.random.default_rng(seed)
    files = rows.drop_duplicates("path").sort_values("path", ignore_index=True)
    drawn = files.loc[rng.permutation(len(files))].groupby("system").head(per_system).sort_index()
    measured, unusable = measure_files(
        (root / path for path in drawn["path"]), total=len(drawn), workers=workers
    )
    usable = [index for index, values in enumerate(measured) if values is not None]
    if not usable:
        raise CorpusError(
            f"{root}: none of {len(drawn)} files can be used ({unusable[0]}); leave --audio out"
        )
    table = pd.DataFrame([measured[index] for index in usable], columns=list(MEASUREMENTS))
    drawn = drawn.iloc[usable].reset_index(drop=True)
    systems, (sentences, sentences_known) = drawn["system"].astype(str), number_sentences(drawn)
    predicted = systems.map(sentences.groupby(systems).nunique()) >= FOLDS
    left_out = systems[~predicted].value_counts().sort_index()
    if systems[predicted].nunique() < 2:
        raise CorpusError(
            f"{root}: fewer than two systems have {FOLDS} usable files with different texts; leave --audio out"
        )
    medians = table.groupby(systems).median()
    prediction = predict_systems(
        table[predicted], systems[predicted].to_numpy(dtype=str), sentences[predicted].to_numpy(), seed=seed
    )
    return {
        "files": len(usable),
        "unusable_files": len(unusable),
        "unusable": unusable[:MAX_NAMED_FILES],
        "left_out": {str(name): int(count) for name, count in left_out.items()},
        "folds": FOLDS,
        "sentences_apart": sentences_known,
        "seed": seed,
        **prediction,
        "medians": {str(name): medians.loc[name].to_dict() for name in medians.index},
    }


def number_sentences(rows: pd.DataFrame) -> tuple[pd.Series, bool]:
    """Return a number for the sentence of each row, and whether any row has a text.

    Each row without text has a number of its own.
    """
    texts = normalise_sentences(rows["text"]) if "text" in rows else pd.Series("", index=rows.index)
    unknown = texts == ""
    numbers = pd.Series(pd.factorize(texts)[0], index=rows.index)
    numbers[unknown] = len(rows) + np.arange(int(unknown.sum()))
    return numbers, not bool(unknown.all())


def predict_systems(
    table: pd.DataFrame, systems: StrArray, sentences: IntArray, *, seed: int
) -> dict[str, Any]:
    """Predict systems (N,) from the MEASUREMENTS in `table`, with the files of a sentence (N,) in one fold.

    - `properties`: what `summarise_recalls` returns, for each property and each of its `measurements`.
    - `together`, `forest`: the same for a tree and a random forest that have all measurements.
    - `recognised`, `groups`: which systems are recognised, and by what (`makermark.audit.recognition`).
    """
    names = np.unique(systems)
    depth = math.ceil(math.log2(len(names))) + EXTRA_DEPTH
    tree = DecisionTreeClassifier(
        criterion="entropy",  # gini would split off one of many equally frequent systems at a time
        max_depth=depth,
        min_samples_leaf=MIN_LEAF_FILES,
        class_weight="balanced",
        random_state=seed,
    )
    forest = RandomForestClassifier(FOREST_TREES, class_weight="balanced", random_state=seed)
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    folds = list(splitter.split(table, systems, sentences))

    def confusion(columns: Sequence[str], classifier: Any = tree) -> FloatArray:
        return predict_confusion(table[list(columns)].to_numpy(), systems, classifier, folds)

    alone = {name: confusion([name]) for name in MEASUREMENTS}
    by_property = {
        name: alone[prop.measurements[0]] if len(prop.measurements) == 1 else confusion(prop.measurements)
        for name, prop in PROPERTIES.items()
    }
    together = confusion(MEASUREMENTS)
    medians = table.groupby(systems).median()
    properties = {
        name: summarise_recalls(names, by_property[name].diagonal(), seed=seed)
        | {"remedy": prop.remedy}
        | {
            "measurements": {
                measurement: summarise_recalls(names, alone[measurement].diagonal(), seed=seed)
                | {"eta_squared": eta_squared(table[measurement].to_numpy(), systems)}
                for measurement in prop.measurements
            }
        }
        for name, prop in PROPERTIES.items()
    }
    return {
        "systems": len(names),
        "chance_percent": 100 / len(names),
        "tree_depth": depth,
        "properties": properties,
        "together": summarise_recalls(names, together.diagonal(), seed=seed),
        "forest": summarise_recalls(names, confusion(MEASUREMENTS, forest).diagonal(), seed=seed),
        "recognised": find_recognised(names, together, by_property, alone),
        "groups": {name: find_groups(names, alone[name], medians[name].to_numpy()) for name in MEASUREMENTS},
    }


def predict_confusion(values: FloatArray, systems: StrArray, classifier: Any, folds: Folds) -> FloatArray:
    """Return the shares (C, C) of the files of each system (row) that are predicted as each system (column).

    Systems are in alphabetical order. `values` (N, K) without any difference give 1 / C everywhere, which is chance
    without the noise of the folds.
    """
    names, column = np.unique(systems, return_inverse=True)
    if not np.ptp(values, axis=0).any():
        return np.full((len(names), len(names)), 1 / len(names))
    predicted = cross_val_predict(classifier, values, column, cv=folds)
    counts = np.bincount(column * len(names) + predicted, minlength=len(names) ** 2).reshape(len(names), -1)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def summarise_recalls(names: StrArray, recalls: FloatArray, *, seed: int) -> dict[str, Any]:
    """Return the mean of recalls (C,), with its ratio to chance and its 95 % interval by a bootstrap over systems."""
    draws = np.random.default_rng(seed).integers(len(recalls), size=(BOOTSTRAP_SAMPLES, len(recalls)))
    low, high = np.quantile(recalls[draws].mean(axis=1), quantile_levels(len(recalls)))
    return {
        "balanced_accuracy_percent": 100 * float(recalls.mean()),
        "interval_percent": [100 * float(low), 100 * float(high)],
        "ratio_to_chance": float(recalls.mean() * len(recalls)),
        "exceeds_goal": exceeds_goal(float(recalls.mean()), len(recalls)),
        "recalls_percent": {
            str(name): 100 * float(recall) for name, recall in zip(names, recalls, strict=True)
        },
    }


def eta_squared(values: FloatArray, systems: StrArray) -> float:
    """Return the variance of the systems' means divided by the total variance of values (N,), in [0, 1].

    0 if the values are constant.
    """
    _, column, counts = np.unique(systems, return_inverse=True, return_counts=True)
    means = np.bincount(column, values) / counts
    total = float(((values - values.mean()) ** 2).sum())
    between = float((counts * (means - values.mean()) ** 2).sum())
    return between / total if total > 0 else 0.0

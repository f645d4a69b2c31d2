"""Which systems simple properties of the audio recognise: one by one, and as groups that share a value.

A confusion matrix (C, C) has the shares of the files of each system (row) that are predicted as each system (column).
Axes: C systems.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from makermark.audit.audio_properties import PROPERTIES
from makermark.foundation.arrays import FloatArray, StrArray

GOAL_RATIO = 3.0  # accuracy / chance: more is above the goal
MAX_GAIN = 0.1  # of the distance from chance to 1: more is above the goal too, if the systems are few
MIN_GROUP_SHARE = 0.5  # of the files of a system that are predicted as one system
MIN_GROUP_PRECISION = 0.5
MAX_GROUP_SHARE = 0.5  # of the systems: a larger group is what most systems have in common


def exceeds_goal(accuracy: float, systems: int) -> bool:
    """Whether an accuracy in [0, 1] is above GOAL_RATIO times chance, or covers MAX_GAIN of the way to 1."""
    chance = 1 / systems
    return accuracy > min(GOAL_RATIO * chance, chance + MAX_GAIN * (1 - chance))


def find_recognised(
    names: StrArray,
    together: FloatArray,
    by_property: Mapping[str, FloatArray],
    by_measurement: Mapping[str, FloatArray],
) -> list[dict[str, Any]]:
    """Return the systems whose recall by all properties `together` exceeds the goal, in descending order of it.

    The arguments are confusion matrices. `property` is the one that alone has the highest recall of the system, if this
    exceeds the goal too; otherwise None. `measurement` is the one of its measurements with the highest recall.
    """
    entries = []
    for index in np.argsort(-together.diagonal(), kind="stable"):
        if not exceeds_goal(together[index, index], len(names)):
            break
        recall_of = {name: float(confusion[index, index]) for name, confusion in by_property.items()}
        best = max(recall_of, key=lambda name: recall_of[name])
        measurement = max(PROPERTIES[best].measurements, key=lambda name: by_measurement[name][index, index])
        alone = exceeds_goal(recall_of[best], len(names))
        entries.append(
            {
                "system": str(names[index]),
                "recall_percent": 100 * float(together[index, index]),
                "property": best if alone else None,
                "property_recall_percent": 100 * recall_of[best] if alone else None,
                "measurement": measurement if alone else None,
            }
        )
    return entries


def find_groups(names: StrArray, confusion: FloatArray, medians: FloatArray) -> list[dict[str, Any]]:
    """Return the groups of systems that a measurement separates from the others, the best separated first.

    A group is the systems of which at least MIN_GROUP_SHARE of the files are predicted as one and the same system.
    Systems with the same value cannot be told apart and form a group. Its `recall_percent` is the mean share of the
    files of its members that have this prediction, its `precision_percent` the share of the group in all files with
    this prediction, every system counted alike. Groups with a lower precision than MIN_GROUP_PRECISION, and groups of
    more than MAX_GROUP_SHARE of the systems, are omitted. `median` is the lowest and the highest of the systems'
    medians (C,).
    """
    groups = []
    for column in range(len(names)):
        members = confusion[:, column] >= MIN_GROUP_SHARE
        if not members.any() or members.mean() > MAX_GROUP_SHARE:
            continue
        recall = float(confusion[members, column].mean())
        precision = float(confusion[members, column].sum() / confusion[:, column].sum())
        if precision >= MIN_GROUP_PRECISION:
            groups.append(
                {
                    "systems": [str(name) for name in names[members]],
                    "recall_percent": 100 * recall,
                    "precision_percent": 100 * precision,
                    "median": [float(medians[members].min()), float(medians[members].max())],
                }
            )
    return sorted(groups, key=_separation, reverse=True)


def _separation(group: Mapping[str, Any]) -> float:
    """Return the harmonic mean of recall and precision."""
    recall, precision = group["recall_percent"], group["precision_percent"]
    return float(2 * recall * precision / (recall + precision))

"""The checks that need no audio: each takes all rows of a corpus and returns JSON values.

The rows have the columns path, split, system, language, family, text and sha256 ("" if unknown).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from makermark.corpora.splits import normalise_sentences
from makermark.foundation.manifest import PROTOCOL_SEEN_COLUMNS, SPLITS

CheckResult = dict[str, Any]

ATTRIBUTE_OF_SEEN = {"system_seen": "system", "language_seen": "language"}


def count_splits(rows: pd.DataFrame) -> CheckResult:
    """Return, for each existing split, the number of rows, distinct paths, systems and languages."""
    return {
        split: {
            "utterances": len(part),
            "distinct_paths": int(part["path"].nunique()),
            "systems": int(part["system"].nunique()),
            "languages": int(part["language"][part["language"] != ""].nunique()),
        }
        for split, part in _rows_by_split(rows).items()
    }


def count_duplicates(rows: pd.DataFrame) -> CheckResult:
    """Count rows whose path occurs in an earlier row, and files with the bytes of another (None without any sha256).

    `across_systems` and `across_splits` count the distinct contents that occur in several.
    """
    repeated = rows[rows["path"].duplicated()]
    files = rows.drop_duplicates("path")
    files = files[files["sha256"] != ""]
    by_content = files.groupby("sha256")
    audio = None if files.empty else {
        "files": int(files["sha256"].duplicated().sum()),
        "across_systems": int((by_content["system"].nunique() > 1).sum()),
        "across_splits": int((by_content["split"].nunique() > 1).sum()),
    }  # fmt: skip
    return {
        "rows": len(repeated),
        "by_split": _count_values(repeated["split"]),
        "by_system": _count_values(repeated["system"]),
        "audio": audio,
    }


def check_strata(rows: pd.DataFrame) -> CheckResult:
    """List rows of dev and test that are declared seen or unseen in contradiction to train.

    `protocol`: as the protocol of the corpus declares; `manifest`: as this manifest does. None if it declares nothing.
    """
    protocol = {column: ATTRIBUTE_OF_SEEN[name] for column, name in PROTOCOL_SEEN_COLUMNS.items()}
    return {
        "protocol": _find_contradictions(rows, protocol),
        "manifest": _find_contradictions(rows, ATTRIBUTE_OF_SEEN),
    }


def _find_contradictions(rows: pd.DataFrame, attribute_of: Mapping[str, str]) -> CheckResult | None:
    """`attribute_of` maps a column that declares "seen" to the attribute that it is about, such as the system."""
    if not set(attribute_of) <= set(rows.columns):
        return None
    held_out, train = rows[rows["split"] != "train"], rows[rows["split"] == "train"]
    contradictions = []
    for seen_column, attribute in attribute_of.items():
        declared_seen = held_out[seen_column].astype("boolean")
        in_train = held_out[attribute].isin(train[attribute].unique())
        contradicting = held_out[(declared_seen != in_train).fillna(False).astype(bool)]
        for (split, value), part in contradicting.groupby(["split", attribute]):
            value_in_train = bool(in_train[part.index[0]])
            contradictions.append(
                {
                    "split": split,
                    attribute: value,
                    "filed_as": "unseen" if value_in_train else "seen",
                    "in_train": value_in_train,
                    "rows": len(part),
                }
            )
    return {
        "contradicting_rows": sum(entry["rows"] for entry in contradictions),
        "contradicting": contradictions,
    }


def check_families(rows: pd.DataFrame) -> CheckResult:
    """List families of several systems, and unseen systems whose family occurs in train.

    `aliases`: the systems by split of each family with several systems. `unseen_but_known`: by split and family, the
    systems that are not in train although train has other systems of the family, and their number of rows.
    """
    with_family = rows[rows["family"] != ""]
    system_counts = with_family.groupby("family")["system"].nunique()
    aliases = {}
    for family in system_counts.index[system_counts > 1]:
        splits = _rows_by_split(with_family[with_family["family"] == family])
        aliases[family] = {split: sorted(part["system"].unique()) for split, part in splits.items()}
    train = with_family[with_family["split"] == "train"]
    train_systems = rows["system"][rows["split"] == "train"]
    unseen = rows[(rows["split"] != "train") & ~rows["system"].isin(train_systems)]
    known = unseen[(unseen["family"] != "") & unseen["family"].isin(train["family"])]
    return {
        "systems_without_family": int(rows["system"].nunique() - with_family["system"].nunique()),
        "families": int(with_family["family"].nunique()),
        "aliases": aliases,
        "unseen_but_known": [
            {
                "split": split,
                "family": family,
                "systems": sorted(part["system"].unique()),
                "in_train": sorted(train["system"][train["family"] == family].unique()),
                "rows": len(part),
            }
            for (split, family), part in known.groupby(["split", "family"])
        ],
        "unseen_rows": _count_values(unseen["split"]),
        "unseen_rows_of_known_families": _count_values(known["split"]),
    }


def check_new_in_both(rows: pd.DataFrame) -> CheckResult | None:
    """Count the rows and target trials of test of the systems that are in dev and test but not in train.

    What is chosen on dev has met these systems. `unseen_rows` and `unseen_target_trials` are those of all systems of
    test that are not in train. None if there is no such system.
    """
    systems_of = {split: set(part["system"]) for split, part in _rows_by_split(rows).items()}
    train, dev, test = (systems_of.get(split, set()) for split in SPLITS)
    both = sorted((dev & test) - train)
    if not both:
        return None
    utterances = rows["system"][rows["split"] == "test"].value_counts()
    target_trials = utterances * (utterances - 1) // 2
    unseen = sorted(test - train)
    return {
        "systems": sorted(both, key=lambda name: (-utterances[name], name)),
        "rows": int(utterances[both].sum()),
        "unseen_rows": int(utterances[unseen].sum()),
        "target_trials": int(target_trials[both].sum()),
        "unseen_target_trials": int(target_trials[unseen].sum()),
        "all_target_trials": int(target_trials.sum()),
    }


def count_trials(rows: pd.DataFrame) -> CheckResult:
    """Return, for each split, the shares of target trials by system and by family.

    A system without family is a family of its own.
    """
    families = rows["family"].where(rows["family"] != "", rows["system"])
    return {
        split: {"systems": _share_trials(part["system"]), "families": _share_trials(families[part.index])}
        for split, part in _rows_by_split(rows).items()
    }


def _share_trials(classes: pd.Series) -> CheckResult:
    """Return the trials of one split, and the share of target trials by class, largest first.

    `effective` is 1 / sum of squared shares (inverse Simpson index): C classes with equal shares give C.
    """
    utterances = classes.value_counts()
    target_pairs = utterances * (utterances - 1) // 2
    target_trials, pairs = int(target_pairs.sum()), len(classes) * (len(classes) - 1) // 2
    shares = target_pairs / max(target_trials, 1)
    order = sorted(shares.index, key=lambda name: (-shares[name], name))
    return {
        "pairs": pairs,
        "target_trials": target_trials,
        "target_percent": 100 * target_trials / pairs if pairs else None,
        "effective": float(1 / np.square(shares).sum()) if target_trials else None,
        "share_percent": {str(name): float(100 * shares[name]) for name in order},
    }


def count_languages(rows: pd.DataFrame) -> CheckResult:
    """Count the systems with one language, and the languages with one system."""
    known = rows[rows["language"] != ""]
    languages_per_system = known.groupby("system")["language"].nunique()
    systems_per_language = known.groupby("language")["system"].nunique()
    several = languages_per_system[languages_per_system > 1]
    return {
        "systems": len(languages_per_system),
        "of_one_language": int((languages_per_system == 1).sum()),
        "of_several": {str(name): int(count) for name, count in several.items()},
        "languages": len(systems_per_language),
        "of_one_system": int((systems_per_language == 1).sum()),
    }


def find_shared(rows: pd.DataFrame) -> list[CheckResult]:
    """Count the sentences, file names (without suffix), paths and contents that recur in a later split.

    One entry for each of them and pair of splits: the number of distinct shared values, and of rows with one of them
    in the later split.
    """
    values_of = {
        "sentences": normalise_sentences(rows["text"]),
        "file names": rows["path"].map(lambda path: PurePosixPath(path).stem),
        "paths": rows["path"],
        "bytes": rows["sha256"],
    }
    splits = [split for split in SPLITS if (rows["split"] == split).any()]
    pairs = [(first, later) for index, first in enumerate(splits) for later in splits[index + 1 :]]
    entries = []
    for name, values in values_of.items():
        by_split = {split: values[(rows["split"] == split) & (values != "")] for split in splits}
        for first, later in pairs:
            recurring = by_split[later][by_split[later].isin(by_split[first])]
            entries.append(
                {
                    "what": name,
                    "splits": [first, later],
                    "known": bool(len(by_split[first]) and len(by_split[later])),
                    "shared": int(recurring.nunique()),
                    "rows": len(recurring),
                    "rows_of_later": int((rows["split"] == later).sum()),
                }
            )
    return entries


def _rows_by_split(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {split: part for split in SPLITS if len(part := rows[rows["split"] == split])}


def _count_values(values: pd.Series) -> dict[str, int]:
    return {str(name): int(count) for name, count in values.value_counts().sort_index().items()}


CHECKS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "duplicates": count_duplicates,
    "strata": check_strata,
    "families": check_families,
    "new_in_both": check_new_in_both,
    "trials": count_trials,
    "languages": count_languages,
    "shared": find_shared,
}

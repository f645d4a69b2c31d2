"""The checks that need no audio: each takes all rows of a corpus and tells what it found as JSON values.

The rows have path, split, system, language, family, text and sha256 ("" where not known).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from makermark.corpora.rows import PROTOCOL_SEEN, SPLITS
from makermark.corpora.sentences import same_sentence

Figures = dict[str, Any]

OF = {"system_seen": "system", "language_seen": "language"}


def counts(rows: pd.DataFrame) -> Figures:
    """Of each split that there is: rows, distinct paths, systems, languages."""
    return {
        split: {
            "utterances": len(part),
            "distinct_paths": int(part["path"].nunique()),
            "systems": int(part["system"].nunique()),
            "languages": int(_known(part["language"]).nunique()),
        }
        for split, part in _splits(rows).items()
    }


def duplicates(rows: pd.DataFrame) -> Figures:
    """Rows whose path stands in an earlier row, and files whose bytes do (None where no sha256 is known).

    `across_systems` and `across_splits` count the distinct bytes that are filed under several.
    """
    again = rows[rows["path"].duplicated()]
    files = rows.drop_duplicates("path")
    files = files[files["sha256"] != ""]
    of_bytes = files.groupby("sha256")
    audio = None if files.empty else {
        "files": int(files["sha256"].duplicated().sum()),
        "across_systems": int((of_bytes["system"].nunique() > 1).sum()),
        "across_splits": int((of_bytes["split"].nunique() > 1).sum()),
    }  # fmt: skip
    return {
        "rows": len(again),
        "by_split": _counted(again["split"]),
        "by_system": _counted(again["system"]),
        "audio": audio,
    }


def strata(rows: pd.DataFrame) -> Figures:
    """Rows of dev and test that are filed as seen or unseen against what train holds: by the corpus' own `protocol`,
    and in this `manifest` (each None where it files none)."""
    protocol = {said: OF[name] for said, name in PROTOCOL_SEEN.items()}
    return {"protocol": _contradictions(rows, protocol), "manifest": _contradictions(rows, OF)}


def _contradictions(rows: pd.DataFrame, filed_in: Mapping[str, str]) -> Figures | None:
    """`filed_in`: what a column that says "seen" speaks of, such as the system."""
    if not set(filed_in) <= set(rows.columns):
        return None
    held_out, train = rows[rows["split"] != "train"], rows[rows["split"] == "train"]
    told = []
    for seen, column in filed_in.items():
        filed, stands = held_out[seen].astype("boolean"), held_out[column].isin(train[column].unique())
        wrong = held_out[(filed != stands).fillna(False).astype(bool)]
        for (split, value), part in wrong.groupby(["split", column]):
            in_train = bool(stands[part.index[0]])
            filed_as = "unseen" if in_train else "seen"
            told.append(
                {"split": split, column: value, "filed_as": filed_as, "in_train": in_train, "rows": len(part)}
            )
    return {"contradicting_rows": sum(each["rows"] for each in told), "contradicting": told}


def families(rows: pd.DataFrame) -> Figures:
    """Systems that are one family, and where those of a family that train knows are counted as unseen.

    `aliases`: families of several systems, with the systems by split. `unseen_but_known`: by split and family, the
    systems that train lacks although it holds others of the family, and their rows.
    """
    named = rows[rows["family"] != ""]
    several = named.groupby("family")["system"].nunique()
    aliases = {}
    for family in several.index[several > 1]:
        splits = _splits(named[named["family"] == family])
        aliases[family] = {split: sorted(part["system"].unique()) for split, part in splits.items()}
    train = named[named["split"] == "train"]
    unseen = rows[(rows["split"] != "train") & ~rows["system"].isin(rows["system"][rows["split"] == "train"])]
    known = unseen[(unseen["family"] != "") & unseen["family"].isin(train["family"])]
    return {
        "systems_without_family": int(rows["system"].nunique() - named["system"].nunique()),
        "families": int(named["family"].nunique()),
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
        "unseen_rows": _counted(unseen["split"]),
        "unseen_rows_of_known_families": _counted(known["split"]),
    }


def trials(rows: pd.DataFrame) -> Figures:
    """Of each split: its pairs, and how they divide among systems, and among families (a system of none is its own)."""
    own = rows["family"].where(rows["family"] != "", rows["system"])
    return {
        split: {"systems": _shares(part["system"]), "families": _shares(own[part.index])}
        for split, part in _splits(rows).items()
    }


def _shares(makers: pd.Series) -> Figures:
    """Target trials, their share by maker, largest first, and the number of makers that they amount to.

    That is 1 / sum of the squared shares (inverse Simpson index): C makers of equal shares give C.
    """
    utterances = makers.value_counts()
    pairs = utterances * (utterances - 1) // 2
    targets, total = int(pairs.sum()), len(makers) * (len(makers) - 1) // 2
    shares = pairs / max(targets, 1)
    order = sorted(shares.index, key=lambda name: (-shares[name], name))
    return {
        "pairs": total,
        "target_trials": targets,
        "target_percent": 100 * targets / total if total else None,
        "effective": float(1 / np.square(shares).sum()) if targets else None,
        "share_percent": {str(name): float(100 * shares[name]) for name in order},
    }


def languages(rows: pd.DataFrame) -> Figures:
    """Systems that speak one language only, and languages that one system only speaks."""
    known = rows[rows["language"] != ""]
    spoken, speakers = (
        known.groupby("system")["language"].nunique(),
        known.groupby("language")["system"].nunique(),
    )
    return {
        "systems": len(spoken),
        "of_one_language": int((spoken == 1).sum()),
        "of_several": {str(name): int(count) for name, count in spoken[spoken > 1].items()},
        "languages": len(speakers),
        "of_one_system": int((speakers == 1).sum()),
    }


def shared(rows: pd.DataFrame) -> list[Figures]:
    """What recurs in a later split: sentences, file names (without ending), paths, bytes. One entry for each thing and
    pair of splits: how many distinct ones, and how many rows of the later split hold one."""
    things = {
        "sentences": same_sentence(rows["text"]),
        "file names": rows["path"].map(lambda path: PurePosixPath(path).stem),
        "paths": rows["path"],
        "bytes": rows["sha256"],
    }
    there = [split for split in SPLITS if (rows["split"] == split).any()]
    pairs = [(a, b) for place, a in enumerate(there) for b in there[place + 1 :]]
    found = []
    for what, values in things.items():
        of_split = {split: values[(rows["split"] == split) & (values != "")] for split in there}
        for first, later in pairs:
            again = of_split[later][of_split[later].isin(of_split[first])]
            found.append(
                {
                    "what": what,
                    "splits": [first, later],
                    "known": bool(len(of_split[first]) and len(of_split[later])),
                    "shared": int(again.nunique()),
                    "rows": len(again),
                    "rows_of_later": int((rows["split"] == later).sum()),
                }
            )
    return found


def _splits(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {split: part for split in SPLITS if len(part := rows[rows["split"] == split])}


def _known(values: pd.Series) -> pd.Series:
    return values[values != ""]


def _counted(values: pd.Series) -> dict[str, int]:
    return {str(name): int(count) for name, count in values.value_counts().sort_index().items()}


CHECKS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "duplicates": duplicates,
    "strata": strata,
    "families": families,
    "trials": trials,
    "languages": languages,
    "shared": shared,
}

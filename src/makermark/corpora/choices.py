"""What a user may choose about a listing before it becomes a manifest: no duplicates, another label, whose strata."""

from __future__ import annotations

import pandas as pd

from makermark.corpora.families import add_families
from makermark.corpora.rows import PROTOCOL_SEEN, SPLITS
from makermark.errors import CorpusError
from makermark.params import LABELS as LABELS

ORDER = {split: place for place, split in enumerate(SPLITS)}


def dedupe(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without those that repeat an earlier one, or whose bytes (`sha256`, where known) do; the index stays.

    Rows are the same if all their columns but the utterance_id are. Of the same bytes in several splits, those of train
    stay, else those of dev, whatever their systems are (see `several_makers`).
    """
    rows = rows[~rows.drop(columns="utterance_id", errors="ignore").duplicated()]
    if "sha256" not in rows:
        return rows
    known = rows[rows["sha256"].fillna("") != ""]
    if "split" in known:
        known = known.sort_values("split", key=lambda splits: splits.map(ORDER), kind="stable")
    return rows.drop(index=known.index[known["sha256"].duplicated()])


def several_makers(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose bytes (`sha256`, "" where not known) are filed under more than one system, those of the same bytes
    one after the other."""
    known = rows[rows["sha256"] != ""]
    makers = known.groupby("sha256", sort=False)["system"].transform("nunique")
    order = known.groupby("sha256", sort=False).ngroup()
    return known.loc[order[makers > 1].sort_values(kind="stable").index]


def relabel(rows: pd.DataFrame, *, labels: str) -> pd.DataFrame:
    """The rows with `labels` as their `system`: what is traced is then, say, the family.

    Family and architecture come from the rows, or from families.yaml where they say none. Where something else than the
    system is traced, what speaks of systems is dropped: a protocol's strata, and the family, unless it is what is
    traced. Raises CorpusError for an attribute that a row lacks.
    """
    if labels not in LABELS:
        raise CorpusError(f"label is {labels!r}; it is one of {list(LABELS)}")
    rows = add_families(rows)
    if labels == "system":
        return rows
    values = rows[labels].fillna("") if labels in rows else pd.Series("", index=rows.index)
    without = rows[values == ""]
    if len(without):
        system = without["system"].iloc[0]
        raise CorpusError(
            f"{without['path'].iloc[0]}: system {system!r} has no {labels} ({len(without)} of {len(rows)} rows have "
            "none); give that column, or trace the system (label: system)"
        )
    family = values if labels == "family" else ""  # what is a vocoder, say, is in no family of systems
    return rows.assign(system=values, family=family).drop(columns=list(PROTOCOL_SEEN), errors="ignore")

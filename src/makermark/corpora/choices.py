"""What a user may choose about a listing before it becomes a manifest: no duplicates, another label, whose strata."""

from __future__ import annotations

import pandas as pd

from makermark.corpora.families import add_families
from makermark.corpora.rows import PROTOCOL_SEEN, SPLITS
from makermark.errors import CorpusError

ORDER = {split: place for place, split in enumerate(SPLITS)}
LABELS = ("system", "family", "architecture", "acoustic_model", "vocoder")


def dedupe(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without those that repeat an earlier one, or whose bytes (`sha256`, where known) do.

    Rows are the same if all their columns but the utterance_id are. Of the same bytes in several splits, those of train
    stay, else those of dev. Raises CorpusError where the same bytes are filed under two systems.
    """
    rows = rows.reset_index(drop=True)
    rows = rows[~rows.drop(columns="utterance_id", errors="ignore").duplicated()]
    if "sha256" not in rows:
        return rows
    known = rows[rows["sha256"].fillna("") != ""]
    makers = known.groupby("sha256", sort=False)["system"].nunique()
    if (makers > 1).any():
        twins = known[known["sha256"] == makers.index[makers > 1][0]].drop_duplicates("system")
        (path, system), (other, others) = list(zip(twins["path"], twins["system"], strict=True))[:2]
        raise CorpusError(
            f"{path} ({system}) and {other} ({others}) hold the same bytes; remove one, or set external.dedupe: false"
        )
    if "split" in known:
        known = known.sort_values("split", key=lambda splits: splits.map(ORDER), kind="stable")
    return rows.drop(index=known.index[known["sha256"].duplicated()])


def relabel(rows: pd.DataFrame, *, labels: str) -> pd.DataFrame:
    """The rows with `labels` as their `system`: what is traced is then, say, the family.

    Family and architecture come from the rows, or from families.yaml where they say none. Strata that a protocol gave
    speak of systems, and are dropped where something else is traced. Raises CorpusError for an attribute that a row
    lacks.
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
    return rows.assign(system=values).drop(columns=list(PROTOCOL_SEEN), errors="ignore")

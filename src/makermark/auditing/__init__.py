"""What in a corpus would make a figure misleading: one report for people and programs (reporting.audit renders it)."""

from __future__ import annotations

from typing import Any

import pandas as pd

from makermark.auditing.checks import CHECKS, counts
from makermark.auditing.findings import findings_of
from makermark.auditing.opening import Opened, open_corpus
from makermark.corpora.families import add_families

__all__ = ["Opened", "audit", "open_corpus"]

OPTIONAL = ("language", "text", "sha256")


def audit(rows: pd.DataFrame, *, corpus: str, shortcuts: dict[str, Any] | None = None) -> dict[str, Any]:
    """The report as JSON values, from rows with path, split and system, and whatever else is known of them.

    Its keys: corpus, splits, the CHECKS, `shortcuts` (what auditing.shortcuts.shortcuts found in the audio, None where
    nobody listened) and `findings`, a list of {check, says, remedy} where something needs care.
    """
    missing = {name: "" for name in OPTIONAL if name not in rows}
    rows = add_families(rows.reset_index(drop=True).assign(**missing))
    report: dict[str, Any] = {"corpus": corpus, "splits": counts(rows)}
    report |= {name: check(rows) for name, check in CHECKS.items()}
    report["shortcuts"] = shortcuts
    return report | {"findings": findings_of(report)}

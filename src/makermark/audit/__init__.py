"""Audit of a corpus: properties that would make a figure misleading, as one report (audit.report renders it)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from makermark.audit.checks import CHECKS, count_splits
from makermark.audit.findings import list_findings
from makermark.corpora.families import add_families
from makermark.corpora.mlaad.protocol import read_protocol
from makermark.foundation.errors import CorpusError
from makermark.foundation.manifest import MANIFEST_FILE, read_manifest

OPTIONAL_COLUMNS = ("language", "text", "sha256")
PROTOCOL_TABLE = "train.csv"


@dataclass(frozen=True)
class AuditInput:
    """The rows of a corpus, and the folder to which their paths are relative."""

    corpus: str
    root: Path
    rows: pd.DataFrame


def open_corpus(path: Path) -> AuditInput:
    """Read a manifest (or the folder that holds it), or the MLAADv5 protocol (its zip, or a folder with train.csv).

    The audio of a protocol is assumed to be in the same folder. Raises ManifestError or FilesError for an unreadable
    manifest, CorpusError for an unreadable protocol and for a folder with neither.
    """
    if (path / MANIFEST_FILE).is_file():
        path = path / MANIFEST_FILE
    if path.suffix == ".zip" or (path / PROTOCOL_TABLE).is_file():
        return AuditInput("mlaad-v5", path if path.is_dir() else path.parent, read_protocol(path))
    if path.is_dir():
        raise CorpusError(
            f"{path}: this folder has neither a {MANIFEST_FILE} nor the {PROTOCOL_TABLE} of the MLAAD protocol; name "
            "the manifest of a corpus (data/corpus, after the download stage), or the protocol's zip"
        )
    manifest = read_manifest(path)
    return AuditInput(manifest.corpus, manifest.root, manifest.rows)


def audit(rows: pd.DataFrame, *, corpus: str, shortcuts: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the report as JSON values, from rows with path, split, system and any other columns of a manifest.

    Its keys are corpus, splits, the names in CHECKS, `shortcuts` (the result of `measure_shortcuts`, None if
    the audio was not read) and `findings`: a list of {check, says, remedy}.
    """
    missing = {name: "" for name in OPTIONAL_COLUMNS if name not in rows}
    rows = add_families(rows.reset_index(drop=True).assign(**missing))
    report: dict[str, Any] = {"corpus": corpus, "splits": count_splits(rows)}
    report |= {name: check(rows) for name, check in CHECKS.items()}
    report["shortcuts"] = shortcuts
    return report | {"findings": list_findings(report)}

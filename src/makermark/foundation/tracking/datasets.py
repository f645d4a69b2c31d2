"""The utterances of a run, as MLflow's datasets."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from makermark.foundation.manifest import Manifest

CONTEXTS = {"train": "training", "dev": "validation", "test": "testing"}  # names that MLflow's UI knows
DIGEST_DIGITS = 32  # MLflow takes at most 36


@dataclass(frozen=True)
class DatasetRecord:
    """One split of a corpus: `digest` differs for other rows, `counts` are the numbers of utterances, systems, ..."""

    name: str
    digest: str
    context: str
    source: str  # the folder of the audio, relative to the project if it is inside
    counts: Mapping[str, int]


def dataset_records(manifest: Manifest, start: Path) -> list[DatasetRecord]:
    """Return a record for every split of a corpus that has rows; `start` is the folder of the project."""
    root, project = manifest.root.resolve(), start.resolve()
    source = os.path.relpath(root, project) if root.is_relative_to(project) else str(root)
    records = []
    for split, context in CONTEXTS.items():
        rows = manifest.rows[manifest.rows["split"] == split]
        if len(rows):
            content = rows.to_csv(index=False, lineterminator="\n").encode()
            counts = {
                "utterances": len(rows),
                "systems": rows["system"].nunique(),
                "languages": rows["language"].nunique(),
            }
            digest = hashlib.sha256(content).hexdigest()[:DIGEST_DIGITS]
            records.append(DatasetRecord(manifest.corpus, digest, context, source, counts))
    return records

"""Embeddings on disk: one Arrow file, a row per utterance with its labels and its vector."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from makermark.corpora.rows import strata
from makermark.errors import FilesError
from makermark.files import read_arrow, write_arrow

LABELS = ("utterance_id", "split", "system", "language", "family", "acoustic_model", "vocoder", "voice")
SEEN = ("system_seen", "language_seen", "acoustic_model_seen", "vocoder_seen")


@dataclass(frozen=True)
class Embeddings:
    """Labels (columns LABELS, SEEN and stratum), vectors (N, D) float32 in the same order, provenance.

    `logits` (N, C) float32 are what the model's classifier said, None for a model without one; its C systems
    are those of train, sorted by name.
    """

    labels: pd.DataFrame
    vectors: NDArray[np.float32]
    logits: NDArray[np.float32] | None
    metadata: Mapping[str, str]

    @property
    def systems(self) -> NDArray[np.str_]:
        """(N,): which system made each utterance."""
        return self.labels["system"].to_numpy(dtype=str)

    def of_split(self, split: str) -> Embeddings:
        """The utterances of one split."""
        return self.take(np.flatnonzero(self.labels["split"] == split))

    def take(self, rows: NDArray[np.int64]) -> Embeddings:
        """The utterances at these rows, in this order."""
        return Embeddings(
            self.labels.iloc[rows].reset_index(drop=True),
            self.vectors[rows],
            None if self.logits is None else self.logits[rows],
            self.metadata,
        )


def write_embeddings(
    path: Path,
    rows: pd.DataFrame,
    vectors: NDArray[np.float32],
    *,
    metadata: Mapping[str, str],
    logits: NDArray[np.float32] | None = None,
) -> None:
    """Write the `vectors` (N, D), and `logits` (N, C), of manifest `rows` (N of them, in the same order)."""
    if vectors.shape[0] != len(rows):
        raise ValueError(f"{len(rows)} rows but {vectors.shape[0]} vectors")
    columns = {name: pa.array(rows[name]) for name in (*LABELS, *SEEN)}
    columns["stratum"] = pa.array(strata(rows))
    for name, table in {"vector": vectors, "logits": logits}.items():
        if table is not None:
            flat = pa.array(np.ascontiguousarray(table, dtype=np.float32).ravel())
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, table.shape[1])
    told = {**metadata, "utterances_sha256": utterances_sha256(rows)}
    write_arrow(path, pa.table(columns).replace_schema_metadata(told))


def utterances_sha256(rows: pd.DataFrame) -> str:
    """What tells whether two systems embedded the same: name, split, system and bytes of each utterance, sorted."""
    given = rows[["utterance_id", "split", "system", "sha256"]].fillna("").sort_values("utterance_id")
    lines = ("\t".join(row) for row in given.itertuples(index=False))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_embeddings(path: Path) -> Embeddings:
    """Read what `write_embeddings` wrote; raises FilesError for anything else."""
    table = read_arrow(path)
    missing = [name for name in (*LABELS, *SEEN, "stratum", "vector") if name not in table.column_names]
    if missing:
        raise FilesError(f"{path}: columns {missing} are missing; run the embed stage again")
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    lists = [name for name in ("vector", "logits") if name in table.column_names]
    labels = table.drop_columns(lists).to_pandas()
    logits = _matrix(table, "logits") if "logits" in lists else None
    return Embeddings(labels, _matrix(table, "vector"), logits, metadata)


def _matrix(table: pa.Table, name: str) -> NDArray[np.float32]:
    column = table[name].combine_chunks()
    matrix: NDArray[np.float32] = column.flatten().to_numpy().reshape(len(table), column.type.list_size)
    return matrix

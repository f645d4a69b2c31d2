"""Embeddings on disk: one Arrow file with labels and embedding of every utterance.

Legend of axes: N utterances, D dimensions, C systems.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from makermark.foundation.errors import FilesError
from makermark.foundation.files import read_arrow, read_metadata, write_arrow
from makermark.foundation.manifest import SEEN_ATTRIBUTES, compute_strata

LABEL_COLUMNS = (
    "utterance_id",
    "split",
    "system",
    "language",
    "family",
    "acoustic_model",
    "vocoder",
    "voice",
)
SEEN_COLUMNS = tuple(SEEN_ATTRIBUTES)


@dataclass(frozen=True)
class EmbeddingTable:
    """Embeddings with their labels and the metadata of their model.

    - `labels`: N rows with the columns LABEL_COLUMNS, SEEN_COLUMNS and stratum
    - `embeddings`: (N, D)
    - `logits`: (N, C) of the model's classifier over the systems of train, sorted by name; None without a classifier
    """

    labels: pd.DataFrame
    embeddings: NDArray[np.float32]
    logits: NDArray[np.float32] | None
    metadata: Mapping[str, str]

    @property
    def systems(self) -> NDArray[np.str_]:
        """The system (N,) of each utterance."""
        return self.labels["system"].to_numpy(dtype=str)

    def select_split(self, split: str) -> EmbeddingTable:
        """Return the utterances of a split."""
        return self.take(np.flatnonzero(self.labels["split"] == split))

    def take(self, rows: NDArray[np.int64]) -> EmbeddingTable:
        """Return the utterances at these row numbers, in this order."""
        return EmbeddingTable(
            self.labels.iloc[rows].reset_index(drop=True),
            self.embeddings[rows],
            None if self.logits is None else self.logits[rows],
            self.metadata,
        )


def write_embeddings(
    path: Path,
    rows: pd.DataFrame,
    embeddings: NDArray[np.float32],
    *,
    metadata: Mapping[str, str],
    logits: NDArray[np.float32] | None = None,
) -> None:
    """Write `embeddings` (N, D) and `logits` (N, C) of the N manifest `rows`, in the same order."""
    if embeddings.shape[0] != len(rows):
        raise ValueError(f"{len(rows)} rows but {embeddings.shape[0]} embeddings")
    columns = {name: pa.array(rows[name]) for name in (*LABEL_COLUMNS, *SEEN_COLUMNS)}
    columns["stratum"] = pa.array(compute_strata(rows))
    for name, matrix in {"vector": embeddings, "logits": logits}.items():
        if matrix is not None:
            columns[name] = matrix_column(matrix)
    file_metadata = {**metadata, "utterances_sha256": utterances_sha256(rows)}
    write_arrow(path, pa.table(columns).replace_schema_metadata(file_metadata))


def utterances_sha256(rows: pd.DataFrame) -> str:
    """Return a checksum over id, split, system and audio checksum of the utterances, independent of their order."""
    key = rows[["utterance_id", "split", "system", "sha256"]].fillna("").sort_values("utterance_id")
    lines = ("\t".join(row) for row in key.itertuples(index=False))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_embeddings(path: Path) -> EmbeddingTable:
    """Read a file of `write_embeddings`. Raises FilesError for any other file."""
    table = read_arrow(path)
    missing = [
        name
        for name in (*LABEL_COLUMNS, *SEEN_COLUMNS, "stratum", "vector")
        if name not in table.column_names
    ]
    if missing:
        raise FilesError(f"{path}: columns {missing} are missing; run the embed stage again")
    metadata = read_metadata(table, path)
    matrices = [name for name in ("vector", "logits") if name in table.column_names]
    labels = table.drop_columns(matrices).to_pandas()
    logits = read_matrix(table, "logits", path) if "logits" in matrices else None
    return EmbeddingTable(labels, read_matrix(table, "vector", path), logits, metadata)


def matrix_column(matrix: NDArray[np.float32]) -> pa.FixedSizeListArray:
    """Return a matrix (N, D) as a column of N lists."""
    flat = pa.array(np.ascontiguousarray(matrix, dtype=np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])


def read_matrix(table: pa.Table, name: str, path: Path) -> NDArray[np.float32]:
    """Return a column of `matrix_column` as a matrix (N, D).

    Raises FilesError, which names `path`, for a column of another type or with empty values.
    """
    column = table[name].combine_chunks()
    has_type = pa.types.is_fixed_size_list(column.type) and column.type.value_type == pa.float32()
    if not has_type or column.null_count or column.flatten().null_count:
        raise FilesError(
            f"{path}: column {name!r} is not a list of as many float32 numbers in every row, without empty values; "
            "write the file again"
        )
    matrix: NDArray[np.float32] = column.flatten().to_numpy().reshape(len(table), column.type.list_size)
    return matrix


def has_unit_length(embeddings: NDArray[np.float32]) -> bool:
    """Return whether every embedding (N, D) has a Euclidean norm of 1 within 1e-3; false for NaN and infinity."""
    if not np.abs(embeddings).max(initial=0) < 2:  # the squares of larger values may overflow
        return False
    return bool((np.abs(np.linalg.norm(embeddings, axis=1) - 1) < 1e-3).all())


def l2_normalise(embeddings: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return embeddings (N, D) with every row divided by its Euclidean norm; a row of zeros stays zero."""
    if embeddings.size and np.abs(embeddings).max() > 2.0**60:
        # squares would overflow; a power of two adds no rounding
        large = np.abs(embeddings).max(axis=1, keepdims=True) > 2.0**60
        embeddings = embeddings * np.where(large, 2.0**-100, 1).astype(embeddings.dtype)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.where(norms > 0, norms, 1)

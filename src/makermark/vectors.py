"""Embeddings on disk: one Arrow file, a row per utterance with its labels and its vector."""

from __future__ import annotations

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
    """Labels (columns LABELS, SEEN and stratum), vectors (N, D) float32 in the same order, provenance."""

    labels: pd.DataFrame
    vectors: NDArray[np.float32]
    metadata: Mapping[str, str]

    def of_split(self, split: str) -> Embeddings:
        """The utterances of one split."""
        chosen = (self.labels["split"] == split).to_numpy()
        return Embeddings(self.labels[chosen].reset_index(drop=True), self.vectors[chosen], self.metadata)


def write_embeddings(
    path: Path, rows: pd.DataFrame, vectors: NDArray[np.float32], *, metadata: Mapping[str, str]
) -> None:
    """Write the `vectors` (N, D) of manifest `rows` (N of them, in the same order)."""
    if vectors.shape[0] != len(rows):
        raise ValueError(f"{len(rows)} rows but {vectors.shape[0]} vectors")
    columns = {name: pa.array(rows[name]) for name in (*LABELS, *SEEN)}
    columns["stratum"] = pa.array(strata(rows))
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
    columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    write_arrow(path, pa.table(columns).replace_schema_metadata(dict(metadata)))


def read_embeddings(path: Path) -> Embeddings:
    """Read what `write_embeddings` wrote; raises FilesError for anything else."""
    table = read_arrow(path)
    missing = [name for name in (*LABELS, *SEEN, "stratum", "vector") if name not in table.column_names]
    if missing:
        raise FilesError(f"{path}: columns {missing} are missing; run the embed stage again")
    column = table["vector"].combine_chunks()
    vectors = column.flatten().to_numpy().reshape(len(table), column.type.list_size)
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    return Embeddings(table.drop_columns(["vector"]).to_pandas(), vectors, metadata)

"""A corpus that a checkpoint was not trained on: its utterances, and which of their classes the checkpoint has seen."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from makermark.corpora.build_manifest import build_manifest
from makermark.corpora.families import relabel
from makermark.corpora.listing import Listing
from makermark.corpora.readers import table
from makermark.foundation.errors import CorpusError, ManifestError
from makermark.foundation.manifest import INPUT_SCHEMA, LABELS, MANIFEST_FILE, SPLITS, Manifest, read_manifest
from makermark.models.checkpoint import CheckpointMetadata

log = logging.getLogger(__name__)

LABEL_SEPARATOR = "@"  # of the columns of a combined label, and of their values


def read_external_corpus(
    path: Path,
    *,
    root: str = "",
    columns: Mapping[str, str] | None = None,
    label: str = "system",
    splits: Sequence[str] = (),
    within: Sequence[str] = (),
    keep_duplicates: bool = False,
    folder: Path,
    workers: int = 2,
) -> Manifest:
    """Read the utterances of `splits` (empty: all) of a manifest.parquet, of its folder, or of a table.

    - `path`: a table may have any form that `corpus: manifest` takes. All its files are checked, and `folder` gets
      manifest.parquet and rejected.csv. Without splits of its own, all its utterances are test.
    - `root`: the folder where paths of a table start; empty: the folder of the table.
    - `columns`: names of the table's columns, as in `manifest.columns`.
    - `label`: the label to trace, or several columns with `@` between them: their values are combined likewise.
    - `within`: further columns that the rows hold, by their names in the table or in the manifest.
    - `keep_duplicates`: as `external.dedupe: false`.

    Raises FilesError for a missing file; ManifestError or CorpusError for a file that is no corpus; CorpusError for an
    unknown label, or one that a row lacks, and for a column of `within` that is absent or empty in all rows;
    ManifestError for an absent split. Absent columns and splits are noticed before any audio is checked.
    """
    parts = label.split(LABEL_SEPARATOR)
    if label not in LABELS and len(parts) == 1:
        raise CorpusError(
            f"unknown label; it is one of {list(LABELS)}, or columns combined as in system{LABEL_SEPARATOR}page",
            setting="external.label",
            value=label,
        )
    combined = parts if len(parts) > 1 else []
    simple = "system" if combined else label
    further = [name for name in dict.fromkeys([*within, *combined]) if name not in INPUT_SCHEMA.names]
    if (path / MANIFEST_FILE).is_file():
        path = path / MANIFEST_FILE
    if path.is_dir():
        raise CorpusError(
            f"{path}: no {MANIFEST_FILE} in this folder; name one that has it, or the table of a corpus"
        )
    if is_manifest(path):
        manifest = read_manifest(path)
        check_splits(splits, manifest.rows["split"], corpus=manifest.corpus)
        check_columns(further, manifest.rows, source=path)
        manifest = dataclasses.replace(manifest, rows=relabel(manifest.rows, label=simple))
    else:
        listing = table.read_table(path, root=root, columns=columns or {}, further=further)
        values = further_values(listing, further)
        check_splits(splits, listing_splits(listing), corpus=path.stem)
        build_manifest(
            folder,
            listing,
            corpus=path.stem,
            split=lambda rows: rows.assign(split="test"),
            label=simple,
            dedupe=not keep_duplicates,
            strata_from="train",
            max_bad_fraction=1.0,
            workers=workers,
        )
        manifest = read_manifest(folder / MANIFEST_FILE)
        manifest = dataclasses.replace(manifest, rows=manifest.rows.join(values, on="path"))
    rows = manifest.rows[manifest.rows["split"].isin(splits or SPLITS)]
    check_values(within, rows, source=path)
    return dataclasses.replace(manifest, rows=combine_label(rows, combined) if combined else rows)


def check_columns(names: Sequence[str], rows: pd.DataFrame, *, source: Path) -> None:
    """Raise CorpusError for a column that the rows lack."""
    absent = [name for name in names if name not in rows]
    if absent:
        raise CorpusError(f"{source}: no column {absent[0]!r}; it has {list(rows.columns)}; name one of them")


def check_values(names: Sequence[str], rows: pd.DataFrame, *, source: Path) -> None:
    """Raise CorpusError for a column without a value in any row."""
    for name in names:
        if (rows[name].fillna("").astype(str) == "").all():
            raise CorpusError(
                f"{source}: column {name!r} is empty in all {len(rows)} rows; name a column with values"
            )


def further_values(listing: Listing, names: Sequence[str]) -> pd.DataFrame:
    """Return the columns `names` of a listing by path. Raises CorpusError if a path has two values."""
    paths = listing.rows["path"].map(lambda path: str(PurePosixPath(path.strip())))
    values = listing.rows[list(names)].map(str.strip).assign(path=paths).drop_duplicates()
    repeated = values["path"][values["path"].duplicated()]
    if len(repeated):
        raise CorpusError(
            f"{listing.source}: path {repeated.iloc[0]!r} appears with different values of {list(names)}; correct or "
            "remove one of its rows"
        )
    return values.set_index("path")


def combine_label(rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return the rows with the values of `columns`, with `@` between them, as the system; families are dropped.

    Raises CorpusError for a row without a value in one of the columns.
    """
    texts = rows[list(columns)].fillna("").astype(str)
    for name in columns:
        empty = rows[texts[name] == ""]
        if len(empty):
            raise CorpusError(
                f"{empty['path'].iloc[0]}: no {name} ({len(empty)} of {len(rows)} rows have none); complete the "
                "column, or take another label"
            )
    return rows.assign(system=texts.agg(LABEL_SEPARATOR.join, axis=1), family="")


def is_manifest(path: Path) -> bool:
    """Return whether a file is a manifest of makermark: Parquet whose metadata name its corpus and root."""
    if path.suffix != ".parquet":
        return False
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, UnicodeDecodeError, OSError):
        return True  # read_manifest reports what is wrong with it
    return {b"corpus", b"root"} <= set(metadata)


def listing_splits(listing: Listing) -> pd.Series:
    """Return the split of each row; test for rows without one."""
    if "split" not in listing.rows:
        return pd.Series(["test"])
    return listing.rows["split"].replace("", "test")


def check_splits(splits: Sequence[str], column: pd.Series, *, corpus: str) -> None:
    """Raise ManifestError for a split that is not in the column."""
    absent = [split for split in splits if split not in set(column)]
    if absent:
        present = [split for split in SPLITS if split in set(column)]
        raise ManifestError(f"corpus {corpus} has no split {absent[0]!r}; it has {present}")


def choose_label(metadata: CheckpointMetadata, requested: str) -> str:
    """Return the requested label, or the label of the checkpoint's training if `requested` is empty.

    If the two differ, a warning is logged: the checkpoint has then seen none of the classes, or some by chance.
    """
    external = metadata.params.get("external", {})  # older checkpoints lack it; corpus local does not read it
    trained = external.get("label", "system") if metadata.params["corpus"] != "local" else "system"
    if requested and requested != trained:
        log.warning(
            "the model was trained on label %s and is scored on label %s: seen and unseen classes cannot be told apart",
            trained,
            requested,
        )
    return requested or trained


def languages_are_known(metadata: CheckpointMetadata, languages: Collection[str]) -> bool:
    """Return whether some languages are known, both of the corpus and of the training set."""
    return bool(set(languages) - {""}) and bool(set(metadata.languages or ()) - {""})


def mark_seen(metadata: CheckpointMetadata, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with `system_seen` and `language_seen` by the training set of the checkpoint.

    An empty language is a language of its own, as in the pipeline: seen if rows of the training set had none either.
    If no row has a language, or if the checkpoint records none, all languages count as seen, as in the pipeline for a
    corpus without languages, and a warning is logged. The acoustic models and vocoders of the training set are not
    recorded.
    """
    languages = rows["language"].fillna("")
    by_language = languages_are_known(metadata, languages)
    if not by_language:
        log.warning("languages of the corpus or of the model are not known: strata go by system alone")
    return rows.assign(
        system_seen=rows["system"].isin(metadata.systems),
        language_seen=languages.isin(metadata.languages or ()) | (not by_language),
        acoustic_model_seen=None,
        vocoder_seen=None,
    )

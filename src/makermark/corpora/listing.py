"""A listing: what a corpus says of its files, before anyone has looked at one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd

from makermark.corpora.rows import PROTOCOL_SEEN, SPLITS, stays_inside
from makermark.errors import CorpusError

NEEDED = ("path", "system")
KNOWN = (  # or ""
    "split", "language", "family", "architecture", "acoustic_model", "vocoder", "voice", "text", "utterance_id",
)  # fmt: skip


@dataclass(frozen=True)
class Listing:
    """Rows of a corpus and the folder that their paths start from.

    `rows` has `path` (POSIX, relative to `root`) and `system`, and any of KNOWN, with "" for what is not known; where
    the corpus' own protocol files an utterance in a stratum, also the columns of rows.PROTOCOL_SEEN (NA in train).
    `source` is what messages call it, such as the file of a table; `columns` what the source calls our columns, where
    it may call them as it likes; `tables` the files that say all this.
    """

    rows: pd.DataFrame
    root: Path
    source: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    tables: tuple[Path, ...] = ()


def complete(listing: Listing) -> pd.DataFrame:
    """The rows, numbered from 1 by their index, with all columns of KNOWN, plain paths, and the path as `utterance_id`
    where none is given.

    Raises CorpusError, naming the source and the row, for no rows, a row without path or system, a path that leaves
    the root, an unknown split, splits given to some rows only, one path with two systems, and one utterance_id with two
    paths.
    """
    source = listing.source or str(listing.root)
    rows = listing.rows.set_axis(range(1, len(listing.rows) + 1))
    if rows.empty:
        raise CorpusError(f"{source}: no rows; a corpus needs at least one utterance")
    for column in (*NEEDED, *KNOWN):
        rows[column] = rows[column].fillna("").astype(str).str.strip() if column in rows else ""
    for column in NEEDED:
        without = rows.index[rows[column] == ""]
        if len(without):
            raise CorpusError(f"{source}, row {without[0]}: no {column}; every utterance needs one")
    outside = rows["path"][~rows["path"].map(stays_inside)]
    if len(outside):
        raise CorpusError(
            f"{source}, row {outside.index[0]}: path {outside.iloc[0]!r} leaves the folder {listing.root}; paths are "
            "relative, without '..' and with / between folders: set external.root to a folder that holds all files"
        )
    rows["path"] = rows["path"].map(lambda path: str(PurePosixPath(path)))
    rows["utterance_id"] = rows["utterance_id"].where(rows["utterance_id"] != "", rows["path"])
    _check_splits(rows, source=source, column=listing.columns.get("split", ""))
    _refuse_two_systems(rows, source=source)
    _refuse_two_paths(rows, source=source)
    return rows[[*NEEDED, *KNOWN, *(name for name in PROTOCOL_SEEN if name in rows)]]


def _check_splits(rows: pd.DataFrame, *, source: str, column: str) -> None:
    given = rows["split"] != ""
    wrong = rows[~rows["split"].isin(SPLITS) & bool(given.any())]
    if len(wrong):
        named = f" in column {column!r}" if column else ""
        remedy = "; if that is no split, say manifest.columns: {split: ''}" if column else ""
        raise CorpusError(
            f"{source}, row {wrong.index[0]}: split {wrong['split'].iloc[0]!r}{named}; where one row has a split all "
            f"have one of {list(SPLITS)}{remedy}"
        )


def _refuse_two_systems(rows: pd.DataFrame, *, source: str) -> None:
    pairs = rows.drop_duplicates(["path", "system"])
    again = pairs[pairs["path"].duplicated()]
    if len(again):
        path, system = again["path"].iloc[0], again["system"].iloc[0]
        first = pairs["system"][pairs["path"] == path]
        raise CorpusError(
            f"{source}, row {again.index[0]}: path {path!r} has system {system!r}, but {first.iloc[0]!r} in row "
            f"{first.index[0]}; a file has one maker: correct or remove one of the rows"
        )


def _refuse_two_paths(rows: pd.DataFrame, *, source: str) -> None:
    pairs = rows.drop_duplicates(["utterance_id", "path"])
    again = pairs[pairs["utterance_id"].duplicated()]
    if len(again):
        name, path = again["utterance_id"].iloc[0], again["path"].iloc[0]
        first = pairs["path"][pairs["utterance_id"] == name]
        raise CorpusError(
            f"{source}, row {again.index[0]}: utterance_id {name!r} is {path!r}, but {first.iloc[0]!r} in row "
            f"{first.index[0]}; give every file its own, or leave the column out"
        )

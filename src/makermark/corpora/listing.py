"""A listing: the metadata that a corpus publishes about its files, before any audio file is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd

from makermark.foundation.errors import CorpusError, FilesError, SettingChange
from makermark.foundation.files import describe_os_error
from makermark.foundation.manifest import PROTOCOL_SEEN_COLUMNS, SPLITS, is_inside_root

REQUIRED_COLUMNS = ("path", "system")
OPTIONAL_COLUMNS = (  # "" where the value is unknown
    "split", "language", "family", "architecture", "acoustic_model", "vocoder", "voice", "text", "utterance_id",
)  # fmt: skip

# Suffixes of the audio files that libsndfile or FFmpeg decodes, videos with sound included.
AUDIO_SUFFIXES = frozenset({
    ".3g2", ".3gp", ".8svx", ".aac", ".ac3", ".adts", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".asf", ".au",
    ".avi", ".avr", ".awb", ".bwf", ".caf", ".dts", ".eac3", ".flac", ".flv", ".gsm", ".htk", ".iff", ".ircam",
    ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".mpc", ".mpeg", ".mpg", ".mpga",
    ".nist", ".oga", ".ogg", ".opus", ".paf", ".pvf", ".ra", ".rf64", ".rm", ".sd2", ".sf", ".shn", ".snd", ".sph",
    ".spx", ".svx", ".tak", ".tta", ".voc", ".w64", ".wav", ".wave", ".webm", ".wma", ".wv", ".wve", ".xi",
})  # fmt: skip

SPLIT_ORDER = {split: position for position, split in enumerate(SPLITS)}


@dataclass(frozen=True)
class Listing:
    """The rows of a corpus and the folder to which their paths are relative.

    rows: one row per utterance with the columns `path` (POSIX, relative to `root`) and `system`, and any of
        OPTIONAL_COLUMNS ("" for an unknown value). If the protocol of the corpus defines strata, the columns of
        manifest.PROTOCOL_SEEN_COLUMNS too (NA in train).
    source: the name of the corpus in error messages, such as the file of a table.
    columns: our column name -> the column name in the source, for sources with free column names.
    tables: the files that the rows were read from.
    """

    rows: pd.DataFrame
    root: Path
    source: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    tables: tuple[Path, ...] = ()


def read_lines(file: Path) -> list[str]:
    """Return the lines of a text file in UTF-8, with or without byte-order mark.

    Raises FilesError if the file cannot be read, CorpusError with the line number if a line is not UTF-8.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise FilesError(describe_os_error(error, file)) from error
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CorpusError(
            f"{file}, line {line}: not UTF-8 ({error.reason}); save it as UTF-8, or move it away if it is not a "
            "protocol"
        ) from error


def is_audio_file(file: Path) -> bool:
    """Return whether the suffix of a file is one of AUDIO_SUFFIXES."""
    return file.suffix.lower() in AUDIO_SUFFIXES


def count_suffixes(files: Iterable[Path]) -> str:
    """Return the number of files of each suffix, the most frequent first, as in `12 .txt, 1 without suffix`."""
    counts = Counter(file.suffix.lower() or "without suffix" for file in files)
    return ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common())


def complete_listing(listing: Listing) -> pd.DataFrame:
    """Return the rows of `listing` with all columns, normalised paths and an index that counts from 1.

    Missing optional columns are filled with "", a missing `utterance_id` with the path.

    Raises CorpusError, naming the source and the row, if there are no rows, a row has no path or no system, a path
    leaves the root, a split is unknown, only some rows have a split, one path has two systems, or one utterance_id
    has two paths.
    """
    source = listing.source or str(listing.root)
    rows = listing.rows.set_axis(range(1, len(listing.rows) + 1))
    if rows.empty:
        raise CorpusError(f"{source}: no rows; a corpus needs at least one utterance")
    for column in (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS):
        rows[column] = rows[column].fillna("").astype(str).str.strip() if column in rows else ""
    for column in REQUIRED_COLUMNS:
        empty = rows.index[rows[column] == ""]
        if len(empty):
            raise CorpusError(f"{source}, row {empty[0]}: no {column}; every utterance needs one")
    _check_paths(rows, source=source, root=listing.root)
    rows["path"] = rows["path"].map(lambda path: str(PurePosixPath(path)))
    rows["utterance_id"] = rows["utterance_id"].where(rows["utterance_id"] != "", rows["path"])
    _check_splits(rows, source=source, column=listing.columns.get("split", ""))
    _check_one_system_per_path(rows, source=source)
    _check_one_path_per_utterance_id(rows, source=source)
    protocol_columns = [name for name in PROTOCOL_SEEN_COLUMNS if name in rows]
    return rows[[*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS, *protocol_columns]]


def drop_duplicates(rows: pd.DataFrame) -> pd.DataFrame:
    """Return `rows` without repeated rows and, where `sha256` is known, without repeated audio; the index stays.

    Two rows are equal if all columns but the utterance_id are equal. Of rows with the same sha256 in several splits,
    the row in train stays, otherwise the row in dev, even if their systems differ (see `find_conflicting_systems`).
    """
    rows = rows[~rows.drop(columns="utterance_id", errors="ignore").duplicated()]
    if "sha256" not in rows:
        return rows
    hashed = rows[rows["sha256"].fillna("") != ""]
    if "split" in hashed:
        hashed = hashed.sort_values("split", key=lambda splits: splits.map(SPLIT_ORDER), kind="stable")
    return rows.drop(index=hashed.index[hashed["sha256"].duplicated()])


def find_conflicting_systems(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose `sha256` ("" if unknown) occurs with more than one system, grouped by sha256."""
    hashed = rows[rows["sha256"] != ""]
    groups = hashed.groupby("sha256", sort=False)
    system_counts = groups["system"].transform("nunique")
    group_numbers = groups.ngroup()
    return hashed.loc[group_numbers[system_counts > 1].sort_values(kind="stable").index]


def _check_paths(rows: pd.DataFrame, *, source: str, root: Path) -> None:
    outside = rows["path"][~rows["path"].map(is_inside_root)]
    if len(outside):
        raise CorpusError(
            f"{source}, row {outside.index[0]}: path {outside.iloc[0]!r} leaves the folder {root}; paths are "
            "relative to a folder that holds all files, without '..' and with / between folders",
            remedies=[SettingChange("external.root", "FOLDER")],
        )


def _check_splits(rows: pd.DataFrame, *, source: str, column: str) -> None:
    has_splits = bool((rows["split"] != "").any())
    unknown = rows[~rows["split"].isin(SPLITS) & has_splits]
    if len(unknown):
        in_column = f" in column {column!r}" if column else ""
        ignore_column = SettingChange("manifest.columns", {"split": ""}, "to ignore this column")
        raise CorpusError(
            f"{source}, row {unknown.index[0]}: split {unknown['split'].iloc[0]!r}{in_column}; if any row has a split, "
            f"every row needs one of {list(SPLITS)}",
            remedies=["correct the splits", ignore_column] if column else (),
        )


def _check_one_system_per_path(rows: pd.DataFrame, *, source: str) -> None:
    pairs = rows.drop_duplicates(["path", "system"])
    conflicts = pairs[pairs["path"].duplicated()]
    if len(conflicts):
        path, system = conflicts["path"].iloc[0], conflicts["system"].iloc[0]
        systems = pairs["system"][pairs["path"] == path]
        raise CorpusError(
            f"{source}, row {conflicts.index[0]}: path {path!r} has system {system!r}, but {systems.iloc[0]!r} in row "
            f"{systems.index[0]}; a file has one system: correct or remove one of the rows"
        )


def _check_one_path_per_utterance_id(rows: pd.DataFrame, *, source: str) -> None:
    pairs = rows.drop_duplicates(["utterance_id", "path"])
    conflicts = pairs[pairs["utterance_id"].duplicated()]
    if len(conflicts):
        utterance_id, path = conflicts["utterance_id"].iloc[0], conflicts["path"].iloc[0]
        paths = pairs["path"][pairs["utterance_id"] == utterance_id]
        raise CorpusError(
            f"{source}, row {conflicts.index[0]}: utterance_id {utterance_id!r} has path {path!r}, but "
            f"{paths.iloc[0]!r} in row {paths.index[0]}; give every file its own id, or leave the column out"
        )

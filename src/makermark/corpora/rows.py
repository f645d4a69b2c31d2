"""The manifest: one row per utterance, the same columns for every corpus.

A manifest is one Parquet file. Paths are POSIX, relative to a root that the file itself names
(`root` in the schema metadata: relative to the manifest's folder, or absolute for a corpus that
stays where it is). Empty text stands for "not known" in the optional columns.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from makermark.errors import FilesError, ManifestError
from makermark.files import explain, replacing

log = logging.getLogger(__name__)

SPLITS = ("train", "dev", "test")

GIVEN = pa.schema(
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

NEEDED = ("utterance_id", "path", "split", "system")  # in every row; the others may be empty

DERIVED = pa.schema(
    [
        ("system_seen", pa.bool_()),  # stands in train
        ("language_seen", pa.bool_()),
        ("acoustic_model_seen", pa.bool_()),
        ("vocoder_seen", pa.bool_()),
    ]
)

SCHEMA = pa.unify_schemas([GIVEN, DERIVED])

OF_SEEN = {
    "system_seen": "system",
    "language_seen": "language",
    "acoustic_model_seen": "acoustic_model",
    "vocoder_seen": "vocoder",
}

PROTOCOL_SEEN = {  # what a corpus' own protocol says instead; optional, empty in rows of train
    "protocol_system_seen": "system_seen",
    "protocol_language_seen": "language_seen",
}
STRATA_FROM = ("train", "protocol")


@dataclass(frozen=True)
class Manifest:
    """The rows of a corpus (columns of SCHEMA) and the folder that their paths start from."""

    corpus: str
    root: Path
    rows: pd.DataFrame

    def file(self, path: str) -> Path:
        """The audio file of a row's `path`."""
        return self.root / path


def stratum(system_seen: bool, language_seen: bool) -> str:
    """The stable name of a stratum, such as `unseen_system_seen_language`."""
    system = "seen" if system_seen else "unseen"
    language = "seen" if language_seen else "unseen"
    return f"{system}_system_{language}_language"


STRATA = tuple(stratum(system, language) for system in (True, False) for language in (True, False))


def strata(rows: pd.DataFrame) -> pd.Series:
    """The stratum of every row."""
    pairs = zip(rows["system_seen"], rows["language_seen"], strict=True)
    return pd.Series([stratum(*pair) for pair in pairs], index=rows.index, dtype="str")


def derive_seen(rows: pd.DataFrame, *, strata_from: str = "train") -> pd.DataFrame:
    """Add the four derived columns: seen means that the value stands in a row of split train.

    With `strata_from` protocol, the rows outside train have system and language seen as their columns PROTOCOL_SEEN
    say; raises ManifestError where a row says neither.
    """
    if strata_from not in STRATA_FROM:
        raise ManifestError(f"external.strata_from is {strata_from!r}; it is one of {list(STRATA_FROM)}")
    train = rows["split"] == "train"
    derived = {name: rows[column].isin(rows[column][train].unique()) for name, column in OF_SEEN.items()}
    for said, name in PROTOCOL_SEEN.items() if strata_from == "protocol" else ():
        if said not in rows or rows[said][~train].isna().any():
            raise ManifestError(
                f"no {said} in some rows of dev or test: this corpus' protocol files no strata, or another label "
                "than the system is traced; set external.strata_from: train"
            )
        derived[name] = derived[name].where(train, rows[said].astype("boolean").fillna(True).astype(bool))
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
    """Check `rows` (columns of GIVEN), derive what train has seen, and write one Parquet file.

    Columns PROTOCOL_SEEN, where the rows have them, are kept beside (see `derive_seen`). With `repeats` a file may
    stand in several rows, and the manifest says so. `tables` gives the files that the rows came from, by full path,
    with their sha256.

    `root` is relative to the manifest's folder unless absolute. Rows are sorted by utterance_id,
    so that the same rows give the same bytes. Raises ManifestError.
    """
    check(rows, source=str(path), repeats=repeats)
    rows = derive_seen(rows, strata_from=strata_from).sort_values("utterance_id", ignore_index=True)
    extra = [name for name in PROTOCOL_SEEN if name in rows]
    schema = pa.unify_schemas([SCHEMA, pa.schema([(name, pa.bool_()) for name in extra])])
    table = pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False)
    told = {"corpus": corpus, "root": root} | ({"repeats": "kept"} if repeats else {})
    told |= {"tables": json.dumps(tables)} if tables else {}
    table = table.replace_schema_metadata(told)
    with replacing(path) as draft:
        pq.write_table(table, draft, write_page_checksum=True)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest; raises FilesError if it cannot be read, ManifestError if it is not one.

    Where a table that it was made from has changed since, the log says so: DVC watches no file outside the repository.
    """
    try:
        with Path(path).open("rb") as file:
            table = pq.read_table(file, page_checksum_verification=True)
        wanted = [SCHEMA.field(f.name) if f.name in SCHEMA.names else f for f in table.schema]
        table.validate(full=True)
        rows = table.cast(pa.schema(wanted)).to_pandas()
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    except (pa.ArrowException, ValueError) as error:
        raise _unreadable(path, error) from error
    except OSError as error:
        if error.errno is None:  # not from the system: pyarrow says so of damaged files too
            raise _unreadable(path, error) from error
        raise FilesError(explain(error, path)) from error
    if "corpus" not in metadata or "root" not in metadata:
        raise ManifestError(
            f"{path}: no `corpus` and `root` in its metadata; this is not a makermark manifest"
        )
    check(rows, source=str(path), repeats="repeats" in metadata)
    missing = [name for name in DERIVED.names if name not in rows]
    if missing:
        raise ManifestError(f"{path}: columns {missing} are missing; write it with write_manifest")
    for table, sha256 in json.loads(metadata.get("tables", "{}")).items():
        if Path(table).is_file() and sha256_of(Path(table)) != sha256:
            log.warning(
                "%s: changed since %s was made from it; for what it says now: dvc repro -f download, then dvc repro",
                table, path,
            )  # fmt: skip
    root = Path(path).parent / metadata["root"]
    return Manifest(corpus=metadata["corpus"], root=root, rows=rows)


def sha256_of(file: Path) -> str:
    """Of a file's bytes; raises FilesError where it cannot be read."""
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise FilesError(explain(error, file)) from error


def _unreadable(path: Path, error: Exception) -> ManifestError:
    reason = " ".join(str(error).split())
    return ManifestError(f"{path}: not a readable Parquet file ({reason}); run the download stage again")


def check(rows: pd.DataFrame, *, source: str, repeats: bool = False) -> None:
    """Raise ManifestError for missing columns, no rows, a row without id, path, split or system, unknown
    splits, repeated ids, repeated paths unless `repeats`, or a path that leaves the root. Row numbers in messages
    start at 0."""
    missing = [name for name in GIVEN.names if name not in rows]
    if missing:
        raise ManifestError(f"{source}: columns {missing} are missing; a manifest has {GIVEN.names}")
    if rows.empty:
        raise ManifestError(f"{source}: no rows; a manifest needs at least one utterance")
    rows = rows.reset_index(drop=True)
    for column in NEEDED:
        without = rows.index[rows[column].isna() | (rows[column] == "")]
        if len(without):
            raise ManifestError(f"{source}: row {without[0]} has no {column}; every utterance needs one")
    unknown = sorted(set(rows["split"]) - set(SPLITS))
    if unknown:
        raise ManifestError(f"{source}: unknown split {unknown[0]!r}; a split is one of {list(SPLITS)}")
    _refuse_repeated(rows["utterance_id"], rows["utterance_id"], source=source)
    if not repeats:
        _refuse_repeated(rows["path"], rows["path"].map(lambda path: str(PurePosixPath(path))), source=source)
    for row, path in rows["path"].items():
        if not stays_inside(path):
            raise ManifestError(
                f"{source}: row {row}: path {path!r} leaves the corpus folder; paths are relative, without '..'"
            )


def _refuse_repeated(given: pd.Series, meant: pd.Series, *, source: str) -> None:
    """`meant` are the values that must differ, `given` what the user wrote for them."""
    repeated = meant.index[meant.duplicated()]
    if len(repeated):
        where = meant.index[meant == meant[repeated[0]]]
        raise ManifestError(
            f"{source}: {given.name} {given[repeated[0]]!r} appears twice (rows {where[0]} and {where[1]}); "
            "remove one"
        )


def stays_inside(path: str) -> bool:
    """Whether a POSIX path is relative and climbs nowhere."""
    parts = PurePosixPath(path)
    plain = bool(path) and "\\" not in path and "\0" not in path
    return plain and not parts.is_absolute() and ".." not in parts.parts

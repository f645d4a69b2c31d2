"""The tables of MLAADv5: its source-tracing protocol (split and stratum of every utterance), and its transcripts.

`train.csv`, `dev.csv` and `eval.csv` have the columns `path` and `model_name`. A path has the form
`./fake/LANGUAGE/FOLDER/FILE.wav`, in some copies without the `./`. Eight tables in `fine/` divide the rows of dev and
eval by whether train contains their language and their model. Nothing is unpacked to disk.
"""

from __future__ import annotations

import csv
import io
import logging
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path, PurePosixPath

import pandas as pd

from makermark.foundation.errors import CorpusError, FilesError
from makermark.foundation.files import describe_os_error
from makermark.foundation.manifest import is_inside_root

log = logging.getLogger(__name__)

SPLIT_OF = {"train.csv": "train", "dev.csv": "dev", "eval.csv": "test"}
COLUMNS = ["path", "model_name"]
SEEN = {"seen": True, "not_seen": False}
MAX_TABLE_BYTES = 200_000_000  # the published tables have 4 million at most
REMEDY = (
    "set mlaad.protocol to the protocol's zip or its unpacked folder, or leave it empty to download it again"
)

ReadMember = Callable[[str], bytes]
Stratum = tuple[bool, bool]  # system seen, language seen


def read_protocol(source: Path) -> pd.DataFrame:
    """Return the rows of the protocol (a zip, or its unpacked folder) in its order, with its repeated rows.

    Columns: path (POSIX, `fake/...`), split, system, language, and from the tables in `fine/` protocol_system_seen and
    protocol_language_seen (nullable booleans; NA in train, and everywhere in a copy without `fine/`).

    Raises CorpusError with file and line, FilesError if the file cannot be read.
    """
    source = Path(source)
    with _open_source(source) as (names, read_member):
        folder = _find_folder(names, source)
        tables = [
            _read_table(folder / table, read_member, source=source).assign(split=split)
            for table, split in SPLIT_OF.items()
        ]
        strata = _read_strata(folder, names, read_member, source=source)
    rows = pd.concat(tables, ignore_index=True)
    _check_one_system_per_path(rows, source=source)
    for index, column in enumerate(("protocol_system_seen", "protocol_language_seen")):
        seen_of = {path: stratum[index] for path, stratum in strata.items()}
        rows[column] = pd.array([seen_of.get(path, pd.NA) for path in rows["path"]], dtype="boolean")
    rows.loc[rows["split"] == "train", ["protocol_system_seen", "protocol_language_seen"]] = pd.NA
    return rows.drop(columns="line")


@contextmanager
def _open_source(source: Path) -> Iterator[tuple[list[str], ReadMember]]:
    """Yield the names of all files in a zip or folder and a function that reads one.

    Raises CorpusError or FilesError for every fault, also while the caller reads.
    """
    try:
        if source.is_dir():
            files = {file.relative_to(source).as_posix(): file for file in source.rglob("*.csv")}
            yield list(files), lambda name: files[name].read_bytes()
            return
        with zipfile.ZipFile(source) as archive:
            for member in archive.infolist():
                if not is_inside_root(member.filename):
                    raise CorpusError(f"{source}: member {member.filename!r} leaves the archive; {REMEDY}")
                if member.file_size > MAX_TABLE_BYTES:
                    raise CorpusError(
                        f"{source}: member {member.filename} has {member.file_size} bytes; {REMEDY}"
                    )
            yield archive.namelist(), archive.read
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
        raise CorpusError(f"{source}: not a complete zip archive ({error}); {REMEDY}") from error
    except RuntimeError as error:  # zipfile raises it for a password
        raise CorpusError(f"{source}: cannot be unpacked ({error}); {REMEDY}") from error
    except OSError as error:
        raise FilesError(f"{describe_os_error(error, source)}; {REMEDY}") from error


def _find_folder(names: list[str], source: Path) -> PurePosixPath:
    """Return the outermost folder with a train.csv. Raises CorpusError if it lacks one of the three tables."""
    tables = (path for path in map(PurePosixPath, names) if path.name == "train.csv")
    folder = min(tables, key=lambda path: len(path.parts), default=PurePosixPath("train.csv")).parent
    missing = [table for table in SPLIT_OF if (folder / table).as_posix() not in names]
    if missing:
        raise CorpusError(f"{source}: has no {', '.join(missing)}: the protocol is not complete; {REMEDY}")
    return folder


def _read_table(name: PurePosixPath, read_member: ReadMember, *, source: Path) -> pd.DataFrame:
    """Return path, system, language and line number of each row. Raises CorpusError with the line."""
    table = f"{source}/{name}"
    try:
        text = read_member(name.as_posix()).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{table}: not a table in UTF-8 ({error.reason}); {REMEDY}") from error
    lines = csv.reader(io.StringIO(text, newline=""))
    rows = []
    try:
        header = next(lines, [])
        if header != COLUMNS:
            raise CorpusError(f"{table}:1: the columns are {str(header)[:80]}, not {COLUMNS}; {REMEDY}")
        for fields in lines:
            if len(fields) != len(COLUMNS) or not all(fields):
                raise CorpusError(
                    f"{table}:{lines.line_num}: {str(fields)[:80]} is not a path and a model; correct that line"
                )
            path, language = _parse_path(fields[0], line=f"{table}:{lines.line_num}")
            rows.append((path, fields[1], language, lines.line_num))
    except csv.Error as error:
        raise CorpusError(f"{table}:{lines.line_num}: not a table ({error}); {REMEDY}") from error
    if not rows:
        raise CorpusError(f"{table}: has no rows; {REMEDY}")
    return pd.DataFrame(rows, columns=["path", "system", "language", "line"])


def _parse_path(path: str, *, line: str) -> tuple[str, str]:
    """Return the path without `./`, and its language."""
    if not is_inside_root(path):
        raise CorpusError(
            f"{line}: path {path!r} leaves the corpus folder; paths are relative, without '..': correct that line"
        )
    parts = PurePosixPath(path).parts
    if len(parts) != 4 or parts[0] != "fake":
        raise CorpusError(
            f"{line}: path {path!r} does not have the form fake/LANGUAGE/MODEL/FILE; correct that line"
        )
    return "/".join(parts), parts[1]


def _read_strata(
    folder: PurePosixPath, names: list[str], read_member: ReadMember, *, source: Path
) -> dict[str, Stratum]:
    """Return the stratum of each path in the tables of `fine/`; none if there are no such tables."""
    tables = {
        folder / f"fine/{split}___lang_{language}___model_{system}.csv": (SEEN[system], SEEN[language])
        for split, language, system in product(("dev", "eval"), SEEN, SEEN)
    }
    missing = [table for table in tables if table.as_posix() not in names]
    if len(missing) == len(tables):
        log.info("%s has no tables in fine/: the strata of the protocol are unknown", source)
        return {}
    if missing:
        raise CorpusError(f"{source}: has no {missing[0]}, but other tables of fine/; {REMEDY}")
    strata: dict[str, Stratum] = {}
    for name, stratum in tables.items():
        rows = _read_table(name, read_member, source=source)
        for path, line in zip(rows["path"], rows["line"], strict=True):
            if strata.setdefault(path, stratum) != stratum:
                raise CorpusError(
                    f"{source}/{name}:{line}: {path} is also in another stratum; remove one of the rows"
                )
    return strata


def _check_one_system_per_path(rows: pd.DataFrame, *, source: Path) -> None:
    first = rows.groupby("path")["system"].transform("first")
    for row in rows.index[first != rows["system"]][:1]:
        table = next(table for table, split in SPLIT_OF.items() if split == rows["split"][row])
        raise CorpusError(
            f"{source}/{table}:{rows['line'][row]}: {rows['path'][row]} has system {rows['system'][row]} in this row "
            f"and {first[row]} in another; one file has one system: correct one of the rows"
        )


def read_transcripts(paths: pd.Series, *, root: Path) -> pd.Series:
    """Return the transcript of each path; "" if the copy has no readable table, or no row for the path.

    The tables meta.csv, one in each folder `fake/LANGUAGE/MODEL`, have `|` between the fields.
    """
    folders = paths.map(lambda path: PurePosixPath(path).parent.as_posix())
    transcripts = {folder: _read_meta(root / folder / "meta.csv") for folder in folders.unique()}
    texts = [
        transcripts[folder].get(path.rpartition("/")[2], "")
        for folder, path in zip(folders, paths, strict=True)
    ]
    return pd.Series(texts, index=paths.index, dtype="str")


def _read_meta(table: Path) -> dict[str, str]:
    """Return the transcripts by file name."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, delimiter="|", quoting=csv.QUOTE_NONE)
            return {row["path"].rpartition("/")[2]: row["transcript"] or "" for row in rows}
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError) as error:
        log.warning("%s: the transcripts cannot be read (%s); they stay unknown", table, error)
        return {}

"""The source-tracing protocol of MLAADv5: which utterance is in which split, and in which stratum it was filed.

`train.csv`, `dev.csv` and `eval.csv` have the columns `path` and `model_name`; a path is
`./fake/LANGUAGE/FOLDER/FILE.wav`, in some copies without the `./`. Eight tables under `fine/` file each row of
dev and eval by whether train holds its language and its model. Nothing is unpacked: tables are read in memory.
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

from makermark.corpora.rows import stays_inside
from makermark.errors import CorpusError, FilesError
from makermark.files import explain

log = logging.getLogger(__name__)

SPLIT_OF = {"train.csv": "train", "dev.csv": "dev", "eval.csv": "test"}
COLUMNS = ["path", "model_name"]
SEEN = {"seen": True, "not_seen": False}
LARGEST_TABLE = 200_000_000  # bytes; the real ones have 4 million at most
MEND = (
    "name the protocol's zip or its unpacked folder as mlaad.protocol, or leave it empty to download it again"
)

Read = Callable[[str], bytes]


def read_protocol(source: Path) -> pd.DataFrame:
    """The rows of the protocol, a zip or the folder it was unpacked into, in its order and with its repetitions.

    Columns path (POSIX, `fake/...`), split, system, language and, as the protocol's `fine/` tables have it,
    protocol_system_seen and protocol_language_seen (nullable booleans; NA in train, and everywhere in a copy without
    `fine/`). Raises CorpusError naming file and line.
    """
    source = Path(source)
    with _opened(source) as (names, read):
        folder = _folder_of_tables(names, source)
        rows = pd.concat(
            [
                _table(folder / table, read, source=source).assign(split=split)
                for table, split in SPLIT_OF.items()
            ],
            ignore_index=True,
        )
        strata = _strata(folder, names, read, source=source)
    _refuse_two_systems(rows, source=source)
    for column, place in (("protocol_system_seen", 0), ("protocol_language_seen", 1)):
        filed = {path: stratum[place] for path, stratum in strata.items()}
        rows[column] = pd.array([filed.get(path, pd.NA) for path in rows["path"]], dtype="boolean")
    rows.loc[rows["split"] == "train", ["protocol_system_seen", "protocol_language_seen"]] = pd.NA
    return rows.drop(columns="line")


@contextmanager
def _opened(source: Path) -> Iterator[tuple[list[str], Read]]:
    """The names of all files in a zip or folder, and how to read one; every fault as CorpusError or FilesError."""
    try:
        if source.is_dir():
            files = {file.relative_to(source).as_posix(): file for file in source.rglob("*.csv")}
            yield list(files), lambda name: files[name].read_bytes()
            return
        with zipfile.ZipFile(source) as archive:
            for entry in archive.infolist():
                if not stays_inside(entry.filename):
                    raise CorpusError(
                        f"{source}: member {entry.filename!r} climbs out of the archive; {MEND}"
                    )
                if entry.file_size > LARGEST_TABLE:
                    raise CorpusError(
                        f"{source}: member {entry.filename} has {entry.file_size} bytes; {MEND}"
                    )
            yield archive.namelist(), archive.read
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
        raise CorpusError(f"{source}: not a whole zip archive ({error}); {MEND}") from error
    except RuntimeError as error:  # zipfile's word for a password
        raise CorpusError(f"{source}: cannot be unpacked ({error}); {MEND}") from error
    except OSError as error:
        raise FilesError(f"{explain(error, source)}; {MEND}") from error


def _folder_of_tables(names: list[str], source: Path) -> PurePosixPath:
    """The folder that holds the three tables: the outermost of them that has a train.csv."""
    found = sorted(
        (PurePosixPath(name) for name in names if PurePosixPath(name).name == "train.csv"), key=_depth
    )
    folder = found[0].parent if found else PurePosixPath(".")
    missing = [table for table in SPLIT_OF if (folder / table).as_posix() not in names]
    if missing:
        raise CorpusError(f"{source}: holds no {', '.join(missing)}, so it is not the whole protocol; {MEND}")
    return folder


def _depth(path: PurePosixPath) -> int:
    return len(path.parts)


def _table(name: PurePosixPath, read: Read, *, source: Path) -> pd.DataFrame:
    """One table: path, system, language and the line they stand on. Raises CorpusError with the line."""
    where = f"{source}/{name}"
    try:
        text = read(name.as_posix()).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{where}: not a table in UTF-8 ({error.reason}); {MEND}") from error
    lines = csv.reader(io.StringIO(text, newline=""))
    rows = []
    try:
        header = next(lines, [])
        if header != COLUMNS:
            raise CorpusError(f"{where}:1: the columns are {str(header)[:80]}, not {COLUMNS}; {MEND}")
        for fields in lines:
            if len(fields) != len(COLUMNS) or not all(fields):
                raise CorpusError(
                    f"{where}:{lines.line_num}: {str(fields)[:80]} is no path and model; mend that line"
                )
            path, language = _plain(fields[0], where=f"{where}:{lines.line_num}")
            rows.append((path, fields[1], language, lines.line_num))
    except csv.Error as error:
        raise CorpusError(f"{where}:{lines.line_num}: not a table ({error}); {MEND}") from error
    if not rows:
        raise CorpusError(f"{where}: has no rows; {MEND}")
    return pd.DataFrame(rows, columns=["path", "system", "language", "line"])


def _plain(path: str, *, where: str) -> tuple[str, str]:
    """The path without `./`, and its language."""
    if not stays_inside(path):
        raise CorpusError(
            f"{where}: path {path!r} leaves the corpus folder; paths are relative, without '..'"
        )
    parts = PurePosixPath(path).parts
    if len(parts) != 4 or parts[0] != "fake":
        raise CorpusError(
            f"{where}: path {path!r} is not of the form fake/LANGUAGE/MODEL/FILE; mend that line"
        )
    return "/".join(parts), parts[1]


def _strata(
    folder: PurePosixPath, names: list[str], read: Read, *, source: Path
) -> dict[str, tuple[bool, bool]]:
    """For each path that `fine/` files: whether its system and its language are said to be seen."""
    tables = {
        folder / f"fine/{split}___lang_{language}___model_{system}.csv": (SEEN[system], SEEN[language])
        for split, language, system in product(("dev", "eval"), SEEN, SEEN)
    }
    missing = [table for table in tables if table.as_posix() not in names]
    if len(missing) == len(tables):
        log.info("%s has no fine/ tables: strata as the protocol has them are not known", source)
        return {}
    if missing:
        raise CorpusError(f"{source}: holds no {missing[0]}, but others of fine/; {MEND}")
    filed: dict[str, tuple[bool, bool]] = {}
    for name, stratum in tables.items():
        rows = _table(name, read, source=source)
        for path, line in zip(rows["path"], rows["line"], strict=True):
            if filed.setdefault(path, stratum) != stratum:
                raise CorpusError(
                    f"{source}/{name}:{line}: {path} is filed in another stratum too; remove one"
                )
    return filed


def _refuse_two_systems(rows: pd.DataFrame, *, source: Path) -> None:
    first = rows.groupby("path")["system"].transform("first")
    for row in rows.index[first != rows["system"]][:1]:
        table = next(table for table, split in SPLIT_OF.items() if split == rows["split"][row])
        raise CorpusError(
            f"{source}/{table}:{rows['line'][row]}: {rows['path'][row]} is of system {rows['system'][row]} here and of "
            f"{first[row]} elsewhere; one file has one system"
        )

"""The locations of artifacts in a store that was copied or moved with its project.

MLflow stores them as absolute paths, so that a copy would read, and write, the artifacts of its origin.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from makermark.foundation.errors import TrackingError
from makermark.foundation.tracking.provenance import find_main_repository, has_uri_characters, own_database

log = logging.getLogger(__name__)

ARTIFACTS = "mlartifacts"  # the folder of all artifacts, in the main repository
FOLDERS = (ARTIFACTS, "mlruns")  # mlruns: of the experiment that MLflow creates in every store
EXPERIMENTS = ("experiments", "artifact_location")
RUNS = ("runs", "artifact_uri")  # ARTIFACTS/RUN/artifacts
# Tables and columns of MLflow's database that hold a location.
LOCATION_COLUMNS = (
    EXPERIMENTS,
    RUNS,
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
TIMEOUT_S = 30.0


def artifact_location(folder: Path) -> str:
    """Return a folder as MLflow needs it: as a URI if it has characters that MLflow would decode."""
    return folder.as_uri() if has_uri_characters(str(folder)) else str(folder)


def correct_locations(start: Path) -> None:
    """Let the store of the repository around `start` name the artifacts in this repository.

    For a store inside the repository that was copied or moved with it. Artifacts that are not here, but still at their
    origin, keep their location. Raises TrackingError if a location is wrong and the database cannot be written.
    """
    database, root = own_database(start), find_main_repository(start)
    if database is None:
        return
    try:
        with closing(_connect(database, "ro")) as connection:
            wrong = list(_wrong_locations(connection, root))
    except sqlite3.Error:
        return  # MLflow, which opens the database next, says what is wrong with it
    if not wrong:
        return
    try:
        with closing(_connect(database, "rw")) as connection, connection:
            for table, column, row, location in wrong:
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (location, row))
    except sqlite3.Error as error:
        raise TrackingError(
            f"{database}: the project was copied or moved, but the locations of its artifacts cannot be corrected "
            f"({error}); make the file writable, or set MLFLOW_TRACKING_URI to another store"
        ) from error
    log.info(
        "%s: the store was copied or moved; its artifacts are now those in %s", database, root / ARTIFACTS
    )


def _connect(database: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(database))}?mode={mode}", uri=True, timeout=TIMEOUT_S)


def _wrong_locations(connection: sqlite3.Connection, root: Path) -> Iterator[tuple[str, str, int, str]]:
    """Yield table, column, row and correct value of every location that belongs below `root` and is elsewhere."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables.issuperset({EXPERIMENTS[0], RUNS[0]}):
        return
    experiments, runs = (
        [_local_path(value) for _, value in _read_locations(connection, *part)]
        for part in (EXPERIMENTS, RUNS)
    )
    folders = [*experiments, *(path and path.parent.parent for path in runs)]
    origins = {
        path.parent for path in folders if path and path.name == ARTIFACTS and not _is_same(path.parent, root)
    }
    for table, column in LOCATION_COLUMNS if origins else ():
        for row, value in _read_locations(connection, table, column) if table in tables else ():
            moved = _move(_local_path(value), origins, root)
            if moved is not None:
                yield table, column, row, artifact_location(moved)


def _read_locations(connection: sqlite3.Connection, table: str, column: str) -> list[tuple[int, str]]:
    return connection.execute(f"SELECT rowid, {column} FROM {table} WHERE {column} IS NOT NULL").fetchall()


def _move(path: Path | None, origins: Collection[Path], root: Path) -> Path | None:
    """Return the location below `root` of a path in FOLDERS of one of `origins`.

    None for any other path, and for artifacts of a run that are at their origin and not below `root`.
    """
    for origin in origins:
        if path is not None and any(path.is_relative_to(origin / folder) for folder in FOLDERS):
            moved = root / path.relative_to(origin)
            is_only_there = path != origin / ARTIFACTS and path.exists() and not moved.exists()
            return None if is_only_there else moved
    return None


def _local_path(location: str) -> Path | None:
    """Return the path of a location on this machine: a path or a file URI; None for any other URI."""
    if location.startswith("/"):
        return Path(location)
    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def _is_same(path: Path, other: Path) -> bool:
    return path == other or path.resolve() == other.resolve()

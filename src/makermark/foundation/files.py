"""Atomic writing of files: an output is written beside its path and renamed on success."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from makermark.foundation.errors import FilesError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a draft path in the folder of `path`; on success the draft is renamed to `path`.

    On an error the draft is deleted and `path` is unchanged. The draft is flushed to disk before it is renamed, so
    that a power failure leaves the old file or the new one. Raises FilesError for an error of the operating system.
    """
    path = Path(path)
    draft = _draft_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.touch(exist_ok=False)
        yield draft
        with draft.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(draft, path)
    except OSError as error:
        raise FilesError(describe_os_error(error, _failed_path(error, draft, path))) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """As `atomic_write`, for a folder: the old folder is removed after the new one is complete."""
    path = Path(path)
    draft = _draft_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        yield draft
        if path.exists():
            shutil.rmtree(path)
        os.replace(draft, path)
    except OSError as error:
        raise FilesError(describe_os_error(error, _failed_path(error, draft, path))) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _draft_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.draft{path.suffix}")


def _failed_path(error: OSError, draft: Path, path: Path) -> Path:
    """Return the path that the error concerns: `path` if the error names the draft or no file."""
    name = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else draft
    return path if name == draft or draft in name.parents else name


def describe_os_error(error: OSError, path: Path) -> str:
    """Return one line for an error of the operating system: path, reason and remedy."""
    remedies = {
        "ENOSPC": "free some space there and run again; no incomplete file remains",
        "EDQUOT": "free some of your quota and run again; no incomplete file remains",
        "EROFS": "the folder is read-only: choose another or remount it writable",
        "EACCES": "you may not write or read there: change its permissions or choose another folder",
        "EPERM": "you may not write or read there: change its permissions or choose another folder",
        "ENOENT": "it does not exist: run the stage that writes it, or correct the path",
        "ENOTDIR": "a part of this path is a file, not a folder: move it away or correct the path",
        "EEXIST": "a file is where a folder is needed: move it away or correct the path",
        "EISDIR": "this is a folder where a file was expected: move it away or correct the path",
    }
    code = errno.errorcode.get(error.errno or 0, "")
    remedy = remedies.get(code, "correct the reason and run again")
    return f"{path}: {error.strerror or error}; {remedy}"


def write_json(path: Path, content: Mapping[str, Any] | list[Any]) -> None:
    """Write `content` as indented JSON. Raises ValueError for NaN and infinity, which JSON lacks."""
    with atomic_write(path) as draft:
        draft.write_text(
            json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
            encoding="utf-8",
        )


def read_json(path: Path) -> Any:
    """Read JSON. Raises FilesError with the file, and the line that is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FilesError(describe_os_error(error, path)) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FilesError(f"{path}: not JSON ({error}); delete it and run the stage that writes it") from error


def write_arrow(path: Path, table: pa.Table) -> None:
    """Write one Arrow IPC file."""
    with (
        atomic_write(path) as draft,
        pa.OSFile(str(draft), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)


def read_arrow(path: Path) -> pa.Table:
    """Memory-map one Arrow IPC file and check its contents. Raises FilesError if it is damaged or cannot be read."""
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        table.validate(full=True)  # offsets and lengths, which are not checked when a column is converted
        return table
    except (pa.ArrowException, UnicodeDecodeError) as error:  # the latter of the name of a column
        raise FilesError(
            f"{path}: damaged Arrow file ({error}); delete it and run the stage that writes it"
        ) from error
    except OSError as error:
        raise FilesError(describe_os_error(error, path)) from error


def read_metadata(table: pa.Table, path: Path) -> dict[str, str]:
    """Return the schema metadata of a table of `path` as text. Raises FilesError if they are not UTF-8."""
    try:
        return {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    except UnicodeDecodeError as error:
        raise FilesError(
            f"{path}: damaged metadata ({error}); delete it and run the stage that writes it"
        ) from error

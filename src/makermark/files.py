"""Whole files or none: every output is written beside its place and takes its name on success."""

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

from makermark.errors import FilesError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a draft path in the folder of `path`; on success the draft becomes `path`.

    On any error the draft is deleted and what stood at `path` before is untouched. The draft is
    flushed to disk before the rename, so that a power cut leaves the old file or the new one.

    Raises FilesError, naming the path and the remedy, for what the operating system refuses.
    """
    path = Path(path)
    draft = _draft_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.touch(exist_ok=False)
        yield draft
        with draft.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(draft, path)
    except OSError as error:
        raise FilesError(explain(error, _culprit(error, draft, path))) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """As `replacing`, for a folder: the old folder is removed only once the new one is whole."""
    path = Path(path)
    draft = _draft_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        yield draft
        if path.exists():
            shutil.rmtree(path)
        os.replace(draft, path)
    except OSError as error:
        raise FilesError(explain(error, _culprit(error, draft, path))) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.draft{path.suffix}")


def _culprit(error: OSError, draft: Path, path: Path) -> Path:
    """The file that the system refused: `path` where it names the draft or none."""
    named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else draft
    return path if named == draft or draft in named.parents else named


def explain(error: OSError, path: Path) -> str:
    """One line for an operating-system error: the path, the reason, the remedy."""
    remedies = {
        "ENOSPC": "free some space there and run again; nothing half-written was kept",
        "EDQUOT": "free some of your quota and run again; nothing half-written was kept",
        "EROFS": "the folder is read-only: choose another or remount it writable",
        "EACCES": "you may not write or read there: change its permissions or choose another folder",
        "EPERM": "you may not write or read there: change its permissions or choose another folder",
        "ENOENT": "it does not exist: run the stage that makes it, or mend the path",
        "ENOTDIR": "a part of this path is a file, not a folder: move it away or mend the path",
        "EEXIST": "a file stands where a folder is needed: move it away or mend the path",
        "EISDIR": "this is a folder where a file was expected: move it away or mend the path",
    }
    code = errno.errorcode.get(error.errno or 0, "")
    remedy = remedies.get(code, "see the reason, mend it and run again")
    return f"{path}: {error.strerror or error}; {remedy}"


def write_json(path: Path, content: Mapping[str, Any] | list[Any]) -> None:
    """Write `content` as indented JSON; NaN and infinity are refused, since JSON has neither."""
    with replacing(path) as draft:
        draft.write_text(
            json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
            encoding="utf-8",
        )


def read_json(path: Path) -> Any:
    """Read JSON; raises FilesError naming the file, and the line where it is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FilesError(explain(error, path)) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FilesError(f"{path}: not JSON ({error}); delete it and run the stage that makes it") from error


def write_arrow(path: Path, table: pa.Table) -> None:
    """Write one Arrow IPC file."""
    with (
        replacing(path) as draft,
        pa.OSFile(str(draft), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)


def read_arrow(path: Path) -> pa.Table:
    """Memory-map one Arrow IPC file without copying; raises FilesError if it is damaged."""
    try:
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()
    except pa.ArrowException as error:
        raise FilesError(
            f"{path}: damaged Arrow file ({error}); delete it and run the stage that makes it"
        ) from error
    except OSError as error:
        raise FilesError(explain(error, path)) from error

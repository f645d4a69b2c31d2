"""Protocols that are plain text."""

from __future__ import annotations

from pathlib import Path

from makermark.errors import CorpusError, FilesError
from makermark.files import explain


def read_lines(file: Path) -> list[str]:
    """The lines of a text in UTF-8, with or without byte-order mark.

    Raises FilesError where it cannot be read, CorpusError naming the line that is not UTF-8.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise FilesError(explain(error, file)) from error
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CorpusError(
            f"{file}, line {line}: not UTF-8 ({error.reason}); save it as UTF-8, or move it away if it is no protocol"
        ) from error

"""`corpus: folders`: one folder per system, or one folder per split that holds one folder per system."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from makermark.corpora.listing import Listing, count_suffixes, is_audio_file
from makermark.corpora.readers.table import SPLIT_OF
from makermark.foundation.errors import CorpusError, FilesError
from makermark.foundation.files import describe_os_error

log = logging.getLogger(__name__)

MAX_LOGGED_FOLDERS = 20


def read_listing(root: Path) -> Listing:
    """Return every audio file in root/<system>/, or in root/<split>/<system>/ if all folders have the name of a split.

    Files of other suffixes are skipped. A warning counts them, and names the systems of which no file is audio.

    Raises CorpusError for a root that does not exist or holds no audio, and for a file outside these folders.
    """
    files = list_audio_files(root)
    has_splits = {file.relative_to(root).parts[0].lower() for file in files} <= set(SPLIT_OF)
    depth = 1 if has_splits else 0
    rows = []
    for file in files:
        path = file.relative_to(root)
        if len(path.parts) < depth + 2:
            layout = "split/system" if has_splits else "system"
            raise CorpusError(
                f"{file}: is not in the folder of a system; corpus folders has the layout {root}/{layout}/audio"
            )
        split = SPLIT_OF[path.parts[0].lower()] if has_splits else ""
        rows.append((path.as_posix(), path.parts[depth], split))
    return Listing(rows=pd.DataFrame(rows, columns=["path", "system", "split"]), root=root)


def list_audio_files(root: Path) -> list[Path]:
    """Return all audio files (listing.AUDIO_SUFFIXES) below a folder, sorted; a warning counts the other files.

    Hidden files and folders are skipped, links are followed.

    Raises CorpusError for a root that does not exist or holds no audio file, and for a file name that is not UTF-8.
    """
    if not root.is_dir():
        problem = "not a folder; name the folder that holds the corpus"
        raise CorpusError(problem, setting="external.root", value=str(root))
    try:
        every_file = sorted(_list_files(root, parents=frozenset()))
    except OSError as error:
        raise FilesError(describe_os_error(error, Path(error.filename or root))) from error
    files = [file for file in every_file if is_audio_file(file)]
    others = [file for file in every_file if not is_audio_file(file)]
    if not files:
        others_text = f" among {len(others)}: {count_suffixes(others)}" if others else ""
        raise CorpusError(
            f"the folder holds no audio file{others_text}; name the folder that holds the corpus",
            setting="external.root",
            value=str(root),
        )
    if others:
        without = sorted({file.parent for file in others} - {file.parent for file in files})
        where = ", ".join(str(folder.relative_to(root)) for folder in without[:MAX_LOGGED_FOLDERS])
        more = f" and {len(without) - MAX_LOGGED_FOLDERS} more" if len(without) > MAX_LOGGED_FOLDERS else ""
        log.warning(
            "%s: %d files are skipped, their suffixes are not of audio: %s%s",
            root, len(others), count_suffixes(others),
            f"; folders without audio: {where}{more}" if without else "",
        )  # fmt: skip
    invalid = next((file for file in files if not _is_utf8(file)), None)
    if invalid is not None:
        raise CorpusError(
            f"{os.fsencode(invalid)!r}: the file name is not UTF-8, as in archives of other operating systems; rename "
            "it (for instance with convmv)"
        )
    return files


def _list_files(folder: Path, *, parents: frozenset[str]) -> Iterator[Path]:
    """Yield the files below `folder`. A link to one of the `parents` (real paths) is not followed."""
    real_path = os.path.realpath(folder)
    if real_path in parents:
        return
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _list_files(entry, parents=parents | {real_path})
        else:
            yield entry


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True

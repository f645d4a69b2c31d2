"""`corpus: folders`: a folder per system, or a folder per split with a folder per system in each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from makermark.corpora.listing import Listing
from makermark.corpora.tables import SPLIT_OF
from makermark.errors import CorpusError, FilesError
from makermark.files import explain

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif")


def listing(root: Path) -> Listing:
    """Every audio file below root/<system>/, or below root/<split>/<system>/ where all folders have names of splits.

    Raises CorpusError for a root that does not exist or holds no audio, and for a file that lies in no such folder.
    """
    files = audio_files(root)
    splits = {file.relative_to(root).parts[0].lower() for file in files} <= set(SPLIT_OF)
    depth = 1 if splits else 0
    rows = []
    for file in files:
        path = file.relative_to(root)
        if len(path.parts) < depth + 2:
            wanted = "split/system" if splits else "system"
            raise CorpusError(
                f"{file}: lies in no folder of a system; corpus folders is {root}/{wanted}/audio"
            )
        split = SPLIT_OF[path.parts[0].lower()] if splits else ""
        rows.append((path.as_posix(), path.parts[depth], split))
    return Listing(rows=pd.DataFrame(rows, columns=["path", "system", "split"]), root=root)


def audio_files(root: Path) -> list[Path]:
    """All audio files below a folder, sorted. Hidden ones and those in hidden folders are passed over, links followed.

    Raises CorpusError for a root that does not exist or holds none, and for a name that is not UTF-8.
    """
    if not root.is_dir():
        raise CorpusError(f"external.root: {str(root)!r} is no folder; name the one that holds the corpus")
    try:
        found = sorted(file for file in _files(root, above=frozenset()) if file.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise FilesError(explain(error, Path(error.filename or root))) from error
    if not found:
        raise CorpusError(f"external.root: {root} holds no audio file ({', '.join(SUFFIXES)})")
    odd = next((file for file in found if not _is_utf8(file)), None)
    if odd is not None:
        raise CorpusError(
            f"{os.fsencode(odd)!r}: its name is not UTF-8, as in another system's archive; rename it (convmv can)"
        )
    return found


def _files(folder: Path, *, above: frozenset[str]) -> Iterator[Path]:
    """Whatever is no folder, below one whose real path is none of those `above` it: a link upwards is not followed."""
    real = os.path.realpath(folder)
    if real in above:
        return
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _files(entry, above=above | {real})
        else:
            yield entry


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True

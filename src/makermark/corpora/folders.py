"""`corpus: folders`: a folder per system, or a folder per split with a folder per system in each."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from makermark.corpora.listing import Listing
from makermark.corpora.tables import SPLIT_OF
from makermark.errors import CorpusError

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
    """All audio files below a folder, sorted; hidden ones and those in hidden folders are passed over.

    Raises CorpusError for a root that does not exist or holds none.
    """
    if not root.is_dir():
        raise CorpusError(f"external.root: {str(root)!r} is no folder; name the one that holds the corpus")
    found = [
        file
        for file in sorted(root.rglob("*"))
        if file.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in file.relative_to(root).parts)
    ]
    if not found:
        raise CorpusError(f"external.root: {root} holds no audio file ({', '.join(SUFFIXES)})")
    return found

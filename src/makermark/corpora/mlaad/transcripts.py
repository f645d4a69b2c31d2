"""What was said: MLAAD's meta.csv, one in each `fake/LANGUAGE/MODEL`, fields parted by `|`."""

from __future__ import annotations

import csv
import logging
from pathlib import Path, PurePosixPath

import pandas as pd

log = logging.getLogger(__name__)


def transcripts(paths: pd.Series, *, root: Path) -> pd.Series:
    """The transcript of each path; empty where the copy has no readable table or no row for it."""
    folders = paths.map(lambda path: PurePosixPath(path).parent.as_posix())
    said = {folder: _of_folder(root / folder / "meta.csv") for folder in folders.unique()}
    texts = [
        said[folder].get(path.rpartition("/")[2], "") for folder, path in zip(folders, paths, strict=True)
    ]
    return pd.Series(texts, index=paths.index, dtype="str")


def _of_folder(table: Path) -> dict[str, str]:
    """File name -> transcript."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, delimiter="|", quoting=csv.QUOTE_NONE)
            return {row["path"].rpartition("/")[2]: row["transcript"] or "" for row in rows}
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError) as error:
        log.warning("%s: transcripts cannot be read (%s); they stay unknown", table, error)
        return {}

"""`corpus: manifest`: any table with a path and a system in every row, as CSV, TSV, JSON lines or Parquet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath

import pandas as pd

from makermark.corpora.listing import KNOWN, NEEDED, Listing
from makermark.errors import CorpusError, FilesError
from makermark.files import explain

log = logging.getLogger(__name__)

# Names that tables use, the first that is there counts; upper and lower case are the same.
USUAL = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "audio", "audio_path", "wav"),
    "system": ("system", "model", "model_name", "tts", "generator", "engine", "attack", "label"),
    "split": ("split", "subset", "partition", "set", "fold"),
    "language": ("language", "lang", "locale"),
    "family": ("family", "architecture"),
    "acoustic_model": ("acoustic_model", "am"),
    "vocoder": ("vocoder", "vocoder_model", "vm"),
    "voice": ("voice", "speaker", "speaker_id", "spk", "spk_id"),
    "text": ("text", "sentence", "transcript", "transcription"),
    "utterance_id": ("utterance_id", "utt_id", "utterance"),
}
SPLIT_NAMES = {
    "train": ("train", "training", "trn"),
    "dev": ("dev", "development", "valid", "validation", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}


def listing(file: Path, *, root: str, columns: Mapping[str, str]) -> Listing:
    """The rows of `file` (.csv, .tsv, .jsonl or .parquet, UTF-8 with or without byte-order mark).

    `columns` says where a column of ours stands under an unusual name ({path: clip}); others are found by the names of
    USUAL. Paths are relative to `root` (empty: the folder of the file), or absolute below it.

    Raises FilesError where there is no such file, CorpusError where it is no such table, or has no path or system.
    """
    table = _read(file)
    taken = _columns(list(table.columns), columns, file=file)
    log.info("%s: %s", file, ", ".join(f"{ours} from {theirs!r}" for ours, theirs in taken.items()))
    rows = pd.DataFrame({ours: table[theirs].fillna("").astype(str) for ours, theirs in taken.items()})
    place = Path(root) if root else file.parent
    rows["path"] = rows["path"].map(lambda path: _below(path, place))
    if "split" in rows:
        rows["split"] = rows["split"].map(lambda split: SPLIT_OF.get(split.strip().lower(), split))
    return Listing(rows=rows, root=place, source=str(file))


def _read(file: Path) -> pd.DataFrame:
    read = READERS.get(file.suffix.lower())
    if read is None:
        raise CorpusError(f"{file}: {file.suffix or 'no suffix'}; manifest.file is one of {list(READERS)}")
    try:
        table = read(file)
    except OSError as error:
        if error.errno is None:
            raise _damaged(file, error) from error
        raise FilesError(explain(error, file)) from error
    except UnicodeError as error:
        raise CorpusError(f"{file}: not UTF-8 ({error}); save it as UTF-8") from error
    except ValueError as error:  # parsers of pandas and pyarrow raise its subclasses
        raise _damaged(file, error) from error
    if file.suffix.lower() in TEXT and not isinstance(
        table.index, pd.RangeIndex
    ):  # pandas takes the first for names
        raise CorpusError(
            f"{file}: its rows have more values than its first line names columns; mend that line"
        )
    table.columns = [str(name).strip() for name in table.columns]
    return table


def _damaged(file: Path, error: Exception) -> CorpusError:
    return CorpusError(f"{file}: not a readable table ({' '.join(str(error).split())}); mend it")


def _csv(separator: str) -> Callable[[Path], pd.DataFrame]:
    def read(file: Path) -> pd.DataFrame:
        return pd.read_csv(
            file, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", on_bad_lines="error",
        )  # fmt: skip

    return read


def _json_lines(file: Path) -> pd.DataFrame:
    with file.open(encoding="utf-8-sig") as lines:
        return pd.read_json(lines, lines=True, dtype=False)


READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": _csv(","),
    ".tsv": _csv("\t"),
    ".jsonl": _json_lines,
    ".parquet": pd.read_parquet,
}


TEXT = (".csv", ".tsv")


def _columns(there: list[str], given: Mapping[str, str], *, file: Path) -> dict[str, str]:
    """Our name to theirs, for all columns that are there."""
    unknown = sorted(set(given) - set(USUAL))
    if unknown:
        raise CorpusError(f"manifest.columns names {unknown[0]!r}; it takes {list(USUAL)}")
    wrong = [theirs for theirs in given.values() if theirs not in there]
    if wrong:
        raise CorpusError(f"{file}: no column {wrong[0]!r}, which manifest.columns names; it has {there}")
    plain = {name.lower(): name for name in reversed(there)}
    taken = dict(given)
    for ours in (*NEEDED, *KNOWN):
        free = [plain[name] for name in USUAL[ours] if name in plain and plain[name] not in taken.values()]
        if ours not in taken and free:
            taken[ours] = free[0]
    lacking = [ours for ours in NEEDED if ours not in taken]
    if lacking:
        raise CorpusError(
            f"{file}: no column for the {lacking[0]} (such as {', '.join(USUAL[lacking[0]][:4])}); it has {there}. Say "
            f"which it is: manifest.columns: {{{lacking[0]}: NAME}}"
        )
    return taken


def _below(path: str, root: Path) -> str:
    """An absolute path below `root` as a relative one; any other as it is."""
    given = PurePath(path)
    if not given.is_absolute():
        return path
    for place in (root.absolute(), root.resolve()):
        if given.is_relative_to(place):
            return given.relative_to(place).as_posix()
    return path

"""`corpus: manifest`: any table with a path and a system in every row, as CSV, TSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Literal

import pandas as pd

from makermark.corpora.listing import KNOWN, NEEDED, Listing
from makermark.errors import CorpusError, FilesError
from makermark.files import explain

log = logging.getLogger(__name__)

# Names that tables use, the first that is there counts; case, blanks, - and _ do not (FileName is file_name).
USUAL = {
    "path": ("path", "file", "file_name", "file_path", "audio", "audio_path", "wav"),
    "system": (
        "system", "model", "model_name", "tts", "generator", "engine", "attack", "atk", "attack_type", "attack_id",
        "label",
    ),
    "split": ("split", "subset", "partition", "set", "fold"),
    "language": ("language", "lang", "locale"),
    "family": ("family",),
    "architecture": ("architecture",),
    "acoustic_model": ("acoustic_model", "am"),
    "vocoder": ("vocoder", "vocoder_model", "vm"),
    "voice": ("voice", "speaker", "speaker_id", "spk", "spk_id"),
    "text": ("text", "sentence", "transcript", "transcription"),
    "utterance_id": ("utterance_id", "utt_id", "utterance"),
}  # fmt: skip
SPLIT_NAMES = {
    "train": ("train", "training", "trn"),
    "dev": ("dev", "development", "valid", "validation", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}


def listing(file: Path, *, root: str, columns: Mapping[str, str]) -> Listing:
    """The rows of `file` (.csv, .tsv, .jsonl or .parquet, UTF-8 with or without byte-order mark).

    `columns` says where a column of ours stands under an unusual name ({path: clip}), or with "" that none is to be
    taken ({split: ""}); others are found by the names of USUAL. Paths are relative to `root` (empty: the folder of the
    file), or absolute below it.

    Raises FilesError where there is no such file, CorpusError where it is no such table, has two columns of one
    name, no path or no system, and for a value with line breaks that may be rows (a lone quotation mark makes such).
    """
    table = _read(file)
    taken = _columns(list(table.columns), columns, file=file)
    log.info("%s: %s", file, ", ".join(f"{ours} from {theirs!r}" for ours, theirs in taken.items()))
    _refuse_swallowed_rows(table, file=file)
    rows = pd.DataFrame({ours: table[theirs].fillna("").astype(str) for ours, theirs in taken.items()})
    place = Path(root) if root else file.parent
    rows["path"] = rows["path"].map(lambda path: _below(path, place))
    if "split" in rows:
        rows["split"] = rows["split"].map(lambda split: SPLIT_OF.get(split.strip().lower(), split))
    return Listing(rows=rows, root=place, source=str(file), columns=taken, tables=(file,))


def find(ours: str, there: Sequence[str]) -> str | None:
    """The column of `there` that is called one of the usual names of `ours`."""
    plain = {_plain(name): name for name in reversed(there)}
    return next((plain[_plain(name)] for name in USUAL[ours] if _plain(name) in plain), None)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()


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
    table.columns = [str(name).strip() for name in table.columns]
    again = table.columns[table.columns.duplicated() & (table.columns != "")]
    if len(again):
        raise CorpusError(f"{file}: two columns are called {again[0]!r}; rename or remove one")
    return table.loc[:, table.columns != ""]


def _damaged(file: Path, error: Exception) -> CorpusError:
    return CorpusError(f"{file}: not a readable table ({' '.join(str(error).split())}); mend it")


def _refuse_swallowed_rows(table: pd.DataFrame, *, file: Path) -> None:
    """A quotation mark that is never closed takes all rows up to the next one into its value."""
    for name in table.columns if file.suffix.lower() == ".csv" else ():
        several = table.index[table[name].fillna("").str.contains(r"[\r\n][^\r\n]*,")]
        if len(several):
            raise CorpusError(
                f"{file}, row {several[0] + 1}: the value in column {name!r} goes over lines that look like rows; is a "
                '" left open there? Double it ("") inside quotation marks, or write the value on one line'
            )


def _text(separator: str, *, quoting: Literal[0, 3]) -> Callable[[Path], pd.DataFrame]:
    """Reads the names as a row too, since pandas would make repeated ones different."""

    def read(file: Path) -> pd.DataFrame:
        table = pd.read_csv(
            file, sep=separator, quoting=quoting, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig",
            on_bad_lines="error",
        )  # fmt: skip
        names = table.iloc[0].fillna("").tolist()
        return table.iloc[1:].set_axis(names, axis=1).reset_index(drop=True)

    return read


def _json_lines(file: Path) -> pd.DataFrame:
    with file.open(encoding="utf-8-sig") as lines:
        return pd.read_json(lines, lines=True, dtype=False)


READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": _text(",", quoting=csv.QUOTE_MINIMAL),
    ".tsv": _text("\t", quoting=csv.QUOTE_NONE),  # where a quotation mark is one
    ".jsonl": _json_lines,
    ".parquet": pd.read_parquet,
}


def _columns(there: list[str], given: Mapping[str, str], *, file: Path) -> dict[str, str]:
    """Our name to theirs, for all columns that are there."""
    unknown = sorted(set(given) - set(USUAL))
    if unknown:
        raise CorpusError(f"manifest.columns names {unknown[0]!r}; it takes {list(USUAL)}")
    wrong = [theirs for theirs in given.values() if theirs and theirs not in there]
    if wrong:
        raise CorpusError(f"{file}: no column {wrong[0]!r}, which manifest.columns names; it has {there}")
    taken = {ours: theirs for ours, theirs in given.items() if theirs}
    for ours in (*NEEDED, *KNOWN):
        found = find(ours, [name for name in there if name not in taken.values()])
        if ours not in given and found:
            taken[ours] = found
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

"""`corpus: manifest`: any table with a path and a system in every row, as CSV, TSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import json
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Literal, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from makermark.corpora.listing import OPTIONAL_COLUMNS, REQUIRED_COLUMNS, Listing
from makermark.foundation.errors import CorpusError, FilesError, SettingChange
from makermark.foundation.files import describe_os_error

log = logging.getLogger(__name__)

# Our column -> its usual names in tables; the first name that exists is used. Case, blanks, - and _ are ignored
# (FileName matches file_name).
USUAL_NAMES = {
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


def read_table(file: Path, *, root: str, columns: Mapping[str, str], further: Sequence[str] = ()) -> Listing:
    """Return the rows of `file` (.csv, .tsv, .jsonl or .parquet; UTF-8 with or without byte-order mark).

    The columns of a .csv or .tsv are separated by a comma, a semicolon, a tab or `|`: the separator of the header
    decides. `columns` maps one of our columns to its name in the table ({path: clip}), or to "" if the table has no
    such column ({split: ""}); the other columns are matched by USUAL_NAMES. Paths are relative to `root` (empty: the
    folder of the file), or absolute and below it. `further` names columns of the table that the rows hold beside ours.
    Values that are not text are written as text: 7, 2.5, True; a null is "".

    Raises FilesError if the file does not exist; CorpusError if it is not such a table, has two columns of the same
    name, has no path, no system or no column of a name in `further`, has no text in one of the columns that are used (a
    list, a structure or bytes), or has a value with line breaks that may be rows (after an unclosed quotation mark).
    """
    table = _read_file(file)
    name_of = _match_columns(table, columns, file=file)
    _check_present(further, table, file=file)
    log.info("%s: %s", file, ", ".join(f"{column} from {name!r}" for column, name in name_of.items()))
    _check_quotation_marks(table, file=file)
    rows = pd.DataFrame({column: table.texts[name] for column, name in name_of.items()})
    rows[list(further)] = table.texts[list(further)]
    folder = Path(root) if root else file.parent
    rows["path"] = rows["path"].map(lambda path: _make_relative(path, folder))
    if "split" in rows:
        rows["split"] = rows["split"].map(lambda split: SPLIT_OF.get(split.strip().lower(), split))
    return Listing(rows=rows, root=folder, source=str(file), columns=name_of, tables=(file,))


def find_column(column: str, names: Sequence[str]) -> str | None:
    """Return the first of `names` that is a usual name of our `column`, or None."""
    name_of = {_simplify(name): name for name in reversed(names)}
    return next(
        (name_of[_simplify(usual)] for usual in USUAL_NAMES[column] if _simplify(usual) in name_of), None
    )


def _simplify(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()


class Table(NamedTuple):
    """The content of a table: the columns that are text, and the type of every column that is not."""

    texts: pd.DataFrame
    others: dict[str, str]  # name -> what its values are
    separator: str = ""  # of the header, for an error message


def _read_file(file: Path) -> Table:
    parse = PARSERS.get(file.suffix.lower())
    if parse is None:
        problem = (
            f"{file}: {file.suffix or 'no suffix'}; the file name of a table ends in one of {list(PARSERS)}"
        )
        raise CorpusError(problem, setting="manifest.file", value=str(file))
    try:
        return parse(file)
    except OSError as error:
        if error.errno is None:
            raise _unreadable(file, error) from error
        raise FilesError(describe_os_error(error, file)) from error
    except UnicodeError as error:
        raise CorpusError(f"{file}: not UTF-8 ({error}); save it as UTF-8") from error
    except (ValueError, pa.ArrowException) as error:  # the parser of pandas raises subclasses of ValueError
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> CorpusError:
    return CorpusError(f"{file}: not a readable table ({' '.join(str(error).split())}); correct the file")


def _check_names(names: Sequence[object], *, file: Path) -> list[str]:
    """Return column names without blanks around them. Raises CorpusError if two are equal; "" may repeat."""
    stripped = [str(name).strip() for name in names]
    repeated = next((name for name in stripped if name and stripped.count(name) > 1), None)
    if repeated is not None:
        raise CorpusError(f"{file}: two columns have the name {repeated!r}; rename or remove one")
    return stripped


def _check_quotation_marks(table: Table, *, file: Path) -> None:
    """Raise CorpusError if a value holds lines that look like rows: an unclosed quotation mark swallows rows."""
    for name in table.texts.columns if file.suffix.lower() == ".csv" else ():
        looks_like_rows = rf"[\r\n][^\r\n]*{re.escape(table.separator)}"
        suspicious = table.texts.index[table.texts[name].str.contains(looks_like_rows)]
        if len(suspicious):
            raise CorpusError(
                f"{file}, row {suspicious[0] + 1}: the value in column {name!r} holds lines that look like rows; is a "
                'quotation mark (") not closed? Write "" inside quotation marks, or write the value on one line'
            )


def _text_parser(default: str, *, quoting: Literal[0, 3]) -> Callable[[Path], Table]:
    """Return a parser that reads the header as a row, because pandas would rename repeated column names."""

    def parse(file: Path) -> Table:
        separator, skipped = _find_separator(file, default)
        if separator != default:
            log.info("%s: its columns are separated by %s", file, SEPARATORS[separator])
        table = pd.read_csv(
            file, sep=separator, quoting=quoting, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig",
            on_bad_lines="error", skiprows=skipped,
        )  # fmt: skip
        names = _check_names(table.iloc[0].fillna("").tolist(), file=file)
        rows = table.iloc[1:].set_axis(names, axis=1).reset_index(drop=True).fillna("")
        return Table(rows.loc[:, rows.columns != ""], {}, separator)

    return parse


def _find_separator(file: Path, default: str) -> tuple[str, int]:
    """Return the separator of the columns and the number of lines before the header.

    Excel's line `sep=;` names it. Otherwise it is `default` unless another one gives more names for path and system
    in the header, or `default` does not occur in it.
    """
    with file.open(encoding="utf-8-sig", newline=None) as lines:
        header = next((line.rstrip("\n") for line in lines if line.strip()), "")
    named = re.fullmatch(r'"?sep=(.)"?', header, flags=re.IGNORECASE)
    if named and named[1] in SEPARATORS:
        return named[1], 1

    def rank(separator: str) -> tuple[int, bool, int]:
        names = [name.strip().strip('"') for name in header.split(separator)]
        required = sum(find_column(column, names) is not None for column in REQUIRED_COLUMNS)
        return required, separator == default and len(names) > 1, len(names)

    return max([default, *SEPARATORS], key=rank), 0


def _parse_json_lines(file: Path) -> Table:
    """Parse numbers as the text that the file has: an id of 20 digits, or with a zero at its end, stays as it is."""
    rows = []
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, parse_int=str, parse_float=str, parse_constant=lambda _: None)
            except ValueError as error:
                raise CorpusError(
                    f"{file}: not a readable table (line {number} is not JSON: {error}); correct the file"
                ) from error
            if not isinstance(row, dict):
                raise CorpusError(
                    f"{file}: not a readable table (line {number} is not an object such as "
                    '{"path": "1.wav", "system": "a"}); correct the file'
                )
            rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    stripped = dict(zip(names, _check_names(names, file=file), strict=True))
    others = {
        stripped[name]: "lists or objects"
        for name in names
        if any(isinstance(row.get(name), list | dict) for row in rows)
    }
    texts = {
        text: ["" if row.get(name) is None else str(row[name]) for row in rows]
        for name, text in stripped.items()
        if text and text not in others
    }
    return Table(pd.DataFrame(texts, index=range(len(rows)), dtype="str"), others)


def _parse_parquet(file: Path) -> Table:
    """Parse the columns that can be text; the others, such as the audio in tables of Hugging Face, are not read."""
    source = pq.ParquetFile(file)
    names = _check_names(source.schema_arrow.names, file=file)
    texts, others = {}, {}
    for name, field in zip(names, source.schema_arrow, strict=True):
        if name and _is_nested(field.type):
            others[name] = str(field.type)
        elif name:
            column = source.read([field.name], use_pandas_metadata=False).column(field.name)
            try:
                texts[name] = _to_text(column)
            except UnicodeError:
                others[name] = "bytes"
            except pa.ArrowException:
                others[name] = str(field.type)
    return Table(pd.DataFrame(texts, index=range(source.metadata.num_rows), dtype="str"), others)


def _is_nested(kind: pa.DataType) -> bool:
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    is_encoded = pa.types.is_dictionary(kind) and pa.types.is_nested(kind.value_type)
    return bool(pa.types.is_nested(kind) or is_encoded)


def _to_text(column: pa.ChunkedArray) -> list[str]:
    """Return the values of a column that is not nested as text.

    Whole floating-point numbers have no decimals: pandas stores integers as such if one of them is missing.
    """
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.cast(column.type.storage_type)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return [value.decode() if value is not None else "" for value in column.to_pylist()]
    if pa.types.is_boolean(column.type):
        return ["" if value is None else str(value) for value in column.to_pylist()]
    if pa.types.is_floating(column.type):
        return [_number_text(value) for value in column.to_pylist()]
    return ["" if value is None else value for value in column.cast(pa.string()).to_pylist()]


def _number_text(value: float | None) -> str:
    if value is None or math.isnan(value):
        return ""
    return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)


SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "|"}
PARSERS: dict[str, Callable[[Path], Table]] = {
    ".csv": _text_parser(",", quoting=csv.QUOTE_MINIMAL),
    ".tsv": _text_parser("\t", quoting=csv.QUOTE_NONE),  # a quotation mark is part of the value
    ".jsonl": _parse_json_lines,
    ".parquet": _parse_parquet,
}


def _match_columns(table: Table, columns: Mapping[str, str], *, file: Path) -> dict[str, str]:
    """Return the name in the table of every column of ours that the table has."""
    names = list(table.texts.columns)
    unknown = sorted(set(columns) - set(USUAL_NAMES))
    if unknown:
        problem = f"unknown column {unknown[0]!r}; it is one of {list(USUAL_NAMES)}"
        raise CorpusError(problem, setting="manifest.columns", value=dict(columns))
    for name in columns.values():
        _check_is_text(name, table, file=file)
    absent = [name for name in columns.values() if name and name not in names]
    if absent:
        problem = f"{file}: no column {absent[0]!r}; the table has {names}"
        raise CorpusError(problem, setting="manifest.columns", value=dict(columns))
    name_of = {column: name for column, name in columns.items() if name}
    for column in (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS):
        match = find_column(column, [name for name in names if name not in name_of.values()])
        if column not in columns and match:
            name_of[column] = match
    missing = [column for column in REQUIRED_COLUMNS if column not in name_of]
    if missing:
        _check_is_text(find_column(missing[0], list(table.others)), table, file=file)
        separated = f", separated by {SEPARATORS[table.separator]}" if table.separator else ""
        if table.separator and len(names) == 1 and " " in names[0]:
            separated += (
                "; columns separated by blanks: write them with tabs or commas, and names in the first line"
            )
        raise CorpusError(
            f"{file}: no column for the {missing[0]} (such as {', '.join(USUAL_NAMES[missing[0]][:4])}); it has "
            f"{names}{separated}",
            remedies=[SettingChange("manifest.columns", {missing[0]: "NAME"}, "to name its column")],
        )
    return name_of


def _check_present(further: Sequence[str], table: Table, *, file: Path) -> None:
    for name in further:
        _check_is_text(name, table, file=file)
        if name not in table.texts:
            raise CorpusError(
                f"{file}: no column {name!r}; the table has {list(table.texts.columns)}; name one of them"
            )


def _check_is_text(name: str | None, table: Table, *, file: Path) -> None:
    if name in table.others:
        raise CorpusError(
            f"{file}: column {name!r} holds {table.others[name]}, not text; if it is the audio itself, write it to "
            "files, and their paths to a column of text"
        )


def _make_relative(path: str, root: Path) -> str:
    """Return an absolute path below `root` relative to it; return any other path unchanged."""
    absolute = PurePath(path)
    if not absolute.is_absolute():
        return path
    for folder in (root.absolute(), root.resolve()):
        if absolute.is_relative_to(folder):
            return absolute.relative_to(folder).as_posix()
    return path

"""From a listing to the manifest: every file is looked at, what cannot be used is named, the rest is filed."""

from __future__ import annotations

import csv
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import rich.console
import rich.progress

from makermark import audio
from makermark.corpora import choices
from makermark.corpora.listing import Listing, complete
from makermark.corpora.rows import SPLITS, read_manifest, sha256_of, write_manifest
from makermark.errors import AudioError, CorpusError, FilesError, ManifestError
from makermark.files import explain, replacing

log = logging.getLogger(__name__)

MANIFEST, REJECTED = "manifest.parquet", "rejected.csv"
LOOKED = "looked.jsonl"  # what an earlier run, killed or not, has seen of the files; DVC ignores it
NAMED = 20  # systems that a line of the log names

Split = Callable[[pd.DataFrame], pd.DataFrame]


def make(
    folder: Path,
    listing: Listing,
    *,
    corpus: str,
    split: Split,
    label: str,
    dedupe: bool,
    strata_from: str,
    max_bad_fraction: float,
    workers: int,
    seen_before: Path | None = None,
) -> None:
    """Write folder/rejected.csv and, last, folder/manifest.parquet; the audio stays where it is.

    A file that is missing, empty, shorter than its header says or no audio is left out, and stands in rejected.csv
    with its row and the reason. `split` gives a column `split` to rows that have none. `label`, `dedupe` and
    `strata_from` as in choices.py; without `dedupe` a row that stands there twice is an utterance of its own,
    called NAME#2. `workers` threads look at files; what they saw is kept in folder/looked.jsonl, so
    that a run which was killed, or other choices, look only at files that are new or changed. `seen_before` is another
    such file, which is only read. The manifest remembers the sha256 of listing.tables, so that reading it can tell
    when they have changed.

    Raises CorpusError where the listing contradicts itself, for more than `max_bad_fraction` unusable files, and, with
    `dedupe`, where the same bytes are filed under two systems: all such files stand in rejected.csv.
    """
    tables = {str(table.resolve()): sha256_of(table) for table in listing.tables}
    rows = complete(listing)
    source = listing.source or f"corpus {corpus}"
    row_of = {path: row for row, path in reversed(list(rows["path"].items()))}
    rows = choices.dedupe(rows) if dedupe else _numbered(rows)
    seen = look_at(
        listing.root, sorted(row_of), memory=folder / LOOKED, seen_before=seen_before, workers=workers
    )
    bad = [(row_of[path], path, look["reason"]) for path, look in seen.items() if "reason" in look]
    _write_rejected(folder / REJECTED, bad)
    _refuse_too_many(
        bad, of=len(seen), most=max_bad_fraction, source=source, root=listing.root, table=folder / REJECTED
    )
    rows = rows[~rows["path"].isin({path for _, path, _ in bad})]
    rows["duration_s"] = [seen[path]["duration_s"] for path in rows["path"]]
    rows["sha256"] = [seen[path]["sha256"] for path in rows["path"]]
    if dedupe:
        _refuse_several_makers(choices.several_makers(rows), bad, source=source, table=folder / REJECTED)
    rows = choices.relabel(choices.dedupe(rows) if dedupe else rows, labels=label)
    if (rows["split"] == "").all():
        rows = split(rows)
    root = str(listing.root.resolve())
    write_manifest(
        folder / MANIFEST, rows, corpus=corpus, root=root, strata_from=strata_from, repeats=not dedupe, tables=tables
    )  # fmt: skip
    log.info("corpus %s, %s: %s", corpus, source, "; ".join(_told(rows)))


def clear_other(folder: Path, *, corpus: str) -> None:
    """Empty `folder`, the download stage's own, if its manifest is that of another corpus."""
    try:
        other = read_manifest(folder / MANIFEST).corpus
    except (FilesError, ManifestError):
        return
    if other != corpus:
        log.info("corpus %s was here: %s is emptied for %s", other, folder, corpus)
        shutil.rmtree(folder)


def look_at(
    root: Path, paths: Sequence[str], *, memory: Path, workers: int, seen_before: Path | None = None
) -> dict[str, dict[str, Any]]:
    """`duration_s` and `sha256` of every file by its path below `root`, or the `reason` why it cannot be used.

    `memory` holds, one JSON object a line, what was seen of usable files with their size and time of change; files
    that are as it, or such a file `seen_before`, says are not read again.
    """
    known = (_remembered(seen_before) if seen_before else {}) | _remembered(memory)
    found = {path: known[key] for path in paths if (key := _state(root / path)) in known}
    missing = [path for path in paths if path not in found]
    log.info("%d files, %d of them still to be looked at", len(paths), len(missing))
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        with memory.open("a", encoding="utf-8") as lines, ThreadPoolExecutor(workers) as pool:
            looks = pool.map(lambda path: _look(root / path), missing)
            for path, look in _progress(zip(missing, looks, strict=True), total=len(missing)):
                found[path] = look
                if "reason" not in look:
                    lines.write("\n" + json.dumps([*(_state(root / path) or ()), look]))
    except OSError as error:
        raise FilesError(explain(error, memory)) from error
    return {path: found[path] for path in paths}


def _look(file: Path) -> dict[str, Any]:
    try:
        return audio.look(file)._asdict()
    except AudioError as error:
        return {"reason": str(error).removeprefix(f"{file}: ")}


def _state(file: Path) -> tuple[str, int, int] | None:
    """What changes when a file does; None if it is not there."""
    try:
        state = file.stat()
    except OSError:
        return None
    return str(file.absolute()), state.st_size, state.st_mtime_ns


def _remembered(memory: Path) -> dict[tuple[str, int, int], dict[str, Any]]:
    """What the lines of `memory` say; one that a killed run left unfinished says nothing."""
    known = {}
    for line in memory.read_text(encoding="utf-8").splitlines() if memory.exists() else ():
        try:
            *state, look = json.loads(line)
        except (ValueError, TypeError):
            continue
        known[tuple(state)] = look
    return known


def _progress(looks: Iterable[Any], *, total: int) -> Iterator[Any]:
    console = rich.console.Console(stderr=True)
    shown = rich.progress.Progress(
        *rich.progress.Progress.get_default_columns(), console=console, disable=not sys.stderr.isatty()
    )
    with shown:
        yield from shown.track(looks, total=total, description="looking at files")


def _numbered(rows: pd.DataFrame) -> pd.DataFrame:
    """With every repetition of an utterance named apart: `a.wav`, `a.wav#2`."""
    times = rows.groupby(["utterance_id", "path"], sort=False).cumcount() + 1
    again = times > 1
    return rows.assign(
        utterance_id=rows["utterance_id"].where(~again, rows["utterance_id"] + "#" + times.astype(str))
    )


def _write_rejected(table: Path, bad: list[tuple[int, str, str]]) -> None:
    with replacing(table) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "path", "reason"])
        writer.writerows(sorted(bad))


def _refuse_too_many(
    bad: list[tuple[int, str, str]], *, of: int, most: float, source: str, root: Path, table: Path
) -> None:
    for row, path, reason in sorted(bad)[:10]:
        log.warning("%s, row %d: %s is left out: %s", source, row, path, reason)
    if len(bad) > most * of or len(bad) == of:
        row, path, reason = min(bad)
        raise CorpusError(
            f"{source}: {len(bad)} of {of} files cannot be used, the first in row {row}: {root / path}: {reason}; all "
            f"are listed in {table}. Mend them or the paths, or raise external.max_bad_fraction ({most:g})"
        )


def _refuse_several_makers(
    twins: pd.DataFrame, bad: list[tuple[int, str, str]], *, source: str, table: Path
) -> None:
    if twins.empty:
        return
    first: dict[str, tuple[int, str, str]] = {}
    told = []
    for row, path, system, sha256 in zip(
        twins.index, twins["path"], twins["system"], twins["sha256"], strict=True
    ):
        at, other, maker = first.setdefault(sha256, (row, path, system))
        if system != maker:
            reason = f"system {system!r}, but {other!r} in row {at} has the same bytes and system {maker!r}"
            told.append((row, path, reason))
    _write_rejected(table, bad + told)
    row, path, reason = told[0]
    raise CorpusError(
        f"{source}, row {row}: {path} has {reason}; {len(told)} files are filed so, listed in {table}: remove one row "
        "of each, or set external.dedupe: false"
    )


def _told(rows: pd.DataFrame) -> Iterator[str]:
    """What each split holds; `rows` are numbered by their index as in the source."""
    train = set(rows["system"][rows["split"] == "train"])
    for name in SPLITS:
        part = rows[rows["split"] == name]
        said = f"{name} {len(part)} utterances of {part['system'].nunique()} systems"
        yield said if name == "train" else f"{said}, {_new(part[~part['system'].isin(train)])}"


def _new(rows: pd.DataFrame) -> str:
    firsts = rows.sort_index().drop_duplicates("system")["system"]
    named = [f"{system} (first in row {row})" for row, system in firsts.head(NAMED).items()]
    rest = [f"{len(firsts) - NAMED} more"] if len(firsts) > NAMED else []
    return f"{len(firsts)} of them not in train" + (f": {', '.join(named + rest)}" if named else "")

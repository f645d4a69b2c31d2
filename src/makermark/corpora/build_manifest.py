"""The manifest of a listing: every audio file is checked, unusable files are rejected, the others become rows."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from makermark.corpora.families import relabel
from makermark.corpora.listing import Listing, complete_listing, drop_duplicates, find_conflicting_systems
from makermark.foundation import audio
from makermark.foundation.errors import AudioError, CorpusError, FilesError, ManifestError, SettingChange
from makermark.foundation.files import atomic_write, describe_os_error
from makermark.foundation.manifest import MANIFEST_FILE, SPLITS, file_sha256, read_manifest, write_manifest
from makermark.foundation.progress import track

log = logging.getLogger(__name__)

REJECTED = "rejected.csv"
AUDIO_INFO_CACHE = (
    "looked.jsonl"  # duration and sha256 of the files that earlier runs checked; DVC ignores it
)
MAX_LOGGED_SYSTEMS = 20
MAX_LOGGED_FILES = 10

Splitter = Callable[[pd.DataFrame], pd.DataFrame]
AudioInfo = dict[str, Any]  # duration_s and sha256 of a usable file, or the reason why it is unusable


class Rejection(NamedTuple):
    """An unusable file: its row in the listing, its path, the reason."""

    row: int
    path: str
    reason: str


def build_manifest(
    folder: Path,
    listing: Listing,
    *,
    corpus: str,
    split: Splitter,
    label: str,
    dedupe: bool,
    strata_from: str,
    max_bad_fraction: float,
    workers: int,
    read_only_cache: Path | None = None,
) -> None:
    """Write folder/rejected.csv and then folder/manifest.parquet; the audio stays where it is.

    A file that is missing, empty, truncated or not audio is left out; rejected.csv lists it with its row and the
    reason. `workers` threads check the files. Results are cached in folder/looked.jsonl, so that a later run checks
    only new and changed files; `read_only_cache` is another such cache, which is not written.

    `split` assigns splits if the listing has none. For `label` see `families.relabel`, for `dedupe`
    `listing.drop_duplicates`, for `strata_from` foundation/manifest.py. Without `dedupe`, a repeated row is an
    utterance of its own with the id NAME#2. The manifest records the sha256 of `listing.tables`, so that its readers
    can detect a changed table.

    Raises CorpusError if the listing contradicts itself, if more than `max_bad_fraction` of the files are unusable,
    and, with `dedupe`, if files with the same bytes have different systems (rejected.csv lists them all).
    """
    tables = {str(table.resolve()): file_sha256(table) for table in listing.tables}
    rows = complete_listing(listing)
    source = listing.source or f"corpus {corpus}"
    row_of = {path: row for row, path in reversed(list(rows["path"].items()))}
    rows = drop_duplicates(rows) if dedupe else _number_repetitions(rows)
    info_of = check_files(
        listing.root,
        sorted(row_of),
        cache=folder / AUDIO_INFO_CACHE,
        read_only_cache=read_only_cache,
        workers=workers,
    )
    rejected = [
        Rejection(row_of[path], path, info["reason"]) for path, info in info_of.items() if "reason" in info
    ]
    table = folder / REJECTED
    _write_rejected(table, rejected)
    _check_rejected(
        rejected, total=len(info_of), max_fraction=max_bad_fraction, source=source, root=listing.root, table=table
    )  # fmt: skip
    rows = rows[~rows["path"].isin({rejection.path for rejection in rejected})]
    rows["duration_s"] = [info_of[path]["duration_s"] for path in rows["path"]]
    rows["sha256"] = [info_of[path]["sha256"] for path in rows["path"]]
    if dedupe:
        _check_one_system_per_sha256(rows, rejected, source=source, table=table)
        rows = drop_duplicates(rows)
    rows = relabel(rows, label=label)
    if (rows["split"] == "").all():
        rows = split(rows)
    root = str(listing.root.resolve())
    write_manifest(
        folder / MANIFEST_FILE,
        rows,
        corpus=corpus,
        root=root,
        strata_from=strata_from,
        repeats=not dedupe,
        tables=tables,
    )
    log.info("corpus %s, %s: %s", corpus, source, "; ".join(_summarise_splits(rows)))


@contextmanager
def replace_other_corpus(folder: Path, *, corpus: str) -> Iterator[Path]:
    """Yield the folder in which to build a corpus: `folder`, or one beside it if `folder` holds another corpus.

    The other corpus is deleted on success only, when the new one takes its place. After an error the folder beside it
    stays, so that the next run continues.
    """
    try:
        other = read_manifest(folder / MANIFEST_FILE).corpus
    except (FilesError, ManifestError):
        other = corpus
    if other == corpus:
        yield folder
        return
    draft, old = (folder.with_name(f".{folder.name}.{name}.draft") for name in (corpus, "replaced"))
    yield draft
    log.info("%s holds corpus %s: it is replaced by corpus %s", folder, other, corpus)
    try:
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
        os.replace(draft, folder)
        shutil.rmtree(old)
    except OSError as error:
        raise FilesError(describe_os_error(error, folder)) from error


def check_files(
    root: Path, paths: Sequence[str], *, cache: Path, workers: int, read_only_cache: Path | None = None
) -> dict[str, AudioInfo]:
    """Return, for every path below `root`, `duration_s` and `sha256`, or the `reason` why the file is unusable.

    `cache` stores the results for usable files with their size and modification time, one JSON object per line. Files
    that are unchanged according to `cache` or `read_only_cache` are not read again.
    """
    cached = (_read_cache(read_only_cache) if read_only_cache else {}) | _read_cache(cache)
    info_of = {path: cached[state] for path in paths if (state := _file_state(root / path)) in cached}
    unchecked = [path for path in paths if path not in info_of]
    log.info("%d files, %d of them not checked yet", len(paths), len(unchecked))
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with cache.open("a", encoding="utf-8") as lines, ThreadPoolExecutor(workers) as pool:
            infos = pool.map(lambda path: _check_file(root / path), unchecked)
            for path, info in track(
                zip(unchecked, infos, strict=True), total=len(unchecked), description="checking files"
            ):
                info_of[path] = info
                if "reason" not in info:
                    lines.write("\n" + json.dumps([*(_file_state(root / path) or ()), info]))
    except OSError as error:
        raise FilesError(describe_os_error(error, cache)) from error
    return {path: info_of[path] for path in paths}


def _check_file(file: Path) -> AudioInfo:
    try:
        return audio.probe(file)._asdict()
    except AudioError as error:
        return {"reason": str(error).removeprefix(f"{file}: ")}


def _file_state(file: Path) -> tuple[str, int, int] | None:
    """Return path, size and modification time, which identify the content of a file; None if it does not exist."""
    try:
        state = file.stat()
    except OSError:
        return None
    return str(file.absolute()), state.st_size, state.st_mtime_ns


def _read_cache(cache: Path) -> dict[tuple[str, int, int], AudioInfo]:
    """Return the results in `cache` by file state. A line that a killed run left unfinished is skipped."""
    cached = {}
    for line in cache.read_text(encoding="utf-8").splitlines() if cache.exists() else ():
        try:
            *state, info = json.loads(line)
        except (ValueError, TypeError):
            continue
        cached[tuple(state)] = info
    return cached


def _number_repetitions(rows: pd.DataFrame) -> pd.DataFrame:
    """Return `rows` with unique ids: repetitions of `a.wav` become `a.wav#2`, `a.wav#3`."""
    numbers = rows.groupby(["utterance_id", "path"], sort=False).cumcount() + 1
    ids = rows["utterance_id"]
    return rows.assign(utterance_id=ids.where(numbers == 1, ids + "#" + numbers.astype(str)))


def _write_rejected(table: Path, rejected: list[Rejection]) -> None:
    with atomic_write(table) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Rejection._fields)
        writer.writerows(sorted(rejected))


def _check_rejected(
    rejected: list[Rejection], *, total: int, max_fraction: float, source: str, root: Path, table: Path
) -> None:
    """Log the first rejected files. Raises CorpusError if there are too many."""
    for row, path, reason in sorted(rejected)[:MAX_LOGGED_FILES]:
        log.warning("%s, row %d: %s is left out: %s", source, row, path, reason)
    if len(rejected) > max_fraction * total or len(rejected) == total:
        row, path, reason = min(rejected)
        raise CorpusError(
            f"{source}: {len(rejected)} of {total} files cannot be used, the first in row {row}: {root / path}: "
            f"{reason}; {table} lists all of them",
            setting="external.max_bad_fraction",
            value=max_fraction,
            remedies=["correct the files or the paths"] + ["raise this fraction"] * (len(rejected) < total),
        )


def _check_one_system_per_sha256(
    rows: pd.DataFrame, rejected: list[Rejection], *, source: str, table: Path
) -> None:
    """Raise CorpusError if files with the same bytes have different systems; rejected.csv lists these files."""
    conflicting = find_conflicting_systems(rows)
    if conflicting.empty:
        return
    first_of: dict[str, tuple[int, str, str]] = {}
    conflicts = []
    for row, path, system, sha256 in zip(
        conflicting.index, conflicting["path"], conflicting["system"], conflicting["sha256"], strict=True
    ):
        first_row, first_path, first_system = first_of.setdefault(sha256, (row, path, system))
        if system != first_system:
            reason = (
                f"system {system!r}, but {first_path!r} in row {first_row} has the same bytes and system "
                f"{first_system!r}"
            )
            conflicts.append(Rejection(row, path, reason))
    _write_rejected(table, rejected + conflicts)
    row, path, reason = conflicts[0]
    raise CorpusError(
        f"{source}, row {row}: {path} has {reason}; {len(conflicts)} such files are listed in {table}",
        remedies=["remove one row of each pair", SettingChange("external.dedupe", False, "to keep both")],
    )


def _summarise_splits(rows: pd.DataFrame) -> Iterator[str]:
    """Yield one phrase per split; the index of `rows` is the row number in the source."""
    train_systems = set(rows["system"][rows["split"] == "train"])
    for name in SPLITS:
        part = rows[rows["split"] == name]
        summary = f"{name} {len(part)} utterances of {part['system'].nunique()} systems"
        if name != "train":
            summary += f", {_summarise_unseen(part[~part['system'].isin(train_systems)])}"
        yield summary


def _summarise_unseen(rows: pd.DataFrame) -> str:
    systems = rows.sort_index().drop_duplicates("system")["system"]
    named = [f"{system} (first in row {row})" for row, system in systems.head(MAX_LOGGED_SYSTEMS).items()]
    if len(systems) > MAX_LOGGED_SYSTEMS:
        named.append(f"{len(systems) - MAX_LOGGED_SYSTEMS} more")
    return f"{len(systems)} of them not in train" + (f": {', '.join(named)}" if named else "")

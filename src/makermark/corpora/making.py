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
from makermark.corpora.rows import SPLITS, read_manifest, write_manifest
from makermark.errors import AudioError, CorpusError, FilesError, ManifestError
from makermark.files import explain, replacing

log = logging.getLogger(__name__)

MANIFEST, REJECTED = "manifest.parquet", "rejected.csv"
LOOKED = "looked.jsonl"  # what an earlier run, killed or not, has seen of the files; DVC ignores it

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
) -> None:
    """Write folder/rejected.csv and, last, folder/manifest.parquet; the audio stays where it is.

    A file that is missing, empty, shorter than its header says or no audio is left out, and stands in rejected.csv
    with its row and the reason. `split` gives a column `split` to rows that have none. `label`, `dedupe` and
    `strata_from` as in choices.py; without `dedupe` a row that stands there twice is an utterance of its own,
    called NAME#2. `workers` threads look at files; what they saw is kept in folder/looked.jsonl, so
    that a run which was killed, or other choices, look only at files that are new or changed.

    Raises CorpusError where the listing contradicts itself, and for more than `max_bad_fraction` unusable files.
    """
    rows = complete(listing)
    source = listing.source or f"corpus {corpus}"
    row_of = {path: row for row, path in reversed(list(rows["path"].items()))}
    rows = choices.dedupe(rows) if dedupe else _numbered(rows)
    seen = look_at(listing.root, sorted(row_of), memory=folder / LOOKED, workers=workers)
    bad = [(row_of[path], path, look["reason"]) for path, look in seen.items() if "reason" in look]
    _write_rejected(folder / REJECTED, bad)
    _refuse_too_many(
        bad, of=len(seen), most=max_bad_fraction, source=source, root=listing.root, table=folder / REJECTED
    )
    rows = rows[~rows["path"].isin({path for _, path, _ in bad})]
    rows["duration_s"] = [seen[path]["duration_s"] for path in rows["path"]]
    rows["sha256"] = [seen[path]["sha256"] for path in rows["path"]]
    rows = choices.relabel(choices.dedupe(rows) if dedupe else rows, labels=label)
    if (rows["split"] == "").all():
        rows = split(rows)
    root = str(listing.root.resolve())
    write_manifest(
        folder / MANIFEST, rows, corpus=corpus, root=root, strata_from=strata_from, repeats=not dedupe
    )
    log.info("corpus %s: %s", corpus, "; ".join(_told(rows)))


def clear_other(folder: Path, *, corpus: str) -> None:
    """Empty `folder`, the download stage's own, if its manifest is that of another corpus."""
    try:
        other = read_manifest(folder / MANIFEST).corpus
    except (FilesError, ManifestError):
        return
    if other != corpus:
        log.info("corpus %s was here: %s is emptied for %s", other, folder, corpus)
        shutil.rmtree(folder)


def look_at(root: Path, paths: Sequence[str], *, memory: Path, workers: int) -> dict[str, dict[str, Any]]:
    """`duration_s` and `sha256` of every file by its path below `root`, or the `reason` why it cannot be used.

    `memory` holds, one JSON object a line, what was seen of usable files with their size and time of change; files
    that are as it says are not read again.
    """
    known = _remembered(memory)
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
        except ValueError:
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


def _told(rows: pd.DataFrame) -> Iterator[str]:
    train = set(rows["system"][rows["split"] == "train"])
    for name in SPLITS:
        part = rows[rows["split"] == name]
        systems = set(part["system"])
        new = f", {len(systems - train)} of them not in train" if name != "train" else ""
        yield f"{name} {len(part)} utterances of {len(systems)} systems{new}"

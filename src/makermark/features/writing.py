"""Writing a feature cache: a map over shards of the manifest, each kept if it is already there and whole."""

from __future__ import annotations

import csv
import logging
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from makermark.corpora.rows import Manifest
from makermark.errors import AudioError, FeatureCacheError, FilesError
from makermark.features.base import FrontEnd
from makermark.features.shard import FORMAT, Bad, Recipe, Row, make_shard, open_shard
from makermark.files import explain, replacing, write_arrow, write_json

logger = logging.getLogger(__name__)

INDEX = "index.json"  # written last: a folder without it holds no finished cache
QUARANTINE = "quarantine.csv"


@dataclass(frozen=True)
class CacheReport:
    """What `write_cache` did."""

    folder: Path
    utterances: int
    hours: float
    shards: int
    shards_kept: int
    quarantined: int


def write_cache(
    manifest: Manifest,
    front_end: FrontEnd,
    folder: Path,
    *,
    shard_utterances: int,
    max_bad_fraction: float,
    min_seconds: float,
    max_seconds: float,
    workers: int,
) -> CacheReport:
    """Write the features of every usable row of `manifest` into `folder`/<front end>/.

    `shard-00000.arrow` and so on hold `shard_utterances` rows each, in the order of the manifest. A shard
    that is there, whole and made of the same rows in the same way is kept, so a run that was killed loses
    the shards in flight only. Rows that audio.read refuses stand in `quarantine.csv` with the reason.
    `workers` threads share the work.

    Raises AudioError if more than `max_bad_fraction` of the rows, or all, are unusable.
    """
    recipe = Recipe(front_end=front_end, root=manifest.root, min_seconds=min_seconds, max_seconds=max_seconds)
    given = manifest.rows[["utterance_id", "path", "sha256"]].fillna({"sha256": ""})
    rows = [Row(*row) for row in given.itertuples(index=False)]
    here = folder / front_end.name
    parts = {
        here / f"shard-{first // shard_utterances:05d}.arrow": rows[first : first + shard_utterances]
        for first in range(0, len(rows), shard_utterances)
    }
    _remove_leftovers(here, keep=parts)
    done = _in_threads(lambda path: _keep_or_make(path, parts[path], recipe), list(parts), workers=workers)
    quarantine = [bad for shard in done for bad in shard.quarantine]
    _write_quarantine(here / QUARANTINE, quarantine)
    _refuse_too_many(quarantine, of=len(rows), max_bad_fraction=max_bad_fraction, table=here / QUARANTINE)
    index = {
        "format": FORMAT,
        "parameters": dict(front_end.parameters()),
        "shards": [{"file": s.file, "identity": s.identity, "checksum": s.checksum} for s in done],
    }
    write_json(here / INDEX, index)
    report = CacheReport(
        folder=here,
        utterances=len(rows) - len(quarantine),
        hours=sum(shard.frames for shard in done) / front_end.frames_per_second / 3600,
        shards=len(done),
        shards_kept=sum(shard.kept for shard in done),
        quarantined=len(quarantine),
    )
    logger.info(
        "%s: %d utterances, %.2f h, in %d shards (%d already there)%s",
        here, report.utterances, report.hours, report.shards, report.shards_kept,
        f"; {len(quarantine)} unusable, listed in {here / QUARANTINE}" if quarantine else "",
    )  # fmt: skip
    return report


@dataclass(frozen=True, kw_only=True)
class _Done:
    """What remains of a shard when its memory map is let go."""

    file: str
    identity: str
    checksum: int
    frames: int
    quarantine: list[Bad]
    kept: bool


def _keep_or_make(path: Path, rows: Sequence[Row], recipe: Recipe) -> _Done:
    kept = _would_come_out_the_same(path, rows, recipe)
    if not kept:
        write_arrow(path, make_shard(rows, recipe))
    shard = open_shard(path)
    return _Done(
        file=path.name,
        identity=shard.identity,
        checksum=shard.checksum,
        frames=int(shard.frames.sum(dtype=np.int64)),
        quarantine=shard.quarantine,
        kept=kept,
    )


def _would_come_out_the_same(path: Path, rows: Sequence[Row], recipe: Recipe) -> bool:
    """Whether the shard at `path` is whole, of these rows, and what was unusable then is so now."""
    try:
        shard = open_shard(path)
        shard.verify()
    except FeatureCacheError:
        return False
    if shard.identity != recipe.identity(rows):
        return False
    of_id = {row.utterance_id: row for row in rows}
    return all(recipe.read(of_id[bad.utterance_id]) == bad for bad in shard.quarantine)


def remove_other_caches(folder: Path, *, keep: Iterable[str]) -> None:
    """Delete the caches in `folder` of front ends not named: what lies there must follow from the params alone."""
    for index in folder.glob(f"*/{INDEX}"):
        if index.parent.name not in keep:
            shutil.rmtree(index.parent)


def _remove_leftovers(here: Path, *, keep: Iterable[Path]) -> None:
    """Shards beyond the manifest's, drafts of a run that was killed, and the index: it is written anew."""
    try:
        for path in {*here.glob("shard-*.arrow"), *here.glob(".*.draft*"), here / INDEX} - set(keep):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise FilesError(explain(error, here)) from error


def _in_threads(work: Callable[[Path], _Done], paths: list[Path], *, workers: int) -> list[_Done]:
    """`work` over `paths`, results in their order, with a progress bar on a terminal.

    Threads suffice: decoding, the Fourier transform and writing all let others run meanwhile. Each uses
    one processor, so PyTorch must not start threads of its own in them.
    """
    import torch
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        running = [pool.submit(work, path) for path in paths]
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            for finished in progress.track(as_completed(running), total=len(paths), description="shards"):
                finished.result()
        return [future.result() for future in running]
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # what threads started later begin with


def _write_quarantine(path: Path, quarantine: list[Bad]) -> None:
    with replacing(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Bad._fields)
        writer.writerows(quarantine)


def _refuse_too_many(quarantine: list[Bad], *, of: int, max_bad_fraction: float, table: Path) -> None:
    bad = len(quarantine)
    if bad <= max_bad_fraction * of and bad < of:
        return
    first = quarantine[0]
    raise AudioError(
        f"{bad} of {of} audio files are unusable (features.max_bad_fraction is {max_bad_fraction:g}); "
        f"the first is {first.path} ({first.reason}); all are in {table}"
    )

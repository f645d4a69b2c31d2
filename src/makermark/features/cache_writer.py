"""Writing of a feature cache, shard by shard; shards that exist and are valid are reused."""

from __future__ import annotations

import csv
import logging
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from makermark.features.front_end import FrontEnd
from makermark.features.shard import FORMAT, INDEX, ExtractionConfig, Rejected, Row, build_shard, open_shard
from makermark.foundation.errors import AudioError, FeatureCacheError, FilesError
from makermark.foundation.files import atomic_write, describe_os_error, write_arrow, write_json
from makermark.foundation.manifest import Manifest
from makermark.foundation.progress import track

logger = logging.getLogger(__name__)

QUARANTINE = "quarantine.csv"


@dataclass(frozen=True)
class CacheReport:
    """The result of `write_cache`."""

    folder: Path
    utterances: int
    hours: float
    shards: int
    shards_reused: int
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
    """Write the features of every usable row of `manifest` into `folder`/<front end>/, with `workers` threads.

    `shard-00000.arrow` and so on hold `shard_utterances` rows each, in the order of the manifest. A shard that exists,
    is undamaged and was made of the same rows with the same parameters is reused, so an interrupted run loses only
    the shards in progress. Rows that `audio.read` rejects are listed in `quarantine.csv` with the reason.

    Raises AudioError if more than `max_bad_fraction` of the rows, or all of them, are rejected.
    """
    config = ExtractionConfig(
        front_end=front_end, root=manifest.root, min_seconds=min_seconds, max_seconds=max_seconds
    )
    source = manifest.rows[["utterance_id", "path", "sha256"]].fillna({"sha256": ""})
    rows = [Row(*row) for row in source.itertuples(index=False)]
    cache_folder = folder / front_end.name
    parts = {
        cache_folder / f"shard-{first // shard_utterances:05d}.arrow": rows[first : first + shard_utterances]
        for first in range(0, len(rows), shard_utterances)
    }
    _remove_leftovers(cache_folder, keep=parts)
    shards = _map_in_threads(
        lambda path: _reuse_or_build(path, parts[path], config), list(parts), workers=workers
    )
    rejected = [row for shard in shards for row in shard.rejected]
    _write_quarantine(cache_folder / QUARANTINE, rejected)
    _check_rejected(
        rejected, total=len(rows), max_bad_fraction=max_bad_fraction, table=cache_folder / QUARANTINE
    )
    index = {
        "format": FORMAT,
        "parameters": dict(front_end.parameters()),
        "shards": [{"file": s.file, "identity": s.identity, "checksum": s.checksum} for s in shards],
    }
    write_json(cache_folder / INDEX, index)
    report = CacheReport(
        folder=cache_folder,
        utterances=len(rows) - len(rejected),
        hours=sum(shard.frames for shard in shards) / front_end.frames_per_second / 3600,
        shards=len(shards),
        shards_reused=sum(shard.reused for shard in shards),
        quarantined=len(rejected),
    )
    logger.info(
        "%s: %d utterances, %.2f h, in %d shards (%d reused)%s",
        cache_folder, report.utterances, report.hours, report.shards, report.shards_reused,
        f"; {len(rejected)} rejected, listed in {cache_folder / QUARANTINE}" if rejected else "",
    )  # fmt: skip
    return report


@dataclass(frozen=True, kw_only=True)
class _ShardSummary:
    """What the index needs of a shard, without its memory map."""

    file: str
    identity: str
    checksum: int
    frames: int
    rejected: list[Rejected]
    reused: bool


def _reuse_or_build(path: Path, rows: Sequence[Row], config: ExtractionConfig) -> _ShardSummary:
    reused = _is_current(path, rows, config)
    if not reused:
        write_arrow(path, build_shard(rows, config))
    shard = open_shard(path)
    return _ShardSummary(
        file=path.name,
        identity=shard.identity,
        checksum=shard.checksum,
        frames=int(shard.frames.sum(dtype=np.int64)),
        rejected=shard.quarantine,
        reused=reused,
    )


def _is_current(path: Path, rows: Sequence[Row], config: ExtractionConfig) -> bool:
    """Return whether the shard at `path` is undamaged, of these rows, and its rejected rows are still rejected."""
    try:
        shard = open_shard(path)
        shard.verify()
    except FeatureCacheError:
        return False
    if shard.identity != config.identity(rows):
        return False
    rows_by_id = {row.utterance_id: row for row in rows}
    return all(config.read(rows_by_id[row.utterance_id]) == row for row in shard.quarantine)


def remove_unlisted_caches(folder: Path, *, keep: Iterable[str]) -> None:
    """Delete the caches of front ends not in `keep`, so that the contents of `folder` depend only on the params."""
    for index in folder.glob(f"*/{INDEX}"):
        if index.parent.name not in keep:
            shutil.rmtree(index.parent)


def _remove_leftovers(folder: Path, *, keep: Iterable[Path]) -> None:
    """Delete shards not in `keep`, drafts of an interrupted run, and the index, which is written again."""
    try:
        for path in {*folder.glob("shard-*.arrow"), *folder.glob(".*.draft*"), folder / INDEX} - set(keep):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise FilesError(describe_os_error(error, folder)) from error


def _map_in_threads(
    function: Callable[[Path], _ShardSummary], paths: list[Path], *, workers: int
) -> list[_ShardSummary]:
    """Apply `function` to `paths` and return the results in order, with a progress bar on a terminal.

    Threads suffice: decoding, Fourier transform and writing release the interpreter lock. PyTorch runs one thread in
    each of them.
    """
    import torch

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        futures = [pool.submit(function, path) for path in paths]
        for future in track(as_completed(futures), total=len(paths), description="shards"):
            future.result()
        return [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # the default of threads that start later


def _write_quarantine(path: Path, rejected: list[Rejected]) -> None:
    with atomic_write(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Rejected._fields)
        writer.writerows(rejected)


def _check_rejected(rejected: list[Rejected], *, total: int, max_bad_fraction: float, table: Path) -> None:
    count = len(rejected)
    if count <= max_bad_fraction * total and count < total:
        return
    first = rejected[0]
    raise AudioError(
        f"{count} of {total} audio files are unusable; the first is {first.path} ({first.reason}); all are listed in "
        f"{table}",
        setting="features.max_bad_fraction" if count < total else None,
        value=max_bad_fraction,
    )

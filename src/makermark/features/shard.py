"""A shard: the features of some manifest rows in one Arrow IPC file, with a record of how they were made.

Columns: utterance_id, frames (int32), features (a flat list of frames x width values). The schema metadata hold one
JSON text under `makermark`: the front end's parameters, the identity of the source rows, a checksum, the rejected rows
with reasons, and, as information, the versions of the libraries.

Axes: N utterances, T frames, F values per frame.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from makermark.features.front_end import Features, FrontEnd
from makermark.foundation import audio
from makermark.foundation.arrays import IntArray
from makermark.foundation.errors import AudioError, FeatureCacheError

FORMAT = 1  # increase when older shards can no longer be read, or would hold other features
METADATA_KEY = b"makermark"
INDEX = "index.json"  # of the cache; written last: a folder without it holds no finished cache


class Row(NamedTuple):
    """The columns of a manifest row that a shard needs; `sha256` is empty if unknown."""

    utterance_id: str
    path: str
    sha256: str


class Rejected(NamedTuple):
    """A row of the quarantine table."""

    utterance_id: str
    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ExtractionConfig:
    """How manifest rows become features."""

    front_end: FrontEnd
    root: Path  # of the paths in the manifest
    min_seconds: float
    max_seconds: float

    def read(self, row: Row) -> audio.Samples | Rejected:
        """Return the row's waveform, or the reason why it cannot be used."""
        path = os.path.join(self.root, row.path)  # five times as fast as Path, and blocks other threads less
        rate_hz = self.front_end.sample_rate_hz
        try:
            return audio.read(
                path,
                sample_rate_hz=rate_hz,
                min_seconds=max(self.min_seconds, self.front_end.min_samples / rate_hz),
                max_seconds=self.max_seconds,
                sha256=row.sha256,
            )
        except AudioError as error:
            return Rejected(row.utterance_id, row.path, str(error).removeprefix(f"{path}: "))

    def identity(self, rows: Sequence[Row]) -> str:
        """Return a hash of all inputs of a shard: parameters, limits, and the id and audio of each row."""
        inputs = [
            FORMAT,
            sorted(self.front_end.parameters().items()),
            [self.min_seconds, self.max_seconds],
            [[row.utterance_id, row.sha256 or self._size_and_time(row)] for row in rows],
        ]
        return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()

    def _size_and_time(self, row: Row) -> list[int]:
        try:
            status = (self.root / row.path).stat()
        except OSError:
            return []
        return [status.st_size, status.st_mtime_ns]


def build_shard(rows: Sequence[Row], config: ExtractionConfig) -> pa.Table:
    """Compute the shard of `rows`; it depends only on the rows, their audio files and the config."""
    front_end = config.front_end
    utterance_ids: list[str] = []
    features: list[Features] = [np.empty((0, front_end.width), front_end.dtype)]
    rejected: list[Rejected] = []
    pending: list[audio.Samples] = []
    for row in rows:
        samples = config.read(row)
        if isinstance(samples, Rejected):
            rejected.append(samples)
            continue
        utterance_ids.append(row.utterance_id)
        pending.append(samples)
        if sum(map(len, pending)) >= front_end.chunk_samples:
            features += front_end.transform(pending)
            pending = []
    features += front_end.transform(pending)
    frames = np.array([len(utterance) for utterance in features[1:]], dtype=np.int32)
    values = np.concatenate(features)
    metadata = {
        "format": FORMAT,
        "identity": config.identity(rows),
        "parameters": dict(front_end.parameters()),
        "min_seconds": config.min_seconds,
        "max_seconds": config.max_seconds,
        "width": front_end.width,
        "checksum": _checksum(utterance_ids, frames, values),
        "quarantine": rejected,
        "versions": {library: _version(library) for library in front_end.libraries()},
    }
    offsets = _offsets(frames, front_end.width)
    columns = {
        "utterance_id": pa.array(utterance_ids, pa.string()),
        "frames": pa.array(frames),
        "features": pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values.ravel())),
    }
    return pa.table(columns).replace_schema_metadata({METADATA_KEY: json.dumps(metadata, ensure_ascii=False)})


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A memory-mapped shard: no byte of `values` is read before it is used. A shard in memory has no `map`."""

    path: Path
    identity: str  # `ExtractionConfig.identity` of the source rows
    checksum: int  # of the columns as they were written
    quarantine: list[Rejected]
    utterance_ids: list[str]
    frames: NDArray[np.int32]  # (N,)
    values: Features  # (T of all N utterances, F), read-only
    map: mmap.mmap | None = None

    def verify(self) -> None:
        """Read every byte. Raises FeatureCacheError if the columns do not match the checksum."""
        if _checksum(self.utterance_ids, self.frames, self.values) != self.checksum:
            raise _damaged(self.path, "its checksum differs")

    def release_pages(self) -> None:
        """Release the mapped pages; views stay valid, and their pages are read again on the next access."""
        if self.map is not None and hasattr(mmap, "MADV_DONTNEED"):  # absent on Windows
            self.map.madvise(mmap.MADV_DONTNEED)


def open_shard(path: Path) -> Shard:
    """Memory-map a shard and check that its parts are consistent.

    Raises FeatureCacheError for a missing or damaged file. `Shard.verify` checks the values too.
    """
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        reader = pa.ipc.open_file(pa.py_buffer(mapped))
        batch = reader.get_batch(0) if reader.num_record_batches else None
        metadata = json.loads(reader.schema.metadata[METADATA_KEY])
        width, dtype = int(metadata["width"]), np.dtype(metadata["parameters"]["dtype"])
        if batch is None:
            utterance_ids, frames, values = [], np.empty(0, np.int32), np.empty(0, dtype)
        else:
            batch.validate()
            batch.column("utterance_id").validate(full=True)
            lists = batch.column("features")
            utterance_ids = batch.column("utterance_id").to_pylist()
            frames, values = batch.column("frames").to_numpy(), lists.values.to_numpy()
            if not np.array_equal(lists.offsets.to_numpy(), _offsets(frames, width)):
                raise ValueError("the offsets do not match the frame counts")
        if (frames.dtype, values.dtype) != (np.dtype(np.int32), dtype):
            raise ValueError(f"the values are {values.dtype} instead of {dtype}")
        return Shard(
            path=path,
            identity=str(metadata["identity"]),
            checksum=int(metadata["checksum"]),
            quarantine=[Rejected(*row) for row in metadata["quarantine"]],
            utterance_ids=utterance_ids,
            frames=frames,
            values=values.reshape(int(frames.sum(dtype=np.int64)), width),
            map=mapped,
        )
    except FileNotFoundError:
        raise FeatureCacheError(f"{path}: missing; run the features stage again") from None
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, " ".join(str(error).split())) from error


@cache
def _version(library: str) -> str:
    return version(library)  # reads and parses a file


def _offsets(frames: NDArray[np.int32], width: int) -> IntArray:
    return np.concatenate([[0], np.cumsum(frames, dtype=np.int64) * width])


def _checksum(utterance_ids: list[str], frames: NDArray[np.int32], values: Features) -> int:
    return zlib.crc32(values.data, zlib.crc32(frames.data, zlib.crc32(json.dumps(utterance_ids).encode())))


def _damaged(path: Path, reason: str) -> FeatureCacheError:
    return FeatureCacheError(
        f"{path}: damaged ({reason}); run the features stage again, it rebuilds this shard"
    )

"""A shard: the features of some manifest rows in one Arrow IPC file that says how it was made.

Columns: utterance_id, frames (int32), features (a flat list, frames x width numbers). Schema metadata, one
JSON text under `makermark`: the front end's parameters, the rows it was made of, a checksum, the
quarantined rows with reasons, and as information the versions of the libraries.

Legend of axes: N utterances, T frames, F bands.
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

from makermark import audio
from makermark.errors import AudioError, FeatureCacheError
from makermark.features.base import Features, FrontEnd

FORMAT = 1  # goes up when a shard written before can no longer be read, or would hold other features
KEY = b"makermark"


class Row(NamedTuple):
    """What a shard needs of a manifest row; `sha256` is empty where it is not known."""

    utterance_id: str
    path: str
    sha256: str


class Bad(NamedTuple):
    """A row of the quarantine table."""

    utterance_id: str
    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How manifest rows become features."""

    front_end: FrontEnd
    root: Path
    min_seconds: float
    max_seconds: float

    def read(self, row: Row) -> audio.Samples | Bad:
        """The row's waveform, or why it cannot be used."""
        path = os.path.join(
            self.root, row.path
        )  # a Path takes five times as long, and holds up the other threads
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
            return Bad(row.utterance_id, row.path, str(error).removeprefix(f"{path}: "))

    def identity(self, rows: Sequence[Row]) -> str:
        """A hash of all that decides a shard: parameters, limits, and each row's id and audio."""
        made_of = [
            FORMAT,
            sorted(self.front_end.parameters().items()),
            [self.min_seconds, self.max_seconds],
            [[row.utterance_id, row.sha256 or self._stamp(row)] for row in rows],
        ]
        return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()

    def _stamp(self, row: Row) -> list[int]:
        try:
            state = (self.root / row.path).stat()
        except OSError:
            return []
        return [state.st_size, state.st_mtime_ns]


def make_shard(rows: Sequence[Row], recipe: Recipe) -> pa.Table:
    """The shard of `rows`: a pure function of them, of their audio files and of the recipe."""
    front_end = recipe.front_end
    utterance_ids: list[str] = []
    features: list[Features] = [np.empty((0, front_end.width), front_end.dtype)]
    quarantine: list[Bad] = []
    waiting: list[audio.Samples] = []
    for row in rows:
        samples = recipe.read(row)
        if isinstance(samples, Bad):
            quarantine.append(samples)
            continue
        utterance_ids.append(row.utterance_id)
        waiting.append(samples)
        if sum(map(len, waiting)) >= front_end.samples_at_once:
            features += front_end.transform(waiting)
            waiting = []
    features += front_end.transform(waiting)
    frames = np.array([len(of_one) for of_one in features[1:]], dtype=np.int32)
    values = np.concatenate(features)
    description = {
        "format": FORMAT,
        "identity": recipe.identity(rows),
        "parameters": dict(front_end.parameters()),
        "min_seconds": recipe.min_seconds,
        "max_seconds": recipe.max_seconds,
        "width": front_end.width,
        "checksum": _checksum(utterance_ids, frames, values),
        "quarantine": quarantine,
        "versions": {library: _version(library) for library in front_end.libraries()},
    }
    offsets = _offsets(frames, front_end.width)
    columns = {
        "utterance_id": pa.array(utterance_ids, pa.string()),
        "frames": pa.array(frames),
        "features": pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values.ravel())),
    }
    return pa.table(columns).replace_schema_metadata({KEY: json.dumps(description, ensure_ascii=False)})


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A memory-mapped shard: no byte of `values` is read before it is used. One made in memory has no `map`."""

    path: Path
    identity: str  # of the rows and the recipe it was made of
    checksum: int  # of its columns, when they were written
    quarantine: list[Bad]
    utterance_ids: list[str]
    frames: NDArray[np.int32]  # (N,)
    values: Features  # (T of all N utterances, F), read-only
    map: mmap.mmap | None = None

    def verify(self) -> None:
        """Read every byte; raises FeatureCacheError if one is not what was written."""
        if _checksum(self.utterance_ids, self.frames, self.values) != self.checksum:
            raise _damaged(self.path, "its bytes are not those that were written")

    def let_go(self) -> None:
        """Give back the memory of what was read; views stay valid, their pages are read again when used."""
        if self.map is not None and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            self.map.madvise(mmap.MADV_DONTNEED)


def open_shard(path: Path) -> Shard:
    """Memory-map a shard and see that its parts fit together; raises FeatureCacheError."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        reader = pa.ipc.open_file(pa.py_buffer(mapped))
        batch = reader.get_batch(0) if reader.num_record_batches else None
        description = json.loads(reader.schema.metadata[KEY])
        width, dtype = int(description["width"]), np.dtype(description["parameters"]["dtype"])
        if batch is None:
            utterance_ids, frames, values = [], np.empty(0, np.int32), np.empty(0, dtype)
        else:
            batch.validate()
            batch.column("utterance_id").validate(full=True)
            lists = batch.column("features")
            utterance_ids = batch.column("utterance_id").to_pylist()
            frames, values = batch.column("frames").to_numpy(), lists.values.to_numpy()
            if not np.array_equal(lists.offsets.to_numpy(), _offsets(frames, width)):
                raise ValueError("its lengths do not fit together")
        if (frames.dtype, values.dtype) != (np.dtype(np.int32), dtype):
            raise ValueError(f"it holds {values.dtype} where {dtype} was written")
        return Shard(
            path=path,
            identity=str(description["identity"]),
            checksum=int(description["checksum"]),
            quarantine=[Bad(*bad) for bad in description["quarantine"]],
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


def _offsets(frames: NDArray[np.int32], width: int) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(frames, dtype=np.int64) * width])


def _checksum(utterance_ids: list[str], frames: NDArray[np.int32], values: Features) -> int:
    return zlib.crc32(values.data, zlib.crc32(frames.data, zlib.crc32(json.dumps(utterance_ids).encode())))


def _damaged(path: Path, reason: str) -> FeatureCacheError:
    return FeatureCacheError(f"{path}: damaged ({reason}); run the features stage again, it mends this shard")

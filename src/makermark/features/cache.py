"""Reading a feature cache: memory-mapped shards that answer as one table of utterances.

Legend of axes: N utterances in the cache, B of a batch, T frames, F bands.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from makermark.errors import FeatureCacheError, FilesError
from makermark.features.base import Features, Scalar
from makermark.features.shard import FORMAT, Shard, open_shard
from makermark.features.writing import INDEX, CacheReport, write_cache
from makermark.files import read_json

__all__ = ["CacheReport", "FeatureCache", "write_cache"]

Rows = NDArray[np.int64]

STEPS_PER_OCTAVE = 32  # lengths of batches: 1.1 % of padding on average, and 66 shapes between 2 and 8 s
TOUCHED_BYTES = 256 << 20  # of mapped features, before they are let go
MAPPED_AT_ONCE = 2 << 20  # comes with the first byte: Linux maps the whole block that its page cache holds


class FeatureCache:
    """All utterances of a cache in the order they were written; a row is a place in that order.

    - `utterance_ids` (N,) of str, `frames` (N,) int32
    - `width` F and `dtype` of the features
    - `fingerprint`: a hash of the parameters and of all contents; another fingerprint, other features
    """

    def __init__(self, shards: list[Shard], parameters: Mapping[str, Scalar]) -> None:
        self._shards, self._parameters = shards, parameters
        self.utterance_ids = np.array([u for shard in shards for u in shard.utterance_ids], dtype=str)
        self.frames: NDArray[np.int32] = np.concatenate([shard.frames for shard in shards])
        self.width: int = shards[0].values.shape[1]
        self.dtype: np.dtype[Any] = shards[0].values.dtype
        contents = [sorted(parameters.items()), [[shard.identity, shard.checksum] for shard in shards]]
        self.fingerprint = hashlib.sha256(json.dumps(contents).encode()).hexdigest()
        self._touched = 0  # bytes, since the shards were last let go
        self._shard_of = np.repeat(np.arange(len(shards)), [len(shard.frames) for shard in shards])  # (N,)
        self._first = np.concatenate([np.cumsum(s.frames, dtype=np.int64) - s.frames for s in shards])  # (N,)

    @classmethod
    def open(cls, folder: Path, parameters: Mapping[str, Scalar]) -> FeatureCache:
        """The cache in `folder`, which a front end with these `parameters()` has written.

        Reads the shards' headers only; see `verify`. Raises FeatureCacheError for a cache that is absent,
        unfinished, made with other parameters, or with a shard missing or visibly damaged.
        """
        index = _read_index(folder)
        _refuse_other_parameters(folder, index["parameters"], parameters)
        shards = []
        for entry in index["shards"]:
            shard = open_shard(folder / entry["file"])
            if (shard.identity, shard.checksum) != (entry["identity"], entry["checksum"]):
                raise FeatureCacheError(
                    f"{shard.path}: not the shard that {INDEX} lists; run the features stage again"
                )
            shards.append(shard)
        return cls(shards, parameters)

    def joined(self, other: FeatureCache) -> FeatureCache:
        """The utterances of this cache and then those of `other`, made with the same parameters, as one.

        Raises FeatureCacheError if an utterance stands in both; ValueError for other parameters.
        """
        if dict(self._parameters) != dict(other._parameters):
            raise ValueError("only caches of the same parameters can be joined")
        both = np.intersect1d(self.utterance_ids, other.utterance_ids)
        if len(both):
            raise FeatureCacheError(
                f"utterance {str(both[0])!r} stands in two caches that are read together; rename it in one manifest"
            )
        return FeatureCache([*self._shards, *other._shards], self._parameters)

    def beside(self, copies: Sequence[FeatureCache]) -> FeatureCache:
        """The rows of this cache, then those of each of `copies`: the same utterances, made otherwise (copies.py).

        An utterance stands there several times, so that it is read by row and not by name.
        """
        return FeatureCache(
            [*self._shards, *(shard for copy in copies for shard in copy._shards)], self._parameters
        )

    def verify(self) -> None:
        """Read every byte once; raises FeatureCacheError naming the first damaged shard."""
        for shard in self._shards:
            shard.verify()
            shard.let_go()

    def rows_of(self, utterance_ids: Iterable[str]) -> Rows:
        """Where these utterances stand; raises FeatureCacheError if one is not in the cache."""
        wanted = pd.Index(np.asarray(list(utterance_ids), dtype=object))
        rows: Rows = self._index.get_indexer(wanted).astype(np.int64)
        absent = wanted[rows < 0]
        if len(absent):
            raise FeatureCacheError(
                f"{len(absent)} of {len(wanted)} utterances are not in the feature cache, first {absent[0]!r}; "
                "leave out what quarantine.csv lists, or run the features stage again"
            )
        return rows

    @cached_property
    def _index(self) -> pd.Index[str]:
        index: pd.Index[str] = pd.Index(self.utterance_ids.astype(object))
        return index

    def whole(self, row: int) -> Features:
        """All of an utterance, (T, F): a read-only view, nothing is copied."""
        self._will_touch(1, frames=int(self.frames[row]))
        first = self._first[row]
        features: Features = self._shards[self._shard_of[row]].values[first : first + self.frames[row]]
        return features

    def starts(self, rows: Rows, *, frames: int, rng: np.random.Generator) -> Rows:
        """(B,): the frame at which a random crop of `frames` frames begins in each row; see `crops`."""
        lengths = self.frames[rows].astype(np.int64)
        return rng.integers(np.where(lengths >= frames, lengths - frames + 1, lengths))

    def crops(self, rows: Rows, *, frames: int, rng: np.random.Generator) -> Features:
        """(B, frames, F): of each row, `frames` successive frames from a random place, in the storage dtype.

        An utterance shorter than that is repeated from end to start, beginning at a random frame; nothing
        is padded. Each shard that the batch touches gives all its crops at once.
        """
        self._will_touch(len(rows), frames=frames)
        out = np.empty((len(rows), frames * self.width), self.dtype)
        lengths = self.frames[rows].astype(np.int64)
        first, number = self._first[rows], self._shard_of[rows]
        enough = lengths >= frames
        starts = self.starts(rows, frames=frames, rng=rng)
        for shard in np.unique(number):
            values = self._shards[shard].values
            long, short = (np.flatnonzero((number == shard) & kind) for kind in (enough, ~enough))
            if len(long):  # rows of a view of every stretch there is: copied without an index per frame
                stretches = sliding_window_view(values.reshape(-1), frames * self.width)
                out[long] = stretches[(first[long] + starts[long]) * self.width]
            if len(short):
                within = (starts[short, None] + np.arange(frames)) % lengths[short, None]  # (short, frames)
                out[short] = values[first[short, None] + within].reshape(len(short), -1)
        return out.reshape(len(rows), frames, self.width)

    def length_batches(
        self, rows: Rows, *, max_frames: int, min_frames: int = 1
    ) -> Iterator[tuple[Rows, Features, NDArray[np.int64]]]:
        """Whole utterances for embedding: (rows (B,), features (B, T, F), lengths (B,)), shortest first.

        Neighbours in length share a batch of at most `max_frames` frames, padding included (an utterance
        longer than that comes alone). One shorter than `min_frames` is repeated up to that. T is the longest of the
        batch rounded up to STEPS_PER_OCTAVE, so that shapes recur: what a device prepares for a shape it
        prepares once. Beyond an utterance's length lie zeros.
        """
        rows = rows[np.argsort(self.frames[rows], kind="stable")]
        lengths = np.maximum(self.frames[rows].astype(np.int64), min_frames)
        padded = _rounded_up(lengths)
        first = 0
        while first < len(rows):
            counts = np.arange(1, len(rows) - first + 1)
            size = max(1, int(np.searchsorted(counts * padded[first:], max_frames, side="right")))
            last = first + size
            out = np.zeros((size, int(padded[last - 1]), self.width), self.dtype)
            for place, (row, length) in enumerate(zip(rows[first:last], lengths[first:last], strict=True)):
                out[place, :length] = np.resize(self.whole(int(row)), (length, self.width))
            yield rows[first:last], out, lengths[first:last]
            first = last

    def _will_touch(self, places: int, *, frames: int) -> None:
        """Let the mapped files go now and then: else every page ever read counts as this process's memory, in the end
        the whole cache. They stay in the system's page cache, and a view of them is read anew."""
        self._touched += places * (frames * self.width * self.dtype.itemsize + MAPPED_AT_ONCE)
        if self._touched > TOUCHED_BYTES:
            self._touched = 0
            for shard in self._shards:
                shard.let_go()


def _rounded_up(lengths: Rows) -> Rows:
    """Each up to the next of STEPS_PER_OCTAVE steps between powers of two; at most 1 / STEPS_PER_OCTAVE more."""
    step = np.maximum(2 ** np.floor(np.log2(lengths)).astype(np.int64) // STEPS_PER_OCTAVE, 1)
    return -(-lengths // step) * step


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        index = read_json(folder / INDEX)
        found = index["format"]
    except (FilesError, KeyError, TypeError) as error:
        raise FeatureCacheError(
            f"{folder}: no finished feature cache ({INDEX} is absent or damaged); run the features stage"
        ) from error
    if found != FORMAT:
        raise FeatureCacheError(
            f"{folder}: written in format {found}, this makermark reads {FORMAT}; run the features stage again"
        )
    return dict(index)


def _refuse_other_parameters(folder: Path, found: Mapping[str, Scalar], asked: Mapping[str, Scalar]) -> None:
    differences = [
        f"{name} is {found.get(name, 'unknown')} in the cache, {asked.get(name, 'nothing')} asked for"
        for name in {**asked, **found}
        if found.get(name) != asked.get(name)
    ]
    if differences:
        raise FeatureCacheError(f"{folder}: {'; '.join(differences)}; run the features stage again")

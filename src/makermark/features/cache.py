"""Reading of a feature cache: memory-mapped shards as one table of utterances, read whole, in batches or as crops.

Axes: N utterances in the cache, B utterances in a batch, T frames, F values per frame, K caches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from makermark.features.front_end import Features, Scalar
from makermark.features.shard import FORMAT, INDEX, Shard, open_shard
from makermark.foundation.arrays import IntArray
from makermark.foundation.errors import FeatureCacheError, FilesError
from makermark.foundation.files import read_json

MAX_TOUCHED_BYTES = 256 << 20  # of mapped features read before their pages are released
PAGE_BLOCK_BYTES = 2 << 20  # Linux maps up to this much with the first byte that is read
STEPS_PER_OCTAVE = 32  # batch lengths: 1.1 % of padding on average, and 66 shapes between 2 and 8 s


class FeatureBatch(NamedTuple):
    """Whole utterances, padded with zeros to one length."""

    positions: IntArray  # (B,) in the order of the utterances asked for
    features: Features  # (B, T, F)
    lengths: IntArray  # (B,) frames without the padding


class FeatureCache:
    """All utterances of a cache in the order of writing; a row is an index into that order.

    - `utterance_ids` (N,) str and `frames` (N,) int32
    - `width` F and `dtype` of the features
    - `fingerprint`: a hash of the parameters and of all contents; caches with other features have another fingerprint
    """

    def __init__(self, shards: list[Shard], parameters: Mapping[str, Scalar]) -> None:
        self._shards, self._parameters = shards, parameters
        self.utterance_ids = np.array([u for shard in shards for u in shard.utterance_ids], dtype=str)
        self.frames: NDArray[np.int32] = np.concatenate([shard.frames for shard in shards])
        self.width: int = shards[0].values.shape[1]
        self.dtype: np.dtype[Any] = shards[0].values.dtype
        contents = [sorted(parameters.items()), [[shard.identity, shard.checksum] for shard in shards]]
        self.fingerprint = hashlib.sha256(json.dumps(contents).encode()).hexdigest()
        self._touched_bytes = 0  # since the pages were last released
        self._shard_index = np.repeat(np.arange(len(shards)), [len(shard.frames) for shard in shards])  # (N,)
        # First frame of each utterance in its shard, (N,)
        self._first = np.concatenate([np.cumsum(s.frames, dtype=np.int64) - s.frames for s in shards])

    @classmethod
    def open(cls, folder: Path, parameters: Mapping[str, Scalar]) -> FeatureCache:
        """Open the cache in `folder`, written by a front end with these `parameters()`.

        Reads only the headers of the shards; `verify` reads everything. Raises FeatureCacheError for a cache that is
        missing, unfinished or made with other parameters, and for a missing or visibly damaged shard.
        """
        index = _read_index(folder)
        _check_parameters(folder, index["parameters"], parameters)
        shards = []
        for entry in index["shards"]:
            shard = open_shard(folder / entry["file"])
            if (shard.identity, shard.checksum) != (entry["identity"], entry["checksum"]):
                raise FeatureCacheError(
                    f"{shard.path}: not the shard listed in {INDEX}; run the features stage again"
                )
            shards.append(shard)
        return cls(shards, parameters)

    def concatenate(self, other: FeatureCache) -> FeatureCache:
        """Return one cache of this cache's utterances, followed by those of `other`.

        Raises FeatureCacheError if an utterance is in both, ValueError if the parameters differ.
        """
        if dict(self._parameters) != dict(other._parameters):
            raise ValueError("only caches with equal parameters can be concatenated")
        both = np.intersect1d(self.utterance_ids, other.utterance_ids)
        if len(both):
            raise FeatureCacheError(
                f"utterance {str(both[0])!r} is in two caches that are read together; rename it in one manifest"
            )
        return FeatureCache([*self._shards, *other._shards], self._parameters)

    def stack_augmented(
        self, augmented: Sequence[FeatureCache], utterance_ids: Sequence[str]
    ) -> tuple[FeatureCache, IntArray]:
        """Return one cache over this and `augmented` caches, and the rows (K N,) of the utterances in it.

        Rows are ordered by cache: first the clean utterances, then those of each augmented cache. Utterance ids are
        not unique in it: read it by row. Raises FeatureCacheError for an utterance that a cache lacks.
        """
        caches = [self, *augmented]
        starts = np.cumsum([0, *(len(cache.utterance_ids) for cache in caches[:-1])])
        rows = [start + cache.find_rows(utterance_ids) for start, cache in zip(starts, caches, strict=True)]
        shards = [shard for cache in caches for shard in cache._shards]
        return FeatureCache(shards, self._parameters), np.concatenate(rows)

    def verify(self) -> None:
        """Read every byte once. Raises FeatureCacheError that names the first damaged shard."""
        for shard in self._shards:
            shard.verify()
            shard.release_pages()

    def find_rows(self, utterance_ids: Iterable[str]) -> IntArray:
        """Return the rows of these utterances. Raises FeatureCacheError if one is not in the cache."""
        requested = pd.Index(np.asarray(list(utterance_ids), dtype=object))
        rows: IntArray = self._index.get_indexer(requested).astype(np.int64)
        missing = requested[rows < 0]
        if len(missing):
            raise FeatureCacheError(
                f"{len(missing)} of {len(requested)} utterances are not in the feature cache, first {missing[0]!r}; "
                "leave out those listed in quarantine.csv, or run the features stage again"
            )
        return rows

    @cached_property
    def _index(self) -> pd.Index[str]:
        index: pd.Index[str] = pd.Index(self.utterance_ids.astype(object))
        return index

    def read_utterance(self, row: int) -> Features:
        """Return all frames (T, F) of an utterance: a read-only view, without a copy."""
        self._count_touched(1, frames=int(self.frames[row]))
        first = self._first[row]
        features: Features = self._shards[self._shard_index[row]].values[first : first + self.frames[row]]
        return features

    def draw_crop_starts(self, rows: IntArray, *, frames: int, rng: np.random.Generator) -> IntArray:
        """Draw the first frame (B,) of a random crop of `frames` frames in each row; see `read_crops`."""
        lengths = self.frames[rows].astype(np.int64)
        return rng.integers(np.where(lengths >= frames, lengths - frames + 1, lengths))

    def read_crops(self, rows: IntArray, *, frames: int, rng: np.random.Generator) -> Features:
        """Return random crops (B, frames, F) of the rows in the storage dtype.

        A shorter utterance is repeated from a random frame on; nothing is padded. All crops from one shard are copied
        at once.
        """
        self._count_touched(len(rows), frames=frames)
        crops = np.empty((len(rows), frames * self.width), self.dtype)
        lengths = self.frames[rows].astype(np.int64)
        first, shard_index = self._first[rows], self._shard_index[rows]
        fits = lengths >= frames
        starts = self.draw_crop_starts(rows, frames=frames, rng=rng)
        for shard in np.unique(shard_index):
            values = self._shards[shard].values
            long, short = (np.flatnonzero((shard_index == shard) & mask) for mask in (fits, ~fits))
            if len(long):  # rows of a view of all possible crops: no index per frame is needed
                windows = sliding_window_view(values.reshape(-1), frames * self.width)
                crops[long] = windows[(first[long] + starts[long]) * self.width]
            if len(short):
                offsets = (starts[short, None] + np.arange(frames)) % lengths[short, None]  # (short, frames)
                crops[short] = values[first[short, None] + offsets].reshape(len(short), -1)
        return crops.reshape(len(rows), frames, self.width)

    def length_batches(
        self, rows: IntArray, *, max_frames: int, min_frames: int = 1
    ) -> Iterator[FeatureBatch]:
        """Yield batches of the whole utterances at `rows`, shortest first; see the function `length_batches`."""
        return length_batches(
            self.frames[rows],
            lambda position: self.read_utterance(int(rows[position])),
            max_frames=max_frames,
            min_frames=min_frames,
        )

    def _count_touched(self, utterances: int, *, frames: int) -> None:
        """Release the mapped pages from time to time.

        Otherwise every page ever read counts as memory of this process, in the end the whole cache. Released pages
        stay in the page cache of the operating system.
        """
        self._touched_bytes += utterances * (frames * self.width * self.dtype.itemsize + PAGE_BLOCK_BYTES)
        if self._touched_bytes > MAX_TOUCHED_BYTES:
            self._touched_bytes = 0
            for shard in self._shards:
                shard.release_pages()


def length_batches(
    frames: NDArray[np.int32] | IntArray,
    read: Callable[[int], Features],
    *,
    max_frames: int,
    min_frames: int = 1,
) -> Iterator[FeatureBatch]:
    """Yield batches of utterances with `frames` (N,) frames, shortest first; `read(n)` returns features (T, F).

    A batch has at most `max_frames` frames, padding included; a longer utterance forms a batch of its own. An
    utterance shorter than `min_frames` is repeated up to that length. T is the longest length of the batch, rounded
    up to one of STEPS_PER_OCTAVE lengths between powers of two: the shapes recur, and a device prepares a shape
    only once.
    """
    order = np.argsort(frames, kind="stable")
    lengths = np.maximum(frames[order].astype(np.int64), min_frames)
    padded = _round_up(lengths)
    first = 0
    while first < len(order):
        counts = np.arange(1, len(order) - first + 1)
        size = max(1, int(np.searchsorted(counts * padded[first:], max_frames, side="right")))
        last = first + size
        utterances = [read(int(position)) for position in order[first:last]]
        features = np.zeros((size, int(padded[last - 1]), utterances[0].shape[1]), utterances[0].dtype)
        for row, utterance, length in zip(features, utterances, lengths[first:last], strict=True):
            row[:length] = np.resize(utterance, (length, utterance.shape[1]))
        yield FeatureBatch(order[first:last], features, lengths[first:last])
        first = last


def _round_up(lengths: IntArray) -> IntArray:
    """Round each length up to one of STEPS_PER_OCTAVE lengths between powers of two."""
    step = np.maximum(2 ** np.floor(np.log2(lengths)).astype(np.int64) // STEPS_PER_OCTAVE, 1)
    return -(-lengths // step) * step


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        index = read_json(folder / INDEX)
        written_format = index["format"]
    except (FilesError, KeyError, TypeError) as error:
        raise FeatureCacheError(
            f"{folder}: no finished feature cache ({INDEX} is missing or damaged); run the features stage"
        ) from error
    if written_format != FORMAT:
        raise FeatureCacheError(
            f"{folder}: written in format {written_format}, this version of makermark reads {FORMAT}; run the features "
            "stage again"
        )
    return dict(index)


def _check_parameters(folder: Path, cached: Mapping[str, Scalar], requested: Mapping[str, Scalar]) -> None:
    differences = [
        f"{name} is {cached.get(name, 'unknown')} in the cache, {requested.get(name, 'not set')} in the params"
        for name in {**requested, **cached}
        if cached.get(name) != requested.get(name)
    ]
    if differences:
        raise FeatureCacheError(f"{folder}: {'; '.join(differences)}; run the features stage again")

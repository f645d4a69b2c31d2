"""The gallery: of every system that can be named, vectors of clips that it made. One Arrow file, of one model.

A file from elsewhere is data to be judged: it is read by Arrow alone, must have exactly these columns and values, and
names no path that is ever opened. Legend of axes: N clips, S systems, D dimensions.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from makermark.errors import FilesError, TracerError
from makermark.files import explain, write_arrow
from makermark.scoring.fusion import unit

FORMAT = "1"  # goes up when a gallery written before can no longer be read
TRAINED, ENROLLED = "train", "enrolled"
TEXTS = (
    "system",
    "family",
    "origin",
    "clip",
)  # clip: an utterance of train, or a file's name without its folder
LONGEST_NAME = 200
LARGEST_BYTES = 1 << 28
MOST_CLIPS = 1_000_000
SECONDS_TO_WAIT_FOR_OTHERS = 60

Names = NDArray[np.str_]


@dataclass(frozen=True)
class Gallery:
    """Clips (columns TEXTS, N rows), their vectors (N, D) float32 of length 1, the SHA-256 of the model's weights."""

    clips: pd.DataFrame
    vectors: NDArray[np.float32]
    model_sha256: str

    @property
    def systems(self) -> list[str]:
        """(S,): every name, sorted."""
        return sorted(self.clips["system"].unique())

    @property
    def table(self) -> pd.DataFrame:
        """A row per system, in the order of `systems`: family, origin, how many clips."""
        grouped = self.clips.groupby("system", sort=True)
        return grouped.agg(family=("family", "first"), origin=("origin", "first"), clips=("clip", "size"))

    def directions(self) -> NDArray[np.float64]:
        """(S, D), of length 1: the mean of each system's vectors."""
        column = np.searchsorted(np.array(self.systems, dtype=str), self.clips["system"].to_numpy(dtype=str))
        sums = np.zeros((len(self.systems), self.vectors.shape[1]))
        np.add.at(sums, column, self.vectors)
        return np.asarray(unit(sums))

    def with_system(
        self, name: str, vectors: NDArray[np.float32], clips: Sequence[str], *, family: str = ""
    ) -> Gallery:
        """This gallery and one system more, of `vectors` (n, D) of any length; `clips` are kept as `plain_name` gives
        them. Raises TracerError for a name that is no name or is taken, or for vectors that are no directions."""
        check_name(name, what="system")
        if family:
            check_name(family, what="family")
        if name in self.systems:
            raise TracerError(
                f"system {name!r} is in the gallery already; remove it first or choose another name"
            )
        if not np.isfinite(vectors).all() or not np.abs(vectors).sum(axis=1).all():
            raise TracerError(f"system {name!r}: a clip has no usable vector; leave that clip out")
        kept = [plain_name(clip) or "clip" for clip in clips]
        rows = pd.DataFrame({"system": name, "family": family, "origin": ENROLLED, "clip": kept})
        return replace(
            self,
            clips=pd.concat([self.clips, rows], ignore_index=True),
            vectors=np.concatenate([self.vectors, unit(vectors).astype(np.float32)]),
        )

    def without(self, name: str) -> Gallery:
        """This gallery without an enrolled system; raises TracerError for any other."""
        if name not in set(self.clips["system"][self.clips["origin"] == ENROLLED]):
            enrolled = self.enrolled().systems
            known = "was learned in training and stays" if name in self.systems else "is not in the gallery"
            raise TracerError(f"system {name!r} {known}; enrolled are {enrolled or 'none'}")
        return self._take((self.clips["system"] != name).to_numpy())

    def enrolled(self) -> Gallery:
        """The enrolled systems alone."""
        return self._take((self.clips["origin"] == ENROLLED).to_numpy())

    def joined(self, other: Gallery) -> Gallery:
        """The systems of both. Raises TracerError if they are of different models or share a name."""
        refuse_other_model(other.model_sha256, self.model_sha256, what="the gallery")
        both = sorted(set(self.systems) & set(other.systems))
        if both:
            raise TracerError(f"system {both[0]!r} stands in both galleries; remove it from one or rename it")
        clips = pd.concat([self.clips, other.clips], ignore_index=True)
        return replace(self, clips=clips, vectors=np.concatenate([self.vectors, other.vectors]))

    def _take(self, rows: NDArray[np.bool_]) -> Gallery:
        return replace(self, clips=self.clips[rows].reset_index(drop=True), vectors=self.vectors[rows])


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Hold the gallery at `path` from before it is read until it is written, so that no change of another is lost.

    Raises TracerError where others hold it for long, FilesError where its folder refuses a lock.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=SECONDS_TO_WAIT_FOR_OTHERS)
    except Timeout as error:
        raise TracerError(
            f"{path}: another process has been changing it for {SECONDS_TO_WAIT_FOR_OTHERS} s; end that one"
        ) from error
    except OSError as error:
        raise FilesError(explain(error, path)) from error
    try:
        yield
    finally:
        lock.release()


def write_gallery(path: Path, gallery: Gallery) -> None:
    """Write one Arrow file; raises TracerError for what `read_gallery` would refuse."""
    _check_rows(path, gallery.clips[list(TEXTS)].astype(str), gallery.vectors)
    columns = {name: pa.array(gallery.clips[name].astype(str).tolist(), pa.string()) for name in TEXTS}
    flat = pa.array(np.ascontiguousarray(gallery.vectors, dtype=np.float32).ravel())
    columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, gallery.vectors.shape[1])
    told = {"makermark_gallery": FORMAT, "model_sha256": gallery.model_sha256}
    write_arrow(path, pa.table(columns).replace_schema_metadata(told))


def read_gallery(path: Path, *, model_sha256: str, dim: int) -> Gallery:
    """The gallery at `path`, each of whose values has been looked at.

    Raises FilesError if it cannot be read, TracerError if it is of another model, or no gallery.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise TracerError(f"{path}: larger than {LARGEST_BYTES >> 20} MiB; this is no gallery")
        with pa.OSFile(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        table.validate(full=True)
    except pa.ArrowException as error:
        raise TracerError(f"{path}: no gallery ({' '.join(str(error).split())[:120]})") from error
    except OSError as error:
        raise FilesError(explain(error, path)) from error
    told = dict(table.schema.metadata or {})
    if told.get(b"makermark_gallery") != FORMAT.encode():
        raise TracerError(f"{path}: no gallery of format {FORMAT}; write it with `makermark gallery export`")
    refuse_other_model(told.get(b"model_sha256", b"").decode(errors="replace"), model_sha256, what=str(path))
    wanted = pa.schema([*((name, pa.string()) for name in TEXTS), ("vector", pa.list_(pa.float32(), dim))])
    if not table.schema.equals(wanted) or any(column.null_count for column in table.columns):
        raise TracerError(f"{path}: its columns are not those of a gallery for this model ({dim} dimensions)")
    if table.num_rows > MOST_CLIPS:
        raise TracerError(f"{path}: {table.num_rows} clips; a gallery holds at most {MOST_CLIPS}")
    clips = pd.DataFrame({name: table[name].to_pylist() for name in TEXTS}, columns=list(TEXTS))
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, dim)
    _check_rows(path, clips, vectors)
    return Gallery(clips, vectors, model_sha256)


def _check_rows(path: Path, clips: pd.DataFrame, vectors: NDArray[np.float32]) -> None:
    for system, family, origin, clip in clips.itertuples(index=False):
        check_name(system, what=f"{path}: system")
        if family:
            check_name(family, what=f"{path}: family")
        check_name(clip, what=f"{path}: clip")
        if origin not in (TRAINED, ENROLLED):
            raise TracerError(
                f"{path}: system {system!r} has origin {origin!r}; it is {TRAINED} or {ENROLLED}"
            )
    of_one = clips.groupby("system")[["family", "origin"]].nunique()
    torn = of_one.index[(of_one > 1).any(axis=1)]
    if len(torn):
        raise TracerError(f"{path}: system {torn[0]!r} has two families or origins")
    lengths = np.linalg.norm(vectors, axis=1)
    if not (np.abs(lengths - 1) < 1e-3).all():
        raise TracerError(f"{path}: a vector is not of length 1; write it with `makermark gallery export`")


def plain_name(text: str, *, longest: int = LONGEST_NAME) -> str:
    """What of any text `check_name` lets stand: no control characters, no spaces at its ends, not too long; it may be
    empty."""
    plain = "".join(letter for letter in text if unicodedata.category(letter)[0] != "C")
    return plain.strip()[:longest].strip()


def check_name(name: str, *, what: str) -> None:
    """Raise TracerError for what is no name: empty, long, with control characters or spaces at its ends."""
    plain = all(unicodedata.category(letter)[0] != "C" for letter in name)
    if not name or len(name) > LONGEST_NAME or name.strip() != name or not plain:
        raise TracerError(
            f"{what} {name[:40]!r}: a name has 1 to {LONGEST_NAME} visible characters and no space at its ends"
        )


def refuse_other_model(found: str, wanted: str, *, what: str) -> None:
    """Raise TracerError where vectors of one model meet another."""
    if found != wanted:
        raise TracerError(
            f"{what}: made by model {found[:12] or '?'}, this is model {wanted[:12]}; vectors of two models cannot be "
            "compared: enrol the clips again"
        )

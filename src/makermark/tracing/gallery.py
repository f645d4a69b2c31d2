"""Gallery: the systems that a clip can be attributed to, with the embeddings of their clips, and its file.

One Arrow file holds the gallery of one model. It may come from a third party: it is read by Arrow only, its columns and
all its values are checked, and no path in it is ever opened. Legend of axes: N clips, S systems, D dimensions.
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

from makermark.foundation.arrays import BoolArray, Float32Array, FloatArray
from makermark.foundation.embeddings import has_unit_length, l2_normalise, matrix_column, read_matrix
from makermark.foundation.errors import FilesError, TracerError
from makermark.foundation.files import describe_os_error, write_arrow

TRAINED, ENROLLED = "train", "enrolled"  # values of the column `origin`
TEXT_COLUMNS = (
    "system",
    "family",
    "origin",
    "clip",
)  # clip: an utterance of train, or a file name without folder
MAX_NAME_LENGTH = 200


@dataclass(frozen=True)
class Gallery:
    """Clips of known systems.

    - clips: N rows with the columns TEXT_COLUMNS
    - embeddings (N, D): of unit length
    - model_sha256: SHA-256 of the weights of the model that computed the embeddings
    """

    clips: pd.DataFrame
    embeddings: Float32Array
    model_sha256: str

    @property
    def systems(self) -> list[str]:
        """The names of all systems, (S,), sorted."""
        return sorted(self.clips["system"].unique())

    @property
    def summary(self) -> pd.DataFrame:
        """One row per system, in the order of `systems`, with its family, origin and number of clips."""
        grouped = self.clips.groupby("system", sort=True)
        return grouped.agg(family=("family", "first"), origin=("origin", "first"), clips=("clip", "size"))

    def centroids(self) -> FloatArray:
        """Return the mean embedding of each system, scaled to unit length, (S, D)."""
        column = np.searchsorted(np.array(self.systems, dtype=str), self.clips["system"].to_numpy(dtype=str))
        sums = np.zeros((len(self.systems), self.embeddings.shape[1]))
        np.add.at(sums, column, self.embeddings)
        return np.asarray(l2_normalise(sums))

    def with_system(
        self, name: str, embeddings: Float32Array, clips: Sequence[str], *, family: str = ""
    ) -> Gallery:
        """Return a gallery with one more system, enrolled from `embeddings` (n, D) of any length.

        The names of `clips` are stored as returned by `sanitise_name`. Raises TracerError if the name is invalid or
        already in use, or if an embedding is zero or not finite.
        """
        check_name(name, what="system")
        if family:
            check_name(family, what="family")
        if name in self.systems:
            raise TracerError(
                f"system {name!r} is already in the gallery; remove it first or choose another name"
            )
        if not np.isfinite(embeddings).all() or not np.abs(embeddings).sum(axis=1).all():
            raise TracerError(
                f"system {name!r}: the embedding of a clip is zero or not finite; omit that clip"
            )
        clip_names = [sanitise_name(clip) or "clip" for clip in clips]
        rows = pd.DataFrame({"system": name, "family": family, "origin": ENROLLED, "clip": clip_names})
        return replace(
            self,
            clips=pd.concat([self.clips, rows], ignore_index=True),
            embeddings=np.concatenate([self.embeddings, l2_normalise(embeddings).astype(np.float32)]),
        )

    def without_system(self, name: str) -> Gallery:
        """Return a gallery without an enrolled system; raises TracerError for any other name."""
        if name not in set(self.clips["system"][self.clips["origin"] == ENROLLED]):
            reason = (
                "is a training system, not an enrolled one"
                if name in self.systems
                else "is not in the gallery"
            )
            enrolled = ", ".join(self.enrolled().systems) or "none"
            raise TracerError(f"system {name!r} {reason}; systems that can be removed: {enrolled}")
        return self._select((self.clips["system"] != name).to_numpy())

    def enrolled(self) -> Gallery:
        """Return a gallery of the enrolled systems only."""
        return self._select((self.clips["origin"] == ENROLLED).to_numpy())

    def merge(self, other: Gallery) -> Gallery:
        """Return a gallery with the systems of both.

        Raises TracerError if the galleries belong to different models or have a system in common.
        """
        check_same_model(other.model_sha256, self.model_sha256, what="the gallery")
        common = sorted(set(self.systems) & set(other.systems))
        if common:
            raise TracerError(f"system {common[0]!r} is in both galleries; remove it from one or rename it")
        clips = pd.concat([self.clips, other.clips], ignore_index=True)
        return replace(self, clips=clips, embeddings=np.concatenate([self.embeddings, other.embeddings]))

    def _select(self, mask: BoolArray) -> Gallery:
        return replace(self, clips=self.clips[mask].reset_index(drop=True), embeddings=self.embeddings[mask])


def sanitise_name(text: str, *, longest: int = MAX_NAME_LENGTH) -> str:
    """Return `text` without control characters and outer spaces, cut to `longest` characters.

    The result is empty, or `check_name` accepts it.
    """
    printable = "".join(letter for letter in text if unicodedata.category(letter)[0] != "C")
    return printable.strip()[:longest].strip()


def check_name(name: str, *, what: str) -> None:
    """Raise TracerError for a name that is empty, too long, or has control characters or outer spaces."""
    printable = all(unicodedata.category(letter)[0] != "C" for letter in name)
    if not name or len(name) > MAX_NAME_LENGTH or name.strip() != name or not printable:
        raise TracerError(
            f"{what} {name[:40]!r}: a name has 1 to {MAX_NAME_LENGTH} visible characters and no space at its ends"
        )


def check_same_model(model_sha256: str, expected_sha256: str, *, what: str) -> None:
    """Raise TracerError if embeddings of one model would be compared with those of another."""
    if model_sha256 != expected_sha256:
        raise TracerError(
            f"{what}: made by model {model_sha256[:12] or '?'}, but this is model {expected_sha256[:12]}; embeddings "
            "of two models cannot be compared: enroll the clips again"
        )


FORMAT = "1"  # increased when older files can no longer be read
MAX_FILE_BYTES = 1 << 28
MAX_CLIPS = 1_000_000
LOCK_TIMEOUT_SECONDS = 60


@contextmanager
def lock_gallery(path: Path) -> Iterator[None]:
    """Hold a file lock around a read-modify-write of the gallery at `path`.

    Raises TracerError if another process holds the lock for too long, FilesError if the folder allows no lock file.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=LOCK_TIMEOUT_SECONDS)
    except Timeout as error:
        raise TracerError(
            f"{path}: another process has locked this gallery for {LOCK_TIMEOUT_SECONDS} s; end that process"
        ) from error
    except OSError as error:
        raise FilesError(describe_os_error(error, path)) from error
    try:
        yield
    finally:
        lock.release()


def write_gallery(path: Path, gallery: Gallery) -> None:
    """Write a gallery file; raises TracerError for values that `read_gallery` would refuse."""
    _check_values(path, gallery.clips[list(TEXT_COLUMNS)].astype(str), gallery.embeddings)
    columns = {name: pa.array(gallery.clips[name].astype(str).tolist(), pa.string()) for name in TEXT_COLUMNS}
    columns["vector"] = matrix_column(gallery.embeddings)
    metadata = {"makermark_gallery": FORMAT, "model_sha256": gallery.model_sha256}
    write_arrow(path, pa.table(columns).replace_schema_metadata(metadata))


def read_gallery(path: Path, *, model_sha256: str, dim: int) -> Gallery:
    """Read a gallery file and check all its values.

    Raises FilesError if the file cannot be read, TracerError if it is no gallery file or belongs to another model.
    """
    table = _read_table(path)
    metadata = dict(table.schema.metadata or {})
    if metadata.get(b"makermark_gallery") != FORMAT.encode():
        raise TracerError(
            f"{path}: not a gallery file of format {FORMAT}; write it with `makermark gallery export`"
        )
    check_same_model(
        metadata.get(b"model_sha256", b"").decode(errors="replace"), model_sha256, what=str(path)
    )
    expected = pa.schema(
        [*((name, pa.string()) for name in TEXT_COLUMNS), ("vector", pa.list_(pa.float32(), dim))]
    )
    if not table.schema.equals(expected) or any(column.null_count for column in table.columns):
        raise TracerError(
            f"{path}: its columns are not those of a gallery of this model ({dim} dimensions), or have empty values"
        )
    if table.num_rows > MAX_CLIPS:
        raise TracerError(f"{path}: {table.num_rows} clips; the maximum is {MAX_CLIPS}")
    clips = pd.DataFrame({name: table[name].to_pylist() for name in TEXT_COLUMNS}, columns=list(TEXT_COLUMNS))
    embeddings = read_matrix(table, "vector", path)
    _check_values(path, clips, embeddings)
    return Gallery(clips, embeddings, model_sha256)


def read_enrolled_systems(path: Path, training_gallery: Gallery) -> Gallery:
    """Read the enrolled systems from a gallery file, for a tracer with `training_gallery`.

    Raises what `read_gallery` raises.
    """
    dim = training_gallery.embeddings.shape[1]
    return read_gallery(path, model_sha256=training_gallery.model_sha256, dim=dim).enrolled()


def _read_table(path: Path) -> pa.Table:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TracerError(f"{path}: not a gallery file: larger than {MAX_FILE_BYTES >> 20} MiB")
        with pa.OSFile(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        table.validate(full=True)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise TracerError(f"{path}: not a gallery file ({' '.join(str(error).split())[:120]})") from error
    except OSError as error:
        raise FilesError(describe_os_error(error, path)) from error
    return table


def _check_values(path: Path, clips: pd.DataFrame, embeddings: Float32Array) -> None:
    for system, family, origin, clip in clips.itertuples(index=False):
        check_name(system, what=f"{path}: system")
        if family:
            check_name(family, what=f"{path}: family")
        check_name(clip, what=f"{path}: clip")
        if origin not in (TRAINED, ENROLLED):
            raise TracerError(f"{path}: system {system!r}: origin {origin!r} is not {TRAINED} or {ENROLLED}")
    counts = clips.groupby("system")[["family", "origin"]].nunique()
    inconsistent = counts.index[(counts > 1).any(axis=1)]
    if len(inconsistent):
        raise TracerError(f"{path}: system {inconsistent[0]!r} has two families or two origins")
    if not has_unit_length(embeddings):
        raise TracerError(
            f"{path}: an embedding is not of unit length; write the file with `makermark gallery export`"
        )

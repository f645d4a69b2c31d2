"""Tracer bundle: labelled clips, settings, and the files that the calibrate stage writes into `tracer/`.

gallery.arrow holds the training systems, dev.arrow dev's clips, bonafide.arrow clips of human speech if the corpus has
some, and tracer.json the settings and the metrics on test.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api.types import is_numeric_dtype
from scipy.sparse.csgraph import connected_components
from sklearn.preprocessing import MultiLabelBinarizer

from makermark.foundation import tracking
from makermark.foundation.arrays import BoolArray, Float32Array, FloatArray, IntArray, StrArray
from makermark.foundation.embeddings import has_unit_length, matrix_column, read_matrix
from makermark.foundation.errors import TracerError
from makermark.foundation.files import atomic_folder, read_arrow, read_json, write_arrow, write_json
from makermark.tracing.gallery import Gallery, check_same_model, read_gallery, write_gallery

FORMAT = 1
DECISION_RULE = "margin"  # on which the stored metrics on test depend; another value if the rule changes
COLUMNS = ("system", "family", "seconds", "speech_seconds", "sources")
SPEAKER_COLUMN = "speaker"  # of clips of human speech
REGISTERED_MODEL_FOLDER = Path("artifacts/models")  # in a model that `makermark register` wrote
MODEL_URI = re.compile(r"(runs|models):/.")
WHOLE_UTTERANCE = 0.0  # value of `seconds` for an utterance that was not cut


@dataclass(frozen=True)
class ClipSet:
    """N clips, which are cut from utterances of known origin.

    - rows: columns system, family, seconds, speech_seconds, sources; `sources` are the utterances that a clip was cut
      from, one per line; `seconds` is the nominal length, or WHOLE_UTTERANCE; in clips of human speech also speaker
    - embeddings (N, D): of unit length
    """

    rows: pd.DataFrame
    embeddings: Float32Array

    @property
    def systems(self) -> StrArray:
        """System of each clip, (N,)."""
        return self.rows["system"].to_numpy(dtype=str)

    @property
    def speech_seconds(self) -> FloatArray:
        """Amount of speech of each clip, (N,)."""
        return self.rows["speech_seconds"].to_numpy(dtype=np.float64)

    @property
    def lengths(self) -> list[float]:
        """The nominal lengths in seconds, (L,), in ascending order, without WHOLE_UTTERANCE."""
        return sorted(set(self.rows["seconds"]) - {WHOLE_UTTERANCE})

    def of_length(self, seconds: float) -> ClipSet:
        """Return the clips of one nominal length."""
        return self.select((self.rows["seconds"] == seconds).to_numpy())

    def select(self, mask: BoolArray) -> ClipSet:
        """Return the clips for which `mask` (N,) is true."""
        return ClipSet(self.rows[mask].reset_index(drop=True), self.embeddings[mask])

    def join(self, other: ClipSet) -> ClipSet:
        """Return these clips, followed by those of `other`."""
        rows = pd.concat([self.rows, other.rows], ignore_index=True)
        return ClipSet(rows, np.concatenate([self.embeddings, other.embeddings]))

    def with_speakers(self) -> ClipSet:
        """Return these clips with a column speaker.

        Without that column, which bundles of earlier versions lack, clips that a chain of common utterances connects
        are of one speaker.
        """
        if SPEAKER_COLUMN in self.rows:
            return self
        _, number = connected_components(self.shares_utterance(self), directed=False)
        return ClipSet(self.rows.assign(**{SPEAKER_COLUMN: number.astype(str)}), self.embeddings)

    def shares_utterance(self, other: ClipSet) -> BoolArray:
        """Return (N, M): whether a clip and a clip of `other` (M clips) were cut from a common utterance."""
        sources = [text.split("\n") for clips in (self, other) for text in clips.rows["sources"]]
        table = MultiLabelBinarizer(sparse_output=True).fit_transform(sources)  # (N + M, utterances)
        count = len(self.rows)
        return np.asarray((table[:count] @ table[count:].T > 0).toarray())

    def disjoint_pairs(self) -> tuple[IntArray, IntArray]:
        """Return the row numbers of all pairs of clips without a common utterance."""
        first, second = np.triu_indices(len(self.systems), k=1)
        disjoint = ~self.shares_utterance(self)[first, second]
        return first[disjoint], second[disjoint]

    def pair_trials(self) -> tuple[FloatArray, BoolArray]:
        """Return the cosines of `disjoint_pairs` and whether both clips are of one system."""
        first, second = self.disjoint_pairs()
        cosines = np.einsum("nd,nd->n", self.embeddings[first], self.embeddings[second])
        return cosines, self.systems[first] == self.systems[second]


@dataclass(frozen=True, kw_only=True)
class TracerSettings:
    """Priors, error rates and durations from the sections `trace` and `features` of params.yaml."""

    prior_known: float
    prior_same: float
    calibration_prior: float
    false_accept_rate: float
    conformal_coverage: float
    min_speech_seconds: float
    window_seconds: float
    hop_seconds: float
    max_seconds: float  # longest piece that is embedded at once
    seed: int

    def __post_init__(self) -> None:
        for name in ("prior_known", "prior_same", "calibration_prior", "conformal_coverage"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise TracerError(f"{name} is {value}; it must be between 0 and 1, both excluded")


@dataclass(frozen=True)
class TracerBundle:
    """The gallery of the training systems, dev's clips and the settings.

    - test_metrics: metrics of the tracer on test by clip length; empty in a bundle of an earlier version and of another
      decision rule
    - bonafide: clips of human speech, of dev's speakers; None without such speech and in a bundle of an earlier version
    """

    gallery: Gallery
    dev: ClipSet
    settings: TracerSettings
    test_metrics: Mapping[str, Any] = field(default_factory=dict)
    bonafide: ClipSet | None = None


def write_bundle(folder: Path, bundle: TracerBundle) -> None:
    """Write the files; replaces the folder."""
    with atomic_folder(folder) as draft:
        write_gallery(draft / "gallery.arrow", bundle.gallery)
        _write_clips(draft / "dev.arrow", bundle.dev)
        if bundle.bonafide is not None:
            _write_clips(draft / "bonafide.arrow", bundle.bonafide)
        content = {
            "format": FORMAT,
            "decision_rule": DECISION_RULE,
            "model_sha256": bundle.gallery.model_sha256,
            "settings": asdict(bundle.settings),
            "test": dict(bundle.test_metrics),
        }
        write_json(draft / "tracer.json", content)


def _write_clips(path: Path, clips: ClipSet) -> None:
    names = [*COLUMNS, *([SPEAKER_COLUMN] if SPEAKER_COLUMN in clips.rows else [])]
    columns = {name: pa.array(clips.rows[name].tolist()) for name in names}
    columns["vector"] = matrix_column(clips.embeddings)
    write_arrow(path, pa.table(columns))


def _read_clips(path: Path, *, dim: int) -> ClipSet:
    """Read a file of `_write_clips` and check its values.

    Raises FilesError for a file that cannot be read, TracerError for any other Arrow file and for another `dim`.
    """
    table = read_arrow(path)
    names = [name for name in table.column_names if name != SPEAKER_COLUMN]
    embeddings = read_matrix(table, "vector", path) if names == [*COLUMNS, "vector"] else None
    if embeddings is None or embeddings.shape[1] != dim:
        raise TracerError(f"{path}: not clips embedded by this model; run the calibrate stage again")
    clips = ClipSet(table.drop_columns(["vector"]).to_pandas(), embeddings)
    texts = [table[name] for name in ("system", "sources", SPEAKER_COLUMN) if name in table.column_names]
    durations = [clips.rows[name] for name in ("seconds", "speech_seconds")]
    if not (
        all(pa.types.is_string(column.type) and not column.null_count for column in texts)
        and all(is_numeric_dtype(column) and column.between(0, np.inf, "left").all() for column in durations)
        and has_unit_length(clips.embeddings)
    ):
        raise TracerError(
            f"{path}: damaged: a clip lacks a value, or has an impossible duration or an embedding that is not of unit "
            "length; run the calibrate stage again"
        )
    return clips


def write_unavailable(folder: Path, reason: str) -> None:
    """Write a bundle that states why there is no tracer of this model; replaces the folder."""
    with atomic_folder(folder) as draft:
        write_json(draft / "tracer.json", {"format": FORMAT, "reason": reason})


def read_bundle(folder: Path, *, model_sha256: str, dim: int) -> TracerBundle:
    """Read a bundle.

    Raises FilesError for a missing file, TracerError for a bundle of another model or format, or if the bundle states
    that there is no tracer.
    """
    content = read_json(folder / "tracer.json")
    if isinstance(content, dict) and "reason" in content:
        raise TracerError(f"{folder}: {content['reason']}")
    settings = {field.name for field in dataclasses.fields(TracerSettings)}
    if (
        not isinstance(content, dict)
        or content.get("format") != FORMAT
        or set(content.get("settings", ())) != settings
    ):
        raise TracerError(f"{folder}: written by another version of makermark; run the calibrate stage again")
    check_same_model(str(content.get("model_sha256")), model_sha256, what=str(folder))
    bonafide = folder / "bonafide.arrow"
    return TracerBundle(
        read_gallery(folder / "gallery.arrow", model_sha256=model_sha256, dim=dim),
        _read_clips(folder / "dev.arrow", dim=dim),
        TracerSettings(**content["settings"]),
        content.get("test", {}) if content.get("decision_rule") == DECISION_RULE else {},
        _read_clips(bonafide, dim=dim) if bonafide.exists() else None,
    )


@contextmanager
def resolve_model_uri(model: Path | str) -> Iterator[Path]:
    """Yield the folder of a model: `model` itself, or a temporary copy of an MLflow `runs:/` or `models:/` URI.

    Raises TrackingError if MLflow cannot deliver the model.
    """
    if not MODEL_URI.match(str(model)):
        yield Path(model)
        return
    with tempfile.TemporaryDirectory(prefix="makermark-") as copy:
        folder = tracking.download_artifact(str(model), Path(copy), start=Path.cwd())
        registered = folder / REGISTERED_MODEL_FOLDER
        yield registered if registered.is_dir() else folder

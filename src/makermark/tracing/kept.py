"""What the calibrate stage leaves beside the model, in `tracer/`: gallery.arrow, dev.arrow, tracer.json."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from makermark import tracking
from makermark.errors import TracerError
from makermark.files import read_arrow, read_json, replacing_folder, write_arrow, write_json
from makermark.tracing.calibrating import Clips
from makermark.tracing.gallery import Gallery, read_gallery, refuse_other_model, write_gallery

FORMAT = 1
COLUMNS = ("system", "family", "seconds", "speech_seconds", "sources")
INSIDE = Path("artifacts/models")  # of a model that `makermark register` wrote
URI = re.compile(r"(runs|models):/.")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Priors, promises and lengths, as params.yaml had them (sections trace and features)."""

    prior_known: float
    prior_same: float
    calibration_prior: float
    false_accept_rate: float
    conformal_coverage: float
    min_speech_seconds: float
    window_seconds: float
    hop_seconds: float
    max_seconds: float  # of what is embedded in one piece
    seed: int

    def __post_init__(self) -> None:
        for name in ("prior_known", "prior_same", "calibration_prior", "conformal_coverage"):
            if not 0 < getattr(self, name) < 1:
                raise TracerError(f"{name} is {getattr(self, name)}; it lies between 0 and 1, both excluded")


@dataclass(frozen=True)
class Kept:
    """The trained systems, dev's clips and the settings."""

    gallery: Gallery
    dev: Clips
    settings: Settings


def write_kept(folder: Path, kept: Kept) -> None:
    """Write the three files."""
    with replacing_folder(folder) as draft:
        write_gallery(draft / "gallery.arrow", kept.gallery)
        columns = {name: pa.array(kept.dev.rows[name].tolist()) for name in COLUMNS}
        flat = pa.array(np.ascontiguousarray(kept.dev.vectors, dtype=np.float32).ravel())
        columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, kept.dev.vectors.shape[1])
        write_arrow(draft / "dev.arrow", pa.table(columns))
        told = {
            "format": FORMAT,
            "model_sha256": kept.gallery.model_sha256,
            "settings": asdict(kept.settings),
        }
        write_json(draft / "tracer.json", told)


def write_none(folder: Path, reason: str) -> None:
    """Write down why there is no tracer of this model."""
    with replacing_folder(folder) as draft:
        write_json(draft / "tracer.json", {"format": FORMAT, "reason": reason})


def read_kept(folder: Path, *, model_sha256: str, dim: int) -> Kept:
    """Read what `write_kept` wrote; raises FilesError for what is missing, TracerError for another model's, or where
    there is none."""
    told = read_json(folder / "tracer.json")
    if isinstance(told, dict) and "reason" in told:
        raise TracerError(f"{folder}: {told['reason']}")
    known = {field.name for field in dataclasses.fields(Settings)}
    if not isinstance(told, dict) or told.get("format") != FORMAT or set(told.get("settings", ())) != known:
        raise TracerError(
            f"{folder}: not the tracer of this version of makermark; run the calibrate stage again"
        )
    refuse_other_model(str(told.get("model_sha256")), model_sha256, what=str(folder))
    table = read_arrow(folder / "dev.arrow")
    if table.column_names != [*COLUMNS, "vector"] or table.schema.field("vector").type.list_size != dim:
        raise TracerError(f"{folder}/dev.arrow: not dev's clips by this model; run the calibrate stage again")
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, dim)
    return Kept(
        read_gallery(folder / "gallery.arrow", model_sha256=model_sha256, dim=dim),
        Clips(table.drop_columns(["vector"]).to_pandas(), vectors),
        Settings(**told["settings"]),
    )


@contextmanager
def at_hand(where: Path | str) -> Iterator[Path]:
    """The folder itself, or a copy of what MLflow keeps at a `runs:/` or `models:/` URI; raises TrackingError."""
    if not URI.match(str(where)):
        yield Path(where)
        return
    with tempfile.TemporaryDirectory(prefix="makermark-") as copy:
        found = tracking.download(str(where), Path(copy), start=Path.cwd())
        packed = found / INSIDE
        yield packed if packed.is_dir() else found

"""A clip among the utterances of the gallery: the nearest ones, with their sound, and a map of all.

Legend of axes: N utterances, D dimensions, W windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from makermark.examination.report.media import encode_mp3
from makermark.foundation import audio
from makermark.foundation.arrays import Float32Array, StrArray
from makermark.foundation.errors import AudioError
from makermark.foundation.manifest import Manifest
from makermark.tracing import Gallery
from makermark.tracing.gallery import TRAINED

NUM_NEAREST = 5
MAX_POINTS = 3000  # of the map


@dataclass(frozen=True)
class Neighbour:
    """An utterance of the gallery.

    - language, text: empty if unknown
    - mp3: empty if there is no sound; `missing` is then the reason
    """

    clip: str
    system: str
    family: str
    origin: str
    cosine: float
    language: str = ""
    text: str = ""
    duration_s: float | None = None
    mp3: bytes = b""
    missing: str = ""


def find_nearest(gallery: Gallery, embedding: Float32Array, *, runner_up: str) -> pd.DataFrame:
    """Return the NUM_NEAREST clips of the gallery by cosine to `embedding` (D,), with a column `cosine`.

    The nearest clip of the system `runner_up` is added if none of them is of that system.
    """
    rows = gallery.clips.assign(cosine=gallery.embeddings @ embedding)
    rows = rows.sort_values("cosine", ascending=False, kind="stable")
    nearest = rows.head(NUM_NEAREST)
    if runner_up not in set(nearest["system"]):
        nearest = pd.concat([nearest, rows[rows["system"] == runner_up].head(1)])
    return nearest


def load_neighbours(rows: pd.DataFrame, manifest: Manifest | None, *, rate_hz: int) -> list[Neighbour]:
    """Return the rows of `find_nearest` with text and sound from the training corpus."""
    corpus = None if manifest is None else manifest.rows.set_index("utterance_id")
    neighbours = []
    columns = (rows[name] for name in ("clip", "system", "family", "origin", "cosine"))
    for clip, system, family, origin, cosine in zip(*columns, strict=True):
        details: dict[str, Any] = {}
        if origin != TRAINED:
            details["missing"] = "enrolled; the gallery stores no sound"
        elif manifest is None or corpus is None:
            details["missing"] = "the corpus is not available"
        elif clip not in corpus.index or corpus.at[clip, "system"] != system:
            details["missing"] = "not an utterance of the available corpus"
        else:
            row = corpus.loc[clip]
            details = _load_mp3(manifest.audio_path(row["path"]), row["sha256"] or "", rate_hz)
            details |= {"language": row["language"] or "", "text": row["text"] or ""}
            details |= {"duration_s": float(row["duration_s"])}
        neighbours.append(Neighbour(clip, system, family, origin, float(cosine), **details))
    return neighbours


def _load_mp3(path: Path, sha256: str, rate_hz: int) -> dict[str, Any]:
    try:
        return {"mp3": encode_mp3(audio.read(path, sample_rate_hz=rate_hz, sha256=sha256), rate_hz)}
    except AudioError as error:
        return {"missing": str(error).removeprefix(f"{path}: ")}


@dataclass(frozen=True)
class PcaMap:
    """Coordinates on the first two principal components of the gallery; all systems have equal weight.

    - points (N, 2), systems (N,): utterances of the gallery; a random sample of a large gallery
    - clip (2,), windows (W, 2): in time order
    - explained_variance_percent: share of the gallery's variance
    """

    points: Float32Array
    systems: StrArray
    clip: Float32Array
    windows: Float32Array
    explained_variance_percent: float


def project_gallery(
    gallery: Gallery, embedding: Float32Array, window_embeddings: Float32Array, *, seed: int = 0
) -> PcaMap:
    """Project the gallery, the embedding (D,) of a clip and those of its windows (W, D)."""
    systems = gallery.clips["system"].to_numpy(dtype=str)
    _, column, counts = np.unique(systems, return_inverse=True, return_counts=True)
    weights = 1 / (counts[column] * len(counts))  # (N,), their sum is 1
    mean = weights @ gallery.embeddings
    centred = (gallery.embeddings - mean).astype(np.float64)
    variances, components = np.linalg.eigh((centred * weights[:, None]).T @ centred)  # ascending
    axes = components[:, ::-1][:, :2]  # (D, 2)
    axes = axes * np.sign(
        axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])]
    )  # fixes the sign of each axis
    shown = np.arange(len(systems))
    if len(shown) > MAX_POINTS:
        shown = np.sort(np.random.default_rng(seed).choice(shown, size=MAX_POINTS, replace=False))
    return PcaMap(
        points=(centred[shown] @ axes).astype(np.float32),
        systems=systems[shown],
        clip=((embedding - mean) @ axes).astype(np.float32),
        windows=((window_embeddings.reshape(-1, len(mean)) - mean) @ axes).astype(np.float32),
        explained_variance_percent=float(100 * variances[::-1][:2].sum() / max(variances.sum(), 1e-12)),
    )

"""The utterances of the gallery that lie nearest to a clip, to listen to where the corpus is at hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from makermark import audio
from makermark.corpora.rows import Manifest
from makermark.errors import AudioError
from makermark.evidence.sounds import playable
from makermark.tracing import Gallery
from makermark.tracing.gallery import TRAINED

NEAREST = 5


@dataclass(frozen=True)
class Neighbour:
    """An utterance of the gallery.

    - language, text: empty where they are not known
    - sound: MP3; empty where there is none, and `missing` says why
    """

    clip: str
    system: str
    family: str
    origin: str
    cosine: float
    language: str
    text: str
    duration_s: float | None
    sound: bytes
    missing: str


def nearest(gallery: Gallery, vector: NDArray[np.float32], *, runner_up: str) -> pd.DataFrame:
    """The NEAREST utterances by cosine to `vector` (D,) of length 1, and the nearest one by system `runner_up` where
    none of those is: the gallery's rows with a column `cosine`, the nearest first."""
    rows = gallery.clips.assign(cosine=gallery.vectors @ vector)
    rows = rows.sort_values("cosine", ascending=False, kind="stable")
    chosen = rows.head(NEAREST)
    if runner_up not in set(chosen["system"]):
        chosen = pd.concat([chosen, rows[rows["system"] == runner_up].head(1)])
    return chosen


def listen(rows: pd.DataFrame, manifest: Manifest | None, *, rate_hz: int) -> list[Neighbour]:
    """What `nearest` found with its sounds, by the manifest of the corpus that training was on."""
    known = None if manifest is None else manifest.rows.set_index("utterance_id")
    found = []
    for clip, system, family, origin, cosine in zip(
        *(rows[name] for name in ("clip", "system", "family", "origin", "cosine")), strict=True
    ):
        told: dict[str, Any] = {"language": "", "text": "", "duration_s": None, "sound": b"", "missing": ""}
        if origin != TRAINED:
            told["missing"] = "enrolled here; the gallery keeps no sound"
        elif manifest is None or known is None:
            told["missing"] = "the corpus is not at hand"
        elif clip not in known.index or known.at[clip, "system"] != system:
            told["missing"] = "not an utterance of the corpus at hand"
        else:
            row = known.loc[clip]
            told |= {"language": row["language"] or "", "text": row["text"] or ""}
            told["duration_s"] = float(row["duration_s"])
            told |= _sound(manifest.file(row["path"]), row["sha256"] or "", rate_hz)
        found.append(Neighbour(clip, system, family, origin, float(cosine), **told))
    return found


def _sound(path: Path, sha256: str, rate_hz: int) -> dict[str, Any]:
    try:
        return {"sound": playable(audio.read(path, sample_rate_hz=rate_hz, sha256=sha256), rate_hz)}
    except AudioError as error:
        return {"missing": str(error).removeprefix(f"{path}: ")}

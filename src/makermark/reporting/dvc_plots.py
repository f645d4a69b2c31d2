"""The tables that `dvc plots` draws and compares between experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from makermark.files import replacing, write_json

Numbers = NDArray[np.float64]


def write_det(path: Path, curves: Mapping[tuple[str, str], tuple[Numbers, Numbers]]) -> None:
    """CSV of DET points: set, model, false_accept_percent, miss_percent.

    `curves` gives false-accept and miss rates (P,) in [0, 1] for each (set, model).
    """
    parts = [
        pd.DataFrame(
            {
                "set": of,
                "model": model,
                "false_accept_percent": 100 * false_accept,
                "miss_percent": 100 * miss,
            }
        )
        for (of, model), (false_accept, miss) in curves.items()
    ]
    write_csv(path, pd.concat(parts))


def write_confusion(path: Path, confusion: NDArray[np.int64], classes: Sequence[str]) -> None:
    """CSV of a confusion matrix (C, C), rows the true class: actual, predicted, one line an utterance."""
    names = np.array(classes, dtype=object)
    actual, predicted = np.indices(confusion.shape).reshape(2, -1)
    times = confusion.ravel()
    write_csv(
        path,
        pd.DataFrame(
            {"actual": names[np.repeat(actual, times)], "predicted": names[np.repeat(predicted, times)]}
        ),
    )


def write_history(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """JSON list with one entry per epoch."""
    write_json(path, [dict(epoch) for epoch in history])


def write_csv(path: Path, table: pd.DataFrame) -> None:
    with replacing(path) as draft:
        table.to_csv(draft, index=False, float_format="%.6g", lineterminator="\n")

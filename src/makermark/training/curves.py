"""Training curves as CSV, for `dvc plots`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from makermark.foundation.files import atomic_write

# DVC draws nothing of a file in which some points lack a value, and not every epoch is evaluated: a file per curve.
CURVES = {"loss.csv": "loss", "dev_eer.csv": "dev_eer_percent"}


def write_curves(folder: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write the files of CURVES into `folder`: the epochs of `history` that have the metric, and its values."""
    for file, name in CURVES.items():
        with atomic_write(folder / file) as draft, draft.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["epoch", name])
            writer.writerows([epoch["epoch"], epoch[name]] for epoch in history if name in epoch)

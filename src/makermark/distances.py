"""How far apart the sets of a corpus lie for a model: Frechet distances of embeddings at length 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from makermark.scoring.frechet import LEDOIT_WOLF, FrechetTable, frechet_between, frechet_matrix
from makermark.scoring.fusion import unit
from makermark.vectors import Embeddings


@dataclass(frozen=True)
class Distances:
    """Between the splits, seen and unseen systems apart, and between the systems of one split."""

    sets: FrechetTable
    systems: FrechetTable


def distances_between(model: Embeddings, *, split: str, halvings: int, seed: int) -> Distances:
    """Of all embeddings the sets train, and of dev and test seen and unseen; of `split` every system.

    A set or system of fewer than two is left out. Covariances are shrunk after Ledoit and Wolf, since many a set
    has no more vectors than dimensions.
    """
    sets = {"train": model.of_split("train")}
    for part in ("dev", "test"):
        rows = model.of_split(part)
        seen = rows.labels["system_seen"].to_numpy(dtype=bool)
        sets |= {
            f"{part}_seen": rows.take(seen.nonzero()[0]),
            f"{part}_unseen": rows.take((~seen).nonzero()[0]),
        }
    chosen = model.of_split(split)
    sizes = chosen.labels["system"].map(chosen.labels["system"].value_counts()).to_numpy()
    chosen = chosen.take(np.flatnonzero(sizes > 1))
    parts = {name: unit(part.vectors) for name, part in sets.items() if len(part.vectors) > 1}
    return Distances(
        frechet_between(parts, shrinkage=LEDOIT_WOLF, halvings=halvings, seed=seed),
        frechet_matrix(
            unit(chosen.vectors), chosen.systems, shrinkage=LEDOIT_WOLF, halvings=halvings, seed=seed
        ),
    )


def as_json(table: FrechetTable) -> dict[str, Any]:
    """The table as JSON values: for every set its size, its floor and its distance to every other."""
    return {
        name: {
            "utterances": count,
            "floor": floor,
            "to": {other: float(d) for other, d in zip(table.names, row, strict=True) if other != name},
        }
        for name, count, floor, row in zip(
            table.names, table.counts, table.floors, table.distances, strict=True
        )
    }

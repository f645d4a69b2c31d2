"""The picture of distances between sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from makermark.reporting.style import save


class Table(Protocol):
    """Distances (K, K) between K named sets, and the distance that each has between halves of itself."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def distances(self) -> NDArray[np.float64]: ...

    @property
    def floors(self) -> Sequence[float | None]: ...


def plot_distances(path: Path, table: Table, *, title: str) -> None:
    """A heat map; the diagonal shows the floors, so that a cell no darker than its diagonal tells nothing."""
    shown = table.distances.copy()
    np.fill_diagonal(shown, [np.nan if floor is None else floor for floor in table.floors])
    side = 2.5 + 0.22 * len(table.names)
    figure = Figure(figsize=(side + 1, side))
    axes = figure.subplots()
    image = axes.imshow(shown, cmap="cividis_r", vmin=0)
    figure.colorbar(image, ax=axes, shrink=0.8, label="Frechet distance; diagonal: between halves")
    axes.set_xticks(range(len(table.names)), table.names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(table.names)), table.names, fontsize=7)
    axes.set_title(title)
    save(figure, path)

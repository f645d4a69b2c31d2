"""What all pictures share: colours, the way of saving, no pyplot (nothing global, no window)."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from makermark.files import replacing

# Okabe & Ito 2008, told apart with any colour vision; their yellow is too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINES = ("-", "--", "-.", ":")
DOTS_PER_INCH = 110


def save(figure: Figure, path: Path) -> None:
    """Write the whole picture as PNG, cut to what is drawn; the same figure gives the same bytes."""
    with replacing(path) as draft:
        figure.savefig(
            draft,
            format="png",
            dpi=DOTS_PER_INCH,
            bbox_inches="tight",
            pad_inches=0.15,
            metadata={"Software": None},
        )


def tidy(axes: Axes) -> None:
    """A light grid behind the data, and no box around it."""
    axes.grid(color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)

"""Shared style of all plots: colours, axes, text and saving. pyplot is not used, because it has global state."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import ft2font, rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, FontProperties, fontManager, get_font
from matplotlib.legend import Legend
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text

from makermark.foundation.arrays import FloatArray, RealArray
from makermark.foundation.files import atomic_write

log = logging.getLogger(__name__)

# Okabe & Ito 2008: distinguishable with every type of colour vision. Their yellow is too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINE_STYLES = ("-", "--", "-.", ":")
DOTS_PER_INCH = 110
FONT_NAMES = ("Noto Sans", "Source Han", "WenQuanYi", "IPA")  # preferred, by the beginning of their name
# Fonts of boxes, and of pictures that matplotlib cannot draw, by the beginning of their name.
UNSUITABLE_FONTS = ("Last Resort", "LastResort", ".", "Noto Color", "Noto Emoji")
RIGHT_TO_LEFT = ("R", "AL")  # bidirectional classes
TEXT_COLOUR, GREY = "#222222", "#999999"
# Positions that `label_points` tries: gaps between label and point in points (1/72 inch), and directions.
LABEL_GAPS = (3.0, 7.0, 13.0, 21.0, 31.0, 45.0, 63.0, 85.0, 115.0, 150.0, 200.0, 270.0, 360.0)
LABEL_DIRECTIONS = 24
LABEL_PADDING = 1.5  # free space around a label, in points
LABEL_PASSES = 4  # the first places every label; in the others, each can move away from those placed after it
LEADER_GAP = 8.0  # labels that are further away have a line to their point
POINT_GRID = 3.0  # points in one cell of this size count as one


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, cropped to its content. The same figure gives the same bytes.

    Text is shown as it is (see `prepare_text`).
    """
    prepare_text(figure)
    with rc_context({"text.parse_math": False}), atomic_write(path) as draft:
        figure.savefig(
            draft,
            format="png",
            dpi=DOTS_PER_INCH,
            bbox_inches="tight",
            pad_inches=0.15,
            metadata={"Software": None},
        )


def prepare_text(figure: Figure) -> None:
    """Show all text of a figure as it is: dollar signs are no TeX, and every character has a font that contains it.

    Names of systems come from users, and matplotlib takes the text between two dollar signs for TeX. A character that
    no installed font contains is written as its code, such as \\u4e2d, and so is one of a script that matplotlib
    cannot join and order, such as Arabic before version 3.11; a warning says so. Call it before anything measures the
    text; `save_figure` calls it too.
    """
    replaced = set()
    with rc_context({"text.parse_math": False}):
        for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
            labels = [label.get_text() for label in axis.get_majorticklabels()]
            shown = [show_text(label) for label in labels]
            if shown != labels:  # every drawing writes the labels again, so the axis must know the texts
                replaced |= set(labels) - set(shown)
                axis.set_ticks(axis.get_majorticklocs(), shown)
        for text in figure.findobj(Text):
            text.set_parse_math(False)
            content = text.get_text()
            if (shown_content := show_text(content)) != content:
                replaced.add(content)
                text.set_text(shown_content)
            if families := _fallback_fonts(shown_content):
                text.set_fontfamily([*text.get_fontfamily(), *families])
    if replaced:
        log.warning(
            "no installed font shows all characters of %s: the plot has their codes; install a font that has them, "
            "such as Noto Sans CJK for Chinese, Japanese and Korean",
            ", ".join(repr(name) for name in sorted(replaced)),
        )


def show_text(text: str) -> str:
    """Return `text` with the code, such as \\u4e2d, of every character that cannot be drawn."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if character == "\n" or _can_be_drawn(character) else ascii(character)[1:-1]
        for character in text
    )


def _can_be_drawn(character: str) -> bool:
    has_order = hasattr(ft2font, "__libraqm_version__")  # matplotlib 3.11 joins and orders the letters
    if unicodedata.bidirectional(character) in RIGHT_TO_LEFT and not has_order:
        return False
    is_control = unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn")
    return not is_control and (
        ord(character) in _characters(_default_font()) or _font_of(character) is not None
    )


def _fallback_fonts(text: str) -> list[str]:
    """Return the fonts of the characters of `text` that the default font lacks, in the order of their first use."""
    missing = [character for character in text if ord(character) not in _characters(_default_font())]
    return list(dict.fromkeys(name for character in missing if (name := _font_of(character))))


def _default_font() -> str:
    return fontManager.findfont(FontProperties())


@cache
def _font_of(character: str) -> str | None:
    """Return the name of an installed font that contains a character."""
    code = ord(character)
    return next((font.name for font in _installed_fonts() if code in _characters(font.fname)), None)


@cache
def _installed_fonts() -> list[FontEntry]:
    """Return the upright fonts of normal weight, the FONT_NAMES first."""
    fonts = [
        font
        for font in fontManager.ttflist
        if font.style == "normal"
        and font.weight in (400, "normal")
        and not font.name.startswith(UNSUITABLE_FONTS)
    ]
    return sorted(fonts, key=lambda font: (not font.name.startswith(FONT_NAMES), font.name))


@cache
def _characters(font: str) -> frozenset[int]:
    """Return the codes of the characters that a font file contains; none if it cannot be read."""
    try:
        return frozenset(get_font(font).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


def style_axes(axes: Axes) -> None:
    """Draw a light grid behind the data, and remove the upper and right border."""
    axes.grid(color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def add_legend(
    owner: Axes | Figure, handles: Sequence[Artist], names: Sequence[str], **settings: Any
) -> Legend:
    """Add a legend with all `names`; matplotlib by itself omits names that begin with an underscore."""
    legend = owner.legend(handles, [f"entry {number}" for number in range(len(names))], **settings)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)
    return legend


def label_points(
    axes: Axes,
    names: Sequence[str],
    anchors: RealArray,
    *,
    avoid: RealArray,
    fontsize: float = 9,
    colours: Sequence[str] | None = None,
) -> list[Annotation]:
    """Write names (L,) beside their points `anchors` (L, 2), so that labels cover no other label and few points.

    `avoid` (N, 2) are the points that labels should leave free, in the coordinates of the data. The limits and the
    position of the axes must be final. The positions are found by trying a fixed set of offsets, so that the same
    input gives the same picture. A label that is away from its point has a line to it. adjustText is not used: with 27
    labels and 1,080 points, version 1.4 covered about twice as many points, left overlaps, and took 30 times as long.
    """
    figure = axes.get_figure(root=True)
    if figure is None:
        raise ValueError("the axes are in no figure")
    labels = [
        axes.annotate(
            name,
            anchor,
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=fontsize,
            color=TEXT_COLOUR if colours is None else colours[number],
            path_effects=[withStroke(linewidth=2.2, foreground="white")],
            zorder=5,
        )
        for number, (name, anchor) in enumerate(zip(names, np.asarray(anchors, dtype=float), strict=True))
    ]
    prepare_text(figure)
    figure.draw_without_rendering()
    points_per_pixel = 72 / figure.dpi
    boxes = [label.get_window_extent() for label in labels]
    sizes = np.array([(box.width, box.height) for box in boxes]).reshape(-1, 2) * points_per_pixel
    to_points = axes.transData.transform
    centres = to_points(np.asarray(anchors, dtype=float).reshape(-1, 2)) * points_per_pixel
    obstacles = np.vstack(
        [to_points(np.asarray(avoid, dtype=float).reshape(-1, 2)) * points_per_pixel, centres]
    )
    frame = axes.get_window_extent()
    corners = np.array([(frame.x0, frame.y0), (frame.x1, frame.y1)]) * points_per_pixel
    offsets = _label_offsets(centres, sizes + 2 * LABEL_PADDING, obstacles, corners)
    for label, anchor, offset, size in zip(labels, anchors, offsets, sizes, strict=True):
        label.set_position((float(offset[0]), float(offset[1])))
        gap = np.linalg.norm(np.maximum(np.abs(offset) - size / 2, 0))
        if gap > LEADER_GAP:
            axes.annotate(
                "",
                anchor,
                xytext=(float(offset[0]), float(offset[1])),
                textcoords="offset points",
                arrowprops={
                    "arrowstyle": "-",
                    "color": "#777777",
                    "linewidth": 0.6,
                    "shrinkA": 0,
                    "shrinkB": 1,
                },
                zorder=4,
            )
    return labels


def _label_offsets(
    centres: FloatArray, sizes: FloatArray, obstacles: FloatArray, corners: FloatArray
) -> FloatArray:
    """Return the offset (L, 2) of each label from its point, by the least cost among the positions that are tried.

    centres (L, 2): the points. sizes (L, 2): width and height of the labels. obstacles (N, 2): points to leave free.
    corners (2, 2): lower left and upper right corner of the axes.
    """
    obstacles = np.unique(np.round(obstacles / POINT_GRID), axis=0) * POINT_GRID
    angles = 2 * np.pi * np.arange(LABEL_DIRECTIONS) / LABEL_DIRECTIONS
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    gaps = np.repeat(LABEL_GAPS, LABEL_DIRECTIONS)
    offsets = np.zeros_like(centres)
    placed = np.zeros(len(centres), dtype=bool)
    distances = np.linalg.norm(centres[:, None] - centres, axis=2)
    order = np.argsort(-(distances < 60).sum(axis=1), kind="stable")  # crowded places first
    for _ in range(LABEL_PASSES):
        for index in order:
            half = sizes[index] / 2
            tried = np.tile(directions, (len(LABEL_GAPS), 1)) * (half + gaps[:, None])  # (K, 2)
            middle = centres[index] + tried
            others = placed.copy()
            others[index] = False
            near = np.maximum(
                half + sizes[others] / 2 - np.abs(middle[:, None] - (centres + offsets)[others]), 0
            )
            overlap = near.prod(axis=2).sum(axis=1)
            covered = (np.abs(middle[:, None] - obstacles) < half).all(axis=2).sum(axis=1)
            outside = np.maximum(corners[0] - (middle - half), 0) + np.maximum(middle + half - corners[1], 0)
            crossing = sum(
                (
                    np.abs(centres[index] + share * tried[:, None] - (centres + offsets)[others])
                    < sizes[others] / 2
                )
                .all(axis=2)
                .sum(axis=1)
                for share in (0.2, 0.4, 0.6, 0.8)
            )
            cost = 10 * overlap + 6 * covered + gaps + 1000 * outside.sum(axis=1) + 15 * crossing
            offsets[index] = tried[cost.argmin()]
            placed[index] = True
    return offsets

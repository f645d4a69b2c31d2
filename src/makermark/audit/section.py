"""A section of the report of an audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Report = Mapping[str, Any]

MAX_NAMES = 6  # systems or families in a cell


class Section(NamedTuple):
    """A title, an explanation ("" for none), and a table (without rows: no table)."""

    title: str
    explanation: str
    header: list[str]
    rows: list[list[str]]


def join_names(names: Sequence[str], *, most: int = MAX_NAMES) -> str:
    """Return the first `most` names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"

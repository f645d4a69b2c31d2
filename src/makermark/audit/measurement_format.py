"""How the measurements of audio are written in findings and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class MeasurementFormat(NamedTuple):
    """Label, unit and number of decimals of a measurement."""

    label: str
    unit: str
    decimals: int


FORMATS: dict[str, MeasurementFormat] = {
    "sample_rate_hz": MeasurementFormat("sample rate", "Hz", 0),
    "bandwidth_hz": MeasurementFormat("bandwidth", "Hz", 0),
    "level_dbfs": MeasurementFormat("level", "dBFS", 1),
    "leading_silence_s": MeasurementFormat("silence before", "s", 3),
    "trailing_silence_s": MeasurementFormat("silence after", "s", 3),
    "pause_percent": MeasurementFormat("pauses", "%", 1),
    "duration_s": MeasurementFormat("duration", "s", 2),
}


def format_value(measurement: str, value: float) -> str:
    """Return the value without its unit."""
    return f"{value:,.{FORMATS[measurement].decimals}f}"


def format_range(measurement: str, ends: Sequence[float]) -> str:
    """Return label, lowest and highest value (once if they are written alike), and unit."""
    values = list(dict.fromkeys(format_value(measurement, value) for value in ends))
    return f"{FORMATS[measurement].label} {' to '.join(values)} {FORMATS[measurement].unit}"

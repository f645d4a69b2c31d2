"""Rendering of a report as one HTML file without scripts, external files or network access.

File and system names are untrusted: the template escapes all of them.
"""

from __future__ import annotations

import math
from base64 import b64encode
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from makermark.examination.report import text
from makermark.examination.report.collect import ReportData
from makermark.examination.report.media import (
    MAX_MEDIA_SECONDS,
    MP3_MEDIA_TYPE,
    OPPOSING_COLOUR,
    RANGE_DB,
    SUPPORTING_COLOUR,
    draw_attribution,
    draw_spectrogram,
)
from makermark.examination.report.neighbours import PcaMap
from makermark.foundation.arrays import FloatArray
from makermark.foundation.figures import COLOURS
from makermark.tracing.decision import FAMILY, ONE_SYSTEM, TOO_LITTLE_SPEECH, UNKNOWN, Window, format_ratio
from makermark.tracing.voice_activity import DETECTOR

SYSTEM_COLOURS = COLOURS[:-1]  # black is invisible in dark mode
OTHER_COLOUR = "#8a8f98"
MIN_SHOWN_CANDIDATES = 8
MAX_WINDOW_RUNS = 40  # rows of the table of windows
MAP_WIDTH, MAP_HEIGHT, MAP_MARGIN = 1000, 600, 30
TICKS_HZ = (0, 500, 1000, 2000, 4000, 8000, 16000)
CSS_CLASS = {ONE_SYSTEM: "one", FAMILY: "family", UNKNOWN: "unknown", TOO_LITTLE_SPEECH: "little"}


@dataclass(frozen=True)
class WindowRun:
    """Consecutive windows with the same top-scoring system and conclusion.

    - lowest, highest: likelihood ratios as text
    """

    start_s: float
    end_s: float
    best: str
    conclusion: str
    name: str
    lowest: str
    highest: str


def render_report(report: ReportData) -> str:
    """Return the report as one HTML page."""
    environment = Environment(
        loader=PackageLoader("makermark.examination.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": format_percent, "uri": data_uri, "duration": format_duration}
    trace, explanation = report.trace, report.explanation
    in_set = [number for number, candidate in enumerate(trace.candidates, 1) if candidate.in_set]
    colours = assign_colours(report)
    explained_s = float(explanation.times_s[-1]) if explanation is not None else 0.0
    window_runs = merge_windows(report)
    return environment.get_template("report.html").render(
        report=report,
        trace=trace,
        css_class=CSS_CLASS[trace.conclusion],
        headline=text.describe_conclusion(trace),
        meaning=text.explain_conclusion(trace),
        cautions=list(text.list_cautions(report)),
        top_ratio=text.describe_top_ratio(report),
        describe_support=text.describe_support,
        format_ratio=format_ratio,
        threshold=text.describe_threshold(report),
        num_shown=max(MIN_SHOWN_CANDIDATES, *in_set, 0),
        max_log10=max(map(abs, report.log10_lr_range)),
        colours=colours,
        other_colour=OTHER_COLOUR,
        map_paths=svg_paths(report.pca_map, colours),
        map_width=MAP_WIDTH,
        map_height=MAP_HEIGHT,
        spectrogram=draw_spectrogram(report.spectrogram),
        attribution=draw_attribution(explanation) if explanation is not None else b"",
        deletion_test=text.describe_deletion(explanation) if explanation is not None else "",
        supporting_colour=SUPPORTING_COLOUR,
        opposing_colour=OPPOSING_COLOUR,
        explained_s=explained_s,
        explained_ticks=time_ticks(explained_s) if explanation is not None else [],
        range_db=RANGE_DB,
        time_ticks=time_ticks(report.spectrogram.seconds),
        frequency_ticks=frequency_ticks(report.spectrogram.top_hz),
        band_ticks=[] if explanation is None else band_ticks(explanation.bands_hz, report.spectrogram.top_hz),
        window_spans=window_spans(trace.windows, trace.duration_s),
        window_runs=window_runs[:MAX_WINDOW_RUNS],
        num_hidden_runs=max(0, len(window_runs) - MAX_WINDOW_RUNS),
        played_s=min(MAX_MEDIA_SECONDS, trace.duration_s),
        media_type=MP3_MEDIA_TYPE,
        inf=math.inf,
        posterior_error=report.posterior_error_percent,
        detector=DETECTOR,
    )


def format_percent(probability: float) -> str:
    """Return a probability in percent with one decimal; never rounded to 0 % or 100 %."""
    value = 100 * probability
    if 0 < value < 0.1:
        return "under\u00a00.1\u00a0%"
    if 99.9 < value < 100:
        return "over\u00a099.9\u00a0%"
    return f"{value:.1f}\u00a0%"


def format_duration(seconds: float) -> str:
    """Return a duration as text: `7.3 s` or `2:05 min`."""
    if seconds < 100:
        return f"{seconds:.1f}\u00a0s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}\u00a0min"


def data_uri(content: bytes, media_type: str) -> str:
    """Return bytes as a data URI."""
    return f"data:{media_type};base64,{b64encode(content).decode('ascii')}"


def assign_colours(report: ReportData) -> dict[str, str]:
    """Return colours for the most relevant systems: the top candidates first, then those of windows."""
    names = [candidate.system for candidate in report.trace.candidates[:3]]
    names += [window.best for window in report.trace.windows]
    names += [candidate.system for candidate in report.trace.candidates]
    return dict(zip(dict.fromkeys(names), SYSTEM_COLOURS, strict=False))


def svg_paths(pca_map: PcaMap, colours: dict[str, str]) -> dict[str, str]:
    """Return the SVG path of the points of each colour, of the clip (`clip`) and of its windows (`windows`)."""
    all_points = [*pca_map.points.tolist(), pca_map.clip.tolist(), *pca_map.windows.tolist()]
    left, right = min(x for x, _ in all_points), max(x for x, _ in all_points)
    bottom, top = min(y for _, y in all_points), max(y for _, y in all_points)
    scale = min(
        (MAP_WIDTH - 2 * MAP_MARGIN) / max(right - left, 1e-9),
        (MAP_HEIGHT - 2 * MAP_MARGIN) / max(top - bottom, 1e-9),
    )

    def to_pixels(x: float, y: float) -> str:
        column = MAP_WIDTH / 2 + (x - (left + right) / 2) * scale
        return f"{column:.0f} {MAP_HEIGHT / 2 - (y - (bottom + top) / 2) * scale:.0f}"

    dots: dict[str, list[str]] = {colour: [] for colour in (OTHER_COLOUR, *colours.values())}
    for (x, y), system in zip(pca_map.points.tolist(), pca_map.systems, strict=True):
        dots[colours.get(str(system), OTHER_COLOUR)].append(f"M{to_pixels(x, y)}h0")
    paths = {colour: "".join(moves) for colour, moves in dots.items()}
    paths["clip"] = to_pixels(*pca_map.clip.tolist())
    windows = [to_pixels(x, y) for x, y in pca_map.windows.tolist()]
    paths["windows"] = "M" + "L".join(windows) if windows else ""
    return paths


def time_ticks(seconds: float) -> list[tuple[float, str]]:
    """Return two to seven round times as (position in percent, label)."""
    step = next(
        size
        for power in range(-2, 6)
        for size in (10.0**power, 2 * 10.0**power, 5 * 10.0**power)
        if seconds / size <= 6
    )
    times = [number * step for number in range(math.floor(seconds / step) + 1)]
    return [(100 * time / seconds, f"{time:g}") for time in times]


def frequency_ticks(top_hz: float) -> list[tuple[float, str]]:
    """Return frequencies on an HTK mel axis as (position in percent from below, label in kHz)."""

    def mel(hertz: float) -> float:
        return math.log10(1 + hertz / 700)

    ticks = [hertz for hertz in TICKS_HZ if hertz <= top_hz]
    return [(100 * mel(hertz) / mel(top_hz), f"{hertz / 1000:g}") for hertz in ticks]


def band_ticks(bands_hz: FloatArray, top_hz: float) -> list[tuple[float, str]]:
    """Return frequencies up to `top_hz` on an axis with equally high bands as (percent from below, label in kHz).

    `bands_hz` (F,) are the peak frequencies of the bands, on any scale.
    """
    ticks = [hertz for hertz in TICKS_HZ if hertz <= top_hz]
    rows = [0.0, *(np.arange(len(bands_hz)) + 0.5), float(len(bands_hz))]
    positions = np.interp(ticks, [0.0, *bands_hz, top_hz], rows) / len(bands_hz)
    return [(100 * float(at), f"{hertz / 1000:g}") for at, hertz in zip(positions, ticks, strict=True)]


def window_spans(windows: list[Window], duration_s: float) -> list[tuple[float, float, Window]]:
    """Return (start, width, window) in percent of the duration; a window is drawn until the next one begins."""
    if not windows:
        return []
    ends = [later.start_s for _, later in pairwise(windows)] + [windows[-1].end_s]
    return [
        (100 * window.start_s / duration_s, 100 * (end - window.start_s) / duration_s, window)
        for window, end in zip(windows, ends, strict=True)
    ]


def merge_windows(report: ReportData) -> list[WindowRun]:
    """Merge consecutive windows with the same top-scoring system, conclusion and name."""
    max_log10 = report.log10_lr_range[1]
    runs = []
    for (best, conclusion, name), group in groupby(
        report.trace.windows, key=lambda window: (window.best, window.conclusion, window.name)
    ):
        windows = list(group)
        log10_lrs = [window.log10_lr for window in windows]
        lowest, highest = (
            format_ratio(log10_lr, at_bound=log10_lr >= max_log10)
            for log10_lr in (min(log10_lrs), max(log10_lrs))
        )
        runs.append(WindowRun(windows[0].start_s, windows[-1].end_s, best, conclusion, name, lowest, highest))
    return runs

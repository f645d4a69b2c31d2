"""The evidence on a clip as one HTML file that needs nothing else: no network, no script, no other file.

Names of files and systems come from anywhere: the template escapes all of them.
"""

from __future__ import annotations

import math
from base64 import b64encode
from dataclasses import dataclass
from itertools import groupby, pairwise

from jinja2 import Environment, PackageLoader, StrictUndefined

from makermark.evidence import looked, sounds, words
from makermark.evidence.gathering import Evidence
from makermark.evidence.plane import Plane
from makermark.evidence.sounds import LONGEST_SECONDS, MEDIA_TYPE, RANGE_DB
from makermark.reporting.style import COLOURS
from makermark.tracing.verdict import FAMILY, ONE, TOO_LITTLE, UNKNOWN, Window, ratio

NAMED_COLOURS = COLOURS[:-1]  # black is not seen in the dark
OTHER = "#8a8f98"
SHOWN = 8  # candidates, beside those that the maker is among
MOST_RUNS = 40  # of windows, in the table
WIDE, HIGH, EDGE = 1000, 600, 30  # of the map
FREQUENCIES_HZ = (0, 500, 1000, 2000, 4000, 8000, 16000)
KIND = {ONE: "one", FAMILY: "family", UNKNOWN: "unknown", TOO_LITTLE: "little"}


@dataclass(frozen=True)
class Run:
    """Windows that follow one another and say the same."""

    start_s: float
    end_s: float
    best: str
    verdict: str
    name: str
    low: str
    high: str


def html_report(evidence: Evidence) -> str:
    """The page, whole."""
    environment = Environment(
        loader=PackageLoader("makermark.evidence", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "uri": data_uri, "clock": clock}
    told = evidence.trace
    shown = max(SHOWN, *(place + 1 for place, each in enumerate(told.candidates) if each.in_set), 0)
    colours, explained = colours_of(evidence), evidence.explanation
    explained_s = float(explained.times_s[-1]) if explained is not None else 0.0
    return environment.get_template("report.html").render(
        evidence=evidence,
        told=told,
        kind=KIND[told.verdict],
        headline=words.headline(told),
        meaning=words.meaning(told),
        cautions=list(words.cautions(evidence)),
        largest=words.largest(told),
        strength=words.strength,
        ratio=ratio,
        times=words.times,
        shown=shown,
        widest=max(map(abs, evidence.bounds_log10)),
        colours=colours,
        other=OTHER,
        paths=paths_of(evidence.plane, colours),
        wide=WIDE,
        high=HIGH,
        spectrogram=sounds.draw(evidence.spectrogram),
        attribution=looked.draw(explained) if explained is not None else b"",
        checked=words.checked(explained) if explained is not None else "",
        colour_for=looked.FOR,
        colour_against=looked.AGAINST,
        explained_s=explained_s,
        explained_seconds=seconds_ticks(explained_s) if explained is not None else [],
        range_db=RANGE_DB,
        seconds=seconds_ticks(evidence.spectrogram.seconds),
        hertz=hertz_ticks(evidence.spectrogram.top_hz),
        strips=list(strips(told.windows, told.duration_s)),
        runs=runs(evidence)[:MOST_RUNS],
        more_runs=max(0, len(runs(evidence)) - MOST_RUNS),
        played_s=min(LONGEST_SECONDS, told.duration_s),
        media_type=MEDIA_TYPE,
        inf=math.inf,
    )


def percent(share: float) -> str:
    """Of a probability: two digits that say something, never a 0 or 100 that is not meant."""
    value = 100 * share
    if 0 < value < 0.1:
        return "under\u00a00.1\u00a0%"
    if 99.9 < value < 100:
        return "over\u00a099.9\u00a0%"
    return f"{value:.1f}\u00a0%"


def clock(seconds: float) -> str:
    """Seconds as people read them: 7.3 s, or 2:05 min."""
    if seconds < 100:
        return f"{seconds:.1f}\u00a0s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}\u00a0min"


def data_uri(content: bytes, media_type: str) -> str:
    """Bytes inside a page."""
    return f"data:{media_type};base64,{b64encode(content).decode('ascii')}"


def colours_of(evidence: Evidence) -> dict[str, str]:
    """Of the systems that a reader tells apart: the likeliest ones, and those along time."""
    names = [each.system for each in evidence.trace.candidates[:3]]
    names += [window.best for window in evidence.trace.windows]
    names += [each.system for each in evidence.trace.candidates]
    return dict(zip(dict.fromkeys(names), NAMED_COLOURS, strict=False))


def paths_of(plane: Plane, colours: dict[str, str]) -> dict[str, str]:
    """What an SVG path draws for each colour, the clip (`clip`) and its windows (`windows`)."""
    everything = [*plane.points.tolist(), plane.clip.tolist(), *plane.windows.tolist()]
    left, right = min(x for x, _ in everything), max(x for x, _ in everything)
    low, top = min(y for _, y in everything), max(y for _, y in everything)
    scale = min((WIDE - 2 * EDGE) / max(right - left, 1e-9), (HIGH - 2 * EDGE) / max(top - low, 1e-9))

    def at(x: float, y: float) -> str:
        across = WIDE / 2 + (x - (left + right) / 2) * scale
        return f"{across:.0f} {HIGH / 2 - (y - (low + top) / 2) * scale:.0f}"

    drawn: dict[str, list[str]] = {colour: [] for colour in (OTHER, *colours.values())}
    for (x, y), system in zip(plane.points.tolist(), plane.systems, strict=True):
        drawn[colours.get(str(system), OTHER)].append(f"M{at(x, y)}h0")
    found = {colour: "".join(points) for colour, points in drawn.items()}
    found["clip"] = at(*plane.clip.tolist())
    found["windows"] = (
        "M" + "L".join(at(x, y) for x, y in plane.windows.tolist()) if len(plane.windows) else ""
    )
    return found


def seconds_ticks(seconds: float) -> list[tuple[float, str]]:
    """(place in percent, label) of about five times."""
    step = next(
        size
        for power in range(-2, 6)
        for size in (10.0**power, 2 * 10.0**power, 5 * 10.0**power)
        if seconds / size <= 6
    )
    times = [number * step for number in range(math.floor(seconds / step) + 1)]
    return [(100 * time / seconds, f"{time:g}") for time in times]


def hertz_ticks(top_hz: float) -> list[tuple[float, str]]:
    """(place in percent from below, label) of frequencies on a mel scale (HTK's)."""

    def mel(hertz: float) -> float:
        return math.log10(1 + hertz / 700)

    within = [hertz for hertz in FREQUENCIES_HZ if hertz <= top_hz]
    return [(100 * mel(hertz) / mel(top_hz), f"{hertz / 1000:g}") for hertz in within]


def strips(windows: list[Window], duration_s: float) -> list[tuple[float, float, Window]]:
    """Each window with its place and width in percent: until the next begins."""
    if not windows:
        return []
    ends = [later.start_s for _, later in pairwise(windows)] + [windows[-1].end_s]
    return [
        (100 * window.start_s / duration_s, 100 * (end - window.start_s) / duration_s, window)
        for window, end in zip(windows, ends, strict=True)
    ]


def runs(evidence: Evidence) -> list[Run]:
    """Windows that follow one another with the same nearest system and verdict, taken together."""
    highest = evidence.bounds_log10[1]
    found = []
    for (best, verdict, name), same in groupby(
        evidence.trace.windows, key=lambda window: (window.best, window.verdict, window.name)
    ):
        some = list(same)
        low, high = (chosen(window.log10_lr for window in some) for chosen in (min, max))
        said = [ratio(each, at_bound=each >= highest) for each in (low, high)]
        found.append(Run(some[0].start_s, some[-1].end_s, best, verdict, name, *said))
    return found

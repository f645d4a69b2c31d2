"""The tables and the figure of benchmarks/generalisation.py, from its results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from generalisation_plan import (
    CONTROL,
    CURVE,
    GROUPS,
    NETWORK,
    STANDARD_NETWORK,
    STATISTICS,
    UNTRAINED,
    network_name,
)
from matplotlib.figure import Figure
from scipy.stats import t as student_t

from makermark.foundation.figures import COLOURS, GREY, save_figure, style_axes

Result = Mapping[str, Any]
Interval = tuple[float, float]

SETS = {  # name in tables: path to a set of EERs in a result
    "unseen systems of test": ("test",),
    "published systems": ("clips", "pooled"),
    "published systems, within a page": ("clips", "within_page"),
}
AVERAGES = ("micro", "macro")


def read_results(path: Path) -> list[Result]:
    """Return the results of a file, without an unfinished last line."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def result_key(result: Result) -> tuple[str, str, int]:
    """Return the key of the run (`Run.key`) of a result."""
    return result["kind"], result["name"], result["draw"]


def select(results: Iterable[Result], kind: str, name: str | None = None) -> list[Result]:
    """Return the results of a kind, and of a name, by draw."""
    chosen = [result for result in results if result["kind"] == kind and name in (None, result["name"])]
    return sorted(chosen, key=lambda result: int(result["draw"]))


def names_of(results: Iterable[Result]) -> list[str]:
    """Return the distinct names, in the order of the results."""
    return list(dict.fromkeys(result["name"] for result in results))


def eer(result: Result, name: str, average: str = "micro") -> float:
    """Return an EER of one of SETS, in percent."""
    part: Any = result
    for key in SETS[name]:
        part = part[key]
    return float(part[f"eer_{average}_percent"])


def interval_over_systems(results: Sequence[Result], name: str, average: str = "micro") -> Interval:
    """Return the ends of the intervals over the scored systems, averaged over the results."""
    ends = []
    for result in results:
        part: Any = result
        for key in SETS[name]:
            part = part[key]
        ends.append(part[f"eer_{average}_ci95_percent"])
    low, high = np.mean(ends, axis=0)
    return float(low), float(high)


def t_interval(values: Sequence[float]) -> Interval | None:
    """Return the 95 % t-interval of the mean; None for a single value."""
    if len(values) < 2:
        return None
    half = student_t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def cell(values: Sequence[float], *, sign: str = "") -> str:
    """Return the mean with its t-interval as text."""
    ends = t_interval(values)
    mean = f"{np.mean(values):{sign}.1f}"
    return mean if ends is None else f"{mean} [{ends[0]:{sign}.1f}, {ends[1]:{sign}.1f}]"


def sizes_of(results: Iterable[Result]) -> list[int]:
    return sorted({result["systems"] for result in select(results, CURVE)})


def at_size(results: Iterable[Result], size: int) -> list[Result]:
    return [result for result in select(results, CURVE) if result["systems"] == size]


def curve_means(results: Sequence[Result], name: str, average: str) -> tuple[list[int], list[float]]:
    """Return the sizes of the curve, and the mean EER over the draws at each."""
    sizes = sizes_of(results)
    return sizes, [float(np.mean([eer(r, name, average) for r in at_size(results, size)])) for size in sizes]


def expected_eer(results: Sequence[Result], systems: int, name: str, average: str = "micro") -> float:
    """Return the EER that the curve has at a number of systems: linear in its logarithm between two sizes."""
    sizes, means = curve_means(results, name, average)
    return float(np.interp(np.log2(systems), np.log2(sizes), means))


def slopes(results: Sequence[Result], name: str, average: str = "micro") -> list[float]:
    """Return the change of the EER with every doubling of the systems, by draw: a straight line through all sizes.

    Draws that lack a size are left out.
    """
    sizes = sizes_of(results)
    fitted = []
    for draw in sorted({result["draw"] for result in select(results, CURVE)}):
        own = {r["systems"]: eer(r, name, average) for r in select(results, CURVE) if r["draw"] == draw}
        if len(sizes) > 1 and len(own) == len(sizes):
            fitted.append(float(np.polyfit(np.log2(sizes), [own[size] for size in sizes], 1)[0]))
    return fitted


def systems_for_half(systems: int, error: float, slope: float) -> float | None:
    """Return the number of systems at which a line of this slope reaches half of the error; None if it never does."""
    return None if slope >= 0 else systems * 2 ** (error / 2 / -slope)


def scored_sets(results: Iterable[Result]) -> list[str]:
    """Return the names of SETS that every result has."""
    has_clips = all("clips" in result for result in results)
    return [name for name, keys in SETS.items() if keys[0] != "clips" or has_clips]


def report_markdown(results: Sequence[Result]) -> str:
    """Return all tables whose runs exist; those beside the curve need runs of the curve."""
    parts = [curve_table(results)]
    if sizes_of(results):
        parts += [systems_interval_table(results), slope_table(results)]
        parts += [control_table(results)] if select(results, CONTROL) else []
        parts += [network_table(results)] if select(results, NETWORK) else []
        parts += [group_table(results)] if any(select(results, group) for group in GROUPS) else []
    return "\n\n".join(parts)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def eer_cells(results: Sequence[Result], sets: Sequence[str]) -> list[str]:
    return [cell([eer(r, name, average) for r in results]) for name in sets for average in AVERAGES]


def eer_header(sets: Sequence[str]) -> list[str]:
    return [f"{name}, {average}" for name in sets for average in AVERAGES]


def curve_table(results: Sequence[Result]) -> str:
    """Return the EERs by the number of systems: mean over the draws, with its t-interval."""
    sets = scored_sets(results)
    rows = [
        [kind, "", "", "", str(len(chosen)), *eer_cells(chosen, sets)]
        for kind in (STATISTICS, UNTRAINED)
        if (chosen := select(results, kind))
    ]
    for size in sizes_of(results):
        chosen = at_size(results, size)
        counts = [
            f"{np.mean([r[name] for r in chosen]):.0f}"
            for name in ("utterances", "generators", "waveform_makers")
        ]
        rows.append([str(size), *counts, str(len(chosen)), *eer_cells(chosen, sets)])
    header = ["systems", "utterances", "generators", "waveform makers", "draws", *eer_header(sets)]
    return markdown(header, rows)


def systems_interval_table(results: Sequence[Result]) -> str:
    """Return the micro EERs with the intervals over the scored systems, both averaged over the draws."""
    sets = scored_sets(results)
    rows = []
    for size in sizes_of(results):
        chosen = at_size(results, size)
        cells = []
        for name in sets:
            low, high = interval_over_systems(chosen, name)
            cells.append(f"{np.mean([eer(r, name) for r in chosen]):.1f} [{low:.1f}, {high:.1f}]")
        rows.append([str(size), *cells])
    return markdown(["systems", *sets], rows)


def slope_table(results: Sequence[Result]) -> str:
    """Return the change with every doubling, and the number of systems for half of the error on that line."""
    rows = []
    for name in scored_sets(results):
        fitted = slopes(results, name)
        if not fitted:
            continue
        size = sizes_of(results)[-1]
        error = float(np.mean([eer(r, name) for r in at_size(results, size)]))
        ends = t_interval(fitted)
        needed = [
            rounded(systems_for_half(size, error, slope))
            for slope in (float(np.mean(fitted)), *(ends if ends is not None else ()))
        ]
        rows.append([name, f"{error:.1f}", cell(fitted, sign="+"), needed[0], ", ".join(needed[1:])])
    header = [
        "micro EER",
        "all systems, %",
        "per doubling, points",
        "systems for half of it",
        "from the ends",
    ]
    return markdown(header, rows)


def rounded(count: float | None) -> str:
    """Return a number with two significant digits as text."""
    if count is None:
        return "never"
    return f"{float(f'{count:.2g}'):,.0f}" if count < 1e6 else "over a million"


def control_table(results: Sequence[Result]) -> str:
    """Return the controls beside the curve: all have all systems."""
    sets, everything = scored_sets(results), at_size(results, sizes_of(results)[-1])
    parts = {"all systems, as in the curve": everything}
    parts |= {name: select(results, CONTROL, name) for name in names_of(select(results, CONTROL))}
    rows = [
        [
            name,
            f"{np.mean([r['utterances'] for r in chosen]):.0f}",
            str(len(chosen)),
            *eer_cells(chosen, sets),
        ]
        for name, chosen in parts.items()
    ]
    return markdown(["run", "utterances", "draws", *eer_header(sets)], rows)


def network_table(results: Sequence[Result]) -> str:
    """Return the EERs of other networks beside the curve: all have all systems."""
    sets, everything = scored_sets(results), at_size(results, sizes_of(results)[-1])
    parts = {f"{network_name(STANDARD_NETWORK)}, as in the curve": everything}
    parts |= {name: select(results, NETWORK, name) for name in names_of(select(results, NETWORK))}
    rows = [[name, str(len(chosen)), *eer_cells(chosen, sets)] for name, chosen in parts.items()]
    return markdown(["network", "draws", *eer_header(sets)], rows)


def group_table(results: Sequence[Result]) -> str:
    """Return what each group changes when it is left out, from the curve at the same number of systems.

    The last column compares the macro EER of test with that of all systems, system by system: its interval is over the
    systems of test.
    """
    sets = scored_sets(results)
    rows = []
    for group in GROUPS:
        for name in names_of(select(results, group)):
            chosen = select(results, group, name)
            size = chosen[0]["systems"]
            changes = [
                cell([eer(r, part) - expected_eer(results, size, part) for r in chosen], sign="+")
                for part in sets
            ]
            paired = cell(paired_differences(chosen, at_size(results, sizes_of(results)[-1])), sign="+")
            rows.append([group, name, str(size), str(len(chosen)), *changes, paired])
    header = ["left out", "which", "systems left", "draws", *sets, "test, macro, against all systems"]
    return markdown(header, rows)


def paired_differences(results: Sequence[Result], others: Sequence[Result]) -> list[float]:
    """Return the difference of the EER of every system of test, each averaged over its results."""
    systems = sorted(name for name, value in results[0]["test_per_system"].items() if value is not None)
    means = [
        np.mean([[r["test_per_system"][name] for name in systems] for r in part], axis=0)
        for part in (results, others)
    ]
    return (means[0] - means[1]).tolist()


def plot_curve(path: Path, results: Sequence[Result]) -> None:
    """Plot the micro EERs against the number of systems: every draw, the mean, and the untrained network."""
    sets = scored_sets(results)
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.subplots()
    style_axes(axes)
    sizes = sizes_of(results)
    for colour, name in zip(COLOURS, sets, strict=False):
        draws = [(r["systems"], eer(r, name)) for r in select(results, CURVE)]
        axes.scatter(*zip(*draws, strict=True), s=14, color=colour, alpha=0.45, linewidths=0)
        _, means = curve_means(results, name, "micro")
        axes.plot(sizes, means, color=colour, marker="o", markersize=5, linewidth=1.8)
        axes.annotate(
            name, (sizes[-1], means[-1]), xytext=(8, 0), textcoords="offset points", va="center", color=colour,
            fontsize=9, annotation_clip=False,
        )  # fmt: skip
        if untrained := select(results, UNTRAINED):
            value = float(np.mean([eer(r, name) for r in untrained]))
            axes.axhline(value, color=colour, linestyle=":", linewidth=1.2)
    if select(results, UNTRAINED):
        axes.annotate(
            "dotted: untrained network", (0.01, 0.01), xycoords="axes fraction", color=GREY, fontsize=9
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("training systems", fontsize=10)
    axes.set_ylabel("EER of unseen systems, %", fontsize=10)
    save_figure(figure, path)

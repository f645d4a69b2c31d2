"""The results of benchmarks/scale.py as a Markdown page, every figure with its target."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

VERSIONS_OF = ("makermark", "torch", "numpy", "pyarrow", "numba", "soundfile", "pandas")
TIMES_REAL_TIME = 1000
PEAK_BYTES = 3e9
SCORE_S = 60
OPEN_S = 1

Figures = Mapping[str, Any]


def machine(repository: Path) -> dict[str, Any]:
    """Return processor, memory, load, threads, versions and commit."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    commit = subprocess.run(
        ["git", "-C", str(repository), "describe", "--always", "--dirty", "--exclude=*"],
        capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "load_before": round(os.getloadavg()[0], 1),
        "threads": {name: os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")},
        "python": platform.python_version(),
        "versions": {name: version(name) for name in VERSIONS_OF},
        "commit": commit or "none",
    }


def page(measured: Figures, titles: Mapping[str, str]) -> str:
    """The whole page. `says`: step to what it is."""
    steps = {name: measured["steps"][name] for name in titles if name in measured["steps"]}
    share_note = (
        "" if measured["share"] == 1 else f" This run used {100 * measured['share']:g} % of the rows."
    )
    paragraphs = [
        "# Scale: MLAADv5's size on one machine",
        "The benchmark creates a file for every path of the real protocol. The files contain speech of another "
        f"corpus, 2 to 8 s each, 16 kHz, 16 bit.{share_note} `benchmarks/scale.py` writes this page and documents how "
        "each step is measured.",
        *map(_machine, _distinct(figures["machine"] for figures in steps.values())),
        "\n".join(_table(["", "target", "measured", ""], targets(steps))),
        "\n".join(_table(["step", "what", "wall s", "CPU s", "peak MB", "own MB", "load"], _rows(steps, titles))),
        "Peak: largest resident memory of a process of the step, including pages of mapped files, which the operating "
        "system can reclaim. Own: without these pages (sampled every 10 ms). Load: number of runnable processes before "
        "the step. "
        + (
            "The file cache was empty before download, features, open and embed."
            if all(figures.get("cold", True) for figures in steps.values())
            else "Files may have been in the file cache before they were read: this system cannot drop it."
        ),
    ]  # fmt: skip
    return "\n\n".join(paragraphs) + "\n"


def targets(steps: Mapping[str, Figures]) -> list[list[str]]:
    """Return rows of requirement, target, figure and met or missed, for the steps that were run."""
    rows: list[tuple[str, str, str, bool]] = []
    if "features" in steps:
        speed = steps["features"]["times_real_time"]
        rows.append(
            (
                "features, reading and writing included",
                f">= {TIMES_REAL_TIME:,} x real time",
                f"{speed:,.0f} x",
                speed >= TIMES_REAL_TIME,
            )
        )
    peaks = {name: figures["peak_bytes"] for name, figures in steps.items() if "peak_bytes" in figures}
    if peaks:
        worst = max(peaks, key=lambda name: peaks[name])
        measured = f"{peaks[worst] / 1e9:.2f} GB ({worst})"
        rows.append(
            (
                "peak memory of every stage",
                f"<= {PEAK_BYTES / 1e9:g} GB",
                measured,
                peaks[worst] <= PEAK_BYTES,
            )
        )
    if "score" in steps:
        seconds = steps["score"]["wall_s"]
        rows.append(("score, both sets", f"<= {SCORE_S} s", f"{seconds:.1f} s", seconds <= SCORE_S))
    if "open" in steps:
        seconds = steps["open"]["wall_s"]
        rows.append(("cache opened", f"< {OPEN_S} s", f"{seconds:.2f} s", seconds < OPEN_S))
    if "kill" in steps:
        figures = steps["kill"]
        rows.append(
            (
                "shards computed twice after a kill",
                "the one in progress of each worker",
                f"{figures['made_again']} finished, {figures['in_flight']} in progress at most",
                figures["made_again"] == 0 and figures["same"],
            )
        )
    return [[what, target, measured, "met" if met else "**missed**"] for what, target, measured, met in rows]


def _rows(steps: Mapping[str, Figures], titles: Mapping[str, str]) -> list[list[str]]:
    def megabytes(figures: Figures, name: str) -> str:
        return f"{figures[name] / 1e6:,.0f}" if figures.get(name) else ""

    return [
        [
            name,
            f"{titles[name]}: {figures['work']}",
            f"{figures['wall_s']:,.2f}" if figures["wall_s"] < 10 else f"{figures['wall_s']:,.0f}",
            f"{figures['cpu_s']:,.0f}" if "cpu_s" in figures else "",
            megabytes(figures, "peak_bytes"),
            megabytes(figures, "own_bytes"),
            f"{figures['machine']['load_before']}",
        ]
        for name, figures in steps.items()
    ]


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows)]


def _distinct(machines: Iterator[Figures]) -> list[dict[str, Any]]:
    """Return the machines that differ in more than their load."""
    distinct: list[dict[str, Any]] = []
    for entry in machines:
        without_load = {name: value for name, value in entry.items() if name != "load_before"}
        distinct += [without_load] if without_load not in distinct else []
    return distinct


def _machine(entry: Figures) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in entry["versions"].items())
    threads = ", ".join(f"{name}={number}" for name, number in entry["threads"].items() if number)
    return (
        f"{entry['processor']}, {entry['cores']} logical cores, {entry['memory_gb']} GB; "
        f"{threads or 'default threads of the libraries'}; Python {entry['python']}, {versions}; "
        f"commit {entry['commit']}."
    )

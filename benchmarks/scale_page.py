"""What benchmarks/scale.py measured, as a page of Markdown: each figure with its target."""

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
    """Processor, memory, load, threads, versions and commit, as they are now."""
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


def page(told: Figures, says: Mapping[str, str]) -> str:
    """The whole page. `says`: step to what it is."""
    steps = {name: told["steps"][name] for name in says if name in told["steps"]}
    of_share = "" if told["share"] == 1 else f" Here: {100 * told['share']:g} % of its rows."
    paragraphs = [
        "# Scale: MLAADv5's size on one machine",
        "The protocol's real paths, with speech of another corpus in the files: 2 to 8 s each, 16 kHz, 16 bit."
        f"{of_share} Written by `benchmarks/scale.py`, which says how each step is measured.",
        *map(_machine, _distinct(figures["machine"] for figures in steps.values())),
        "\n".join(_table(["", "target", "measured", ""], targets(steps))),
        "\n".join(_table(["step", "what", "wall s", "CPU s", "peak MB", "own MB", "load"], _rows(steps, says))),
        "Peak: the largest resident memory of a process of the step, pages of mapped files included, which the system "
        "takes back when it needs them; own: without those (seen every 10 ms). "
        + (
            "Files were on disk only before download, features, open and embed."
            if all(figures.get("cold", True) for figures in steps.values())
            else "Files may have been in memory before they were read: this system does not let them be dropped."
        ),
    ]  # fmt: skip
    return "\n\n".join(paragraphs) + "\n"


def targets(steps: Mapping[str, Figures]) -> list[list[str]]:
    """What is asked for, the target, the figure, and whether it is met; for the steps that were run."""
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
        found = steps["kill"]
        rows.append(
            (
                "shards made twice after a kill",
                "the one in flight of each worker",
                f"{found['made_again']} finished, {found['in_flight']} in flight at most",
                found["made_again"] == 0 and found["same"],
            )
        )
    return [[what, target, measured, "met" if met else "**missed**"] for what, target, measured, met in rows]


def _rows(steps: Mapping[str, Figures], says: Mapping[str, str]) -> list[list[str]]:
    def megabytes(figures: Figures, name: str) -> str:
        return f"{figures[name] / 1e6:,.0f}" if figures.get(name) else ""

    return [
        [
            name,
            f"{says[name]}: {figures['work']}",
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
    """Those that differ in more than their load."""
    found: list[dict[str, Any]] = []
    for each in machines:
        plain = {name: value for name, value in each.items() if name != "load_before"}
        found += [plain] if plain not in found else []
    return found


def _machine(each: Figures) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in each["versions"].items())
    threads = ", ".join(f"{name}={number}" for name, number in each["threads"].items() if number)
    return (
        f"{each['processor']}, {each['cores']} logical cores, {each['memory_gb']} GB; "
        f"{threads or 'threads as the libraries choose'}; Python {each['python']}, {versions}; "
        f"commit {each['commit']}. Load: before the step, processes that want to run."
    )

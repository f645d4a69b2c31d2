"""Table and plot of a grid of experiments: one row per arm, with the spread over its seeds.

An arm is a combination of params other than the seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from makermark.foundation.figures import COLOURS, save_figure, style_axes
from makermark.foundation.manifest import STRATA
from makermark.reporting.tables import split_stratum

BEGIN, END = (
    "<!-- table -->",
    "<!-- /table -->",
)  # markers in a page: a new table replaces the text between them

STRATUM_COLUMNS = {name: "/".join(split_stratum(name)) for name in STRATA}
EXPLANATION = (
    "EER in %, over the cosines of all pairs. One seed: [95 % confidence interval over systems]. Several seeds: mean ± "
    "standard deviation over the seeds. Strata are system/language, micro EER on test. Identification (closed set): "
    "accuracy in % over the seen systems of test, by the classifier head, or by the nearest centroid (c) if the loss "
    "has no head. Out of domain (unseen against seen systems of test): AUROC and FPR at 95 % TPR in %, by the detector "
    "with the best AUROC on dev, which is named."
)


class GridResult(NamedTuple):
    """Result of one experiment of the grid: `score` holds the content of its metrics/score.json."""

    arm: str
    score: Mapping[str, Any]
    train_seconds: float | None


def grid_markdown(results: Sequence[GridResult]) -> str:
    """Return the table as Markdown, arms in the order of their first result."""
    header = ["arm", "seeds", "dev EER", "test EER", "test EER macro", *STRATUM_COLUMNS.values()]
    header += ["identification", "out of domain", "training, s"]
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *map(_row, group_by_arm(results).values())]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\n{EXPLANATION}\n"


def group_by_arm(results: Sequence[GridResult]) -> dict[str, list[GridResult]]:
    """Group results by arm."""
    arms: dict[str, list[GridResult]] = {}
    for result in results:
        arms.setdefault(result.arm, []).append(result)
    return arms


def insert_table(table: str, page: str) -> str:
    """Return the page with `table` between its markers, or the table alone if the page has no markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{begin}\n\n{table}\n{end}{after}" if end else table


def baseline_results(scores: Sequence[Mapping[str, Any]]) -> list[GridResult]:
    """Return one row per baseline, from the first experiment that has it.

    Baselines are not trained, so that they are equal in all experiments. Only the untrained network differs; it is left
    out.
    """
    baselines: dict[str, Mapping[str, Any]] = {}
    for score in scores:
        for name, metrics in score["baselines"].items():
            baselines.setdefault(name, metrics)
    return [
        GridResult(f"{name} (not trained)", metrics, None)
        for name, metrics in baselines.items()
        if name != "untrained"
    ]


def plot_grid(path: Path, results: Sequence[GridResult]) -> None:
    """Plot the test EER of every arm, best first: one dot per seed, and a bar for the widest 95 % interval."""
    arms = sorted(group_by_arm(results).items(), key=lambda arm: fmean(_test_eers(arm[1])))
    figure = Figure(figsize=(7.2, 1.2 + 0.36 * len(arms)))
    axes = figure.subplots()
    for y, (_, arm_results) in enumerate(arms):
        intervals = [r.score["test"]["eer_micro_ci95_percent"] for r in arm_results]
        intervals = [interval for interval in intervals if interval]
        if intervals:
            low, high = min(low for low, _ in intervals), max(high for _, high in intervals)
            axes.plot([low, high], [y, y], color="#bbbbbb", linewidth=4, solid_capstyle="butt", zorder=1)
        axes.scatter(_test_eers(arm_results), [y] * len(arm_results), s=28, color=COLOURS[0], zorder=2)
    axes.set_yticks(range(len(arms)), [name for name, _ in arms])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set(
        xlabel="EER on test, % of all pairs (micro)",
        title="One dot per seed; bar: 95 % confidence interval over systems",
    )
    style_axes(axes)
    save_figure(figure, path)


def _test_eers(results: Sequence[GridResult]) -> list[float]:
    return [float(result.score["test"]["eer_micro_percent"]) for result in results]


def _row(results: list[GridResult]) -> list[str]:
    tests = [result.score["test"] for result in results]
    seconds = [result.train_seconds for result in results if result.train_seconds is not None]
    return [
        results[0].arm,
        str(len(results)),
        _mean_and_spread([result.score["dev"]["eer_micro_percent"] for result in results]),
        _mean_and_spread(_test_eers(results)) + _interval(tests),
        _mean_and_spread([test["eer_macro_percent"] for test in tests]),
        *(_mean_and_spread([test["strata"][name]["eer_micro_percent"] for test in tests]) for name in STRATA),
        _identification(tests),
        _out_of_domain(tests),
        f"{fmean(seconds):.0f}" if seconds else "-",
    ]


def _mean_and_spread(values: Sequence[float | None]) -> str:
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "-"
    spread = f" ± {stdev(numbers):.1f}" if len(numbers) > 1 else ""
    return f"{fmean(numbers):.1f}{spread}"


def _interval(tests: Sequence[Mapping[str, Any]]) -> str:
    interval = tests[0]["eer_micro_ci95_percent"]
    return f" [{interval[0]:.1f}, {interval[1]:.1f}]" if len(tests) == 1 and interval else ""


def _identification(tests: Sequence[Mapping[str, Any]]) -> str:
    metrics = [test["identification"] for test in tests]
    if not all(metrics):  # a test set without seen systems
        return "-"
    method = "head" if all("head" in by_method for by_method in metrics) else "centroid"
    accuracies = [by_method[method]["accuracy_percent"] for by_method in metrics]
    return _mean_and_spread(accuracies) + (" (c)" if method == "centroid" else "")


def _out_of_domain(tests: Sequence[Mapping[str, Any]]) -> str:
    names = sorted({test["out_of_domain"]["chosen_on_dev"] or "" for test in tests})
    if "" in names:  # a dev set without unseen systems, or without seen ones
        return "-"
    chosen = [test["out_of_domain"][test["out_of_domain"]["chosen_on_dev"]] for test in tests]
    auroc, fpr95 = ([detector[name] for detector in chosen] for name in ("auroc_percent", "fpr95_percent"))
    return f"{_mean_and_spread(auroc)} / {_mean_and_spread(fpr95)} ({', '.join(names)})"

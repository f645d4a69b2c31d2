"""The table and the picture of a grid of experiments: one row per arm, spread over its seeds.

Outcomes come as (arm, what metrics/score.json held, seconds of training), one for each experiment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from makermark.reporting.style import COLOURS, save, tidy

BEGIN, END = "<!-- table -->", "<!-- /table -->"  # in a page: what a new table replaces

STRATA = {
    "seen_system_seen_language": "seen/seen",
    "seen_system_unseen_language": "seen/unseen",
    "unseen_system_seen_language": "unseen/seen",
    "unseen_system_unseen_language": "unseen/unseen",
}
EXPLANATION = (
    "EER in %, over the cosine of every pair; one seed: [95 % interval over systems], several: mean ± standard "
    "deviation over the seeds. Strata are system/language, micro EER on test. Identification: accuracy in % over the "
    "seen systems of test by the classifier head, or by nearest centroid (c) where the loss has none. Out of domain "
    "(unseen against seen systems of test): AUROC and FPR at 95 % TPR in %, of the detector with the best AUROC on "
    "dev, named."
)


class Result(NamedTuple):
    """One experiment of the grid."""

    arm: str
    score: Mapping[str, Any]
    train_seconds: float | None


def grid_markdown(results: Sequence[Result]) -> str:
    """The table as Markdown, arms in the order of their first result."""
    header = ["arm", "seeds", "dev EER", "test EER", "test EER macro", *STRATA.values()]
    header += ["identification", "out of domain", "training, s"]
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *map(_row, by_arm(results).values())]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\n{EXPLANATION}\n"


def by_arm(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Results with the same arm together."""
    arms: dict[str, list[Result]] = {}
    for result in results:
        arms.setdefault(result.arm, []).append(result)
    return arms


def placed(table: str, page: str) -> str:
    """The page with `table` between its markers; the table alone where the page has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{begin}\n\n{table}\n{end}{after}" if end else table


def baseline_results(scores: Sequence[Mapping[str, Any]]) -> list[Result]:
    """Rows for the baselines beside the experiments, each from the first experiment that has it: they learn nothing
    here, so that they differ between experiments by the untrained network only, which is left out."""
    found: dict[str, Mapping[str, Any]] = {}
    for score in scores:
        for name, figures in score["baselines"].items():
            found.setdefault(name, figures)
    return [Result(f"{name} (not trained)", f, None) for name, f in found.items() if name != "untrained"]


def plot_grid(path: Path, results: Sequence[Result]) -> None:
    """Test EER of every arm, best first: a dot per seed, the bar is the widest 95 % interval over systems."""
    arms = sorted(by_arm(results).items(), key=lambda arm: fmean(_eers(arm[1])))
    figure = Figure(figsize=(7.2, 1.2 + 0.36 * len(arms)))
    axes = figure.subplots()
    for place, (_, ofarm) in enumerate(arms):
        ends = [r.score["test"]["eer_micro_ci95_percent"] for r in ofarm]
        ends = [interval for interval in ends if interval]
        if ends:
            low, high = min(end[0] for end in ends), max(end[1] for end in ends)
            axes.plot(
                [low, high], [place, place], color="#bbbbbb", linewidth=4, solid_capstyle="butt", zorder=1
            )
        axes.scatter(_eers(ofarm), [place] * len(ofarm), s=28, color=COLOURS[0], zorder=2)
    axes.set_yticks(range(len(arms)), [name for name, _ in arms])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set(
        xlabel="EER on test, % of all pairs (micro)", title="A dot per seed; bar: 95 % interval over systems"
    )
    tidy(axes)
    save(figure, path)


def _eers(results: Sequence[Result]) -> list[float]:
    return [float(result.score["test"]["eer_micro_percent"]) for result in results]


def _row(results: list[Result]) -> list[str]:
    tests = [result.score["test"] for result in results]
    seconds = [result.train_seconds for result in results if result.train_seconds is not None]
    return [
        results[0].arm,
        str(len(results)),
        _spread([result.score["dev"]["eer_micro_percent"] for result in results]),
        _spread(_eers(results)) + _interval(tests),
        _spread([test["eer_macro_percent"] for test in tests]),
        *(_spread([test["strata"][name]["eer_micro_percent"] for test in tests]) for name in STRATA),
        _identification(tests),
        _out_of_domain(tests),
        f"{fmean(seconds):.0f}" if seconds else "-",
    ]


def _spread(values: Sequence[float | None]) -> str:
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "-"
    spread = f" ± {stdev(numbers):.1f}" if len(numbers) > 1 else ""
    return f"{fmean(numbers):.1f}{spread}"


def _interval(tests: Sequence[Mapping[str, Any]]) -> str:
    interval = tests[0]["eer_micro_ci95_percent"]
    return f" [{interval[0]:.1f}, {interval[1]:.1f}]" if len(tests) == 1 and interval else ""


def _identification(tests: Sequence[Mapping[str, Any]]) -> str:
    ways = [test["identification"] for test in tests]
    if not all(ways):  # a test set without seen systems
        return "-"
    which = "head" if all("head" in way for way in ways) else "centroid"
    return _spread([way[which]["accuracy_percent"] for way in ways]) + (" (c)" if which == "centroid" else "")


def _out_of_domain(tests: Sequence[Mapping[str, Any]]) -> str:
    names = sorted({test["out_of_domain"]["chosen_on_dev"] or "" for test in tests})
    if "" in names:  # a dev set without unseen systems, or without seen ones
        return "-"
    chosen = [test["out_of_domain"][test["out_of_domain"]["chosen_on_dev"]] for test in tests]
    auroc, fpr95 = ([detector[name] for detector in chosen] for name in ("auroc_percent", "fpr95_percent"))
    return f"{_spread(auroc)} / {_spread(fpr95)} ({', '.join(names)})"

"""The result table: EERs by set and stratum, the baselines beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

Figures = Mapping[str, Any]

TEXT_COLUMNS = 3  # the rest is figures
FEWEST_SYSTEMS = 5  # below that a bootstrap over systems says nothing: no interval is shown
SETS = ("train", "dev", "test")
BASELINE_NAMES = {
    "logmel_stats": "log-mel statistics",
    "resemblyzer": "speaker encoder",
    "untrained": "untrained network",
}
EXPLANATION = (
    "EER over the cosine of every pair of utterances; micro: all pairs pooled, macro: mean over systems; "
    "[95 % interval by bootstrap over systems, where there are 5 or more]; baselines: micro/macro. "
    "Seen: stands in the training set."
)


def results_markdown(score: Figures) -> str:
    """The table as Markdown, from what metrics/score.json holds."""
    header, rows = cells(score, decimals=2)
    lines = [header, ["---"] * TEXT_COLUMNS + ["---:"] * (len(header) - TEXT_COLUMNS), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\n{EXPLANATION}\n"


def results_table(score: Figures) -> Table:
    """The table for the terminal, from what metrics/score.json holds."""
    header, rows = cells(score, decimals=1)
    table = Table(caption=EXPLANATION, caption_justify="left", box=SIMPLE_HEAD, padding=0)
    for number, name in enumerate(header):
        breaks = name.startswith("EER")  # where the terminal is narrow: between figure and interval
        table.add_column(
            name if breaks else name.replace(" ", "\n"),
            justify="left" if number < TEXT_COLUMNS else "right",
            no_wrap=not breaks,
        )
    for row, following in zip(rows, [*rows[1:], [""]], strict=True):
        table.add_row(*row, end_section=bool(following[0]), style="bold" if row[0] else None)
    return table


def open_set_lines(score: Figures) -> list[str]:
    """What else test says, a sentence each: identification of seen systems, detection of unseen ones."""
    test = score["test"]
    ways = {"head": "by the classifier head", "centroid": "by nearest centroid"}
    named = [f"{test['identification'][way]['accuracy_percent']:.1f} % {how}" for way, how in ways.items()
             if way in test["identification"]]  # fmt: skip
    lines = [f"Identification of the seen systems of test: {', '.join(named) or 'none there'}"]
    chosen = test["out_of_domain"]["chosen_on_dev"]
    if chosen and test["out_of_domain"][chosen]["auroc_percent"] is not None:
        told = test["out_of_domain"][chosen]
        intervals = [told[f"{name}_ci95_percent"] for name in ("auroc", "fpr95")]
        auroc, fpr95 = ("" if i is None else f" [{i[0]:.1f}, {i[1]:.1f}]" for i in intervals)
        lines.append(
            f"Unseen against seen systems of test, by {chosen} (chosen on dev): "
            f"AUROC {told['auroc_percent']:.1f} %{auroc}, FPR at 95 % TPR {told['fpr95_percent']:.1f} %{fpr95}, "
            f"EERc {told['eerc_percent']:.1f} %"
        )
    return lines


def tracer_line(trace: Figures) -> str:
    """What metrics/trace.json says of whole utterances of test, in a sentence."""
    if "reason" in trace:
        return f"No tracer: {trace['reason']}"
    whole = trace["test"]["whole"]

    def percent(name: str) -> str:
        return "-" if whole[name] is None else f"{whole[name]:.1f} %"

    costs = ["-" if whole[name] is None else f"{whole[name]:.2f}" for name in ("cllr", "min_cllr")]
    return (
        f"Tracer on test, by seen systems: named right {percent('seen_correct_percent')}, right family "
        f"{percent('seen_family_percent')}, wrong {percent('seen_wrong_percent')}, called unknown "
        f"{percent('seen_unknown_percent')}; by unseen systems: called unknown {percent('unseen_unknown_percent')}; "
        f"Cllr {costs[0]} (at best {costs[1]})"
    )


def cells(score: Figures, *, decimals: int) -> tuple[list[str], list[list[str]]]:
    """Header and rows as text: for each set one row for all its pairs, one with alias families merged where there are
    any, then one for each stratum."""
    baselines = {name: BASELINE_NAMES[name] for name in score["baselines"]}
    header = ["set", "system", "language", "utterances", "EER micro, %", "EER macro, %", *baselines.values()]
    rows = []
    for of in filter(score.__contains__, SETS):
        scored = [score[of], *(score["baselines"][name][of] for name in baselines)]
        rows.append([of, "all", "all", *figures(scored, decimals)])
        if "families" in score[of]:
            rows.append(["", "by family", "all", *figures([each["families"] for each in scored], decimals)])
        for stratum in score[of]["strata"]:
            system, language = stratum.removesuffix("_language").split("_system_")
            parts = [each["strata"][stratum] for each in scored]
            rows.append(["", system, language, *figures(parts, decimals)])
    return header, rows


def figures(parts: list[Figures], decimals: int) -> list[str]:
    """Utterances, micro and macro EER of the model (the first part) with intervals, then each baseline's."""

    def rounded(percent: float | None) -> str:
        return "-" if percent is None else f"{percent:.{decimals}f}"

    def with_interval(name: str) -> str:
        interval = model[f"{name}_ci95_percent"]
        ends = (
            ""
            if interval is None or model["systems"] < FEWEST_SYSTEMS
            else f" [{rounded(interval[0])}, {rounded(interval[1])}]"
        )
        return rounded(model[f"{name}_percent"]) + ends

    model, *baselines = parts
    return [
        f"{model['utterances']:,}",
        with_interval("eer_micro"),
        with_interval("eer_macro"),
        *(f"{rounded(b['eer_micro_percent'])}/{rounded(b['eer_macro_percent'])}" for b in baselines),
    ]

"""Result table (EERs by split and stratum beside the baselines) and one-sentence summaries of other metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from makermark.foundation.manifest import SPLITS
from makermark.scoring.pairs.intervals import MIN_INTERVAL_SYSTEMS

Metrics = Mapping[str, Any]

TEXT_COLUMNS = 3  # the other columns hold numbers
BASELINE_NAMES = {
    "logmel_stats": "log-mel statistics",
    "resemblyzer": "speaker encoder",
    "untrained": "untrained network",
    "whisper-early": "early Whisper layers",
}
NARROW_HEADERS = {
    "language": "lang-\nuage",
    "utterances": "utter-\nances",
    "log-mel statistics": "log-mel\nstats",
}
EXPLANATION = (
    "EER over the cosines of all pairs of utterances. Micro: all pairs pooled. Macro: mean over systems. "
    "[95 % confidence interval by bootstrap over systems, if there are 5 or more]. Baselines: micro/macro. "
    "Seen: present in the training set."
)
WITHIN_EXPLANATION = (
    " Within a column: only pairs that share its value are scored, and the EER is the mean over values."
)


def results_markdown(score: Metrics) -> str:
    """Return the result table as Markdown, from the content of metrics/score.json."""
    header, rows = table_cells(score, decimals=2)
    lines = [header, ["---"] * TEXT_COLUMNS + ["---:"] * (len(header) - TEXT_COLUMNS), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\n{explain(score)}\n"


def results_table(score: Metrics) -> Table:
    """Return the result table for the terminal, from metrics/score.json. With two baselines it has 80 columns."""
    header, rows = table_cells(score, decimals=1)
    table = Table(caption=explain(score), caption_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    for number, name in enumerate(header):
        can_wrap = name.startswith("EER")  # in a narrow terminal: after the value
        table.add_column(
            name if can_wrap else NARROW_HEADERS.get(name, name.replace(" ", "\n")),
            justify="left" if number < TEXT_COLUMNS else "right",
            no_wrap=not can_wrap,
        )
    for row, following in zip(rows, [*rows[1:], [""]], strict=True):
        cells = [NARROW_HEADERS.get(cell, cell.replace(", ", ",")) for cell in row]
        table.add_row(*cells, end_section=bool(following[0]), style="bold" if row[0] else None)
    return table


def explain(score: Metrics) -> str:
    """Return the legend of the result table."""
    has_within = any(score[split].get("within") for split in filter(score.__contains__, SPLITS))
    return EXPLANATION + (WITHIN_EXPLANATION if has_within else "")


def describe_open_set(score: Metrics) -> list[str]:
    """Return one sentence on the identification of seen systems and one on the detection of unseen systems of test."""
    test = score["test"]
    methods = {"head": "by the classifier head", "centroid": "by the nearest centroid"}
    accuracies = [
        f"{test['identification'][method]['accuracy_percent']:.1f} % {description}"
        for method, description in methods.items()
        if method in test["identification"]
    ]
    accuracy = (
        f"{', '.join(accuracies)} (closed set: none rejected)" if accuracies else "test has no seen system"
    )
    lines = [f"Identification of the seen systems of test: {accuracy}"]
    chosen = test["out_of_domain"]["chosen_on_dev"]
    if chosen and test["out_of_domain"][chosen]["auroc_percent"] is not None:
        metrics = test["out_of_domain"][chosen]
        intervals = [metrics[f"{name}_ci95_percent"] for name in ("auroc", "fpr95")]
        auroc, fpr95 = ("" if i is None else f" [{i[0]:.1f}, {i[1]:.1f}]" for i in intervals)
        lines.append(
            f"Detection of the unseen systems of test by {chosen} (chosen on dev): "
            f"AUROC {metrics['auroc_percent']:.1f} %{auroc}, FPR at 95 % TPR {metrics['fpr95_percent']:.1f} %{fpr95}, "
            f"EERc {metrics['eerc_percent']:.1f} %"
        )
    return lines


def describe_tracer(trace: Metrics) -> list[str]:
    """Return lines on the conclusions for whole utterances of test, from the content of metrics/trace.json."""
    if "reason" in trace:
        return [f"No tracer: {trace['reason']}"]
    whole = trace["test"]["whole"]

    def percent(metrics: Metrics, name: str) -> str:
        value = metrics[f"{name}_percent"]
        return "-" if value is None else f"{value:.1f}"

    costs = ["-" if whole[name] is None else f"{whole[name]:.2f}" for name in ("cllr", "min_cllr")]
    lines = [
        "Conclusions of the tracer for whole utterances of test, in %:",
        f"  {'':<14}{'correct system':>16}{'correct family':>16}{'wrong':>9}{'unknown':>10}",
        *(
            f"  {f'{origin} systems':<14}"
            f"{percent(whole, f'{origin}_correct'):>16}{percent(whole, f'{origin}_family'):>16}"
            f"{percent(whole, f'{origin}_wrong'):>9}{percent(whole, f'{origin}_unknown'):>10}"
            for origin in ("seen", "unseen")
        ),
        f"  Seen systems: the top-scoring system is correct for {percent(whole, 'identification')} %.",
        f"  Cllr {costs[0]} (minimum {costs[1]}).",
    ]
    human = (trace.get("bonafide") or {}).get("whole")
    if human:
        lines.append(
            f"  {human['clips']} utterances by people: {percent(human, 'named')} % named, "
            f"{percent(human, 'ratio_above_1')} % with a ratio above 1."
        )
    return lines


def table_cells(score: Metrics, *, decimals: int) -> tuple[list[str], list[list[str]]]:
    """Return header and rows as text.

    Every split has one row for all pairs, one row with merged alias families if there are any, one row per stratum, and
    one row per column within which pairs are scored. Test has one more row if some of its unseen systems are in dev:
    the systems that are new in test.
    """
    baselines = {name: BASELINE_NAMES[name] for name in score["baselines"]}
    header = ["set", "system", "language", "utterances", "EER micro, %", "EER macro, %", *baselines.values()]
    rows = []
    for split in filter(score.__contains__, SPLITS):
        parts = [score[split], *(score["baselines"][name][split] for name in baselines)]
        rows.append([split, "all", "all", *row_cells(parts, decimals)])
        if "families" in score[split]:
            rows.append(["", "by family", "all", *row_cells([part["families"] for part in parts], decimals)])
        for stratum in score[split]["strata"]:
            strata = [part["strata"][stratum] for part in parts]
            rows.append(["", *split_stratum(stratum), *row_cells(strata, decimals)])
        if score[split].get("new_in_test"):
            rows.append(
                ["", "new in test", "all", *row_cells([part["new_in_test"] for part in parts], decimals)]
            )
        for column in score[split].get("within", {}):
            within = [part["within"][column] for part in parts]
            rows.append(["", "within", column, *row_cells(within, decimals)])
    return header, rows


def split_stratum(stratum: str) -> list[str]:
    """Return (system, language), each `seen` or `unseen`, of the name of a stratum."""
    return stratum.removesuffix("_language").split("_system_")


def row_cells(parts: list[Metrics], decimals: int) -> list[str]:
    """Return utterances, micro EER and macro EER of the model (the first part), then the EERs of every baseline."""

    def rounded(percent: float | None) -> str:
        return "-" if percent is None else f"{percent:.{decimals}f}"

    def with_interval(name: str) -> str:
        interval = model[f"{name}_ci95_percent"]
        has_interval = interval is not None and model["systems"] >= MIN_INTERVAL_SYSTEMS
        bounds = f" [{rounded(interval[0])}, {rounded(interval[1])}]" if has_interval else ""
        return rounded(model[f"{name}_percent"]) + bounds

    model, *baselines = parts
    return [
        f"{model['utterances']:,}",
        with_interval("eer_micro"),
        with_interval("eer_macro"),
        *(f"{rounded(b['eer_micro_percent'])}/{rounded(b['eer_macro_percent'])}" for b in baselines),
    ]

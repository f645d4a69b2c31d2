"""The sections of the report about shortcuts: what predicts the system, and which systems it names."""

from __future__ import annotations

from collections.abc import Iterator

from makermark.audit.measurement_format import FORMATS, format_range, format_value
from makermark.audit.section import Report, Section, join_names

MAX_RECOGNISED = 12  # systems in the table of those recognised best
MAX_GROUPS = 5  # of systems, for each measurement


def list_shortcut_sections(shortcuts: Report) -> Iterator[Section]:
    """Yield the sections in order; tables without rows are omitted."""
    yield _properties_section(shortcuts)
    if shortcuts["recognised"]:
        yield _recognised_section(shortcuts)
    if any(shortcuts["groups"].values()):
        yield _groups_section(shortcuts["groups"])
    yield _medians_section(shortcuts["medians"])


def _properties_section(shortcuts: Report) -> Section:
    rows = []
    for name, result in shortcuts["properties"].items():
        measurements = result["measurements"]
        several = len(measurements) > 1
        rows.append(
            _accuracy_row(name, result, None if several else next(iter(measurements.values()))["eta_squared"])
        )
        rows += [
            _accuracy_row(f"- {FORMATS[measurement].label}", part, part["eta_squared"])
            for measurement, part in measurements.items()
            if several
        ]
    count = len(shortcuts["properties"])
    rows.append(_accuracy_row(f"all {count}", shortcuts["together"], None))
    rows.append(_accuracy_row(f"all {count}, forest", shortcuts["forest"], None))
    return Section(
        "Prediction of the system from simple properties of the audio",
        f"{shortcuts['files']:,} files{_unusable(shortcuts)}. {_systems(shortcuts)} Balanced accuracy of a decision "
        f"tree of at most {shortcuts['tree_depth']} levels, with {shortcuts['folds']} folds "
        f"({_separation(shortcuts)}; seed {shortcuts['seed']}), and of a random forest. The interval is a bootstrap "
        "over the systems. Eta squared: the share of the variance that is between systems.",
        ["property", "accuracy", "95 % interval", "x chance", "eta squared"],
        rows,
    )


def _unusable(shortcuts: Report) -> str:
    return f"; {shortcuts['unusable_files']} more are unusable" if shortcuts["unusable_files"] else ""


def _systems(shortcuts: Report) -> str:
    sentence = f"{shortcuts['systems']} systems are predicted; chance is {shortcuts['chance_percent']:.1f} %."
    left_out = len(shortcuts["left_out"])
    if left_out:
        kind = "texts" if shortcuts["sentences_apart"] else "files"
        sentence += f" Left out, because of fewer than {shortcuts['folds']} {kind}: {left_out} systems."
    return sentence


def _separation(shortcuts: Report) -> str:
    if shortcuts["sentences_apart"]:
        return "stratified, each text in one fold"
    return "stratified"


def _accuracy_row(name: str, result: Report, eta_squared: float | None) -> list[str]:
    low, high = result["interval_percent"]
    return [
        name,
        f"{result['balanced_accuracy_percent']:.1f} %",
        f"{low:.1f} to {high:.1f} %",
        f"{result['ratio_to_chance']:.1f}",
        "" if eta_squared is None else f"{eta_squared:.2f}",
    ]


def _recognised_section(shortcuts: Report) -> Section:
    entries = shortcuts["recognised"]
    rows = []
    for entry in entries[:MAX_RECOGNISED]:
        cells = ["none", "", ""]
        if entry["property"] is not None:
            measurement = entry["measurement"]
            value = shortcuts["medians"][entry["system"]][measurement]
            cells = [
                entry["property"],
                f"{entry['property_recall_percent']:.0f} %",
                format_range(measurement, [value]),
            ]
        rows.append([entry["system"], f"{entry['recall_percent']:.0f} %", *cells])
    return Section(
        "Systems recognised best",
        f"Recall of the tree with all properties, which is above the goal for {len(entries)} of {shortcuts['systems']} "
        "systems. Best alone: the property whose own tree has the highest recall of the system; none if this recall "
        "is not above the goal.",
        ["system", "recall", "best alone", "recall", "median"],
        rows,
    )


def _groups_section(groups: Report) -> Section:
    rows = [
        [
            format_range(measurement, group["median"]),
            f"{group['recall_percent']:.0f} %",
            f"{group['precision_percent']:.0f} %",
            join_names(group["systems"]),
        ]
        for measurement, entries in groups.items()
        for group in entries[:MAX_GROUPS]
    ]
    return Section(
        "Groups of systems that one measurement separates",
        "Systems of which at least half of the files are predicted as one and the same system. Recall: the share of "
        "their files with this prediction; precision: their share in all files with it, every system counted alike.",
        ["medians", "recall", "precision", "systems"],
        rows,
    )


def _medians_section(medians: Report) -> Section:
    rows = [
        [system, *(format_value(name, values[name]) for name in FORMATS)]
        for system, values in medians.items()
    ]
    return Section(
        "Medians by system",
        "Silence before and after the speech and duration in seconds; pauses in percent of the time between.",
        ["system", "rate Hz", "band Hz", "level dBFS", "before", "after", "pauses", "length"],
        rows,
    )

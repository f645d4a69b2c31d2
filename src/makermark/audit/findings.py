"""The findings of a report: one sentence for each problem, with a remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from makermark.audit.measurement_format import format_range
from makermark.audit.section import join_names

Report = dict[str, Any]
Finding = dict[str, str]  # check, says, remedy

MAX_NAMED_SYSTEMS = 3
MIN_EFFECTIVE_SHARE = 0.5  # of the systems: a finding if the effective number of systems is lower


def list_findings(report: Report) -> list[Finding]:
    """Return {check, says, remedy} for everything in the report that would make a figure misleading."""
    return [
        {"check": check, "says": sentence, "remedy": remedy}
        for check, describe in DESCRIBE.items()
        for sentence, remedy in describe(report)
    ]


Sentences = Iterator[tuple[str, str]]  # sentence, remedy


def _describe_duplicates(report: Report) -> Sentences:
    duplicates = report["duplicates"]
    if duplicates["rows"]:
        splits = ", ".join(f"{count} in {split}" for split, count in duplicates["by_split"].items())
        names = list(duplicates["by_system"])
        systems = ", ".join(names[:MAX_NAMED_SYSTEMS]) + ", ..." * (len(names) > MAX_NAMED_SYSTEMS)
        yield (
            f"{duplicates['rows']:,} rows repeat an earlier row ({splits}; systems: {systems})",
            "set external.dedupe: true",
        )
    audio = duplicates["audio"]
    if audio and audio["files"]:
        yield (
            f"{audio['files']:,} files have the same bytes as another file ({audio['across_systems']} contents occur "
            f"in several systems, {audio['across_splits']} in several splits)",
            "set external.dedupe: true; if the same bytes occur in two systems, remove one file by hand",
        )


def _describe_strata(report: Report) -> Sentences:
    manifest = report["strata"]["manifest"]
    follows_train = manifest is not None and manifest["contradicting_rows"] == 0
    for source, result in report["strata"].items():
        for entry in result["contradicting"] if result else ():
            attribute = next(name for name in ("system", "language") if name in entry)
            in_train = "is in train" if entry["in_train"] else "is not in train"
            yield (
                f"the {source} declares {entry['rows']:,} rows of {entry['split']} as {entry['filed_as']} {attribute}, "
                f"but {entry[attribute]} {in_train}",
                "none needed, the strata of this manifest follow train"
                if follows_train
                else "set external.strata_from: train",
            )


def _describe_families(report: Report) -> Sentences:
    families = report["families"]
    if families["systems_without_family"]:
        yield (
            f"{families['systems_without_family']} systems have no family: aliases among them are not detected",
            "add the column family to the manifest, or add the systems to corpora/families.yaml",
        )
    for split, rows in families["unseen_rows_of_known_families"].items():
        unseen = families["unseen_rows"][split]
        names = [entry["family"] for entry in families["unseen_but_known"] if entry["split"] == split]
        yield (
            f"{rows:,} of the {unseen:,} rows of unseen systems in {split} ({100 * rows / unseen:.1f} %) belong to "
            f"families that occur in train ({', '.join(names)})",
            "use the figures by family (`families` in metrics/score.json), or train with external.label: family",
        )


def _describe_new_in_both(report: Report) -> Sentences:
    result = report["new_in_both"]
    if result is None:
        return
    names = result["systems"]
    systems = ", ".join(names[:MAX_NAMED_SYSTEMS]) + ", ..." * (len(names) > MAX_NAMED_SYSTEMS)
    rows = f"{result['rows']:,} of the {result['unseen_rows']:,} rows of unseen systems in test"
    trials = (
        f"{result['target_trials']:,} of the {result['unseen_target_trials']:,} target trials of these rows "
        f"({_percent(result['target_trials'], result['unseen_target_trials'])}; "
        f"{_percent(result['target_trials'], result['all_target_trials'])} of all target trials of test)"
    )
    count = len(names)
    subject = (
        "1 system that is not in train is" if count == 1 else f"{count} systems that are not in train are"
    )
    yield (
        f"{subject} in both dev and test ({systems}), so that what is chosen on "
        f"dev has met them: {rows} ({_percent(result['rows'], result['unseen_rows'])}) and {trials}",
        "read `new_in_test` in metrics/score.json, the figures of the other unseen systems of test",
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _describe_trials(report: Report) -> Sentences:
    for split, result in report["trials"].items():
        if split == "train":  # train is not scored
            continue
        shares = result["systems"]["share_percent"]
        effective = result["systems"]["effective"]
        if effective is None:
            yield (
                f"{split} has no target trial: no system has two utterances",
                "add utterances, or score another split",
            )
            continue
        (largest, share), *_ = shares.items()
        if effective < MIN_EFFECTIVE_SHARE * len(shares):
            yield (
                f"{largest} makes {share:.1f} % of the target trials of {split}; in a pooled (micro) EER its "
                f"{len(shares)} systems count like {effective:.1f} systems with equal shares",
                "report the macro EER as well",
            )


def _describe_languages(report: Report) -> Sentences:
    languages = report["languages"]
    if languages["of_one_language"] and languages["languages"] > 1:
        yield (
            f"{languages['of_one_language']} of {languages['systems']} systems have only one language: a model may "
            "learn the language instead of the system",
            "compare the strata with seen and unseen languages, and the result of the language probe",
        )


def _describe_shared(report: Report) -> Sentences:
    remedies = {
        "sentences": "make the sentences of the splits disjoint; otherwise a model may profit from memorised texts",
        "file names": "make the file names disjoint if equal names mean equal sentences (as in MLAAD); otherwise a "
        "model may profit from memorised texts",
        "paths": "a file may be in one split only: remove it from the others",
        "bytes": "set external.dedupe: true, which keeps the file in the first split only",
    }
    for entry in report["shared"]:
        if entry["shared"]:
            first, later = entry["splits"]
            yield (
                f"{entry['shared']:,} {entry['what']} of {first} recur in {later}, in "
                f"{100 * entry['rows'] / entry['rows_of_later']:.1f} % of its rows",
                remedies[entry["what"]],
            )


def _describe_shortcuts(report: Report) -> Sentences:
    shortcuts = report["shortcuts"]
    if not shortcuts:
        return
    chance = f"chance, {shortcuts['chance_percent']:.1f} %"
    for name, result in shortcuts["properties"].items():
        if result["exceeds_goal"]:
            groups = [
                _describe_group(group, measurement)
                for measurement in result["measurements"]
                for group in shortcuts["groups"][measurement]
            ][:MAX_NAMED_SYSTEMS]
            yield (
                f"{name} alone predicts the system with a balanced accuracy of "
                f"{result['balanced_accuracy_percent']:.1f} % ({result['ratio_to_chance']:.1f} times {chance})"
                + ("; it separates " + "; ".join(groups) if groups else ""),
                result["remedy"],
            )
    together = shortcuts["together"]
    if together["exceeds_goal"]:
        yield (
            f"{', '.join(shortcuts['properties'])} together predict the system with a balanced accuracy of "
            f"{together['balanced_accuracy_percent']:.1f} % ({together['ratio_to_chance']:.1f} times {chance})",
            "equalise the properties whose own accuracy is above chance, or compare with a model that cannot use them",
        )


def _describe_group(group: Report, measurement: str) -> str:
    systems = join_names(group["systems"], most=MAX_NAMED_SYSTEMS)
    return f"{systems} ({format_range(measurement, group['median'])})"


DESCRIBE: dict[str, Callable[[Report], Sentences]] = {
    "duplicates": _describe_duplicates,
    "strata": _describe_strata,
    "families": _describe_families,
    "new_in_both": _describe_new_in_both,
    "trials": _describe_trials,
    "languages": _describe_languages,
    "shared": _describe_shared,
    "shortcuts": _describe_shortcuts,
}

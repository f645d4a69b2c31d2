"""From a report's figures to sentences: what is wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Report = dict[str, Any]
Finding = dict[str, str]

NAMED = 3
FEW = 0.5  # effective systems of those there are: fewer are told
TELLING = 0.1  # of the way from chance to always right: a property that predicts so well is told


def findings_of(report: Report) -> list[Finding]:
    """{check, says, remedy} for whatever in the report would make a figure misleading, in the order of the report."""
    parts = (_duplicates, _strata, _families, _trials, _languages, _shared, _shortcuts)
    return [
        {"check": part.__name__.lstrip("_"), "says": says, "remedy": remedy}
        for part in parts
        for says, remedy in part(report)
    ]


Told = Iterator[tuple[str, str]]


def _duplicates(report: Report) -> Told:
    found = report["duplicates"]
    if found["rows"]:
        where = ", ".join(f"{count} in {split}" for split, count in found["by_split"].items())
        whose = ", ".join(list(found["by_system"])[:NAMED]) + ", ..." * (len(found["by_system"]) > NAMED)
        yield f"{found['rows']:,} rows repeat an earlier one ({where}; of {whose})", "external.dedupe: true"
    audio = found["audio"]
    if audio and audio["files"]:
        yield (
            f"{audio['files']:,} files hold the bytes of another ({audio['across_systems']} contents under several "
            f"systems, {audio['across_splits']} in several splits)",
            "external.dedupe: true; the same bytes under two systems: remove one by hand",
        )


def _strata(report: Report) -> Told:
    manifest = report["strata"]["manifest"]
    mended = manifest is not None and manifest["contradicting_rows"] == 0
    for source, found in report["strata"].items():
        for each in found["contradicting"] if found else ():
            what = next(name for name in ("system", "language") if name in each)
            stands = "stands" if each["in_train"] else "does not stand"
            yield (
                f"{each['rows']:,} rows of {each['split']} are filed as {each['filed_as']} {what}, but "
                f"{each[what]} {stands} in train (filed so by the {source})",
                "none needed, the strata of this manifest follow train"
                if mended
                else "external.strata_from: train",
            )


def _families(report: Report) -> Told:
    found = report["families"]
    if found["systems_without_family"]:
        yield (
            f"{found['systems_without_family']} systems have no family: aliases among them go unnoticed",
            "give the column family, or add them to corpora/families.yaml",
        )
    for split, rows in found["unseen_rows_of_known_families"].items():
        unseen = found["unseen_rows"][split]
        names = [each["family"] for each in found["unseen_but_known"] if each["split"] == split]
        yield (
            f"{rows:,} of {unseen:,} rows of unseen systems in {split} ({100 * rows / unseen:.1f} %) are of families "
            f"that train has ({', '.join(names)})",
            "read the figures with families merged (`families` in metrics/score.json), or train with "
            "external.label: family",
        )


def _trials(report: Report) -> Told:
    for split, found in report["trials"].items():
        if split == "train":  # is not scored
            continue
        shares = found["systems"]["share_percent"]
        effective = found["systems"]["effective"]
        if effective is None:
            yield f"{split} has no target trial: no system speaks twice", "score another set"
            continue
        (largest, share), *_ = shares.items()
        if effective < FEW * len(shares):
            yield (
                f"{largest} makes {share:.1f} % of the target trials of {split}; its {len(shares)} systems weigh as "
                f"much as {effective:.1f} equal ones in a pooled (micro) EER",
                "give the macro EER beside it",
            )


def _languages(report: Report) -> Told:
    found = report["languages"]
    if found["of_one_language"] and found["languages"] > 1:
        yield (
            f"{found['of_one_language']} of {found['systems']} systems speak one language only: what is learned of "
            "them may be the language",
            "look at unseen languages apart (the strata), and at what the probe reads",
        )


def _shared(report: Report) -> Told:
    remedies = {
        "sentences": "hold sentences apart when splitting; here, test may reward remembered words",
        "file names": "where they stand for sentences (as in MLAAD), test may reward remembered words",
        "paths": "each file may stand in one split only: remove it from the others",
        "bytes": "external.dedupe: true keeps them in the first split",
    }
    for each in report["shared"]:
        if each["shared"]:
            first, later = each["splits"]
            yield (
                f"{each['shared']:,} {each['what']} of {first} recur in {later}, in "
                f"{100 * each['rows'] / each['rows_of_later']:.1f} % of its rows",
                remedies[each["what"]],
            )


def _shortcuts(report: Report) -> Told:
    found = report["shortcuts"]
    for name, each in found["properties"].items() if found else ():
        chance, reached = found["chance_percent"], each["balanced_accuracy_percent"]
        if reached - chance > TELLING * (100 - chance):
            yield (
                f"{name} alone predicts the system at {reached:.1f} % balanced accuracy (chance {chance:.1f} %)",
                each["remedy"],
            )

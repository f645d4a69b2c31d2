"""Family and architecture of published systems, from the table families.yaml, and labels other than the system."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from makermark.foundation.errors import CorpusError, SettingChange
from makermark.foundation.manifest import LABELS, PROTOCOL_SEEN_COLUMNS

TABLE = Path(__file__).with_name("families.yaml")


@dataclass(frozen=True)
class Lineage:
    """The family and architecture of one system.

    `why` is the reason why the systems of the family belong together; it is empty in a family of one system.
    """

    system: str
    family: str
    architecture: str
    why: str


@cache
def read_lineages() -> Mapping[str, Lineage]:
    """Return the lineages of families.yaml by system. Raises CorpusError if the table lists a system twice."""
    return parse_families(yaml.safe_load(TABLE.read_text(encoding="utf-8")))


def parse_families(table: Mapping[str, Any]) -> dict[str, Lineage]:
    """Return the lineages of a table with the layout of families.yaml, by system."""
    lineages: dict[str, Lineage] = {}
    for family, entry in table.items():
        for architecture, systems in entry["systems"].items():
            for system in systems:
                if system in lineages:
                    raise CorpusError(
                        f"{TABLE.name}: {system} is listed in {lineages[system].family} and in {family}; remove one"
                    )
                lineages[system] = Lineage(system, family, architecture, entry["why"])
    return lineages


def find_lineage(system: str) -> Lineage | None:
    """Return the lineage of a system, by its name or by the name of its folder (`_` for `/`); None if unknown."""
    return read_lineages().get(system) or _lineages_by_folder().get(system)


@cache
def _lineages_by_folder() -> dict[str, Lineage]:
    return {system.replace("/", "_"): lineage for system, lineage in read_lineages().items()}


def add_families(rows: pd.DataFrame) -> pd.DataFrame:
    """Return `rows` with the columns `family` and `architecture`.

    Values in `rows` stay. An empty or missing value is taken from families.yaml; it stays empty for a system that the
    table does not list.
    """
    lineages = {system: find_lineage(system) for system in rows["system"].unique()}
    columns = {}
    for column in ("family", "architecture"):
        value_of = {
            system: getattr(lineage, column) if lineage else "" for system, lineage in lineages.items()
        }
        from_table = rows["system"].map(value_of).astype("str")
        from_rows = (
            rows[column].fillna("").astype("str") if column in rows else pd.Series("", index=rows.index)
        )
        columns[column] = from_rows.where(from_rows != "", from_table)
    return rows.assign(**columns)


def relabel(rows: pd.DataFrame, *, label: str) -> pd.DataFrame:
    """Return `rows` with the attribute `label` in the column `system`: it becomes the class to trace.

    Family and architecture come from the rows, otherwise from families.yaml. If the label is not the system, the
    columns that describe systems are dropped: the strata of the protocol, and the family unless it is the label.

    Raises CorpusError for an unknown label, and for a row in which the attribute is empty.
    """
    if label not in LABELS:
        raise CorpusError(
            f"unknown label; it is one of {list(LABELS)}", setting="external.label", value=label
        )
    rows = add_families(rows)
    if label == "system":
        return rows
    values = rows[label].fillna("") if label in rows else pd.Series("", index=rows.index)
    unlabelled = rows[values == ""]
    if len(unlabelled):
        system = unlabelled["system"].iloc[0]
        raise CorpusError(
            f"{unlabelled['path'].iloc[0]}: system {system!r} has no {label} ({len(unlabelled)} of {len(rows)} rows "
            "have none)",
            remedies=[
                f"add a column {label}",
                SettingChange("external.label", "system", "to trace the system"),
            ],
        )
    family = values if label == "family" else ""  # a vocoder, for instance, belongs to no family of systems
    return rows.assign(system=values, family=family).drop(
        columns=list(PROTOCOL_SEEN_COLUMNS), errors="ignore"
    )

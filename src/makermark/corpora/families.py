"""Which family and architecture a published system belongs to: the one table, families.yaml, and who stands in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from makermark.errors import CorpusError

TABLE = Path(__file__).with_name("families.yaml")


@dataclass(frozen=True)
class Lineage:
    """What one system is a case of; `why` is the family's reason, empty where nothing else is in it."""

    system: str
    family: str
    architecture: str
    why: str


@cache
def lineages() -> Mapping[str, Lineage]:
    """Every system of the table by its name. Raises CorpusError where the table names a system twice."""
    return read(yaml.safe_load(TABLE.read_text(encoding="utf-8")))


def read(table: Mapping[str, Any]) -> dict[str, Lineage]:
    """The content of families.yaml by system."""
    found: dict[str, Lineage] = {}
    for family, entry in table.items():
        for architecture, systems in entry["systems"].items():
            for system in systems:
                if system in found:
                    raise CorpusError(
                        f"{TABLE.name}: {system} stands in {found[system].family} and in {family}; remove one"
                    )
                found[system] = Lineage(system, family, architecture, entry["why"])
    return found


def lineage_of(system: str) -> Lineage | None:
    """The lineage of a system under its own name or that of its folder (`_` for `/`); None if it is not known."""
    return lineages().get(system) or _by_folder().get(system)


@cache
def _by_folder() -> dict[str, Lineage]:
    return {system.replace("/", "_"): lineage for system, lineage in lineages().items()}


def add_families(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` with the columns `family` and `architecture`: what they say already stays, what is empty or absent is
    filled from the table, and stays empty for a system that the table does not know."""
    known = {system: lineage_of(system) for system in rows["system"].unique()}
    filled = {}
    for column in ("family", "architecture"):
        said = {system: getattr(lineage, column) if lineage else "" for system, lineage in known.items()}
        of_table = rows["system"].map(said).astype("str")
        given = rows[column].fillna("").astype("str") if column in rows else pd.Series("", index=rows.index)
        filled[column] = given.where(given != "", of_table)
    return rows.assign(**filled)

"""The cells of the paper's table, and the experiment of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from typing import Any

import pandas as pd
import yaml

from makermark.experiments.presets import read_changes
from makermark.foundation.errors import ParamsError
from makermark.foundation.tracking import flatten_settings

CORPUS = "mlaad-v5"
UTTERANCES = {"dev": 12_000, "test": 33_900}  # rows of its protocol; the paper scores all their pairs
PRESETS = {"resnet34": "mlaad-resnet", "wav2vec2-aasist": "mlaad-ssl"}  # the paper's settings, by backbone


@dataclass(frozen=True)
class Cell:
    """A row of paper.csv: an experiment, and its EERs in percent."""

    backbone: str
    loss: str
    sampler: str
    dim: int
    dev_eer_percent: float
    test_eer_percent: float

    @property
    def name(self) -> str:
        return f"{self.backbone}-{self.loss}-{self.sampler}-{self.dim}"


def read_paper_table() -> list[Cell]:
    """Return the cells of the paper's table, in its order."""
    with resources.files("makermark.experiments.table1").joinpath("paper.csv").open(encoding="utf-8") as file:
        rows = pd.read_csv(file, comment="#")
    return [Cell(*row) for row in rows[[field.name for field in fields(Cell)]].itertuples(index=False)]


def select_cells(
    cells: Sequence[Cell],
    *,
    backbones: Sequence[str] = (),
    losses: Sequence[str] = (),
    samplers: Sequence[str] = (),
    dims: Sequence[int] = (),
) -> list[Cell]:
    """Return the cells with one of each; an empty sequence allows any value.

    Raises ParamsError for a value that the table does not have, and if no cell is left.
    """
    allowed: dict[str, Sequence[Any]] = {
        "backbone": backbones,
        "loss": losses,
        "sampler": samplers,
        "dim": dims,
    }
    for column, values in allowed.items():
        choices = list(dict.fromkeys(getattr(cell, column) for cell in cells))
        for value in values:
            if value not in choices:
                raise ParamsError(f"Table 1 has no {column} {value!r}; it has {choices}")
    selected = [
        cell for cell in cells if all(not v or getattr(cell, column) in v for column, v in allowed.items())
    ]
    if not selected:
        raise ParamsError("Table 1 has no cell with this combination; give fewer options")
    return selected


def cell_overrides(cell: Cell, *, seed: int, as_in_paper: bool) -> dict[str, Any]:
    """Return the values that a cell overrides in params.yaml, by dotted name.

    `as_in_paper` adds the network, schedule, batch and margins of the preset for the cell's backbone, so that one
    grid can hold both backbones; otherwise those of params.yaml apply.
    """
    names = {
        "backbone": cell.backbone,
        "loss": cell.loss,
        "sampler": cell.sampler,
        "dim": cell.dim,
        "seed": seed,
    }
    if not as_in_paper:
        return names
    preset = yaml.safe_load(read_changes(PRESETS[cell.backbone]))
    settings = {
        "train": preset["train"],
        "samplers": {cell.sampler: preset["samplers"][cell.sampler]},
        "losses": {cell.loss: preset["losses"].get(cell.loss, {})},
        "backbones": preset.get("backbones", {}),
        "ssl": preset.get("ssl", {}),
    }
    return names | flatten_settings(settings)


def override(params: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of params.yaml with values, given by dotted name, replaced."""
    content = dict(params)
    for name, value in overrides.items():
        first, _, rest = name.partition(".")
        content[first] = override(content.get(first, {}), {rest: value}) if rest else value
    return content

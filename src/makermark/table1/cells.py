"""The cells of the paper's table, and what each changes in params.yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from typing import Any

import pandas as pd
import yaml

from makermark.errors import ParamsError
from makermark.presets import text_of
from makermark.tracking import flatten

CORPUS = "mlaad-v5"
UTTERANCES = {"dev": 12_000, "test": 33_900}  # rows of its protocol: the paper scores every pair of them
PRESET_OF = {"resnet34": "mlaad-resnet", "wav2vec2-aasist": "mlaad-ssl"}  # holds the paper's settings


@dataclass(frozen=True)
class Cell:
    """One row of paper.csv: an experiment, and the EERs in percent that the paper gives for it."""

    backbone: str
    loss: str
    sampler: str
    dim: int
    dev_eer_percent: float
    test_eer_percent: float

    @property
    def name(self) -> str:
        return f"{self.backbone}-{self.loss}-{self.sampler}-{self.dim}"


def paper() -> list[Cell]:
    """The paper's table, in its order."""
    with resources.files("makermark.table1").joinpath("paper.csv").open(encoding="utf-8") as file:
        rows = pd.read_csv(file, comment="#")
    return [Cell(*row) for row in rows[[field.name for field in fields(Cell)]].itertuples(index=False)]


def narrowed(
    cells: Sequence[Cell],
    *,
    backbones: Sequence[str] = (),
    losses: Sequence[str] = (),
    samplers: Sequence[str] = (),
    dims: Sequence[int] = (),
) -> list[Cell]:
    """The cells that have one of each (none named: any).

    Raises ParamsError for what stands nowhere in the table, and where no cell is left.
    """
    wanted: dict[str, Sequence[Any]] = {
        "backbone": backbones,
        "loss": losses,
        "sampler": samplers,
        "dim": dims,
    }
    for column, values in wanted.items():
        there = list(dict.fromkeys(getattr(cell, column) for cell in cells))
        for value in values:
            if value not in there:
                raise ParamsError(f"Table 1 has no {column} {value!r}; it has {there}")
    left = [
        cell for cell in cells if all(not v or getattr(cell, column) in v for column, v in wanted.items())
    ]
    if not left:
        raise ParamsError("Table 1 has no cell with all of that; name less")
    return left


def experiment(cell: Cell, *, seed: int, as_in_paper: bool) -> dict[str, Any]:
    """What the cell changes in params.yaml, by dotted name.

    `as_in_paper` adds the schedule, batch and margins of the preset for the cell's backbone, so that both backbones
    stand in one grid; else they are those of params.yaml.
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
    given = yaml.safe_load(text_of(PRESET_OF[cell.backbone]))
    settings = {
        "train": given["train"],
        "samplers": {cell.sampler: given["samplers"][cell.sampler]},
        "losses": {cell.loss: given["losses"].get(cell.loss, {})},
        "ssl": given.get("ssl", {}),
    }
    return names | flatten(settings)


def changed(params: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What params.yaml holds with `overrides`, by dotted name, set in it."""
    whole = dict(params)
    for name, value in overrides.items():
        first, _, rest = name.partition(".")
        whole[first] = changed(whole.get(first, {}), {rest: value}) if rest else value
    return whole

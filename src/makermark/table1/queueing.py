"""From the table to DVC's queue: what is wanted, what is held, what waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from makermark import tracking
from makermark.errors import FilesError, TrackingError
from makermark.grid import Experiment
from makermark.params import from_mapping, read_yaml
from makermark.table1.cells import Cell, changed, experiment
from makermark.table1.holding import Found, Work, code_in, held, held_by_dvc, work_of


@dataclass(frozen=True)
class Wanted:
    """One seed of one cell: its experiment, named after its work's digest, and the work."""

    cell: Cell
    experiment: Experiment
    work: Work


def wanted_in(
    folder: Path, cells: Sequence[Cell], seeds: Sequence[int], *, as_in_paper: bool
) -> list[Wanted]:
    """Every seed of every cell, by the code of HEAD, the data of dvc.lock and the params.yaml in `folder`."""
    params = read_yaml(folder / "params.yaml")
    from_mapping(params)
    code = code_in(folder)("HEAD")
    data = tracking.outputs_hash(folder / "dvc.lock", "download")
    return [
        _wanted(params, cell, seed, code=code, data=data, as_in_paper=as_in_paper)
        for cell in cells
        for seed in seeds
    ]


def _wanted(
    params: Mapping[str, Any], cell: Cell, seed: int, *, code: str, data: str, as_in_paper: bool
) -> Wanted:
    overrides = experiment(cell, seed=seed, as_in_paper=as_in_paper)
    work = work_of(from_mapping(changed(params, overrides)), code=code, data=data)
    name = f"table1-{cell.name}-s{seed}-{work.digest}"
    return Wanted(cell, Experiment(name, cell.name, seed, overrides), work)


def found_in(folder: Path, wanted: Sequence[Wanted]) -> tuple[dict[str, Found], str]:
    """What the store holds of the `wanted`, and DVC beside it, by name; and why the store could not be read, if so."""
    try:
        runs, problem = tracking.recorded_runs(folder), ""
    except TrackingError as error:
        runs, problem = [], str(error)
    works = {each.experiment.name: each.work for each in wanted}
    found = held(works, runs, code_of=code_in(folder))
    return held_by_dvc(works.keys() - found.keys(), folder) | found, problem


def refuse_unready(folder: Path, wanted: Sequence[Wanted]) -> None:
    """Raise FilesError where a run could never be known again: of files that differ from the commit, of no data yet."""
    tags = tracking.provenance(folder)
    if tags["git.dirty"] != "false":
        named = tags["git.changed"].splitlines()
        raise FilesError(
            f"{named[0] if named else folder}: differs from the commit, so that runs of it could never be told to be "
            "the same code; commit it, or go back with git restore"
        )
    if any(each.work.data == "none" for each in wanted):
        raise FilesError(
            f"{folder / 'dvc.lock'}: no corpus yet, so that runs could not be told to be on the same data; make it "
            "with dvc repro features, and commit dvc.lock"
        )

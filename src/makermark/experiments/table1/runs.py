"""The experiments of the table: planned, identified by code, data and params, looked up, and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from makermark.experiments import dvc_experiments
from makermark.experiments.grid import Experiment
from makermark.experiments.table1.paper_table import Cell, cell_overrides, override
from makermark.foundation import tracking
from makermark.foundation.errors import FilesError, TrackingError
from makermark.foundation.params import Params, parse_params, read_yaml
from makermark.training.active_params import active_params

CODE = ("src", "stages", "dvc.yaml")  # two commits have the same code if these are equal
UNUSED = ("probe", "fuse", "trace", "robustness", "foreign")  # sections without influence on score.json
SPEED_ONLY = ("workers", "device", "batch_seconds", "utterance_timeout_s")
REQUIRED = ("dev.eer_micro_percent", "test.eer_micro_percent")


@dataclass(frozen=True)
class ExperimentKey:
    """Everything that determines the metrics of an experiment."""

    code: str
    data: str
    params: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that differ for other code, data or params."""
        content = json.dumps([self.code, self.data, sorted(self.params.items())])
        return hashlib.sha256(content.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class RunResult:
    """The result of an experiment: the commit it was started from, and its metrics by dotted name."""

    commit: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class PlannedExperiment:
    """One seed of one cell: its experiment, whose name ends with the digest of its key, and the key."""

    cell: Cell
    experiment: Experiment
    key: ExperimentKey


def plan_experiments(
    folder: Path, cells: Sequence[Cell], seeds: Sequence[int], *, as_in_paper: bool
) -> list[PlannedExperiment]:
    """Plan every seed of every cell with the code of HEAD, the data of dvc.lock and the params.yaml in `folder`."""
    params = read_yaml(folder / "params.yaml")
    parse_params(params)
    code = code_lookup(folder)("HEAD")
    data = tracking.stage_outputs_hash(folder / "dvc.lock", "download")
    return [
        _plan(params, cell, seed, code=code, data=data, as_in_paper=as_in_paper)
        for cell in cells
        for seed in seeds
    ]


def _plan(
    params: Mapping[str, Any], cell: Cell, seed: int, *, code: str, data: str, as_in_paper: bool
) -> PlannedExperiment:
    overrides = cell_overrides(cell, seed=seed, as_in_paper=as_in_paper)
    key = experiment_key(parse_params(override(params, overrides)), code=code, data=data)
    name = f"table1-{cell.name}-s{seed}-{key.digest}"
    return PlannedExperiment(cell, Experiment(name, cell.name, seed, overrides), key)


def find_results(folder: Path, planned: Sequence[PlannedExperiment]) -> tuple[dict[str, RunResult], str]:
    """Return the results in the MLflow store and in DVC, by name, and why the store could not be read, if so."""
    try:
        runs, problem = tracking.query_runs(folder), ""
    except TrackingError as error:
        runs, problem = [], str(error)
    keys = {plan.experiment.name: plan.key for plan in planned}
    results = match_runs(keys, runs, code_of=code_lookup(folder))
    return read_dvc_results(keys.keys() - results.keys(), folder) | results, problem


def check_reproducible(folder: Path, planned: Sequence[PlannedExperiment]) -> None:
    """Raise FilesError if runs could not be identified later: files differ from the commit, or there is no corpus."""
    tags = tracking.provenance_tags(folder)
    if tags["git.dirty"] != "false":
        changed = tags["git.changed"].splitlines()
        raise FilesError(
            f"{changed[0] if changed else folder}: differs from the commit, so that the code of the runs would be "
            "unknown; commit it, or restore it with git restore"
        )
    if any(plan.key.data == "none" for plan in planned):
        raise FilesError(
            f"{folder / 'dvc.lock'}: no corpus yet, so that the data of the runs would be unknown; run dvc repro "
            "features, and commit dvc.lock"
        )


def experiment_key(params: Params, *, code: str, data: str) -> ExperimentKey:
    """Return the key of an experiment with these params."""
    return ExperimentKey(code, data, relevant_params(flatten_params(active_params(params))))


def flatten_params(params: Mapping[str, Any]) -> dict[str, str]:
    """Return params as a tracking store has them: dotted names, values as text."""
    return {name: str(value) for name, value in tracking.flatten_settings(params).items()}


def relevant_params(params: Mapping[str, str]) -> dict[str, str]:
    """Return the params that the EERs depend on: no settings of later stages, no number of workers."""
    return {
        name: value
        for name, value in params.items()
        if name.partition(".")[0] not in UNUSED and name.rpartition(".")[2] not in SPEED_ONLY
    }


def match_runs(
    keys: Mapping[str, ExperimentKey], runs: Iterable[tracking.RunRecord], *, code_of: Callable[[str], str]
) -> dict[str, RunResult]:
    """Return the result of the first run with each key, by name.

    A run counts if it was scored on dev and test from a clean work tree. Runs of version 0.1 record inactive params,
    too: with equal code and equal params of the key, those have no influence. `code_of` maps a commit to its code.
    """
    finished = [run for run in runs if run.clean and all(name in run.metrics for name in REQUIRED)]
    results = {}
    for name, key in keys.items():
        for run in finished:
            is_same = run.data == key.data and key.params.items() <= run.params.items()
            if is_same and code_of(run.commit) == key.code:
                results[name] = RunResult(run.commit, run.metrics)
                break
    return results


def read_dvc_results(names: Collection[str], folder: Path) -> dict[str, RunResult]:
    """Return the results of finished DVC experiments with these names: those that ran without a tracking store."""
    experiments = dvc_experiments.list_experiments(folder) if names else {}
    return {
        name: RunResult(
            dvc_experiments.baseline(experiments[name], folder),
            tracking.flatten_metrics(
                dvc_experiments.read_json(experiments[name], "metrics/score.json", folder)
            ),
        )
        for name in names
        if name in experiments
    }


def code_lookup(folder: Path) -> Callable[[str], str]:
    """Return a function from a commit of the repository `folder` to git's hashes of CODE in it.

    A commit that the repository does not have maps to itself.
    """

    @cache
    def code_of(commit: str) -> str:
        try:
            return dvc_experiments.run(["git", "rev-parse", *(f"{commit}:{path}" for path in CODE)], folder)
        except FilesError:
            return commit

    return code_of

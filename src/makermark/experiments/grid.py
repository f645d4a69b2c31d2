"""A grid of experiments run by the DVC queue: arms and seeds from one YAML file, results from DVC's experiments.

An arm is a row of the table, such as `ge2e: {loss: ge2e}`; each arm runs once per seed. An experiment is named
GRID-ARM-sSEED. The files that git and DVC store under that name are its results.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

from makermark.experiments import dvc_experiments
from makermark.foundation.errors import ParamsError
from makermark.foundation.files import read_json
from makermark.foundation.params import read_yaml

KEYS = ("seeds", "common", "arms")


@dataclass(frozen=True)
class Experiment:
    """One cell of a grid: its name, and the values that it overrides in params.yaml."""

    name: str
    arm: str
    seed: int
    overrides: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """The results of an experiment."""

    experiment: Experiment
    commit: str  # the commit that it was started from
    score: Mapping[str, Any]  # metrics/score.json
    train_seconds: float  # of all stages of training


def read_grid(path: Path) -> list[Experiment]:
    """Read the experiments of a grid file, arm by arm; raises ParamsError for unknown or missing keys.

    `seeds` is a list, `common` holds the overrides of every arm, `arms` maps a name to its own overrides, which may
    include `seeds`. Overrides are written as for `dvc exp run -S`, such as `train.epochs: 12`.
    """
    content = read_yaml(path)
    if not isinstance(content, Mapping) or set(content) != set(KEYS):
        present = sorted(content) if isinstance(content, Mapping) else content
        raise ParamsError(f"{path}: has {present}; a grid has exactly the keys {sorted(KEYS)}")
    common, arms = (_mapping(content[key], key=f"{path}: {key}") for key in ("common", "arms"))
    experiments = []
    for arm, arm_content in arms.items():
        arm_overrides = _mapping(arm_content, key=f"{path}: arms.{arm}")
        overrides = {"seeds": content["seeds"], **common, **arm_overrides}
        seeds = overrides.pop("seeds")
        if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
            raise ParamsError(
                f"{path}: seeds of arm {arm} are {seeds!r}; they must be a list of whole numbers, such as [0, 1]"
            )
        for seed in seeds:
            experiments.append(
                Experiment(f"{path.stem}-{arm}-s{seed}", arm, seed, {**overrides, "seed": seed})
            )
    return experiments


def queue_experiments(experiments: Sequence[Experiment], folder: Path) -> list[str]:
    """Queue the experiments that are neither finished nor in DVC's queue; return their names.

    `dvc exp run --run-all` runs them. Raises ParamsError if params.yaml differs from the commit, because every
    experiment would inherit the difference, and if an experiment of the same name had other params.
    """
    if dvc_experiments.run(["git", "status", "--porcelain", "params.yaml"], folder).strip():
        raise ParamsError(
            "params.yaml has changes that every experiment of the grid would inherit; commit it, or restore it with "
            "git restore params.yaml"
        )
    finished = dvc_experiments.list_experiments(folder)
    for experiment in experiments:
        if experiment.name in finished:
            _check_same_params(experiment, finished[experiment.name], folder)
    known = {*finished, *dvc_experiments.names_in_queue(folder)}
    new = [experiment for experiment in experiments if experiment.name not in known]
    for experiment in new:
        settings = [f"--set-param={key}={_to_yaml(value)}" for key, value in experiment.overrides.items()]
        dvc_experiments.run_dvc(["exp", "run", "--queue", "--name", experiment.name, *settings], folder)
    return [experiment.name for experiment in new]


def collect_outcomes(experiments: Sequence[Experiment], folder: Path) -> list[Outcome]:
    """Return the outcomes of finished experiments, in the order of the grid.

    Raises ParamsError if an experiment had other params than the grid has now.
    """
    finished = dvc_experiments.list_experiments(folder)
    return [_read_outcome(e, finished[e.name], folder) for e in experiments if e.name in finished]


def _read_outcome(experiment: Experiment, revision: str, folder: Path) -> Outcome:
    _check_same_params(experiment, revision, folder)
    score = dvc_experiments.read_json(revision, "metrics/score.json", folder)
    with tempfile.TemporaryDirectory() as temporary:
        history, best = Path(temporary) / "history.json", Path(temporary) / "best.json"
        for path in (history, best):
            dvc_experiments.download(revision, f"models/{path.name}", path, folder)
        epochs = [*read_json(best)["emphasis"], *read_json(history)]
    seconds = sum(epoch["train_seconds"] for epoch in epochs)
    return Outcome(experiment, dvc_experiments.baseline(revision, folder), score, seconds)


def _check_same_params(experiment: Experiment, revision: str, folder: Path) -> None:
    """Raise ParamsError if the experiment of this name had other values than the grid has now."""
    params = yaml.safe_load(dvc_experiments.read_text(revision, "params.yaml", folder))
    for key, value in experiment.overrides.items():
        earlier = reduce(
            lambda section, part: section.get(part) if isinstance(section, dict) else None,
            key.split("."),
            params,
        )
        if earlier != value:
            raise ParamsError(
                f"experiment {experiment.name} was run with {key}={earlier!r}, but the grid has {value!r}; remove it "
                f"with dvc exp remove {experiment.name}, and queue it again"
            )


def _mapping(value: Any, *, key: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ParamsError(f"{key} is {value!r}; it takes keys and values, such as {{loss: ge2e}}")
    return {str(name): entry for name, entry in value.items()}


def _to_yaml(value: Any) -> str:
    """Return the value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()

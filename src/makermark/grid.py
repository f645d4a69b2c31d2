"""A grid of experiments through the DVC queue: arms and seeds from one YAML file, results from what DVC kept.

An arm is a row of the table, such as `ge2e: {loss: ge2e}`; each arm runs once per seed. An experiment is named
GRID-ARM-sSEED, and what it left under that name in git and in DVC's cache is its result.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

from makermark import kept
from makermark.errors import ParamsError
from makermark.files import read_json
from makermark.params import read_yaml
from makermark.running import running_in

KEYS = ("seeds", "common", "arms")


@dataclass(frozen=True)
class Experiment:
    """One cell of a grid: what it is called, and what it changes in params.yaml."""

    name: str
    arm: str
    seed: int
    overrides: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What an experiment left."""

    experiment: Experiment
    commit: str  # that it started from
    score: Mapping[str, Any]  # metrics/score.json
    train_seconds: float  # of all stages of training


def read_grid(path: Path) -> list[Experiment]:
    """The experiments of a grid file, arm by arm; raises ParamsError for unknown or missing keys.

    `seeds` is a list, `common` the overrides of every arm, `arms` maps a name to its own overrides, which may
    hold `seeds` too. Overrides are written as for `dvc exp run -S`, such as `train.epochs: 12`.
    """
    content = read_yaml(path)
    if not isinstance(content, Mapping) or set(content) != set(KEYS):
        found = sorted(content) if isinstance(content, Mapping) else content
        raise ParamsError(f"{path}: holds {found}; a grid has exactly the keys {sorted(KEYS)}")
    common, arms = (_mapping(content[key], where=f"{path}: {key}") for key in ("common", "arms"))
    experiments = []
    for arm, own in arms.items():
        of_arm = _mapping(own, where=f"{path}: arms.{arm}")
        overrides = {"seeds": content["seeds"], **common, **of_arm}
        seeds = overrides.pop("seeds")
        if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
            raise ParamsError(
                f"{path}: seeds of arm {arm} are {seeds!r}; they are a list of whole numbers, as [0, 1]"
            )
        for seed in seeds:
            experiments.append(
                Experiment(f"{path.stem}-{arm}-s{seed}", arm, seed, {**overrides, "seed": seed})
            )
    return experiments


def queue(experiments: Sequence[Experiment], folder: Path) -> list[str]:
    """Put those that DVC has not run, runs or has queued into its queue; returns their names.

    `dvc exp run --run-all` runs them. Raises ParamsError if params.yaml differs from the commit's (every experiment
    would inherit that), and for an experiment kept under one of the names that had other params.
    """
    if kept.run(["git", "status", "--porcelain", "params.yaml"], folder).strip():
        raise ParamsError(
            "params.yaml has changes that every experiment of the grid would inherit; commit it, or go back with "
            "git restore params.yaml"
        )
    there, waiting = kept.experiments(folder), kept.queued(folder)
    for experiment in experiments:
        if experiment.name in there:
            _refuse_other_params(experiment, there[experiment.name], folder)
    known = {*there, *waiting, *running_in(folder)}
    new = [experiment for experiment in experiments if experiment.name not in known]
    for experiment in new:
        settings = [f"--set-param={key}={_written(value)}" for key, value in experiment.overrides.items()]
        kept.dvc(["exp", "run", "--queue", "--name", experiment.name, *settings], folder)
    return [experiment.name for experiment in new]


def collect(experiments: Sequence[Experiment], folder: Path) -> list[Outcome]:
    """The outcomes of those that have run, in the grid's order; raises ParamsError for one that had other params."""
    there = kept.experiments(folder)
    return [_outcome(e, there[e.name], folder) for e in experiments if e.name in there]


def _outcome(experiment: Experiment, reference: str, folder: Path) -> Outcome:
    _refuse_other_params(experiment, reference, folder)
    score = kept.read_kept(reference, "metrics/score.json", folder)
    with tempfile.TemporaryDirectory() as scratch:
        history, best = Path(scratch) / "history.json", Path(scratch) / "best.json"
        for path in (history, best):
            kept.fetch(reference, f"models/{path.name}", path, folder)
        epochs = [*read_json(best)["emphasis"], *read_json(history)]
    seconds = sum(epoch["train_seconds"] for epoch in epochs)
    return Outcome(experiment, kept.baseline(reference), score, seconds)


def _refuse_other_params(experiment: Experiment, reference: str, folder: Path) -> None:
    """Raise ParamsError where the experiment of this name had other values than the grid gives now."""
    params = yaml.safe_load(kept.read_text(reference, "params.yaml", folder))
    for key, wanted in experiment.overrides.items():
        found = reduce(
            lambda section, part: section.get(part) if isinstance(section, dict) else None,
            key.split("."),
            params,
        )
        if found != wanted:
            raise ParamsError(
                f"experiment {experiment.name} was run with {key}={found!r}, the grid says {wanted!r}: it is another "
                f"experiment; dvc exp remove {experiment.name}, and queue again"
            )


def _mapping(value: Any, *, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ParamsError(f"{where} is {value!r}; it takes keys and values, such as {{loss: ge2e}}")
    return {str(key): entry for key, entry in value.items()}


def _written(value: Any) -> str:
    """As YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
